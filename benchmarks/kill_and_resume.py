"""Kill a training run with SIGKILL again and again, resume it each time, and compare its weights with a run left alone.

python -m benchmarks.kill_and_resume --kills 20
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.common import machine, today, write_section

OPTIONS = ["--vocabulary-size=2000", "--dropout=0.1", "--checkpoint-steps=40"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="times the run is killed (default: 20)")
    parser.add_argument("--steps", type=int, default=3000, help="steps of the run (default: 3000)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--corpus", help="text to train on; by default the docstrings of a few standard modules")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = options.corpus or write_corpus(folder / "corpus.txt")
        arguments = [f"--corpus={corpus}", f"--steps={options.steps}", *OPTIONS]
        seconds = run("--output", folder / "whole", *arguments)
        kills, at = 0, []
        first = ["--output", folder / "killed", *arguments]
        again = ["--resume", folder / "killed"]
        while kills < options.kills:
            process = start(*(again if (folder / "killed" / "config.toml").exists() else first))
            # Anywhere in the life of the process: imports, preparation, compilation, steps, checkpoints.
            time.sleep(random.uniform(2, 2 + 2.5 * seconds / options.kills))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            at.append(newest(folder / "killed"))
            print(f"kill {kills}: newest checkpoint at step {at[-1]}", flush=True)
        run(*again)
        one, two = (load_file(folder / run / "model.safetensors") for run in ("whole", "killed"))
        same = set(one) == set(two) and all(np.array_equal(one[key], two[key]) for key in one)
    text = f"""## Killed and resumed

A run of {options.steps:,} steps (2 layers, width 128, dropout 0.1, masks drawn anew every epoch), killed with SIGKILL
at {kills} random moments and resumed each time; the newest checkpoints then were at steps {", ".join(map(str, at))}.
Its final weights and those of a run that was left alone are **{"equal bit for bit" if same else "DIFFERENT"}**.

{machine()}. {today()}, `python -m benchmarks.kill_and_resume --kills {options.kills} --steps {options.steps}`.
"""
    write_section("kill_and_resume", text)
    print(text)
    return 0 if same and kills == options.kills else 1


def write_corpus(path: Path) -> Path:
    from bertkeras.text.installed_docs import iter_installed_docs

    path.write_text(
        "\n\n".join(iter_installed_docs(["numpy", "asyncio", "email", "http", "logging"])), encoding="utf-8"
    )
    return path


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bertkeras.cli", "pretrain", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))


def run(*arguments: object) -> float:
    begin = time.monotonic()
    if start(*arguments).wait():
        sys.exit(f"bertkeras pretrain {' '.join(map(str, arguments))} failed")
    return time.monotonic() - begin


def newest(folder: Path) -> int:
    names = [path.stem for path in (folder / "checkpoints").glob("step-*.safetensors")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


if __name__ == "__main__":
    sys.exit(main())
