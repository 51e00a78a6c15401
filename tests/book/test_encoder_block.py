"""The classes of the chapter on the encoder block compute what the package's compute: outputs and gradients."""

import keras
import numpy as np
import pytest

pytest.importorskip("nbformat")
pytest.importorskip("yaml")

import bertkeras.layers
from bertkeras.layers.layer_norm import LayerNormalization
from tests.book.notebooks import attention_masks, chapter_classes

CHAPTER = "encoder_block"
BATCH, LENGTH, WIDTH, INNER = 3, 11, 14, 37


@pytest.fixture(scope="module")
def chapter():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow")
    return chapter_classes(CHAPTER)


def outputs_and_gradients(layer, inputs, *arguments):
    """The outputs, and the gradients of their product with a fixed direction: of the inputs and of every weight."""
    import tensorflow as tf

    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, *arguments)
        direction = np.random.default_rng(11).normal(size=outputs.shape)
        score = tf.reduce_sum(tf.cast(outputs, "float32") * direction.astype("float32"))
    variables = [variable.value for variable in layer.trainable_variables]
    return outputs, [tf.cast(gradient, "float32") for gradient in tape.gradient(score, [inputs, *variables])]


def assert_same(ours, theirs, inputs, *arguments, scale=0.4, rtol=1e-3, atol=1e-4):
    """Equal outputs and gradients, with weights that are larger than at initialisation and no bias zero."""
    random = np.random.default_rng(3)
    for layer in (ours, theirs):
        layer.build(inputs.shape)
    weights = [random.normal(scale=scale, size=weight.shape) for weight in theirs.get_weights()]
    assert [weight.shape for weight in ours.get_weights()] == [weight.shape for weight in weights]
    theirs.set_weights(weights)
    ours.set_weights(weights)

    found, found_gradients = outputs_and_gradients(ours, inputs, *arguments)
    wanted, wanted_gradients = outputs_and_gradients(theirs, inputs, *arguments)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)
    assert len(found_gradients) == len(wanted_gradients) == 1 + len(weights)
    for mine, other in zip(found_gradients, wanted_gradients, strict=True):
        assert np.isfinite(mine).all()
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol * max(1, np.abs(other).max()))


def rows(scale=1.0):
    return (scale * np.random.default_rng(5).normal(size=(BATCH, LENGTH, WIDTH))).astype("float32")


def mask_of(case):
    if case == "heads":
        return np.random.default_rng(7).random((BATCH, 7, LENGTH, LENGTH)) < 0.6
    return attention_masks(BATCH, LENGTH)[case]


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_feed_forward(chapter, activation):
    theirs = bertkeras.layers.PositionwiseFeedForward(INNER, activation=activation)
    # wide enough for the two forms of GELU to differ by more than the tolerance
    assert_same(chapter["PositionwiseFeedForward"](INNER, activation), theirs, rows(), scale=0.8, rtol=1e-5, atol=1e-5)


def test_the_two_forms_of_gelu_are_told_apart(chapter):
    theirs = bertkeras.layers.PositionwiseFeedForward(INNER, activation="gelu")
    with pytest.raises(AssertionError):
        assert_same(
            chapter["PositionwiseFeedForward"](INNER, "gelu_tanh"), theirs, rows(), scale=0.8, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1e-3])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_layer_norm(chapter, epsilon, scale):
    ours, theirs = chapter["LayerNormalization"](epsilon), LayerNormalization(epsilon=epsilon)
    assert_same(ours, theirs, rows(scale) + 3 * np.float32(scale), rtol=1e-3, atol=2e-5)


def test_layer_norm_computes_in_float32(chapter):
    """In bfloat16 the mean of numbers near 100 would be off by more than their spread."""
    ours, theirs = (
        chapter["LayerNormalization"](dtype="mixed_bfloat16"),
        LayerNormalization(epsilon=1e-12, dtype="mixed_bfloat16"),
    )
    inputs = keras.ops.convert_to_numpy(keras.ops.cast(100 + rows(), "bfloat16"))
    assert_same(ours, theirs, inputs, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mask", ["none", "padding", "all padding", "pairs", "heads"])
def test_block(chapter, mask, norm_first):
    options = {"num_heads": 7, "intermediate_dim": INNER, "norm_first": norm_first}
    ours = chapter["TransformerEncoderBlock"](**options)
    theirs = bertkeras.layers.TransformerEncoderBlock(**options)
    assert_same(ours, theirs, rows(), mask_of(mask))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["gelu_tanh", "relu"])
def test_block_with_other_activations_and_epsilons(chapter, activation, norm_first):
    options = {
        "num_heads": 2,
        "intermediate_dim": INNER,
        "activation": activation,
        "layer_norm_epsilon": 1e-3,
        "norm_first": norm_first,
    }
    ours = chapter["TransformerEncoderBlock"](**options)
    theirs = bertkeras.layers.TransformerEncoderBlock(**options)
    assert_same(ours, theirs, rows(), mask_of("padding"))


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_block_drops_in_training_only_and_never_on_the_path(chapter, norm_first):
    block = chapter["TransformerEncoderBlock"](2, INNER, dropout=0.5, attention_dropout=0.5, norm_first=norm_first)
    block.build(rows().shape)
    assert np.array_equal(block(rows()), block(rows()))
    assert not np.allclose(block(rows(), training=True), block(rows(), training=True))
    for weight in block.weights:
        if weight.name in ("kernel", "bias"):
            weight.assign(np.zeros(weight.shape))
    assert np.array_equal(block(rows(), training=True), block(rows()))
