"""Runs of two processes that are killed at random, and what they end with beside a run that was left alone.

python -m benchmarks.kills
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from safetensors.numpy import load_file

from benchmarks.common import ROOT, machine, today, versions, write_section, write_text

BACKENDS = ("tensorflow", "jax")
OPTIONS = {
    "vocabulary_size": 98,
    "max_sequence_length": 24,
    "num_layers": 1,
    "hidden_dim": 16,
    "num_heads": 2,
    "passes": 3,
    "held_out_share": 0.1,
    "steps": 240,
    "batch_size": 16,
    "log_steps": 20,
    "checkpoint_steps": 20,
    "dropout": 0.1,
    "sentences": "The [MASK] flows by the road.",
}
VIRTUAL_DEVICES = 4
LOG = "BERTKERAS_BENCHMARK_ROWS"  # folder where each process writes down which rows each step used


def launch_logged() -> None:
    """`bertkeras launch`, whose processes are `logged` below."""
    from bertkeras.training.launch import launch

    processes, restarts, *arguments = sys.argv[2:]
    program = (sys.executable, "-m", "benchmarks.kills", "logged")
    sys.exit(launch(arguments, int(processes), restarts=int(restarts), say=print, program=program))


def logged() -> None:
    """The command `bertkeras`, which also writes down a fingerprint of every row that a step used."""
    from bertkeras import cli
    from bertkeras.training import pretrain

    make_step = pretrain.make_train_step

    def make_logged_step(model: Any, optimizer: Any, **options: Any) -> Any:
        step = make_step(model, optimizer, **options)
        name = f"{options['distribution'].process}-{os.getpid()}.jsonl"
        file = open(Path(os.environ[LOG]) / name, "a", encoding="utf-8")  # noqa: SIM115 - until the process ends

        def run(inputs: Any, labels: Any) -> Any:
            number, rows = int(optimizer.iterations.numpy()), fingerprints(inputs, labels)
            sums = step(inputs, labels)
            file.write(json.dumps([number, rows]) + "\n")
            file.flush()
            return sums

        return run

    pretrain.make_train_step = make_logged_step
    sys.exit(cli.main(sys.argv[2:]))


def fingerprints(inputs: Any, labels: Any) -> list[str]:
    """Of rows as they were before they were masked."""
    ids = np.array(inputs["token_ids"])
    weights, places = np.asarray(labels["mlm_weights"]) > 0, np.asarray(inputs["mask_positions"])
    rows = np.nonzero(weights)[0]
    ids[rows, places[weights]] = np.asarray(labels["mlm_labels"])[weights]
    return [fingerprint(row) for row in ids]


def fingerprint(ids: np.ndarray) -> str:
    return hashlib.blake2b(ids.astype("int32").tobytes(), digest_size=8).hexdigest()


def children_of(process: int) -> list[int]:
    """The processes that it started and that still run."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def steps_done(log: Path) -> int:
    """The last step that any process has written down."""
    files = sorted(log.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = files[-1].read_text().splitlines()[:-1] if files else []
    return json.loads(lines[-1])[0] if lines else -1


def draw_moment(draw: random.Random, done: int) -> dict[str, Any]:
    """So many seconds from now, or a step that is still to come."""
    if draw.random() < 0.3:
        return {"seconds": round(draw.uniform(0, 20), 2)}
    return {"step": draw.randrange(done, OPTIONS["steps"])}


def kill_at_random(launcher: subprocess.Popen[bytes], processes: int, log: Path, draw: random.Random) -> dict[str, Any]:
    """Wait for a moment, which is a time or a step, and kill one process or all."""
    children: list[int] = []
    while len(children) < processes and launcher.poll() is None:
        children = children_of(launcher.pid)
        time.sleep(0.05)
    moment = draw_moment(draw, max(steps_done(log), 0))
    if "seconds" in moment:
        time.sleep(moment["seconds"])
    else:
        end = time.monotonic() + 120
        while steps_done(log) < moment["step"] and launcher.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.1))
    targets = children if draw.random() < 0.4 else [draw.choice(children)]
    hit = 0
    for target in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
            hit += 1
    end = time.monotonic() + 60  # until the launcher has started others, or has come to its end
    while launcher.poll() is None and set(children_of(launcher.pid)) & set(children) and time.monotonic() < end:
        time.sleep(0.05)
    return {**moment, "kills": "all" if len(targets) > 1 else "one", "hit": hit > 0}


def arguments_of(folder: Path, corpus: Path, **changes: Any) -> list[str]:
    options = {**OPTIONS, "corpus": str(corpus), **changes}
    words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
    return ["pretrain", "--output", str(folder), *words]


def start(backend: str, folder: Path, corpus: Path, processes: int, restarts: int, **changes: Any) -> Any:
    """The launcher, in a process of its own, and the folder where rows are written down."""
    log = folder.with_name(folder.name + "-rows")
    log.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTKERAS_")}
    command = [sys.executable, "-m", "benchmarks.kills", "launch", str(processes), str(restarts)]
    with open(folder.with_name(folder.name + ".log"), "a") as said:
        launcher = subprocess.Popen(
            [*command, *arguments_of(folder, corpus, **changes), "--auto-resume"],
            cwd=ROOT,
            env={**kept, "KERAS_BACKEND": backend, LOG: str(log)},
            stdout=said,
            stderr=said,
        )
    return launcher, log


def disturbed_run(
    backend: str, folder: Path, corpus: Path, processes: list[int], kills: int, seed: int, **changes: Any
) -> dict[str, Any]:
    """A run that is killed so often, on so many processes in turn; the last sitting is left alone."""
    draw, moments = random.Random(seed), []
    for sitting, count in enumerate(processes):
        launcher, log = start(backend, folder, corpus, count, restarts=kills + 5, **changes)
        try:
            for _ in range(kills // len(processes) + (sitting < kills % len(processes))):
                if launcher.poll() is None:
                    moments.append({**kill_at_random(launcher, count, log, draw), "processes": count})
            if sitting < len(processes) - 1:  # end this sitting too as a plug that is pulled
                for child in [*children_of(launcher.pid), launcher.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
            launcher.wait(timeout=300)
        finally:
            launcher.kill()
    return {"exit_code": launcher.returncode, "kills": moments, "log": log}


def rows_used(log: Path) -> dict[int, collections.Counter[str]]:
    """For each step the rows that its last execution used, over all processes."""
    executions: dict[int, list[tuple[float, str, list[str]]]] = {}
    for path in log.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the kill cut it short
                number, rows = json.loads(line)
                executions.setdefault(number, []).append((path.stat().st_mtime, path.name, rows))
    used = {}
    for number, found in executions.items():
        newest = max(found)[0]
        used[number] = collections.Counter(row for when, _, rows in found if newest - when < 5 for row in rows)
    return used


def used_exactly_once(folder: Path, log: Path, batch_size: int) -> tuple[int, bool]:
    """Whole epochs that the steps went through, and whether each used every record once."""
    from bertkeras.pipelines.records import Records

    records = Records.open(folder / "prepared" / "train")
    serialised = list(records.stream(None, repeat=False).as_numpy_iterator())
    wanted = collections.Counter(map(fingerprint, records.parse(serialised)["token_ids"].numpy()))
    steps, rest = divmod(records.rows, batch_size)
    if rest:
        raise ValueError(f"{records.rows} rows are no number of whole batches of {batch_size}")
    used = rows_used(log)
    epochs = len(used) // steps
    each = [sum((used[n] for n in range(e * steps, (e + 1) * steps)), collections.Counter()) for e in range(epochs)]
    return epochs, all(found == wanted for found in each)


def difference(one: Path, other: Path) -> float:
    """The largest difference of a weight; a key's bias, whose gradient is nothing but rounding, is left out."""
    found, largest = load_file(other / "model.safetensors"), 0.0
    for name, value in load_file(one / "model.safetensors").items():
        gap = np.abs(value - found[name])
        if name.endswith("qkv/bias"):
            gap = np.delete(gap.reshape(3, -1), 1, axis=0)
        largest = max(largest, float(gap.max()))
    return largest


def main() -> None:
    if sys.argv[1:2] == ["launch"]:
        return launch_logged()
    if sys.argv[1:2] == ["logged"]:
        return logged()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs per backend (default: 5)")
    parser.add_argument("--kills", type=int, default=5, metavar="N", help="kills per run (default: 5)")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        corpus, batch = write_even_corpus(Path(name))
        for backend in BACKENDS:
            # of five runs three stay on two processes; two go on with others, one of them as four virtual devices
            virtual = {"virtual_devices": VIRTUAL_DEVICES}
            kinds: dict[str, Any] = {"plain": {}, "elastic": {"dropout": 0.0}, "virtual": virtual}
            alone = {kind: Path(name) / f"{backend}-alone-{kind}" for kind in kinds}
            for kind, changes in kinds.items():
                launcher, _ = start(backend, alone[kind], corpus, 2, 0, batch_size=batch, **changes)
                if launcher.wait():
                    sys.exit(alone[kind].with_name(alone[kind].name + ".log").read_text()[-2000:])
            for seed in range(options.runs):
                kind = {1: "elastic", 2: "virtual"}.get(options.runs - seed, "plain")
                processes = [2] if kind == "plain" else [2, 1, 4]
                folder, begin = Path(name) / f"{backend}-{seed}", time.monotonic()
                changes = {"batch_size": batch, **kinds[kind]}
                found = disturbed_run(backend, folder, corpus, processes, options.kills, seed, **changes)
                epochs, once = used_exactly_once(folder, found.pop("log"), batch)
                row = {
                    "backend": backend,
                    "processes": processes,
                    "dropout": changes.get("dropout", OPTIONS["dropout"]),
                    "virtual_devices": changes.get("virtual_devices"),
                    **found,
                    "largest_difference": difference(alone[kind], folder),
                    "epochs": epochs,
                    "each_record_once": once,
                    "seconds": round(time.monotonic() - begin, 1),
                }
                rows.append(row)
                print({name: value for name, value in row.items() if name != "kills"}, flush=True)
    record = {
        "runs": rows,
        "options": OPTIONS,
        "device": machine(),
        "versions": versions("keras", "tensorflow", "jax"),
        "date": today(),
        "command": "python -m benchmarks.kills",
    }
    write_text(ROOT / "book" / "results" / "kills.json", json.dumps(record, indent=1) + "\n")
    report(record)


def write_even_corpus(folder: Path) -> tuple[Path, int]:
    """A corpus, and a batch size of about 16 that divides its rows, so that epochs end with batches."""
    from bertkeras.pipelines.prepare import prepare
    from bertkeras.text.corpus import Corpus
    from bertkeras.text.wordpiece import WordPieceTokenizer
    from bertkeras.training.pretrain_config import PretrainConfig
    from tests.tiny import write_corpus

    for documents in range(200, 300):
        corpus = write_corpus(folder / "corpus.txt", documents)
        config = PretrainConfig(corpus=str(corpus), **{**OPTIONS, "sentences": [OPTIONS["sentences"]]})
        tokenizer = WordPieceTokenizer.train(Corpus(str(corpus)), config.vocabulary_size)
        options = config.row_options(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
        with tempfile.TemporaryDirectory() as trial:
            share = config.held_out_share
            made = prepare(
                Corpus(str(corpus)), tokenizer, Path(trial) / "p", options, passes=config.passes, held_out_share=share
            )
        for batch in (16, 12, 20):
            if made.train.rows % batch == 0:
                return corpus, batch
    raise AssertionError("no number of documents gave whole batches")


def report(record: dict[str, Any]) -> None:
    runs = record["runs"]
    moments = [kill for run in runs for kill in run["kills"] if kill["hit"]]
    lines = "".join(
        f"| {run['backend']} | {', '.join(map(str, run['processes']))} | {run['virtual_devices'] or ''} | "
        f"{run['dropout']:g} | "
        f"{sum(kill['hit'] for kill in run['kills'])} | {run['exit_code']} | {run['largest_difference']:.1e} | "
        f"{run['epochs']} | {'yes' if run['each_record_once'] else 'no'} |\n"
        for run in runs
    )
    text = f"""## Killed at random

{len(moments)} SIGKILLs over {len(runs)} runs of {record["options"]["steps"]} steps by `bertkeras launch --processes 2`,
{sum(kill["kills"] == "all" for kill in moments)} of them at all processes at once; the moments are drawn, by time or
by step. Every run goes on by itself; the last two of each backend go on with other numbers of processes, one of them
as {VIRTUAL_DEVICES} virtual devices. Compared is the model at the end with that of a run that was left alone.

| backend | processes | virtual | dropout | kills | exit code | largest difference | epochs | each record once |
|---|---|---:|---:|---:|---:|---:|---:|---|
{lines}
Median {statistics.median(run["seconds"] for run in runs):.0f} s a run. {machine()}. {today()}, `{record["command"]}`.
"""
    write_section("kills", text)
    print(text)


if __name__ == "__main__":
    main()
