import keras
import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import BertPretrainer
from bertkeras.training.optimizers import AdamW, dense
from bertkeras.training.schedules import WarmupLinearDecay
from tests.checks import numpy, small_batch, small_config

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has sparse gradients"
)
ROWS, WIDTH = 5, 3
TOLERANCE = 3e-5  # 1 - 0.999 in float32 is off by 1.7e-5 of itself, and a step is 0.1


def adamw_by_hand(start, gradients, rate, decay, epsilon, beta_1=0.9, beta_2=0.999):
    """Loshchilov and Hutter 2019, algorithm 2, with the decay times the learning rate."""
    x, m, v = start.astype("float64"), 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        m_hat, v_hat = m / (1 - beta_1**step), v / (1 - beta_2**step)
        x = x - rate * (decay * x + m_hat / (np.sqrt(v_hat) + epsilon))
    return x


def some_gradients(steps=5):
    return np.random.default_rng(0).normal(size=(steps, ROWS, WIDTH)).astype("float32")


def variable_named(name="kernel"):
    return keras.Variable(np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype("float32"), name=name)


def test_formula():
    variable, found = variable_named(), some_gradients()
    expected = adamw_by_hand(numpy(variable), found, rate=0.1, decay=0.03, epsilon=1e-3)
    optimizer = AdamW(0.1, weight_decay=0.03, epsilon=1e-3)
    for gradient in found:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    np.testing.assert_allclose(numpy(variable), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_defaults_are_bert_s():
    config = AdamW().get_config()
    assert (config["weight_decay"], config["epsilon"], config["beta_1"], config["beta_2"]) == (0.01, 1e-6, 0.9, 0.999)


def test_what_is_not_decayed():
    """With a gradient of zero only the decay moves a weight: to 1 - 0.5 * 0.25 of itself."""
    pretrainer = BertPretrainer(small_config())
    variables = pretrainer.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    optimizer = AdamW(0.5, weight_decay=0.25)
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables], variables)
    moved = {name: float(numpy(value).flat[0]) for name, value in pretrainer.canonical_weights().items()}
    kept = {name for name, value in moved.items() if value == 1}
    assert set(moved.values()) == {1.0, 0.875}
    assert kept == {name for name in moved if name.split("/")[-1] in ("bias", "gamma", "beta", "output_bias")}
    assert {"mlm_head/output_bias", "backbone/embeddings/layer_norm/beta"} <= kept
    assert "backbone/embeddings/token_table" not in kept


def test_nothing_to_decay_is_no_error():
    """As in a model of which only biases are trained; Keras's own AdamW stops there on torch."""
    bias = keras.Variable(np.ones(WIDTH, "float32"), name="bias")
    optimizer = AdamW(0.5, weight_decay=0.25)
    optimizer.apply([keras.ops.zeros((WIDTH,))], [bias])
    np.testing.assert_array_equal(numpy(bias), np.ones(WIDTH))


def sparse_gradient_of_repeated_rows(table):
    """The gradient of sum(c_i * table[id_i]) with ids 1, 3, 1, 1: TensorFlow keeps one entry for each id."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        rows = tf.gather(table.value, [1, 3, 1, 1])
        loss = tf.reduce_sum(rows * tf.constant([[1.0], [2.0], [-5.0], [3.0]]))
    gradient = tape.gradient(loss, table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    return gradient


def five_steps(optimizer, make_dense):
    table = variable_named("token_table")
    for _ in range(5):
        gradient = sparse_gradient_of_repeated_rows(table)
        optimizer.apply([dense(gradient) if make_dense else gradient], [table])
    return numpy(table)


@needs_tensorflow
def test_dense_sums_repeated_rows():
    found = numpy(dense(sparse_gradient_of_repeated_rows(variable_named())))
    np.testing.assert_array_equal(found, np.outer([0, -1, 0, 2, 0], np.ones(WIDTH)))
    ones = keras.ops.ones((2, 3))
    assert dense(ones) is ones
    assert dense(None) is None


@needs_tensorflow
def test_repeated_rows_give_the_dense_update():
    gradient = np.outer([0, -1, 0, 2, 0], np.ones(WIDTH))
    expected = adamw_by_hand(numpy(variable_named()), [gradient] * 5, rate=0.1, decay=0.01, epsilon=1e-6)
    np.testing.assert_allclose(five_steps(AdamW(0.1), make_dense=False), expected, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(five_steps(AdamW(0.1), make_dense=True), expected, rtol=TOLERANCE, atol=TOLERANCE)


@needs_tensorflow
def test_an_embedding_in_a_model_is_trained_as_with_dense_gradients():
    ids = np.array([[1, 1, 0, 1]])
    target = np.random.default_rng(2).normal(size=(1, 4, WIDTH)).astype("float32")
    start = np.random.default_rng(3).normal(size=(2, WIDTH)).astype("float32")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Embedding(2, WIDTH)])
    model.layers[0].set_weights([start])
    model.compile(AdamW(0.1), loss="mse", jit_compile=False)
    table, found = start.astype("float64"), []
    optimizer, variable = AdamW(0.1), keras.Variable(start, name="embeddings")
    for _ in range(5):
        model.train_on_batch(ids, target)
        table = numpy(variable)
        gradient = np.zeros_like(table)
        np.add.at(gradient, ids[0], 2 * (table[ids[0]] - target[0]) / target.size)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        found.append(np.abs(numpy(variable) - numpy(model.layers[0].embeddings)).max())
    assert max(found) < 1e-5


@needs_tensorflow
def test_the_fault_in_keras_that_this_is_for():
    """Keras's own AdamW squares each entry of a sparse gradient: 1 + 25 + 9 in place of (1 - 5 + 3)^2."""
    stock = keras.optimizers.AdamW(0.1, weight_decay=0.01, epsilon=1e-6)
    sparse, summed = (five_steps(AdamW(0.1) if right else stock, make_dense=right) for right in (False, True))
    if np.allclose(sparse, summed, rtol=1e-4):
        pytest.skip(f"Keras {keras.version()} sums repeated rows itself: bertkeras's AdamW need not make them dense")
    changed = np.abs(sparse - summed).max(-1) > 1e-3
    assert changed.tolist() == [False, True, False, False, False], "only the repeated row should be wrong"


@needs_tensorflow
def test_clipping_comes_after_the_sum():
    """Entries 1, 2, -5, 3 have the norm 6.2 * sqrt(3); the sums -1 and 2 have sqrt(5 * 3)."""
    gradient = np.outer([0, -1, 0, 2, 0], np.ones(WIDTH))
    clipped = gradient * 0.5 / np.sqrt(15)
    expected = adamw_by_hand(numpy(variable_named()), [clipped] * 5, rate=0.1, decay=0.01, epsilon=0.1)
    found = five_steps(AdamW(0.1, epsilon=0.1, global_clipnorm=0.5), make_dense=False)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_configuration_keeps_everything():
    optimizer = AdamW(WarmupLinearDecay(0.1, 2, 7), weight_decay=0.03, epsilon=1e-5, global_clipnorm=1.0, use_ema=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is AdamW
    assert again.get_config() == optimizer.get_config()
    variables = [variable_named("bias"), variable_named("kernel")]
    before = numpy(variables[0])
    again.apply([keras.ops.zeros(before.shape)] * 2, variables)
    np.testing.assert_array_equal(numpy(variables[0]), before)
    assert not np.array_equal(numpy(variables[1]), before)


def test_a_saved_model_goes_on_as_if_it_had_not_stopped(tmp_path):
    inputs, labels = small_batch(small_config())
    models = [BertPretrainer(small_config())]
    models[0].compile(AdamW(WarmupLinearDecay(0.01, 2, 7)), run_eagerly=True)
    models[0].train_on_batch(inputs, labels)
    models[0].save(tmp_path / "model.keras")
    models.append(keras.models.load_model(tmp_path / "model.keras"))
    models[1].run_eagerly = True
    for model in models:
        model.train_on_batch(inputs, labels)
    for weight, other in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(numpy(weight), numpy(other), rtol=1e-5, atol=1e-7)


no_torch = pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras's torch optimizer has one rate for all")


def two_variables():
    layers = [keras.layers.Dense(WIDTH, name=name) for name in ("lower", "upper")]
    for seed, layer in enumerate(layers):
        layer.build((None, ROWS))
        layer.set_weights([np.random.default_rng(seed).normal(size=weight.shape) for weight in layer.get_weights()])
    return [variable for layer in layers for variable in layer.weights]  # lower kernel and bias, upper kernel and bias


@no_torch
@pytest.mark.parametrize("rate", [0.1, WarmupLinearDecay(0.1, 2, 7)])
def test_factors_are_as_two_optimizers(rate):
    """The lower layer at 0.3 of the rate, its decay included, as by an optimizer of its own; the upper as without."""
    together, apart = two_variables(), two_variables()
    alone = WarmupLinearDecay(0.03, 2, 7) if rate != 0.1 else 0.03
    optimizer = AdamW(rate, weight_decay=0.5, factors={variable.path: 0.3 for variable in together[:2]})
    slow, fast = AdamW(alone, weight_decay=0.5), AdamW(rate, weight_decay=0.5)
    rng = np.random.default_rng(2)
    for _ in range(5):
        found = [keras.ops.convert_to_tensor(rng.normal(size=value.shape).astype("float32")) for value in together]
        optimizer.apply(found, together)
        slow.apply(found[:2], apart[:2])
        fast.apply(found[2:], apart[2:])
    for one, other, start in zip(together, apart, two_variables(), strict=True):
        np.testing.assert_allclose(numpy(one), numpy(other), rtol=TOLERANCE, atol=TOLERANCE, err_msg=one.path)
        assert np.abs(numpy(one) - numpy(start)).max() > 0.01


@no_torch
def test_factors_hold_for_the_decay_alone():
    variables = two_variables()
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    optimizer = AdamW(0.5, weight_decay=0.25, factors={variables[0].path: 2.0, variables[1].path: 2.0})
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables], variables)
    assert [float(numpy(variable).flat[0]) for variable in variables] == [0.75, 1.0, 0.875, 1.0]


@no_torch
def test_clipping_knows_no_factors():
    """The norm of the whole gradient is that before the rates."""

    def moved(**options):
        variables = two_variables()
        optimizer = AdamW(0.1, weight_decay=0.0, epsilon=1.0, global_clipnorm=0.5, **options)
        optimizer.apply([keras.ops.ones(variable.shape) for variable in variables], variables)
        return [numpy(value) - numpy(start) for value, start in zip(variables, two_variables(), strict=True)]

    first, *others = zip(moved(), moved(factors={"lower/kernel": 10.0}), strict=True)
    np.testing.assert_allclose(first[1], 10 * first[0], rtol=1e-3, atol=1e-6)
    for one, other in others:
        np.testing.assert_array_equal(one, other)


@no_torch
def test_factors_are_kept():
    optimizer = AdamW(0.1, factors={"lower/kernel": 0.3})
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.factors == {"lower/kernel": 0.3}
    assert again.get_config() == optimizer.get_config()


def test_factors_on_torch_are_refused():
    if keras.backend.backend() != "torch":
        pytest.skip("only torch has one rate for all")
    with pytest.raises(BertKerasError, match="not on torch"):
        AdamW(0.1, factors={"lower/kernel": 0.3})
