import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")

# TensorFlow is not on every GPU machine, and the step does not need it
PROGRAM = """
import runpy, sys
sys.modules["tensorflow"] = sys.modules["tensorflow_text"] = None
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


def test_the_gpu_benchmark_runs_on_jax_without_tensorflow(tmp_path):
    options = ["--size", "tiny", "--lengths", "16", "32", "--batch-tokens", "64", "--side", "128", "--rounds", "2"]
    command = [sys.executable, "-c", PROGRAM, *options, "--recompute", "--output", tmp_path / "record.json"]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "record.json").read_text())
    assert [row["work"] for row in record["rows"] if row["who"] == "bertkeras"] == ["tiny, 4 x 16", "tiny, 2 x 32"]
    assert all(row["tokens_per_second"] > 0 and row["share_of_limit"] > 0 for row in record["rows"])
