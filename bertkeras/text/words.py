"""Where the words of a text stand."""

from __future__ import annotations

import functools
import re
import unicodedata
from itertools import chain

# Chinese characters: those that BERT sets apart (google-research/bert, tokenization.py), and what Unicode put between
CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"


@functools.cache
def _word() -> re.Pattern[str]:
    format = _of_category("Cf")  # signs without width, such as joiners
    marks = "".join(_of_category("M") + format).replace("\u200b", "")  # the space without width ends a word
    letter = rf"(?![{CJK}])\w"
    genitive = r"['’]s\b"
    # A Chinese character; an English genitive; letters and digits with signs inside, as in U.N or o'clock; one sign
    return re.compile(
        rf"[{CJK}][{marks}]*|{genitive}"
        rf"|{letter}(?:{letter}|[{marks}])*(?:(?!{genitive})[.,&/'’\-](?:{letter}|[{marks}])+)*"
        rf"|[^\w\s{''.join(format)}][{marks}]*",
        re.IGNORECASE,
    )


def _of_category(category: str) -> list[str]:
    planes = chain(range(0x20000), range(0xE0000, 0xE0200))  # no mark stands elsewhere
    return [chr(code) for code in planes if unicodedata.category(chr(code)).startswith(category)]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Begin and end, in characters, of every word, Chinese character and punctuation mark, as taggers count them.

    Accents and other marks that are characters of their own, and signs without width such as joiners, belong to what
    they follow.

    >>> from bertkeras.text.words import word_spans
    >>> text = "Ghana's e-mail: 3.5 元"
    >>> [text[start:end] for start, end in word_spans(text)]
    ['Ghana', "'s", 'e-mail', ':', '3.5', '元']
    """
    return [match.span() for match in _word().finditer(text)]
