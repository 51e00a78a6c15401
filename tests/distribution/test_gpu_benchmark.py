import importlib.util
import json
import os
import subprocess
import sys

import pytest

from benchmarks import common
from benchmarks.gpu import report, transformers_model

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")

# TensorFlow is not on every GPU machine, and the step does not need it
PROGRAM = """
import runpy, sys
sys.modules["tensorflow"] = sys.modules["tensorflow_text"] = None
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


def test_the_gpu_benchmark_runs_on_jax_without_tensorflow(tmp_path, monkeypatch):
    options = ["--size", "tiny", "--lengths", "16", "32", "--batch-tokens", "64", "--side", "128", "--rounds", "2"]
    command = [sys.executable, "-c", PROGRAM, *options, "--recompute", "--output", tmp_path / "record.json"]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "record.json").read_text())
    assert [row["work"] for row in record["rows"] if row["who"] == "bertkeras"] == [
        "tiny, rows of 16",
        "tiny, rows of 32",
    ]
    assert all(row["tokens_per_second"] > 0 and row["share_of_limit"] > 0 for row in record["rows"])
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "RESULTS.md")
    (tmp_path / "book" / "results").mkdir(parents=True)
    report(record)
    assert "| 16 | bertkeras |" in (tmp_path / "RESULTS.md").read_text()
    assert json.loads((tmp_path / "book" / "results" / "gpu.json").read_text()) == record


def test_the_peer_of_the_gpu_benchmark():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    model = transformers_model("tiny")
    ids = torch.ones((2, 8), dtype=torch.long)
    assert model(input_ids=ids, labels=ids).loss.item() > 0
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (128, 2)


COMPILED_ONCE = """
import jax
from benchmarks.gpu import bertkeras_step

step = bertkeras_step("tiny", 2, 16, 2, False)
step()
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
)
step()
step()
assert not compiled, compiled
bertkeras_step("tiny", 2, 32, 2, False)()
assert compiled
"""


def test_the_step_on_jax_is_compiled_once():
    done = subprocess.run(
        [sys.executable, "-c", COMPILED_ONCE],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
