"""Labelled texts in the rows of CSV and TSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from bertkeras.datasets.examples import Label, TextExample
from bertkeras.datasets.labels import LabelChecker
from bertkeras.datasets.problems import BYTE_ORDER_MARK, Problems, decoded_lines

Row = tuple[int, list[str]]
NAMES = {"text": "text", "pair": "pair", "label": "label"}


def needs_pair(task: str, columns: dict[str, str]) -> bool:
    """Whether a second text must be there: by the task, or because its column was named."""
    return task in ("similarity", "generation") or columns.get("pair", NAMES["pair"]) != NAMES["pair"]


def csv_rows(raw: bytes, problems: Problems) -> Iterator[Row]:
    """The rows of a CSV file with the lines on which they begin; a quoted field may go over several lines."""
    for _ in decoded_lines(raw, problems):
        pass
    problems.raise_any()  # a line left out would move what follows into other columns
    text = raw.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, line = [], 1
    usual_limit = csv.field_size_limit(len(text) + 1)  # how long a text may be is not the format's affair
    try:
        for row in reader:
            if any(field.strip() for field in row) or len(row) > 1:
                rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.add(line, 1, f"this is no CSV from here on ({error}); a quotation mark inside quotes must be doubled")
    finally:
        csv.field_size_limit(usual_limit)
    yield from rows


def tsv_rows(raw: bytes, problems: Problems) -> Iterator[Row]:
    """The rows of a TSV file with their lines; there are no quotes."""
    for number, line in decoded_lines(raw, problems):
        if line.strip(" ") or number == 1:
            yield number, line.split("\t")


def read_table(
    rows: Iterable[Row],
    task: str,
    columns: dict[str, str],
    check_label: LabelChecker | None,
    problems: Problems,
) -> Iterator[TextExample]:
    """Examples from rows, of which the first names the columns; see `read_examples`."""
    rows = iter(rows)
    line, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    names = {**NAMES, **columns}
    roles = ["text"]
    if needs_pair(task, columns) or names["pair"] in header:
        roles.append("pair")
    if check_label is not None and task != "generation":
        roles.append("label")
    for role in roles:
        if header.count(names[role]) != 1:
            found = "two columns" if names[role] in header else "no column"
            first = ", ".join(header)[:100] or "nothing"
            hint = "; are its columns separated by something else?" if len(header) == 1 else ""
            problems.add(
                line, 1, f"{found} named {names[role]!r} in the first line, which must name the columns: {first}{hint}"
            )
    if problems.count:
        return
    places = {role: header.index(names[role]) for role in roles}
    for line, row in rows:
        if len(row) != len(header):
            problems.add(
                line,
                min(len(row), len(header)) + 1,
                f"expected {len(header)} columns as in the first line, got {len(row)}",
            )
            continue
        texts = {role: row[places[role]] for role in roles if role != "label"}
        sound = [problems.check_text(text, line, places[role] + 1, names[role]) for role, text in texts.items()]
        label: Label | None = None
        if check_label is not None and "label" in roles:
            label, problem = check_label(row[places["label"]])
            if label is None:
                problems.add(line, places["label"] + 1, problem)
                continue
        if all(sound):
            yield TextExample(texts["text"], texts.get("pair"), label, line)
