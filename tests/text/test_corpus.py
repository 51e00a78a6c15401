import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkeras.errors import BertKerasError
from bertkeras.text import sentences
from bertkeras.text.corpus import Corpus, split_sentences


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def error_of(corpus):
    with pytest.raises(BertKerasError) as caught:
        list(corpus)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TEXT = "  First line. \nSecond line.\r\n\r\n \n\nAnother document.\n"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.text"])
def test_text_has_blank_lines_between_documents(tmp_path, name):
    corpus = Corpus(write(tmp_path / name, TEXT))
    expected = ["First line.\nSecond line.", "Another document."]
    assert list(corpus) == expected
    assert list(corpus) == expected  # once more


def test_byte_order_mark_is_not_text(tmp_path):
    assert list(Corpus(write(tmp_path / "a.txt", "\ufeffOne.\n"))) == ["One."]


def test_reading_is_a_stream(tmp_path):
    path = write(tmp_path / "a.txt", b"Good.\n\n" * 100_000 + b"\xff\n")
    assert next(iter(Corpus(path))) == "Good."


def test_jsonl(tmp_path):
    lines = [json.dumps({"body": "你好。\n\n 再见。 "}), "", json.dumps({"body": "  "}), json.dumps({"body": "x"})]
    corpus = Corpus(write(tmp_path / "a.jsonl.gz", "\n".join(lines)), field="body")
    assert list(corpus) == ["你好。\n再见。", "x"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": ', "line 2 is not JSON"),
        ('["text"]', "JSON list"),
        ('{"body": "x", "id": 1}', "no field 'text', its fields are body, id"),
        ('{"text": 7}', "must be a string, got int"),
        ('{"text": "\\ud800"}', "lone surrogate"),
    ],
)
def test_broken_json_says_where(tmp_path, line, said):
    path = write(tmp_path / "a.jsonl", '{"text": "good"}\n' + line)
    message = error_of(Corpus(path))
    assert said in message
    assert f"{path} line 2" in message


WIKITEXT = """
 = First town =

 It is a <unk> place , 3 @-@ fold .
 = Goals ; A =
 Assists ; written out in a legend .

 = = History = =

 Nothing happened .
 = but so it goes on =

 = Second town =

 It is not there .
"""


@pytest.mark.parametrize("name", ["wiki.train.tokens", "wikitext-small.txt", "wikitext-x/train.txt.gz"])
def test_wikitext_begins_documents_at_titles(tmp_path, name):
    assert list(Corpus(write(tmp_path / name, WIKITEXT))) == [
        "It is a <unk> place , 3 @-@ fold .\n= Goals ; A =\nAssists ; written out in a legend .\n"
        "Nothing happened .\n= but so it goes on =",
        "It is not there .",
    ]


def test_wikitext_without_titles_is_an_error(tmp_path):
    assert "no heading" in error_of(Corpus(write(tmp_path / "a.tokens", "Text .\n")))


def test_folder_reads_sorted_files(tmp_path):
    write(tmp_path / "b.txt", "Three.\n\nFour.")
    write(tmp_path / "a" / "z.md", "# One\n\nstill one")
    write(tmp_path / "a" / "zz.jsonl.gz", '{"text": "Two."}')
    for unread in (".hidden.txt", ".git/x.txt", "c.csv", "d.py"):
        write(tmp_path / unread, "Not read.")
    assert list(Corpus(tmp_path)) == ["# One\nstill one", "Two.", "Three.", "Four."]


def test_installed_docs_is_a_source(monkeypatch):
    monkeypatch.setattr("bertkeras.text.corpus.iter_installed_docs", lambda: iter(["Docs."]))
    assert list(Corpus("installed-docs")) == ["Docs."]


def test_errors_before_reading(tmp_path):
    path = write(tmp_path / "a.csv", "x")
    for source, options, said in [
        (tmp_path / "absent.txt", {}, "does not exist"),
        (path, {}, "cannot tell the format"),
        (path, {"format": "csv"}, "unknown corpus format 'csv'"),
        (path, {"format": "folder"}, "is a file"),
        (tmp_path, {"format": "text"}, "is a folder"),
    ]:
        with pytest.raises(BertKerasError, match=said):
            Corpus(source, **options)


def test_empty_corpus_is_an_error(tmp_path):
    assert "is empty" in error_of(Corpus(write(tmp_path / "a.txt", " \n\n")))
    (tmp_path / "a.txt").unlink()
    assert "no file named" in error_of(Corpus(tmp_path))


def test_bytes_that_are_not_utf8_say_where(tmp_path):
    message = error_of(Corpus(write(tmp_path / "a.txt", "good\n好".encode() + "文".encode("gb18030") + b"\n")))
    assert "a.txt line 2 is not UTF-8 (byte 0xce at position 4)" in message
    assert "iconv" in message


def test_truncated_gzip_is_an_error(tmp_path):
    data = gzip.compress(os.urandom(3000).hex().encode())
    (tmp_path / "a.txt.gz").write_bytes(data[:1000])
    assert "cannot read" in error_of(Corpus(tmp_path / "a.txt.gz"))
    (tmp_path / "a.txt.gz").write_bytes(b"no gzip at all")
    assert "cannot read" in error_of(Corpus(tmp_path / "a.txt.gz"))


@pytest.mark.parametrize(("name", "count"), [("train", 600), ("valid", 60), ("test", 60)])
def test_wikitext_2_has_as_many_articles_as_published(name, count):
    home = os.environ.get("BERTKERAS_DATA_HOME")
    path = Path(home or "", "wikitext-2", f"{name}.txt.gz")
    if home is None or not path.exists():
        pytest.skip("wikitext-2 is not in BERTKERAS_DATA_HOME")
    assert sum(1 for _ in Corpus(path)) == count


def test_import_is_light():
    code = (
        "import sys, bertkeras.text, bertkeras.text.in_graph;"
        "print([m for m in ('tensorflow', 'tokenizers', 'torch') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# Sentences: "|" stands where a new one begins.
SENTENCES = [
    "It works. |Try it! |Really? |Yes.",
    "Mr. Fox met Dr. J. R. Hare at 3.14 p.m. sharp. |He left.",
    "See e.g. Fig. 3, i.e. the plot on pp. 10-12. |No. 5 is alive. |He said no. |I left.",
    "Version 2.10.1 is out. |Use tf.keras now. |numpy is in small letters.",
    "He lives in the U.S. |They do not. |The U.S. Army left.",
    "Fish, bread, etc. were sold. |Fish, bread, etc. |Then they left.",
    "It was on Jan. 5 in St. Paul. |Apple Inc. said so.",
    'He said "Stop!" |Then he ran. |(It was late.) |So what?!',
    "“Why?” he asked. |“Because.” |She left.",
    "Really... |Yes. |Wait ... what? |Go… |Now.",
    "1. Install it. |2. Run it.",
    "Take plan B. |Then plan C. |It rose in 2019. |Good.",
    "Smith et al. (2019) say so.",
    "one line\n|another line",
    "他说：“你好。”|然后走了。|真的吗？！|是的……|好吧；|再见！",
    "「好。」|他说『不。』|（对。）|完",
    '他说"你好。"|然后走了。|"真的吗？"|她问。',
    "今天天气好!|你呢?|我很好。",
    "圆周率是3.14，约等于3.1。|对。",
]


@pytest.mark.parametrize("marked", SENTENCES)
def test_sentences(marked):
    assert split_sentences(marked.replace("|", "")) == [part.strip() for part in marked.split("|")]


@given(st.text(st.sampled_from("aB1 .!?…。！？；\"'”)』\n\tU.SMr中")) | st.text())
def test_sentences_lose_nothing(text):
    found = split_sentences(text)
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)
    assert all(sentence and sentence == sentence.strip() and "\n" not in sentence for sentence in found)


WORDS_AND_MARKS = [*"aBé1²_ .!?…。；\"'”)中", "Mr", "e.g", "U.S", "etc", "Jan", "No", "It", "word", "\u0301", "\u2028"]


@given(st.lists(st.sampled_from(WORDS_AND_MARKS)).map("".join))
def test_the_quick_look_at_a_full_stop_changes_no_sentence(text):
    quick = split_sentences(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentences, "_is_word", lambda text: False)
        assert split_sentences(text) == quick


def test_sentences_of_long_runs_take_linear_time():
    for text in ("!" * 200_000 + "x", "a." * 100_000, "。" * 200_000, ".'" * 100_000):
        assert "".join(split_sentences(text)) == text
