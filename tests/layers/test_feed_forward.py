import math

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers import PositionwiseFeedForward
from bertkeras.layers.common import gelu
from tests.checks import check_layer, gradients, numpy, randomize

BATCH, LENGTH, HIDDEN, INTERMEDIATE = 2, 5, 7, 11
ARGUMENTS = {"intermediate_dim": INTERMEDIATE, "activation": "gelu_tanh", "gated": True, "initializer_range": 0.03}

FORMULAS = {
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


def some_inputs():
    return np.random.default_rng(0).normal(size=(BATCH, LENGTH, HIDDEN)).astype("float32")


@pytest.mark.parametrize("activation", FORMULAS)
def test_formula(activation):
    layer = PositionwiseFeedForward(INTERMEDIATE, activation=activation)
    layer.build((None, None, HIDDEN))
    randomize(layer, scale=1.0)
    first, first_bias, second, second_bias = (numpy(weight).astype("float64") for weight in layer.weights)
    x = some_inputs()
    expected = FORMULAS[activation](x @ first + first_bias) @ second + second_bias
    # the two gelus differ by up to 5e-4 for each of 11 units: far more than this tolerance
    np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-5, atol=2e-5)


def test_one_number_worked_out():
    """x = 1, both kernels 1, biases 0: gelu(1) is the normal distribution up to 1, 0.8413447."""
    layer = PositionwiseFeedForward(1)
    layer.build((None, None, 1))
    layer.set_weights([np.ones((1, 1)), np.zeros(1), np.ones((1, 1)), np.zeros(1)])
    assert float(numpy(layer(np.ones((1, 1, 1), "float32"))).item()) == pytest.approx(0.8413447, abs=1e-6)


def test_gelu_s_derivative():
    """`Phi(x) + x phi(x)`, also where the normal distribution is 0 or 1."""
    x = np.array([-30.0, -5.0, -1.0, -0.1, 0.0, 0.3, 2.0, 4.0, 30.0])
    variable = keras.Variable(x.astype("float32"))
    (found,) = gradients(lambda: ops.sum(gelu(variable.value)), [variable])
    below = (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    expected = below + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=1e-6)


def test_every_layer_check(tmp_path):
    check_layer(PositionwiseFeedForward, ARGUMENTS, {"inputs": some_inputs()}, tmp_path)


def test_initializer_range():
    layer = PositionwiseFeedForward(89, initializer_range=0.07)
    layer.build((None, None, 53))
    for weight in layer.weights:
        if weight.path.endswith("bias"):
            assert not numpy(weight).any()
        else:
            # cutting a normal at two deviations leaves 0.8796 of the deviation; of 4717 draws 5 % is over 3 sigma
            assert abs(numpy(weight).std() / (0.8796 * 0.07) - 1) < 0.05


def test_unknown_activation():
    with pytest.raises(BertKerasError, match="unknown activation 'gelo'; use 'gelu', 'gelu_tanh'"):
        PositionwiseFeedForward(INTERMEDIATE, activation="gelo")


@pytest.mark.parametrize("activation", FORMULAS)
def test_with_a_gate(activation):
    layer = PositionwiseFeedForward(INTERMEDIATE, activation=activation, gated=True)
    layer.build((None, None, HIDDEN))
    randomize(layer)
    expand, expand_bias, contract, contract_bias = (numpy(weight).astype("float64") for weight in layer.weights)
    assert expand.shape == (HIDDEN, 2 * INTERMEDIATE)
    both = some_inputs() @ expand + expand_bias
    hidden = FORMULAS[activation](both[..., :INTERMEDIATE]) * both[..., INTERMEDIATE:]
    np.testing.assert_allclose(numpy(layer(some_inputs())), hidden @ contract + contract_bias, rtol=1e-4, atol=1e-5)
