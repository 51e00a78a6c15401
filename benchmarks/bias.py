"""CrowS-Pairs for the BERTs of this course, with intervals, beside their masked loss; before and after counterfactuals.

Given `--english`, the BERT of one's own that `benchmarks.tasks` uses, that run goes on twice with equal steps: on its
own text, and on that text with its counterparts (`bertkeras.analysis.swap_words`) among it. So what differs is the
text.

BERTKERAS_DATA_HOME=... python -m benchmarks.bias
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common import ROOT, machine, require, today, versions, write_section, write_text

RUNS = ROOT / "runs" / "bias"
CORPUS = "enwiki-sample"


def go_on(english: Path, kind: str, steps: int) -> Path:
    """The run of `english` after so many steps more, on its training text or with counterparts; kept under `runs/bias`.

    What that run held out is not in the text, nor is its counterpart.
    """
    from bertkeras.analysis import swap_words
    from bertkeras.datasets import locate
    from bertkeras.pipelines.layout import Layout
    from bertkeras.text.corpus import Corpus
    from bertkeras.training.pretrain import start_or_resume
    from bertkeras.training.pretrain_config import PretrainConfig

    before = PretrainConfig(**PretrainConfig.load_toml(english / "config.toml"))
    corpus = RUNS / f"{kind}.txt"
    if not corpus.is_file():
        layout = Layout(before.seed, before.held_out_share, 0)
        numbered = enumerate(Corpus(locate(CORPUS, "train")))
        documents = [document for number, document in numbered if layout.part_of(number) == "train"]
        if kind == "counterfactual":
            documents += [swap_words(document) for document in documents]
        write_text(corpus, "\n\n".join(documents) + "\n")
    options = {"start_from": str(english), "corpus": str(corpus), "pairs": before.pairs, "passes": 1, "steps": steps}
    config = PretrainConfig(**options, max_sequence_length=before.max_sequence_length, learning_rate=2e-4)
    start_or_resume(config, RUNS / kind)
    return RUNS / kind


def measured(name: str, preset: str, pairs: list[dict[str, Any]], held_out: Path | None) -> dict[str, Any]:
    """The measure of a model, and its masked loss on the held-out text of a run, if there is one."""
    from bertkeras.analysis import crows_pairs
    from bertkeras.models import BertMaskedLM, BertPretrainer
    from bertkeras.pipelines.prepare import Prepared
    from bertkeras.training.evaluate import evaluate
    from bertkeras.training.pretrain_config import PretrainConfig

    model = BertMaskedLM.from_preset(preset)
    limit = model.config.max_sequence_length
    sides = ("sent_more", "sent_less")
    fitting = [pair for pair in pairs if all(len(model.tokenizer.encode(pair[side])) <= limit for side in sides)]
    found = crows_pairs(model, fitting)
    loss = model.model_card.get("metrics", {}).get("mlm_loss")
    if held_out is not None:
        prepared = Prepared.open(held_out / "prepared")
        config = PretrainConfig(**PretrainConfig.load_toml(held_out / "config.toml"))
        masking = config.masking(model.tokenizer, config.max_sequence_length)
        judged = BertPretrainer.from_preset(preset, next_sentence=prepared.train.options.has_labels)
        loss = evaluate(judged, prepared.held_out, masking, prepared.ngrams)["mlm_loss"]
    row = {
        "model": name,
        "percent": found.metric.percent,
        "interval": found.metric.interval,
        "pairs": found.metric.count,
        "neutral": found.neutral,
        "gender": found.by_type["gender"].percent,
        "gender_interval": found.by_type["gender"].interval,
        "by_type": {kind: share.percent for kind, share in found.by_type.items()},
        "mlm_loss": loss,
    }
    print({key: value for key, value in row.items() if key != "by_type"}, flush=True)
    return row


def report(record: dict[str, Any]) -> None:
    def share(percent: float, interval: list[float]) -> str:
        return f"{percent:.1f} ({interval[0]:.1f} to {interval[1]:.1f})"

    lines = "".join(
        f"| {row['model']} | {row['pairs']:,} | {share(row['percent'], row['interval'])} | "
        f"{share(row['gender'], row['gender_interval'])} | {row['mlm_loss']:.3f} |\n"
        for row in record["rows"]
    )
    write_section(
        "bias",
        f"""## CrowS-Pairs

The share of pairs, in percent, of which the stereotyping sentence is the likelier; 50 has no preference. With 95 %
intervals (Wilson). Losses are masked losses on held-out text of the model's own kind, as it was written.

| model | pairs | all | gender | masked loss |
|---|---:|---:|---:|---:|
{lines}
{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}. {record["date"]},
`{record["command"]}`.
""",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bias", description=__doc__.splitlines()[0])
    parser.add_argument("--english", type=Path, default=ROOT / "runs" / "en-mini", help="a run of `benchmarks.tasks`")
    parser.add_argument("--steps", type=int, default=1000, help="steps more for each of the two")
    options = parser.parse_args()
    require("tensorflow", "scipy")
    from bertkeras.datasets import rows

    pairs = rows("crows-pairs", "test")
    found = [measured("course-bert", "course-bert", pairs, None)]
    if options.english.is_dir():
        found.append(measured("own, Wikipedia", str(options.english), pairs, options.english))
        for kind, name in (("same", "after more of the same"), ("counterfactual", "after counterfactual text")):
            where = go_on(options.english, kind, options.steps)
            found.append(measured(f"own, Wikipedia, {name}", str(where), pairs, options.english))
    record = {
        "rows": found,
        "machine": machine(),
        "versions": versions("keras", "tensorflow"),
        "date": today(),
        "command": f"python -m benchmarks.bias --steps {options.steps}",
    }
    write_text(ROOT / "book" / "results" / "bias.json", json.dumps(record, indent=1) + "\n")
    report(record)


if __name__ == "__main__":
    main()
