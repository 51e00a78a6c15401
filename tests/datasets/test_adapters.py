"""The forms in which the authors publish sets that the data home does not hold, each in a few lines."""

import json

import pytest

from bertkeras.datasets import Answer, QuestionExample, TextExample, TokenExample, download, info, load, rows
from bertkeras.errors import BertKerasError

PAIR = {"sentence1": "甲", "sentence2": "乙"}
INFERENCE = "gold_label\tsentence1\tsentence2\n"


def lines(*records):
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)


def squad(id, context, text):
    answers = [{"text": text, "answer_start": context.index(text), "id": "1"}]
    qas = [{"id": id, "question": "谁？", "answers": answers}]
    return json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]})


CASES = [
    ("sst-2", "dev", 'sentence\tlabel\na "fine" film \t1\n', [TextExample('a "fine" film ', label="positive")]),
    (
        "cola",
        "train",
        "gj04\t0\t*\tThey drank.\ngj04\t1\t\tThey did.\n",
        [
            TextExample("They drank.", label="unacceptable"),
            TextExample("They did.", label="acceptable"),
        ],
    ),
    ("chnsenticorp", "test", 'label\ttext_a\n0\t不好 "吗\n', [TextExample('不好 "吗', label="negative")]),
    (
        "ag-news",
        "test",
        '"3","Fears","A ""big"" loss\\$5"\n',
        [TextExample('Fears A "big" loss\\$5', label="business")],
    ),
    (
        "tnews",
        "dev",
        lines({"label": "102", "label_desc": "news_entertainment", "sentence": "甲", "keywords": ""}),
        [
            TextExample("甲", label="news_entertainment"),
        ],
    ),
    ("thucnews", "dev", "甲 乙\t9\n", [TextExample("甲 乙", label="entertainment")]),
    (
        "banking77",
        "test",
        'text,category\n"Why,\n me?",card_arrival\n',
        [TextExample("Why,\n me?", label="card_arrival")],
    ),
    (
        "snli",
        "dev",
        lines(
            {"gold_label": "-", **PAIR, "annotator_labels": ["neutral"]},
            {"gold_label": "neutral", **PAIR},
        ),
        [TextExample("甲", "乙", "neutral")],
    ),
    (
        "ocnli",
        "dev",
        lines({"label": "-", **PAIR, "label0": None}, {"label": "entailment", **PAIR}),
        [
            TextExample("甲", "乙", "entailment"),
        ],
    ),
    (
        "xnli-zh",
        "dev",
        f"language\t{INFERENCE}zh\tneutral\t甲\t乙\nen\tneutral\ta\tb\n",
        [TextExample("甲", "乙", "neutral")],
    ),
    (
        "xnli-en",
        "dev",
        f"language\t{INFERENCE}zh\tneutral\t甲\t乙\nen\tneutral\ta\tb\n",
        [TextExample("a", "b", "neutral")],
    ),
    ("med", "test", f"genre\t{INFERENCE}paper\tneutral\ta\tb\n", [TextExample("a", "b", "neutral")]),
    (
        "rte",
        "train",
        "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n",
        [TextExample("a", "b", "not_entailment")],
    ),
    (
        "mrpc",
        "test",
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t5\t6\ta\tb "x\r\n',
        [TextExample("a", 'b "x', "same")],
    ),
    ("paws-wiki", "test", "id\tsentence1\tsentence2\tlabel\n1\ta\tb\t0\n", [TextExample("a", "b", "different")]),
    ("paws-x-zh", "train", "id\tsentence1\tsentence2\tlabel\n1\t甲\t乙\t1\n", [TextExample("甲", "乙", "same")]),
    ("lcqmc", "train", "甲\t乙\t1\n", [TextExample("甲", "乙", "same")]),
    ("afqmc", "dev", lines({**PAIR, "label": "0"}), [TextExample("甲", "乙", "different")]),
    (
        "sts-b",
        "train",
        "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t4.750\n",
        [TextExample("a", "b", 4.75)],
    ),
    (
        "cluener",
        "dev",
        lines({"text": "叶老 A桂B", "label": {"name": {"叶老 A": [[0, 3]], "B": [[5, 5]]}, "book": {}}}),
        [
            TokenExample(tuple("叶老A桂B"), ("B-name", "I-name", "I-name", "O", "B-name")),
        ],
    ),
    (
        "resume-ner",
        "dev",
        "高 B-NAME\n勇 M-NAME\n氏 E-NAME\n男 S-GENDER\n",
        [
            TokenExample(tuple("高勇氏男"), ("B-NAME", "I-NAME", "E-NAME", "S-GENDER")),
        ],
    ),
    (
        "weibo-ner",
        "dev",
        "科0\tO\n比1\tB-PER.NAM\n5\tI-PER.NAM\n",
        [TokenExample(tuple("科比5"), ("O", "B-PER.NAM", "I-PER.NAM"))],
    ),
    ("msra-ner", "test", "北\tB-LOC\n京\tI-LOC\n", [TokenExample(("北", "京"), ("B-LOC", "I-LOC"))]),
    (
        "wikigold",
        "test",
        "010 I-MISC\nis O\n\n-DOCSTART- O\n\nThe O\n",
        [
            TokenExample(("010", "is"), ("I-MISC", "O")),
            TokenExample(("The",), ("O",)),
        ],
    ),
    ("conll-2003", "dev", "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\n", [TokenExample(("U.N.",), ("I-ORG",))]),
    (
        "drcd",
        "dev",
        squad("1001-10-1", "甲是乙。", "乙"),
        [QuestionExample("1001-10-1", "谁？", "甲是乙。", (Answer("乙", 2),))],
    ),
    (
        "xquad-zh",
        "test",
        squad("56", "甲是乙。", "甲"),
        [QuestionExample("56", "谁？", "甲是乙。", (Answer("甲", 0),))],
    ),
    (
        "squad-v2.0",
        "train",
        squad("a", "甲", "甲").replace('"question"', '"is_impossible": false, "question"'),
        [
            QuestionExample("a", "谁？", "甲", (Answer("甲", 0),)),
        ],
    ),
    (
        "lama",
        "conceptnet",
        lines({"masked_sentences": ["a [MASK]"], "obj_label": "b"}),
        [
            {"masked_sentences": ["a [MASK]"], "obj_label": "b"},
        ],
    ),
    (
        "winogender",
        "test",
        'sentid\tsentence\nnurse.0.male.txt\tThe nurse said he "x.\n',
        [
            {"sentid": "nurse.0.male.txt", "sentence": 'The nurse said he "x.'},
        ],
    ),
    (
        "stereoset",
        "dev",
        json.dumps(
            {
                "version": "1.0",
                "data": {
                    "intrasentence": [
                        {
                            "id": "7",
                            "target": "nurse",
                            "bias_type": "profession",
                            "context": "The nurse is BLANK.",
                            "sentences": [{"sentence": "s", "id": "8", "labels": [], "gold_label": "stereotype"}],
                        }
                    ]
                },
            }
        ),
        [
            {
                "kind": "intrasentence",
                "id": "7",
                "target": "nurse",
                "bias_type": "profession",
                "context": "The nurse is BLANK.",
                "stereotype": "s",
            },
        ],
    ),
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home with files that are none of the authors'."""
    monkeypatch.setenv("BERTKERAS_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BERTKERAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BERTKERAS_OFFLINE", "1")
    monkeypatch.setattr(download, "_check", lambda *_: None)

    def put(path, text):
        path = tmp_path / "home" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return put


@pytest.mark.parametrize(("name", "split", "text", "expected"), CASES, ids=[case[0] for case in CASES])
def test_forms(home, name, split, text, expected):
    found = info(name)
    for file in found.files_of(split):
        home(file.path, text)
    assert (rows if "probe" in found.tasks else load)(name, split) == expected


def test_several_files_make_one_split(home):
    home("sentence-polarity/rt-polarity.neg", "\n".join(f"bad {number} " for number in range(5_331)) + "\n")
    home("sentence-polarity/rt-polarity.pos", "\n".join(f"good {number} " for number in range(5_331)))
    for split, count in info("sentence-polarity").rows.items():
        examples = load("sentence-polarity", split)
        assert count in (None, len(examples))
    assert load("sentence-polarity", "test")[0] == TextExample(f"bad {9 * 533}", label="negative", line=9 * 533 + 1)
    assert load("sentence-polarity", "fold0")[-1] == TextExample("good 5330", label="positive")


def test_of_entities_that_overlap_one_is_taken(home, caplog):
    label = {"name": {"乙": [[1, 1]], "甲": [[0, 0]]}, "book": {"甲乙": [[0, 1]], "丙": [[2, 2]]}}
    path = home("cluener/train.json", lines({"text": "甲乙丙", "label": label}))
    assert load("cluener") == [TokenExample(("甲", "乙", "丙"), ("B-book", "I-book", "B-book"))]
    assert caplog.messages == [f"{path}: left out 2 entities that overlap with others"]


def test_folds_of_nlu(home):
    for file in info("nlu-plus-plus").files:
        intents = ["card", "why"] if file.path.endswith("fold3.json") else []
        home(file.path, json.dumps([{"text": file.path, "slots": {}, **({"intents": intents} if intents else {})}]))
    train, test = load("nlu-plus-plus"), load("nlu-plus-plus", "test")
    assert [len(train), len(test)] == [36, 4]
    assert {example.label for example in train} == {(), ("card", "why")}
    assert {example.text[-7:] for example in test} == {"18.json", "19.json"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("clinc150", "[]"),
        ("clinc150", "{"),
        ("clinc150", '{"train": [["text"]], "oos_train": []}'),
        ("cluener", lines({"text": "甲", "label": {"name": {"甲": [[0, 1]]}}})),
        ("cluener", lines({"text": "甲", "label": {"name": {"甲": 3}}})),
        ("nlu-plus-plus", "[3]"),
        ("squad-v1.1", "[]"),
        ("asap", "reviewbody,star\na,3\n"),
        ("sst-2", "text\tlabel\na\t1\n"),
        ("tnews", "not JSON"),
        ("xcopa-zh", '{"premise": 3}'),
        ("crows-pairs", "a,b\n1\n"),
        ("pararel", "{"),
        ("winobias", "no number in front"),
        ("stereoset", '{"data": []}'),
    ],
)
def test_another_form_is_told(home, name, text):
    found = info(name)
    split = found.splits[0]
    paths = [home(file.path, text) for file in found.files_of(split)]
    with pytest.raises(BertKerasError) as caught:
        (rows if "probe" in found.tasks else load)(name, split)
    assert str(caught.value).startswith(str(paths[0]))
