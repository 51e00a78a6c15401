"""Where a sentence ends, in English and Chinese."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# After a full stop these words were shortened, and what comes after decides whether a sentence ended as well.
# Titles and "e.g.": never an end, something always follows.
ALWAYS_GO_ON = _words(
    "mr mrs ms dr prof rev hon jr messrs mme mlle capt lt sgt cmdr adm gov st mt"
    " e.g i.e eg ie cf vs viz approx resp al ca"
)
# Not an end when a number follows: "Fig. 3", "No. 5", "pp. 10-12".
GO_ON_TO_NUMBER = _words("no nos fig figs eq eqs sec secs sect ch chap p pp vol vols art tab ref refs ver")
# "etc.", "Inc.", "5 p.m.", "Jan.": an end when the next word is one that begins sentences.
MAY_END = _words("etc inc ltd co corp bros dept univ est ave blvd rd jan feb apr aug sept oct nov dec ph.d sen rep gen")
_ABBREVIATIONS = ALWAYS_GO_ON | GO_ON_TO_NUMBER | MAY_END
STARTERS = _words(
    "a after all also although an and as at because before both but by during each even every finally first for from he"
    " her here his how however i if in into is it its many meanwhile more most my no not now of on once one only or"
    " other our over she since so some such that the their then there therefore these they this those though through"
    " thus to two under unlike until we what when where whether which while who why with yes yet you your"
)

_CLOSERS = "\"'”’)\\]}»›」』）】》〉〕"
_OPENERS = "\"'“‘([{«‹「『（【《〈〔*_`"
_CHINESE_MARKS = frozenset("。！？；｡")
_END = re.compile(rf"(?P<marks>[.!?…。！？；｡]++)(?P<closers>[{_CLOSERS}]*+)")
_IDEOGRAPH = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LAST_WORD = re.compile(r"(?<![\w.])(?:\w+\.)*\w+\Z")
_NEXT_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"[A-Z]?\d|[IVX]{2,}\b")


def split_sentences(text: str) -> list[str]:
    """Split English and Chinese text into sentences.

    A line break always ends a sentence. Otherwise one ends at `.`, `!`, `?` or an ellipsis, with the quotation marks
    and brackets that close after it, when white space follows and the mark does not belong to an abbreviation, an
    initial or a list number; and at `。！？；` and `……` even without white space. Nothing is lost: the sentences,
    joined, are the text but for white space.

    Args:
        text: Any text.

    Returns:
        The sentences, stripped of surrounding white space, none empty.

    Example:

    >>> split_sentences("Dr. Li wrote v2.1 (see Fig. 3). It works! 很好。真的？")
    ['Dr. Li wrote v2.1 (see Fig. 3).', 'It works!', '很好。', '真的？']
    """
    return [sentence for line in text.splitlines() for sentence in _split_line(line)]


def _split_line(line: str) -> list[str]:
    sentences = []
    start = 0
    for match in _END.finditer(line):
        end = _end_of_sentence(line, start, match)
        if end is not None:
            sentences.append(line[start:end])
            start = end
    sentences.append(line[start:])
    return [stripped for sentence in sentences if (stripped := sentence.strip())]


def _end_of_sentence(line: str, start: int, match: re.Match[str]) -> int | None:
    """Where the sentence that began at `start` ends, if it ends at this mark."""
    marks, closers = match.groups()
    end = match.end()
    followed_by_space = end == len(line) or line[end].isspace()
    if marks == ".":
        if not followed_by_space:
            return None
        before = line[max(start, match.start() - 40) : match.start()]
        if _is_word(before.rpartition(" ")[2]):
            return end  # nearly always
        return None if _is_shortened(before, _text_after(line, end), bool(closers)) else end
    if not _CHINESE_MARKS.isdisjoint(marks) or "……" in marks:
        if not followed_by_space and closers[-1:] in ('"', "'"):
            # A straight quote looks the same on both sides; it closes only what this sentence has opened.
            end -= line[start:end].count(closers[-1]) % 2
        return end
    if not followed_by_space:
        is_chinese = marks[-1] in "!?" and _IDEOGRAPH.match(line, end)
        return end if is_chinese else None
    # "'Why?' he asked", "wait ... what": what goes on in small letters is still the same sentence.
    return None if _text_after(line, end)[:1].islower() else end


def _is_word(text: str) -> bool:
    """Whether this is a plain word, after which a full stop never stands for anything else."""
    return text.isalpha() and len(text) > 1 and text.lower() not in _ABBREVIATIONS


def _text_after(line: str, end: int) -> str:
    return line[end : end + 40].lstrip().lstrip(_OPENERS)


def _is_shortened(before: str, after: str, is_closed: bool) -> bool:
    """Whether the full stop after `before` only shortens its last word."""
    found = _LAST_WORD.search(before)
    if not found:
        return False
    word = found[0].lower()
    if word in ALWAYS_GO_ON:
        return True
    if word in GO_ON_TO_NUMBER:
        return _NUMBER.match(after) is not None
    if re.fullmatch(r"\d{1,3}", word) and not is_closed and not before[: found.start()].strip(_OPENERS + " \t"):
        return True  # the number of a list item: "1. Install it."
    is_initial = len(word) == 1 and found[0].isupper()
    is_dotted = re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", word) is not None  # "U.S", "a.m"
    if is_initial or is_dotted or word in MAY_END:
        following = _NEXT_WORD.match(after)
        if following is None:
            return after[:1].isdigit()  # "Jan. 5"
        return following[0].islower() or following[0].lower() not in STARTERS
    return False
