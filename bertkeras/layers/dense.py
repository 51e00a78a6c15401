"""Products with weights whose gradients are summed in the precision of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bertkeras.layers.common import runs_operation_by_operation, runs_under_xla, sum_rows, xla_on_processor


@keras.saving.register_keras_serializable(package="bertkeras")
class Dense(keras.layers.Dense):
    """`activation(x W + b)`; `keras.layers.Dense`, but for the gradients under a mixed precision.

    Keras casts a weight to bfloat16 before it uses it, so that its gradient, a sum over all positions of a batch, comes
    out rounded to 8 bits, while the weight itself and the optimizer have 24. Here the products are those of bfloat16,
    and where XLA compiles them, always on JAX and by choice on TensorFlow, the gradients of `W` and `b` are left in the
    float32 in which a matrix unit sums them: what is then added over micro-batches and devices is not rounded first.
    There they are also written in the form that XLA computes fastest.

    Args: as for `keras.layers.Dense`.
    """

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = affine(inputs, self.kernel, self.bias)
        return x if self.activation is None else self.activation(x)


def affine(x: Any, weight: Any, bias: Any = None, transposed: bool = False) -> Any:
    """`x W + b` in the dtype of `x`; under XLA the gradients of `W` and `b` are summed in theirs.

    Args:
        x: `(..., n)`.
        weight: `(n, m)`, or `(m, n)` if `transposed`.
        bias: `(m,)`.
        transposed: Whether to multiply with the transpose of `weight`.

    Returns:
        `(..., m)`.
    """

    def product(x: Any, weight: Any, *bias: Any) -> Any:
        weight = ops.cast(weight, x.dtype)
        rows = as_rows(x)
        outputs = ops.matmul(rows, ops.transpose(weight) if transposed else weight)
        if bias:
            outputs = add_bias(outputs, ops.cast(bias[0], x.dtype))
        return outputs if rows is x else ops.reshape(outputs, (*ops.shape(x)[:-1], outputs.shape[-1]))

    def with_gradient(x: Any, weight: Any, *bias: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> tuple[Any, ...]:
            low = ops.cast(weight, x.dtype)
            by_x = ops.matmul(upstream, low if transposed else ops.transpose(low))
            rows, slopes = (ops.reshape(side, (-1, side.shape[-1])) for side in (x, upstream))
            sides = (slopes, rows) if transposed else (rows, slopes)
            by_bias = [sum_rows(slopes, vector.dtype) for vector in bias]
            return by_x, sum_of_products(*sides, weight.dtype), *by_bias

        return product(x, weight, *bias), gradient

    # a gradient by hand takes values: TensorFlow would ask it for those of Keras's variables as well
    arguments = [a.value if isinstance(a, keras.Variable) else a for a in (x, weight, bias) if a is not None]
    if not runs_under_xla():
        return product(*arguments)
    return ops.custom_gradient(with_gradient)(*arguments)


def add_bias(x: Any, bias: Any) -> Any:
    """`x + bias`, under the name by which TensorFlow merges it with a product before and a GELU behind.

    Not in half precision, in which the gradient under that name is also summed.
    """
    if not runs_operation_by_operation() or x.dtype.size < 4:
        return x + bias
    import tensorflow as tf

    return tf.nn.bias_add(x, bias)


def as_rows(x: Any) -> Any:
    """`(..., n)` as a matrix, for TensorFlow without XLA, which then merges a product with its bias and a GELU."""
    return ops.reshape(x, (-1, x.shape[-1])) if len(x.shape) > 2 and runs_operation_by_operation() else x


def sum_of_products(a: Any, b: Any, dtype: Any) -> Any:
    """`a^T b` of `(rows, n)` and `(rows, m)`, summed in `dtype`, no narrower than theirs; under XLA."""
    if xla_on_processor() and (a.shape[0] or 0) > a.shape[1] > b.shape[1]:
        # XLA takes half as long again with the wider of two long sides transposed. The barriers keep it from going back
        # to that, and from turning the result around wherever it is read.
        return barrier(ops.transpose(barrier(sum_of_products(b, a, dtype))))
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(a.T, b, preferred_element_type=dtype)
    import tensorflow as tf

    if a.dtype == tf.as_dtype(dtype):
        return tf.matmul(a, b, transpose_a=True)
    return tf.raw_ops.BatchMatMulV3(x=a, y=b, Tout=dtype, adj_x=True)


def barrier(x: Any) -> Any:
    """`x`, which XLA's rewriting does not look through."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.optimization_barrier(x)
    from tensorflow.compiler.tf2xla.python import xla

    return xla.optimization_barrier(x)[0]
