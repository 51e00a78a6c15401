import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers import MultiHeadSelfAttention
from tests.checks import check_attention_masks, check_dropout, check_layer, functional, gradients, numpy, randomize

BATCH, LENGTH, HEADS, HEAD_DIM = 2, 5, 3, 7
HIDDEN = HEADS * HEAD_DIM
ARGUMENTS = {"num_heads": HEADS, "dropout": 0.11, "rotary": True, "initializer_range": 0.03, "seed": 0}


def some_inputs(seed=0):
    return np.random.default_rng(seed).normal(size=(BATCH, LENGTH, HIDDEN)).astype("float32")


def by_hand(x, layer, mask=None):
    """The formula, one head and one query at a time. `mask` is (batch, queries, keys)."""
    qkv_kernel, qkv_bias, kernel, bias = (numpy(weight).astype("float64") for weight in layer.weights)
    context = np.zeros(x.shape)
    scores = np.zeros((len(x), HEADS, x.shape[1], x.shape[1]))
    for b, row in enumerate(x.astype("float64")):
        projected = row @ qkv_kernel + qkv_bias
        for head in range(HEADS):
            q, k, v = (projected[:, part * HIDDEN + head * HEAD_DIM :][:, :HEAD_DIM] for part in range(3))
            for i in range(len(row)):
                allowed = [j for j in range(len(row)) if mask is None or mask[b, i, j]]
                if not allowed:
                    continue
                weights = np.array([q[i] @ k[j] / HEAD_DIM**0.5 for j in allowed])
                weights = np.exp(weights - weights.max())
                weights /= weights.sum()
                scores[b, head, i, allowed] = weights
                context[b, i, head * HEAD_DIM :][:HEAD_DIM] = weights @ v[allowed]
    return context @ kernel + bias, scores


@pytest.fixture
def layer():
    layer = MultiHeadSelfAttention(HEADS)
    layer.build((None, None, HIDDEN))
    randomize(layer)
    return layer


def test_two_positions_worked_out():
    """One head of width 1, Q = K = V = x = (0, ln 2): the second query weighs its keys 1 : 2^(ln 2)."""
    layer = MultiHeadSelfAttention(1)
    layer.build((None, None, 1))
    layer.set_weights([np.ones((1, 3)), np.zeros(3), np.ones((1, 1)), np.zeros(1)])
    ln2 = np.log(2.0)
    output, scores = layer(np.array([[[0.0], [ln2]]], "float32"), return_attention_scores=True)
    share = 2**ln2 / (1 + 2**ln2)
    np.testing.assert_allclose(numpy(scores)[0, 0], [[0.5, 0.5], [1 - share, share]], rtol=1e-6)
    np.testing.assert_allclose(numpy(output)[0, :, 0], [ln2 / 2, ln2 * share], rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_formula(layer, masked):
    x = some_inputs()
    mask = np.random.default_rng(1).random((BATCH, LENGTH, LENGTH)) < 0.6 if masked else None
    if masked:
        mask[1, 2] = False
    output, scores = by_hand(x, layer, mask)
    np.testing.assert_allclose(numpy(layer(x, attention_mask=mask)), output, rtol=1e-5, atol=1e-5)
    outputs, probabilities = layer(x, attention_mask=mask, return_attention_scores=True)
    np.testing.assert_allclose(numpy(outputs), output, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numpy(probabilities), scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 2, 3, 4])
def test_every_layer_check(tmp_path, rank):
    inputs = {"inputs": some_inputs()}
    if rank is not None:
        shape = {2: (BATCH, LENGTH), 3: (BATCH, LENGTH, LENGTH), 4: (BATCH, HEADS, LENGTH, LENGTH)}[rank]
        mask = np.random.default_rng(2).random(shape) < 0.7
        mask[1] = False
        inputs["attention_mask"] = mask
    check_layer(MultiHeadSelfAttention, ARGUMENTS, inputs, tmp_path)


def test_masks():
    check_attention_masks(lambda dtype: MultiHeadSelfAttention(HEADS, dtype=dtype), HIDDEN, HEADS)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_row_that_sees_nothing_gives_the_output_bias(dtype):
    layer = MultiHeadSelfAttention(HEADS, dropout=0.5, dtype=dtype)
    layer.build((None, None, HIDDEN))
    randomize(layer)
    bias = numpy(ops.cast(layer.weights[-1], layer.compute_dtype))
    mask = np.ones((BATCH, LENGTH), bool)
    mask[1] = False
    square = np.ones((BATCH, LENGTH, LENGTH), bool)
    square[0, 3] = False
    for training in (False, True):
        output = numpy(layer(some_inputs(), attention_mask=mask, training=training))
        np.testing.assert_array_equal(output[1], np.broadcast_to(bias, (LENGTH, HIDDEN)))
        assert not np.allclose(output[0], bias, atol=0.01)
        output = numpy(layer(some_inputs(), attention_mask=square, training=training))
        np.testing.assert_array_equal(output[0, 3], bias)
    _, scores = layer(some_inputs(), attention_mask=mask, return_attention_scores=True)
    np.testing.assert_array_equal(numpy(scores)[1], 0.0)


def test_no_gradient_flows_from_a_row_that_sees_nothing(layer):
    x = some_inputs()
    mask = np.ones((BATCH, LENGTH), bool)
    mask[1] = False
    kernel = layer.weights[0]
    (both,) = gradients(lambda: ops.sum(layer(x, attention_mask=mask) ** 2), [kernel])
    (alone,) = gradients(lambda: ops.sum(layer(x[:1]) ** 2), [kernel])
    np.testing.assert_allclose(both, alone, rtol=1e-4, atol=1e-4)


def test_huge_scores_stay_finite(layer):
    """Scores far below the mask's own constant must not let a masked key through."""
    x = some_inputs() * 1e3
    mask = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0]], bool)
    expected, _ = by_hand(x[1:], layer, np.broadcast_to(mask[1:, None], (1, LENGTH, LENGTH)))
    output = numpy(layer(x, attention_mask=mask))
    assert np.isfinite(output).all()
    np.testing.assert_allclose(output[1:], expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_softmax_in_float32_at_least(dtype, expected, monkeypatch):
    """Seen from outside, a backend may hide the difference by what it does inside its own softmax."""
    if keras.backend.result_type(dtype, "float32") != expected:
        pytest.skip(f"Keras calculates in float32 where {dtype} meets float32 on this backend")
    seen, softmax = [], ops.softmax

    def spy(scores, axis=-1):
        seen.append(keras.backend.standardize_dtype(scores.dtype))
        return softmax(scores, axis=axis)

    monkeypatch.setattr(ops, "softmax", spy)
    _, scores = MultiHeadSelfAttention(HEADS, dtype=dtype)(some_inputs(), return_attention_scores=True)
    assert seen == [expected]
    assert keras.backend.standardize_dtype(scores.dtype) == dtype


def test_dropout():
    x = some_inputs()
    check_dropout(lambda seed: MultiHeadSelfAttention(HEADS, dropout=0.5, seed=seed), {"inputs": x})


def test_dropout_is_on_the_probabilities():
    """Q = K = 0 and V = x = 1: the context is the share of keys kept, over the share expected to be kept."""
    length, rate = 997, 0.25
    layer = MultiHeadSelfAttention(1, dropout=rate, seed=3)
    layer.build((None, None, 1))
    layer.set_weights([np.array([[0.0, 0.0, 1.0]]), np.zeros(3), np.ones((1, 1)), np.zeros(1)])
    ones = np.ones((1, length, 1), "float32")
    np.testing.assert_allclose(numpy(layer(ones)), 1.0, rtol=1e-5)
    kept = numpy(layer(ones, training=True))[0, :, 0] * (1 - rate)
    # each is a mean of 997 draws with p = 0.75: deviation 0.0137; the mean over 997 queries has 0.00043
    assert abs(kept.mean() - (1 - rate)) < 5 * 0.00043
    assert 0.5 * 0.0137 < kept.std() < 1.5 * 0.0137


def test_initializer_range():
    layer = MultiHeadSelfAttention(2, initializer_range=0.07)
    layer.build((None, None, 58))
    for kernel, bias in (layer.weights[:2], layer.weights[2:]):
        # cutting a normal at two deviations leaves 0.8796 of the deviation; 3364 draws or more: 5 % is over 3 sigma
        assert abs(numpy(kernel).std() / (0.8796 * 0.07) - 1) < 0.05
        assert np.abs(numpy(kernel)).max() <= 2.001 * 0.07
        assert not numpy(bias).any()


def test_scores_in_a_functional_model(layer):
    model = functional(layer, {"inputs": some_inputs()}, return_attention_scores=True)
    assert [output.shape for output in model.outputs] == [(None, None, HIDDEN), (None, HEADS, None, None)]
    for symbolic, eager in zip(model(some_inputs()), layer(some_inputs(), return_attention_scores=True), strict=True):
        np.testing.assert_allclose(numpy(symbolic), numpy(eager), rtol=1e-6, atol=1e-6)


def test_a_wrong_mask_is_an_error_before_anything_runs(layer):
    with pytest.raises(BertKerasError, match="got int32 of shape"):
        layer(keras.Input((LENGTH, HIDDEN)), attention_mask=keras.Input((LENGTH,), dtype="int32"))


def test_heads_that_do_not_divide():
    with pytest.raises(BertKerasError, match="num_heads=3 does not divide the width 22"):
        MultiHeadSelfAttention(3).build((None, None, 22))
    with pytest.raises(BertKerasError, match="width None"):
        MultiHeadSelfAttention(3).build((None, None, None))


@pytest.mark.parametrize("rank", [None, 2, 3, 4])
def test_some_queries(layer, rank):
    """Only the positions asked for look, and see what they see when all look."""
    x, positions = some_inputs(), np.array([[4, 0, 2], [3, 3, 1]], "int32")
    mask = None
    if rank is not None:
        shape = {2: (BATCH, LENGTH), 3: (BATCH, LENGTH, LENGTH), 4: (BATCH, HEADS, LENGTH, LENGTH)}[rank]
        mask = np.random.default_rng(2).random(shape) < 0.6
    every, scores = layer(x, attention_mask=mask, return_attention_scores=True)
    some, some_scores = layer(x, attention_mask=mask, query_positions=positions, return_attention_scores=True)
    expected = np.take_along_axis(numpy(every), positions[..., None], axis=1)
    np.testing.assert_allclose(numpy(some), expected, rtol=1e-5, atol=1e-5)
    expected = np.take_along_axis(numpy(scores), positions[:, None, :, None], axis=2)
    np.testing.assert_allclose(numpy(some_scores), expected, rtol=1e-5, atol=1e-6)
    symbol = layer(keras.Input((LENGTH, HIDDEN)), query_positions=keras.Input((3,), dtype="int32"))
    assert symbol.shape == (None, 3, HIDDEN)


def test_a_head_that_sees_nothing_gives_zeros_whatever_the_others_see():
    layer = MultiHeadSelfAttention(num_heads=3)
    x = np.random.default_rng(5).normal(size=(2, 5, 21)).astype("float32")
    mask = np.ones((2, 3, 5, 5), bool)
    mask[1, 2, 3] = False
    _, probabilities = layer(x, attention_mask=mask, return_attention_scores=True)
    sums = numpy(probabilities).sum(-1)
    assert not numpy(probabilities)[1, 2, 3].any()
    np.testing.assert_allclose(sums, mask.any(-1), rtol=1e-5)


def test_the_default_kernels_are_those_of_bert():
    layer = MultiHeadSelfAttention(num_heads=4)
    layer.build((None, None, 64))
    kernel = numpy(layer.qkv_dense.kernel)  # 12,288 draws: the standard deviation is known to 0.7 %
    assert kernel.std() == pytest.approx(0.88 * 0.02, rel=0.05)  # Keras cuts at two deviations and does not widen
