"""Plain Keras on whichever backend runs: `compile`, and `fit` on the package's own `tf.data` pipeline."""

import math

import pytest

from bertkeras.layers.dropout import Dropout
from bertkeras.models import BertPretrainer
from bertkeras.models.pretrainer import METRICS
from bertkeras.training import AdamW
from tests import tiny
from tests.checks import numpy

pytest.importorskip("tensorflow", reason="tensorflow, whose tf.data feeds every backend, is not installed")


def test_fit_learns_from_the_pipeline(tmp_path):
    batches = tiny.pretraining_batches(tiny.prepare_rows(tmp_path / "rows"), batch_size=16)
    model = BertPretrainer(tiny.config(dropout=0.1))
    model.compile(AdamW(5e-3, global_clipnorm=1.0))
    before = model.evaluate(batches, steps=5, verbose=0, return_dict=True)
    history = model.fit(batches, epochs=3, steps_per_epoch=10, verbose=0).history
    after = model.evaluate(batches, steps=5, verbose=0, return_dict=True)
    assert set(history) == set(after) == {"loss", *METRICS}
    assert before["mlm_loss"] == pytest.approx(math.log(model.config.vocabulary_size), abs=0.2)
    assert after["mlm_loss"] < before["mlm_loss"] - 1
    assert after["mlm_accuracy"] > before["mlm_accuracy"] + 0.1
    assert history["loss"][0] > history["loss"][1] > history["loss"][2]

    drawn = [int(numpy(part.seed_generator.state)[1]) for part in model._flatten_layers() if isinstance(part, Dropout)]
    assert drawn == [30] * (1 + 2 * 3), "every dropout drew once for every step of training"
