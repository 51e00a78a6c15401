"""The forms that `benchmarks/step_forms.py` puts back one at a time change no number of a step."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import keras
from benchmarks import step_contenders, step_forms

step_contenders.DROPOUT = 0.0
keras.utils.set_random_seed(0)
step_forms.put_back(sys.argv[1])
shape = step_contenders.Shape(layers=2, width=16, heads=2, vocabulary=301, length=32, rows=4, predictions=4)
step = step_contenders.bertkeras_step(shape, jit_compile=True)
print(json.dumps([step() for _ in range(3)]))
"""


def test_no_form_changes_the_losses():
    losses = {}
    for without in ("", "all of these"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, without],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        losses[without] = json.loads(done.stdout)
    assert losses[""] == pytest.approx(losses["all of these"], rel=1e-5)
