"""Entities as spans of words, and the same as one tag per word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bertkeras.errors import BertKerasError

SCHEMES = ("io", "bio", "bioes")
OUTSIDE = "O"


class Span(NamedTuple):
    """Words `start` to `end`, the last one not included, and what they name."""

    start: int
    end: int
    type: str


def tag_names(types: Iterable[str], scheme: str = "bio") -> list[str]:
    """All tags of a scheme: `O`, then for each type in order `B-type`, `I-type` and so on.

    `io` has `I-` alone, so that two neighbours of one type become one; `bio` marks the first word of every entity with
    `B-`; `bioes` marks the last one with `E-` and a single word with `S-` as well.

    >>> from bertkeras.text.tags import tag_names
    >>> tag_names(["place"], "bioes")
    ['O', 'B-place', 'I-place', 'E-place', 'S-place']
    """
    prefixes = {"io": "I", "bio": "BI", "bioes": "BIES"}[_checked_scheme(scheme)]
    return [OUTSIDE, *(f"{prefix}-{type}" for type in types for prefix in prefixes)]


def tags_of(spans: Iterable[Span], length: int, scheme: str = "bio") -> list[str]:
    """One tag for each of `length` words.

    Raises:
        BertKerasError: A span that is empty, leaves the text or overlaps with another.
    """
    _checked_scheme(scheme)
    tags = [OUTSIDE] * length
    for start, end, type in spans:
        if not 0 <= start < end <= length or any(tag != OUTSIDE for tag in tags[start:end]):
            raise BertKerasError(f"the span {start}..{end} ({type}) overlaps another or does not fit {length} words")
        marks = ["I"] * (end - start)
        if scheme != "io":
            marks[0] = "B"
        if scheme == "bioes":
            marks[-1] = "E" if end - start > 1 else "S"
        tags[start:end] = [f"{mark}-{type}" for mark in marks]
    return tags


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The entities that tags of any scheme mark, read as the evaluation script of CoNLL 2000 does.

    What no scheme allows still means something: `I-` after `O` or after another type begins an entity.

    >>> from bertkeras.text.tags import spans_of
    >>> spans_of(["B-place", "I-place", "O", "I-person"])
    [Span(start=0, end=2, type='place'), Span(start=3, end=4, type='person')]
    """
    spans, start, open_type = [], 0, ""
    previous = OUTSIDE
    for index, tag in enumerate([*tags, OUTSIDE]):
        mark, _, type = tag.partition("-")
        begins = mark in ("B", "S") or (mark != OUTSIDE and (type != open_type or previous in ("E", "S")))
        if open_type and (begins or mark == OUTSIDE):
            spans.append(Span(start, index, open_type))
            open_type = ""
        if begins:
            start, open_type = index, type
        previous = mark
    return spans


def is_tag(tag: str) -> bool:
    """Whether it is `O`, or one of `B-`, `I-`, `E-`, `S-` with a type behind it."""
    mark, _, type = tag.partition("-")
    return tag == OUTSIDE or (mark in ("B", "I", "E", "S") and bool(type))


def forbidden_pairs(tags: Sequence[str]) -> list[tuple[int, int]]:
    """The steps that the scheme of `tags` does not allow, for `CRF(forbidden=...)`.

    An entity goes on only in its own type, and in a scheme with `E-` and `S-` it must be ended. -1 stands for the
    beginning of the sentence in the first place and for its end in the second.
    """
    with_ends = any(tag.startswith(("E-", "S-")) for tag in tags)
    with_begins = any(tag.startswith("B-") for tag in tags)

    def allowed(before: str, after: str) -> bool:
        (mark, _, type), (next_mark, _, next_type) = before.partition("-"), after.partition("-")
        is_open = mark in ("B", "I") and with_ends  # must go on
        goes_on = next_mark in ("I", "E") and with_begins  # must follow
        if not is_open and not goes_on:
            return True
        can_go_on = mark in ("B", "I") and next_mark in ("I", "E") and type == next_type
        return can_go_on

    names = [*tags, OUTSIDE]  # the last stands for the beginning or the end
    numbers = [*range(len(tags)), -1]
    return [
        (numbers[i], numbers[j])
        for i, before in enumerate(names)
        for j, after in enumerate(names)
        if not allowed(before, after)
    ]


def _checked_scheme(scheme: str) -> str:
    if scheme not in SCHEMES:
        raise BertKerasError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    return scheme
