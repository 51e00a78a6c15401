"""Labelled files: CSV, TSV, JSON lines, CoNLL and SQuAD's JSON.

A file is read whole or not at all: whatever is wrong with it is told with line and column, and up to ten more problems.
In CSV, TSV and CoNLL a column is the number of the field, in JSON and for a byte that is no text that of the character.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertkeras.datasets.conll import read_conll
from bertkeras.datasets.examples import TokenExample
from bertkeras.datasets.json_readers import read_json_lines
from bertkeras.datasets.labels import label_checker
from bertkeras.datasets.problems import BYTE_ORDER_MARK, Problems
from bertkeras.datasets.squad import read_squad
from bertkeras.datasets.tables import NAMES, csv_rows, read_table, tsv_rows
from bertkeras.errors import BertKerasError

# What a task's examples are, and how their labels are written
TEXT_TASKS = ("classification", "multi-label", "regression", "similarity", "generation")
TASKS = (*TEXT_TASKS, "entities", "question-answering")
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "tsv",
    ".jsonl": "jsonl",
    ".conll": "conll",
    ".bio": "conll",
    ".iob2": "conll",
    ".bmes": "conll",
    ".json": "squad",
}


def read_examples(
    path: str | os.PathLike[str],
    task: str,
    *,
    format: str = "auto",
    columns: dict[str, str] | None = None,
    labels: Sequence[str] | None = None,
    labelled: bool = True,
) -> list[Any]:
    """All examples of a file, in order.

    - CSV and TSV have a header that names the columns `text`, `label` and, for pairs of texts, `pair`. TSV knows no
      quotes. Several labels of one text are separated by commas; a number is written with a point.
    - JSON lines have the same names as keys; several labels are a list. For entities a line has `tokens` and `tags`, or
      `text` and `entities`, a list of `{"start", "end", "type"}` in characters that begin and end where words do. For
      question answering it has `question`, `context` and `answers`, a list of `{"text", "answer_start"}`.
    - CoNLL has a word a line, its tag in the last column, and a blank line between sentences.
    - JSON is SQuAD's, of version 1.1 or 2.0.

    Args:
        path: The file; `.gz` at its end is unpacked on the way. All text is UTF-8.
        task: One of `classification`, `multi-label`, `regression`, `similarity` (two texts and a number),
            `generation` (two texts), `entities` and `question-answering`.
        format: `csv`, `tsv`, `jsonl`, `conll` or `squad`; `auto` goes by the name of the file.
        columns: Other names of columns or keys, such as `{"text": "review", "label": "stars"}`. A `pair` that is named
            must be there; otherwise there are pairs if the file has the column `pair`.
        labels: The names that labels may have; another one is a problem.
        labelled: Whether labels must be there. If not, they are left unread.

    Returns:
        `TextExample`s, `TokenExample`s or `QuestionExample`s.

    Raises:
        BertKerasError: No such file or format, or problems in it: a line each.
    """
    path = Path(path)
    if task not in TASKS:
        raise BertKerasError(f"unknown task {task!r}; choose one of {', '.join(TASKS)}")
    format = _format(path, task, format)
    columns = columns or {}
    if unknown := set(columns) - set(NAMES):
        raise BertKerasError(f"columns has the key {min(unknown)!r}; the keys are {', '.join(NAMES)}")
    raw = file_bytes(path)
    problems = Problems(path)
    if not raw.removeprefix(BYTE_ORDER_MARK).strip():
        problems.add(1, 1, "the file is empty")
        problems.raise_any()
    check_label = label_checker(task, labels) if labelled else None
    examples: list[Any]
    if format == "squad":
        examples = read_squad(raw, problems, labelled)
    elif format == "jsonl":
        examples = read_json_lines(raw, task, columns, check_label, problems)
    elif format == "conll":
        examples = list(read_conll(raw, check_label, problems))
    else:
        rows = csv_rows(raw, problems) if format == "csv" else tsv_rows(raw, problems)
        examples = list(read_table(rows, task, columns, check_label, problems))
    if not examples and not problems.count:
        below = " below the names of the columns" if format in ("csv", "tsv") else ""
        problems.add(1, 1, f"there is no example in the file{below}")
    problems.raise_any()
    return examples


def _format(path: Path, task: str, format: str) -> str:
    possible = ["csv", "tsv", "jsonl"] if task in TEXT_TASKS else ["jsonl", "conll" if task == "entities" else "squad"]
    if format == "auto":
        suffix = Path(path.name.lower().removesuffix(".gz")).suffix
        if suffix not in FORMATS:
            raise BertKerasError(f"{path}: cannot tell the format by the name; pass format= {' or '.join(possible)}")
        format = FORMATS[suffix]
    elif format not in FORMATS.values():
        raise BertKerasError(f"unknown format {format!r}; for {task} choose {' or '.join(possible)}")
    if format not in possible:
        raise BertKerasError(
            f"{path}: the format {format} has no place for the examples of {task}; use {' or '.join(possible)}"
        )
    return format


def file_bytes(path: Path) -> bytes:
    """What a file holds, unpacked if its name ends in `.gz`."""
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BertKerasError(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise BertKerasError(f"{path} cannot be read: {error}") from error


def types_of(examples: Sequence[TokenExample]) -> list[str]:
    """The entity types in examples, in alphabetical order."""
    return sorted({tag.partition("-")[2] for example in examples for tag in example.tags if tag != "O"})
