"""Every format, read as it should be; what is wrong with files is in `test_malformed.py`."""

import csv
import gzip
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkeras.datasets import Answer, QuestionExample, TextExample, TokenExample, read_examples
from bertkeras.datasets.readers import FORMATS, types_of
from bertkeras.errors import BertKerasError
from bertkeras.text.tags import spans_of


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lines_of(examples):
    return [example.line for example in examples]


@pytest.mark.parametrize("name", ["a.csv", "a.CSV.gz", "a.csv.GZ"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path, name, mark, end):
    rows = [" label ,id,text", 'good,7,"Two, with ""quotes""."', "", '差 ,8,"很好\n第二行 "', "  ", 'good,9, "x" ']
    data = (mark + end.join(rows)).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.lower().endswith("gz") else data)
    examples = read_examples(tmp_path / name, "classification")
    texts = ['Two, with "quotes".', "很好\n第二行 ", ' "x" ']
    assert examples == [
        TextExample(text, label=label) for text, label in zip(texts, ["good", "差", "good"], strict=True)
    ]
    assert lines_of(examples) == [2, 4, 7]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tsv_knows_no_quotes(tmp_path, end):
    path = write(tmp_path / "a.tsv", end.join(["text\tlabel", '"a\tgood', 'b "quoted"\tbad', "", " c, d \t good "]))
    examples = read_examples(str(path), "classification", labels=["good", "bad"])
    assert [(example.text, example.label) for example in examples] == [
        ('"a', "good"),
        ('b "quoted"', "bad"),
        (" c, d ", "good"),
    ]
    assert lines_of(examples) == [2, 3, 5]


@pytest.mark.parametrize(
    ("task", "table", "expected"),
    [
        ("classification", "text,pair,label\na,b,c\n", TextExample("a", "b", "c")),
        ("multi-label", 'label,text\n"x, y",a\n', TextExample("a", label=("x", "y"))),
        ("multi-label", "label,text\n,a\n", TextExample("a", label=())),
        ("regression", "label,text\n-1.5e1,a\n", TextExample("a", label=-15.0)),
        ("similarity", "pair,label,text\nb, 5 ,a\n", TextExample("a", "b", 5.0)),
        ("generation", "text,pair,label\na,b,unread\n", TextExample("a", "b")),
    ],
)
def test_tables_of_every_task(tmp_path, task, table, expected):
    assert read_examples(write(tmp_path / "a.csv", table), task) == [expected]
    with_tabs = table.replace('"x, y"', "x; y").replace(",", "\t").replace(";", ",")
    assert read_examples(write(tmp_path / "a.tsv", with_tabs), task) == [expected]


@pytest.mark.parametrize(
    ("task", "record", "expected"),
    [
        ("classification", {"label": " c ", "text": "a", "more": [1]}, TextExample("a", label="c")),
        ("classification", {"label": 3, "text": "a"}, TextExample("a", label="3")),
        ("classification", {"label": "c", "text": "a", "pair": "b"}, TextExample("a", "b", "c")),
        ("multi-label", {"label": ["x", "y"], "text": "a"}, TextExample("a", label=("x", "y"))),
        ("multi-label", {"label": [], "text": "a"}, TextExample("a", label=())),
        ("regression", {"label": 3, "text": "a"}, TextExample("a", label=3.0)),
        ("similarity", {"label": "3.5", "text": "a", "pair": "b"}, TextExample("a", "b", 3.5)),
        ("generation", {"text": "a", "pair": "b\n元"}, TextExample("a", "b\n元")),
        ("entities", {"tokens": ["a", "b"], "tags": ["B-x y", "O"]}, TokenExample(("a", "b"), ("B-x y", "O"))),
        (
            "entities",
            {
                "text": "Ada's 北京",
                "entities": [{"start": 6, "end": 8, "type": "地"}, {"start": 0, "end": 3, "type": "p"}],
            },
            TokenExample(("Ada", "'s", "北", "京"), ("B-p", "O", "B-地", "I-地")),
        ),
        ("entities", {"text": "a", "entities": []}, TokenExample(("a",), ("O",))),
        (
            "question-answering",
            {"id": "q", "question": "?", "context": "a\nb", "answers": [{"text": "b", "answer_start": 2}]},
            QuestionExample("q", "?", "a\nb", (Answer("b", 2),)),
        ),
        ("question-answering", {"question": "?", "context": "a", "answers": []}, QuestionExample("1", "?", "a")),
    ],
)
def test_json_lines_of_every_task(tmp_path, task, record, expected):
    path = write(tmp_path / "a.jsonl", "\ufeff" + json.dumps(record) + "\r\n\r\n")
    assert read_examples(path, task) == [expected]


def test_columns_by_other_names(tmp_path):
    names = {"text": "s1", "pair": "s2", "label": "gold"}
    expected = [TextExample("a", "b", "c")]
    table = write(tmp_path / "a.tsv", "gold\ts1\ttext\ts2\nc\ta\t\tb\n")
    assert read_examples(table, "classification", columns=names) == expected
    lines = write(tmp_path / "a.jsonl", '{"gold": "c", "s1": "a", "s2": "b", "text": 3}')
    assert read_examples(lines, "classification", columns=names) == expected
    for path in (table, lines):  # a pair that was named must be there
        with pytest.raises(BertKerasError, match="line 1, column 1: no .* '?s3'?"):
            read_examples(path, "classification", columns={**names, "pair": "s3"})
    with pytest.raises(BertKerasError, match="columns has the key 'txt'; the keys are text, pair, label"):
        read_examples(table, "classification", columns={"txt": "s1"})


CONLL = {
    "CoNLL-2003": (
        "-DOCSTART- -X- O O\n\nU.N. NNP I-NP I-ORG\n# NN I-NP O\n\n-DOCSTART- -X- O O\nend NN I-NP O\n"
        "-DOCSTART- -X- O O\nx NN I O",
        [(("U.N.", "#"), ("I-ORG", "O"), 3), (("end",), ("O",), 7), (("x",), ("O",), 9)],
    ),
    "tabs, blank lines with a tab": (
        "a\tO\nb c\tB-p\n\t\n\n#1\tO\n",
        [(("a", "b c"), ("O", "B-p"), 1), (("#1",), ("O",), 5)],
    ),
    "Universal NER": (
        "# newdoc\n# text = A b O\n1-2\tAb\tB-PER\tO\tann\n1\tA\tI-PER\tO\tann\n\n"
        "# text = 5 c\n1\t5\tO\t-\t-\n2\tc\tB-LOC\t-\tann\n",
        [(("Ab", "A"), ("B-PER", "I-PER"), 3), (("5", "c"), ("O", "B-LOC"), 7)],
    ),
    "five columns that begin with a number": ("5 5 CD I-NP O\nmen man N I-NP B-p", [(("5", "men"), ("O", "B-p"), 1)]),
    "BMES": ("北 B-地\n京 M-地\n市 E-地\n好 S-x\n", [(("北", "京", "市", "好"), ("B-地", "I-地", "E-地", "S-x"), 1)]),
}


@pytest.mark.parametrize("text", ["\ufeff# id 3\n# O\nx O\n", "# id 3\r\n# O\r\nx O"])
def test_a_sign_is_a_word_if_its_line_is_a_row(tmp_path, text):
    assert read_examples(write(tmp_path / "a.bio", text), "entities") == [TokenExample(("#", "x"), ("O", "O"))]


@pytest.mark.parametrize("name", CONLL)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_conll(tmp_path, name, end):
    text, expected = CONLL[name]
    examples = read_examples(write(tmp_path / "a.iob2", "\ufeff" + text.replace("\n", end)), "entities")
    assert [(example.tokens, example.tags, example.line) for example in examples] == expected
    assert types_of(examples) == sorted({span.type for example in examples for span in spans_of(example.tags)})


def squad(*questions, context="Ghana 很大."):
    return json.dumps({"data": [{"title": "T", "paragraphs": [{"context": context, "qas": list(questions)}]}]})


def test_squad(tmp_path):
    one = {"id": "a", "question": "Where?", "answers": [{"text": "Ghana", "answer_start": 0}] * 2}
    none = {"id": 5, "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": [3]}
    two = {**one, "id": "b", "is_impossible": False, "answers": [{"text": "大.", "answer_start": 7}]}
    examples = read_examples(write(tmp_path / "a.json.gz", "\ufeff" + squad(one, none, two)), "question-answering")
    context = "Ghana 很大."
    assert examples == [
        QuestionExample("a", "Where?", context, (Answer("Ghana", 0),) * 2),
        QuestionExample("5", "Why?", context),
        QuestionExample("b", "Where?", context, (Answer("大.", 7),)),
    ]
    content = json.loads(squad(one, none))
    indented = read_examples(write(tmp_path / "b.json", json.dumps(content, indent=1)), "question-answering")
    assert lines_of(indented) == [9, 23]


@pytest.mark.parametrize(
    ("name", "task", "text", "expected"),
    [
        ("a.csv", "classification", "text\na\n", TextExample("a")),
        ("a.tsv", "similarity", "text\tpair\na\tb\n", TextExample("a", "b")),
        ("a.jsonl", "multi-label", '{"text": "a", "label": 5}', TextExample("a")),
        ("a.jsonl", "entities", '{"tokens": ["a"]}', TokenExample(("a",), ("O",))),
        ("a.jsonl", "entities", '{"text": "a b"}', TokenExample(("a", "b"), ("O", "O"))),
        ("a.jsonl", "question-answering", '{"question": "?", "context": "a"}', QuestionExample("1", "?", "a")),
        ("a.conll", "entities", "a\nb\n", TokenExample(("a", "b"), ("O", "O"))),
        (
            "a.json",
            "question-answering",
            squad({"id": "a", "question": "?"}, context="a"),
            QuestionExample("a", "?", "a"),
        ),
    ],
)
def test_without_labels(tmp_path, name, task, text, expected):
    assert read_examples(write(tmp_path / name, text), task, labelled=False) == [expected]
    if "label" not in text:
        with pytest.raises(BertKerasError):
            read_examples(tmp_path / name, task)


def test_long_texts(tmp_path):
    limit = csv.field_size_limit()
    text = "字" * 999_000
    assert read_examples(write(tmp_path / "a.csv", f"text,label\n{text},x"), "classification")[0].text == text
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "task", "options", "said"),
    [
        ("a.csv", "tagging", {}, "unknown task 'tagging'; choose one of classification, "),
        (
            "a.xlsx",
            "classification",
            {},
            "a.xlsx: cannot tell the format by the name; pass format= csv or tsv or jsonl",
        ),
        (
            "a.csv",
            "entities",
            {},
            "a.csv: the format csv has no place for the examples of entities; use jsonl or conll",
        ),
        ("a.json", "regression", {}, "the format squad has no place for the examples of regression; use csv or tsv or"),
        ("a.csv", "regression", {"format": "xml"}, "unknown format 'xml'; for regression choose csv or tsv or jsonl"),
        ("a.csv", "classification", {}, "a.csv: no such file"),
        ("folder.csv", "classification", {}, "folder.csv cannot be read: .*directory"),
        ("cut.csv.gz", "classification", {}, "cut.csv.gz cannot be read: "),
        ("plain.csv.gz", "classification", {}, "plain.csv.gz cannot be read: Not a gzipped file"),
        ("broken.csv.gz", "classification", {}, "broken.csv.gz cannot be read: "),
    ],
)
def test_what_cannot_be_read_at_all(tmp_path, name, task, options, said):
    packed = gzip.compress(os.urandom(3000))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "cut.csv.gz").write_bytes(packed[:1000])
    (tmp_path / "plain.csv.gz").write_bytes(b"text,label\na,b\n")
    (tmp_path / "broken.csv.gz").write_bytes(packed[:20] + b"\xff" * 400 + packed[420:])
    with pytest.raises(BertKerasError, match=said) as caught:
        read_examples(tmp_path / name, task, **options)
    assert "\n" not in str(caught.value)


def test_each_format_is_known_by_a_name():
    assert set(FORMATS.values()) == {"csv", "tsv", "jsonl", "conll", "squad"}


# What a writer wrote is read again. Hypothesis draws the text; a blank one is no example.

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
in_line = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r\t"), min_size=1).filter(str.strip)
names = st.sampled_from(["good", "bad", "很差", "a b"])
numbers = st.floats(allow_nan=False, allow_infinity=False)


def labels(task):
    if task == "multi-label":
        return st.lists(names, unique=True).map(tuple)
    return numbers if task in ("regression", "similarity") else st.none() if task == "generation" else names


@st.composite
def text_examples(draw, text):
    task = draw(st.sampled_from(["classification", "multi-label", "regression", "similarity", "generation"]))
    with_pair = task in ("similarity", "generation") or draw(st.booleans())
    example = st.builds(TextExample, text, text if with_pair else st.none(), labels(task))
    return task, draw(st.lists(example, min_size=1, max_size=5))


def table_of(examples):
    roles = [role for role in ("label", "text", "pair") if getattr(examples[0], role) is not None]

    def cell(value):
        return ",".join(value) if isinstance(value, tuple) else str(value)

    return [roles, *([cell(getattr(example, role)) for role in roles] for example in examples)]


@given(text_examples(texts), st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL)]))
def test_csv_that_was_written(tmp_path_factory, drawn, style):
    task, examples = drawn
    end, quoting = style
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=quoting).writerows(table_of(examples))
    path = write(tmp_path_factory.getbasetemp() / "written.csv", file.getvalue())
    assert read_examples(path, task) == examples


@given(text_examples(in_line), st.sampled_from(["\n", "\r\n"]))
def test_tsv_that_was_written(tmp_path_factory, drawn, end):
    task, examples = drawn
    text = end.join("\t".join(row) for row in table_of(examples))
    assert read_examples(write(tmp_path_factory.getbasetemp() / "written.tsv", text), task) == examples


@given(text_examples(texts), st.booleans())
def test_json_lines_that_were_written(tmp_path_factory, drawn, ascii):
    task, examples = drawn
    records = [
        {role: getattr(example, role) for role in ("text", "pair", "label") if getattr(example, role) is not None}
        for example in examples
    ]
    text = "\n".join(json.dumps(record, ensure_ascii=ascii) for record in records)
    assert read_examples(write(tmp_path_factory.getbasetemp() / "written.jsonl", text), task) == examples


words = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1).filter(
    lambda word: not word.startswith("#") and word.split() == [word]
)
tagged_words = st.tuples(words, st.sampled_from(["O", "B-a", "I-a", "E-a-b", "S-人"]))
sentences = st.lists(tagged_words, min_size=1, max_size=5).map(
    lambda rows: TokenExample(tuple(word for word, _ in rows), tuple(tag for _, tag in rows))
)


@given(st.lists(sentences, min_size=1, max_size=4), st.sampled_from(["\t", " ", "\tNN\t"]), st.sampled_from(["", "\r"]))
def test_conll_that_was_written(tmp_path_factory, examples, separator, end):
    blocks = [
        "".join(f"{word}{separator}{tag}{end}\n" for word, tag in zip(example.tokens, example.tags, strict=True))
        for example in examples
    ]
    path = write(tmp_path_factory.getbasetemp() / "written.conll", f"{end}\n".join(blocks))
    assert read_examples(path, "entities") == examples


@st.composite
def question_examples(draw):
    examples = []
    for number in range(draw(st.integers(1, 4))):
        context = draw(texts)
        spans = draw(st.lists(st.tuples(st.integers(0, len(context) - 1), st.integers(1, 9)), max_size=3))
        answers = [Answer(context[start : start + size], start) for start, size in spans]
        sound = tuple(answer for answer in answers if answer.text.strip())
        examples.append(QuestionExample(f"q{number}", draw(texts), context, sound))
    return examples


@given(question_examples(), st.sampled_from([None, 2]), st.booleans())
def test_squad_that_was_written(tmp_path_factory, examples, indent, ascii):
    def record(example):
        answers = [{"text": answer.text, "answer_start": answer.start} for answer in example.answers]
        return {"id": example.id, "question": example.question, "answers": answers, "is_impossible": not answers}

    paragraphs = [{"context": example.context, "qas": [record(example)]} for example in examples]
    content = {"data": [{"paragraphs": [paragraph]} for paragraph in paragraphs]}
    path = write(tmp_path_factory.getbasetemp() / "w.json", json.dumps(content, indent=indent, ensure_ascii=ascii))
    assert read_examples(path, "question-answering") == examples
    lines = [json.dumps({**record(example), "context": example.context}) for example in examples]
    path = write(tmp_path_factory.getbasetemp() / "w.jsonl", "\n".join(lines))
    assert read_examples(path, "question-answering") == examples
