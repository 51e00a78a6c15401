"""The examples of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertkeras.datasets.examples import TextExample
from bertkeras.datasets.readers import read_examples, types_of
from bertkeras.errors import BertKerasError
from bertkeras.training.finetune_config import FinetuneConfig


@dataclasses.dataclass
class TaskData:
    """Examples to learn from, to choose by and to report on; `notes` says what was done to get them.

    `labels` are those of the whole training data: the examples to learn from may lack one that is set aside.
    """

    train: list[Any]
    dev: list[Any]
    test: list[Any]
    notes: list[str]
    labels: list[str] | None = None


def read_data(config: FinetuneConfig, other_test: str | None = None) -> TaskData:
    """Read the files, or the named data set; without development data, set a share of the training data aside.

    Args:
        config: What to read.
        other_test: A file in place of the test data.

    Raises:
        BertKerasError: Problems in a file, each with its place; too few examples.
    """
    if config.dataset is not None:
        load, there = _named(config.dataset, config.task)
        train = load(config.dataset, config.train_split, config.task)
        is_dev = config.train_split == "dev" or "dev" not in there
        dev_split = config.dev_split or (None if is_dev or config.test_split == "dev" else "dev")
        dev = [] if dev_split is None else load(config.dataset, dev_split, config.task)
        test = load(config.dataset, config.test_split, config.task) if config.test_split in there else []
        labels = known_labels(config.task, train)
    else:
        train = _read(config, config.train)
        labels = known_labels(config.task, train)
        dev, test = (_read(config, path, labels) if path else [] for path in (config.dev, config.test))
    if other_test is not None:
        test = _read(config, other_test, labels)
    check_alike(config.task, labels, train, dev, test)
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
    return TaskData(train, dev, test, notes, labels)


def _named(name: str, task: str) -> tuple[Callable[[str, str, str], list[Any]], tuple[str, ...]]:
    """How a set that ships with the course, or a public one, is loaded, and its splits."""
    from bertkeras.datasets import registry, shipped

    if name in shipped.shipped_names():
        return shipped.load_shipped, shipped.SPLITS
    return registry.load, registry.splits(name, task)


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


def check_alike(task: str, labels: Sequence[str] | None, train: Sequence[Any], *others: Sequence[Any]) -> None:
    """Development and test data must be of the same kind as the training data.

    Raises:
        BertKerasError: A class that the training data lack; or only some of the data have pairs of texts.
    """
    for example in (example for part in others for example in part):
        if isinstance(example, TextExample) and (example.pair is None) != (train[0].pair is None):
            have, lack = ("training", "other") if example.pair is None else ("other", "training")
            raise BertKerasError(f"the {have} data have pairs of texts, the {lack} data have not: line {example.line}")
        names = example.label if task == "multi-label" else [example.label] if task == "classification" else []
        if unknown := sorted(set(names) - set(labels or ())):
            raise BertKerasError(f"unknown label {unknown[0]!r}, which the training data lack: line {example.line}")


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
        parts.append(TaskData(train, data.dev, test, [], data.labels))
    return parts
