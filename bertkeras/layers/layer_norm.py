"""Layer normalisation (Ba et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bertkeras.layers.common import (
    runs_operation_by_operation,
    runs_under_xla,
    sum_rows,
    sum_rows_of_each,
    xla_on_processor,
)


@keras.saving.register_keras_serializable(package="bertkeras")
class LayerNormalization(keras.layers.LayerNormalization):
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last axis, in float32 at least.

    The numbers are those of `keras.layers.LayerNormalization`. On a processor parts of the derivative are written by
    hand: all of it where no compiler merges operations, so that it goes over the memory less often, and the sums over
    rows where XLA does.

    Args: as for `keras.layers.LayerNormalization`.
    """

    def call(self, inputs: Any) -> Any:
        plain = self.axis == [-1] and self.gamma is not None and self.beta is not None and not self.rms_scaling
        if not plain or not (runs_operation_by_operation() or runs_under_xla()):
            return super().call(inputs)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        arguments = [ops.convert_to_tensor(x, dtype=dtype) for x in (inputs, self.gamma.value, self.beta.value)]
        if not xla_on_processor():
            outputs = ops.custom_gradient(self._with_gradient)(*arguments)
        else:
            x, gamma, beta = arguments
            mean, variance = ops.moments(x, axes=[-1], keepdims=True)
            outputs = ops.custom_gradient(scaled)((x - mean) * ops.rsqrt(variance + self.epsilon), gamma, beta)
        return ops.cast(outputs, self.compute_dtype)

    def _with_gradient(self, x: Any, gamma: Any, beta: Any) -> tuple[Any, Callable[[Any], Any]]:
        mean, variance = ops.moments(x, axes=[-1], keepdims=True)
        scale = ops.rsqrt(variance + self.epsilon)  # (..., 1)
        normal = (x - mean) * scale

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            by_normal = upstream * gamma
            along = ops.mean(by_normal * normal, axis=-1, keepdims=True)  # what would only stretch x, and
            level = ops.mean(by_normal, axis=-1, keepdims=True)  # what would only shift it, change nothing
            by_x = (by_normal - level - normal * along) * scale
            return by_x, *sum_rows_of_each(upstream * normal, upstream)

        return normal * gamma + beta, gradient


def scaled(x: Any, gamma: Any, beta: Any) -> tuple[Any, Callable[[Any], Any]]:
    """`gamma x + beta` with its derivative."""

    def gradient(upstream: Any) -> tuple[Any, Any, Any]:
        return upstream * gamma, sum_rows(upstream * x), sum_rows(upstream)

    return x * gamma + beta, gradient
