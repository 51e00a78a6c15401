"""Layer normalisation (Ba et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bertkeras.layers.common import runs_operation_by_operation


@keras.saving.register_keras_serializable(package="bertkeras")
class LayerNormalization(keras.layers.LayerNormalization):
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last axis, in float32 at least.

    The numbers are those of `keras.layers.LayerNormalization`. Where no compiler merges operations the
    derivative is written by hand, which goes over the memory less often than differentiating Keras's own.

    Args: as for `keras.layers.LayerNormalization`.
    """

    def call(self, inputs: Any) -> Any:
        plain = self.axis == -1 and self.gamma is not None and self.beta is not None and not self.rms_scaling
        if not plain or not runs_operation_by_operation():
            return super().call(inputs)
        import tensorflow as tf

        dtype = keras.backend.result_type(inputs.dtype, "float32")
        arguments = [ops.convert_to_tensor(x, dtype=dtype) for x in (inputs, self.gamma, self.beta)]
        return ops.cast(tf.custom_gradient(self._with_gradient)(*arguments), self.compute_dtype)

    def _with_gradient(self, x: Any, gamma: Any, beta: Any) -> tuple[Any, Callable[[Any], Any]]:
        mean, variance = ops.moments(x, axes=[-1], keepdims=True)
        scale = ops.rsqrt(variance + self.epsilon)  # (..., 1)
        normal = (x - mean) * scale

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            leading = list(range(len(x.shape) - 1))
            by_normal = upstream * gamma
            along = ops.mean(by_normal * normal, axis=-1, keepdims=True)  # what would only stretch x, and
            level = ops.mean(by_normal, axis=-1, keepdims=True)  # what would only shift it, change nothing
            by_x = (by_normal - level - normal * along) * scale
            return by_x, ops.sum(upstream * normal, axis=leading), ops.sum(upstream, axis=leading)

        return normal * gamma + beta, gradient
