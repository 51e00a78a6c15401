"""AdamW as BERT uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers.common import replica_context

# BERT decays neither biases nor layer norms (google-research/bert, optimization.py)
NOT_DECAYED = ("bias", "gamma", "beta")


@keras.saving.register_keras_serializable(package="bertkeras")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW with BERT's exclusions, Adam's own epsilon, and sparse gradients made dense first.

    Keras 3.15 adds epsilon to the root of the second moment before the moment's bias is corrected, which makes it
    `1 / sqrt(1 - beta_2)`, 32 times, as large in the first step: the small gradients of a model that is fine-tuned for
    a few hundred steps then hardly count. Here it is added after, as in algorithm 1 of Kingma and Ba 2015 and in
    PyTorch.

    Keras 3.15 on TensorFlow squares the values of a sparse gradient before it sums repeated rows, so that Adam's
    second moment of an embedding row that occurs twice in a batch is wrong. A dense gradient has no such rows. And
    under a TensorFlow strategy it clips the gradient of each replica; here their sum is clipped.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decoupled decay (Loshchilov and Hutter 2019), on kernels and embedding tables only.
        epsilon: BERT's 1e-6, beside the root of the corrected second moment.
        factors: What to multiply the learning rate with, by the path of a variable; 1 for those not named. Not on
            torch.
        **kwargs: As for `keras.optimizers.AdamW`, such as `global_clipnorm` and `use_ema`.

    Raises:
        BertKerasError: `factors` on the torch backend, whose optimizer updates all variables at one rate.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-4,
        weight_decay: float = 0.01,
        epsilon: float = 1e-6,
        factors: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, epsilon=epsilon, **kwargs)
        self.factors = dict(factors or {})
        if self.factors and keras.backend.backend() == "torch":
            raise BertKerasError("learning rates by variable (factors) work on TensorFlow and JAX, not on torch")
        self.exclude_from_weight_decay(var_names=list(NOT_DECAYED))

    @property
    def epsilon(self) -> Any:
        """What Keras's rule is to add so that `epsilon` is added after the correction: it shrinks with the moment."""
        if not self.built:
            return self._epsilon
        return self._epsilon * ops.sqrt(1.0 - ops.power(self.beta_2, ops.cast(self.iterations + 1, "float32")))

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self._epsilon = value

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        super().apply(sum_over_replicas([dense(gradient) for gradient in grads]), trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars  # `apply` has done it: Keras would only after the clipping

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        if self._fused():
            import tensorflow as tf

            step = tf.cast(self.iterations + 1, tf.float32)
            powers = (tf.pow(float(self.beta_1), step), tf.pow(float(self.beta_2), step))
            learning_rate = (learning_rate, *powers, self.epsilon)  # once, not for each variable
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not self._fused():
            super().update_step(gradient, variable, self._rate_of(variable, learning_rate))
            return
        # Keras's rule as one operation of TensorFlow, which goes over the memory once for each of its three sums
        import tensorflow as tf

        index = self._get_variable_index(variable)
        learning_rate, beta1_power, beta2_power, epsilon = (tf.cast(x, variable.dtype) for x in learning_rate)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=self._rate_of(variable, learning_rate),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )

    def _fused(self) -> bool:
        return keras.backend.backend() == "tensorflow" and not self.amsgrad

    def _rate_of(self, variable: Any, learning_rate: Any) -> Any:
        if not self.factors:
            return learning_rate
        # on TensorFlow the variable comes without its path
        path = self._trainable_variables[self._get_variable_index(variable)].path
        return learning_rate * self.factors.get(path, 1.0)

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if self.global_clipnorm and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.clip_by_global_norm(grads, self.global_clipnorm)[0]  # squares and sums in one go
        return super()._clip_gradients(grads)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        if self.weight_decay is None:
            return
        rate = self.learning_rate * self.weight_decay
        for variable in filter(self._use_weight_decay, variables):
            variable.assign(variable * (1.0 - rate * self.factors.get(variable.path, 1.0)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self._epsilon, "factors": self.factors}


def dense(gradient: Any) -> Any:
    """Sum the repeated rows of a TensorFlow `IndexedSlices`; anything else passes through."""
    if type(gradient).__name__ != "IndexedSlices":
        return gradient
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)


def sum_over_replicas(gradients: list[Any]) -> list[Any]:
    """Gradients summed over the replicas of the TensorFlow strategy in force, if one is."""
    if (context := replica_context()) is None:
        return gradients
    import tensorflow as tf

    there = [gradient for gradient in gradients if gradient is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, there) if there else ())
    return [None if gradient is None else next(summed) for gradient in gradients]
