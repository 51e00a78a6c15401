"""Record a finished run of `make demo` for the book and the table of measurements.

python -m benchmarks.record_demo runs/demo
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.common import ROOT, machine, today, versions, write_section, write_text
from bertkeras import BertMaskedLM
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.progress import ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    folder = parser.parse_args().run
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    config = PretrainConfig(**PretrainConfig.load_toml(folder / "config.toml"))
    fillings = BertMaskedLM.from_preset(folder).fill_mask(config.sentences, top_k=3)
    filled = {
        sentence: [[filling.token, round(filling.probability, 3)] for filling in blanks[0]]
        for sentence, blanks in zip(config.sentences, fillings, strict=True)
    }
    where = {"device": machine(), "versions": versions("keras", "tensorflow"), "date": today(), "command": "make demo"}
    record = {**summary, "seeds": [config.seed], "filled": filled, **where}
    write_text(ROOT / "book" / "results" / "demo.json", json.dumps(record, indent=2) + "\n")
    rows = "".join(
        f"| {title} | {summary[f'{kind}_loss']:.3f} | "
        + (f"{summary[f'{kind}_accuracy']:.3f} |\n" if f"{kind}_accuracy" in summary else "|\n")
        for title, kind in ROWS
    )
    answers = "\n".join(
        f"- {sentence} {', '.join(f'**{token}** {share:.0%}' for token, share in found)}"
        for sentence, found in filled.items()
    )
    text = f"""## `make demo`

{summary["steps"]:,} steps in {summary["train_seconds"] / 60:.1f} minutes of training, at
{summary["tokens_per_second"]:,.0f} tokens per second; {summary["parameters"]:,} parameters,
{summary["vocabulary_size"]:,} word pieces, one seed. On held-out documents:

| | loss | accuracy |
|---|---:|---:|
{rows}
{answers}

{machine()}. {", ".join(f"{name} {version}" for name, version in versions("keras", "tensorflow").items())}. {today()}.
"""
    write_section("demo", text)
    print(text)


if __name__ == "__main__":
    main()
