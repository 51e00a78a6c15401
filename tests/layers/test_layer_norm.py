import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.layers.layer_norm import LayerNormalization
from tests.checks import check_files, check_modes, functional, gradients, numpy, randomize

SHAPES = [(5, 7), (2, 5, 7), (2, 3, 5, 7)]
OPTIONS = [{"center": False}, {"scale": False}, {"axis": 1}]


def some_inputs(shape=(2, 5, 7)):
    return np.random.default_rng(0).normal(loc=2.0, scale=3.0, size=shape).astype("float32")


def built(cls, shape, **options):
    layer = cls(epsilon=0.1, **options)
    layer.build(shape)
    randomize(layer, scale=1.0)
    return layer


def outputs_and_gradients(layer, x):
    """The outputs, and how a sum of them in which each counts otherwise moves with the inputs and every weight."""
    counts = ops.convert_to_tensor(np.random.default_rng(1).normal(size=x.shape), dtype="float32")
    inputs = keras.Variable(x)
    found = gradients(lambda: ops.sum(layer(inputs.value) * counts), [inputs, *layer.trainable_variables])
    return [numpy(layer(x)), *found]


def test_formula():
    layer, x = built(LayerNormalization, (2, 5, 7)), some_inputs().astype("float64")
    gamma, beta = (numpy(weight) for weight in (layer.gamma, layer.beta))
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1) * gamma + beta
    np.testing.assert_allclose(numpy(layer(some_inputs())), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_and_derivatives_are_those_of_keras(shape):
    ours, peer = built(LayerNormalization, shape), built(keras.layers.LayerNormalization, shape)
    x = some_inputs(shape)
    found, expected = outputs_and_gradients(ours, x), outputs_and_gradients(peer, x)
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_derivative_by_hand_is_the_one_that_runs(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow alone computes operation by operation")
    layer, called = built(LayerNormalization, (2, 5, 7)), []
    by_hand = layer._with_gradient
    monkeypatch.setattr(layer, "_with_gradient", lambda *arguments: called.append(1) or by_hand(*arguments))
    layer(some_inputs())
    assert called


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_under_xla_are_those_without(shape):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX has them in the test above, and PyTorch has no XLA")
    import tensorflow as tf

    layer, x = built(LayerNormalization, shape), some_inputs(shape)
    counts, inputs = np.random.default_rng(1).normal(size=shape).astype("float32"), tf.Variable(x)

    def inside():
        values = [inputs, layer.gamma.value, layer.beta.value]
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(tf.identity(inputs)) * counts)
        return [layer(tf.identity(inputs)), *tape.gradient(total, values)]

    for one, other in zip(tf.function(inside, jit_compile=True)(), outputs_and_gradients(layer, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_those_of_keras(options):
    if keras.backend.backend() == "torch" and "axis" in options:
        pytest.skip("Keras 3.15 on torch normalises over the last axis only")
    ours, peer = (built(cls, (2, 5, 7), **options) for cls in (LayerNormalization, keras.layers.LayerNormalization))
    found, expected = (outputs_and_gradients(layer, some_inputs()) for layer in (ours, peer))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_half_precision_is_rounded_once_at_the_end():
    half = LayerNormalization(epsilon=0.1, dtype="mixed_bfloat16")
    half.build((2, 5, 7))
    x = ops.cast(some_inputs(), "bfloat16")
    full = LayerNormalization(epsilon=0.1)(ops.cast(x, "float32"))
    assert keras.backend.standardize_dtype(half(x).dtype) == "bfloat16"
    np.testing.assert_array_equal(
        numpy(ops.cast(half(x), "float32")), numpy(ops.cast(ops.cast(full, "bfloat16"), "float32"))
    )


def test_files_and_modes(tmp_path):
    layer = LayerNormalization(epsilon=0.1)
    inputs = {"inputs": some_inputs()}
    model = functional(layer, inputs)
    randomize(layer)
    check_files(model, inputs, tmp_path)
    check_modes(model, model.outputs[0], inputs)
