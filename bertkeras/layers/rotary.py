"""Positions as rotations of queries and keys."""

from __future__ import annotations

from typing import Any

from keras import ops


def rotate(x: Any, length_axis: int, positions: Any = None) -> Any:
    """Each pair of numbers `(i, i + head_dim / 2)` of a vector turned by `position / 10000^(2 i / head_dim)`.

    The product of a query and a key then depends on how far apart they stand and not on where: what was learned near
    the beginning of a row holds everywhere, and rows that hold several texts need no positions of their own.

    Args:
        x: `(batch, ..., head_dim)` of rank 4; of an odd width the last number stays.
        length_axis: Which of its axes the positions run along: 1 or 2.
        positions: `(batch, length)` integers; 0, 1, 2, ... if `None`.

    Returns:
        Like `x`.

    Reference: Su et al. 2021, RoFormer, https://arxiv.org/abs/2104.09864
    """
    half = x.shape[-1] // 2
    if positions is None:
        positions = ops.arange(ops.shape(x)[length_axis])[None]
    frequencies = ops.power(10_000.0, -ops.arange(half, dtype="float32") / half)
    angles = ops.cast(positions, "float32")[..., None] * frequencies  # (batch or 1, length, half)
    angles = ops.expand_dims(angles, 3 - length_axis)  # a 1 for the heads
    sine, cosine = ops.cast(ops.sin(angles), x.dtype), ops.cast(ops.cos(angles), x.dtype)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cosine - second * sine, first * sine + second * cosine]
    return ops.concatenate([*turned, rest] if rest.shape[-1] else turned, axis=-1)
