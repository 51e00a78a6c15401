import math

import numpy as np
import pytest
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers import BertEmbeddings, MaskedLMHead, NextSentenceHead
from tests.checks import check_layer, gradients, numpy, randomize

BATCH, LENGTH, PREDICTIONS, VOCABULARY, HIDDEN = 2, 5, 3, 23, 7
ARGUMENTS = {
    "vocabulary_size": VOCABULARY,
    "activation": "gelu_tanh",
    "layer_norm_epsilon": 0.003,
    "initializer_range": 0.03,
    "tied": False,
}
POSITIONS = np.array([[4, 1, 0], [2, 2, 3]], "int32")


def some_inputs():
    rng = np.random.default_rng(0)
    return {
        "inputs": rng.normal(size=(BATCH, LENGTH, HIDDEN)).astype("float32"),
        "mask_positions": POSITIONS,
        "embedding_table": rng.normal(size=(VOCABULARY, HIDDEN)).astype("float32"),
    }


def test_formula():
    inputs = some_inputs()
    head = MaskedLMHead(VOCABULARY, layer_norm_epsilon=0.01)
    head.build((None, None, HIDDEN))
    randomize(head)
    weights = {weight.path.split("/")[-1]: numpy(weight).astype("float64") for weight in head.weights}
    x = np.stack([row[positions] for row, positions in zip(inputs["inputs"], POSITIONS, strict=True)])
    x = x @ weights["kernel"] + weights["bias"]
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.01) * weights["gamma"] + weights["beta"]
    expected = x @ inputs["embedding_table"].T + weights["output_bias"]
    np.testing.assert_allclose(numpy(head(**inputs)), expected, rtol=1e-5, atol=2e-5)


def test_two_pieces_worked_out():
    """Position 1 holds (1, 3); relu and identity keep it, the norm gives (-1, 1), the table's rows (1, 2) and (3, 0)
    score 1 and -3, and the biases 10 and 20 come on top."""
    head = MaskedLMHead(2, activation="relu", layer_norm_epsilon=0.0)
    head.build((None, None, 2))
    head.transform.set_weights([np.eye(2), np.zeros(2)])
    head.output_bias.assign([10.0, 20.0])
    hidden = np.array([[[9.0, 9.0], [1.0, 3.0]]], "float32")
    table = np.array([[1.0, 2.0], [3.0, 0.0]], "float32")
    np.testing.assert_allclose(numpy(head(hidden, np.array([[1]]), table)), [[[11.0, 17.0]]], rtol=1e-6)


def test_every_layer_check(tmp_path):
    check_layer(MaskedLMHead, ARGUMENTS, some_inputs(), tmp_path)


def test_only_the_given_positions_matter():
    inputs = some_inputs()
    head = MaskedLMHead(VOCABULARY)
    before = numpy(head(**inputs))
    inputs["inputs"][0, [2, 3]] += 100.0
    inputs["inputs"][1, [0, 1, 4]] -= 100.0
    np.testing.assert_array_equal(numpy(head(**inputs)), before)
    inputs["inputs"][0, 1, 0] += 1.0
    changed = np.abs(numpy(head(**inputs)) - before).max(-1) > 1e-4
    assert changed.tolist() == [[False, True, False], [False, False, False]]


def test_tied_to_the_token_table():
    embeddings = BertEmbeddings(VOCABULARY, HIDDEN, LENGTH)
    head = MaskedLMHead(VOCABULARY)
    tokens = np.zeros((BATCH, LENGTH), "int32")
    hidden = ops.convert_to_tensor(some_inputs()["inputs"])
    embeddings(tokens)
    head(hidden, POSITIONS, embeddings.token_table)
    randomize(embeddings)
    (gradient,) = gradients(
        lambda: ops.sum(head(hidden, POSITIONS, embeddings.token_table)[..., 5]), [embeddings.token_table]
    )
    assert np.flatnonzero(np.abs(gradient).max(-1) > 1e-3).tolist() == [5]
    assert not any(weight.shape == (VOCABULARY, HIDDEN) for weight in head.weights)


def test_a_table_of_its_own():
    inputs = some_inputs()
    tied, free = MaskedLMHead(VOCABULARY), MaskedLMHead(VOCABULARY, tied=False)
    for head in (tied, free):
        head.build((None, None, HIDDEN))
    free.output_table.assign(inputs["embedding_table"])
    for name in ("transform", "layer_norm"):
        getattr(free, name).set_weights(getattr(tied, name).get_weights())
    expected = numpy(tied(**inputs))
    inputs["embedding_table"] = None
    np.testing.assert_allclose(numpy(free(**inputs)), expected, rtol=1e-6)


def test_the_output_bias_starts_at_zero_and_the_kernel_at_its_range():
    head = MaskedLMHead(89, initializer_range=0.07)
    head.build((None, None, 71))
    assert not numpy(head.output_bias).any()
    # cutting a normal at two deviations leaves 0.8796 of the deviation; of 5041 draws 5 % is over 3 sigma
    assert abs(numpy(head.transform.kernel).std() / (0.8796 * 0.07) - 1) < 0.05


def test_unknown_activation():
    with pytest.raises(BertKerasError, match="unknown activation"):
        MaskedLMHead(VOCABULARY, activation="gelo")


def test_next_sentence_every_layer_check(tmp_path):
    inputs = {"inputs": np.random.default_rng(0).normal(size=(3, HIDDEN)).astype("float32")}
    check_layer(NextSentenceHead, {"initializer_range": 0.03}, inputs, tmp_path)


def test_next_sentence_worked_out():
    head = NextSentenceHead()
    head.build((None, 3))
    head.set_weights([np.array([[1, 2], [3, 4], [5, 6]]), np.array([10, 20])])
    np.testing.assert_allclose(numpy(head(np.array([[1.0, 1.0, 2.0]], "float32"))), [[24.0, 38.0]], rtol=1e-6)


def test_next_sentence_initializer_range():
    head = NextSentenceHead(initializer_range=0.07)
    head.build((None, 2503))
    assert abs(numpy(head.dense.kernel).std() / (0.8796 * 0.07) - 1) < 0.05


def test_without_positions_the_inputs_are_the_masked_places():
    inputs = some_inputs()
    head = MaskedLMHead(VOCABULARY)
    expected = numpy(head(**inputs))
    chosen = np.take_along_axis(inputs["inputs"], POSITIONS[..., None], axis=1)
    np.testing.assert_allclose(numpy(head(chosen, None, inputs["embedding_table"])), expected, rtol=1e-5, atol=1e-5)
