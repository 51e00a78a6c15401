"""The processes of a run, as the environment names them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from bertkeras.errors import BertKerasError

STRATEGIES = ("auto", "single", "mirrored", "multi_worker", "data_parallel", "model_parallel", "tpu")
WORKERS, WORKER = "BERTKERAS_WORKERS", "BERTKERAS_WORKER"
PORT = 12355  # of the first process of a host, where the environment names hosts alone


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The addresses of all processes, and which of them this is.

    Attributes:
        workers: `host:port` of each, in the same order everywhere. The first is the chief: it writes the files.
        index: This process.
    """

    workers: tuple[str, ...] = ("localhost:0",)
    index: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index < len(self.workers):
            raise BertKerasError(f"this is process {self.index} of {len(self.workers)}; they are counted from 0")
        for worker in self.workers:
            if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):\d+", worker):
                raise BertKerasError(f"{worker!r} is no address of a process; write host:port")

    @property
    def size(self) -> int:
        return len(self.workers)

    @property
    def shares_host(self) -> bool:
        """Whether another process runs on this one's host."""
        return sum(_host(worker) == _host(self.workers[self.index]) for worker in self.workers) > 1

    @property
    def place_on_host(self) -> int:
        """Which of the processes of its host this is."""
        return sum(_host(worker) == _host(self.workers[self.index]) for worker in self.workers[: self.index])

    def tf_config(self) -> str:
        """What TensorFlow reads from `TF_CONFIG`."""
        return json.dumps({"cluster": {"worker": self.workers}, "task": {"type": "worker", "index": self.index}})


def cluster_from_environment(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Who takes part, from the first of these that is there; without any, this process alone.

    `BERTKERAS_WORKERS` (`host:port,host:port,...`) with `BERTKERAS_WORKER` (a number, from 0); `TF_CONFIG`, as for
    TensorFlow; a job step of SLURM with several tasks (`SLURM_NTASKS`, `SLURM_PROCID`, `SLURM_STEP_NODELIST`).

    Raises:
        BertKerasError: A variable is there and cannot be read.
    """
    if workers := environment.get(WORKERS):
        return Cluster(tuple(workers.split(",")), _number(environment, WORKER))
    if text := environment.get("TF_CONFIG"):
        return _from_tf_config(text)
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS"))
    # a job step, not the batch script around it
    if _is_number(tasks) and tasks != "1" and "SLURM_STEP_NODELIST" in environment:
        return _from_slurm(environment)
    return Cluster()


def _host(worker: str) -> str:
    return worker.rpartition(":")[0]


def _from_tf_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        workers = [*jobs.get("chief", []), *jobs["worker"]]
        index = int(task["index"]) + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
        if set(jobs) - {"chief", "worker"} or task["type"] not in jobs:
            raise BertKerasError(f"TF_CONFIG names {', '.join(jobs)}; a run has workers, and at most a chief")
        return Cluster(tuple(workers), index)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BertKerasError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": '
            f"0}}}}, got {text[:80]!r}"
        ) from error


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    hosts = _hosts(environment["SLURM_STEP_NODELIST"])
    count = _number(environment, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS")
    tasks, rest = divmod(count, len(hosts))
    if rest:
        raise BertKerasError(f"SLURM has {count} tasks on {len(hosts)} nodes; give --ntasks-per-node, best 1")
    port = PORT + int(environment.get("SLURM_JOB_ID", "0")) % 10000  # two jobs on a node do not meet
    workers = [f"{host}:{port + task}" for host in hosts for task in range(tasks)]
    return Cluster(tuple(workers), _number(environment, "SLURM_PROCID"))


def _hosts(nodes: str) -> list[str]:
    """`gpu[01-03,7],login` as names; SLURM's own command knows every form, where it is there."""
    if shutil.which("scontrol"):
        shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=False)
        if shown.returncode == 0 and shown.stdout.split():
            return shown.stdout.split()
    hosts = []
    for part in re.findall(r"[^,\[]*(?:\[[^\]]*\])?[^,\[]*", nodes):
        if not part:
            continue
        match = re.fullmatch(r"([^\[]*)(?:\[([\d,-]+)\])?([^\[]*)", part)
        if match is None:
            raise BertKerasError(f"cannot read SLURM_STEP_NODELIST={nodes}; set {WORKERS} and {WORKER}")
        for numbers in (match[2] or "").split(","):
            first, _, last = numbers.partition("-")
            last = last or first
            numbered = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)] if first else [""]
            hosts += [match[1] + number + match[3] for number in numbered]
    return hosts


def _number(environment: Mapping[str, str], name: str) -> int:
    if not _is_number(environment.get(name)):
        raise BertKerasError(f"{name} must be a number, got {environment.get(name)!r}")
    return int(environment[name])


def _is_number(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdigit()
