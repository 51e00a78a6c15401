"""One labelled example of each kind of task."""

from __future__ import annotations

from dataclasses import dataclass, field

Label = str | float | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextExample:
    """A text, or a pair of texts, and what it is labelled with.

    Args:
        text: The text.
        pair: The second text of a pair.
        label: A name; for several labels a tuple of names, perhaps empty; for regression a number; `None` if unknown.
        line: Where it stands in its file, counted from 1.
    """

    text: str
    pair: str | None = None
    label: Label | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class TokenExample:
    """A sentence in words, and a tag for each: `O`, or `B-`, `I-`, `E-`, `S-` with a type."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A span of a context: `context[start : start + len(text)] == text`, in characters."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class QuestionExample:
    """A question about a text, and the spans that answer it; no span means that the text does not say."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    line: int = field(default=0, compare=False)


Example = TextExample | TokenExample | QuestionExample
