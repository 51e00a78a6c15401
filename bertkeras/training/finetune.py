"""Labelled examples to a model of a task, with one seed or several, or in folds."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.files import write_text
from bertkeras.pipelines.tasks import steps_per_epoch
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.finetune_report import summary_table
from bertkeras.training.finetune_run import fit
from bertkeras.training.fitting import add_lora, freeze
from bertkeras.training.interrupt import StopSignal
from bertkeras.training.progress import Display
from bertkeras.training.task_data import TaskData, folds_of, read_data
from bertkeras.training.tasks import TASKS


def finetune(
    config: FinetuneConfig, folder: str | os.PathLike[str], *, display: Display | None = None
) -> dict[str, Any]:
    """Fit a pretrained model to a task, into a run folder.

    The folder receives `config.toml`, `metrics.jsonl`, `tensorboard/`, and at the end the preset with its model card,
    `summary.json` and `report.html`; with several seeds or folds a folder for each and the sum in `summary.json`. A run
    that was stopped or killed goes on with `resume`, to the same weights.

    Args:
        config: All options.
        folder: The run; must not hold another one.
        display: Where progress is shown; `None` is silent.

    Returns:
        The summary: figures on the test data, or on the development data if there are none, beside `majority_...` and
        `baseline_...`.

    Raises:
        BertKerasError: Bad input: one line, or for a file a line for each of its problems.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(path.name != "config.toml" for path in folder.iterdir())):
        raise BertKerasError(f"{folder} is not empty; continue the run in it with --resume, or choose another folder")
    data = read_data(config)  # what is wrong with them is told before anything is written
    write_text(folder / "config.toml", config.to_toml())
    return _run(config, data, folder, display or Display.silent())


def resume(folder: str | os.PathLike[str], *, display: Display | None = None) -> dict[str, Any]:
    """Go on with a run from its newest checkpoint; a finished run gives its summary.

    Raises:
        BertKerasError: The folder holds no run.
    """
    folder = Path(folder)
    if not (folder / "config.toml").is_file():
        raise BertKerasError(f"{folder} holds no run to resume: no config.toml in it")
    config = FinetuneConfig(**FinetuneConfig.load_toml(folder / "config.toml"))
    if (folder / "summary.json").is_file():
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return _run(config, read_data(config), folder, display or Display.silent())


def describe(config: FinetuneConfig) -> dict[str, Any]:
    """What a run would do: data, labels, rows, steps and weights, without training."""
    data = read_data(config)
    task = TASKS[config.task](config, data.train, data.labels)
    model = task.model()
    if config.lora_rank:
        add_lora(model, config.lora_rank)
    freeze(model, config.freeze_layers, config.freeze_embeddings)
    rows = task.rows(model, data.train)
    return {
        "train_examples": len(data.train),
        "dev_examples": len(data.dev),
        "test_examples": len(data.test),
        "labels": ", ".join(task.labels or ["numbers or spans"])[:200],
        "rows": len(rows),
        "longest_row": max(map(len, rows.ids)),
        "mean_row": float(np.mean([len(ids) for ids in rows.ids])),
        "steps": steps_per_epoch(rows, config.batch_size, task.together) * config.epochs,
        "parameters": model.count_params(),
        "trainable_parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        **{name: int(count) for name, count in rows.counts.items()},
        **{f"note_{number}": note for number, note in enumerate(data.notes, 1)},
    }


def evaluate_again(folder: str | os.PathLike[str], test: str | None = None) -> dict[str, Any]:
    """The figures of a finished run, computed anew on its own test data or on another file.

    Raises:
        BertKerasError: The folder holds no finished run of one seed, or problems in the file.
    """
    folder = Path(folder)
    config = FinetuneConfig(**FinetuneConfig.load_toml(folder / "config.toml"))
    if config.folds:
        raise BertKerasError(f"{folder} is a cross-validation; its figures are those in summary.json")
    if config.seeds > 1:
        raise BertKerasError(f"{folder} holds several runs; evaluate one of the folders in it")
    data = read_data(config, test)
    task = TASKS[config.task](config, data.train, data.labels)
    model = task.model_class.from_preset(folder)
    reported = data.test or data.dev
    return {**task.evaluate(model, reported), **task.baselines(data.train, data.dev, reported)}


def _run(config: FinetuneConfig, data: TaskData, folder: Path, display: Display) -> dict[str, Any]:
    if keras.backend.backend() != "tensorflow":
        raise BertKerasError(
            f"finetune runs on the TensorFlow backend, not on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()  # the promise of an exact resume needs it
    keras.config.set_dtype_policy(config.precision)
    for note in data.notes:
        display.say(note)
    with StopSignal() as stop:
        if config.folds:
            parts = [(f"fold-{number}", config, part) for number, part in enumerate(folds_of(data, config))]
        elif config.seeds > 1:
            alone = [
                dataclasses.replace(config, seed=seed, seeds=1)
                for seed in range(config.seed, config.seed + config.seeds)
            ]
            parts = [(f"seed-{one.seed}", one, read_data(one)) for one in alone]
            for name, one, _ in parts:
                write_text(folder / name / "config.toml", one.to_toml())
        else:
            return fit(config, data, folder, display=display, stop=stop)
        summaries = []
        for name, options, part in parts:
            if (folder / name / "summary.json").is_file():
                summaries.append(json.loads((folder / name / "summary.json").read_text(encoding="utf-8")))
                continue
            display.say(name)
            summaries.append(fit(options, part, folder / name, display=display, stop=stop, top=folder))
    summary = spread(summaries)
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    display.console.print(summary_table(summary, f"Mean of {len(summaries)} runs"))
    return summary


def spread(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of all numbers, their standard deviations under `..._spread`, and the summaries themselves."""
    names = [name for name, value in summaries[0].items() if isinstance(value, float)]
    total: dict[str, Any] = {}
    for name in names:
        values = [summary[name] for summary in summaries if name in summary]
        total[name] = statistics.fmean(values)
        total[f"{name}_spread"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return {**total, "runs": list(summaries)}
