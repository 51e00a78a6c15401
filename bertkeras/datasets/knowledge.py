"""Knowledge from outside a model: what the names in a text stand for."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertkeras.datasets.problems import Problems
from bertkeras.datasets.readers import file_bytes
from bertkeras.datasets.tables import tsv_rows
from bertkeras.datasets.triples import read_n_triples
from bertkeras.errors import BertKerasError
from bertkeras.text.words import CJK, word_spans

TYPE_RELATIONS = ("type", "is a", "instance of")
ALIAS_RELATIONS = ("alias", "also known as")
HEADERS = (["name", "type"], ["subject", "relation", "object"])
LONGEST_NAME = 500  # characters; what is longer is a text in the wrong column
LONGEST_ACRONYM = 5

_PART = re.compile(r"[.,&/'’\-]|[^.,&/'’\-]+")  # words go apart at the signs inside: London-based holds London
_WIDE = re.compile(f"[{CJK}\u3000-\u303f\uff00-\uffef]")


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in a text.

    Args:
        text: As the text writes it, `text[start:end]`.
        start: Where it begins, in characters.
        end: Where it ends.
        names: What it may stand for: one thing, or several that are called alike.
        types: Of all of them, each once.
    """

    text: str
    start: int
    end: int
    names: tuple[str, ...]
    types: tuple[str, ...]


class Knowledge:
    """A gazetteer (names and their types), a graph of facts, or both.

    A name is found as whole words, whatever their case; between Chinese characters, which are words each, at any
    place. Where names differ only by their case, one written as in the text goes before the others. A single word of
    up to five capitals, such as US or WHO, is found only as it is written.

    Args:
        entries: `(name, type)` or `(subject, relation, object)`. The relations `type`, `is a` and `instance of` say
            what the subject is; `alias` and `also known as` give it another name; any other should read as a sentence
            between its two sides, such as `is the capital of`. A subject has any number of each.

    Raises:
        BertKerasError: An entry that is neither, or has an empty part.

    Example:

    >>> from bertkeras import Knowledge
    >>> knowledge = Knowledge([("Ada Lovelace", "person"), ("Ada Lovelace", "is born in", "London"), ("北京", "城市")])
    >>> knowledge.facts("A letter to ada lovelace's mother")
    ['Ada Lovelace: person.', 'Ada Lovelace is born in London.']
    >>> [(found.text, found.start, found.types) for found in knowledge.find("他在北京大学")]
    [('北京', 2, ('城市',))]
    """

    def __init__(self, entries: Iterable[Sequence[str]] = ()) -> None:
        # dictionaries without values: sets that keep their order
        self._types: dict[str, dict[str, None]] = {}
        self._facts: dict[str, dict[tuple[str, str], None]] = {}
        self._names: dict[tuple[str, ...], dict[tuple[str, str], None]] = {}  # folded words: spellings and names
        self._lengths: dict[str, list[int]] = {}  # how many words names have that begin with a word; longest first
        for number, entry in enumerate(entries):
            if isinstance(entry, str) or len(entry) not in (2, 3) or not all(isinstance(part, str) for part in entry):
                raise BertKerasError(
                    f"entry {number} must be (name, type) or (subject, relation, object), strings; got {entry!r}"
                )
            if problem := self._add(entry):
                raise BertKerasError(f"entry {number}, column {problem[0]}: {problem[1]}")

    @classmethod
    def read(cls, path: str | os.PathLike[str], language: str | None = None) -> Knowledge:
        """Read a file, whole or not at all; all text is UTF-8, and `.gz` at the end of its name is unpacked.

        - In TSV a line has two fields, `name` and `type`, or three, `subject`, `relation` and `object`. A first line
          that consists of these words is a header. There are no quotes.
        - In N-Triples (`.nt`) a subject is called by its `rdfs:label` or `skos:prefLabel`, any further ones and
          `skos:altLabel` are aliases, and one without a label is called by the end of its address; relations and types
          likewise. Blank nodes are not read.

        Args:
            path: The file; a name that does not end in `.nt` or `.nt.gz` is TSV.
            language: Of N-Triples, leave out text that is marked as of another language, such as `"en"` for `@de`.

        Raises:
            BertKerasError: No such file, or problems in it with line and column, a line each. In TSV a column is the
                number of the field, in N-Triples that of the character.
        """
        path = Path(path)
        problems = Problems(path)
        raw, knowledge = file_bytes(path), cls()
        is_triples = path.name.lower().removesuffix(".gz").endswith(".nt")
        rows = read_n_triples(raw, problems, language) if is_triples else _table(raw, problems)
        for line, entry in rows:
            if problem := knowledge._add(entry):
                column, what = problem
                problems.add(line, 1 if is_triples else column, what)
        if not knowledge._names and not problems.count:
            problems.add(1, 1, "there is no entry in the file")
        problems.raise_any()
        return knowledge

    def _add(self, entry: Sequence[str]) -> tuple[int, str] | None:
        """Take an entry, or give the field that is wrong, counted from 1, and what is wrong with it."""
        parts = [" ".join(part.split()) for part in entry]
        for column, (part, what) in enumerate(zip(parts, HEADERS[len(parts) - 2], strict=True), 1):
            if not part:
                return column, f"the {what} is empty"
        name, relation, value = parts if len(parts) == 3 else (parts[0], TYPE_RELATIONS[0], parts[1])
        is_alias = relation.casefold() in ALIAS_RELATIONS
        new = [(1, name)] if name not in self._types else []
        found = []
        for column, called in [*new, (3, value)] if is_alias else new:
            words = tuple(word for _, _, word in words_of(called[: LONGEST_NAME + 1]))
            if len(called) > LONGEST_NAME:
                return column, f"a name of {len(called):,} characters, more than {LONGEST_NAME}; is it a text?"
            if not words:
                return column, f"the name {called!r} has no sign that can be seen"
            found.append((called, words))
        types = self._types.setdefault(name, {})
        for called, words in found:
            self._names.setdefault(words, {})[called, name] = None
            lengths = self._lengths.setdefault(words[0], [])
            if len(words) not in lengths:
                lengths.append(len(words))
                lengths.sort(reverse=True)
        if relation.casefold() in TYPE_RELATIONS:
            types[value] = None
        elif not is_alias:
            self._facts.setdefault(name, {})[relation, value] = None
        return None

    def __len__(self) -> int:
        """How many things are named."""
        return len(self._types)

    def __repr__(self) -> str:
        return f"Knowledge({len(self):,} names, {sum(map(len, self._facts.values())):,} facts)"

    @property
    def known_types(self) -> set[str]:
        """Every type that something has."""
        return {type for types in self._types.values() for type in types}

    def find(self, text: str) -> list[Mention]:
        """The names in a text, from left to right: at each place the longest, and none within another."""
        if not isinstance(text, str):
            raise BertKerasError(f"text must be a str, got {type(text).__name__}")
        words = words_of(text)
        found, place = [], 0
        while place < len(words):
            mention = self._longest(text, words, place)
            if mention is None:
                place += 1
                continue
            found.append(mention)
            while place < len(words) and words[place][0] < mention.end:
                place += 1
        return found

    def _longest(self, text: str, words: list[tuple[int, int, str]], place: int) -> Mention | None:
        for length in self._lengths.get(words[place][2], ()):
            key = tuple(word for _, _, word in words[place : place + length])
            if len(key) == length and key in self._names:
                start, end = words[place][0], words[place + length - 1][1]
                names = _named(text[start:end], self._names[key])
                if names:
                    types = dict.fromkeys(type for name in names for type in self._types[name])
                    return Mention(text[start:end], start, end, names, tuple(types))
        return None

    def types(self, text: str) -> list[str]:
        """The types of what a text names, each once."""
        return list(dict.fromkeys(type for mention in self.find(text) for type in mention.types))

    def facts(self, text: str) -> list[str]:
        """What is known of what a text names, as short sentences, each once: first the types, then the facts."""
        sentences: dict[str, None] = {}
        for name in dict.fromkeys(name for mention in self.find(text) for name in mention.names):
            if types := list(self._types[name]):
                colon, comma = ("：", "、") if _WIDE.match(name[-1]) else (": ", ", ")
                sentences[_ended(f"{name}{colon}{comma.join(types)}")] = None
            for relation, value in self._facts.get(name, ()):
                sentences[_ended(_joined(_joined(name, relation), value))] = None
        return list(sentences)


def words_of(text: str) -> list[tuple[int, int, str]]:
    """Begin, end and folded form of every word, sign and Chinese character."""
    found = []
    for begin, end in word_spans(text):
        word = text[begin:end]
        if word.isalnum():
            found.append((begin, end, _folded(word)))
        else:
            found += [(begin + part.start(), begin + part.end(), _folded(part[0])) for part in _PART.finditer(word)]
    return found


def _folded(word: str) -> str:
    if word.isascii():
        return word.lower()
    signs = unicodedata.normalize("NFKC", word).replace("’", "'").casefold()
    return "".join(sign for sign in signs if unicodedata.category(sign) != "Cf")


def _named(written: str, candidates: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Names of what is called as written; if there is none, of what is in another case."""
    alike = [(called, name) for called, name in candidates if called == written or not _is_acronym(called)]
    exact = [pair for pair in alike if pair[0] == written]
    return tuple(dict.fromkeys(name for _, name in exact or alike))


def _is_acronym(called: str) -> bool:
    return called.isalpha() and called.isupper() and len(called) <= LONGEST_ACRONYM


def _joined(left: str, right: str) -> str:
    return left + ("" if _WIDE.match(left[-1]) and _WIDE.match(right[0]) else " ") + right


def _ended(sentence: str) -> str:
    if sentence[-1] in ".!?。！？":
        return sentence
    return sentence + ("。" if _WIDE.match(sentence[-1]) else ".")


def _table(raw: bytes, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    for line, row in tsv_rows(raw, problems):
        row = [field.strip() for field in row]
        if row == [""] or (line == 1 and [field.lower() for field in row] in HEADERS):
            continue
        if len(row) not in (2, 3):
            column, what = min(len(row), 3) + 1, "name and type, or subject, relation and object"
            problems.add(line, column, f"expected {what}, with tabs between; got {len(row)} fields")
        elif all([problems.check_text(field, line, column, "field") for column, field in enumerate(row, 1)]):
            yield line, row
