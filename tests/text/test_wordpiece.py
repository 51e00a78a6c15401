import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.text.encoding import padded
from bertkeras.text.wordpiece import WordPieceTokenizer
from bertkeras.text.wordpiece_files import read_vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, "un", "##want", "##ed", "coffee", "cafe", "Cafe", "café", "mask", "[", "]", ",", "中", "国", "##国"]
TEXTS = [
    "The cats sat on the mats, the rats sat on the hats; that is what the cats and the rats did.",
    "A café in Ålesund sells naïve coffee at 3.50, and nobody complained about the coffee or the café.",
    "我们在中国学习语言，我们也在中国喝咖啡。语言学习很有意思，我们很喜欢。",
    "Der Fuß des Berges, der Gruß der Frau: der Fuß und der Gruß.",
] * 3


@pytest.fixture(scope="module")
def trained():
    return WordPieceTokenizer.train(TEXTS, 140)


def error(function, *args, **options):
    with pytest.raises(BertKerasError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Training.


def test_trained_vocabulary(trained):
    assert trained.vocabulary_size == len(trained.vocabulary) == 140
    assert list(trained.vocabulary[:5]) == SPECIAL
    assert trained.special_ids == (0, 1, 2, 3, 4)
    assert {"the", "我", "国", "##ß"} <= set(trained.vocabulary)
    assert "##国" not in trained.vocabulary  # a Chinese character is a word of its own
    assert all(trained.unk_id not in encoding.ids for encoding in trained.encode_batch(TEXTS))


def test_training_is_the_same_in_every_process():
    code = (
        "import random\nfrom bertkeras.text.wordpiece import WordPieceTokenizer\n"
        "r = random.Random(0)\n"
        "words = [''.join(r.choice('abcdefghijklmnop') for _ in range(r.randint(1, 7))) for _ in range(3000)]\n"
        "print(WordPieceTokenizer.train([' '.join(words)], 600).fingerprint())"
    )
    results = {subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(3)}
    assert len(results) == 1


def test_training_does_not_depend_on_the_order_of_texts(trained):
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    assert WordPieceTokenizer.train(iter(shuffled), 140) == trained


def test_large_alphabets_are_kept():
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    tokenizer = WordPieceTokenizer.train(["".join(characters)] * 2, 3005)
    assert set(tokenizer.vocabulary) == {*SPECIAL, *characters}


def test_counts_decide_the_pieces():
    # "ab" 2500 times (more than one line of the trainer's input), "cd" 3 times, "ef" once.
    texts = ["ab " * 2500, "cd cd cd", "ef"]
    assert WordPieceTokenizer.train(texts, 14).vocabulary[5:] == ("a", "b", "c", "d", "##a", "##b", "##c", "##d", "ab")
    assert WordPieceTokenizer.train(texts, 15).vocabulary[-1] == "cd"
    assert "only 15 pieces at min_frequency=2" in error(WordPieceTokenizer.train, texts, 16)
    assert "only 15 pieces at min_frequency=3" in error(WordPieceTokenizer.train, texts, 16, min_frequency=3)
    assert WordPieceTokenizer.train(texts, 20, min_frequency=1).vocabulary[-1] == "ef"


def test_alphabet_size_keeps_the_most_frequent():
    tokenizer = WordPieceTokenizer.train(["b b b a a a c c d"], 7, alphabet_size=2, min_frequency=1)
    assert tokenizer.vocabulary[5:] == ("a", "b")


def test_training_errors():
    train = WordPieceTokenizer.train
    assert "no words" in error(train, [], 100)
    assert "no words" in error(train, [" \n"], 100)
    assert "4 characters and the special tokens alone need 13 pieces" in error(train, ["abcd abcd"], 12)
    assert "got one str" in error(train, "some text", 100)
    assert "must give str, got bytes" in error(train, [b"text"], 100)
    assert "vocabulary_size must be" in error(train, ["text"], 0)
    assert "must be punctuation" in error(train, TEXTS, 200, continuation_prefix="x")
    assert "no words" in error(train, ["a" * 11 + " " + "b" * 12], 20, max_characters_per_word=10)


def test_training_options():
    tokenizer = WordPieceTokenizer.train(TEXTS, 190, lowercase=False, continuation_prefix="@@", split_cjk=False)
    assert {"Fuß", "café", "@@国", "我们"} <= set(tokenizer.vocabulary)
    assert "é" not in WordPieceTokenizer.train(TEXTS, 140, lowercase=False, strip_accents=True).vocabulary


# Encoding.


def test_encode_gives_spans_of_the_original_text():
    tokenizer = WordPieceTokenizer(PIECES)
    text = "  UNWANTED\u00a0CAFÉ,cafe\u0301中国x"
    encoding = tokenizer.encode(text)
    assert encoding.tokens == [
        "[CLS]", "un", "##want", "##ed", "cafe", ",", "cafe", "中", "国", "[UNK]", "[SEP]"
    ]  # fmt: skip
    assert encoding.ids == [2, 5, 6, 7, 9, 15, 9, 16, 17, 1, 3]
    assert encoding.segment_ids == [0] * 11
    spans = [text[start:end] for start, end in encoding.offsets]
    assert spans[:6] == ["", "UN", "WANT", "ED", "CAFÉ", ","]
    assert spans[6].startswith("cafe")
    assert spans[7:] == ["中", "国", "x", ""]
    assert encoding.offsets[0] == encoding.offsets[-1] == (0, 0)
    assert len(encoding) == 11


def test_encode_pair():
    encoding = WordPieceTokenizer(PIECES).encode("coffee", "unwanted")
    assert encoding.tokens == ["[CLS]", "coffee", "[SEP]", "un", "##want", "##ed", "[SEP]"]
    assert encoding.segment_ids == [0, 0, 0, 1, 1, 1, 1]
    assert encoding.offsets == [(0, 0), (0, 6), (0, 0), (0, 2), (2, 6), (6, 8), (0, 0)]
    bare = WordPieceTokenizer(PIECES).encode("coffee", "unwanted", add_special_tokens=False)
    assert (bare.ids, bare.segment_ids) == ([8, 5, 6, 7], [0, 1, 1, 1])


def test_special_tokens_in_text_are_text_unless_asked():
    tokenizer = WordPieceTokenizer(PIECES)
    assert tokenizer.encode("coffee[MASK]", add_special_tokens=False).tokens == ["coffee", "[", "mask", "]"]
    marked = tokenizer.encode("coffee[MASK]", add_special_tokens=False, special_tokens_in_text=True)
    assert (marked.tokens, marked.offsets) == (["coffee", "[MASK]"], [(0, 6), (6, 12)])
    assert tokenizer.encode_ids(["[MASK]"]) == [[13, 12, 14]]


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [(7, 3, 99, (7, 3)), (7, 3, 8, (5, 3)), (3, 7, 8, (3, 5)), (7, 5, 7, (4, 3)), (5, 5, 7, (3, 4)), (9, 1, 1, (1, 0))],
)
def test_truncation_takes_from_the_longer(first, second, room, kept):
    tokenizer = WordPieceTokenizer([*SPECIAL, "a", "b"])
    encoding = tokenizer.encode("a " * first, "b " * second, max_length=room + 3)
    assert encoding.tokens == ["[CLS]", *["a"] * kept[0], "[SEP]", *["b"] * kept[1], "[SEP]"]


def test_truncation_of_one_text():
    tokenizer = WordPieceTokenizer(PIECES)
    assert tokenizer.encode("unwanted coffee", max_length=4).tokens == ["[CLS]", "un", "##want", "[SEP]"]
    assert len(tokenizer.encode("coffee " * 3000)) == 3002
    assert "leaves no room for text; use 3 or more" in error(tokenizer.encode, "coffee", max_length=2)
    assert "use 4 or more" in error(tokenizer.encode, "coffee", "coffee", max_length=3)


def test_batches_equal_single_texts(trained):
    pairs = TEXTS[::-1]
    batch = trained.encode_batch(TEXTS, pairs, max_length=17)
    assert batch == [trained.encode(a, b, max_length=17) for a, b in zip(TEXTS, pairs, strict=True)]
    assert trained.encode_batch([]) == []
    assert trained.encode_ids(TEXTS) == [trained.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert "equal length, got 1 and 2" in error(trained.encode_batch, ["a"], ["a", "b"])


def test_encoding_errors(trained):
    assert "must be a str, got list" in error(trained.encode, ["a"])
    assert "must be a str, got bytes" in error(trained.encode_batch, [b"a", "b"])
    assert "got one str" in error(trained.encode_batch, "text")
    assert "lone surrogate" in error(trained.encode, "ab\ud800")


def test_long_words_are_unknown():
    tokenizer = WordPieceTokenizer([*SPECIAL, "a", "##a"], max_characters_per_word=7)
    assert tokenizer.encode_ids(["a" * 7, "a" * 8]) == [[5] + [6] * 6, [1]]


def test_decode(trained):
    tokenizer = WordPieceTokenizer(PIECES)
    ids = tokenizer.encode("Unwanted, coffee 中国").ids
    assert tokenizer.decode(ids) == "unwanted, coffee 中 国"
    assert tokenizer.decode(np.array(ids), skip_special_tokens=False) == "[CLS] unwanted, coffee 中 国 [SEP]"
    assert "ids run from 0 to 18" in error(tokenizer.decode, [19])


# The vocabulary.


def test_lookups_and_flags():
    tokenizer = WordPieceTokenizer([*PIECES, "##"])
    assert tokenizer.token_to_id("##ed") == 7
    assert tokenizer.id_to_token(7) == "##ed"
    assert "not a piece" in error(tokenizer.token_to_id, "nonsense")
    for index in (-1, 20):
        assert "ids run from" in error(tokenizer.id_to_token, index)
    assert np.flatnonzero(tokenizer.continuation_flags()).tolist() == [6, 7, 18]
    assert np.flatnonzero(tokenizer.special_flags()).tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.special_flags().dtype == tokenizer.continuation_flags().dtype == bool


def test_special_tokens_may_stand_anywhere():
    tokenizer = WordPieceTokenizer({"a": 0, "[MASK]": 1, "[SEP]": 2, "[CLS]": 3, "[UNK]": 4, "[PAD]": 5})
    assert tokenizer.encode("a b").ids == [3, 0, 4, 2]
    assert tokenizer.special_ids == (5, 4, 3, 2, 1)
    assert tokenizer.mask_id == 1
    assert np.flatnonzero(~tokenizer.special_flags()).tolist() == [0]


def test_bad_vocabularies():
    assert "lacks [UNK], [MASK]" in error(WordPieceTokenizer, ["[PAD]", "[CLS]", "[SEP]"])
    assert "'un' twice, as 5 and 19" in error(WordPieceTokenizer, [*PIECES, "un"])
    assert "piece 19" in error(WordPieceTokenizer, [*PIECES, ""])
    assert "must be 0 to 1" in error(WordPieceTokenizer, {"a": 0, "b": 2})
    assert "must be punctuation" in error(WordPieceTokenizer, PIECES, continuation_prefix="")
    assert "max_characters_per_word" in error(WordPieceTokenizer, PIECES, max_characters_per_word=0)


def test_fingerprint_tells_tokenizers_apart():
    tokenizer = WordPieceTokenizer(PIECES)
    same = WordPieceTokenizer({piece: index for index, piece in enumerate(PIECES)}, strip_accents=True)
    assert tokenizer == same
    assert hash(tokenizer) == hash(same)
    others = [
        WordPieceTokenizer(PIECES[:-1]),
        WordPieceTokenizer([*PIECES[:-2], PIECES[-1], PIECES[-2]]),
        WordPieceTokenizer(PIECES, lowercase=False),
        WordPieceTokenizer(PIECES, strip_accents=False),
        WordPieceTokenizer(PIECES, split_cjk=False),
        WordPieceTokenizer(PIECES, continuation_prefix="@@"),
        WordPieceTokenizer(PIECES, max_characters_per_word=99),
    ]
    assert len({tokenizer.fingerprint(), *(other.fingerprint() for other in others)}) == 8
    assert tokenizer != "a string"
    for one in [tokenizer, *others]:
        assert WordPieceTokenizer.from_config(json.loads(json.dumps(one.get_config()))).get_config() == one.get_config()
        assert pickle.loads(pickle.dumps(one)) == one


# Files.

OPTIONS = [
    {},
    {"lowercase": False},
    {"strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"split_cjk": False},
    {"continuation_prefix": "@@"},
    {"max_characters_per_word": 7},
]
HARD = [
    *TEXTS,
    "Café [MASK] unwanted İstanbul naïve\u00a0Fuß",
    "中国 한국어 हिन्दी ﬁ ２ 👩\u200d💻 \u00ad\x07 soft\u00adhyphen",
    "a" * 101,
    "",
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_saved_files_load_again(tmp_path, options):
    tokenizer = WordPieceTokenizer.train(TEXTS, 140, **options)
    tokenizer.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "tokenizer.json", "tokenizer_config.json", "vocab.txt"
    ]  # fmt: skip
    loaded = WordPieceTokenizer.load(tmp_path / "new" / "folder")
    assert loaded.get_config() == tokenizer.get_config()
    assert loaded.encode_batch(HARD) == tokenizer.encode_batch(HARD)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_transformers_gives_the_same_ids(tmp_path, options):
    transformers = pytest.importorskip("transformers")
    tokenizer = WordPieceTokenizer.train(TEXTS, 140, **options)
    tokenizer.save(tmp_path)
    loaders = [transformers.AutoTokenizer]
    if not {"continuation_prefix", "max_characters_per_word"} & set(options):
        loaders.append(transformers.BertTokenizerFast)
    for loader in loaders:
        theirs = loader.from_pretrained(tmp_path)
        for text in HARD:
            ours = tokenizer.encode(text, special_tokens_in_text=True)
            assert theirs(text)["input_ids"] == ours.ids
            assert theirs.decode(ours.ids) == tokenizer.decode(ours.ids, skip_special_tokens=False)
        for room in range(3, 40):
            pair = tokenizer.encode(HARD[0], HARD[1], max_length=room + 3)
            row = theirs(HARD[0], HARD[1], max_length=room + 3, truncation=True, return_offsets_mapping=True)
            assert row["input_ids"] == pair.ids
            assert row["token_type_ids"] == pair.segment_ids
            assert row["offset_mapping"] == pair.offsets
        assert (theirs.pad_token_id, theirs.mask_token_id) == (tokenizer.pad_id, tokenizer.mask_id)


def test_a_vocabulary_file_alone(tmp_path):
    uncased = [*SPECIAL, "[unused1]", "cafe", "##s", "\u2028", "<S>"]
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(uncased).encode())
    for where in (tmp_path, tmp_path / "vocab.txt"):
        loaded = WordPieceTokenizer.load(where)
        assert loaded.vocabulary == tuple(uncased)
        assert (loaded.lowercase, loaded.strip_accents, loaded.split_cjk) == (True, None, True)
        assert not WordPieceTokenizer.load(where, lowercase=False).lowercase
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenize_chinese_chars": false}')
    loaded = WordPieceTokenizer.load(tmp_path)
    assert (loaded.lowercase, loaded.split_cjk) == (False, False)


def test_a_cased_vocabulary_file_asks_for_lowercase(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "Cafe"]) + "\n")
    assert "'Cafe' with a capital letter" in error(WordPieceTokenizer.load, tmp_path)
    assert WordPieceTokenizer.load(tmp_path, lowercase=False).encode_ids(["Cafe"]) == [[5]]


def test_only_tokenizer_json(tmp_path):
    tokenizer = WordPieceTokenizer(PIECES, lowercase=False, continuation_prefix="@@")
    tokenizer.save(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert WordPieceTokenizer.load(tmp_path) == tokenizer


def test_loading_errors(tmp_path):
    load = WordPieceTokenizer.load
    assert "has no tokenizer" in error(load, tmp_path)
    assert "has no tokenizer" in error(load, tmp_path / "absent")
    WordPieceTokenizer(PIECES).save(tmp_path)
    good = (tmp_path / "tokenizer.json").read_text()

    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert "pass lowercase=" in error(load, tmp_path)
    assert not load(tmp_path, lowercase=False).lowercase
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert "tokenizer_config.json line 1 is not JSON" in error(load, tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()

    (tmp_path / "vocab.txt").write_text("\n".join(reversed(PIECES)))
    assert "different vocabularies" in error(load, tmp_path)
    (tmp_path / "vocab.txt").write_text("a\n\nb\n")
    assert "line 2 is blank" in error(load, tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"a\n\xff\n")
    assert "not UTF-8 at byte 2" in error(load, tmp_path)
    (tmp_path / "vocab.txt").unlink()

    for old, new, said in [
        ('"type": "WordPiece",\n    "unk_token"', '"type": "BPE",\n    "unk_token"', "model is BPE"),
        ('"BertNormalizer"', '"Lowercase"', "normalizer is Lowercase"),
        ('"BertPreTokenizer"', '"Whitespace"', "pre_tokenizer is Whitespace"),
        ('"clean_text": true', '"clean_text": false', "clean_text is off"),
        ('"content": "[MASK]"', '"content": "<new>"', "<new> outside the vocabulary"),
    ]:
        assert old in good
        (tmp_path / "tokenizer.json").write_text(good.replace(old, new, 1))
        assert said in error(load, tmp_path)


def test_saving_is_atomic(tmp_path, monkeypatch):
    WordPieceTokenizer(PIECES).save(tmp_path)
    before = (tmp_path / "vocab.txt").read_bytes()

    def broken(self, data):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", broken)
    assert "disk full" in error(WordPieceTokenizer(PIECES[:-1]).save, tmp_path)
    assert (tmp_path / "vocab.txt").read_bytes() == before


def test_a_piece_with_a_line_break_cannot_be_saved(tmp_path):
    assert "line break" in error(WordPieceTokenizer([*PIECES, "a\nb"]).save, tmp_path)


@pytest.mark.parametrize(
    ("name", "size", "lowercase"),
    [
        ("uncased", 30522, True),
        ("cased", 28996, False),
        ("chinese", 21128, True),
        ("multilingual-cased", 119547, False),
    ],
)
def test_published_vocabularies(name, size, lowercase):
    home = os.environ.get("BERTKERAS_DATA_HOME")
    path = Path(home or "", "bert-vocabs", f"bert-base-{name}-vocab.txt")
    if home is None or not path.exists():
        pytest.skip("bert-vocabs is not in BERTKERAS_DATA_HOME")
    tokenizer = WordPieceTokenizer.load(path, lowercase=None if lowercase else False)
    assert tokenizer.vocabulary_size == len(read_vocabulary(path)) == size
    assert tokenizer.lowercase is lowercase
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizerFast(str(path), do_lower_case=lowercase)
    for text in HARD:
        assert tokenizer.encode(text, special_tokens_in_text=True).ids == theirs(text)["input_ids"]


def test_padded():
    token_ids, padding_mask = padded([[5, 6, 7], [], [8]], pad_id=3)
    assert token_ids.tolist() == [[5, 6, 7], [3, 3, 3], [8, 3, 3]]
    assert padding_mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert (token_ids.dtype, padding_mask.dtype) == ("int32", "bool")
