"""The loss of the masked-LM head in parts, so that the scores of all positions never lie in memory together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from bertkeras.layers import MaskedLMHead
from bertkeras.layers.recompute import after
from bertkeras.models.losses import losses_and_points


def sums_in_chunks(
    head: MaskedLMHead, vectors: Any, table: keras.Variable, labels: Any, weights: Any, chunks: int
) -> tuple[Any, Any]:
    """The weighted sums of loss and of points, from the scores of one chunk of the predictions after the other.

    The gradient of a chunk is taken at once, while its scores are there, and added up (Hsu et al. 2024, section 3.3):
    nothing is computed twice. The loss must therefore be the only way in which the scores are used.

    Args:
        head: The masked-LM head.
        vectors: `(batch, predictions, hidden_dim)`, at the masked positions.
        table: The token table, `(vocabulary_size, hidden_dim)`.
        labels: `(batch, predictions)` integers.
        weights: `(batch, predictions)` float32.
        chunks: How many; each has some predictions of every row.

    Returns:
        Two float32 scalars; the points have no gradient.
    """
    variables = [*head.trainable_variables, *([table] if head.tied else [])]
    bounds = [vectors.shape[1] * part // chunks for part in range(chunks + 1)]
    parts = [slice(a, b) for a, b in itertools.pairwise(bounds) if a < b]

    def of_part(part: slice) -> Callable[..., tuple[Any, Any]]:
        def sums(some: Any, *values: Any) -> tuple[Any, Any]:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                logits = head(some, None, table)
            targets = ops.reshape(labels[:, part], (-1,))
            losses, points = losses_and_points(targets, ops.reshape(logits, (-1, logits.shape[-1])))
            counted = ops.reshape(weights[:, part], (-1,))
            return ops.sum(losses * counted), ops.stop_gradient(ops.sum(points * counted))

        return sums

    def with_gradient(vectors: Any, *values: Any) -> tuple[Any, Callable[..., Any]]:
        loss = points = ops.zeros((), "float32")
        by_vectors: list[Any] = []
        by_values: list[Any] = []
        for part in parts:
            some = after(vectors[:, part], by_values[-1]) if by_values else vectors[:, part]  # one after the other
            (more, right), (by_some, *by_these) = value_and_gradients(of_part(part), some, values)
            loss, points = loss + more, points + right
            by_vectors.append(by_some)
            by_values = [a + b for a, b in zip(by_values, by_these, strict=True)] if by_values else by_these

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, ...]:
            if upstream is None:  # only PyTorch's wrapper gives it a name, and the arguments before
                (upstream,) = arguments
            by_all = [ops.concatenate(by_vectors, axis=1), *by_values]
            return tuple(x * ops.cast(upstream[0], x.dtype) for x in by_all)

        return ops.stack([loss, points]), gradient

    sums = ops.custom_gradient(with_gradient)(vectors, *(variable.value for variable in variables))
    return sums[0], sums[1]


def value_and_gradients(
    function: Callable[..., tuple[Any, Any]], x: Any, values: Sequence[Any]
) -> tuple[tuple[Any, Any], list[Any]]:
    """What `function(x, *values)` gives, and the derivatives of the first of both by `x` and each value."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.value_and_grad(function, tuple(range(len(values) + 1)), has_aux=True)(x, *values)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        arguments = [tf.convert_to_tensor(argument) for argument in (x, *values)]
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            loss, points = function(*arguments)
        found = tape.gradient(loss, arguments, unconnected_gradients="zero")
        return (loss, points), [tf.convert_to_tensor(gradient) for gradient in found]
    import torch

    with torch.enable_grad():
        arguments = [argument.detach().requires_grad_() for argument in (x, *values)]
        loss, points = function(*arguments)
        return (loss.detach(), points), list(torch.autograd.grad(loss, arguments))
