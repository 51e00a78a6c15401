"""What every layer shares: the initialiser of BERT and the names of its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bertkeras.errors import BertKerasError


def bert_initializer(initializer_range: float) -> keras.initializers.Initializer:
    """Truncated normal with the given standard deviation (Devlin et al. 2019, appendix A.2)."""
    return keras.initializers.TruncatedNormal(stddev=initializer_range)


def take_positions(x: Any, positions: Any) -> Any:
    """Rows `positions` `(..., n)` of `x` `(..., length, width)`, as `(..., n, width)`.

    A product with a one-hot matrix: cheap, and dense in the gradient on every backend.
    """
    return ops.matmul(ops.one_hot(positions, ops.shape(x)[-2], dtype=x.dtype), x)


def gelu(x: Any) -> Any:
    """`x Phi(x)` (Hendrycks and Gimpel 2016), by `erf`; TensorFlow's own goes by `erfc`, slower in XLA."""
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))


def get_activation(name: str) -> Callable[[Any], Any]:
    """Map a name to a function; `"gelu"` is exact (erf) and `"gelu_tanh"` the approximation.

    Keras's own `"gelu"` is exact too, but it has no name for the approximation that can be stored in a
    configuration, and confusing the two is the commonest cause of a checkpoint that gives other numbers.
    """
    if name == "gelu":
        return gelu
    if name == "gelu_tanh":
        return lambda x: ops.gelu(x, approximate=True)
    try:
        return keras.activations.get(name)
    except ValueError as error:
        raise BertKerasError(f"unknown activation {name!r}; use 'gelu', 'gelu_tanh' or a name Keras knows") from error
