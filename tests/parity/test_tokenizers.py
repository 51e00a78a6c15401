"""The same vocabulary in `transformers` gives the same ids, segments and offsets, and the graph the same ids.

`BERTKERAS_DATA_HOME` names the folder with the published vocabularies and the real texts. `BERTKERAS_PARITY_FULL=1`
reads every line of them and makes up 200,000 strings, and records what differs; otherwise it is a sample.
"""

import gzip
import json
import os
import time
import unicodedata
from collections import Counter
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertkeras.errors import BertKerasError
from bertkeras.text import InGraphTokenizer, WordPieceTokenizer
from tests.parity.results import FULL, record

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
pytest.importorskip("tensorflow_text", reason="tensorflow_text is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
load_vocab = pytest.importorskip("transformers.models.bert.tokenization_bert").load_vocab

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KINDS = json.loads(Path(__file__).with_name("hard_strings.json").read_text(encoding="utf-8"))
SURROGATES = KINDS.pop("lone surrogates")
HARD = [text for texts in KINDS.values() for text in texts]
CHARACTERS = sorted(set("".join(HARD)))

LOWERCASE = {"uncased": True, "cased": False, "chinese": True, "multilingual-cased": False}
# A vocabulary that knows every character of the hard strings, so that no difference hides behind an `[UNK]`.
OPTIONS = {
    "characters": {},
    "characters, cased": {"lowercase": False},
    "characters, with accents": {"strip_accents": False},
    "characters, cased without accents": {"lowercase": False, "strip_accents": True},
    "characters, Chinese words": {"split_cjk": False},
}
CASES = [*LOWERCASE, *OPTIONS]
HOME = os.environ.get("BERTKERAS_DATA_HOME")
NO_HOME = "BERTKERAS_DATA_HOME names no folder with the data"


class Case(NamedTuple):
    ours: WordPieceTokenizer
    theirs: "transformers.BertTokenizer"
    in_graph: "tf.types.experimental.PolymorphicFunction"


@cache
def case(name):
    if name in OPTIONS:
        ours = WordPieceTokenizer(every_character(), **OPTIONS[name])
        vocabulary = {piece: index for index, piece in enumerate(ours.vocabulary)}
    else:
        path = Path(HOME or "", "bert-vocabs", f"bert-base-{name}-vocab.txt")
        if HOME is None or not path.exists():
            pytest.skip(NO_HOME)
        ours = WordPieceTokenizer.load(path, lowercase=LOWERCASE[name])
        vocabulary = load_vocab(path)
    theirs = transformers.BertTokenizer(
        vocab=vocabulary,
        do_lower_case=ours.lowercase,
        strip_accents=ours.strip_accents,
        tokenize_chinese_chars=ours.split_cjk,
    )
    assert theirs.get_vocab() == {piece: index for index, piece in enumerate(ours.vocabulary)}
    return Case(ours, theirs, tf.function(InGraphTokenizer(ours), input_signature=[tf.TensorSpec([None], tf.string)]))


def every_character():
    forms = {form for one in CHARACTERS for form in (one, unicodedata.normalize("NFD", one))}
    letters = sorted(set("".join(forms | {form.lower() for form in forms})) - set("\0\t\n\r "))
    return [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]


def differences(one, texts, pairs=None, *, special_tokens_in_text=False, max_length=None):
    """The texts on which ids or segments differ, those on which offsets do, and those on which the graph's ids do."""
    ours = one.ours.encode_batch(texts, pairs, max_length=max_length, special_tokens_in_text=special_tokens_in_text)
    theirs = one.theirs(
        texts,
        pairs,
        truncation=max_length is not None,
        max_length=max_length,
        return_offsets_mapping=True,
        return_attention_mask=False,
        split_special_tokens=not special_tokens_in_text,
    )
    rows = list(zip(theirs["input_ids"], theirs["token_type_ids"], theirs["offset_mapping"], strict=True))
    found = {
        "ids": [t for t, a, b in zip(texts, ours, rows, strict=True) if (a.ids, a.segment_ids) != b[:2]],
        "offsets": [t for t, a, b in zip(texts, ours, rows, strict=True) if a.offsets != b[2]],
        "in_graph": [],
    }
    if pairs is None and max_length is None and not special_tokens_in_text:
        in_graph = one.in_graph(tf.constant([text.encode() for text in texts])).to_list()
        found["in_graph"] = [t for t, a, b in zip(texts, in_graph, rows, strict=True) if a != b[0][1:-1]]
    return found


NONE = {"ids": [], "offsets": [], "in_graph": []}
ROWS = []


def keep(name, kind, strings, counts, seconds):
    """Add a row to the results. Of made-up strings the seconds are those of all vocabularies, which take turns."""
    numbers = {f"differences_{what}": counts[what] for what in NONE}
    ROWS.append({"vocabulary": name, "texts": kind, "strings": strings, "seconds": round(seconds, 1), **numbers})
    packages = {package: version(package) for package in ("transformers", "tokenizers", "tensorflow-text")}
    record("tokenizers", {"rows": ROWS, "versions": packages})


@pytest.mark.parametrize("name", CASES)
def test_hard_strings(name):
    start = time.perf_counter()
    found = differences(case(name), HARD)
    counts = {what: len(texts) for what, texts in found.items()}
    keep(name, "hard strings", len(HARD), counts, time.perf_counter() - start)
    assert found == NONE
    assert differences(case(name), HARD, special_tokens_in_text=True) == NONE


@pytest.mark.parametrize("special_tokens_in_text", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_pairs_and_truncation(name, special_tokens_in_text):
    pairs = [*HARD[7:], *HARD[:7]]
    for max_length in (None, 4, 5, 8, 13, 64):
        options = {"special_tokens_in_text": special_tokens_in_text, "max_length": max_length}
        assert differences(case(name), HARD, pairs, **options) == NONE
        assert differences(case(name), HARD, **options) == NONE


@pytest.mark.parametrize("name", CASES)
def test_one_by_one(name):
    one = case(name)
    for text in HARD:
        ours, theirs = one.ours.encode(text), one.theirs(text, return_offsets_mapping=True, split_special_tokens=True)
        assert (ours.ids, ours.offsets) == (theirs["input_ids"], theirs["offset_mapping"]), text


@pytest.mark.parametrize("name", CASES)
def test_special_tokens_in_text(name):
    """What `transformers` does unless told otherwise is `special_tokens_in_text=True`."""
    one, text = case(name), "a [MASK][SEP] b"
    marked, plain = (one.ours.encode(text, special_tokens_in_text=answer).ids for answer in (True, False))
    assert one.theirs(text)["input_ids"] == marked != plain
    assert one.ours.mask_id in marked
    assert one.ours.mask_id not in plain


@pytest.mark.parametrize("special_tokens_in_text", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_lone_surrogates_are_refused(name, special_tokens_in_text):
    one = case(name)
    for text in SURROGATES:
        with pytest.raises(TypeError):
            one.theirs(text)
        for batch in ([text], ["a", text]):
            with pytest.raises(BertKerasError, match=r"^text [01] has a lone surrogate, '\\ud.*$") as caught:
                one.ours.encode_batch(batch, special_tokens_in_text=special_tokens_in_text)
            assert "\n" not in str(caught.value)
        # UTF-8 cannot write one; its bytes are invalid, and those are dropped.
        data = text.encode(errors="surrogatepass")
        assert one.in_graph(tf.constant([data])).to_list() == one.ours.encode_ids([data.decode(errors="replace")])


# Real texts.

SUFFIXES = {".txt", ".tsv", ".csv", ".json", ".jsonl", ".iob2", ".conll", ".annotated", ".dev", ".test", ".5000"}


@cache
def real_lines():
    """Every line of every text in the data home, each once; of JSON the strings."""
    lines = {}
    for path in sorted(Path(HOME).rglob("*")):
        name = Path(path.name.removesuffix(".gz"))
        if name.suffix in SUFFIXES and path.is_file():
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
            documents = [text] if name.suffix == ".json" else text.split("\n")
            if name.suffix in {".json", ".jsonl"}:
                documents = [s for document in documents if document for s in strings(json.loads(document))]
            lines.update(dict.fromkeys(line for document in documents for line in document.split("\n")))
    return list(lines)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


@pytest.mark.parametrize("name", LOWERCASE)
def test_real_texts(name):
    one = case(name)
    lines = real_lines() if FULL else real_lines()[::101]
    marked = [line for line in lines if any(token in line for token in SPECIAL)]
    start, counts = time.perf_counter(), Counter()
    for at in range(0, len(lines), 4000):
        counts.update({what: len(texts) for what, texts in differences(one, lines[at : at + 4000]).items()})
    keep(name, "real texts", len(lines), counts, time.perf_counter() - start)
    assert not any(counts.values())
    assert not marked or differences(one, marked, special_tokens_in_text=True) == NONE


# Strings that are made up.

PARTS = [*CHARACTERS, *SPECIAL, *[" "] * 100, "##", "a" * 99, "\u00e9" * 100]
any_string = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PARTS)).map("".join),
    *(st.text(sorted({" ", *"".join(texts)})) for texts in KINDS.values()),
)


def test_made_up_strings():
    cases = {name: case(name) for name in (CASES if HOME else OPTIONS)}
    start, made = time.perf_counter(), set()

    @settings(
        max_examples=6000 if FULL else 120,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(any_string, min_size=50, max_size=50, unique=True), st.integers(4, 40))
    def check(texts, max_length):
        made.update(texts)
        for name, one in cases.items():
            assert differences(one, texts) == NONE, name
            options = {"special_tokens_in_text": True, "max_length": max_length}
            assert differences(one, texts, texts[::-1], **options) == NONE, name

    check()
    assert len(made) >= (200_000 if FULL else 4_000)  # some strings come up in several lists
    for name in cases:
        keep(name, "made-up strings", len(made), Counter(), time.perf_counter() - start)
