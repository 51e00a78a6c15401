"""Data sets that the field knows, by their names; what is known of each stands in the files of `sets/`."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bertkeras.datasets.adapters import Reading, read_rows, read_split
from bertkeras.datasets.download import HOME, DataFile, Source, fetch, find, places
from bertkeras.datasets.readers import TASKS
from bertkeras.errors import BertKerasError

SET_TASKS = (*TASKS, "pretraining", "probe", "files")
ARCHIVES = "archives.toml"


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set.

    Args:
        name: By which it is loaded.
        title: What is in it.
        tasks: What it is for: tasks of `read_examples`; `pretraining` for running text, `probe` for what is asked of a
            model and never learned, `files` for what is used as it is. The first is meant if none is given.
        languages: `en`, `zh` or `multilingual`.
        licence: As far as known; look before use.
        citation: Whom to name.
        page: Where the authors present it.
        note: What to know before use, such as how splits were made where its authors made none.
        obtain: How to get it if it cannot be fetched.
        rows: How many examples each split has as published; `None` if unknown.
        labels: The names of the labels, if they are known beforehand.
        files: All its files, also those that only describe it.
        read: For each task, how the files are read; see `adapters.py`.
        parts: Splits that are parts of files, and which.
        values: From what the files say to the names of the labels.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    languages: tuple[str, ...]
    licence: str
    citation: str
    page: str
    note: str
    obtain: str
    rows: Mapping[str, int | None]
    labels: tuple[str, ...]
    files: tuple[DataFile, ...]
    read: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, str]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.rows)

    def files_of(self, split: str) -> list[DataFile]:
        """The files of a split, or the one that describes the data, by its name.

        Raises:
            BertKerasError: No such split.
        """
        if split in self.parts:
            return [file for file in self.files if not file.is_extra]
        if found := [file for file in self.files if file.split == split]:
            return found
        raise BertKerasError(f"{self.name} has no split {split!r}; its splits are {', '.join(self.splits)}")


def info(name: str) -> DatasetInfo:
    """What is known of a data set.

    Raises:
        BertKerasError: No set of that name.

    >>> from bertkeras.datasets import info
    >>> found = info("goemotions")
    >>> found.tasks, found.languages, found.licence, found.rows
    (('multi-label',), ('en',), 'Apache-2.0', {'train': 43410, 'dev': 5426, 'test': 5427})
    """
    if name not in _registry():
        raise BertKerasError(f"no data set is called {name!r}; the names are {', '.join(names())}")
    return _registry()[name]


def names(task: str | None = None, language: str | None = None) -> list[str]:
    """The names of the data sets, of all or of those for a task and in a language.

    >>> from bertkeras.datasets import names
    >>> names("regression")
    ['asap', 'asap-sample']
    """
    if task is not None and task not in SET_TASKS:
        raise BertKerasError(f"unknown task {task!r}; choose one of {', '.join(SET_TASKS)}")
    return sorted(
        name
        for name, found in _registry().items()
        if (task is None or task in found.tasks) and (language is None or language in found.languages)
    )


def splits(name: str, task: str | None = None) -> tuple[str, ...]:
    """The names of a data set's splits.

    Raises:
        BertKerasError: No set of that name, or it is not for the task.

    >>> from bertkeras.datasets import splits
    >>> splits("wnut17", "entities")
    ('train', 'dev', 'test')
    """
    found = info(name)
    _checked_task(found, task)
    return found.splits


def load(name: str, split: str = "train", task: str | None = None, *, unchecked: bool = False) -> Any:
    """The examples of a split of a data set.

    Args:
        name: One of `names()`.
        split: One of `info(name).splits`.
        task: For a set with several tasks, which; the first if not given.
        unchecked: Whether a download is accepted whose SHA-256 is not known.

    Returns:
        A list of `TextExample`s, `TokenExample`s or `QuestionExample`s; for `pretraining` and `files` the path of the
        file, for `Corpus` and the like.

    Raises:
        BertKerasError: No such set, split or task; or a file is not here and cannot be fetched: what is missing, and
            how to get it.

    Example:

    ```python
    train = load("sib200-zh")
    corpus = Corpus(load("wikitext-2"))
    stars = load("asap-sample", "dev", task="regression")
    ```
    """
    found = info(name)
    task = _checked_task(found, task)
    if task == "probe":
        raise BertKerasError(f"{name} asks a model and teaches none; its rows are rows({name!r}, {split!r})")
    paths = _paths(found, split, unchecked)
    if task in ("pretraining", "files"):
        return paths[0]
    if split not in found.splits:
        raise BertKerasError(f"{split!r} of {name} holds no examples; its place is locate({name!r}, {split!r})")
    return read_split(paths, Reading(task, found.read[task], found.values, found.parts.get(split, {})))


def rows(name: str, split: str = "test", *, unchecked: bool = False) -> list[dict[str, Any]]:
    """The rows of a probe, with the names that its authors gave the columns.

    Raises:
        BertKerasError: As for `load`; or the set is no probe.
    """
    found = info(name)
    if "probe" not in found.tasks:
        raise BertKerasError(f"{name} is no probe; its examples are load({name!r}, {split!r})")
    return read_rows(_paths(found, split, unchecked), found.read["probe"])


def locate(name: str, split: str = "train", *, unchecked: bool = False) -> Path:
    """The file of a split.

    It is looked for in `BERTKERAS_DATA_HOME`, which has a folder for each set, then in the cache, then fetched. It may
    be packed with gzip, with `.gz` at its end. Where its SHA-256 is known, it is compared the first time that a program
    uses the file. Nothing else is ever taken in its place.

    Args:
        name: One of `names()`.
        split: One of `info(name).splits`, or a file that describes the data, such as `documents`.
        unchecked: Whether a download is accepted whose SHA-256 is not known.

    Returns:
        The file; the first one if there are several, which are all there then.

    Raises:
        BertKerasError: No such set or split; another file in its place; or it is not here and cannot be fetched, and
            how to get it.
    """
    return _paths(info(name), split, unchecked)[0]


def _checked_task(found: DatasetInfo, task: str | None) -> str:
    if task is not None and task not in found.tasks:
        raise BertKerasError(f"{found.name} is for {' and '.join(found.tasks)}, not for {task!r}")
    return task or found.tasks[0]


def _paths(found: DatasetInfo, split: str, unchecked: bool) -> list[Path]:
    return [find(file) or _fetched(found, file, unchecked) for file in found.files_of(split)]


def _fetched(found: DatasetInfo, file: DataFile, unchecked: bool) -> Path:
    why = found.obtain
    if file.sources:
        try:
            return fetch(file, found.files, unchecked)
        except BertKerasError as error:
            why = f"{error}; the set is at {found.page}"
    paths = [place / file.path for place in places()]
    looked = ", ".join(f"no {path}" for path in paths) + ("" if len(paths) > 1 else f"; {HOME} is not set")
    raise BertKerasError(f"{found.name} is not here ({looked}): {why}; put the file at {paths[0]}")


@functools.cache
def _registry() -> dict[str, DatasetInfo]:
    folder = resources.files("bertkeras.datasets") / "sets"
    tables = {path.name: tomllib.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}
    archives = tables.pop(ARCHIVES)
    return {name: _entry(name, table, archives) for file in sorted(tables) for name, table in tables[file].items()}


def _entry(name: str, table: dict[str, Any], archives: dict[str, Any]) -> DatasetInfo:
    folder = table.get("folder", name)
    folds = max(reading.get("folds", 0) for reading in table["read"].values())
    parts = table.get("parts", {}) | {f"fold{fold}": {"folds": [fold]} for fold in range(folds)}
    files = tuple(
        DataFile(
            path=entry.get("path", f"{folder}/{entry['file']}"),
            split=entry.get("split") or entry.get("extra", ""),
            is_extra="extra" in entry,
            rows=entry.get("rows"),
            bytes=entry.get("bytes"),
            sha256=entry.get("sha256"),
            sources=tuple(_sources(entry, table, archives)),
            make=entry.get("make", ""),
        )
        for entry in table["files"]
    )
    counts: dict[str, int | None] = {}
    for file in files:
        if file.split and not file.is_extra:
            before = counts.get(file.split, 0)
            counts[file.split] = None if before is None or file.rows is None else before + file.rows
    counts |= {split: part.get("rows") for split, part in parts.items()}
    labels = table.get("labels", {})
    values = labels if isinstance(labels, dict) else {label: label for label in labels}
    languages = table["language"]
    return DatasetInfo(
        name=name,
        tasks=tuple(table["read"]),
        languages=(languages,) if isinstance(languages, str) else tuple(languages),
        note=table.get("note", ""),
        obtain=table.get("obtain", ""),
        rows=counts,
        labels=tuple(values.values()),
        files=files,
        read=table["read"],
        parts=parts,
        values=values,
        **{key: table[key] for key in ("title", "licence", "citation", "page")},
    )


def _sources(entry: dict[str, Any], table: dict[str, Any], archives: dict[str, Any]) -> Iterator[Source]:
    """The addresses of a file: each in `from` with the file's name behind; after a `!` a place in an archive."""
    addresses = entry.get("from", table.get("from", []))
    name = "" if "make" in entry else entry.get("at", entry["file"])
    for address in [addresses] if isinstance(addresses, str) else addresses:
        url, mark, folder = address.partition("!")
        if mark:
            yield Source(url, folder + name, **archives.get(url, {}))
        else:
            yield Source(url + name)
