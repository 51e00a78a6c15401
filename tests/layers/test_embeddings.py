import math

import numpy as np
import pytest
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers import BertEmbeddings
from tests.checks import check_dropout, check_layer, gradients, numpy, randomize

BATCH, LENGTH, VOCABULARY, HIDDEN, POSITIONS, SEGMENTS = 2, 5, 23, 7, 13, 3
ARGUMENTS = {
    "vocabulary_size": VOCABULARY,
    "hidden_dim": HIDDEN,
    "max_sequence_length": POSITIONS,
    "num_segments": SEGMENTS,
    "dropout": 0.11,
    "layer_norm_epsilon": 0.003,
    "initializer_range": 0.03,
    "positions": "rotary",
    "position_initializer": "sinusoidal",
    "seed": 0,
}
PLAIN = {**ARGUMENTS, "dropout": 0.0, "positions": "learned"}


def some_ids():
    rng = np.random.default_rng(0)
    return {
        "token_ids": rng.integers(0, VOCABULARY, (BATCH, LENGTH), dtype="int32"),
        "segment_ids": rng.integers(0, SEGMENTS, (BATCH, LENGTH), dtype="int32"),
        "position_ids": rng.integers(0, POSITIONS, (BATCH, LENGTH), dtype="int32"),
    }


@pytest.fixture
def layer():
    layer = BertEmbeddings(**PLAIN)
    layer.build((None, None))
    randomize(layer)
    return layer


def by_hand(layer, token_ids, segment_ids, position_ids):
    token, position, segment, gamma, beta = (numpy(weight).astype("float64") for weight in layer.weights)
    x = token[token_ids] + position[position_ids] + segment[segment_ids]
    x -= x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.layer_norm_epsilon) * gamma + beta


def test_two_numbers_worked_out():
    """(1, 0) + (2, 0) + (3, 2) = (6, 2): mean 4, variance 4, so (1, -1) when epsilon is 0."""
    layer = BertEmbeddings(1, 2, 1, 1, layer_norm_epsilon=0.0)
    layer.build((None, None))
    layer.set_weights([np.array([[1, 0]]), np.array([[2, 0]]), np.array([[3, 2]]), np.ones(2), np.zeros(2)])
    np.testing.assert_allclose(numpy(layer(np.zeros((1, 1), "int32"))), [[[1.0, -1.0]]], rtol=1e-6)


def test_formula(layer):
    ids = some_ids()
    np.testing.assert_allclose(numpy(layer(**ids)), by_hand(layer, **ids), rtol=1e-5, atol=1e-5)


def test_epsilon_is_added_to_the_variance(layer):
    ids = some_ids()
    layer.token_table.assign(layer.token_table * 0.01)
    layer.position_table.assign(layer.position_table * 0.01)
    layer.segment_table.assign(layer.segment_table * 0.01)
    np.testing.assert_allclose(numpy(layer(**ids)), by_hand(layer, **ids), rtol=1e-5, atol=1e-5)


def test_defaults_are_segment_zero_and_counted_positions(layer):
    ids = some_ids()
    zero = np.zeros((BATCH, LENGTH), "int32")
    counted = np.broadcast_to(np.arange(LENGTH), (BATCH, LENGTH))
    expected = by_hand(layer, ids["token_ids"], zero, counted)
    np.testing.assert_allclose(numpy(layer(ids["token_ids"])), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        numpy(layer(ids["token_ids"])), numpy(layer(ids["token_ids"], segment_ids=zero, position_ids=counted))
    )


@pytest.mark.parametrize("names", [("token_ids", "segment_ids", "position_ids"), ("token_ids", "segment_ids")])
def test_every_layer_check(tmp_path, names):
    ids = some_ids()
    check_layer(BertEmbeddings, ARGUMENTS, {name: ids[name] for name in names}, tmp_path)


def test_dropout():
    check_dropout(lambda seed: BertEmbeddings(**{**ARGUMENTS, "dropout": 0.5, "seed": seed}), some_ids())


def test_gradients_sum_over_repeated_rows(layer):
    """Against the difference quotient, with token 3 five times in the batch and one position twice."""
    ids = some_ids()
    ids["token_ids"][:] = [[3, 3, 3, 5, 3], [2, 3, 5, 7, 11]]
    target = np.random.default_rng(1).normal(size=(BATCH, LENGTH, HIDDEN))

    def loss_of():
        return ops.sum(layer(**ids) * ops.convert_to_tensor(target, "float32"))

    found = gradients(loss_of, layer.trainable_variables)
    for variable, gradient in zip(layer.trainable_variables, found, strict=True):
        kept = numpy(variable)
        direction = np.random.default_rng(2).normal(size=kept.shape)
        step, sides = 1e-4, []
        for sign in (1, -1):
            weights = [numpy(weight).astype("float64") for weight in layer.weights]
            index = next(i for i, weight in enumerate(layer.weights) if weight is variable)
            weights[index] = weights[index] + sign * step * direction
            sides.append((formula(weights, layer.layer_norm_epsilon, **ids) * target).sum())
        expected = (sides[0] - sides[1]) / (2 * step)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-3), variable.path


def test_gradients_add_up_in_bfloat16_too():
    """A piece that stands in every row: the gradient of a batch is the sum of those of its halves, to float32."""
    layer = BertEmbeddings(**PLAIN, dtype="mixed_bfloat16")
    layer.build((None, None))
    randomize(layer)
    rng = np.random.default_rng(3)
    tokens, rows = np.full((600, LENGTH), 3, "int32"), np.arange(600)
    tokens[:, 1:] = rng.integers(0, VOCABULARY, (600, LENGTH - 1))
    target = rng.normal(size=(600, LENGTH, HIDDEN)).astype("float32")

    def gradients_of(part):
        def loss_of():
            return ops.sum(ops.multiply(ops.cast(layer(tokens[part]), "float32"), ops.convert_to_tensor(target[part])))

        return gradients(loss_of, layer.trainable_variables)

    whole, even, odd = gradients_of(rows), gradients_of(rows % 2 == 0), gradients_of(rows % 2 == 1)
    for variable, gradient, one, other in zip(layer.trainable_variables, whole, even, odd, strict=True):
        np.testing.assert_allclose(gradient, one + other, rtol=1e-4, atol=1e-4, err_msg=variable.path)


def formula(weights, epsilon, token_ids, segment_ids, position_ids):
    token, position, segment, gamma, beta = weights
    x = token[token_ids] + position[position_ids] + segment[segment_ids]
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


def test_only_the_token_table_may_have_a_sparse_gradient(layer):
    """A sparse gradient of repeated rows is what Keras's Adam gets wrong on TensorFlow."""
    tf = pytest.importorskip("tensorflow")
    if not isinstance(layer.position_table.value, tf.Variable):
        pytest.skip("only TensorFlow has sparse gradients")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(**some_ids()) ** 2)
    tables = [layer.position_table.value, layer.segment_table.value]
    assert all(isinstance(gradient, tf.Tensor) for gradient in tape.gradient(loss, tables))


def test_a_sequence_longer_than_the_position_table_is_refused(layer):
    with pytest.raises(BertKerasError, match="a row has 14 tokens, but there are only 13 positions"):
        layer(np.zeros((1, POSITIONS + 1), "int32"))


def test_initializer_range():
    layer = BertEmbeddings(97, 61, 89, 83, initializer_range=0.07)
    layer.build((None, None))
    for table in (layer.token_table, layer.position_table, layer.segment_table):
        # cutting a normal at two deviations leaves 0.8796 of the deviation; of 5063 draws 5 % is over 3 sigma
        assert abs(numpy(table).std() / (0.8796 * 0.07) - 1) < 0.05


def test_positions_may_begin_as_sinusoids():
    layer = BertEmbeddings(11, 6, max_sequence_length=7, initializer_range=0.5, position_initializer="sinusoidal")
    layer.build((None, None))
    table = numpy(layer.position_table)
    place, frequencies = 3, [1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)]
    expected = [*(math.sin(place * f) for f in frequencies), *(math.cos(place * f) for f in frequencies)]
    np.testing.assert_allclose(table[place], expected, rtol=1e-5)
    # from place p to p + 1 is the same rotation everywhere
    rotation = np.linalg.lstsq(table[:6], table[1:], rcond=None)[0]
    np.testing.assert_allclose(table[:6] @ rotation, table[1:], atol=1e-5)
    assert layer.position_table.trainable
    with pytest.raises(BertKerasError, match="position_initializer must be"):
        BertEmbeddings(11, 6, position_initializer="random").build((None, None))
