"""Facts in N-Triples, the line format of knowledge graphs such as DBpedia and Wikidata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from bertkeras.datasets.problems import NO_TEXT, Problems, decoded_lines

RDF_TYPE = ("http://www.w3.org/1999/02/22-rdf-syntax-ns#type", "http://www.wikidata.org/prop/direct/P31")
LABEL = ("http://www.w3.org/2000/01/rdf-schema#label", "http://www.w3.org/2004/02/skos/core#prefLabel")
ALT_LABEL = ("http://www.w3.org/2004/02/skos/core#altLabel",)

_ADDRESS = re.compile(r"<([^\x00-\x20<>\"{}|^`]+)>[ \t]*")
# A text, and behind it perhaps a language or a datatype
_LITERAL = re.compile(
    r'"([^"\\]*(?:\\.[^"\\]*)*)"(?:@([a-zA-Z]+(?:-[a-zA-Z0-9]+)*)|\^\^<[^\x00-\x20<>"{}|^`]+>)?[ \t]*'
)
_END = re.compile(r"\.[ \t]*(?:#.*)?")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPED = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_NO_ADDRESS = "expected an address such as <http://example.org/London>"

Term = tuple[str, bool, str | None]  # an address or text, whether it is an address, and the language of the text


def read_n_triples(raw: bytes, problems: Problems, language: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Lines and `[subject, relation, object]` by name, with `type` and `alias` as relations of these kinds.

    Of the W3C's N-Triples all is read but blank nodes.

    Args:
        raw: The file.
        problems: Takes what is wrong with it.
        language: Leave out text marked as of another language; `en` takes `en-GB` too.

    Reference: https://www.w3.org/TR/n-triples/
    """
    triples: list[tuple[int, tuple[str, str, Term]]] = []
    names: dict[str, str] = {}
    for number, line in decoded_lines(raw, problems):
        triple = _triple(number, line, problems)
        if triple is None or (language and not _is_of(triple[2][2], language)):
            continue
        triples.append((number, triple))
        subject, relation, (value, _, _) = triple
        if relation in LABEL:
            names.setdefault(subject, value)
    for number, (subject, relation, (value, is_address, _)) in triples:
        name = names.get(subject) or end_of(subject)
        if is_address:
            value = names.get(value) or end_of(value)
        if relation in RDF_TYPE:
            yield number, [name, "type", value]
        elif relation not in LABEL + ALT_LABEL:
            yield number, [name, names.get(relation) or end_of(relation, is_relation=True), value]
        else:
            yield number, [name, "alias", value]


def _triple(number: int, line: str, problems: Problems) -> tuple[str, str, Term] | None:
    """Subject, relation and object of a line; `None` if it has none, or is wrong, which is noted."""
    place = len(line) - len(line.lstrip(" \t"))
    if place == len(line) or line[place] == "#":
        return None
    addresses = []
    for _ in range(2):
        match = _ADDRESS.match(line, place)
        if match is None:
            blank = "; blank nodes are not read" if line.startswith("_:", place) else ""
            problems.add(number, place + 1, _NO_ADDRESS + blank)
            return None
        addresses.append(match[1])
        place = match.end()
    if match := _ADDRESS.match(line, place):
        term: Term = match[1], True, None
    elif match := _LITERAL.match(line, place):
        text = _unescaped(match[1])
        if text is None or not problems.check_text(text, number, place + 1, "object"):
            if text is None:
                problems.add(number, place + 1, "an escape that is none; write \\\\ for a backslash")
            return None
        term = text, False, match[2]
    else:
        blank = "; blank nodes are not read" if line.startswith("_:", place) else ""
        problems.add(number, place + 1, f'{_NO_ADDRESS} or a text such as "London"@en{blank}')
        return None
    if not _END.fullmatch(line, match.end()):
        problems.add(number, match.end() + 1, "expected a full stop here, and nothing behind it")
        return None
    return addresses[0], addresses[1], term


def _unescaped(text: str) -> str | None:
    sound = True

    def sign(match: re.Match[str]) -> str:
        nonlocal sound
        if match[3]:
            sound = sound and match[3] in _ESCAPED
            return _ESCAPED.get(match[3], "")
        code = int(match[1] or match[2], 16)
        sound = sound and code <= 0x10FFFF and not NO_TEXT.match(chr(code))
        return chr(code) if sound else ""

    text = _ESCAPE.sub(sign, text) if "\\" in text else text
    return text if sound else None


def _is_of(marked: str | None, language: str) -> bool:
    return marked is None or f"{marked}-".lower().startswith(f"{language}-".lower())


def end_of(address: str, is_relation: bool = False) -> str:
    """What an address calls a thing: `London_Bridge` at its end is `London Bridge`, the relation `bornIn` `born in`."""
    end = unquote(re.split(r"[/#:]", address.rstrip("/#:"))[-1]).replace("_", " ").strip() or address
    if is_relation:
        end = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", end).lower()
    return end
