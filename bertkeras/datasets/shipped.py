"""The labelled sets that ship with the course; each has a data card in its folder under `data/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertkeras.datasets.readers import read_examples
from bertkeras.errors import BertKerasError
from bertkeras.files import SHIPPED

SPLITS = ("train", "dev", "test")
TASKS = {
    "english-reviews": "classification",
    "chinese-reviews": "classification",
    "support-tickets": "multi-label",
    "english-entities": "entities",
    "chinese-entities": "entities",
    "passages": "question-answering",
    "entailment": "classification",  # of pairs
}
SUFFIXES = {"entities": ".conll", "question-answering": ".json"}  # of the others: .tsv


def shipped_names() -> tuple[str, ...]:
    """The names of the sets that ship with the course.

    >>> from bertkeras.datasets.shipped import shipped_names
    >>> shipped_names()[:3]
    ('english-reviews', 'chinese-reviews', 'support-tickets')
    """
    return tuple(TASKS)


def shipped_path(name: str, split: str) -> Path:
    """The file of a split of a shipped set, in this checkout or in the installed package.

    Args:
        name: One of `shipped_names()`.
        split: `train`, `dev` or `test`.

    Raises:
        BertKerasError: No such set or split, or the file is not there.
    """
    if name not in TASKS:
        raise BertKerasError(f"unknown set {name!r}; the sets that ship with the course are {', '.join(TASKS)}")
    if split not in SPLITS:
        raise BertKerasError(f"unknown split {split!r} of {name}; choose one of {', '.join(SPLITS)}")
    paths = [home / name / f"{split}{SUFFIXES.get(TASKS[name], '.tsv')}" for home in SHIPPED]
    for path in paths:
        if path.is_file():
            return path
    raise BertKerasError(
        f"the set {name} is missing: neither {paths[0]} nor {paths[1]} exists; install bertkeras again"
    )


def load_shipped(name: str, split: str, task: str | None = None) -> list[Any]:
    """The examples of a split of a shipped set.

    Args:
        name: One of `shipped_names()`.
        split: `train`, `dev` or `test`.
        task: How to read it, as in `read_examples`; by default, the task the set was written for.

    Returns:
        `TextExample`s, `TokenExample`s or `QuestionExample`s.

    Raises:
        BertKerasError: No such set or split, or the set does not fit the task.

    Example:
        >>> from bertkeras.datasets.shipped import load_shipped
        >>> example = load_shipped("support-tickets", "train")[3]
        >>> example.label
        ('billing', 'refund')
    """
    path = shipped_path(name, split)
    return read_examples(path, TASKS[name] if task is None else task)
