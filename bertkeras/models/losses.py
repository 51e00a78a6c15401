"""Losses of the tasks, as sums over what counts, divided by how much counts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def cross_entropy(targets: Any, logits: Any) -> Any:
    """`-log softmax(logits)[target]` in float32; `targets` integers `(...)`, `logits` `(..., classes)`."""
    return keras.losses.sparse_categorical_crossentropy(targets, ops.cast(logits, "float32"), from_logits=True)


def weighted_mean(losses: Any, weights: Any = None) -> Any:
    """The mean of `losses`, or their mean under `weights` of the same shape; 0 where all weights are 0."""
    if weights is None:
        return ops.mean(losses)
    weights = ops.cast(weights, losses.dtype)
    return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), keras.config.epsilon())
