"""Programs in processes of their own: a collective that fails poisons the process it failed in."""

import json
import os
import subprocess
import sys

from bertkeras.training.launch import free_ports


def environment(backend, *, devices=None, workers=None, worker=0):
    """Of a process on so many logical devices, that is one of so many workers."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BERTKERAS_", "TF_CONFIG", "SLURM"))
    }
    found = {**kept, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if devices:
        found["BERTKERAS_CPU_DEVICES"] = str(devices)
    if workers:
        found |= {"BERTKERAS_WORKERS": workers, "BERTKERAS_WORKER": str(worker)}
    return found


def train(backend, *, processes=1, devices=None, **options):
    """What `tests/distribution/train.py` prints."""
    workers = ",".join(f"localhost:{port}" for port in free_ports(processes)) if processes > 1 else None
    arguments = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.distribution.train", *arguments],
            env=environment(backend, devices=devices, workers=workers, worker=worker),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for worker in range(processes)
    ]
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes, said[0][1][-3000:]
    return json.loads(next(line for line in said[0][0].splitlines() if line.startswith("{")))
