"""`import bertkeras` is quick: it loads Keras and its backend, and none of the heavy packages besides."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

MODULES = [
    "bertkeras",
    "bertkeras.config",
    "bertkeras.layers",
    "bertkeras.models",
    "bertkeras.checkpoints.presets",
    "bertkeras.text",
    "bertkeras.training.optimizers",
    "bertkeras.training.schedules",
]
BACKENDS = {"tensorflow", "jax", "torch"}
NEVER = {"tensorflow_text", "tokenizers", "transformers", "safetensors", "keras_hub", "datasets", "matplotlib"}


def loaded(modules, backend):
    """Names in `sys.modules` after importing `modules` in a new interpreter."""
    program = "import importlib, json, sys\n"
    program += f"for name in {modules!r}: importlib.import_module(name)\n"
    program += "print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_nothing_heavy_is_loaded(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    keras_alone = loaded(["keras"], backend)
    ours = loaded(MODULES, backend)
    assert set(MODULES) <= ours
    added = {name.partition(".")[0] for name in ours - keras_alone}
    assert not added & BACKENDS, "a backend is loaded further than `import keras` does"
    assert not {name.partition(".")[0] for name in ours} & (NEVER - {n.partition(".")[0] for n in keras_alone})
