"""The classes of the chapter on the assembled BERT compute what the package's compute: outputs and gradients."""

import keras
import numpy as np
import pytest

pytest.importorskip("nbformat")
pytest.importorskip("yaml")

import bertkeras
import bertkeras.layers
from bertkeras import BertConfig
from tests.book.notebooks import chapter_classes

CHAPTER = "bert_assembled"
# distinct primes, or multiples of the heads, so that no transposed axis can pass
CONFIG = BertConfig(
    vocabulary_size=53, num_layers=2, hidden_dim=21, num_heads=3, intermediate_dim=37, max_sequence_length=17
)
ROWS, LENGTH = 3, 11


@pytest.fixture(scope="module")
def chapter():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow")
    return chapter_classes(CHAPTER)


def rows(case):
    """Ids with repeated pieces; two segments; padding that another row does not have."""
    random = np.random.default_rng(5)
    inputs = {"token_ids": random.integers(0, 13, size=(ROWS, LENGTH))}
    if case in ("segments", "both"):
        inputs["segment_ids"] = (np.arange(LENGTH)[None] >= np.array([[4], [7], [1]])).astype("int64")
    if case in ("padding", "both"):
        inputs["padding_mask"] = np.arange(LENGTH)[None] < np.array([[LENGTH], [LENGTH - 4], [1]])
    return inputs


def redraw_alike(*layers):
    """The same weights in all, larger than fresh ones, so that no softmax is flat and no bias zero."""
    random = np.random.default_rng(3)
    first = layers[0]
    weights = [random.normal(scale=0.4, size=weight.shape) for weight in first.get_weights()]
    for layer in layers:
        assert [weight.shape for weight in layer.get_weights()] == [weight.shape for weight in weights]
        layer.set_weights(weights)


def values_and_gradients(function, variables):
    """What `function()` gives, and the gradients of its product with a fixed random direction, all dense."""
    import tensorflow as tf

    values = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        outputs = function()
        random = np.random.default_rng(7)
        score = sum(tf.reduce_sum(output * random.normal(size=output.shape).astype("float32")) for output in outputs)
    return [np.asarray(output) for output in outputs], [
        tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(score, values)
    ]


def check_equal(found, wanted):
    for mine, other in zip(found[0], wanted[0], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    assert len(found[1]) == len(wanted[1]) > 0
    for mine, other in zip(found[1], wanted[1], strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=2e-4)
    # every variable counts; the keys' bias alone would not, but it is a part of the vector for all three
    assert all(np.abs(gradient).max() > 0 for gradient in found[1])


@pytest.mark.parametrize("case", ["plain", "segments"])
def test_embeddings(chapter, case):
    inputs = rows(case)
    ours = chapter["BertEmbeddings"](CONFIG.vocabulary_size, CONFIG.hidden_dim, CONFIG.max_sequence_length)
    theirs = bertkeras.layers.BertEmbeddings(CONFIG.vocabulary_size, CONFIG.hidden_dim, CONFIG.max_sequence_length)
    for layer in (ours, theirs):
        layer.build((None, None))
    redraw_alike(ours, theirs)
    found, wanted = (
        values_and_gradients(
            lambda layer=layer: [layer(inputs["token_ids"], segment_ids=inputs.get("segment_ids"))],
            layer.trainable_variables,
        )
        for layer in (ours, theirs)
    )
    assert len(found[1]) == 5
    check_equal(found, wanted)


@pytest.mark.parametrize("case", ["plain", "padding", "segments", "both"])
def test_backbone(chapter, case):
    inputs = rows(case)
    ours, theirs = chapter["BertBackbone"](CONFIG), bertkeras.BertBackbone(CONFIG)
    redraw_alike(ours, theirs)
    assert ours.count_params() == theirs.count_params()
    names = ("sequence_output", "pooled_output")
    found, wanted = (
        values_and_gradients(
            lambda model=model: [model(inputs, training=False)[name] for name in names], model.trainable_variables
        )
        for model in (ours, theirs)
    )
    check_equal(found, wanted)


@pytest.mark.parametrize("case", ["plain", "both"])
def test_masked_lm_head_on_the_shared_table(chapter, case):
    inputs = rows(case)
    positions = np.array([[1, 3], [0, 6], [0, 0]])
    ours = chapter["BertBackbone"](CONFIG), chapter["MaskedLMHead"](CONFIG.vocabulary_size)
    theirs = bertkeras.BertBackbone(CONFIG), bertkeras.layers.MaskedLMHead(CONFIG.vocabulary_size)
    for part in (0, 1):
        if part:
            ours[1].build((None, None, CONFIG.hidden_dim))
            theirs[1].build((None, None, CONFIG.hidden_dim))
        redraw_alike(ours[part], theirs[part])

    def logits(backbone, head, table):
        return [head(backbone(inputs, training=False)["sequence_output"], positions, table)]

    found, wanted = (
        values_and_gradients(
            lambda pair=pair, table=table: logits(*pair, table),
            # the pooler is not on the way; the token table is, on both sides
            [v for v in pair[0].trainable_variables if "pooler" not in v.path] + pair[1].trainable_variables,
        )
        for pair, table in ((ours, ours[0].embeddings.token_table), (theirs, theirs[0].token_table))
    )
    assert found[0][0].shape == (ROWS, 2, CONFIG.vocabulary_size)
    check_equal(found, wanted)
    # the output side reaches the rows of pieces that stand nowhere in the batch
    table_gradient = found[1][0]
    assert table_gradient.shape == (CONFIG.vocabulary_size, CONFIG.hidden_dim)
    assert (np.abs(table_gradient).max(axis=-1) > 0).all()


def test_dropout_is_off_unless_training(chapter):
    inputs = rows("both")
    model = chapter["BertBackbone"](CONFIG)
    quiet = [np.asarray(model(inputs)["sequence_output"]) for _ in range(2)]
    np.testing.assert_array_equal(*quiet)
    noisy = np.asarray(model(inputs, training=True)["sequence_output"])
    assert np.abs(noisy - quiet[0]).max() > 0.01
