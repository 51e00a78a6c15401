"""Files that went wrong in 500 ways for every format: each is refused, with the places of what is wrong.

A sound file is drawn and read, then damaged so that it cannot be right any more.
"""

import csv
import io
import json
import random
import re

import pytest

from bertkeras.datasets import read_examples
from bertkeras.errors import BertKerasError

FILES = 500
LABELS = ["good", "bad", "差"]
TEXT_TASKS = ("classification", "pairs", "multi-label", "regression", "similarity", "generation")
TEXTS = ["A fine day.", "很好，很好吃。", 'He said "no", twice', "naïve — café", "0", "x, y; z", "#1 👍"]
HUGE = "long " * 200_001
NO_UTF8 = [b"\xff", b"\xc3", b"\xf5\x80", b"\xed\xa0\x80", b"\xe4\xb8"]  # wherever they are put in
NO_NUMBERS = ["", " ", "NaN", "inf", "-Infinity", "1e999", "1_0", "1,5", "0x1", "１", "good", "1 2", "--1", "True"]
NO_JSON_NUMBERS = [None, True, "", "good", "nan", [1.5], {}, 10**400]
NO_STRINGS = [None, 7, 1.5, True, [], ["x"], {}, {"text": "x"}, "", " \t", "\0", "a\0b", "\ud800", "a\udfff", HUGE]
NO_NAMES = ["", "  ", None, True, [], {}, ["good", "bad"], "ugly", "Good", 3, 1.5, "good\0", "\ud800", HUGE]
NO_LISTS = [None, 3, True, {}, "O", {"a": 1}]
NO_WHOLES = [None, True, 1.5, "1", [0], {}]


def check_refused(path, data, task, **options):
    path.write_bytes(data)
    with pytest.raises(BertKerasError) as caught:
        read_examples(path, task, **options)
    message = str(caught.value)
    *lines, last = message.split("\n")
    rest = re.fullmatch(rf"and ([\d,]+) more problems in {re.escape(str(path))}", last)
    lines += [] if rest else [last]
    assert len(lines) == 11 if rest else 1 <= len(lines) <= 11, message
    for line in lines:
        place = re.match(rf"{re.escape(str(path))}, line (\d+), column (\d+): \S", line)
        assert place, message
        assert 1 <= int(place[1]) <= data.count(b"\n") + data.count(b"\r") + 1
        assert 1 <= int(place[2]) <= len(data) + 1
        assert line.isprintable()
        assert len(line) < len(str(path)) + 400, "a message is to be read"
    return message


def spoil_bytes(draw, data):
    """Damage that no format of text survives."""
    at = draw.randrange(len(data) + 1)
    return draw.choice(
        [
            lambda: data[:at] + draw.choice(NO_UTF8) + data[at:],
            lambda: data[:at] + b"\0" + data[at:],
            lambda: draw.choice([b"", b"\n", b" \n\r\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"]),
            lambda: data.decode().encode(draw.choice(["utf-16", "utf-16-le", "utf-32-be"])),
            lambda: bytes(draw.randrange(256) for _ in range(200)) + b"\xfe\0",
        ]
    )()


# CSV and TSV


def label_cell(draw, task):
    if task == "multi-label":
        return ",".join(draw.sample(LABELS, draw.randrange(1, 4)))
    return draw.choice(["-1.5", "3", ".5e1"]) if task in ("regression", "similarity") else draw.choice(LABELS)


def draw_table(draw, task):
    second = {"pairs": ["second"], "similarity": ["pair"], "generation": ["pair"]}.get(task, [])
    roles = ["text", *second] + ["label"] * (task != "generation")
    header = draw.sample([*roles, "id"], len(roles) + 1)
    rows = [
        [label_cell(draw, task) if role == "label" else draw.choice(TEXTS) for role in header]
        for _ in range(draw.randrange(1, 9))
    ]
    return header, rows


def write_table(header, rows, format, separator=None):
    if format == "tsv":
        return "\n".join((separator or "\t").join(row) for row in [header, *rows]).encode(errors="surrogatepass")
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator or ",").writerows([header, *rows])
    return file.getvalue().encode(errors="surrogatepass")


def spoil_table(draw, task, format, header, rows):
    row, at = draw.choice(rows), draw.randrange(len(header))
    role = draw.choice([name for name in header if name != "id"])
    place = header.index(role)

    def put(value):
        row[place] = value

    def double():
        header.append(role)
        for row in rows:
            row.append(draw.choice(TEXTS))

    def wrong_cell():
        if role != "label":
            put(draw.choice(["", "  ", "\u3000", "\0", "a\0b", "\ud800", HUGE]))
        elif task == "multi-label":
            put(draw.choice([",", "good,", "good,,bad", "good,good", "ugly", "good, ugly", "Good", HUGE]))
        elif task in ("regression", "similarity"):
            put(draw.choice([*NO_NUMBERS, HUGE]))
        else:
            put(draw.choice(["", " ", "ugly", "Good", "good,bad", "0", "\0", "good\nbad" if format == "csv" else "?"]))

    in_format = {
        "tsv": [lambda: put("a\tb"), lambda: put("a\nb"), lambda: row.__setitem__(at, "a\tb")],
        "csv": [lambda: rows.append(["\0quote"])] * 3,
    }
    draw.choice(
        [
            lambda: row.pop(at),
            lambda: row.insert(at, draw.choice(TEXTS)),
            lambda: rows.insert(draw.randrange(len(rows) + 1), ["alone"]),
            lambda: header.__setitem__(place, draw.choice(["", "Text", "LABEL", "texts", role + "s"])),
            double,
            lambda: header.pop(at),
            lambda: rows.clear(),
            *[wrong_cell] * 5,
            *in_format[format],
        ]
    )()
    if format == "csv" and rows and rows[-1] == ["\0quote"]:
        quote = draw.choice([b'"', b'"open, and more\nlines', b'"a"b,', b'"a" ,"b"', b'""",', b'"a""'])
        return write_table(header, rows[:-1], format) + quote
    wrong = {"csv": ";", "tsv": ","}[format]
    return write_table(header, rows, format, draw.choice([wrong] + [None] * 19))


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_tables(tmp_path, format):
    draw = random.Random(format)
    path = tmp_path / f"data.{format}"
    for number in range(FILES):
        task = TEXT_TASKS[number % len(TEXT_TASKS)]
        options = {"task": task, "labels": LABELS}
        if task == "pairs":
            options |= {"task": "classification", "columns": {"pair": "second"}}
        header, rows = draw_table(draw, task)
        data = write_table(header, rows, format)
        path.write_bytes(data)
        assert len(read_examples(path, **options)) == len(rows)
        spoilt = spoil_bytes(draw, data) if draw.random() < 0.2 else spoil_table(draw, task, format, header, rows)
        check_refused(path, spoilt, **options)


# JSON lines


def draw_record(draw, task, number):
    if task == "entities":
        tokens = draw.choices(["Ghana", "'s", "元", ",", "e-mail"], k=draw.randrange(1, 7))
        return {"tokens": tokens, "tags": draw.choices(["O", "B-good", "I-good", "E-差", "S-bad"], k=len(tokens))}
    if task == "spans":
        words = draw.choices(["Ghana", "元", ",", "mails"], k=draw.randrange(2, 7))
        starts = [sum(len(word) + 1 for word in words[:at]) for at in range(len(words) + 1)]
        chosen = draw.sample(range(len(words)), draw.randrange(1, len(words)))
        entities = [{"start": starts[at], "end": starts[at + 1] - 1, "type": draw.choice(LABELS)} for at in chosen]
        return {"text": " ".join(words), "entities": entities}
    if task == "question-answering":
        context = " ".join(draw.choices(TEXTS, k=4))
        start = draw.randrange(len(context) - 5)
        answers = [{"text": context[start : start + 5], "answer_start": start}] * draw.randrange(1, 3)
        return {"id": f"q{number}", "question": draw.choice(TEXTS), "context": context, "answers": answers}
    record = {"text": draw.choice(TEXTS), "id": number}
    if task in ("pairs", "similarity", "generation"):
        record["pair"] = draw.choice(TEXTS)
    if task != "generation":
        record["label"] = label_cell(draw, task)
    if task == "multi-label":
        record["label"] = draw.sample(LABELS, draw.randrange(4))
    return record


def spoil_text(draw, task, record):
    key = draw.choice([key for key in record if key != "id"])
    wrong = NO_STRINGS
    if key == "label":
        wrong = NO_NAMES
        if task == "multi-label":
            wrong = [None, 1, True, {}, [None], [["good"]], ["good", "good"], ["ugly"], [" "], "ugly", [{}], [HUGE]]
        elif task in ("regression", "similarity"):
            wrong = NO_JSON_NUMBERS
    if draw.random() < 0.2:
        del record[key]
    else:
        record[key] = draw.choice(wrong)


def spoil_entities(draw, task, record):
    at = draw.randrange(len(record["tokens"]))
    wrong = [None, 1, "", "PER", "B-", "-good", "b-good", "M-good", "B-ugly", "O-good", "B-\ud800", ["O"], f"B-{HUGE}"]
    draw.choice(
        [
            lambda: record["tokens"].__setitem__(at, draw.choice(NO_STRINGS)),
            lambda: record["tags"].__setitem__(at, draw.choice(wrong)),
            lambda: record["tags"].pop(at),
            lambda: record["tokens"].append("more"),
            lambda: record.update(tags=draw.choice(NO_LISTS)),
            lambda: record.update(tokens=draw.choice([*NO_LISTS, []])),
            lambda: record.pop("tags"),
            lambda: record.pop("tokens"),
        ]
    )()


def spoil_spans(draw, task, record):
    entities, text = record["entities"], record["text"]
    entity = draw.choice(entities)
    long = next((e for e in entities if e["end"] - e["start"] > 1), None)
    choices = [
        lambda: entity.update(start=draw.choice([*NO_WHOLES, -1, entity["end"], len(text)])),
        lambda: entity.update(end=draw.choice([*NO_WHOLES, -1, 0, entity["start"], len(text) + 1])),
        lambda: entity.update(type=draw.choice(NO_NAMES)),
        lambda: entity.pop(draw.choice(["start", "end", "type"])),
        lambda: entities.append(entity),
        lambda: entities.append(draw.choice([None, 3, "good", [0, 1, "good"]])),
        lambda: record.update(entities=draw.choice(NO_LISTS)),
        lambda: record.update(text=draw.choice([*NO_STRINGS, "."])),
        lambda: record.pop(draw.choice(["text", "entities"])),
    ]
    if long:
        choices += [lambda: long.update(start=long["start"] + 1), lambda: long.update(end=long["end"] - 1)]
    draw.choice(choices)()


def spoil_question(draw, task, record):
    at = draw.randrange(len(record["answers"]))
    answer = record["answers"][at] = dict(record["answers"][at])
    start, text, context = answer["answer_start"], answer["text"], record.get("context", "")
    elsewhere = [place for place in (-1, start - 1, start + 1, 10**9) if not context.startswith(text, max(place, 0))]
    draw.choice(
        [
            lambda: answer.update(answer_start=draw.choice([*NO_WHOLES, -1, -start - 1, *elsewhere])),
            lambda: answer.update(text=draw.choice([*NO_STRINGS, text + "\0", "elsewhere", context + "."])),
            lambda: answer.pop(draw.choice(["text", "answer_start"])),
            lambda: record["answers"].__setitem__(at, draw.choice([None, 3, "good", [], [text, start]])),
            lambda: record.update(answers=draw.choice(NO_LISTS)),
            lambda: record.pop("answers"),
            lambda: record.update(question=draw.choice(NO_STRINGS)),
            lambda: record.pop("question"),
            lambda: record.update(is_impossible=draw.choice([True, 1, "no", [], {}])),
            lambda: record.update(answers=[], is_impossible=draw.choice([False, 0, "yes"])),
            lambda: record.update(id=draw.choice([None, True, 1.5, [], {}, "", " ", "\ud800", HUGE])),
        ]
    )()


def spoil_object(draw, line):
    """Damage to the text of a JSON object."""
    nested = "[" * 100_000 + "]" * 100_000
    wrong = ["null", "3", "true", '"text"', "[]", "[[]]", f"[{line}]", "{}", "NaN", "text", "nested"]
    wrong_values = ["NaN", "-Infinity", "01", "1.", "+1", "1" * 5000, nested]
    return draw.choice(
        [
            lambda: line[: draw.randrange(1, len(line))],
            lambda: line + draw.choice(["}", ",", "x", line, "\\", '"']),
            lambda: draw.choice(wrong),
            lambda: line.replace('"', "'"),
            lambda: line[:-1] + ",}",
            lambda: "{" + draw.choice(['"a": 1, "a": 2, ', '"a": {"b": 1, "b": 1}, ']) + line[1:],
            lambda: '{"a": ' + draw.choice(wrong_values) + ", " + line[1:],
            lambda: line.replace(": ", " ", 1),
            lambda: '{"a": "\t", ' + line[1:],
            lambda: '{"a": "\\x", ' + line[1:],
        ]
    )()


SPOILERS = {"entities": spoil_entities, "spans": spoil_spans, "question-answering": spoil_question}


@pytest.mark.parametrize("task", [*TEXT_TASKS, *SPOILERS])
def test_json_lines(tmp_path, task):
    draw = random.Random(task)
    path = tmp_path / "data.jsonl"
    options = {"task": {"pairs": "classification", "spans": "entities"}.get(task, task), "labels": LABELS}
    for _ in range(FILES):
        records = [draw_record(draw, task, number) for number in range(draw.randrange(1, 9))]
        if task == "pairs":
            records.append(draw_record(draw, task, 99))  # two at least: without its only pair a text is a text
        lines = [json.dumps(record, ensure_ascii=draw.random() < 0.5) for record in records]
        data = "\n".join(lines).encode()
        path.write_bytes(data)
        assert len(read_examples(path, **options)) == len(records)
        at = draw.randrange(len(lines))
        way = draw.random()
        if way < 0.1:
            data = spoil_bytes(draw, data)
        else:
            if way < 0.4:
                huge = f'{{"a": "{HUGE}", {lines[at][1:]}'
                lines[at] = huge if way < 0.12 else spoil_object(draw, lines[at])
            elif task == "question-answering" and len(lines) > 1 and way < 0.5:
                lines[at] = json.dumps({**records[at], "id": records[at - 1]["id"]})
            else:
                SPOILERS.get(task, spoil_text)(draw, task, records[at])
                lines[at] = json.dumps(records[at])
            data = "\n".join(lines).encode()
        check_refused(path, data, **options)


# CoNLL


def draw_sentences(draw):
    words, tags = ["Ghana", "'s", "元", ",", "1", "#"], ["O", "B-good", "I-good", "E-差", "S-bad", "M-bad"]
    columns = draw.randrange(2)  # between word and tag
    return [
        # what begins with "# " and no word stands before may be a comment
        [[draw.choice(words if at else words[:-1]), *["NN"] * columns, draw.choice(tags)] for at in range(size)]
        for size in draw.choices(range(1, 6), k=draw.randrange(1, 5))
    ]


def spoil_conll(draw, sentences, separator):
    rows = draw.choice(sentences)
    at = draw.randrange(len(rows))
    row = rows[at]
    tags = ["PER", "B-", "b-good", "-good", "B-ugly", "O-good", "0", "_", "B_good", "good-B", "B-" + "x" * 300]
    words = ["\0", "\ud800", HUGE] + [""] * (separator == "\t")
    draw.choice(
        [
            lambda: row.pop(),
            lambda: row.append(draw.choice(["junk", "-", "2"])),
            lambda: row.__setitem__(-1, draw.choice(tags)),
            lambda: row.__setitem__(-1, draw.choice(["\0", "B-\ud800", "B-a\0"])),
            lambda: rows.insert(at, ["alone"]),
            lambda: rows.insert(at, ["#hashtag"]),
            lambda: sentences.__setitem__(slice(None), [[["-DOCSTART-", "O"]]]),
            lambda: row.__setitem__(0, draw.choice(words)),
            lambda: row.__setitem__(-1, "" if separator == "\t" else "?"),
        ]
    )()


@pytest.mark.parametrize("text", ["# a comment\n\n# another\n", "-DOCSTART- O\n\n", "\t\n \n", "#\n", "O\n\nO\n"])
def test_conll_without_words(tmp_path, text):
    check_refused(tmp_path / "data.conll", text.encode(), "entities")


@pytest.mark.parametrize("separator", ["\t", " "])
def test_conll(tmp_path, separator):
    draw = random.Random(separator)
    path = tmp_path / "data.conll"

    def write(sentences):
        text = "\n\n".join("\n".join(separator.join(row) for row in rows) for rows in sentences)
        return text.encode(errors="surrogatepass")

    for _ in range(FILES):
        sentences = draw_sentences(draw)
        data = write(sentences)
        path.write_bytes(data)
        assert len(read_examples(path, "entities", labels=LABELS)) == len(sentences)
        if draw.random() < 0.2:
            data = spoil_bytes(draw, data)
        else:
            spoil_conll(draw, sentences, separator)
            data = write(sentences)
        check_refused(path, data, "entities", labels=LABELS)


# SQuAD


def spoil_squad(draw, content):
    """Put something else where a list or an object must stand."""
    article = draw.choice(content["data"])
    paragraph = draw.choice(article["paragraphs"])
    record, key = draw.choice([(content, "data"), (article, "paragraphs"), (paragraph, "qas"), (paragraph, "context")])
    wrong = (
        NO_STRINGS
        if key == "context"
        else [*NO_LISTS, [None], [3], ["x"], [[]], [{}], [json.loads(json.dumps(record))]]
    )
    draw.choice([lambda: record.pop(key), *[lambda: record.update({key: draw.choice(wrong)})] * 3])()


@pytest.mark.parametrize("indent", [None, 1])
def test_squad(tmp_path, indent):
    draw = random.Random(str(indent))
    path = tmp_path / "data.json"

    def write(content):
        return json.dumps(content, indent=indent, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")

    for _ in range(FILES):
        questions, articles = [], []
        for _ in range(draw.randrange(1, 3)):
            paragraphs = []
            for _ in range(draw.randrange(1, 3)):
                record = draw_record(draw, "question-answering", 0)
                context = record.pop("context")
                qas = [{**record, "id": f"q{len(questions) + i}"} for i in range(draw.randrange(1, 3))]
                questions += [(question, context) for question in qas]
                paragraphs.append({"context": context, "qas": qas})
            articles.append({"title": "T", "paragraphs": paragraphs})
        content = {"version": "1.1", "data": articles}
        data = write(content)
        path.write_bytes(data)
        assert len(read_examples(path, "question-answering")) == len(questions)
        question, context = draw.choice(questions)
        way = draw.randrange(10)
        if way == 0:
            data = spoil_bytes(draw, data)
        elif way < 3:
            data = spoil_object(draw, data.decode()).encode()
        elif way < 5:
            spoil_squad(draw, content)
            data = write(content)
        else:
            question["answers"] = [dict(answer) for answer in question["answers"]]
            if way == 5 and len(questions) > 1:
                question["id"] = next(other["id"] for other, _ in questions if other is not question)
            elif way == 6:
                del question["id"]
            else:
                question["context"] = context
                spoil_question(draw, "question-answering", question)
                del question["context"]
            data = write(content)
        check_refused(path, data, "question-answering")


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
def test_json_that_was_cut_anywhere(tmp_path, name):
    question = {"id": "a", "question": "Why?", "answers": [{"text": "差\n", "answer_start": 1}]}
    record = {**question, "context": 'A差\n "x"'}
    if name == "data.json":
        record = {"data": [{"paragraphs": [{"context": record["context"], "qas": [question]}]}]}
    data = json.dumps(record).encode()
    (tmp_path / name).write_bytes(data)
    assert len(read_examples(tmp_path / name, "question-answering")) == 1
    for end in range(len(data)):
        check_refused(tmp_path / name, data[:end], "question-answering")


def test_many_problems_are_counted(tmp_path):
    rows = ["text\tlabel", *["a text\tugly"] * 1012, *["a text\tgood"] * 5]
    message = check_refused(tmp_path / "a.tsv", "\n".join(rows).encode(), "classification", labels=LABELS)
    assert message.endswith(f"and 1,001 more problems in {tmp_path / 'a.tsv'}")
