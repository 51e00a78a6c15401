import keras
import numpy as np
import pytest
from keras import ops

from bertkeras import BertConfig, BertPretrainer
from bertkeras.layers.dense import Dense, affine
from tests.checks import gradients, numpy, randomize

ROWS, INPUTS, OUTPUTS = 600, 7, 5


def rounded(*shape, seed=0):
    """Numbers that bfloat16 holds exactly, as float32."""
    drawn = np.random.default_rng(seed).normal(size=shape)
    return numpy(ops.cast(drawn.astype("float32"), "bfloat16"))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_bfloat16_products(transposed, with_bias, compiled):
    """In float32 where XLA compiles them, and right to bfloat16's rounding elsewhere."""
    if compiled and keras.backend.backend() != "tensorflow":
        pytest.skip("another path on TensorFlow alone")
    exact = compiled or keras.backend.backend() == "jax"
    x, upstream = rounded(2, ROWS // 2, INPUTS), rounded(2, ROWS // 2, OUTPUTS, seed=1)
    w, b = rounded(INPUTS, OUTPUTS, seed=2), rounded(OUTPUTS, seed=3)
    weight, bias = keras.Variable(w.T if transposed else w), keras.Variable(b)
    inputs = keras.Variable(x, dtype="bfloat16")
    variables = [inputs, weight, bias] if with_bias else [inputs, weight]

    def loss():
        outputs = affine(inputs.value, weight.value, bias.value if with_bias else None, transposed)
        assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
        # a loss whose derivative by the outputs is `upstream`, exactly
        return ops.sum(ops.multiply(ops.cast(outputs, "float32"), ops.convert_to_tensor(upstream)))

    if compiled:
        import tensorflow as tf

        found = tf.function(lambda: gradients_inside(loss, variables), jit_compile=True)()
        found = [numpy(gradient) for gradient in found]
    else:
        found = gradients(loss, variables)
    rows, sides = x.reshape(ROWS, INPUTS).astype("float64"), upstream.reshape(ROWS, OUTPUTS).astype("float64")
    by_weight = rows.T @ sides
    np.testing.assert_allclose(found[0].reshape(ROWS, INPUTS), sides @ w.T, rtol=2**-7, atol=2**-7)
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if exact else {"rtol": 2**-7, "atol": 0.5}
    np.testing.assert_allclose(found[1].T if transposed else found[1], by_weight, **tolerance)
    if with_bias:
        np.testing.assert_allclose(found[2], sides.sum(axis=0), **tolerance)
    assert np.abs(numpy(ops.cast(by_weight, "bfloat16")) - by_weight).max() > 1e-2, "a rounded sum would do as well"


def gradients_inside(loss, variables):
    import tensorflow as tf

    values = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        value = loss()
    return tape.gradient(value, values)


def test_in_float32_it_is_keras_s():
    x = rounded(4, INPUTS)
    ours, theirs = Dense(OUTPUTS, activation="tanh"), keras.layers.Dense(OUTPUTS, activation="tanh")
    for layer in (ours, theirs):
        layer.build((None, INPUTS))
        randomize(layer)
    np.testing.assert_array_equal(numpy(ours(x)), numpy(theirs(x)))


def test_it_stands_in_functional_models(tmp_path):
    inputs = keras.Input((INPUTS,))
    model = keras.Model(inputs, Dense(OUTPUTS, dtype="mixed_bfloat16")(inputs))
    randomize(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = rounded(4, INPUTS)
    np.testing.assert_array_equal(numpy(again(x)), numpy(model(x)))
    assert isinstance(again.layers[-1], Dense)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the model's gradients outside a compiled step")
def test_no_gradient_of_a_model_is_rounded_to_bfloat16():
    """Each has values that bfloat16 does not hold: embeddings, kernels, biases, norms and the head."""
    keras.utils.set_random_seed(1)
    model = BertPretrainer(BertConfig(61, 2, 16, 2, 32, 12), dtype="mixed_bfloat16")
    randomize(model, scale=0.2)
    rng = np.random.default_rng(5)
    inputs = {
        "token_ids": rng.integers(0, 61, (8, 12)).astype("int32"),
        "segment_ids": rng.integers(0, 2, (8, 12)).astype("int32"),
        "mask_positions": np.tile(np.arange(3), (8, 1)).astype("int32"),
    }
    labels = {
        "mlm_labels": rng.integers(0, 61, (8, 3)).astype("int32"),
        "mlm_weights": np.ones((8, 3), "float32"),
        "nsp_labels": rng.integers(0, 2, 8).astype("int32"),
    }
    variables = model.trainable_variables
    found = gradients(lambda: model.compute_loss(inputs, labels, model(inputs)), variables)
    low = [v.path for v, g in zip(variables, found, strict=True) if (g == numpy(ops.cast(g, "bfloat16"))).all()]
    assert not low
    assert model.compute_dtype == "bfloat16"


@pytest.mark.parametrize("shape", [(300, 7, 5), (300, 5, 7), (4, 7, 5), (300, 6, 6)])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_in_float32_under_xla(shape, transposed):
    """More rows than columns, or fewer; the wider side first, or second."""
    if keras.backend.backend() == "torch":
        pytest.skip("no XLA")
    rows, n, m = shape
    random = np.random.default_rng(0)
    x, w, b, upstream = (random.normal(size=s).astype("float32") for s in ((rows, n), (n, m), (m,), (rows, m)))
    variables = [keras.Variable(part) for part in (x.reshape(2, -1, n), w.T if transposed else w, b)]

    def loss():
        outputs = affine(*(variable.value for variable in variables), transposed)
        return ops.sum(ops.reshape(outputs, (rows, m)) * upstream)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda: gradients_inside(loss, variables), jit_compile=True)
        found = [numpy(gradient) for gradient in compiled()]
    else:
        found = gradients(loss, variables)
    np.testing.assert_allclose(found[0].reshape(rows, n), upstream @ w.T, atol=1e-4)
    np.testing.assert_allclose(found[1].T if transposed else found[1], x.T @ upstream, atol=1e-4)
    np.testing.assert_allclose(found[2], upstream.sum(axis=0), atol=1e-4)
