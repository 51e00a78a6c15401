"""Documents, one after another, from files of any size."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from bertkeras.errors import BertKerasError
from bertkeras.text.installed_docs import iter_installed_docs
from bertkeras.text.sentences import split_sentences

__all__ = ["Corpus", "split_sentences"]

INSTALLED_DOCS = "installed-docs"
FORMATS = ("auto", "text", "jsonl", "wikitext", "folder", INSTALLED_DOCS)
FOLDER_SUFFIXES = (".txt", ".md", ".jsonl")


class Unit(NamedTuple):
    """A part of a corpus that is read on its own.

    Attributes:
        path: The file, or `installed-docs`.
        kind: How it is read: a format, or `md`.
    """

    path: str
    kind: str


class Corpus:
    """The documents of a text collection, read as a stream, as often as one likes.

    A document is a string of one or more lines; each line is a sentence or a paragraph, so a line break is always a
    sentence boundary (see `split_sentences`). Blank lines and white space around a line are dropped, and documents
    without any text with them; nothing else is.

    Args:
        source: A file, a folder, or the word `installed-docs`: the documentation of the Python packages installed on
            this machine. Files ending in `.gz` are unpacked on the way. All text is UTF-8.
        format: What the file holds; `auto` decides by its name.

            - `text`: documents with a blank line between them (`.txt`, `.text`).
            - `jsonl`: a JSON object per line with the document in `field` (`.jsonl`).
            - `wikitext`: a document begins at a heading ` = Title = ` between blank lines. Headings of every level are
              dropped, being no sentences; `<unk>` and ` @-@ ` stay as they are (`.tokens`, `.raw`, or `wikitext` in the
              file's or its folder's name).
            - `folder`: every `.txt`, `.md` and `.jsonl` file beneath, sorted by path; an `.md` file is one document.
              Hidden files and folders are left out.
            - `installed-docs`: see `iter_installed_docs`.
        field: Name of the text in a JSON object.

    Raises:
        BertKerasError: `source` does not exist or its format is unknown; on iteration: a line that is not UTF-8 or not
            such a JSON object, or no document at all.

    Example:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "poems.txt")
    ...     _ = path.write_text("The first line.\\nThe second.\\n\\nAnother document.\\n")
    ...     list(Corpus(path))
    ['The first line.\\nThe second.', 'Another document.']
    """

    def __init__(self, source: str | os.PathLike[str], format: str = "auto", field: str = "text") -> None:
        if format not in FORMATS:
            raise BertKerasError(f"unknown corpus format {format!r}; choose one of {', '.join(FORMATS)}")
        self.source = os.fspath(source)
        self.format = _guess_format(self.source) if format == "auto" else format
        self.field = field
        if self.format != INSTALLED_DOCS:
            path = Path(self.source)
            if not path.exists():
                raise BertKerasError(f"{self.source} does not exist; give a file, a folder or {INSTALLED_DOCS!r}")
            if path.is_dir() != (self.format == "folder"):
                kind = "a folder" if path.is_dir() else "a file"
                raise BertKerasError(f"{self.source} is {kind}, which format={self.format!r} cannot read; use 'auto'")

    def __iter__(self) -> Iterator[str]:
        is_empty = True
        for unit in self.units():
            for document in self.read(unit):
                is_empty = False
                yield document
        if is_empty:
            raise self.empty_error()

    def units(self) -> list[Unit]:
        """What can be read on its own; the documents of all units, one after another, are the corpus."""
        if self.format == INSTALLED_DOCS:
            return [Unit(INSTALLED_DOCS, INSTALLED_DOCS)]
        if self.format == "folder":
            paths = _files_beneath(Path(self.source))
            return [Unit(os.fspath(path), path.name.removesuffix(".gz").rpartition(".")[2]) for path in paths]
        return [Unit(self.source, self.format)]

    def read(self, unit: Unit) -> Iterator[str]:
        """The documents of a unit.

        Raises:
            BertKerasError: As the iteration over the whole corpus, save that a unit may be empty.
        """
        if unit.kind == INSTALLED_DOCS:
            return iter_installed_docs()
        if unit.kind == "jsonl":
            return _read_jsonl(Path(unit.path), self.field)
        readers: dict[str, Callable[[Path], Iterator[str]]] = {"md": _read_whole, "wikitext": _read_wikitext}
        return readers.get(unit.kind, _read_text)(Path(unit.path))

    def empty_error(self) -> BertKerasError:
        """What is raised when there is no document in any unit."""
        what = "file named *.txt, *.md or *.jsonl with text in it" if self.format == "folder" else "text in it"
        return BertKerasError(f"{self.source} is empty: no {what}, so there is nothing to train on")

    def __repr__(self) -> str:
        return f"Corpus({self.source!r}, format={self.format!r})"


def _guess_format(source: str) -> str:
    if source == INSTALLED_DOCS:
        return INSTALLED_DOCS
    path = Path(source)
    if path.is_dir() or not path.exists():
        return "folder"
    name = path.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix in (".tokens", ".raw") or "wikitext" in f"{path.absolute().parent.name.lower()}/{name}":
        return "wikitext"
    if suffix == ".jsonl":
        return "jsonl"
    if suffix in (".txt", ".text"):
        return "text"
    raise BertKerasError(f"cannot tell the format of {source} by its name; pass format='text', 'jsonl' or 'wikitext'")


def _files_beneath(folder: Path) -> Iterator[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    for path in sorted(found):
        if path.name.lower().removesuffix(".gz").endswith(FOLDER_SUFFIXES):
            yield path


def _read_text(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for line in _lines(path):
        if line:
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _read_whole(path: Path) -> Iterator[str]:
    document = "\n".join(line for line in _lines(path) if line)
    if document:
        yield document


def _read_jsonl(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        if not line:
            continue
        where = f"{path} line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BertKerasError(f"{where} is not JSON ({error}); write one object per line") from None
        if not isinstance(record, dict):
            raise BertKerasError(f"{where} holds a JSON {type(record).__name__}; write one object per line")
        if field not in record:
            names = ", ".join(record) or "none"
            raise BertKerasError(f"{where} has no field {field!r}, its fields are {names}; pass field=...")
        text = record[field]
        if not isinstance(text, str):
            raise BertKerasError(f"{where}: field {field!r} must be a string, got {type(text).__name__}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise BertKerasError(f"{where}: field {field!r} has a lone surrogate (\\ud800 to \\udfff); remove it")
        document = "\n".join(stripped for part in text.split("\n") if (stripped := part.strip()))
        if document:
            yield document


def _read_wikitext(path: Path) -> Iterator[str]:
    lines: list[str] = []
    heading = ""  # a line that looks like a heading and follows a blank line
    after_blank = True
    has_title = False
    for line in chain(_lines(path), [""]):
        if heading and line:  # no blank line after it: it was text
            lines.append(heading)
        elif heading and not heading.startswith("= ="):
            has_title = True
            if lines:
                yield "\n".join(lines)
                lines = []
        heading = line if after_blank and _looks_like_heading(line) else ""
        if line and not heading:
            lines.append(line)
        after_blank = not line
    if not has_title:
        raise BertKerasError(
            f"{path} has no heading ' = Title = ' between blank lines; for other text use format='text'"
        )
    if lines:
        yield "\n".join(lines)


def _looks_like_heading(line: str) -> bool:
    return len(line) > 4 and line.startswith("= ") and line.endswith(" =")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, stripped; `""` for a blank one."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise BertKerasError(
            f"{path} line {number} is not UTF-8 (byte 0x{byte:02x} at position {error.start + 1});"
            " convert the file, for example with iconv -f GB18030 -t UTF-8 (or -f LATIN1, -f UTF-16)"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise BertKerasError(f"cannot read {path} after line {number} ({error}); check the file") from None
