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


_prediction: contextvars.ContextVar[bool] = contextvars.ContextVar("prediction", default=False)


@contextlib.contextmanager
def prediction() -> Iterator[None]:
    """Within, nothing is differentiated: GELU goes without a derivative by hand, which would keep operations apart."""
    token = _prediction.set(True)
    try:
        yield
    finally:
        _prediction.reset(token)


def is_prediction() -> bool:
    """Whether this is within `prediction`."""
    return _prediction.get()


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


def xla_on_accelerator() -> bool:
    """Whether XLA compiles this for a GPU or TPU."""
    return runs_under_xla() and not xla_on_processor()


def sum_rows(x: Any, dtype: Any = None) -> Any:
    """The sum of `(..., n)` over all axes but the last, `(n,)`, in `dtype`, no narrower than that of `x`.

    On a processor XLA gets a product with ones in the place of a sum over many rows: eight times over, because a single
    row of ones it would merge again with what computes the rows. `benchmarks/step_forms.py` measures what that buys.
    A GPU has units for products of half precision, which sum in float32.
    """
    dtype = dtype or x.dtype
    rows = ops.reshape(x, (-1, x.shape[-1]))
    count, width = rows.shape
    if keras.backend.backend() == "jax" and xla_on_accelerator() and rows.dtype != dtype:
        import jax.numpy as jnp

        return jnp.matmul(jnp.ones((8, count), rows.dtype), rows, preferred_element_type=dtype)[0]
    rows = ops.cast(rows, dtype)
    if xla_on_processor() and count and (count > width or keras.backend.backend() == "jax"):
        return ops.matmul(ops.ones((8, count), rows.dtype), rows)[0]
    return ops.sum(rows, axis=0)


def sum_rows_of_each(*arrays: Any) -> tuple[Any, ...]:
    """`sum_rows` of arrays of one shape; on a GPU through JAX all in one pass over the memory."""
    if keras.backend.backend() != "jax" or not xla_on_accelerator():
        return tuple(sum_rows(x) for x in arrays)
    import jax

    rows = tuple(x.reshape(-1, x.shape[-1]) for x in arrays)
    zeros = tuple(jax.numpy.zeros((), x.dtype) for x in rows)
    return jax.lax.reduce(rows, zeros, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), (0,))


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

        return gelu_and_gradient(x)[0] if is_prediction() else tf.custom_gradient(gelu_and_gradient)(x)
    if xla_on_accelerator() and keras.backend.standardize_dtype(x.dtype) in ("bfloat16", "float16"):
        return ops.custom_gradient(short_gelu_and_gradient)(x)
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))


def gelu_and_gradient(x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """GELU with its derivative `Phi(x) + x phi(x)` spelt out: fewer operations than differentiating it gives."""
    scaled = x * 0.5**0.5
    twice = 1.0 + ops.erf(scaled)  # 2 Phi(x)

    def gradient(upstream: Any) -> Any:
        return upstream * (0.5 * twice + scaled * ops.exp(-ops.square(scaled)) * math.pi**-0.5)

    return 0.5 * x * twice, gradient  # in this form TensorFlow knows it, and merges it with the product before


def short_gelu_and_gradient(x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The same for half precision on a GPU or TPU: in float32, from one exponential for `Phi` and `phi`.

    `Phi` is exact to 1e-7 (Hastings 1955, as formula 7.1.26 of Abramowitz and Stegun 1964). An `erf` takes so many
    operations there that it, and not the memory, sets the time. The backward pass needs nothing but `x`.
    """

    def distribution() -> tuple[Any, Any, Any]:
        wide = ops.cast(x, "float32")
        bell = ops.exp(-0.5 * ops.square(wide))
        t = 1.0 / (1.0 + 0.3275911 * 0.5**0.5 * ops.abs(wide))
        tail = (
            0.5
            * bell
            * t
            * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        )
        return wide, ops.where(wide < 0, tail, 1.0 - tail), bell

    def gradient(upstream: Any) -> Any:
        wide, below, bell = distribution()
        return ops.cast(ops.cast(upstream, "float32") * (below + wide * bell * (2 * math.pi) ** -0.5), x.dtype)

    wide, below, _ = distribution()
    return ops.cast(wide * below, x.dtype), gradient


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
