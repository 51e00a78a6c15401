"""What is wrong with a file: the first problem with its place, and up to ten more."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterator
from typing import Any

from bertkeras.errors import BertKerasError

SHOWN = 11
LONGEST_TEXT = 1_000_000  # characters of one text; a longer one is a file that went wrong
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NO_TEXT = re.compile("[\0\ud800-\udfff]")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 2


def shown(value: Any) -> str:
    """How a value of any size stands in a message."""
    return _short.repr(value)


class Problems:
    """Collects the problems of one file.

    Args:
        path: The file, named in the message.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.lines: list[str] = []
        self.count = 0

    def add(self, line: int, column: int, what: str) -> None:
        """Note a problem at a line and a column, both counted from 1."""
        self.count += 1
        if len(self.lines) < SHOWN:
            what = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in what)
            self.lines.append(f"{self.path}, line {line}, column {column}: {what}")

    def raise_any(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            BertKerasError: One line for each of the first problems, and how many more there are.
        """
        if self.count:
            more = [f"and {self.count - SHOWN:,} more problems in {self.path}"] if self.count > SHOWN else []
            raise BertKerasError("\n".join([*self.lines, *more]))

    def check_text(self, text: str, line: int, column: int, what: str) -> bool:
        """Whether a text has something in it, can be written as UTF-8, and has a sensible length."""
        if not text.strip():
            self.add(line, column, f"the {what} is empty")
        elif len(text) > LONGEST_TEXT:
            self.add(line, column, f"the {what} has {len(text):,} characters, more than {LONGEST_TEXT:,}; cut it")
        elif NO_TEXT.search(text):
            self.add(line, column, f"the {what} holds a character that is no text: a lone surrogate or NUL")
        else:
            return True
        return False


def decoded_lines(raw: bytes, problems: Problems, longest: float = LONGEST_TEXT) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, without line ends; one that is no text is a problem and left out."""
    for number, line in enumerate(raw.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        try:
            text = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            column = len(line[: error.start].decode("utf-8")) + 1
            problems.add(number, column, f"byte {line[error.start]:#04x} is not UTF-8; save the file as UTF-8")
            continue
        if "\0" in text:
            problems.add(number, text.index("\0") + 1, "a NUL character; save the file as UTF-8 text")
        elif len(text) > longest:
            problems.add(
                number, 1, f"{len(text):,} characters in a line, more than {longest:,}; is this the right file?"
            )
        else:
            yield number, text
