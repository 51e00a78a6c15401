"""Losses of the tasks, as sums over what counts, divided by how much counts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bertkeras.layers.common import xla_on_processor


def cross_entropy(targets: Any, logits: Any) -> Any:
    """`-log softmax(logits)[target]` in float32; `targets` integers `(...)`, `logits` `(..., classes)`."""
    return keras.losses.sparse_categorical_crossentropy(targets, ops.cast(logits, "float32"), from_logits=True)


def losses_and_points(targets: Any, logits: Any) -> tuple[Any, Any]:
    """The cross-entropy of each row, and its point for a target that no class outscores, shared by classes that tie.

    Args:
        targets: `(rows,)` integers.
        logits: `(rows, classes)`.

    Returns:
        Two of `(rows,)`, float32. The points have no gradient.
    """
    logits = ops.cast(logits, "float32")
    if keras.backend.backend() == "tensorflow" and xla_on_processor() and logits.shape[-1] >= LAYERS**2:
        return _in_layers(targets, logits)
    # a maximum, because XLA is slow at an argmax over a vocabulary
    best = ops.max(logits, axis=-1, keepdims=True)
    ties = ops.sum(ops.cast(logits == best, "float32"), axis=-1)
    picked = ops.take_along_axis(logits, targets[..., None], axis=-1)
    return cross_entropy(targets, logits), ops.cast(picked == best, "float32")[..., 0] / ties


LAYERS = 16


def _in_layers(targets: Any, logits: Any) -> tuple[Any, Any]:
    """The same, for TensorFlow's XLA on a processor.

    It writes down what a sum or a maximum over classes runs over: of a vocabulary, half a dozen tables of the size of
    the logits. It does not where slices of the table, here called layers, are added to each other first.
    """

    def over_classes(each: Callable[[Any], Any], add: Callable[[Any, Any], Any], total: Callable[..., Any]) -> Any:
        size = logits.shape[-1] // LAYERS
        layers = [each(logits[:, first : first + size]) for first in range(0, LAYERS * size, size)]
        sums, rest = total(functools.reduce(add, layers), axis=-1), logits[:, LAYERS * size :]
        return add(sums, total(each(rest), axis=-1)) if rest.shape[-1] else sums

    def with_gradient(logits: Any) -> tuple[Any, Callable[..., Any]]:
        best = over_classes(lambda x: x, ops.maximum, ops.max)[:, None]
        total = over_classes(lambda x: ops.exp(x - best), ops.add, ops.sum)
        ties = over_classes(lambda x: ops.cast(x == best, "float32"), ops.add, ops.sum)
        picked = ops.take_along_axis(logits, targets[:, None], axis=-1)

        def gradient(of_losses: Any, _: Any) -> Any:
            is_target = ops.arange(logits.shape[-1], dtype=targets.dtype) == targets[:, None]
            slope = of_losses[:, None]
            return ops.exp(logits - best) * (slope / total[:, None]) - ops.where(is_target, slope, 0.0)

        losses, points = ops.log(total) + (best - picked)[:, 0], ops.cast(picked == best, "float32")[:, 0] / ties
        return (losses, points), gradient

    return ops.custom_gradient(with_gradient)(logits)


def weighted_mean(losses: Any, weights: Any = None) -> Any:
    """The mean of `losses`, or their mean under `weights` of the same shape; 0 where all weights are 0."""
    if weights is None:
        return ops.mean(losses)
    weights = ops.cast(weights, losses.dtype)
    return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), keras.config.epsilon())
