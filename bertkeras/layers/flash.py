"""Attention in one kernel of cuDNN, which writes down no table of scores (FlashAttention, Dao et al. 2022)."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from bertkeras.layers.recompute import savings


@dataclasses.dataclass(frozen=True)
class Flash:
    """What the kernel may do.

    Attributes:
        on: Whether it may be used at all.
        dropout: Whether it may draw dropout's bits itself. They hang on how often it has run since the program began,
            and on nothing that is saved with a model.
        sequences: No packed row has more runs of one id than this, from 2 on; `None` says that nobody has counted.
    """

    on: bool = True
    dropout: bool = False
    sequences: int | None = None


LONG = 256  # from this length of row on it pays in any case

DEFAULT = Flash()
_flash: contextvars.ContextVar[Flash] = contextvars.ContextVar("flash", default=DEFAULT)


@contextlib.contextmanager
def flash(settings: Flash) -> Iterator[None]:
    """Within, attention goes by these settings."""
    token = _flash.set(settings)
    try:
        yield
    finally:
        _flash.reset(token)


def flash_sequences() -> int | None:
    """The most runs of one id that a packed row has, where somebody has counted."""
    return _flash.get().sequences


def can_flash(inputs: Any, head_dim: int, dropout: float) -> bool:
    """Whether `flash_attention` may stand in for attention operation by operation.

    It is there through JAX on an NVIDIA GPU from Ampere on, a single one, and in half precision.
    `keras.config.disable_flash_attention` keeps it away. Dropout must be allowed to it, blocks that are computed twice
    would draw other bits the second time, and for short rows it saves nothing then: a step of BERT-base in rows of 128
    took as long with it as without on an H200.

    Args:
        inputs: `(batch, length, hidden_dim)`.
        head_dim: Width of a head.
        dropout: The rate of this call.
    """
    settings = _flash.get()
    if not settings.on or keras.config.is_flash_attention_enabled() is False:
        return False
    length = inputs.shape[1] or 1  # unknown where a model is only described
    if dropout and (not settings.dropout or savings().recompute or length < LONG):
        return False
    if keras.backend.standardize_dtype(inputs.dtype) not in ("bfloat16", "float16"):
        return False
    return head_dim % 8 == 0 and head_dim <= 128 and length % 2 == 0 and has_flash_kernels()


def has_flash_kernels() -> bool:
    """Whether JAX is the backend and runs on one NVIDIA GPU that has the kernels."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        return False
    try:
        return float(jax.local_devices()[0].compute_capability) >= 8.0
    except (AttributeError, ValueError):  # AMD's have another form, or none
        return False


def flash_attention(
    query: Any, key: Any, value: Any, mask: Any = None, sequence_ids: Any = None, dropout: float = 0.0, seed: int = 0
) -> Any:
    """`dropout(softmax(Q K^T / sqrt(head_dim))) V` in one kernel.

    A position that may attend to nothing gets an average of some values, where attention operation by operation gives
    zeros: no loss reads it, and to set it to zero would take another pass.

    Args:
        query: `(batch, queries, num_heads, head_dim)`.
        key: `(batch, keys, num_heads, head_dim)`.
        value: As `key`.
        mask: Boolean, `True` = attend, `(batch, 1 or num_heads, 1 or queries, keys)`.
        sequence_ids: `(batch, length)` integers in the place of `mask`, where `Flash.sequences` is set: only positions
            of one run of an id see each other, and other pairs take no time.
        dropout: Dropout rate on the probabilities.
        seed: Of the dropout, fixed when the step is compiled; the kernel counts on by itself from call to call.

    Returns:
        As `query`.
    """
    import jax.numpy as jnp
    from jax._src.cudnn.fused_attention_stablehlo import (  # the public one has neither dropout nor packed rows
        MaskType,
        dot_product_attention,
    )

    options = {"scale": query.shape[-1] ** -0.5, "dropout_rate": dropout, "seed": seed}
    if (most := flash_sequences()) and sequence_ids is not None:
        lengths, offsets = runs(sequence_ids, most)  # the kernel wants one more offset than there can be runs
        parts = {"q_seqlen": lengths, "kv_seqlen": lengths, "q_offsets": offsets, "kv_offsets": offsets}
        return dot_product_attention(query, key, value, **parts, mask_type=MaskType.PADDING, **options)
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], mask.shape[3]))
    return dot_product_attention(query, key, value, mask=mask, **options)


def runs(ids: Any, most: int) -> tuple[Any, Any]:
    """The runs of an id: their lengths `(batch, most)` and where they begin `(batch, most + 1)`, filled up with -1."""
    import jax.numpy as jnp

    begins = jnp.pad(ids[:, 1:] != ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    which = jnp.cumsum(begins, axis=1) - 1  # (batch, length)
    lengths = jnp.sum(which[:, :, None] == jnp.arange(most), axis=1, dtype="int32")
    there, starts = lengths > 0, jnp.cumsum(lengths, axis=1, dtype="int32") - lengths
    return jnp.where(there, lengths, -1), jnp.pad(jnp.where(there, starts, -1), ((0, 0), (0, 1)), constant_values=-1)


def count_runs(ids: np.ndarray, limit: int = 16, shortest: int = LONG) -> int | None:
    """The most runs of one id in a row, rounded up to a power of two from 2 on, so that few programs are compiled.

    `None` where a mask costs less, above the limit and for rows shorter than `shortest`: on an H200 the kernel took 1.7
    times as long for two runs of 64 as with a mask, and half as long for two of 256. `None` too where a sequence comes
    in two parts, which only a mask can tell.
    """
    if ids.shape[1] < shortest:
        return None
    changes = np.diff(ids, axis=1) != 0
    most = 1 + int(changes.sum(axis=1).max(initial=0))
    begins = np.concatenate([np.ones_like(changes[:, :1]), changes], axis=1) & (ids > 0)
    grows = all((np.diff(row[at]) > 0).all() for row, at in zip(ids, begins, strict=True))
    return max(2, 1 << (most - 1).bit_length()) if grows and most <= limit else None
