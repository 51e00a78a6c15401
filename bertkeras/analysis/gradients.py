"""One gradient on the three backends, for which Keras has no common call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


def values_and_gradients(function: Callable[[Any], Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of `function` for the rows of `x`, and the gradient of each with respect to its own row.

    Args:
        function: Takes a tensor like `x` and gives `(batch,)`; no row has a part in another's value.
        x: `(batch, ...)` floats.

    Returns:
        The values `(batch,)` and the gradients, of the shape of `x`, both float64.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.convert_to_tensor(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variable)
            values = function(variable)
        gradients = tape.gradient(values, variable)
    elif backend == "jax":
        import jax

        def total(x: Any) -> tuple[Any, Any]:
            values = function(x)
            return ops.sum(values), values

        (_, values), gradients = jax.value_and_grad(total, has_aux=True)(ops.convert_to_tensor(x))
    else:
        import torch

        variable = ops.convert_to_tensor(x).requires_grad_()
        values = function(variable)
        (gradients,) = torch.autograd.grad(values.sum(), variable)
        values = values.detach()
    found = (np.asarray(ops.convert_to_numpy(tensor), "float64") for tensor in (values, gradients))
    return next(found), next(found)
