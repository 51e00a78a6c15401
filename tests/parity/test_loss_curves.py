"""The same weights, rows and seeds give the same loss curve on TensorFlow, JAX and PyTorch, with dropout too."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import tiny
from tests.parity.loss_curve import BATCH, DROPOUTS, STEPS
from tests.parity.results import record

BACKENDS = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]

# The backends add float32 numbers in different orders: that is 3e-7 in most steps, three units in the last place of a
# loss. Where a step lands on a steep place, as at a rate of 1e-2 one may, it was 4e-5 for three steps and 1e-6 again
# after them. Another dropout mask moves the first loss by 5e-4 already.
TOLERANCE, USUAL = 1e-4, 2e-6

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="starts every backend itself; under the others is enough"
)


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """For each backend and dropout rate the losses, on a CPU: a GPU may round the factors of a product to TF32."""
    rows = tiny.prepare_rows(tmp_path_factory.mktemp("tiny") / "rows")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    environment.pop("XLA_FLAGS", None)  # as users run it, with all of XLA's optimisations
    runs = {
        backend: subprocess.Popen(
            [sys.executable, "-m", "tests.parity.loss_curve", rows],
            cwd=Path(__file__).parents[2],
            env={**environment, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            text=True,
        )
        for backend in BACKENDS
    }
    printed = {backend: run.communicate()[0] for backend, run in runs.items()}
    assert {run.returncode for run in runs.values()} == {0}
    found = {backend: json.loads(text.splitlines()[-1]) for backend, text in printed.items()}
    record(
        "loss_curves",
        {
            "steps": STEPS,
            "rows_per_step": BATCH,
            "versions": {name: version(name) for name in ("keras", *BACKENDS)},
            "losses": {rate: [losses[0], losses[-1]] for rate, losses in found["tensorflow"].items()},
            "largest_relative_difference": {
                backend: {rate: largest_difference(found, backend, rate) for rate in found[backend]}
                for backend in BACKENDS[1:]
            },
        },
    )
    return found


def largest_difference(curves, backend, rate):
    """Over all steps, as a share of TensorFlow's loss."""
    expected = np.array(curves["tensorflow"][rate])
    return float(np.abs(np.array(curves[backend][rate]) / expected - 1).max())


@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_losses_are_tensorflow_s(backend, dropout, request):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not installed")
    curves = request.getfixturevalue("curves")
    losses = curves[backend][str(dropout)]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] - 1, "it learns"
    assert largest_difference(curves, backend, str(dropout)) < TOLERANCE
    relative = np.abs(np.array(losses) / curves["tensorflow"][str(dropout)] - 1)
    assert np.median(relative) < USUAL
    other = curves[backend][str(DROPOUTS[dropout == DROPOUTS[0]])]
    assert abs(other[0] / losses[0] - 1) > 100 * USUAL, "dropout makes a difference"
