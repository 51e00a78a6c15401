import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.models.losses import LAYERS, losses_and_points
from tests.checks import gradients, numpy


@pytest.mark.parametrize("classes", [2, LAYERS**2, LAYERS**2 + 7])
@pytest.mark.parametrize("compiled", [False, True])
def test_losses_points_and_gradient(classes, compiled):
    """Beside NumPy in float64, with targets that win, lose, and tie with one class or with all."""
    if compiled and keras.backend.backend() != "tensorflow":
        pytest.skip("another path on TensorFlow alone")
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(5, classes)).astype("float32"), np.array([0, 1, 1, 0, classes - 1])
    logits[0, 0] = logits[0].max() + 1
    logits[1, 0], logits[1, 1] = logits[1].max() + 2, -1
    logits[2, :2] = logits[2].max() + 3
    logits[3] = 0.5
    logits[4, 0] += 90  # far from the others: exp overflows where the best is not taken off first
    slopes = np.arange(1.0, 6.0, dtype="float32")
    variable, targets = keras.Variable(logits), ops.convert_to_tensor(targets, "int32")

    def weighted():
        losses, points = losses_and_points(targets, variable * 1.0)
        return ops.sum(losses * ops.convert_to_tensor(slopes)) + 0.0 * ops.sum(points)

    if compiled:
        import tensorflow as tf

        def all_inside():
            with tf.GradientTape() as tape:
                total = weighted()
            return (*losses_and_points(targets, variable * 1.0), tape.gradient(total, variable.value))

        losses, points, found = (numpy(x) for x in tf.function(all_inside, jit_compile=True)())
    else:
        losses, points = (numpy(ops.stop_gradient(x)) for x in losses_and_points(targets, variable * 1.0))
        found = gradients(weighted, [variable])[0]
    exps = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    shares, target = exps / exps.sum(axis=1, keepdims=True), numpy(targets)
    np.testing.assert_allclose(losses[:4], -np.log(shares[range(4), target[:4]]), rtol=1e-5, atol=1e-6)
    assert losses[4] == pytest.approx(logits[4, 0] - logits[4, -1], rel=1e-5)
    np.testing.assert_allclose(points, [1, 0, 1 / 2, 1 / classes, 0], rtol=1e-6)
    wanted = slopes[:, None] * (shares - np.eye(classes)[target])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
