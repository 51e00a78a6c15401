"""Sentences with a word and its tag a line, as in CoNLL's shared tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bertkeras.datasets.examples import TokenExample
from bertkeras.datasets.labels import LabelChecker
from bertkeras.datasets.problems import Problems, decoded_lines, shown
from bertkeras.text.tags import OUTSIDE, is_tag

DOCUMENT = "-DOCSTART-"
WORD_NUMBER = re.compile(r"\d+([-.]\d+)?")  # 8-9 is a word that stands for two, 8.1 one that is not written


def read_conll(raw: bytes, check_type: LabelChecker | None, problems: Problems) -> Iterator[TokenExample]:
    """The sentences of a file; see `read_examples`.

    The word stands in the first column and the tag in the last; only in the files of Universal NER, whose five columns
    begin with the number of the word, they are the second and the third. `M-`, as in BMES, is read as `I-`. A line
    before a sentence that begins with `# ` is a comment.
    """
    lines = [(number, line, _fields(line)) for number, line in decoded_lines(raw, problems)]
    is_tabbed = any("\t" in line for _, line, fields in lines if fields)
    first = next((fields for _, line, fields in lines if fields and not line.startswith("# ")), [])
    width = len(first)
    numbered = width == 5 and WORD_NUMBER.fullmatch(first[0]) is not None and not is_tag(first[-1])
    word_at, tag_at = (1, 2) if numbered else (0, width - 1)

    rows: list[tuple[int, list[str]]] = []
    for number, line, fields in lines:
        is_row = "\t" in line if is_tabbed else bool(fields) and len(fields) == width and is_tag(fields[-1])
        before_sentence = not rows or not rows[-1][1]
        if not (line.startswith("# ") and before_sentence and not is_row):  # else a comment
            rows.append((number, fields))
    tokens: list[str] = []
    tags: list[str] = []
    begin = 0
    for number, fields in [*rows, (-1, [])]:
        if not fields or fields[0] == DOCUMENT:
            if tokens:
                yield TokenExample(tuple(tokens), tuple(tags), begin)
                tokens, tags = [], []
            continue
        if len(fields) != width or (width < 2 and check_type is not None):
            expected = f"{width} columns as in the first line" if width > 1 else "a word and its tag"
            problems.add(number, min(len(fields), width) + 1, f"expected {expected}, got {len(fields)}")
            continue
        token, tag = fields[word_at], fields[tag_at] if check_type is not None else OUTSIDE
        tag = f"I{tag[1:]}" if tag.startswith("M-") else tag
        sound = problems.check_text(token, number, word_at + 1, "word")
        if not is_tag(tag):
            problems.add(number, tag_at + 1, f"{shown(tag)} is no tag; write O, or B-, I-, E- or S- before a type")
        elif check_type is not None and tag != OUTSIDE and (problem := check_type(tag.partition("-")[2])[1]):
            problems.add(number, tag_at + 1, problem)
        elif sound:
            begin = begin if tokens else number
            tokens.append(token)
            tags.append(tag)


def _fields(line: str) -> list[str]:
    """The columns of a line, divided by tabs if it has any; none if it is blank."""
    fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
    return fields if any(fields) else []
