"""Questions about texts, and the spans that answer them: SQuAD's JSON."""

from __future__ import annotations

import bisect
import json
import json.decoder
import json.scanner
import logging
import math
import re
from collections.abc import Iterator
from typing import Any

from bertkeras.datasets.examples import Answer, QuestionExample
from bertkeras.datasets.problems import Problems, decoded_lines, shown

logger = logging.getLogger("bertkeras")


class RefusedError(ValueError):
    """What the `json` module would accept, and should not."""


def checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its keys and values, no key of which stands twice."""
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RefusedError(f"the key {shown(twice)} stands twice in an object")
    return record


def refuse_constant(name: str) -> Any:
    """For `NaN` and the infinities, which JSON does not know."""
    raise RefusedError(f"{name} is no number of JSON")


def why_not_json(error: Exception) -> str:
    """What to say of text that `json` cannot read, or should not."""
    if isinstance(error, RefusedError):
        return f"not JSON: {error}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg.removesuffix(' at').removesuffix(' starting')}"
    return "not JSON that can be read: it is nested too deeply, or a number has too many digits"


class _Placed(dict[str, Any]):
    """A JSON object that knows at which character it begins."""

    at: int


class _PlacingDecoder(json.JSONDecoder):
    def __init__(self) -> None:
        super().__init__(parse_constant=refuse_constant)
        self.parse_object = self._parse_object  # type: ignore[assignment]
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]

    @staticmethod
    def _parse_object(text_and_end: tuple[str, int], *arguments: Any) -> tuple[_Placed, int]:
        strict, scan_once, _, _, *memo = arguments
        try:
            value, end = json.decoder.JSONObject(text_and_end, strict, scan_once, None, checked_object, *memo)  # type: ignore[attr-defined]
        except RefusedError as error:
            raise json.JSONDecodeError(str(error), text_and_end[0], text_and_end[1] - 1) from error
        placed = _Placed(value)
        placed.at = text_and_end[1] - 1
        return placed, end


def read_squad(
    raw: bytes, problems: Problems, labelled: bool = True, *, leave_out: bool = False
) -> list[QuestionExample]:
    """The questions of a file in the format of SQuAD 1.1 or 2.0; `is_impossible` questions have no answers.

    Args:
        raw: The file.
        problems: Takes what is wrong.
        labelled: Whether answers are read.
        leave_out: Whether answers are left out that are not where they say, as in CMRC 2018, and then questions that
            have no other answer or are blank; the log says how many. Otherwise they are problems.
    """
    text = "\n".join(line for _, line in decoded_lines(raw, problems, longest=math.inf))
    problems.raise_any()
    try:
        content = _PlacingDecoder().decode(text)
    except json.JSONDecodeError as error:
        problems.add(error.lineno, error.colno, why_not_json(error))
        return []
    except (RecursionError, ValueError) as error:
        problems.add(1, 1, why_not_json(error))
        return []

    line_ends = [match.start() for match in re.finditer("\n", text)]

    def place(record: Any, otherwise: tuple[int, int] = (1, 1)) -> tuple[int, int]:
        if not isinstance(record, _Placed):
            return otherwise
        line = bisect.bisect_left(line_ends, record.at)
        return line + 1, record.at - (line_ends[line - 1] if line else -1)

    def items(record: Any, key: str, at: tuple[int, int]) -> Iterator[tuple[Any, tuple[int, int]]]:
        found = record.get(key) if isinstance(record, dict) else None
        if not isinstance(found, list):
            problems.add(*at, f"an object with a list {key!r} must stand here; is this SQuAD's format?")
            return
        for item in found:
            yield item, place(item, at)

    examples: list[QuestionExample] = []
    seen: set[str] = set()
    lost_answers = lost_questions = 0
    for article, article_at in items(content, "data", place(content)):
        for paragraph, paragraph_at in items(article, "paragraphs", article_at):
            for question, at in items(paragraph, "qas", paragraph_at):
                if not isinstance(question, dict):
                    problems.add(*at, f"a question must be an object, got {shown(question)}")
                    continue
                if "id" not in question:
                    problems.add(*at, f"no key 'id'; the keys are {', '.join(question)[:100]}")
                    continue
                record = {**question, "context": paragraph.get("context")}
                if leave_out and isinstance(answers := record.get("answers"), list):
                    record["answers"] = [answer for answer in answers if _is_in_place(answer, record["context"])]
                    lost_answers += len(answers) - len(record["answers"])
                    if (answers and not record["answers"]) or record.get("question") == "":
                        lost_questions += 1
                        continue
                example = read_question(record, "", *at, problems, labelled, seen)
                examples += [] if example is None else [example]
    if lost_answers or lost_questions:
        logger.warning(
            "%s: left out %d answers that are not where they say, and %d questions that are blank or have no other",
            problems.path,
            lost_answers,
            lost_questions,
        )
    return examples


def _is_in_place(answer: Any, context: Any) -> bool:
    text, start = (answer.get(key) if isinstance(answer, dict) else None for key in ("text", "answer_start"))
    if not isinstance(text, str) or not isinstance(start, int) or not isinstance(context, str):
        return True  # wrong in another way, which is to be told
    return start >= 0 and context.startswith(text, start)


def read_question(
    record: dict[str, Any], id: str, line: int, column: int, problems: Problems, labelled: bool, seen: set[str]
) -> QuestionExample | None:
    """A question from an object with `question`, `context`, `answers` and perhaps `id` and `is_impossible`.

    Args:
        record: The object.
        id: For a question that has none.
        line: Where the object stands.
        column: Where the object stands.
        problems: Takes what is wrong.
        labelled: Whether answers are read.
        seen: The ids of the questions before; this one's is added.
    """
    before = problems.count
    for key in ("question", "context"):
        check_string(record, key, line, column, problems)
    id = record.get("id", id)
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str):
        problems.add(line, column, f"an 'id' must be a name or a whole number, got {shown(id)}")
    elif problems.check_text(id, line, column, "id") and id in seen:
        problems.add(line, column, f"the id {shown(id)} stands at another question too")
    else:
        seen.add(id)
    answers = _answers(record, line, column, problems) if labelled else []
    if problems.count > before:
        return None
    return QuestionExample(id, record["question"], record["context"], tuple(answers), line)


def _answers(record: dict[str, Any], line: int, column: int, problems: Problems) -> list[Answer]:
    context, found, is_impossible = record.get("context"), record.get("answers"), record.get("is_impossible")
    if is_impossible is True and found is None:
        found = []
    if not isinstance(found, list):
        problems.add(line, column, 'no list "answers" of {"text", "answer_start"}, which is empty if there is none')
        return []
    if is_impossible is not None and is_impossible is not (not found):
        problems.add(line, column, f"is_impossible is {shown(is_impossible)}, but there are {len(found)} answers")
    answers = []
    for answer in found:
        text, start = (answer.get(key) if isinstance(answer, dict) else None for key in ("text", "answer_start"))
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int) or isinstance(start, bool):
            problems.add(line, column, f"an answer needs a text and a whole number answer_start, got {shown(answer)}")
        elif isinstance(context, str) and (start < 0 or context[start : start + len(text)] != text):
            there = context[start : start + len(text)] if start >= 0 else ""
            problems.add(line, column, f"the answer {shown(text)} is not at {start}: there stands {shown(there)}")
        else:
            answers.append(Answer(text, start))
    return answers


def check_string(record: dict[str, Any], key: str, line: int, column: int, problems: Problems) -> bool:
    """Whether an object has a text under a key; if not, it is a problem."""
    if key not in record:
        problems.add(line, column, f"no key {key!r}; the keys are {', '.join(record)[:100]}")
    elif not isinstance(record[key], str):
        problems.add(line, column, f"{key!r} must be a text, got {shown(record[key])}")
    else:
        return problems.check_text(record[key], line, column, key)
    return False
