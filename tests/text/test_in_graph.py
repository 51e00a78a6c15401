import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkeras.errors import BertKerasError
from bertkeras.text.in_graph import InGraphTokenizer
from bertkeras.text.wordpiece import WordPieceTokenizer

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_text")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OPTIONS = [
    {},
    {"lowercase": False},
    {"strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"split_cjk": False},
    {"continuation_prefix": "@@", "max_characters_per_word": 5},
]
# Every character that some rule treats apart, and what they become.
CHARACTERS = sorted(
    set(
        "abcmskiünAEIÉéÅßẞİıŉǅΣςσĳªº²½①ⅣﬁﬀＡａ２，。！？“”…„‐‑–—_-#[]()'.,!?$+=^`~|<>0129"
        "中国語𠀀𫠠鿿々〇한국देवनाग\u0301\u0327\u0345\u093f\u094d\u302e\U0001d165☕😀👩"
    )
    | set(unicodedata.normalize("NFD", "üÉéÅ한국ắ"))
    | set(unicodedata.normalize("NFKC", "ßﬁﬀＡａ２…½①").lower())
)
CONTROLS = (
    "\x00\x07\t\n\r\x1b\x1f\x7f\x85\xa0\xad\u1680\u2003\u2028\u200b\u200d\u202e\u3000\ue000\ufeff\ufffd\U000f0000"
)
HARD = [
    "",
    "   ",
    "plain ASCII text, don't touch: [MASK] (3.14) a_b ##ing!",
    "café CAFÉ cafe\u0301 naïve Å A\u030a ǅ İstanbul ıı",
    "Fuß FUẞ ﬁne ﬀ Σίσυφος ΟΔΟΣ ŉ ĳ ª º",
    "２０２４ Ａｂｃ ＡＢＣ，。！ ① ½ x² ℀ Ⅳ",
    "zero\u200dwidth\u200bjoin soft\u00adhyphen non\u00a0break \u202eturned",
    "bell\x07 null\x00 escape\x1b delete\x7f next\x85line tab\tend\r\n",
    "👩\u200d💻 😀☕ ☕️",
    "한국어 각 \u1100\u1161 हिन्दी किताब แมว",
    "中国人, 日本語のテキスト 𠀀𫠠 \u3007",
    "private\ue000use \U000f0000 \ufffd \ufeff",
    "a" * 99 + " " + "a" * 100 + " " + "a" * 101,
    "aaaaa aaaaaa ééééé éééééé",
    "é" * 99 + " " + "é" * 100 + " " + "é" * 101,
    "한" * 33 + " " + "한" * 34 + " " + "한" * 101,
    "a\u0327\u0301 a\u0301\u0327 \u0301alone",
]


def tokenizer_of(**options):
    """Knows every character by itself, so that any difference in normalisation shows in the ids."""
    prefix = options.get("continuation_prefix", "##")
    pieces = [*SPECIAL, *CHARACTERS, *(prefix + c for c in CHARACTERS), "ab", prefix + "ab", prefix + "-a", "can't"]
    return WordPieceTokenizer(list(dict.fromkeys(pieces)), **options)


PAIRS = [(tokenizer, InGraphTokenizer(tokenizer)) for tokenizer in (tokenizer_of(**options) for options in OPTIONS)]


def differences(tokenizer, in_graph, texts):
    expected = tokenizer.encode_ids(texts)
    result = in_graph(tf.constant([text.encode() for text in texts])).to_list()
    return [(text, a, b) for text, a, b in zip(texts, expected, result, strict=True) if a != b]


@pytest.mark.parametrize("pair", PAIRS, ids=map(str, OPTIONS))
def test_hard_strings(pair):
    assert differences(*pair, HARD) == []


@pytest.mark.parametrize("pair", PAIRS[:2], ids=map(str, OPTIONS[:2]))
def test_every_character_of_the_basic_plane(pair):
    codes = [*range(0xD800), *range(0xE000, 0x10000)]
    assert differences(*pair, [f"a{chr(code)}b" for code in codes]) == []


@pytest.mark.parametrize("pair", PAIRS, ids=map(str, OPTIONS))
def test_characters_of_the_other_planes(pair):
    codes = [*range(0x10000, 0x110000, 61), 0x2B820, 0x2CEAF, 0xE0001, 0xE0100]
    codes += [plane + end for plane in range(0x10000, 0x110000, 0x10000) for end in (0, 0xFFFD, 0xFFFE, 0xFFFF)]
    assert differences(*pair, [f"a{chr(code)}b" for code in codes]) == []


texts = st.lists(st.text(st.sampled_from([*CHARACTERS, *CONTROLS, *" " * 20])) | st.text(), min_size=1, max_size=50)


@settings(max_examples=60, deadline=None)
@given(texts=texts)
@pytest.mark.parametrize("pair", PAIRS[:3], ids=map(str, OPTIONS[:3]))
def test_any_text(pair, texts):
    assert differences(*pair, texts) == []


# Marks that stay though accents are removed, of the classes 7 and 9 (signs under a letter), 216, 224 and 230.
MARKS = "\U0001e94a\u1b44\U0001d165\u302e\U0001e944"
# Between them: nothing that counts (a joiner, an accent), what they cannot pass (vowel signs, a letter), and both.
BETWEEN = ["", "\u200d", "\u0301", "\u0941", "\u093f", "a", "中", ",", " ", "\U0001d160", "\u0301\u0941"]


@pytest.mark.parametrize("options", OPTIONS[:5], ids=str)
def test_marks_are_put_in_canonical_order(options):
    pieces = [*SPECIAL, *"a中,\u0941\u093f\U0001d158\U0001d16e\U0001d160", *MARKS]
    tokenizer = WordPieceTokenizer([*pieces, *(f"##{piece}" for piece in pieces[5:])], **options)
    in_graph = InGraphTokenizer(tokenizer)
    texts = [first + between + second for first in MARKS for between in BETWEEN for second in MARKS]
    texts += ["a".join(texts), MARKS * 3, MARKS[:2], "a", "", MARKS[::-1]]  # the order ends with the text
    assert differences(tokenizer, in_graph, texts) == []
    reordered = tokenizer.encode_ids(["\u302e\U0001d165"]) == tokenizer.encode_ids(["\U0001d165\u302e"])
    assert reordered == tokenizer.strips_accents


def test_invalid_bytes_are_dropped():
    tokenizer, in_graph = PAIRS[0]
    data = b"ab\xffc \xe4\xb8 a"
    assert in_graph(tf.constant([data])).to_list() == tokenizer.encode_ids([data.decode(errors="replace")])


def test_inside_a_dataset_and_a_saved_model(tmp_path):
    tokenizer, in_graph = PAIRS[0]
    expected = tokenizer.encode_ids(HARD)
    dataset = tf.data.Dataset.from_tensor_slices(HARD).batch(5).map(in_graph)
    assert dataset.element_spec.dtype == tf.int32
    assert [row for batch in dataset for row in batch.to_list()] == expected

    module = tf.Module()
    module.tokenize = tf.function(in_graph, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    assert tf.saved_model.load(str(tmp_path)).tokenize(tf.constant(HARD)).to_list() == expected
    assert in_graph(tf.constant([], tf.string)).shape == (0, None)


def test_made_while_tracing():
    @tf.function
    def tokenize(batch):
        return InGraphTokenizer(PAIRS[0][0])(batch)

    assert tokenize(tf.constant(HARD)).to_list() == PAIRS[0][0].encode_ids(HARD)


def test_errors():
    for wrong in (tf.constant("text"), tf.constant([["text"]]), tf.constant([1])):
        with pytest.raises(BertKerasError, match=r"string tensor of shape \(batch,\), got"):
            PAIRS[0][1](wrong)


def test_vocabularies_that_cannot_be_stored():
    long = "é" * 128
    assert InGraphTokenizer(WordPieceTokenizer([*SPECIAL, long, f"##{long}"]))(["é"]).to_list() == [[1]]
    for piece in ("a b", "a\t", "\n", "\0", f"a{long}", f"##{long}a"):
        with pytest.raises(BertKerasError, match=r"cannot store piece 6, .* bytes: .*; remove the piece$"):
            InGraphTokenizer(WordPieceTokenizer([*SPECIAL, "a", piece]))
    with pytest.raises(BertKerasError, match="continuation_prefix of two characters or more, got '@'"):
        InGraphTokenizer(WordPieceTokenizer([*SPECIAL, "a", "@b"], continuation_prefix="@"))
    with pytest.raises(BertKerasError, match="cannot use this vocabulary"):
        InGraphTokenizer(WordPieceTokenizer([*SPECIAL, "##'中"]))


def test_missing_tensorflow_text_says_what_to_install():
    code = (
        "import sys; sys.modules['tensorflow_text'] = None\n"
        "from bertkeras.text import InGraphTokenizer, WordPieceTokenizer\n"
        f"InGraphTokenizer(WordPieceTokenizer({SPECIAL}))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert "BertKerasError: InGraphTokenizer needs TensorFlow Text" in done.stderr
    assert 'pip install "bertkeras[tensorflow]"' in done.stderr


@pytest.mark.parametrize(("name", "lowercase"), [("uncased", True), ("cased", False), ("chinese", True)])
def test_published_vocabularies(name, lowercase):
    home = os.environ.get("BERTKERAS_DATA_HOME")
    path = Path(home or "", "bert-vocabs", f"bert-base-{name}-vocab.txt")
    if home is None or not path.exists():
        pytest.skip("bert-vocabs is not in BERTKERAS_DATA_HOME")
    tokenizer = WordPieceTokenizer.load(path, lowercase=lowercase)
    assert differences(tokenizer, InGraphTokenizer(tokenizer), HARD) == []
