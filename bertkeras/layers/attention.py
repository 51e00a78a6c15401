"""Multi-head self-attention (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers.common import (
    bert_initializer,
    runs_operation_by_operation,
    take_positions,
    xla_on_accelerator,
)
from bertkeras.layers.dense import Dense, affine
from bertkeras.layers.dropout import Dropout
from bertkeras.layers.flash import can_flash, flash_attention, flash_sequences
from bertkeras.layers.rotary import rotate


@keras.saving.register_keras_serializable(package="bertkeras")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Every position looks at every other: `softmax(Q K^T / sqrt(d_k)) V`, in `num_heads` subspaces at once.

    `Q`, `K` and `V` come from one matrix product with a kernel of shape `(hidden_dim, 3 * hidden_dim)`, whose
    columns are ordered `[Q | K | V]` and, inside each, head by head. The softmax runs in float32 at least. A
    position that may attend to nothing gives zeros before the output projection, never NaN.

    Args:
        num_heads: Number of heads; divides the width of the input.
        dropout: Dropout rate on the attention probabilities, in training only.
        rotary: Whether queries and keys are turned by their positions, so that their products tell how far apart they
            stand (Su et al. 2021).
        initializer_range: Standard deviation of the truncated normal that draws the kernels.
        seed: Seed of the dropout; `None` takes one from `keras.utils.set_random_seed`.

    Call arguments:
        inputs: `(batch, length, hidden_dim)`.
        attention_mask: Boolean, `True` = attend. `(batch, length)` marks the keys that are not padding,
            `(batch, length, length)` says for each query which keys it sees, and
            `(batch, 1 or num_heads, length, length)` says so for each head.
        return_attention_scores: Also return the probabilities, `(batch, num_heads, length, length)`.
        query_positions: `(batch, n)` integers: only these positions look. They give the same rows as without.
        training: Whether dropout is on.

    Returns:
        `(batch, length or n, hidden_dim)`, or a pair of it and the probabilities `(batch, heads, length or n, length)`.

    Raises:
        BertKerasError: `num_heads` does not divide `hidden_dim`; a mask that is not boolean or has another rank.

    Example:

    >>> import numpy as np
    >>> from bertkeras.layers import MultiHeadSelfAttention
    >>> tuple(MultiHeadSelfAttention(num_heads=2)(np.ones((1, 5, 6), "float32")).shape)
    (1, 5, 6)

    Reference: Vaswani et al. 2017, Attention Is All You Need, https://arxiv.org/abs/1706.03762
    """

    def __init__(
        self,
        num_heads: int,
        dropout: float = 0.0,
        rotary: bool = False,
        initializer_range: float = 0.02,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout
        self.rotary = rotary
        self.initializer_range = initializer_range
        self.seed = seed
        self.attention_dropout = Dropout(dropout, seed=seed, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        hidden_dim = input_shape[-1]
        if hidden_dim is None or hidden_dim % self.num_heads:
            raise BertKerasError(f"num_heads={self.num_heads} does not divide the width {hidden_dim} of the input")
        self.head_dim = hidden_dim // self.num_heads
        scale = self.initializer_range
        self.qkv_dense = Dense(
            3 * hidden_dim, kernel_initializer=bert_initializer(scale), dtype=self.dtype_policy, name="qkv"
        )
        self.output_dense = Dense(
            hidden_dim, kernel_initializer=bert_initializer(scale), dtype=self.dtype_policy, name="output"
        )
        self.qkv_dense.build(input_shape)
        self.output_dense.build(input_shape)

    def call(
        self,
        inputs: Any,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        query_positions: Any = None,
        training: bool | None = None,
    ) -> Any:
        ids = attention_mask if is_sequence_ids(attention_mask) else None
        if ids is not None:
            attention_mask = mask_of_sequences(ids)
        mask = None if attention_mask is None else broadcast_mask(attention_mask)
        rate = self.attention_dropout.rate if training else 0.0
        if query_positions is None and not return_attention_scores and can_flash(inputs, self.head_dim, rate):
            seed = self.attention_dropout.seed_generator._initial_seed if rate else 0
            context = flash_attention(*self.heads_of(inputs), mask, ids, rate, seed)
            return self.output_dense(ops.reshape(context, ops.shape(inputs)))
        query, key, value = self.project(inputs)  # each (batch, num_heads, length, head_dim)
        if query_positions is not None:
            query = take_positions(query, ops.expand_dims(query_positions, 1))  # (batch, heads, n, head_dim)
            if mask is not None and mask.shape[2] != 1:
                mask = ops.take_along_axis(mask, query_positions[:, None, :, None], axis=2)
        outputs, probabilities = self.attend(query, key, value, mask, training=training)
        return (outputs, probabilities) if return_attention_scores else outputs

    def project(self, inputs: Any, positions: Any = None) -> tuple[Any, Any, Any]:
        """`Q`, `K` and `V` of `inputs` `(batch, length, hidden_dim)`, each `(batch, num_heads, length, head_dim)`.

        `positions` `(batch, length)` says where they stand, if not at 0, 1, 2, ...; only rotations ask for it.
        """
        if runs_operation_by_operation():  # one copy, of which TensorFlow takes the thirds without another
            batch, length = ops.shape(inputs)[0], ops.shape(inputs)[1]
            qkv = ops.reshape(self.qkv_dense(inputs), (batch, length, 3, self.num_heads, self.head_dim))
            qkv = ops.transpose(qkv, (2, 0, 3, 1, 4))
            query, key, value = qkv[0], qkv[1], qkv[2]
            if self.rotary:
                query, key = (rotate(x, 2, positions) for x in (query, key))
            return query, key, value
        query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in self.heads_of(inputs, positions))
        return query, key, value

    def heads_of(self, inputs: Any, positions: Any = None) -> tuple[Any, Any, Any]:
        """The same, each `(batch, length, num_heads, head_dim)`."""
        batch, length = ops.shape(inputs)[0], ops.shape(inputs)[1]
        if xla_on_accelerator():  # three products there cost less than one that must be cut up, and put together again
            weights = zip(ops.split(self.qkv_dense.kernel, 3, axis=-1), ops.split(self.qkv_dense.bias, 3), strict=True)
            parts = [affine(inputs, kernel, bias) for kernel, bias in weights]
        else:
            parts = ops.split(self.qkv_dense(inputs), 3, axis=-1)  # of (batch, length, 3 * hidden_dim)
        query, key, value = (ops.reshape(x, (batch, length, self.num_heads, self.head_dim)) for x in parts)
        if self.rotary:
            query, key = (rotate(x, 1, positions) for x in (query, key))
        return query, key, value

    def attend(
        self, query: Any, key: Any, value: Any, mask: Any = None, training: bool | None = None
    ) -> tuple[Any, Any]:
        """The outputs `(batch, queries, hidden_dim)` and the probabilities `(batch, num_heads, queries, keys)`.

        Args:
            query: `(batch, num_heads, queries, head_dim)`.
            key: `(batch, num_heads, keys, head_dim)`; the keys may be those of other positions than the queries.
            value: As `key`.
            mask: Boolean, `(batch, 1 or num_heads, 1 or queries, keys)`.
            training: Whether dropout is on.
        """
        query = query * ops.cast(self.head_dim**-0.5, query.dtype)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (batch, heads, queries, keys)
        scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
        if mask is not None:
            # -1e9 vanishes after the exponential; -inf would give NaN where a position sees nothing
            scores = scores + ops.cast(ops.logical_not(mask), scores.dtype) * -1e9
        probabilities = ops.softmax(scores, axis=-1)
        if mask is not None:
            sees_something = ops.any(mask, axis=-1, keepdims=True)
            probabilities = probabilities * ops.cast(sees_something, probabilities.dtype)
        probabilities = ops.cast(probabilities, value.dtype)

        dropped = self.attention_dropout(probabilities, training=training)
        context = ops.matmul(dropped, value)  # (batch, heads, queries, head_dim)
        context = ops.transpose(context, (0, 2, 1, 3))
        batch, queries = ops.shape(context)[0], ops.shape(context)[1]
        context = ops.reshape(context, (batch, queries, self.num_heads * self.head_dim))
        return self.output_dense(context), probabilities

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def compute_output_spec(
        self,
        inputs: Any,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        query_positions: Any = None,
        training: bool | None = None,
    ) -> Any:
        if attention_mask is not None:
            broadcast_mask(attention_mask)
        batch, length, hidden_dim = inputs.shape
        queries = length if query_positions is None else query_positions.shape[1]
        outputs = keras.KerasTensor((batch, queries, hidden_dim), dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        return outputs, keras.KerasTensor((batch, self.num_heads, queries, length), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "rotary": self.rotary,
            "initializer_range": self.initializer_range,
            "seed": self.seed,
        }


def is_sequence_ids(mask: Any) -> bool:
    """Whether it is the ids of packed rows, `(batch, length)`, which come in its place where their runs are counted."""
    return flash_sequences() is not None and mask is not None and len(mask.shape) == 2 and mask.dtype != bool


def mask_of_sequences(sequence_ids: Any) -> Any:
    """Who sees whom in packed rows of ids `(batch, length)`, 0 = padding: `(batch, length, length)`."""
    same = ops.equal(sequence_ids[:, :, None], sequence_ids[:, None, :])
    return ops.logical_and(same, sequence_ids[:, None, :] > 0)


def broadcast_mask(mask: Any) -> Any:
    """Bring a boolean mask of rank 2, 3 or 4 to rank 4, `(batch, heads, queries, keys)`.

    Raises:
        BertKerasError: The mask is not boolean or has another rank.
    """
    dtype, rank = keras.backend.standardize_dtype(mask.dtype), len(mask.shape)
    if dtype != "bool" or rank not in (2, 3, 4):
        raise BertKerasError(
            "attention_mask must be boolean (True = attend) of shape (batch, keys), (batch, queries, keys) or "
            f"(batch, heads, queries, keys); got {dtype} of shape {tuple(mask.shape)}"
        )
    if rank == 2:
        return ops.expand_dims(mask, (1, 2))
    return ops.expand_dims(mask, 1) if rank == 3 else mask
