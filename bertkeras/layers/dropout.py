"""Dropout (Srivastava et al. 2014) from random numbers that cost almost nothing."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from bertkeras.layers.common import which_part_of_batch


@keras.saving.register_keras_serializable(package="bertkeras")
class Dropout(keras.layers.Dropout):
    """`x / (1 - rate)` where a random bit keeps it, zero elsewhere; `keras.layers.Dropout` with cheaper bits.

    A BERT of four layers draws 18 million random numbers per step of 4,096 tokens. Philox and Threefry, which the
    backends use, are made for statistics and take nearly a tenth of that step on a CPU. Here element `i` of call `n`
    is kept according to `hash(i, n, seed)`: two multiplications that a compiler fuses into the layers around them,
    so that no random tensor ever lies in memory. The generator's state is the usual `(seed, n)` of a
    `keras.random.SeedGenerator`, saved with the model; the same state gives the same mask on every backend, and
    however a process divides its rows over devices: part `k` goes on with the counters where part `k - 1` ends.

    Args: as for `keras.layers.Dropout`.
    """

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        if self.noise_shape is not None:
            return super().call(inputs, training=training)
        # a hash is uniform over [-2^31, 2^31), so that a share `rate` of the hashes lies below this
        threshold = round((self.rate - 0.5) * 2**32)
        count, part = ops.size(inputs), which_part_of_batch()
        first = 0 if part is None else part * count  # the rows before this part take as many counters
        bits = ops.reshape(hash_bits(count, self.draw(), first), ops.shape(inputs))
        scale = ops.cast(1.0 / (1.0 - self.rate), inputs.dtype)
        # scaled last, for then the gradient is chosen last, and XLA computes both in one pass on a GPU
        return ops.where(bits >= threshold, inputs, ops.zeros_like(inputs)) * scale

    def draw(self) -> Any:
        """The seed state of this call: the generator's next, or what `with_drawn` says."""
        drawn = _drawn.get().get(id(self))
        return self.seed_generator.next() if drawn is None else drawn


_drawn: contextvars.ContextVar[Mapping[int, Any]] = contextvars.ContextVar("drawn", default=MappingProxyType({}))


def dropouts_of(layer: keras.layers.Layer) -> list[Dropout]:
    """The layers within that draw a seed state at every call."""
    return [part for part in layer._flatten_layers() if isinstance(part, Dropout) and part.rate > 0]


@contextlib.contextmanager
def with_drawn(states: Iterable[tuple[Dropout, Any]]) -> Iterator[None]:
    """Within, these layers use these seed states, drawn before, and leave their generators alone."""
    token = _drawn.set({id(layer): state for layer, state in states})
    try:
        yield
    finally:
        _drawn.reset(token)


def hash_bits(count: Any, state: Any, first: Any = 0) -> Any:
    """`count` random int32, one for each counter from `first` on, keyed by both numbers of a seed state.

    The mixing has the form of MurmurHash3's finaliser (Appleby 2011) with Wellons's less biased constants, and a
    second key between its two products, so that the streams of two calls are not one stream, shifted.
    """
    state = ops.cast(ops.mod(state, 2**31 - 1), "int32")  # TensorFlow keeps it in int64, the others in uint32
    first_key, second_key = mix(state[1] * GOLDEN, state[0]), mix(state[0] * GOLDEN, state[1])
    return mix((ops.arange(count, dtype="int32") + first) ^ first_key, second_key)


def mix(x: Any, key: Any) -> Any:
    """Let every bit of the int32 `x` and of `key` decide every bit of the result; products wrap around."""
    x = (x ^ shift_right(x, 16)) * 2146121005 + key
    x = (x ^ shift_right(x, 15)) * -2073254261
    return x ^ shift_right(x, 16)


def shift_right(x: Any, places: int) -> Any:
    """Shift in zeros. The integers are signed, because not every backend multiplies unsigned ones."""
    return ops.bitwise_and(ops.right_shift(x, places), (1 << (32 - places)) - 1)


GOLDEN = -1640531527  # 2^32 divided by the golden ratio, as int32: neighbouring states get distant keys
