import math

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras import BertConfig, BertPretrainer
from bertkeras.layers import common, dense, layer_norm
from bertkeras.layers.common import runs_operation_by_operation, short_gelu_and_gradient, sum_rows_of_each
from bertkeras.layers.recompute import NO_SAVINGS
from bertkeras.models import losses
from bertkeras.training.step import whole_counts
from bertkeras.training.step_jax import gradient_function
from tests.checks import numpy, randomize


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks where TensorFlow runs")
def test_whether_xla_compiles():
    import tensorflow as tf

    found = []

    def note(x):
        found.append(runs_operation_by_operation())
        return x + 1

    def repeated(x):
        return tf.while_loop(lambda x: x < 2, lambda x: [note(x)], [x])

    note(tf.constant(0))
    for function in (note, repeated):
        tf.function(function, jit_compile=True)(tf.constant(0))
        tf.function(function)(tf.constant(0))
    assert found == [True, False, True, False, True]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="what other backends do")
def test_other_backends_derive_for_themselves():
    assert not runs_operation_by_operation()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gelu_of_half_precision_is_gelu(dtype):
    x = ops.convert_to_tensor(np.linspace(-9, 9, 4001), dtype=dtype)
    exact = np.asarray(numpy(x), "float64")
    below = 0.5 * np.array([math.erfc(-value / math.sqrt(2)) for value in exact])
    outputs, gradient = short_gelu_and_gradient(x)
    slope = below + exact * np.exp(-(exact**2) / 2) / math.sqrt(2 * math.pi)
    one_rounding = {"float32": 0.0, "bfloat16": 2**-8}[dtype]
    np.testing.assert_allclose(numpy(outputs), exact * below, rtol=one_rounding, atol=1e-6)
    np.testing.assert_allclose(numpy(gradient(ops.ones_like(x))), slope, rtol=one_rounding, atol=1e-6)


def test_sums_of_rows():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype("float32")
    for found, x in zip(sum_rows_of_each(ops.convert_to_tensor(a), ops.convert_to_tensor(b)), (a, b), strict=True):
        np.testing.assert_allclose(numpy(found), x.sum(axis=(0, 1)), rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="what XLA is given for a GPU, which is JAX's alone")
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_step_for_a_gpu_is_the_step(monkeypatch, dtype):
    """Both run here, on a processor: only the forms differ."""
    import jax

    config = BertConfig.from_size("tiny", 101, num_layers=2, max_sequence_length=16)
    rng = np.random.default_rng(0)
    inputs = {
        "token_ids": rng.integers(0, 101, (4, 16)).astype("int32"),
        "padding_mask": np.arange(16) < rng.integers(9, 17, (4, 1)),
        "mask_positions": rng.integers(0, 9, (4, 3)).astype("int32"),
    }
    labels = {
        "mlm_labels": rng.integers(0, 101, (4, 3)).astype("int32"),
        "mlm_weights": np.ones((4, 3), "float32"),
        "nsp_labels": rng.integers(0, 2, 4).astype("int32"),
    }

    def gradients():
        keras.utils.set_random_seed(0)
        model = BertPretrainer(config, dtype=dtype)
        randomize(model, scale=0.1)
        state = [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]
        found, sums, _ = jax.jit(gradient_function(model, NO_SAVINGS))(*state, inputs, labels, whole_counts(labels))
        return [float(sums["mlm_loss"]), *(np.asarray(x, "float64") for x in found)]

    plain = gradients()
    for module in (common, dense, layer_norm, losses):
        monkeypatch.setattr(module, "xla_on_processor", lambda: False)
    assert common.xla_on_accelerator()
    for one, other in zip(plain, gradients(), strict=True):
        distance = np.linalg.norm(np.subtract(one, other))
        assert distance <= {"float32": 2e-6, "mixed_bfloat16": 2e-2}[dtype] * max(np.linalg.norm(one), 1.0)
