"""Figures of real sets of the same tasks, beside which the shipped ones are judged.

The files are those that their authors publish, under `BERTKERAS_DATA_HOME` in a folder per set; where that is set, a
test measures them again.
"""

import csv
import gzip
import json
from dataclasses import dataclass

from bertkeras.datasets import read_examples
from tests.data.language import Diversity
from tests.data.sets import joined


@dataclass(frozen=True)
class RealSet:
    """A real set as measured.

    Args:
        title: What the cards call it.
        files: Its files under `BERTKERAS_DATA_HOME`.
        language: `en` or `zh`.
        diversity: How varied its texts are.
        opening: The share of its texts that begin with the two words with which most do.
        names: Persons, places and organisations per 100 words, where they are marked.
    """

    title: str
    files: tuple[str, ...]
    language: str
    diversity: Diversity
    opening: float
    names: float | None = None


UCI = "uci-sentiment-sentences"
REAL = {
    "uci": RealSet(
        "Sentiment Labelled Sentences, UCI (real)",
        (f"{UCI}/amazon_cells_labelled.txt", f"{UCI}/imdb_labelled.txt", f"{UCI}/yelp_labelled.txt"),
        "en",
        Diversity(0.579, 0.868, 0.983),
        0.020,
    ),
    "asap": RealSet(
        "ASAP restaurant reviews, sample (real)",
        ("asap-sample/train_sample.csv", "asap-sample/dev_sample.csv", "asap-sample/test_sample.csv"),
        "zh",
        Diversity(0.489, 0.788, 0.957),
        0.053,
    ),
    "goemotions": RealSet(
        "GoEmotions, dev (real)", ("goemotions/dev.tsv",), "en", Diversity(0.597, 0.902, 0.992), 0.014
    ),
    "uner-en": RealSet(
        "Universal NER English EWT, dev (real)",
        ("uner-en-ewt/en_ewt-ud-dev.iob2",),
        "en",
        Diversity(0.625, 0.893, 0.986),
        0.016,
        4.3,
    ),
    "uner-zh": RealSet(
        "Universal NER Chinese GSDSimp, dev (real)",
        ("uner-zh-gsdsimp/zh_gsdsimp-ud-dev.iob2",),
        "zh",
        Diversity(0.626, 0.892, 0.980),
        0.010,
        4.4,
    ),
    "squad-passages": RealSet(
        "SQuAD 1.1 passages, dev (real)",
        ("squad-v1.1-dev/dev-v1.1.json.gz",),
        "en",
        Diversity(0.571, 0.889, 0.980),
        0.030,
    ),
    "squad-questions": RealSet(
        "SQuAD 1.1 questions, dev (real)",
        ("squad-v1.1-dev/dev-v1.1.json.gz",),
        "en",
        Diversity(0.581, 0.818, 0.950),
        0.091,
    ),
    "snli-premises": RealSet(
        "SNLI premises, dev (real)", ("snli-dev-test/dev.tsv.gz",), "en", Diversity(0.474, 0.701, 0.905), 0.165
    ),
    "snli-hypotheses": RealSet(
        "SNLI hypotheses, dev (real)", ("snli-dev-test/dev.tsv.gz",), "en", Diversity(0.460, 0.666, 0.882), 0.112
    ),
}


def real_texts(key, home):
    """The texts of a real set.

    Args:
        key: A key of `REAL`.
        home: The folder of the data sets.
    """
    paths = [home / file for file in REAL[key].files]
    if key.startswith("uner"):
        return [joined(example.tokens, REAL[key].language) for example in real_sentences(key, home)]
    raw = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in paths]
    if key.startswith("squad"):
        paragraphs = [paragraph for article in json.loads(raw[0])["data"] for paragraph in article["paragraphs"]]
        if key == "squad-passages":
            return [paragraph["context"] for paragraph in paragraphs]
        return [question["question"] for paragraph in paragraphs for question in paragraph["qas"]]
    if key == "asap":
        rows = [row for part in raw for row in csv.DictReader(part.decode("utf-8-sig").splitlines(keepends=True))]
        return [row["reviewbody"] for row in rows]
    lines = [line.split("\t") for part in raw for line in part.decode("utf-8").split("\n") if line]
    if key.startswith("snli"):
        premises = dict.fromkeys(row[1] for row in lines[1:])
        return list(premises) if key == "snli-premises" else [row[2] for row in lines[1:]]
    return ["\t".join(row[:-1]) if key == "uci" else row[0] for row in lines]


def real_sentences(key, home):
    """The sentences of a real set whose entities are marked."""
    return read_examples(home / REAL[key].files[0], "entities")
