"""The loss built in the chapter on the training loop is the package's: values and gradients."""

import keras
import numpy as np
import pytest

pytest.importorskip("nbformat")
pytest.importorskip("yaml")

from keras import ops

from bertkeras.models import BertPretrainer
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums
from tests.book.notebooks import chapter_classes
from tests.checks import small_batch, small_config

BATCH, PREDICTIONS, VOCABULARY = 3, 5, 11


def masked_lm_loss(*arguments):
    return chapter_classes("training_loop")["masked_lm_loss"](*arguments)


def toy(weights="some"):
    random = np.random.default_rng(5)
    filled = {"some": [5, 2, 0], "all": [5, 5, 5], "one": [0, 1, 0], "none": [0, 0, 0]}[weights]
    labels = random.integers(0, VOCABULARY, (BATCH, PREDICTIONS)).astype("int32")
    # far apart, so that a softmax without a maximum taken off would overflow
    logits = random.normal(scale=60.0, size=(BATCH, PREDICTIONS, VOCABULARY)).astype("float32")
    return labels, logits, (np.arange(PREDICTIONS) < np.array(filled)[:, None]).astype("float32")


def package_loss(labels, logits, weights, count=None):
    sums = pretraining_sums({"mlm_logits": logits}, {"mlm_labels": labels, "mlm_weights": weights})
    return pretraining_loss(sums, sums if count is None else {"mlm_count": count})


@pytest.mark.parametrize("weights", ["some", "all", "one", "none"])
@pytest.mark.parametrize("count", [None, 17.0])
def test_masked_lm_loss(weights, count):
    labels, logits, weights = toy(weights)
    ours, theirs = (float(loss(labels, logits, weights, count)) for loss in (masked_lm_loss, package_loss))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.isfinite(ours)


def test_gradients_of_masked_lm_loss():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow")
    import tensorflow as tf

    labels, logits, weights = toy()
    found = []
    for loss_of in (masked_lm_loss, package_loss):
        watched = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(watched)
            loss = loss_of(labels, watched, weights)
        found.append(tape.gradient(loss, watched).numpy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-7)
    assert (np.abs(found[0]).max(axis=-1) > 0).tolist() == (weights > 0).tolist(), "the filling has no gradient"


def test_both_losses_are_the_pretrainer_s():
    """Masked LM and next sentence, of a model with its weights, added."""
    model = BertPretrainer(small_config())
    inputs, labels = small_batch(small_config())
    outputs = model(inputs)
    ours = masked_lm_loss(labels["mlm_labels"], outputs["mlm_logits"], labels["mlm_weights"])
    ours = ours + masked_lm_loss(labels["nsp_labels"], outputs["nsp_logits"], np.ones(len(labels["nsp_labels"])))
    theirs = model.compute_loss(y=labels, y_pred=outputs)
    np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs), rtol=1e-6)
