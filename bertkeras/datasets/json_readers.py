"""Labelled examples in JSON lines."""

from __future__ import annotations

import json
from typing import Any

from bertkeras.datasets.examples import Label, QuestionExample, TextExample, TokenExample
from bertkeras.datasets.labels import LabelChecker
from bertkeras.datasets.problems import Problems, decoded_lines, shown
from bertkeras.datasets.squad import check_string, checked_object, read_question, refuse_constant, why_not_json
from bertkeras.datasets.tables import NAMES, needs_pair
from bertkeras.errors import BertKerasError
from bertkeras.text.tags import OUTSIDE, Span, is_tag, tags_of
from bertkeras.text.words import word_spans


def read_json_lines(
    raw: bytes, task: str, columns: dict[str, str], check_label: LabelChecker | None, problems: Problems
) -> list[Any]:
    """One object a line; see `read_examples`."""
    examples: list[Any] = []
    names = {**NAMES, **columns}
    with_pair: bool | None = True if needs_pair(task, columns) else None
    ids: set[str] = set()
    for number, line in decoded_lines(raw, problems):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=checked_object, parse_constant=refuse_constant)
        except (RecursionError, ValueError) as error:
            column = error.colno if isinstance(error, json.JSONDecodeError) else 1
            problems.add(number, column, f"{why_not_json(error)}; write one object a line")
            continue
        example: TextExample | TokenExample | QuestionExample | None = None
        if not isinstance(record, dict):
            problems.add(number, 1, f"the line must be a JSON object, got {shown(record)}")
        elif task == "question-answering":
            example = read_question(record, str(number), number, 1, problems, check_label is not None, ids)
        elif task == "entities":
            example = _sentence(record, number, check_label, problems)
        else:
            if with_pair is None:  # the first line says what the others must have
                with_pair = names["pair"] in record
            if with_pair is False and names["pair"] in record:
                problems.add(number, 1, f"a key {names['pair']!r}, which the first line does not have")
            example = _text(record, task, names, with_pair, check_label, number, problems)
        examples += [] if example is None else [example]
    return examples


def _text(
    record: dict[str, Any],
    task: str,
    names: dict[str, str],
    with_pair: bool,
    check_label: LabelChecker | None,
    line: int,
    problems: Problems,
) -> TextExample | None:
    roles = ["text", "pair"] if with_pair else ["text"]
    sound = all([check_string(record, names[role], line, 1, problems) for role in roles])
    label: Label | None = None
    if check_label is not None and task != "generation":
        if names["label"] not in record:
            problems.add(line, 1, f"no key {names['label']!r}; the keys are {', '.join(record)[:100]}")
            return None
        label, problem = check_label(record[names["label"]])
        if label is None:
            problems.add(line, 1, problem)
            return None
    return (
        TextExample(record[names["text"]], record[names["pair"]] if with_pair else None, label, line) if sound else None
    )


def _sentence(
    record: dict[str, Any], line: int, check_type: LabelChecker | None, problems: Problems
) -> TokenExample | None:
    before = problems.count
    read = _tagged if "tokens" in record else _marked
    tokens, tags = read(record, line, check_type, problems)
    return TokenExample(tuple(tokens), tuple(tags), line) if problems.count == before else None


def _tagged(
    record: dict[str, Any], line: int, check_type: LabelChecker | None, problems: Problems
) -> tuple[list[str], list[str]]:
    """A sentence as a list of words and a list of tags."""
    tokens: Any = record["tokens"]
    tags: Any = record.get("tags")
    if not _are_strings(tokens) or not tokens:
        problems.add(line, 1, f"'tokens' must be a list of words, got {shown(tokens)}")
        return [], []
    for word in tokens:
        problems.check_text(word, line, 1, "word")
    if check_type is None:
        return tokens, [OUTSIDE] * len(tokens)
    if not _are_strings(tags) or len(tags) != len(tokens):
        problems.add(line, 1, f"'tags' must be a list of {len(tokens)} tags, one for each word, got {shown(tags)}")
        return [], []
    for tag in tags:
        if not is_tag(tag):
            problems.add(line, 1, f"{shown(tag)} is no tag; write O, or B-, I-, E- or S- before a type")
        elif tag != OUTSIDE and (problem := check_type(tag.partition("-")[2])[1]):
            problems.add(line, 1, problem)
    return tokens, tags


def _marked(
    record: dict[str, Any], line: int, check_type: LabelChecker | None, problems: Problems
) -> tuple[list[str], list[str]]:
    """A sentence as a text and the entities in it."""
    if not check_string(record, "text", line, 1, problems):
        return [], []
    text, words = record["text"], word_spans(record["text"])
    starts = {start: index for index, (start, _) in enumerate(words)}
    ends = {end: index + 1 for index, (_, end) in enumerate(words)}
    entities = record.get("entities") if check_type is not None else []
    if not isinstance(entities, list):
        problems.add(line, 1, "no list 'entities' of {\"start\", \"end\", \"type\"}, nor 'tokens' and 'tags'")
        return [], []
    if not words:
        problems.add(line, 1, "there is no word in 'text'")
    spans = []
    for entity in entities:
        found: list[Any] = [entity.get(key) if isinstance(entity, dict) else None for key in ("start", "end", "type")]
        start, end, type = found
        if not _is_whole(start) or not _is_whole(end) or not isinstance(type, str):
            problems.add(line, 1, f"an entity needs whole numbers start and end, and a type; got {shown(entity)}")
        elif not 0 <= start < end <= len(text):
            problems.add(line, 1, f"the entity {start}..{end} leaves the text of {len(text)} characters")
        elif start not in starts or end not in ends:
            problems.add(
                line, 1, f"the entity {shown(text[start:end])} at {start} does not begin and end where words do"
            )
        elif check_type is not None and (problem := check_type(type)[1]):
            problems.add(line, 1, problem)
        else:
            spans.append(Span(starts[start], ends[end], type.strip()))
    try:
        tags = tags_of(spans, len(words))
    except BertKerasError as error:
        problems.add(line, 1, str(error))
        return [], []
    return [text[start:end] for start, end in words], tags


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
