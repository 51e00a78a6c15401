"""What each choice of BERT's pretraining is worth: one changed at a time, several seeds, on articles of WikiText-2.

BERTKERAS_DATA_HOME=... python -m benchmarks.ablations --jobs 2

Every run of a seed has the same articles with the same tokenizer, and is asked the same questions about the same
held-out ones, whatever it was trained to do. A run that was measured once is kept under `runs/ablations`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.common import (
    ROOT,
    kept,
    loss_curve,
    machine,
    on_shares,
    require,
    spread,
    today,
    versions,
    write_section,
    write_text,
)

CACHE = ROOT / "runs" / "ablations"
COMMON: dict[str, Any] = {
    "corpus_format": "text",
    "vocabulary_size": 4000,
    "passes": 1,
    "held_out_share": 0.1,
    "batch_size": 32,
    "sentences": ["The film was directed by a [MASK] director ."],
}
# What is changed, and what the change is called. The first run changes nothing.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("15 %, 80/10/10, other masks each time, NSP, tied, post-norm, warm-up", {}),
    "mask_20": ("20 % masked", {"mask_rate": 0.2}),
    "mask_40": ("40 % masked", {"mask_rate": 0.4}),
    "all_masks": ("100/0/0: every chosen piece becomes [MASK]", {"mask_share": 1.0, "random_share": 0.0}),
    "whole_words": ("whole words masked", {"whole_words": True}),
    "static": ("the same masks each time", {"dynamic_masks": False}),
    # Of these rows, which hold whole sentences only, a pass makes a seventh.
    "sop": ("sentence order in place of NSP", {"pairs": "sop", "passes": 7}),
    "no_pairs": ("no pairs: one segment", {"pairs": "none"}),
    "free_output": ("a free output table", {"tie_embeddings": False}),
    "pre_norm": ("pre-norm", {"norm_first": True}),
    "no_warmup": ("no warm-up", {"warmup_share": 0.0}),
    "pre_norm_no_warmup": ("pre-norm, no warm-up", {"norm_first": True, "warmup_share": 0.0}),
}
# The questions: which pieces of the held-out rows are asked for, and what stands in their place.
QUESTIONS: dict[str, dict[str, Any]] = {
    "mixed": {},
    "hidden": {"mask_share": 1.0, "random_share": 0.0},
    "hidden_words": {"mask_share": 1.0, "random_share": 0.0, "whole_words": True},
    "kept": {"mask_share": 0.0, "random_share": 0.0},
    "wrong": {"mask_share": 0.0, "random_share": 1.0},
}


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all runs have in common: the text, its tokenizer, and how long they learn."""

    corpus: str
    tokenizer: str
    steps: int
    every: int

    @property
    def cache(self) -> Path:
        return CACHE / f"{self.steps}-steps-{self.every}th-article"


def shared_text(folder: Path, every: int, steps: int) -> Shared:
    """One article of `every` of WikiText-2's training text, and a tokenizer trained on them."""
    from bertkeras.datasets import locate
    from bertkeras.text.corpus import Corpus
    from bertkeras.text.wordpiece import WordPieceTokenizer

    articles = list(Corpus(locate("wikitext-2"), "wikitext"))[::every]
    path = folder / "articles.txt"
    write_text(path, "\n\n".join(articles) + "\n")
    tokenizer = WordPieceTokenizer.train(Corpus(path), COMMON["vocabulary_size"])
    tokenizer.save(folder / "tokenizer")
    return Shared(str(path), str(folder / "tokenizer"), steps, every)


def run(name: str, seed: int, shared: Shared) -> dict[str, Any]:
    """Pretrain once and ask the held-out questions."""
    import keras

    from bertkeras.models import BertPretrainer
    from bertkeras.pipelines.prepare import prepare
    from bertkeras.text.corpus import Corpus
    from bertkeras.text.wordpiece import WordPieceTokenizer
    from bertkeras.training.evaluate import evaluate
    from bertkeras.training.pretrain import pretrain
    from bertkeras.training.pretrain_config import PretrainConfig

    options = {**COMMON, "corpus": shared.corpus, "tokenizer": shared.tokenizer, "steps": shared.steps, "seed": seed}
    config = PretrainConfig(**{**options, **CHANGES[name][1]})
    tokenizer = WordPieceTokenizer.load(shared.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        summary = pretrain(config, Path(folder) / "run")
        # One segment without labels: any of the models can be asked about it.
        asked = PretrainConfig(**options, pairs="none")
        rows = asked.row_options(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
        share = config.held_out_share
        text = Corpus(shared.corpus)
        prepared = prepare(text, tokenizer, Path(folder) / "asked", rows, passes=1, held_out_share=share)
        model = BertPretrainer.from_preset(Path(folder) / "run", next_sentence=False)
        answers = {}
        for question, masks in QUESTIONS.items():
            masking = PretrainConfig(**options, **masks).masking(tokenizer, asked.max_sequence_length)
            answers[question] = evaluate(model, prepared.held_out, masking, prepared.ngrams)
        accuracy = probe(Path(folder) / "run")
        curve = loss_curve(Path(folder) / "run")
    keras.backend.clear_session()
    return {
        "answers": {name: figures["mlm_loss"] for name, figures in answers.items()},
        "pair_accuracy": summary.get("nsp_accuracy"),
        "probe_accuracy": accuracy,
        "curve": curve,
        "baselines": {name: answers["mixed"][name] for name in ("uniform_loss", "unigram_loss", "bigram_loss")},
        "rows": summary["corpus_rows"],
        "tokens": summary["corpus_tokens"],
    }


def reviews() -> tuple[list[str], list[str]]:
    """The course's English reviews, all of them."""
    from bertkeras.datasets import read_examples

    folder = ROOT / "data" / "english-reviews"
    examples = [e for part in ("train", "dev", "test") for e in read_examples(folder / f"{part}.tsv", "classification")]
    return [example.text for example in examples], [example.label for example in examples]


def probe(run: Path) -> float:
    """How well a logistic regression tells good reviews from bad by the frozen model's mean vectors; 5 parts."""
    from bertkeras.models import BertTextEmbedder

    texts, labels = reviews()
    model = BertTextEmbedder.from_preset(run, normalize=False)
    return cross_validated(model.embed(texts), labels)


def cross_validated(vectors: Any, labels: list[str]) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    classifier = make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=2000))
    return float(np.mean(cross_val_score(classifier, vectors, labels, cv=5)))


def cached(job: tuple[str, int], shared: Shared) -> dict[str, Any]:
    """From the cache, or measured now."""
    name, seed = job

    def measure() -> dict[str, Any]:
        record = run(name, seed, shared)
        print(f"{name}, seed {seed}: {record['answers']['mixed']:.3f}", flush=True)
        return record

    return kept(shared.cache / f"{name}-{seed}.json", measure)


def summed_up(name: str, runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, Any]:
    """One change: means and spreads over seeds, and what it adds to the loss of the unchanged run of the same seed."""
    text, options = CHANGES[name]
    record: dict[str, Any] = {"name": name, "change": text, "options": options}
    record |= {question: spread([run["answers"][question] for run in runs]) for question in QUESTIONS}
    pairs = zip(runs, base, strict=True)
    record["difference"] = spread([run["answers"]["mixed"] - other["answers"]["mixed"] for run, other in pairs])
    record["probe_accuracy"] = spread([run["probe_accuracy"] for run in runs])
    if runs[0]["pair_accuracy"] is not None:
        record["pair_accuracy"] = spread([run["pair_accuracy"] for run in runs])
    record["rows"] = round(statistics.fmean(run["rows"] for run in runs))
    steps = [step for step, _ in runs[0]["curve"]]
    record["curve"] = {"steps": steps, "losses": [[round(loss, 4) for _, loss in run["curve"]] for run in runs]}
    return record


def report(record: dict[str, Any]) -> str:
    def cells(row: dict[str, Any]) -> str:
        texts = [
            f"{row['rows']:,}",
            plus_minus(row["mixed"], ".3f"),
            plus_minus(row["difference"], "+.3f") if row["options"] else "",
        ]
        texts += [plus_minus(row[question], ".3f") for question in list(QUESTIONS)[1:]]
        texts += [plus_minus(row.get(name), ".1%") for name in ("pair_accuracy", "probe_accuracy")]
        return f"| {row['change']} | {' | '.join(texts)} |"

    baselines = ", ".join(f"{name.removesuffix('_loss')} {loss:.3f}" for name, loss in record["baselines"].items())
    table = "\n".join(cells(row) for row in record["rows"])
    return f"""## What each choice is worth

{record["articles"]:,} articles of WikiText-2 ({record["tokens"]:,} pieces, {record["corpus_rows"]:,} rows), two layers
of width 128, {record["steps"]:,} steps of 32 rows of 64 pieces: {record["epochs"]:.1f} times through the rows. Means of
{len(record["rows"][0]["mixed"]["seeds"])} seeds and their standard deviation; "against the first" is paired by seed.
Losses are in nats per piece, on the same held-out articles with the same masks for all, 15 % of the pieces: as in
pretraining (80/10/10), all hidden, whole words hidden, all left as they are, all replaced by others. Counting reaches,
on the first: {baselines}. Pairs: held-out accuracy at a model's own task (half is chance). Reviews: logistic regression
on frozen mean vectors of the course's English reviews, five parts; on TF-IDF {record["probe_baseline"]:.1%}.

| change | rows | 80/10/10 | against the first | hidden | hidden words | kept | wrong | pairs | reviews |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{table}

{record["device"]}, {record["date"]}; {", ".join(f"{name} {version}" for name, version in record["versions"].items())};
`{record["command"]}`."""


def plus_minus(figure: dict[str, Any] | None, form: str) -> str:
    return f"{figure['mean']:{form}} ± {figure['spread']:{form.lstrip('+')}}" if figure else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), help="measure these, and write no record")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=4, help="one article of so many (default: 4)")
    parser.add_argument("--anew", action="store_true", help="forget what was measured before")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on its share of the cores")
    options = parser.parse_args()
    require("sklearn")
    if options.seeds < 2:
        parser.error("a spread needs two seeds or more")
    if options.anew:
        shutil.rmtree(CACHE, ignore_errors=True)
    names = options.only or list(CHANGES)
    with tempfile.TemporaryDirectory() as folder:
        shared = shared_text(Path(folder), options.every, options.steps)
        jobs = [(name, seed) for seed in range(options.seeds) for name in names]
        runs = dict(zip(jobs, on_shares(functools.partial(cached, shared=shared), jobs, options.jobs), strict=True))
        articles = Path(shared.corpus).read_text().count("\n\n") + 1
    if options.only:
        return
    by_name = {name: [runs[name, seed] for seed in range(options.seeds)] for name in names}
    first = by_name["base"][0]
    record = {
        "rows": [summed_up(name, by_name[name], by_name["base"]) for name in names],
        "baselines": {
            name: statistics.fmean(run["baselines"][name] for run in by_name["base"]) for name in first["baselines"]
        },
        "probe_baseline": tfidf_baseline(),
        "common": {name: value for name, value in COMMON.items() if name != "sentences"},
        "articles": articles,
        "tokens": first["tokens"],
        "corpus_rows": first["rows"],
        "steps": options.steps,
        "epochs": options.steps * COMMON["batch_size"] / first["rows"],
        "device": machine(),
        "date": today(),
        "versions": versions("bertkeras", "keras", "tensorflow", "scikit-learn"),
        "command": "BERTKERAS_DATA_HOME=... python -m benchmarks.ablations --jobs 2",
    }
    write_text(ROOT / "book" / "results" / "ablations.json", json.dumps(record, indent=2) + "\n")
    write_section("ablations", report(record))


def tfidf_baseline() -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, labels = reviews()
    return cross_validated(TfidfVectorizer(sublinear_tf=True).fit_transform(texts), labels)


if __name__ == "__main__":
    main()
