"""Pretraining on the backend that `KERAS_BACKEND` names; prints the loss of every step, as JSON, for each dropout rate.

`test_loss_curves.py` runs it, because a process has one backend: `python -m tests.parity.loss_curve FOLDER`, where
`FOLDER` is what `tiny.prepare_rows` wrote.
"""

import json
import sys

import keras
import numpy as np

from bertkeras.models import BertPretrainer
from bertkeras.training import AdamW, WarmupLinearDecay
from tests import tiny

STEPS, BATCH = 50, 16
DROPOUTS = (0.0, 0.1)


def drawn_weights(model):
    """Every weight, drawn in NumPy: backends draw other numbers from the same seed."""
    random = np.random.default_rng(0)
    return {
        name: (name.endswith("gamma") + 0.02 * random.normal(size=variable.shape)).astype("float32")
        for name, variable in sorted(model.canonical_weights().items())
    }


def curve(folder, dropout):
    keras.utils.set_random_seed(0)  # Python's own generator draws the seeds of the dropouts
    model = BertPretrainer(tiny.config(dropout))
    model.assign_weights(drawn_weights(model), source="NumPy")
    model.compile(AdamW(WarmupLinearDecay(1e-2, 10, STEPS), global_clipnorm=1.0))
    batches = tiny.pretraining_batches(folder, BATCH)
    # an epoch is a step, because Keras reports the mean of an epoch
    return model.fit(batches, epochs=STEPS, steps_per_epoch=1, verbose=0).history["loss"]


if __name__ == "__main__":
    print(json.dumps({str(dropout): curve(sys.argv[1], dropout) for dropout in DROPOUTS}))
