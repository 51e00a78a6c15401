"""The rows of `benchmarks.tasks`: data sets, how they are learnt, and what others publish of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

MINILM = "all-MiniLM-L6-v2"


@dataclasses.dataclass(frozen=True)
class Row:
    """A data set, its task, and how it is learnt.

    Args:
        dataset: Its name in `bertkeras.datasets.registry`.
        task: As for `bertkeras finetune`.
        language: `en` or `zh`: which weights.
        options: Of `bertkeras finetune`, where they differ from its defaults.
        published: A figure from the literature, and where it stands; trained on all of the data.
        max_test: At most so many test examples, drawn once; `None` is all.
        numbers: What the labels of a classification count for, where numbers are learnt from it.
        seeds: Runs of every contender.
        own: The BERT of one's own that learns it too: a preset's name, or `english` for that of `--english`.
        shipped: Whether the set ships with the course; `transformers` is not asked for it.
    """

    dataset: str
    task: str
    language: str = "en"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    published: tuple[str, float, str] | None = None
    max_test: int | None = 1000
    numbers: dict[str, float] | None = None
    seeds: int = 3
    own: str | None = "english"
    shipped: bool = False

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.task}"


ROWS = (
    Row("uci-sentiment-sentences", "classification"),
    Row(
        "subjectivity",
        "classification",
        published=("accuracy", 0.92, "Pang and Lee 2004, section 4.1: naive Bayes"),
    ),
    Row("sib200-en", "classification", options={"max_train": None}),
    Row(
        "clinc150",
        "classification",
        options={"max_train": 1500, "epochs": 8, "head_factor": 10.0},
        published=("accuracy", 0.969, "Larson et al. 2019, table 2: BERT, in-scope"),
    ),
    Row(
        "goemotions",
        "multi-label",
        options={"max_train": 2000},
        published=("f1_macro", 0.46, "Demszky et al. 2020, table 4: BERT-base"),
    ),
    Row(
        "wnut17",
        "entities",
        options={"max_train": 1000},
        published=("entity_f1", 0.4186, "Derczynski et al. 2017, table 3: UH-RiTUAL"),
        max_test=None,
        seeds=8,  # other dropout alone moves a run by 0.01
    ),
    Row("uner-en-ewt", "entities", options={"train_split": "dev"}),
    Row(
        "snli-dev-test",
        "classification",
        options={"train_split": "dev", "max_train": 2000, "learning_rate": 1e-4},
    ),
    Row(
        "snli-dev-test",
        "similarity",
        options={"train_split": "dev"},
        numbers={"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0},
    ),
    Row(
        "squad-v1.1-dev",
        "question-answering",
        options={
            "train_split": "train38",
            "test_split": "test10",
            "max_train": 1500,
            "epochs": 2,
            "max_length": 192,
            "overlap": 64,
        },
        published=("f1", 0.885, "Devlin et al. 2019, table 2: BERT-base, trained on SQuAD's 87,599 questions"),
        max_test=300,
    ),
    Row("sib200-zh", "classification", "zh", {"max_train": None}),
    Row("cold", "classification", "zh", {"max_train": 1000}),
    Row("asap-sample", "multi-label", "zh"),
    Row("asap-sample", "regression", "zh"),
    Row("uner-zh-gsdsimp", "entities", "zh", {"max_train": 1000}, max_test=None),
    Row(
        "cmrc2018",
        "question-answering",
        "zh",
        {
            "train_split": "trial",
            "test_split": "dev",
            "max_train": 500,
            "epochs": 2,
            "batch_size": 8,
            "max_length": 128,
            "overlap": 48,
        },
        published=("f1", 0.845, "Cui et al. 2021: BERT-base, trained on 10,142 questions; the official F1 is another"),
        max_test=300,
    ),
    Row("xcopa-zh", "classification", "zh", {"train_split": "dev"}),
    *(
        Row(name, task, options={"epochs": 8}, own="course-bert", shipped=True)
        for name, task in (
            ("english-reviews", "classification"),
            ("support-tickets", "multi-label"),
            ("english-entities", "entities"),
            ("passages", "question-answering"),
            ("entailment", "classification"),
        )
    ),
)
DEFAULTS = {"max_train": 600, "epochs": 3, "calibrate": True}


def config_of(row: Row, seed: int, chinese: str, **more: Any) -> Any:
    from bertkeras.training.finetune_config import FinetuneConfig

    options = {"model": MINILM if row.language == "en" else chinese, **DEFAULTS, **row.options, **more}
    return FinetuneConfig(dataset=row.dataset, task=row.task, seed=seed, **options)


def data_of(row: Row, config: Any) -> Any:
    from bertkeras.training.task_data import read_data

    if row.numbers is None:
        data = read_data(config)
    else:
        data = read_data(dataclasses.replace(config, task="classification"))
        for part in (data.train, data.dev, data.test):
            part[:] = [dataclasses.replace(example, label=row.numbers[example.label]) for example in part]
    data.test = sampled(data.test or data.dev, row.max_test)
    data.dev = sampled(data.dev, 300)  # the choice of the epoch needs no more
    return data


def sampled(examples: list[Any], most: int | None) -> list[Any]:
    """The same examples for every seed and contender, in their order."""
    chosen = np.random.default_rng(0).permutation(len(examples))[:most]
    return [examples[index] for index in sorted(chosen)]


MAIN = {
    "classification": "accuracy",
    "multi-label": "f1_micro",
    "regression": "spearman",
    "similarity": "spearman",
    "entities": "entity_f1",
    "question-answering": "f1",
}
