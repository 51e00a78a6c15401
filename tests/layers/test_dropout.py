import math

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.layers.dropout import Dropout, hash_bits

RATE = 0.1


def kept(layer, shape):
    return ops.convert_to_numpy(layer(np.ones(shape, "float32"), training=True)) != 0


def test_it_drops_its_share_and_scales_the_rest():
    layer = Dropout(RATE, seed=0)
    outputs = ops.convert_to_numpy(layer(np.ones((64, 128, 128), "float32"), training=True))
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1 / (1 - RATE))}
    # 2^20 draws: the standard deviation of the share is sqrt(0.1 * 0.9 / 2^20) = 0.0003; five of them
    assert abs((outputs == 0).mean() - RATE) < 0.0015


@pytest.mark.parametrize("lag", [1, 2, 64, 128, 4096])
def test_neighbours_are_independent(lag):
    dropped = ~kept(Dropout(RATE, seed=3), (2**20,))
    both = (dropped[:-lag] & dropped[lag:]).mean()
    # two independent drops: 0.01, standard deviation about sqrt(0.01 * (1 + 2 * 0.1) / 2^20) = 0.00011; five of them
    assert abs(both - RATE**2) < 0.00055


def test_calls_and_seeds_are_independent_and_not_shifts_of_each_other():
    layer = Dropout(RATE, seed=3)
    first, second, other_seed = ~kept(layer, (2**20,)), ~kept(layer, (2**20,)), ~kept(Dropout(RATE, seed=4), (2**20,))
    for shift in (0, 1, 2):
        for other in (second, other_seed):
            assert abs((first & np.roll(other, shift)).mean() - RATE**2) < 0.00055


def test_the_same_state_gives_the_same_mask():
    layer = Dropout(RATE, seed=5)
    state = ops.convert_to_numpy(layer.seed_generator.state)
    first, second = kept(layer, (31, 37)), kept(layer, (31, 37))
    layer.seed_generator.state.assign(state)
    assert (first != second).any()
    assert (kept(layer, (31, 37)) == first).all()


def test_every_bit_is_fair():
    bits = ops.convert_to_numpy(hash_bits(2**20, np.array([7, 11], "int32"))).view("uint32")
    shares = [((bits >> place) & 1).mean() for place in range(32)]
    # standard deviation 0.5 / 2^10 = 0.0005; five of them
    assert max(abs(share - 0.5) for share in shares) < 0.0025


def hash_by_hand(count, state):
    """`hash_bits` in NumPy's uint32, whose products wrap around and whose shifts bring in zeros."""

    def mix(x, key):
        x = (x ^ (x >> 16)) * np.uint32(2146121005) + key
        x = (x ^ (x >> 15)) * np.uint32(2**32 - 2073254261)
        return x ^ (x >> 16)

    seed, call = (np.array([number % (2**31 - 1)], "uint32") for number in state)
    golden = np.uint32(2**32 - 1640531527)
    return mix(np.arange(count, dtype="uint32") ^ mix(call * golden, seed), mix(seed * golden, call)).view("int32")


def test_the_hash_never_changes():
    """Neither from backend to backend nor from version to version: a run that was stopped must go on the same."""
    expected = [-1530608142, 2004713978, -1632969130, -419207627, -1825437218]
    assert hash_by_hand(5, (7, 11)).tolist() == expected
    assert ops.convert_to_numpy(hash_bits(5, np.array([7, 11], "int32"))).tolist() == expected


@pytest.mark.parametrize("seed", [0, 1, 20201109, 2**31 - 1])
def test_the_mask_is_the_same_on_every_backend(seed):
    """What NumPy works out is what the backend that runs keeps, call after call, alone and inside a compiled model."""
    shape = (29, 31, 37)
    size, threshold = math.prod(shape), round((RATE - 0.5) * 2**32)
    expected = [(hash_by_hand(size, (seed, call)) >= threshold).reshape(shape) for call in range(3)]
    layer = Dropout(RATE, seed=seed)
    for mask in expected:
        assert (kept(layer, shape) == mask).all()

    class Keeps(keras.Model):
        def __init__(self):
            super().__init__()
            self.dropout = Dropout(RATE, seed=seed)

        def call(self, x):
            return self.dropout(x, training=True)

    model = Keeps()
    model.compile(jit_compile=keras.backend.backend() != "torch")  # torch compiles with a C++ compiler, in minutes
    for mask in expected:
        assert ((model.predict_on_batch(np.ones(shape, "float32")) != 0) == mask).all()


def test_outside_training_nothing_happens():
    x = np.ones((3, 5), "float32")
    assert (ops.convert_to_numpy(Dropout(RATE)(x, training=False)) == x).all()


def test_the_configuration_comes_back():
    layer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(Dropout(0.3, seed=7)))
    assert isinstance(layer, Dropout)
    assert (layer.rate, layer.seed) == (0.3, 7)
