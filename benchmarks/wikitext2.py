"""Pretrain on WikiText-2 at the size of d2l's BERT chapter and record the held-out figures.

BERTKERAS_DATA_HOME=... python -m benchmarks.wikitext2
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console

from benchmarks.common import ROOT, loss_curve, machine, today, versions, write_section, write_text
from bertkeras.training.pretrain import pretrain
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.progress import Display

# d2l.ai, section 15.10: 2 layers, width 128, feed-forward 256, 2 heads, length 64, batch 512, 50 steps; its masked-LM
# loss after them is 7.292 (the MXNet run, whose loss leaves out padding), over 20,256 whole words.
D2L = {"loss": 7.292, "vocabulary_size": 20256, "steps": 50}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[50, 1000], help="lengths of the runs (default: 50 1000)"
    )
    options = parser.parse_args()
    corpus = Path(os.environ.get("BERTKERAS_DATA_HOME", "data")) / "wikitext-2" / "train.txt.gz"
    if not corpus.is_file():
        sys.exit(f"{corpus} is not there; set BERTKERAS_DATA_HOME to a folder that holds wikitext-2/train.txt.gz")
    runs = []
    with tempfile.TemporaryDirectory() as name:
        prepared = None
        for steps in options.steps:
            config = PretrainConfig(
                corpus=str(corpus),
                corpus_format="wikitext",
                prepared=prepared,
                vocabulary_size=D2L["vocabulary_size"],
                max_sequence_length=64,
                intermediate_dim=256,
                passes=10 if max(options.steps) > 100 else 2,
                steps=steps,
                batch_size=512,
                accumulation=8,
                learning_rate=5e-3 if steps < 200 else 2e-3,
                warmup_share=0.2 if steps < 200 else 0.1,
                dropout=0.0 if steps < 200 else 0.1,
                log_steps=10,
                sentences=["The film was directed by the [MASK] director ."],
            )
            summary = pretrain(config, Path(name) / str(steps), display=Display(Console()))
            prepared = prepared or str(Path(name) / str(steps) / "prepared")
            recipe = {"learning_rate": config.learning_rate, "dropout": config.dropout}
            runs.append({"steps": steps, **recipe, **summary, "curve": loss_curve(Path(name) / str(steps))})
    record = {
        "runs": runs,
        "d2l": D2L,
        "seeds": [0],
        "vocabulary": "20,256 word pieces learnt from the training text, where d2l has 20,256 whole words and <unk>; "
        "a piece is on average easier than a word, so the losses are not the same measure: ln V is equal, 9.916",
        "corpus_sha256": hashlib.sha256(corpus.read_bytes()).hexdigest(),
        "device": machine(),
        "versions": versions("keras", "tensorflow"),
        "date": today(),
        "command": "python -m benchmarks.wikitext2",
    }
    write_text(ROOT / "book" / "results" / "wikitext2.json", json.dumps(record, indent=2) + "\n")
    report(record)


def report(record: dict) -> None:
    names = ("mlm_loss", "mlm_accuracy", "nsp_accuracy", "unigram_loss", "bigram_loss", "uniform_loss")
    rows = "".join(
        f"| {run['steps']:,} | " + " | ".join(f"{run[name]:,.3f}" for name in names) + " |\n" for run in record["runs"]
    )
    text = f"""## WikiText-2, at the size of d2l's chapter

2 layers, width 128, feed-forward 256, 2 heads, length 64, batch 512. Held-out articles of the training file; losses in
nats per masked piece. d2l's figure after {D2L["steps"]} steps is {D2L["loss"]}, over {D2L["vocabulary_size"]:,} whole
words, on its training text; ours are over as many word pieces, so ln V is the same.

| steps | {" | ".join(name.replace("_", " ") for name in names)} |
|---:|{"---:|" * len(names)}
{rows}
{machine()}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}. One seed.
{today()}, `{record["command"]}`.
"""
    write_section("wikitext2", text)
    print(text)


if __name__ == "__main__":
    main()
