"""Every task on real data: ours, the same weights fine-tuned by `transformers` with the same recipe, cheap baselines.

BERTKERAS_DATA_HOME=... python -m benchmarks.tasks

The contender begins with our weights, the new head included, and gets the very batches that ours learns from, the same
schedule, optimizer and choice of the epoch; its weights are read back and scored by the same code: what differs is the
training alone. English rows start from all-MiniLM-L6-v2, Chinese ones from a BERT of one's own (`--chinese`, see
CHINESE). English rows are learnt by a BERT of one's own too (`--english`, see ENGLISH), and the sets that ship with the
course by `course-bert`. A row, seed and contender that was measured once is kept under `runs/tasks` and not measured
again. With `--jobs` several rows are measured at once, each on cores of its own. `--only` replaces the rows that it
names in the record, `--figures-only` all but the times of a step, which want a quiet machine, and `--steps-only`
nothing else.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.common import (
    ROOT,
    Worker,
    kept,
    machine,
    middle,
    on_shares,
    require,
    spread,
    today,
    versions,
    write_section,
    write_text,
)
from benchmarks.tasks_peer import read_batches, serve_steps
from benchmarks.tasks_rows import DEFAULTS, MAIN, ROWS, Row, config_of, data_of

CHINESE = (
    "bertkeras pretrain --corpus zhwiki-sample.txt.gz --vocabulary-size 10000 --size mini --max-sequence-length 128 "
    "--pairs none --passes 2 --steps 4000 --batch-size 32 --learning-rate 1e-3 --output runs/zh-mini"
)
ENGLISH = (
    "bertkeras pretrain --corpus enwiki-sample.txt.gz --vocabulary-size 16000 --size mini --max-sequence-length 128 "
    "--pairs none --passes 2 --steps 4000 --batch-size 32 --learning-rate 1e-3 --output runs/en-mini"
)
CACHE = ROOT / "runs" / "tasks"


def ours(row: Row, seed: int, chinese: str, **more: Any) -> dict[str, Any]:
    """What `bertkeras finetune` gives."""
    from bertkeras.training.finetune_run import fit

    config = config_of(row, seed, chinese, **more)
    with tempfile.TemporaryDirectory() as folder:
        return fit(config, data_of(row, config), folder)


def planned(row: Row, seed: int, chinese: str, folder: Path) -> tuple[Any, Any, Any, Any]:
    """Write the contender's batches and its plan into a folder; configuration, data, task and a model of ours."""
    import keras

    from bertkeras.pipelines.tasks import steps_per_epoch, task_batches
    from bertkeras.training.tasks import TASKS

    config = config_of(row, seed, chinese, **({"decoder": "softmax"} if row.task == "entities" else {}))
    data = data_of(row, config)
    keras.utils.set_random_seed(seed)
    task = TASKS[row.task](config, data.train)
    model = task.model()
    model.save_to_hugging_face(folder / "start")  # the new head included
    rows = task.rows(model, data.train)
    per_epoch = steps_per_epoch(rows, config.batch_size, task.together)
    arrays: dict[str, np.ndarray] = {}
    batches = task_batches(rows, config.batch_size, config.epochs, seed, together=task.together)
    for step, (inputs, labels, _) in enumerate(batches):
        named = labels if isinstance(labels, dict) else {"labels": labels}
        arrays |= {f"{step}/{key}": value for key, value in {**inputs, **named}.items()}
    np.savez(folder / "batches.npz", **arrays)
    plan = {
        "model": str(folder / "start"),
        "head": HEADS[row.task],
        "kind": getattr(task, "kind", "regression"),
        "num_labels": len(task.labels or [0]),
        "total": per_epoch * config.epochs,
        "per_epoch": per_epoch,
        "peak": config.peak(model.config.hidden_dim),
        "warmup_share": config.warmup_share,
        "weight_decay": config.weight_decay,
        "clip_norm": config.clip_norm,
        "head_factor": config.head_rate(),
        "seed": seed,
    }
    write_text(folder / "plan.json", json.dumps(plan))
    return config, data, task, model


def peer(row: Row, seed: int, chinese: str) -> dict[str, Any]:
    """`transformers` on the same batches; of its epochs the one that is best on the development data."""
    from bertkeras.checkpoints.read import read_checkpoint

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, data, task, model = planned(row, seed, chinese, folder)
        command = [sys.executable, "-m", "benchmarks.tasks_peer", name]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        best, best_figure, best_arrays = 0, -np.inf, None
        for epoch in range(1, config.epochs + 1):
            arrays = read_checkpoint(folder / f"epoch-{epoch}").arrays
            model.assign_weights(arrays, source="transformers")
            task.tune(model, data.dev)
            figure = task.evaluate(model, data.dev)[task.main]
            if figure > best_figure:
                best, best_figure, best_arrays = epoch, figure, arrays
    assert best_arrays is not None
    model.assign_weights(best_arrays, source="transformers")
    task.tune(model, data.dev)
    return {**task.evaluate(model, data.test), "best_epoch": best}


def our_step(row: Row, chinese: str, folder: Path) -> Any:
    """A function that does step `n` of the plan in a folder, as `bertkeras finetune` does it."""
    import tensorflow as tf

    from bertkeras.training.finetune_run import make_optimizer
    from bertkeras.training.task_step import make_task_step

    config, _, _, model = planned(row, 0, chinese, folder)
    total = json.loads((folder / "plan.json").read_text())["total"]
    step = make_task_step(model, make_optimizer(config, model, total))
    batches = read_batches(folder / "batches.npz")

    def run(number: int) -> float:
        inputs = dict(batches[number])
        places = {name: inputs.pop(name) for name in ("start_positions", "end_positions") if name in inputs}
        labels = places or inputs.pop("labels")
        return float(step(*tf.nest.map_structure(tf.convert_to_tensor, (inputs, labels))))

    return run


def step_times(row: Row, chinese: str, steps: int = 40) -> dict[str, Any]:
    """The same batches through both, in turn, after three that do not count; on all cores.

    Before each step a rest, because the threads of the other wait awake for some milliseconds after theirs.
    """
    with tempfile.TemporaryDirectory() as name:
        workers = {"bertkeras": Worker("benchmarks.tasks", "--serve", row.name, "--folder", name, "--chinese", chinese)}
        workers["transformers"] = Worker("benchmarks.tasks_peer", name, "--serve")
        for who, worker in workers.items():
            if "error" in worker.greeting:
                sys.exit(f"{row.name}, {who}: {worker.greeting['error']}")
        total = json.loads(Path(name, "plan.json").read_text())["total"]
        seconds: dict[str, list[float]] = {who: [] for who in workers}
        for number in range(steps + 3):
            for who in sorted(workers, reverse=bool(number % 2)):
                time.sleep(0.05)
                answer = workers[who].ask(step=number % total)
                if "error" in answer:
                    sys.exit(f"{row.name}, {who}: {answer['error']}")
                seconds[who].append(answer["seconds"])
        for worker in workers.values():
            worker.close()
    ratios = [peer / ours for ours, peer in zip(seconds["bertkeras"][3:], seconds["transformers"][3:], strict=True)]
    return {"times_faster": middle(ratios), **{who: statistics.median(found[3:]) for who, found in seconds.items()}}


HEADS = {
    "classification": "sequence",
    "multi-label": "sequence",
    "regression": "sequence",
    "similarity": "vectors",
    "entities": "token",
    "question-answering": "spans",
}


def contenders(row: Row, english: str) -> dict[str, Any]:
    """By name, what measures each; a BERT of one's own where there is one."""
    found: dict[str, Any] = {"bertkeras": ours}
    if row.task == "entities":
        found = {
            "bertkeras, CRF": lambda *a: ours(*a, decoder="crf"),
            "bertkeras": lambda *a: ours(*a, decoder="softmax"),
        }
    if not row.shipped:
        found["transformers"] = peer
    own = english if row.own == "english" else row.own
    if row.language == "en" and own and (row.own != "english" or Path(own).is_dir()):
        found["own"] = lambda *a: ours(*a, model=own)
    return found


def measured(row: Row, who: str, seed: int, chinese: str, english: str) -> dict[str, Any]:
    """From the cache, or measured now."""

    def measure() -> dict[str, Any]:
        record = contenders(row, english)[who](row, seed, chinese)
        print(f"{row.name}, {who}, seed {seed}: {MAIN[row.task]} {record[MAIN[row.task]]:.3f}", flush=True)
        return record

    return kept(CACHE / row.name.replace("/", "-") / f"{who.replace(', ', '-')}-{seed}.json", measure)


def measured_row(row: Row, chinese: str, english: str) -> dict[str, list[dict[str, Any]]]:
    """All seeds of all contenders, who take turns."""
    runs: dict[str, list[dict[str, Any]]] = {who: [] for who in contenders(row, english)}
    for seed in range(row.seeds):
        for who in runs:
            runs[who].append(measured(row, who, seed, chinese, english))
    return runs


def timed(row: Row, chinese: str) -> dict[str, Any]:
    """The times of a step, measured now."""
    record = {**step_times(row, chinese), "device": machine(), "date": today()}
    print(f"{row.name}, a step: {record['times_faster']['median']:.2f} times faster", flush=True)
    return record


def summed_up(row: Row, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One row of the table: means and spreads over seeds."""
    main = MAIN[row.task]
    first = runs["bertkeras"][0]
    record: dict[str, Any] = {
        "dataset": row.dataset,
        "task": row.task,
        "language": row.language,
        "metric": main,
        "options": {**DEFAULTS, **row.options},
        "train_examples": first["train_examples"],
        "test_examples": first["test_examples"],
        "majority": first.get(f"majority_{main}"),
        "baseline": first.get(f"baseline_{main}"),
    }
    for who, figures in runs.items():
        record[who] = spread([figure[main] for figure in figures])
    if row.published:
        metric, value, source = row.published
        record["published"] = {"metric": metric, "value": value, "source": source}
        record["published"]["ours"] = statistics.fmean(run.get(metric, np.nan) for run in runs["bertkeras"])
    return {**record, "device": machine(), "date": today()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows whose names begin so, such as wnut17")
    parser.add_argument("--chinese", default=str(ROOT / "runs" / "zh-mini"), help=f"made by: {CHINESE}")
    parser.add_argument("--english", default=str(ROOT / "runs" / "en-mini"), help=f"made by: {ENGLISH}")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--steps-only", action="store_true", help="keep the figures that are recorded")
    parts.add_argument("--figures-only", action="store_true", help="keep the times that are recorded")
    parser.add_argument("--anew", action="store_true", help="forget what was measured before")
    parser.add_argument(
        "--jobs", type=int, default=1, help="rows at a time, each on its share of the cores (default: 1)"
    )
    parser.add_argument("--serve", metavar="ROW", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        (row,) = (row for row in ROWS if row.name == options.serve)
        serve_steps(lambda: our_step(row, options.chinese, options.folder))
        return
    require("sklearn", "seqeval", "torch", "transformers")
    if "BERTKERAS_DATA_HOME" not in os.environ:
        sys.exit("set BERTKERAS_DATA_HOME to the folder of the data sets; see bertkeras.datasets.registry")
    if options.anew:
        shutil.rmtree(CACHE, ignore_errors=True)
    rows = [row for row in ROWS if not options.only or row.name.startswith(tuple(options.only))]
    path = ROOT / "book" / "results" / "tasks.json"
    table = {name_of(row): row for row in json.loads(path.read_text())["rows"]} if path.is_file() else {}
    if not options.steps_only:
        measure = functools.partial(measured_row, chinese=options.chinese, english=options.english)
        for row, runs in zip(rows, on_shares(measure, rows, options.jobs), strict=True):
            table[row.name] = {**summed_up(row, runs), "step": table.get(row.name, {}).get("step")}
    for row in rows:
        if not row.shipped and not (options.figures_only and table[row.name]["step"]):
            table[row.name]["step"] = timed(row, options.chinese)
    record = {
        "rows": [table[row.name] for row in ROWS if row.name in table],
        "chinese_weights": CHINESE,
        "english_weights": ENGLISH,
        "versions": versions("bertkeras", "keras", "tensorflow", "torch", "transformers", "scikit-learn"),
        "command": "BERTKERAS_DATA_HOME=... python -m benchmarks.tasks",
    }
    write_text(path, json.dumps(record, indent=2) + "\n")
    write_section("tasks", report(record))


def name_of(record: dict[str, Any]) -> str:
    return f"{record['dataset']}/{record['task']}"


def report(record: dict[str, Any]) -> str:
    def row_of(row: dict[str, Any]) -> dict[str, str]:
        cells = {
            "data, task": f"{row['dataset']} ({row['language']}), {row['task']}",
            "examples": f"{row['train_examples']:,}",
            "epochs": str(row["options"]["epochs"]),
            "metric": row["metric"],
        }
        for title, name in {"simplest": "majority", "cheap": "baseline"}.items():
            cells[title] = "" if row[name] is None else f"{row[name]:.3f}"
        for who in ("transformers", "bertkeras", "bertkeras, CRF", "own"):
            cells[who] = f"{row[who]['mean']:.3f} ± {row[who]['spread']:.3f}" if who in row else ""
        cells["transformers"] += " †" * row.get("own_head", False)
        cells["times faster"] = f"{row['step']['times_faster']['median']:.2f}" if row["step"] else ""
        published = row.get("published")
        cells["published"] = (
            f"{published['metric']} {published['value']:.3f} ({published['source']})" if published else ""
        )
        return cells

    counts = {name_of(row): len(row["bertkeras"]["seeds"]) for row in record["rows"]}
    more = ", ".join(f"{name} {count}" for name, count in counts.items() if count != 3) or "no row has others"
    rows = [row_of(row) for row in record["rows"]]
    sides = ["---" if title in ("data, task", "metric", "published") else "---:" for title in rows[0]]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], sides, *(row.values() for row in rows)))
    return f"""## Every task, on real data

Fine-tuned from all-MiniLM-L6-v2 (English) or from a mini BERT of our own (Chinese, 4 layers, pretrained here) on as
many examples and for as many epochs as the row says; means of three seeds ({more}) and their standard
deviation. "own" is a BERT of one's own, smaller than MiniLM and pretrained here: `course-bert` on the sets that ship
with the course. transformers learns from the same weights, the new head included (†: it drew the head itself), with the
same batches and schedule, and its weights are scored by the same code. "Times faster" is the median over 40 batches
that both learnt in turn, each in a process of its own. The cheap baseline is logistic regression (or ridge) on TF-IDF;
for entities the names of the training data; for questions the sentence most like the question; for similarity the
cosine of TF-IDF. Published figures are those of larger models on all of the data.

{table}

{", ".join(f"{name} {version}" for name, version in record["versions"].items())}; `{record["command"]}`.
Figures: {places(record["rows"])}.
Steps: {places([row["step"] for row in record["rows"] if row["step"]])}."""


def places(measured: list[dict[str, Any]]) -> str:
    """Where and when, each once."""
    return "; ".join(dict.fromkeys(f"{one['device']}, {one['date']}" for one in measured))


if __name__ == "__main__":
    main()
