"""The English prose in a docstring."""

from __future__ import annotations

import inspect
import re

# Section names stand before lists and examples; they are no sentences.
_HEADER = re.compile(r"[A-Z][\w-]*(?: [\w/()'-]+){0,2}:{1,2}")
_UNDERLINE = re.compile(r"([=\-~^*#+`\"'_.:])\1{2,}")
_TABLE_RULE = re.compile(r"[=\-+|:]{2,}( +[=\-+|:]{2,})+|\+[-=+]+\+|\|.*\|")
_DIRECTIVE = re.compile(r"\.\.\s+([\w:-]+?)::\s*(.*)")
_SPOKEN_DIRECTIVES = frozenset({"note", "warning", "tip", "important", "caution", "attention", "hint"})
_FIELD = re.compile(r":\w+(?: [^:]*)?:(?=\s|$)\s*")
_BULLET = re.compile(r"(?:[-*+•]|\(?\d{1,2}[.)]|#\.)\s+")
_ENTRY = re.compile(r"[`'\"*]{0,3}[A-Za-z_][\w.*]*[`'\"]{0,2}(?:, [`*\w]+)*(?: \([^)]*\))?: +(?=\S)")
_TYPE_LINE = re.compile(r"[`*]{0,2}[A-Za-z_][\w.*, `]* : \S.*")  # NumPy's "x : array_like, optional"
_MARKUP = (
    (re.compile(r":[\w:+.-]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`"), r"\1"),  # :class:`~a.B`
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),  # `text <address>`_
    (re.compile(r"!?\[([^\]]+)\]\([^)]*\)"), r"\1"),  # [text](address)
    (re.compile(r"\[[^\]\s]*\]_"), ""),  # [1]_
    (re.compile(r"``([^`]+)``|`([^`]+)`_{0,2}"), r"\1\2"),
    (re.compile(r"\*\*(\S(?:[^*]*\S)?)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*(\w(?:[^*]*\w)?)\*(?![\w*])"), r"\1"),
)
_MARKS = frozenset("`*[")
_PLAIN_WORD = re.compile(r"[(\"']*(?:[AaI]|[A-Za-z][A-Za-z'’-]+)[)\"']*[.,;:!?]*[)\"']*")
MIN_WORDS = 4
MIN_PLAIN_SHARE = 0.6


def prose_of(docstring: str) -> list[str]:
    """The paragraphs of a docstring that are English prose.

    Dropped: doctests with their output, code blocks (fenced, after `::`, or text of which too little is words), tables,
    directives other than notes and warnings, headings and section names such as `Args:`, type lines, and the marks of
    inline markup. Wrapped lines are joined; a list item or the entry of one argument is a paragraph of its own.

    Args:
        docstring: As `ast.get_docstring` gives it.

    Returns:
        The paragraphs, each on one line.

    Example:

    >>> prose_of("Adds two numbers\\ntogether.\\n\\nArgs:\\n    a: The first of the two.\\n\\n>>> add(1, 2)\\n3")
    ['Adds two numbers together.', 'a: The first of the two.']
    """
    paragraphs = []
    for lines in _paragraphs(_without_blocks(inspect.cleandoc(docstring).split("\n"))):
        text = " ".join(lines)
        if not _MARKS.isdisjoint(text):
            for pattern, replacement in _MARKUP:
                text = pattern.sub(replacement, text)
        text = " ".join(text.split())
        if _is_prose(text):
            paragraphs.append(text)
    return paragraphs


def _is_prose(text: str) -> bool:
    words = text.split()
    plain = sum(_PLAIN_WORD.fullmatch(word) is not None for word in words)
    return plain >= MIN_WORDS and plain >= MIN_PLAIN_SHARE * len(words)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_blocks(lines: list[str]) -> list[str]:
    """Code, examples, tables, directives and headings replaced by blank lines."""
    kept: list[str] = []
    index = 0

    def skip_while_deeper(indent: int) -> None:
        nonlocal index
        while index < len(lines) and (not lines[index].strip() or _indent(lines[index]) > indent):
            index += 1

    def skip_to_blank() -> None:
        nonlocal index
        while index < len(lines) and lines[index].strip():
            index += 1

    while index < len(lines):
        line = lines[index].rstrip()
        text = line.lstrip()
        index += 1
        if text.startswith((">>>", "In [")) or _TABLE_RULE.fullmatch(text):
            skip_to_blank()
            kept.append("")
        elif text.startswith(("```", "~~~")):
            while index < len(lines) and not lines[index].lstrip().startswith(text[:3]):
                index += 1
            index += 1
            kept.append("")
        elif directive := _DIRECTIVE.match(text):
            if directive[1].lower() in _SPOKEN_DIRECTIVES:
                kept += ["", " " * _indent(line) + directive[2]]
            else:
                skip_while_deeper(_indent(line))
                kept.append("")
        elif text.startswith(".. "):
            skip_while_deeper(_indent(line))
            kept.append("")
        elif _UNDERLINE.fullmatch(text):
            if kept:
                kept[-1] = ""
        elif text.endswith("::"):
            skip_while_deeper(_indent(line))
            kept += ["" if _HEADER.fullmatch(text) else line[:-1], ""]
        elif _HEADER.fullmatch(text) or _TYPE_LINE.fullmatch(text) or text.startswith("#"):
            kept.append("")
        else:
            kept.append(line)
    return kept


def _paragraphs(lines: list[str]) -> list[list[str]]:
    """Lines that belong together, list marks taken away."""
    paragraphs: list[list[str]] = []
    last_indent: int | None = None  # of the line before; None at the beginning of a paragraph
    for line in lines:
        text = line.strip()
        if not text:
            last_indent = None
            continue
        mark = _BULLET.match(text) or _FIELD.match(text)
        if last_indent is None or mark or _indent(line) < last_indent or _ENTRY.match(text):
            paragraphs.append([])
        paragraphs[-1].append(text[mark.end() :] if mark else text)
        last_indent = _indent(line)
    return paragraphs
