"""What a person reads of a fine-tuning run: the table at its end and `report.html`."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bertkeras.files import write_text
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.report import BLUE, ORANGE, PAGE, draw, figure, number, table

if TYPE_CHECKING:
    from bertkeras.training.task import Task

TITLES = {
    "accuracy": "accuracy",
    "f1_macro": "F1, mean over classes",
    "f1_micro": "F1, over all decisions",
    "matthews": "Matthews correlation",
    "exact_accuracy": "all labels right",
    "calibration_error": "calibration error",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
    "mean_squared_error": "mean squared error",
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
    "exact_match": "exact match",
    "f1": "word overlap F1",
    "answerable_accuracy": "answerable or not",
}


def metric_text(values: dict[str, float], main: str) -> str:
    """`epoch 1.5  loss 0.312  dev accuracy 0.910`."""
    dev = f"  dev {TITLES[main]} {values[f'dev_{main}']:.3f}" if f"dev_{main}" in values else ""
    return f"epoch {values['epoch']:.2f}  loss {values['loss']:.3f}{dev}"


def metric_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Every figure beside that of the cheap method and of the simplest guess."""
    rows = []
    for name, title in TITLES.items():
        if name in summary:
            cells = [title]
            for key in (name, f"baseline_{name}", f"majority_{name}"):
                text = f"{summary[key]:.3f}" if key in summary else ""
                cells.append(f"{text} ± {summary[f'{key}_spread']:.3f}" if summary.get(f"{key}_spread") else text)
            rows.append(cells)
    return rows


HEADER = ["", "this model", "cheap baseline", "simplest guess"]


def summary_table(summary: dict[str, Any], title: str) -> Table:
    """The table that the command ends with."""
    shown = Table(title=title)
    for column in HEADER:
        shown.add_column(column, justify="right" if column else "left")
    for cells in metric_rows(summary):
        shown.add_row(*cells)
    return shown


def write_report(
    folder: Path,
    config: FinetuneConfig,
    summary: dict[str, Any],
    metrics: list[dict[str, Any]],
    task: Task,
    model: Any,
    examples: Sequence[Any],
) -> None:
    """Write the page; every value that comes from the run is escaped."""
    minutes = summary["train_seconds"] / 60
    intro = (
        f"{config.model}, fitted to {config.task} with {summary['train_examples']:,} examples in {minutes:.1f} minutes "
        f"({summary['steps']:,} steps of {summary['step_seconds']:.2f} s). Figures are those of the "
        f"{summary['reported_on']} data; the epoch was chosen on the development data."
    )
    sections = [
        f"<p>{html.escape(intro)}</p>",
        f"<h2>On the {summary['reported_on']} data</h2>",
        table(HEADER, metric_rows(summary)),
        "<h2>While training</h2>",
        figure("Loss by step", draw({"training": ("loss", BLUE)}, metrics, "loss", {})),
        figure(
            f"{task.main} on the development data, by step",
            draw({"development": (f"dev_{task.main}", ORANGE)}, metrics, task.main, _line(summary, task.main)),
        ),
    ]
    titles, found = task.mistakes(model, examples)
    if found:
        sections += ["<h2>Where it errs</h2>", table(titles, found)]
    sections += [
        "<details><summary>All figures</summary>",
        table(["figure", "value"], [[name, number(value)] for name, value in summary.items()]),
        "</details><details><summary>All options</summary>",
        table(["option", "value"], [[name, str(value)] for name, value in dataclasses.asdict(config).items()]),
        "</details>",
    ]
    page = PAGE.replace("A BERT of your own", html.escape(f"A BERT for {config.task}"))
    write_text(folder / "report.html", page.replace("BODY", "\n".join(sections)))


def _line(summary: dict[str, Any], main: str) -> dict[str, float]:
    key = f"baseline_{main}"
    return {"cheap baseline, on the reported data": summary[key]} if key in summary else {}
