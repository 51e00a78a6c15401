"""Names found in texts, facts about them, and the files they come from."""

import gzip
import random
import time

import pytest

from bertkeras.datasets import read_examples
from bertkeras.datasets.knowledge import Knowledge, Mention
from bertkeras.datasets.triples import end_of
from bertkeras.errors import BertKerasError

ENTRIES = [
    ("Ada Lovelace", "person"),
    ("Ada Lovelace", "is born in", "London"),
    ("Ada Lovelace", "also known as", "Countess of Lovelace"),
    ("London", "city"),
    ("London", "is the capital of", "England"),
    ("London Bridge", "is a", "bridge"),
    ("York", "city"),
    ("New York", "city"),
    ("New York", "instance of", "state"),
    ("US", "country"),
    ("上海", "城市"),
    ("上海", "位于", "中国"),
    ("上海大学", "大学"),
    ("Polish", "language"),
    ("polish", "product"),
    ("Jean-Paul", "person"),
    ("St. John's", "city"),
]
KNOWLEDGE = Knowledge(ENTRIES)


def found(text, knowledge=KNOWLEDGE):
    mentions = knowledge.find(text)
    for mention in mentions:
        assert mention.text == text[mention.start : mention.end]
    return [(mention.text, *mention.names) for mention in mentions]


# Names in texts


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("London Bridge is in London.", [("London Bridge", "London Bridge"), ("London", "London")]),
        ("NEW YORK, new york; York", [("NEW YORK", "New York"), ("new york", "New York"), ("York", "York")]),
        ("Yorkshire, Londoner, Newyork", []),
        ("London-based, London's, (London)", [("London", "London")] * 3),
        ("the countess of Lovelace", [("countess of Lovelace", "Ada Lovelace")]),
        ("Tell us: the US, u.s.", [("US", "US")]),
        ("I polish my Polish. POLISH", [("polish", "polish"), ("Polish", "Polish"), ("POLISH", "Polish", "polish")]),
        ("Jean-Paul and Jean Paul", [("Jean-Paul", "Jean-Paul")]),
        ("to St. John’s and St.John's", [("St. John’s", "St. John's"), ("St.John's", "St. John's")]),
        ("我在上海大学，不在上海。在London", [("上海大学", "上海大学"), ("上海", "上海"), ("London", "London")]),
        ("Ｌｏｎｄｏｎ and Lon\u00addon", [("Ｌｏｎｄｏｎ", "London"), ("Lon\u00addon", "London")]),
        ("New\n  York", [("New\n  York", "New York")]),
        ("New", []),
        ("", []),
    ],
)
def test_find(text, names):
    assert found(text) == names


def test_a_mention_has_its_place_and_all_types():
    assert KNOWLEDGE.find("In New York") == [Mention("New York", 3, 11, ("New York",), ("city", "state"))]


def test_one_name_of_two_things():
    entries = [("George Washington", "person"), ("Washington, D.C.", "city")]
    knowledge = Knowledge([*entries, *((name, "alias", "Washington") for name, _ in entries)])
    (mention,) = knowledge.find("in Washington")
    assert (mention.names, mention.types) == (("George Washington", "Washington, D.C."), ("person", "city"))
    assert found("in Washington, D.C., too", knowledge) == [("Washington, D.C.", "Washington, D.C.")]


def test_the_longest_at_each_place_from_the_left():
    knowledge = Knowledge([("A B C", "x"), ("A B", "y"), ("B", "z"), ("C D", "w")])
    assert found("a b c d", knowledge) == [("a b c", "A B C")]
    assert found("a b d", knowledge) == [("a b", "A B")]
    assert found("a c d b B", knowledge) == [("c d", "C D"), ("B", "B")], "one capital is found as it is written"


def test_types_and_facts():
    assert KNOWLEDGE.types("London, New York, Ada Lovelace, london") == ["city", "state", "person"]
    assert KNOWLEDGE.facts("the countess of lovelace, Ada Lovelace, New York") == [
        "Ada Lovelace: person.",
        "Ada Lovelace is born in London.",
        "New York: city, state.",
    ]
    assert KNOWLEDGE.facts("他在上海。") == ["上海：城市。", "上海位于中国。"]
    assert Knowledge([("北京", "is in", "China")]).facts("北京") == ["北京 is in China."]
    assert Knowledge([("Who", "asks", "Why?"), ("a b", "c.")]).facts("who a b") == ["Who asks Why?", "a b: c."]
    assert KNOWLEDGE.facts("nothing") == KNOWLEDGE.types("nothing") == []


def test_what_it_holds():
    assert len(KNOWLEDGE) == 12
    assert repr(KNOWLEDGE) == "Knowledge(12 names, 3 facts)"
    assert KNOWLEDGE.known_types >= {"person", "bridge", "state", "大学"}
    assert len(Knowledge()) == 0
    assert Knowledge().find("London") == []
    assert len(Knowledge([("a", "b")] * 3)) == 1


def test_against_a_search_by_hand():
    """500 texts of few words, against trying every run of words at every place."""
    draw = random.Random(5)
    words = ["ada", "bo", "cy", "dee", "上", "海"]
    for _ in range(500):
        names = {" ".join(draw.choices(words, k=draw.randint(1, 4))) for _ in range(6)}
        knowledge = Knowledge([(name, "x") for name in sorted(names)])
        text = draw.choices(words, k=12)
        expected, place = [], 0
        while place < len(text):
            runs = [n for n in range(4, 0, -1) if place + n <= 12 and " ".join(text[place : place + n]) in names]
            expected += [" ".join(text[place : place + n]) for n in runs[:1]]
            place += runs[0] if runs else 1
        assert [mention.text for mention in knowledge.find(" ".join(text))] == expected


def test_a_hundred_thousand_names(tmp_path):
    """Bounds are ten times what one slow core takes."""
    draw = random.Random(3)
    syllables = ["ka", "lo", "mi", "ren", "dor", "vis", "ta", "ber", "lin", "son"]

    def word():
        return "".join(draw.choices(syllables, k=3)).title()

    names = {f"{word()} {word()}" for _ in range(106_000)}
    (tmp_path / "names.tsv").write_text("".join(f"{name}\tperson\n" for name in names), encoding="utf-8")
    begin = time.process_time()
    knowledge = Knowledge.read(tmp_path / "names.tsv")
    assert len(knowledge) == len(names) > 90_000
    text = " and ".join(sorted(names)[:10_000])
    middle = time.process_time()
    assert len(knowledge.find(text)) == 10_000
    assert middle - begin < 30
    assert time.process_time() - middle < 5


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("London",), r"entry 1 must be \(name, type\) or \(subject, relation, object\), strings; got \('London',\)"),
        ("ab", "entry 1 must be"),
        (("a", "b", "c", "d"), "entry 1 must be"),
        (("London", 7), "entry 1 must be"),
        ((" ", "city"), "entry 1, column 1: the name is empty"),
        (("London", ""), "entry 1, column 2: the type is empty"),
        (("London", "is in", "\t"), "entry 1, column 3: the object is empty"),
        (("\u200b\u00ad", "city"), "entry 1, column 1: the name .* has no sign that can be seen"),
        (("London", "alias", "x" * 501), "entry 1, column 3: a name of 501 characters, more than 500; is it a text?"),
    ],
)
def test_wrong_entries(entry, message):
    with pytest.raises(BertKerasError, match=message):
        Knowledge([("York", "city"), entry])
    with pytest.raises(BertKerasError, match="text must be a str, got NoneType"):
        KNOWLEDGE.find(None)


# Files


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_a_gazetteer_and_facts_in_one_table(tmp_path):
    text = "\ufeffName\tType\r\nLondon \tcity\n\n上海\t城市\r\nLondon\tis in\tEngland\nLondon\tcity"
    for name in "names.tsv", "names.txt", "names.tsv.gz":
        knowledge = Knowledge.read(write(tmp_path / name, text))
        assert repr(knowledge) == "Knowledge(2 names, 1 facts)"
        assert knowledge.facts("London 上海") == ["London: city.", "London is in England.", "上海：城市。"]
    triples = Knowledge.read(write(tmp_path / "t.tsv", "subject\trelation\tobject\nA B\ttype\tX\nA B\talias\tC\n"))
    assert triples.facts("C, not c") == ["A B: X."]


TRIPLES = r"""# two cities
<http://e.org/London_Bridge> <http://e.org/spans> <http://e.org/R1> .
<http://e.org/R1> <http://www.w3.org/2000/01/rdf-schema#label> "River \"Thames\""@en . # the river
<http://e.org/R1> <http://www.w3.org/2000/01/rdf-schema#label> "Themse"@de .
<http://e.org/R1> <http://www.w3.org/1999/02/22-rdf-syntax-ns#type> <http://e.org/ontology/Body_of_Water> .

	<http://e.org/R1>	<http://e.org/ontology#riverLength> "346"^^<http://www.w3.org/2001/XMLSchema#integer> .
<http://e.org/R1><http://www.w3.org/2004/02/skos/core#altLabel>"Tamesis"@la.
<http://e.org/Z%C3%BCrich> <http://www.wikidata.org/prop/direct/P31> <http://e.org/Q515> .
<http://e.org/Q515> <http://www.w3.org/2000/01/rdf-schema#label> "st\u00E4dtchen" .
<http://e.org/ontology#riverLength> <http://www.w3.org/2004/02/skos/core#prefLabel> "is this long in km:" .
"""


def test_n_triples(tmp_path):
    for name in "graph.nt", "GRAPH.NT.gz":
        knowledge = Knowledge.read(write(tmp_path / name, TRIPLES))
        thames = ['River "Thames": Body of Water.', 'River "Thames" is this long in km: 346.']
        assert knowledge.facts("the river “thames”") == []
        assert knowledge.facts('the river "thames"') == thames
        assert knowledge.facts("THEMSE") == knowledge.facts("Tamesis") == thames
        assert knowledge.facts("on London Bridge") == ['London Bridge spans River "Thames".']
        assert knowledge.facts("in Zürich") == ["Zürich: städtchen."]
    english = Knowledge.read(tmp_path / "graph.nt", language="en")
    assert english.find("Themse Tamesis") == []
    assert english.facts('River "Thames"') == thames


def test_the_end_of_an_address():
    for address, end in {
        "http://e.org/a/New_York": "New York",
        "http://e.org/a#b": "b",
        "urn:isbn:123": "123",
        "http://e.org/": "e.org",
        "http://e.org/%E4%B8%8A%E6%B5%B7": "上海",
    }.items():
        assert end_of(address) == end
    assert end_of("http://e.org/isCapitalOf", is_relation=True) == "is capital of"


TSV_PROBLEMS = [
    ("London\tcity\nYork\n", "line 2, column 2: expected name and type, or .* with tabs between; got 1 fields"),
    ("London\tis in\tUK\tnow\n", "line 1, column 4: expected name .* got 4 fields"),
    ("\tcity\n", "line 1, column 1: the field is empty"),
    ("London\t \n", "line 1, column 2: the field is empty"),
    ("a\tb\n\u200b\tcity\n", r"line 2, column 1: the name .* has no sign that can be seen"),
    (b"London\tcity\nY\xffrk\tcity\n", "line 2, column 2: byte 0xff is not UTF-8"),
    ("London\tci\0ty\n", "line 1, column 10: a NUL character"),
    ("x" * 501 + "\tcity\n", "line 1, column 1: a name of 501 characters"),
    ("name\ttype\n", "line 1, column 1: there is no entry in the file"),
    ("", "line 1, column 1: there is no entry"),
]
S, P = "<http://e.org/s>", "<http://e.org/p>"
NT_PROBLEMS = [
    (f"{S} {P} {S}\n", "line 1, column 51: expected a full stop here, and nothing behind it"),
    (f"{S} {P} {S} .\n{S} {P} {S} . x\n", "line 2, column 52: expected a full stop"),
    (f"_:b {P} {S} .", "line 1, column 1: expected an address such as .*; blank nodes are not read"),
    (f"{S} p {S} .", "line 1, column 18: expected an address such as"),
    (f"{S} {P} _:b .", r'line 1, column 35: expected an address .* or a text such as "London"@en; blank nodes are not'),
    (f'{S} {P} "open .', "line 1, column 35: expected an address"),
    (f'{S} {P} "" .', "line 1, column 35: the object is empty"),
    (rf'{S} {P} "\q" .', r"line 1, column 35: an escape that is none; write \\\\ for a backslash"),
    (rf'{S} {P} "\u12" .', "an escape that is none"),
    (rf'{S} {P} "\uD800" .', "an escape that is none"),
    (rf'{S} {P} "\U00110000" .', "an escape that is none"),
    (f'{S} {P} "\xa0" .', "line 1, column 35: the object is empty"),
    ("# nothing\n", "line 1, column 1: there is no entry"),
    ("London\tcity\n", "line 1, column 1: expected an address"),
]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("x.tsv", *case) for case in TSV_PROBLEMS] + [("x.nt", *case) for case in NT_PROBLEMS],
)
def test_bad_files(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(BertKerasError, match=message) as caught:
        Knowledge.read(path)
    assert str(caught.value).startswith(f"{path}, line ")
    assert "\n" not in str(caught.value)


def test_every_problem_is_told(tmp_path):
    path = write(tmp_path / "x.tsv", "a\n" * 20)
    with pytest.raises(BertKerasError) as caught:
        Knowledge.read(path)
    lines = str(caught.value).split("\n")
    assert [line.split(", ")[1] for line in lines[:-1]] == [f"line {number}" for number in range(1, 12)]
    assert lines[-1] == f"and 9 more problems in {path}"
    with pytest.raises(BertKerasError, match="no such file"):
        Knowledge.read(tmp_path / "none.tsv")


def test_a_changed_byte_is_refused_or_read(tmp_path):
    """600 files with a byte changed: an error with line and column, or knowledge; never anything else."""
    draw, messages = random.Random(7), []
    for number in range(600):
        name, text = (
            ("x.nt", TRIPLES) if number % 2 else ("x.tsv", "London\tcity\nLondon\tis in\tEngland\n上海\t城市\n")
        )
        data = bytearray(text.encode())
        data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            knowledge = Knowledge.read(write(tmp_path / name, bytes(data)))
        except BertKerasError as error:
            messages.append(str(error))
        else:
            assert len(knowledge) > 0
            knowledge.facts("London 上海 River")
    assert all(message.startswith(str(tmp_path)) and ", column " in message for message in messages)
    assert len(messages) > 100


def test_the_names_of_labelled_data_are_found(tmp_path):
    """A gazetteer made of tagged sentences finds their entities again."""
    text = "Ada B-person\nLovelace I-person\nlives O\nin O\nNew B-place\nYork I-place\n. O\n"
    (example,) = read_examples(write(tmp_path / "x.conll", text), "entities")
    knowledge = Knowledge([("Ada Lovelace", "person"), ("New York", "place")])
    assert [(found.text, *found.types) for found in knowledge.find(" ".join(example.tokens))] == [
        ("Ada Lovelace", "person"),
        ("New York", "place"),
    ]
