"""What every layer shares: the initialiser of BERT and the names of its activations."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from bertkeras.errors import BertKerasError


@keras.saving.register_keras_serializable(package="bertkeras")
class Sinusoids(keras.initializers.Initializer):
    """Rows of sines and cosines of geometrically falling frequency (Vaswani et al. 2017, section 3.5).

    The row of place `p + k` is a rotation of that of place `p` which depends on `k` alone, so that one matrix finds the
    neighbour of every place.

    Args:
        amplitude: Largest value.
    """

    def __init__(self, amplitude: float = 1.0) -> None:
        self.amplitude = amplitude

    def __call__(self, shape: tuple[int, int], dtype: str | None = None) -> Any:
        rows, columns = shape
        frequencies = 10000.0 ** (-np.arange((columns + 1) // 2) / (columns / 2))
        angles = np.arange(rows)[:, None] * frequencies  # (rows, half of the columns)
        table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :columns]
        return keras.ops.convert_to_tensor(self.amplitude * table, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"amplitude": self.amplitude}


def make_position_initializer(name: str, initializer_range: float) -> keras.initializers.Initializer:
    """The initialiser of the position table: `"normal"` or `"sinusoidal"`."""
    if name == "normal":
        return bert_initializer(initializer_range)
    if name == "sinusoidal":
        return Sinusoids(2 * initializer_range)
    raise BertKerasError(f"position_initializer must be 'normal' or 'sinusoidal', got {name!r}")


def bert_initializer(initializer_range: float) -> keras.initializers.Initializer:
    """A normal distribution of this deviation, cut off at two of them, as in BERT's code; 0.88 of it is then left.

    One for each weight: an initializer of Keras draws the same numbers every time it is called.
    """
    return keras.initializers.TruncatedNormal(stddev=initializer_range)


def take_positions(x: Any, positions: Any) -> Any:
    """Rows `positions` `(..., n)` of `x` `(..., length, width)`, as `(..., n, width)`.

    A product with a one-hot matrix: cheap, and dense in the gradient on every backend.
    """
    return ops.matmul(ops.one_hot(positions, ops.shape(x)[-2], dtype=x.dtype), x)


def runs_operation_by_operation() -> bool:
    """Whether this is TensorFlow without XLA, which goes over the memory once for each operation.

    There a derivative written by hand saves time; XLA merges operations, and does so best with those it derived.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    from tensorflow.python.framework.ops import get_default_graph
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    return not GraphOrParentsInXlaContext(get_default_graph())


def runs_under_xla() -> bool:
    """Whether XLA compiles this: always on JAX, by choice on TensorFlow."""
    backend = keras.backend.backend()
    return backend == "jax" or (backend == "tensorflow" and not runs_operation_by_operation())


def xla_on_processor() -> bool:
    """Whether XLA compiles this for a processor, where it knows few of the merges that it makes for a GPU or TPU."""
    if not runs_under_xla():
        return False
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")


def sum_rows(x: Any) -> Any:
    """The sum of `(..., n)` over all axes but the last, `(n,)`.

    On a processor XLA takes ten times as long to sum many rows that it has just computed as to multiply them by ones,
    eight times over: a single row of ones it would merge again with what computes the rows. Few and wide rows are no
    trouble to TensorFlow's, but to JAX's.
    """
    rows = ops.reshape(x, (-1, x.shape[-1]))
    count, width = rows.shape
    if xla_on_processor() and count and (count > width or keras.backend.backend() == "jax"):
        return ops.matmul(ops.ones((8, count), rows.dtype), rows)[0]
    return ops.sum(rows, axis=0)


def replica_context() -> Any:
    """Where this replica stands in the TensorFlow strategy in force; `None` on other backends and for a single one."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


_part_of_batch: contextvars.ContextVar[Any] = contextvars.ContextVar("part_of_batch", default=None)


@contextlib.contextmanager
def part_of_batch(number: Any) -> Iterator[None]:
    """Within, layers see the `number`-th of several equal parts of a batch, which is divided over devices."""
    token = _part_of_batch.set(number)
    try:
        yield
    finally:
        _part_of_batch.reset(token)


def which_part_of_batch() -> Any:
    """Which part of the batch this is: what `part_of_batch` says, or else the replica's in a TensorFlow strategy."""
    if (number := _part_of_batch.get()) is not None or (context := replica_context()) is None:
        return number
    return context.replica_id_in_sync_group


def gelu(x: Any) -> Any:
    """`x Phi(x)` (Hendrycks and Gimpel 2016), by `erf`; TensorFlow's own goes by `erfc`, slower in XLA."""
    if runs_operation_by_operation():
        import tensorflow as tf

        return tf.custom_gradient(gelu_and_gradient)(x)
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))


def gelu_and_gradient(x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """GELU with its derivative `Phi(x) + x phi(x)` spelt out: fewer operations than differentiating it gives."""
    scaled = x * 0.5**0.5
    below = 0.5 * ops.erf(scaled) + 0.5  # Phi(x)

    def gradient(upstream: Any) -> Any:
        return upstream * (below + scaled * ops.exp(-ops.square(scaled)) * math.pi**-0.5)

    return x * below, gradient


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
