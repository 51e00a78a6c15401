"""AdamW as BERT uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

# BERT decays neither biases nor layer norms (google-research/bert, optimization.py)
NOT_DECAYED = ("bias", "gamma", "beta")


@keras.saving.register_keras_serializable(package="bertkeras")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW with BERT's exclusions, and with sparse gradients made dense first.

    Keras 3.15 on TensorFlow squares the values of a sparse gradient before it sums repeated rows, so that Adam's
    second moment of an embedding row that occurs twice in a batch is wrong. A dense gradient has no such rows.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decoupled decay (Loshchilov and Hutter 2019), on kernels and embedding tables only.
        epsilon: BERT's 1e-6.
        **kwargs: As for `keras.optimizers.AdamW`, such as `global_clipnorm` and `use_ema`.
    """

    def __init__(
        self, learning_rate: Any = 1e-4, weight_decay: float = 0.01, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, epsilon=epsilon, **kwargs)
        self.exclude_from_weight_decay(var_names=list(NOT_DECAYED))

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        super().apply([dense(gradient) for gradient in grads], trainable_variables)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        # Keras 3.15 on torch multiplies a list of tensors, and torch refuses an empty one
        if any(map(self._use_weight_decay, variables)):
            super()._apply_weight_decay(variables)


def dense(gradient: Any) -> Any:
    """Sum the repeated rows of a TensorFlow `IndexedSlices`; anything else passes through."""
    if type(gradient).__name__ != "IndexedSlices":
        return gradient
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)
