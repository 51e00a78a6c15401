"""The examples of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertkeras.datasets.readers import read_examples, types_of
from bertkeras.errors import BertKerasError
from bertkeras.training.finetune_config import FinetuneConfig


@dataclasses.dataclass
class TaskData:
    """Examples to learn from, to choose by and to report on; `notes` says what was done to get them."""

    train: list[Any]
    dev: list[Any]
    test: list[Any]
    notes: list[str]


def read_data(config: FinetuneConfig) -> TaskData:
    """Read the files, or the named data set; without development data, set a share of the training data aside.

    Raises:
        BertKerasError: Problems in a file, each with its place; too few examples.
    """
    if config.dataset is not None:
        from bertkeras.datasets.registry import load, splits

        there = splits(config.dataset, config.task)
        train = load(config.dataset, config.train_split, config.task)
        is_dev = config.train_split == "dev" or "dev" not in there
        dev_split = config.dev_split or (None if is_dev or config.test_split == "dev" else "dev")
        dev = [] if dev_split is None else load(config.dataset, dev_split, config.task)
        test = load(config.dataset, config.test_split, config.task) if config.test_split in there else []
    else:
        train = _read(config, config.train)
        labels = known_labels(config.task, train)
        dev, test = (_read(config, path, labels) if path else [] for path in (config.dev, config.test))
    notes = []
    generator = np.random.default_rng(config.seed)
    if config.max_train is not None and len(train) > config.max_train:
        chosen = sorted(generator.permutation(len(train))[: config.max_train].tolist())
        notes.append(f"learning from {config.max_train:,} of {len(train):,} training examples, drawn by the seed")
        train = [train[index] for index in chosen]
    if not dev:
        size = max(1, round(len(train) * config.dev_share))
        order = generator.permutation(len(train)).tolist()
        aside = set(order[:size])
        dev = [example for index, example in enumerate(train) if index in aside]
        train = [example for index, example in enumerate(train) if index not in aside]
        notes.append(f"no development data: {len(dev):,} training examples are set aside to choose by")
    if len(train) < 2:
        raise BertKerasError(f"{len(train)} training examples are too few; give two or more, and some to choose by")
    return TaskData(train, dev, test, notes)


def _read(config: FinetuneConfig, path: str | None, labels: Sequence[str] | None = None) -> list[Any]:
    assert path is not None
    return read_examples(path, config.task, format=config.format, columns=config.columns(), labels=labels)


def known_labels(task: str, train: Sequence[Any]) -> list[str] | None:
    """The labels that development and test data may have: those of the training data."""
    if task == "classification":
        return sorted({example.label for example in train})
    if task == "multi-label":
        return sorted({name for example in train for name in example.label})
    return types_of(train) if task == "entities" else None


def folds_of(data: TaskData, config: FinetuneConfig) -> list[TaskData]:
    """Parts of the training data, each tested once by a model that learned from the others."""
    if len(data.train) < config.folds:
        raise BertKerasError(f"{len(data.train)} examples do not make {config.folds} folds")
    order = np.random.default_rng(config.seed).permutation(len(data.train))
    parts = []
    for number in range(config.folds):
        tested = set(order[number :: config.folds].tolist())
        train = [example for index, example in enumerate(data.train) if index not in tested]
        test = [example for index, example in enumerate(data.train) if index in tested]
        parts.append(TaskData(train, data.dev, test, []))
    return parts
