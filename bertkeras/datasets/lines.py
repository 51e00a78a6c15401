"""Texts without labels, a line at a time, as a program is fed them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bertkeras.datasets.examples import TextExample
from bertkeras.datasets.json_readers import read_json_lines
from bertkeras.datasets.problems import Problems


def read_lines(lines: Iterable[str], task: str, name: str = "standard input") -> Iterator[Any]:
    """Unlabelled examples from lines as they come: a line that begins with `{` is a JSON object, another is a text.

    Raises:
        BertKerasError: A line that is wrong, with its number.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if not line.lstrip().startswith("{") and task != "question-answering":
            yield TextExample(line.strip(), line=number)
            continue
        problems = Problems(name)
        raw = b"\n" * (number - 1) + line.encode("utf-8", "surrogatepass").rstrip(b"\r\n")
        names = {"text": "text", "pair": "pair", "label": "label"}
        found = read_json_lines(raw, task, names, None, problems)
        problems.raise_any()
        yield from found
