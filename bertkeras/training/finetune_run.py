"""One run of fine-tuning: training, choice of the epoch, calibration, figures beside baselines."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.checkpoints.tensor_files import write_safetensors
from bertkeras.errors import BertKerasError, Interrupted
from bertkeras.files import write_text
from bertkeras.models.base import PresetModel
from bertkeras.pipelines.tasks import steps_per_epoch, task_batches
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.finetune_report import metric_text, summary_table, write_report
from bertkeras.training.fitting import add_lora, freeze, layer_factors, merged
from bertkeras.training.interrupt import StopSignal
from bertkeras.training.metrics import MetricsLog, read_metrics
from bertkeras.training.optimizers import AdamW
from bertkeras.training.progress import Display
from bertkeras.training.resume import Checkpoints, Progress
from bertkeras.training.schedules import WarmupLinearDecay
from bertkeras.training.task import Task
from bertkeras.training.task_data import TaskData
from bertkeras.training.task_step import make_task_step
from bertkeras.training.tasks import TASKS


def fit(
    config: FinetuneConfig,
    data: TaskData,
    folder: str | os.PathLike[str],
    *,
    display: Display | None = None,
    stop: StopSignal | None = None,
    top: Path | None = None,
) -> dict[str, Any]:
    """One run on examples that are at hand already; the summary, which stands in the folder too.

    Args:
        stop: Asked after every step whether to save and end.
        top: The folder to go on with, if it is another one.
    """
    folder, display, stop = Path(folder), display or Display.silent(), stop or StopSignal()
    keras.utils.set_random_seed(config.seed)
    task = TASKS[config.task](config, data.train, data.labels)
    model = task.model()
    if config.lora_rank:
        add_lora(model, config.lora_rank)
    freeze(model, config.freeze_layers, config.freeze_embeddings)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    rows = task.rows(model, data.train)
    counts = {f"count_{name.replace(' ', '_')}": int(count) for name, count in rows.counts.items()}
    if lost := ", ".join(f"{count:,} {name}" for name, count in rows.counts.items() if count):
        display.say(f"rows of at most {config.row_length(model.config.max_sequence_length)} pieces: {lost}")

    progress = _train(config, task, model, rows, data, folder, top or folder, display, stop)
    best = _best_row(folder, task.main)
    _restore_best(model, folder)
    if config.lora_rank:
        model = merged(model)
    found = task.tune(model, data.dev) if config.calibrate else {}
    reported = data.test or data.dev
    figures = task.evaluate(model, reported)
    cheap = task.baselines(data.train, data.dev, reported)
    steps = [row["step_seconds"] for row in read_metrics(folder / "metrics.jsonl") if "step_seconds" in row]
    summary = {
        **figures,
        **cheap,
        f"dev_{task.main}": best[f"dev_{task.main}"],
        "reported_on": "test" if data.test else "dev",
        "best_epoch": best["epoch"],
        "steps": progress.step,
        "train_seconds": progress.seconds,
        "step_seconds": statistics.median(steps),
        "parameters": model.count_params(),
        "trainable_parameters": trainable,
        "train_examples": len(data.train),
        "dev_examples": len(data.dev),
        "test_examples": len(data.test),
        **found,
        **counts,
    }
    model.model_card = {
        "data": {"task": config.task, "train": Path(config.train or config.dataset or "").name, **counts},
        "metrics": {**figures, **cheap},
        "command": f"bertkeras finetune --task {config.task} --model {Path(config.model).name} ...",
    }
    model.save_to_preset(folder)
    write_report(folder, config, summary, read_metrics(folder / "metrics.jsonl"), task, model, reported)
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    (folder / BEST).unlink()  # not before: what is killed here goes on from the best epoch
    display.console.print(summary_table(summary, f"On the {summary['reported_on']} data"))
    return summary


def make_optimizer(config: FinetuneConfig, model: PresetModel, total_steps: int) -> AdamW:
    """AdamW with the schedule, clipping and learning rates that the options ask for."""
    return AdamW(
        WarmupLinearDecay(config.peak(model.config.hidden_dim), int(total_steps * config.warmup_share), total_steps),
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        factors=layer_factors(model, config.layer_decay, config.head_rate(), config.crf_factor),
    )


def _train(
    config: FinetuneConfig,
    task: Task,
    model: PresetModel,
    rows: Any,
    data: TaskData,
    folder: Path,
    top: Path,
    display: Display,
    stop: StopSignal,
) -> Progress:
    import tensorflow as tf

    per_epoch = steps_per_epoch(rows, config.batch_size, task.together)
    total = per_epoch * config.epochs
    optimizer = make_optimizer(config, model, total)
    step = make_task_step(model, optimizer, adversarial=config.adversarial, jit_compile=config.jit_compile)
    weights = task.weights(rows)
    checkpoints = Checkpoints(folder / "checkpoints", model, optimizer, keep=1)
    progress = checkpoints.restore()
    batches = task_batches(rows, config.batch_size, config.epochs, config.seed, progress.step, task.together)
    every = max(1, min(50, per_epoch // 4))
    with (
        MetricsLog(folder, progress.step) as log,
        display.training(total, progress.step, lambda values: metric_text(values, task.main)) as bar,
    ):
        times: list[float] = []
        clock = time.monotonic()
        done = _stopped_early(folder, task.main, config.patience)  # by the lines that the log keeps
        for inputs, labels, batch in batches if not done else ():
            row_weights = [] if weights is None else [weights[batch]]
            loss = float(step(*tf.nest.map_structure(tf.convert_to_tensor, (inputs, labels, *row_weights))))
            now = time.monotonic()
            times.append(now - clock)
            progress.seconds += now - clock
            progress.step += 1
            progress.sums = {
                "loss": progress.sums.get("loss", 0.0) + loss,
                "count": progress.sums.get("count", 0.0) + 1,
            }
            if not math.isfinite(loss):
                raise BertKerasError(
                    f"the loss is {loss} at step {progress.step}; give a lower --learning-rate than "
                    f"{config.peak(model.config.hidden_dim):g}"
                )
            bar(progress.step, None)
            end_of_epoch = progress.step % per_epoch == 0
            if progress.step % every == 0 or end_of_epoch:
                values = {
                    "epoch": progress.step / per_epoch,
                    "loss": progress.sums["loss"] / progress.sums["count"],
                    "learning_rate": float(optimizer.learning_rate),
                    "step_seconds": statistics.median(times),
                }
                progress.sums, times = {}, []
                if end_of_epoch:
                    if config.calibrate:  # so that the epochs are compared at their best thresholds
                        task.tune(model, data.dev)
                    figures = task.evaluate(model, data.dev)
                    values |= {f"dev_{name}": value for name, value in figures.items()}
                    earlier = [row[f"dev_{task.main}"] for row in _epochs(folder, task.main)]
                    if figures[task.main] > max(earlier, default=-math.inf):
                        _keep_best(model, folder)
                log.write(progress.step, values)
                bar(progress.step, values)
            if end_of_epoch or stop.name:
                checkpoints.save(progress)
            if stop.name and progress.step < total:
                raise Interrupted(stop.name, progress.step, top, "finetune")
            if end_of_epoch and _stopped_early(folder, task.main, config.patience):
                break
            clock = time.monotonic()
    return progress


BEST = "best.safetensors"


def _keep_best(model: PresetModel, folder: Path) -> None:
    arrays = {name: np.asarray(variable.value, "float32") for name, variable in model.canonical_weights().items()}
    write_safetensors(folder / BEST, arrays)


def _restore_best(model: PresetModel, folder: Path) -> None:
    from safetensors.numpy import load_file

    for name, value in load_file(folder / BEST).items():
        model.canonical_weights()[name].assign(value)


def _epochs(folder: Path, main: str) -> list[dict[str, Any]]:
    """The lines of the log that end an epoch."""
    return [row for row in read_metrics(folder / "metrics.jsonl") if f"dev_{main}" in row]


def _best_row(folder: Path, main: str) -> dict[str, Any]:
    return max(_epochs(folder, main), key=lambda row: row[f"dev_{main}"])


def _stopped_early(folder: Path, main: str, patience: int | None) -> bool:
    """Whether the best epoch is `patience` epochs old."""
    epochs = _epochs(folder, main)
    return bool(patience and epochs) and epochs[-1]["epoch"] - _best_row(folder, main)["epoch"] >= (patience or 0)
