"""What the benchmarks share: contenders in processes of their own, and one report with a section for each benchmark."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from bertkeras.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
HEADER = "# Measurements\n\nWritten by the scripts beside this file. Each section belongs to one of them.\n"


class Worker:
    """A contender in a process of its own, which computes only when it is told to.

    Two libraries in one process would fight for the cores with two thread pools. Commands and answers are JSON, one
    a line. The answer to a failure is `{"error": ...}`, and so is the greeting where a contender cannot start.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.greeting = self._answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}


def serve(start: Callable[[], Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """The other end of a `Worker`: set up, greet, then answer commands until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    try:
        work = start()
        print(json.dumps({"ready": True}), file=answers)
        for line in sys.stdin:
            print(json.dumps({**work(json.loads(line)), "peak_memory_mb": peak_memory_mb()}), file=answers)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}), file=answers)


def on_shares(work: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> list[Any]:
    """What `work` gives for each item, `jobs` of them at a time, each in a process with its share of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    shares = context.Queue()
    for job in range(jobs):
        shares.put(cores[job::jobs])
    with ProcessPoolExecutor(jobs, context, initializer=_keep_to, initargs=(shares,)) as workers:
        return list(workers.map(work, items))


def _keep_to(shares: Any) -> None:
    """This process, and what it starts, stay on their share of the cores."""
    share = shares.get()
    os.sched_setaffinity(0, share)
    os.environ["OMP_NUM_THREADS"] = str(len(share))


def peak_memory_mb() -> int:
    """The largest resident size that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def require(*modules: str) -> None:
    """Leave with one clear line where a peer is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f'{", ".join(missing)} not installed: pip install "bertkeras[bench]"')


def middle(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": median, "low": low, "high": high}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "spread": deviation, "seeds": list(values)}


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The record in a file; measured and written there first where it is not."""
    if not path.is_file():
        write_text(path, json.dumps(measure(), indent=2) + "\n")
    return json.loads(path.read_text())


def loss_curve(run: Path) -> list[list[float]]:
    """Step and masked loss of each line of a pretraining run's log."""
    from bertkeras.training.metrics import read_metrics

    return [[row["step"], round(row["mlm_loss"], 4)] for row in read_metrics(run / "metrics.jsonl")]


def machine() -> str:
    """The processor, as far as the system says, and its cores and memory."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = found.group(1) if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()}"


def versions(*packages: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def write_section(name: str, text: str) -> None:
    """Replace the section `name` of `RESULTS.md`, or add it, and leave the others as they are."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    report = RESULTS.read_text() if RESULTS.exists() else HEADER
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    report, replaced = pattern.subn(lambda _: section, report)
    write_text(RESULTS, report if replaced else f"{report.rstrip()}\n\n{section}\n")


def write_rows(path: Path, work: str, record: dict[str, Any]) -> None:
    """Put `record` under `work` into a JSON file, and its `rows` among the file's, in place of earlier ones."""
    content = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = [row for row in content["rows"] if row["work"] != work] + record.pop("rows")
    write_text(path, json.dumps({**content, "rows": rows, work: record}, indent=2) + "\n")
