"""`report.html`: one page, no request to anywhere, with the curves and the filled sentences of a run."""

from __future__ import annotations

import dataclasses
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertkeras.files import write_text
from bertkeras.models.masked_lm import Filling
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.progress import ROWS

# Okabe and Ito's colours, told apart by colour-blind readers
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8a8a"


def write_report(
    folder: Path,
    config: PretrainConfig,
    summary: dict[str, Any],
    metrics: list[dict[str, Any]],
    fillings: Sequence[Sequence[Sequence[Filling]]],
) -> None:
    """Write the page; every value that comes from the run is escaped."""
    sections = [
        f"<p>{sentence_of(summary)}</p>",
        "<h2>On held-out text</h2>",
        table(["", "loss (nats)", "accuracy"], baseline_rows(summary)),
        "<h2>While training</h2>",
        figure("Masked-LM loss by step, with the baselines as lines", loss_curves(metrics, summary)),
        figure("Accuracy by step, of masked pieces and of sentence pairs", accuracy_curves(metrics)),
        "<h2>Filling blanks</h2>",
        *(filled(sentence, blanks) for sentence, blanks in zip(config.sentences, fillings, strict=True)),
        "<details><summary>All figures</summary>",
        table(["figure", "value"], [[name, number(value)] for name, value in summary.items()]),
        "</details><details><summary>All options</summary>",
        table(["option", "value"], [[name, str(value)] for name, value in dataclasses.asdict(config).items()]),
        "</details>",
    ]
    write_text(folder / "report.html", PAGE.replace("BODY", "\n".join(sections)))


def sentence_of(summary: dict[str, Any]) -> str:
    minutes = summary["train_seconds"] / 60
    text = (
        f"A BERT of {summary['parameters']:,} parameters, trained for {summary['steps']:,} steps in {minutes:.1f} "
        f"minutes at {summary['tokens_per_second']:,.0f} tokens per second. It fills {summary['mlm_accuracy']:.1%} of "
        f"the blanks with the very piece that stood there; always guessing the commonest piece would fill "
        f"{summary['unigram_accuracy']:.1%}."
    )
    return html.escape(text)


def baseline_rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = []
    for title, kind in ROWS:
        if f"{kind}_loss" in summary:
            accuracy = summary.get(f"{kind}_accuracy")
            rows.append([title, f"{summary[f'{kind}_loss']:.3f}", "" if accuracy is None else f"{accuracy:.1%}"])
    return rows


def loss_curves(metrics: list[dict[str, Any]], summary: dict[str, Any]) -> list[str]:
    baselines = {"ln V": "uniform_loss", "unigram": "unigram_loss", "bigram": "bigram_loss"}
    lines = {name: summary[key] for name, key in baselines.items()}
    return draw({"masked pieces": ("mlm_loss", BLUE)}, metrics, "loss (nats)", lines)


def accuracy_curves(metrics: list[dict[str, Any]]) -> list[str]:
    curves = {"masked pieces": ("mlm_accuracy", BLUE), "sentence pairs": ("nsp_accuracy", ORANGE)}
    return draw(curves, metrics, "accuracy", {})


def draw(
    curves: dict[str, tuple[str, str]], metrics: list[dict[str, Any]], label: str, lines: dict[str, float]
) -> list[str]:
    """The same picture as SVG for light pages and for dark ones."""
    import matplotlib
    from matplotlib.figure import Figure

    pictures = []
    for ink in ("#222222", "#dddddd"):
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label + ink, "font.size": 11}):
            picture = Figure(figsize=(7, 3.4), layout="constrained")
            axes = picture.add_subplot()
            for name, (key, color) in curves.items():
                points = [(row["step"], row[key]) for row in metrics if key in row]
                if points:
                    axes.plot(
                        *zip(*points, strict=True), color=color, label=name, marker="o" if len(points) < 12 else None
                    )
            for (name, value), style in zip(lines.items(), (":", "--", "-."), strict=False):
                axes.axhline(value, color=GREY, linestyle=style, linewidth=1.2, label=f"{name}: {value:.2f}")
            axes.set_xlabel("step", color=ink)
            axes.set_ylabel(label, color=ink)
            axes.tick_params(colors=ink)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["bottom", "left"]].set_color(ink)
            axes.legend(frameon=False, labelcolor=ink)
            buffer = io.StringIO()
            picture.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        pictures.append(buffer.getvalue()[buffer.getvalue().index("<svg") :])
    return pictures


def figure(caption: str, pictures: list[str]) -> str:
    drawn = "".join(
        f'<div class="{mode}" role="img" aria-label="{html.escape(caption)}">{picture}</div>'
        for mode, picture in zip(("light", "dark"), pictures, strict=True)
    )
    return f"<figure>{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>"


def filled(sentence: str, blanks: Sequence[Sequence[Filling]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(filling.token)}</td>"
        f'<td><span class="bar" style="width:{filling.probability * 100:.1f}%"></span></td>'
        f"<td>{filling.probability:.1%}</td></tr>"
        for blank in blanks
        for filling in blank
    )
    return f'<h3>{html.escape(sentence)}</h3><table class="bars">{rows}</table>'


def table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def number(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A BERT of your own</title>
<style>
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --rule: #ccc; --bar: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #161616; --rule: #444; --bar: #56b4e9; } }
body { color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif;
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left;
  border-bottom: 1px solid var(--rule); }
td:not(:first-child) { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } td { overflow-wrap: break-word; }
.bars { width: 100%; } .bars td:nth-child(1) { width: 9rem; } .bars td:nth-child(3) { width: 4rem; }
.bar { display: inline-block; height: .8rem; background: var(--bar); min-width: 1px; }
h3 { font-size: 1rem; margin-bottom: .3rem; } figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
figcaption { font-size: .9rem; } .dark { display: none; } details { margin-top: 1rem; }
@media (prefers-color-scheme: dark) { .light { display: none; } .dark { display: block; } }
</style>
</head>
<body>
<h1>A BERT of your own</h1>
BODY
</body>
</html>
"""
