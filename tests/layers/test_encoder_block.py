import math

import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.layers import TransformerEncoderBlock
from tests.checks import check_attention_masks, check_dropout, check_layer, functional, numpy, randomize

BATCH, LENGTH, HEADS, HIDDEN, INTERMEDIATE = 2, 5, 3, 21, 13
ARGUMENTS = {
    "num_heads": HEADS,
    "intermediate_dim": INTERMEDIATE,
    "dropout": 0.11,
    "attention_dropout": 0.13,
    "activation": "gelu_tanh",
    "layer_norm_epsilon": 0.003,
    "rotary": True,
    "gated": True,
    "norm_first": True,
    "initializer_range": 0.03,
    "seed": 0,
}


def some_inputs():
    return np.random.default_rng(0).normal(size=(BATCH, LENGTH, HIDDEN)).astype("float32")


def norm(x, layer, epsilon):
    gamma, beta = (numpy(weight) for weight in layer.weights)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


@pytest.mark.parametrize("norm_first", [False, True])
def test_formula(norm_first):
    """The two halves with their residuals, from the sublayers that have tests of their own."""
    epsilon = 0.01
    block = TransformerEncoderBlock(HEADS, INTERMEDIATE, norm_first=norm_first, layer_norm_epsilon=epsilon)
    block.build((None, None, HIDDEN))
    randomize(block)
    x = some_inputs()
    if norm_first:
        x = x + numpy(block.attention(norm(x, block.attention_norm, epsilon)))
        expected = x + numpy(block.feed_forward(norm(x, block.feed_forward_norm, epsilon)))
    else:
        x = norm(x + numpy(block.attention(x)), block.attention_norm, epsilon)
        expected = norm(x + numpy(block.feed_forward(x)), block.feed_forward_norm, epsilon)
    np.testing.assert_allclose(numpy(block(some_inputs())), expected, rtol=1e-5, atol=2e-5)


def test_one_position_worked_out():
    """x = (1, 3) and V = x: 2x = (2, 6) normalises to (-1, 1); relu adds (0, 1); (-1, 2) normalises to (-1, 1)."""
    block = TransformerEncoderBlock(1, 2, activation="relu", layer_norm_epsilon=0.0)
    block.build((None, None, 2))
    eye, zero = np.eye(2), np.zeros(2)
    attention = [np.concatenate([0 * eye, 0 * eye, eye], axis=1), np.zeros(6), eye, zero]
    block.attention.set_weights(attention)
    block.feed_forward.set_weights([eye, zero, eye, zero])
    np.testing.assert_allclose(numpy(block(np.array([[[1.0, 3.0]]], "float32"))), [[[-1.0, 1.0]]], rtol=1e-6)
    # with gamma 2 in the second norm and beta 0.5: (-1.5, 2.5)
    block.feed_forward_norm.set_weights([2 + zero, 0.5 + zero])
    np.testing.assert_allclose(numpy(block(np.array([[[1.0, 3.0]]], "float32"))), [[[-1.5, 2.5]]], rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_every_layer_check(tmp_path, masked):
    inputs = {"inputs": some_inputs()}
    if masked:
        inputs["attention_mask"] = np.random.default_rng(2).random((BATCH, LENGTH, LENGTH)) < 0.7
        inputs["attention_mask"][1, 3] = False
    check_layer(TransformerEncoderBlock, ARGUMENTS, inputs, tmp_path)


@pytest.mark.parametrize("norm_first", [False, True])
def test_masks(norm_first):
    check_attention_masks(
        lambda dtype: TransformerEncoderBlock(HEADS, INTERMEDIATE, norm_first=norm_first, dtype=dtype), HIDDEN, HEADS
    )


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout"])
def test_dropout(kind):
    check_dropout(
        lambda seed: TransformerEncoderBlock(HEADS, INTERMEDIATE, seed=seed, **{kind: 0.5}), {"inputs": some_inputs()}
    )


def test_each_half_drops_its_own_way():
    """Pre-norm with kernels at zero: each half adds its bias, 1 and 10, so the sum tells which were kept."""
    block = TransformerEncoderBlock(1, 2, dropout=0.5, norm_first=True, seed=5)
    block.build((None, None, 2))
    for half, value in ((block.attention, 1.0), (block.feed_forward, 10.0)):
        weights = [np.zeros(weight.shape) for weight in half.weights]
        weights[-1] += value
        half.set_weights(weights)
    values, counts = np.unique(numpy(block(np.zeros((1, 997, 2), "float32"), training=True)), return_counts=True)
    assert values.tolist() == [0.0, 2.0, 20.0, 22.0]
    # 1994 draws of a quarter each: deviation 19.3
    assert np.abs(counts - 1994 / 4).max() < 5 * 19.3


def test_arguments_reach_the_parts():
    block = TransformerEncoderBlock(**ARGUMENTS)
    block.build((None, None, HIDDEN))
    assert block.attention.attention_dropout.rate == 0.13
    assert block.attention_output_dropout.rate == block.feed_forward_dropout.rate == 0.11
    assert block.attention_norm.epsilon == block.feed_forward_norm.epsilon == 0.003
    assert block.attention.initializer_range == block.feed_forward.initializer_range == 0.03
    seeds = {block.attention.seed, block.attention_output_dropout.seed, block.feed_forward_dropout.seed}
    assert seeds == {0, 1, 2}
    gelu_tanh_of_one = 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715))
    assert float(block.feed_forward.activation_function(1.0)) == pytest.approx(gelu_tanh_of_one, abs=1e-6)


def test_scores():
    block = TransformerEncoderBlock(HEADS, INTERMEDIATE)
    mask = np.array([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]], bool)
    outputs, scores = block(some_inputs(), attention_mask=mask, return_attention_scores=True)
    np.testing.assert_allclose(numpy(outputs), numpy(block(some_inputs(), attention_mask=mask)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numpy(scores).sum(-1), 1.0, rtol=1e-6)
    assert not numpy(scores)[0, :, :, 2].any()
    model = functional(block, {"inputs": some_inputs()}, return_attention_scores=True)
    assert [output.shape for output in model.outputs] == [(None, None, HIDDEN), (None, HEADS, None, None)]


def test_unknown_activation_and_heads():
    with pytest.raises(BertKerasError, match="unknown activation"):
        TransformerEncoderBlock(HEADS, INTERMEDIATE, activation="gelo")
    with pytest.raises(BertKerasError, match="num_heads=4 does not divide"):
        TransformerEncoderBlock(4, INTERMEDIATE).build((None, None, HIDDEN))
