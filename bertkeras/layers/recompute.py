"""Activations computed again in the backward pass instead of being kept (Chen et al. 2016)."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from bertkeras.layers.dropout import dropouts_of, with_drawn


@dataclasses.dataclass(frozen=True)
class Savings:
    """How a model that trains saves memory.

    Attributes:
        recompute: A backbone keeps of each block its input alone, for one more forward pass of it later.
        head_chunks: The masked-LM head scores its positions in so many parts, one after the other.
    """

    recompute: bool = False
    head_chunks: int = 1


NO_SAVINGS = Savings()
_savings: contextvars.ContextVar[Savings] = contextvars.ContextVar("savings", default=NO_SAVINGS)


@contextlib.contextmanager
def saving(savings: Savings) -> Iterator[None]:
    """Within, memory is saved so."""
    token = _savings.set(savings)
    try:
        yield
    finally:
        _savings.reset(token)


def savings() -> Savings:
    """What is in force here."""
    return _savings.get()


def recomputed(layer: keras.layers.Layer, inputs: Any, **arguments: Any) -> Any:
    """`layer(inputs, training=True, **arguments)`, whose backward pass begins with the forward pass once more.

    The second pass is the first to the bit, dropout included: its seeds are drawn before and used twice.

    Args:
        layer: Built; it has no state but its weights and the seeds of `Dropout`.
        inputs: The tensor that its output is differentiated by, with the weights.
        **arguments: Other arguments, not differentiated by.
    """
    weights = layer.weights
    dropouts = dropouts_of(layer)
    states = [part.draw() for part in dropouts]

    def forward(inputs: Any, *values: Any) -> Any:
        scope = keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True)))
        with scope, with_drawn(zip(dropouts, states, strict=True)):
            return layer(inputs, training=True, **arguments)

    return AGAIN[keras.backend.backend()](forward)(inputs, *(weight.value for weight in weights))


def again_on_tensorflow(forward: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow as tf

    @tf.custom_gradient
    def twice(*arguments: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(slope: Any) -> Any:
            later = [after(arguments[0], slope), *arguments[1:]]
            with tf.GradientTape() as tape:
                tape.watch(later)
                outputs = forward(*later)
            return tape.gradient(outputs, later, output_gradients=slope, unconnected_gradients="zero")

        return forward(*arguments), gradient

    return lambda *arguments: twice(*map(tf.convert_to_tensor, arguments))


def again_on_jax(forward: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    if jax.default_backend() != "cpu":
        return jax.checkpoint(forward)

    @jax.custom_gradient
    def twice(*arguments: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(slope: Any) -> Any:
            return jax.vjp(forward, after(arguments[0], slope), *arguments[1:])[1](slope)

        return forward(*arguments), gradient

    return twice


def after(x: Any, other: Any) -> Any:
    """`x`, for a compiler not to be had before `other` is.

    XLA for processors drops the barriers that are made for this, and would then compute everything early, or once.
    """
    return x + ops.cast(ops.reshape(other, (-1,))[0] * 0.0, x.dtype)


def again_on_torch(forward: Callable[..., Any]) -> Callable[..., Any]:
    import torch.utils.checkpoint

    return lambda *arguments: torch.utils.checkpoint.checkpoint(forward, *arguments, use_reentrant=False)


AGAIN = {"tensorflow": again_on_tensorflow, "jax": again_on_jax, "torch": again_on_torch}
