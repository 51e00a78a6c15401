"""The class of the chapter on self-attention computes what the package's computes: outputs and gradients."""

import keras
import numpy as np
import pytest

pytest.importorskip("nbformat")
pytest.importorskip("yaml")

import bertkeras.layers
from tests.book.notebooks import attention_masks, chapter_classes


def gradients(layer, inputs, mask, direction):
    """Of the outputs' product with `direction`, with respect to the inputs and every weight."""
    import tensorflow as tf

    variables = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        score = tf.reduce_sum(layer(inputs, mask) * direction)
    return tape.gradient(score, [inputs, *variables])


@pytest.mark.parametrize("num_heads", [1, 2, 7])
@pytest.mark.parametrize("mask", ["none", "padding", "all padding", "pairs"])
def test_self_attention(num_heads, mask):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow")
    import tensorflow as tf

    random = np.random.default_rng(3)
    inputs = tf.constant(random.normal(size=(3, 11, 14)), tf.float32)
    direction = random.normal(size=(3, 11, 14)).astype("float32")
    mask = attention_masks(3, 11)[mask]

    theirs = bertkeras.layers.MultiHeadSelfAttention(num_heads=num_heads)
    ours = chapter_classes("self_attention")["MultiHeadSelfAttention"](num_heads=num_heads)
    theirs.build(inputs.shape)
    ours.build(inputs.shape)
    # larger than at initialisation, so that the softmax is not flat
    weights = [random.normal(scale=0.4, size=weight.shape) for weight in theirs.get_weights()]
    theirs.set_weights(weights)
    ours.set_weights(weights)

    np.testing.assert_allclose(ours(inputs, mask), theirs(inputs, mask), rtol=1e-4, atol=1e-5)
    found = gradients(ours, inputs, mask, direction)
    wanted = gradients(theirs, inputs, mask, direction)
    assert len(found) == len(wanted) == 5
    for mine, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
        assert np.isfinite(mine).all()
    assert all(np.abs(gradient).max() > 0 for gradient in found)
