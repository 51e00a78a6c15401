"""Record a finished run of `bertkeras pretrain` for the book and the table of measurements.

python -m benchmarks.record_run runs/demo --command "make demo"
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common import ROOT, loss_curve, machine, today, versions, write_section, write_text
from bertkeras import BertMaskedLM
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.progress import ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--name", help="of the record; by default the folder's")
    parser.add_argument("--command", required=True, help="what made the run")
    parser.add_argument("--sentences", nargs="+", help="with [MASK]; by default those of the run")
    options = parser.parse_args()
    folder, name = options.run, options.name or options.run.name
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    config = PretrainConfig(**PretrainConfig.load_toml(folder / "config.toml"))
    sentences = options.sentences or config.sentences
    fillings = BertMaskedLM.from_preset(folder).fill_mask(sentences, top_k=3)
    filled = {
        sentence: [[filling.token, round(filling.probability, 3)] for filling in blanks[0]]
        for sentence, blanks in zip(sentences, fillings, strict=True)
    }
    used = versions("keras", "tensorflow")
    where = {"device": machine(), "versions": used, "date": today(), "command": options.command}
    record = {**summary, "seeds": [config.seed], "filled": filled, "curve": loss_curve(folder), **where}
    write_text(ROOT / "book" / "results" / f"{name}.json", json.dumps(record, indent=2) + "\n")
    rows = "".join(
        f"| {title} | {summary[f'{kind}_loss']:.3f} | "
        + (f"{summary[f'{kind}_accuracy']:.3f} |\n" if f"{kind}_accuracy" in summary else "|\n")
        for title, kind in ROWS
        if f"{kind}_loss" in summary
    )
    answers = "\n".join(
        f"- {sentence} {', '.join(f'**{token}** {share:.0%}' for token, share in found)}"
        for sentence, found in filled.items()
    )
    text = f"""## A pretraining run: {name}

`{options.command}`

{summary["steps"]:,} steps in {summary["train_seconds"] / 60:.1f} minutes of training, at
{summary["tokens_per_second"]:,.0f} tokens per second; {summary["parameters"]:,} parameters,
{summary["vocabulary_size"]:,} word pieces, one seed. On held-out documents:

| | loss | accuracy |
|---|---:|---:|
{rows}
{answers}

{machine()}. {", ".join(f"{package} {version}" for package, version in used.items())}. {today()}.
"""
    write_section(name, text)
    print(text)


if __name__ == "__main__":
    main()
