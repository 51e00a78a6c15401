"""From the files of known data sets to examples: what `read_examples` does not do by itself.

A set's entry in `sets/` says under `read` how its files are read; the keys are explained here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkeras.datasets.conll import read_conll
from bertkeras.datasets.examples import TextExample, TokenExample
from bertkeras.datasets.json_readers import read_json_lines
from bertkeras.datasets.labels import label_checker
from bertkeras.datasets.problems import Problems, decoded_lines
from bertkeras.datasets.readers import file_bytes
from bertkeras.datasets.squad import read_squad
from bertkeras.datasets.tables import NAMES, Row, csv_rows, read_table, tsv_rows
from bertkeras.errors import BertKerasError
from bertkeras.text.tags import Span, tags_of

logger = logging.getLogger("bertkeras")

NOT_MENTIONED = "-2"  # in ASAP's columns of aspects


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a reader is told.

    Args:
        task: The task.
        options: How the set is read, from its entry.
        labels: From what the files say to the names of the labels; empty if any name is one.
        part: Which part of the files is wanted; empty for all.
    """

    task: str
    options: Mapping[str, Any]
    labels: Mapping[str, str]
    part: Mapping[str, Any]


def read_split(paths: Sequence[Path], reading: Reading) -> list[Any]:
    """The examples of a split.

    With `folds` and `block`, neighbouring examples of a file form blocks of that many, which go to the folds in turn,
    and the split is some of the folds.
    """
    examples: list[Any] = []
    for path in paths:
        with _expecting(path) as problems:
            found = READERS[reading.options["format"]](file_bytes(path), reading, problems)
        if "folds" in reading.part:
            folds, block = reading.options["folds"], reading.options["block"]
            found = [e for index, e in enumerate(found) if index // block % folds in reading.part["folds"]]
        examples += found
    return examples


def _texts(raw: bytes, reading: Reading, problems: Problems) -> list[TextExample]:
    """CSV, TSV and JSON lines: `text`, `pair` and `label` name the columns, `leave_out` labels that are none."""
    options = reading.options
    columns = {role: options[role] for role in NAMES if role in options}
    without = options.get("leave_out", [])
    check_label = label_checker(reading.task, [*reading.labels, *without] if reading.labels else None)
    if options["format"] == "jsonl":
        examples = read_json_lines(raw, reading.task, columns, check_label, problems)
    else:
        examples = list(read_table(_rows(raw, options, problems), reading.task, columns, check_label, problems))
    return [_named(example, reading.labels) for example in examples if example.label not in without]


def _rows(raw: bytes, options: Mapping[str, Any], problems: Problems) -> Iterator[Row]:
    """The rows of a table: `header` names columns that the file does not name, `only` says what a column must hold,
    `join` makes one text of several columns."""
    rows = csv_rows(raw, problems) if options["format"] == "csv" else tsv_rows(raw, problems)
    header = options.get("header") or next(rows, (1, []))[1]
    only = {header.index(name): value for name, value in options.get("only", {}).items()}
    joined = [header.index(name) for name in options.get("join", [])]
    yield 1, [*header, "text"] if joined else header
    for line, row in rows:
        if all(row[at : at + 1] == [value] for at, value in only.items()):
            yield line, [*row, " ".join(row[at] for at in joined if at < len(row))] if joined else row


def _named(example: TextExample, names: Mapping[str, str]) -> TextExample:
    label = example.label
    if isinstance(label, tuple):
        label = tuple(names.get(part, part) for part in label)
    elif isinstance(label, str):
        label = names.get(label, label)
    return dataclasses.replace(example, label=label)


def _lines(raw: bytes, reading: Reading, problems: Problems) -> list[TextExample]:
    """A text a line; `file_labels` has the label of every file."""
    label = reading.options["file_labels"][posixpath.basename(problems.path).removesuffix(".gz")]
    return [
        TextExample(line.strip(), label=label, line=number)
        for number, line in decoded_lines(raw, problems)
        if line.strip()
    ]


def _clinc150(raw: bytes, reading: Reading, problems: Problems) -> list[TextExample]:
    """An object with lists of `[text, label]`; a part has some of its `keys`."""
    content = json.loads(raw)
    return [TextExample(text, label=label) for key in reading.part["keys"] for text, label in content[key]]


def _asap(raw: bytes, reading: Reading, problems: Problems) -> list[TextExample]:
    """The aspects that a review speaks of."""

    def aspects(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(name for name in reading.labels if row[name].strip() != NOT_MENTIONED)

    rows = _table_rows(raw, {"format": "csv"}, problems)
    return [TextExample(row["reviewbody"], label=aspects(row)) for row in rows]


def _nlu(raw: bytes, reading: Reading, problems: Problems) -> list[TextExample]:
    """A list of objects with `text` and perhaps `intents`."""
    return [TextExample(row["text"], label=tuple(row.get("intents", []))) for row in json.loads(raw)]


def _xcopa(raw: bytes, reading: Reading, problems: Problems) -> list[TextExample]:
    """Two pairs of a row, one for each choice, with the cause before the effect."""
    examples = []
    for line, row in enumerate(_json_rows(raw), 1):
        for number, choice in enumerate((row["choice1"], row["choice2"])):
            cause, effect = (choice, row["premise"]) if row["question"] == "cause" else (row["premise"], choice)
            label = "plausible" if row["label"] == number else "implausible"
            examples.append(TextExample(cause, effect, label, line))
    return examples


def _conll(raw: bytes, reading: Reading, problems: Problems) -> list[TokenExample]:
    """CoNLL; of words the `first_character` alone, if told so."""
    examples = list(read_conll(raw, label_checker("entities", list(reading.labels) or None), problems))
    if reading.options.get("first_character"):
        examples = [dataclasses.replace(e, tokens=tuple(token[0] for token in e.tokens)) for e in examples]
    return examples


def _cluener(raw: bytes, reading: Reading, problems: Problems) -> list[TokenExample]:
    """Objects with `text` and `label`: of each type the names, of each name its first and last characters.

    Of names that overlap the first is taken, of those the longest; the log says how many were not.
    """
    examples, lost = [], 0
    for line, row in enumerate(_json_rows(raw), 1):
        text = row["text"]
        at = list(itertools.accumulate((not sign.isspace() for sign in text), initial=0))  # words before a character
        found = [
            Span(at[first], at[last + 1], type)
            for type, names in row["label"].items()
            for places in names.values()
            for first, last in places
        ]
        spans: list[Span] = []
        for span in sorted(found, key=lambda span: (span.start, -span.end)):
            if not spans or span.start >= spans[-1].end:
                spans.append(span)
        lost += len(found) - len(spans)
        tags = tags_of(spans, at[-1])
        examples.append(TokenExample(tuple(sign for sign in text if not sign.isspace()), tuple(tags), line))
    if lost:
        logger.warning("%s: left out %d entities that overlap with others", problems.path, lost)
    return examples


def _squad(raw: bytes, reading: Reading, problems: Problems) -> list[Any]:
    """SQuAD's JSON; `leave_out` as `read_squad` has it; a part is some of the `articles`, counted from 1."""
    questions = read_squad(raw, problems, leave_out=reading.options.get("leave_out", False))
    if "articles" not in reading.part:
        return questions
    first, last = reading.part["articles"]
    sizes = [sum(len(paragraph["qas"]) for paragraph in article["paragraphs"]) for article in json.loads(raw)["data"]]
    return questions[sum(sizes[: first - 1]) : sum(sizes[:last])]


READERS: dict[str, Callable[[bytes, Reading, Problems], list[Any]]] = {
    "csv": _texts,
    "tsv": _texts,
    "jsonl": _texts,
    "lines": _lines,
    "clinc150": _clinc150,
    "asap": _asap,
    "nlu++": _nlu,
    "xcopa": _xcopa,
    "conll": _conll,
    "cluener": _cluener,
    "squad": _squad,
}


def read_rows(paths: Sequence[Path], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a probe as its authors wrote them; of WinoBias and StereoSet see below."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        with _expecting(path) as problems:
            raw = file_bytes(path)
            if options["format"] == "jsonl":
                rows += _json_rows(raw)
            elif options["format"] == "winobias":
                rows += _winobias(raw, path)
            elif options["format"] == "stereoset":
                rows += _stereoset(raw)
            else:
                rows += _table_rows(raw, options, problems)
    return rows


@contextlib.contextmanager
def _expecting(path: Path) -> Iterator[Problems]:
    """Takes the problems of a file; a known file is read without much ado, and may be another one."""
    problems = Problems(path)
    try:
        yield problems
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, BertKerasError):
            raise
        raise BertKerasError(
            f"{path} is not in the form that its data set has ({type(error).__name__}: {error})"
        ) from error
    problems.raise_any()


def _json_rows(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw.split(b"\n") if line.strip()]


def _table_rows(raw: bytes, options: Mapping[str, Any], problems: Problems) -> Iterator[dict[str, str]]:
    """Rows by the names of the columns; one without a name is `index`."""
    rows = _rows(raw, options, problems)
    header = [name or "index" for name in next(rows)[1]]
    for _, row in rows:
        yield dict(zip(header, row, strict=True))


def _winobias(raw: bytes, path: Path) -> Iterator[dict[str, Any]]:
    """`number`, `text` with the marks in it, `stereotype` (`pro` or `anti`) and `type` (1 or 2)."""
    stereotype, type = re.match(r"(pro|anti)_stereotyped_type(\d)", path.name).groups()  # type: ignore[union-attr]
    for line in raw.decode("utf-8").splitlines():
        number, _, text = line.strip().partition(" ")
        yield {"number": int(number), "text": text, "stereotype": stereotype, "type": int(type)}


def _stereoset(raw: bytes) -> Iterator[dict[str, Any]]:
    """`kind` (`intersentence` or `intrasentence`), `target`, `bias_type`, `context`, and a text for each of
    `stereotype`, `anti-stereotype` and `unrelated`."""
    for kind, items in json.loads(raw)["data"].items():
        for item in items:
            texts = {sentence["gold_label"]: sentence["sentence"] for sentence in item["sentences"]}
            yield {"kind": kind, **{key: item[key] for key in ("id", "target", "bias_type", "context")}, **texts}
