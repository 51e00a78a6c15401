import json

import numpy as np
import pytest

from bertkeras import BertKerasError, WordPieceTokenizer
from bertkeras.pipelines.prepare import Prepared, prepare
from bertkeras.pipelines.sentence_pairs import RowOptions

WORDS = ["river", "stone", "bird", "light", "wind", "tree", "night", "song", "cloud", "rain"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "##s", "山", "水", "天", "地", *WORDS]
TOKENIZER = WordPieceTokenizer(PIECES)


def documents(count=60, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(count):
        sentences = [" ".join(random.choice(WORDS, random.integers(3, 9))) + "." for _ in range(random.integers(2, 9))]
        yield "\n".join(sentences)


def run(folder, texts=None, **changes):
    settings = {"held_out_share": 0.2, "passes": 2, "rows_per_shard": 50, **changes}
    options = settings.pop("options", RowOptions(24))
    return prepare(documents() if texts is None else texts, TOKENIZER, folder, options, **settings)


def tokens_of(records):
    rows = records.parse(list(records.stream(seed=None, repeat=False).as_numpy_iterator()))
    return rows["token_ids"].numpy()


def test_statistics_count_what_was_read(tmp_path):
    prepared = run(tmp_path / "out")
    statistics = prepared.statistics
    texts = list(documents())
    assert statistics["documents"] == 60
    assert statistics["sentences"] == sum(text.count("\n") + 1 for text in texts)
    assert statistics["tokens"] == sum(len(text.replace(".", " .").split()) for text in texts)
    assert 4 <= statistics["held_out_documents"] <= 22  # 12 expected, sd 3.1
    assert statistics["rows"] == prepared.train.rows
    assert statistics["held_out_rows"] == prepared.held_out.rows
    assert prepared.ngrams.unigrams[:5].sum() == 0
    assert 0 <= statistics["unpaired_share"] < 0.5
    assert WordPieceTokenizer.load(tmp_path / "out").fingerprint() == prepared.train.tokenizer


def test_held_out_documents_are_not_trained_on(tmp_path):
    texts = [f"{word} {word} {word}.\n{word} {word}." for word in WORDS] * 2
    random_half = run(tmp_path / "out", texts[:10], options=RowOptions(24, pairs="none"), held_out_share=0.4)
    train, held_out = (
        set(tokens_of(part).ravel()) - set(range(7)) for part in (random_half.train, random_half.held_out)
    )
    assert train
    assert held_out
    assert not train & held_out


def test_same_seed_same_rows_whatever_came_before(tmp_path):
    first, second = run(tmp_path / "one"), run(tmp_path / "two")
    np.testing.assert_array_equal(tokens_of(first.train), tokens_of(second.train))
    other = run(tmp_path / "three", options=RowOptions(24, seed=1))
    assert other.train.rows != first.train.rows or (tokens_of(other.train) != tokens_of(first.train)).any()


def test_passes_multiply_the_rows(tmp_path):
    options = RowOptions(24, pairs="none")
    one, three = (run(tmp_path / str(passes), passes=passes, options=options) for passes in (1, 3))
    assert one.held_out.rows == three.held_out.rows
    assert 2.5 * one.train.rows < three.train.rows < 3.5 * one.train.rows


def test_small_blocks_hold_the_same_text(tmp_path):
    options = RowOptions(24, pairs="none")
    whole = run(tmp_path / "whole", passes=1, options=options)
    blocks = run(tmp_path / "blocks", passes=1, options=options, block_tokens=100)
    assert sorted(tokens_of(whole.train).ravel()[tokens_of(whole.train).ravel() > 4]) == sorted(
        tokens_of(blocks.train).ravel()[tokens_of(blocks.train).ravel() > 4]
    )
    np.testing.assert_array_equal(whole.ngrams.counts, blocks.ngrams.counts)


def test_a_segmenter_gives_the_words_of_chinese(tmp_path):
    texts = ["山水天地。\n天地山水山水。" for _ in range(20)]
    prepared = run(tmp_path / "out", texts, segmenter=lambda s: [s[i : i + 2] for i in range(0, len(s), 2)], passes=1)
    rows = prepared.train.parse(list(prepared.train.stream(seed=None, repeat=False).as_numpy_iterator()))
    ids, goes_on = rows["token_ids"].numpy(), rows["continues_word"].numpy()
    first = [PIECES.index(sign) for sign in "山天"]
    second = [PIECES.index(sign) for sign in "水地"]
    assert goes_on[np.isin(ids, second)].all()
    assert not goes_on[np.isin(ids, first)].any()


def test_a_segmenter_that_changes_the_text_is_refused(tmp_path):
    with pytest.raises(BertKerasError, match="segmenter changed the text"):
        run(tmp_path / "out", segmenter=str.split)
    assert not (tmp_path / "out").exists()


def test_progress_is_told(tmp_path):
    seen = []
    run(tmp_path / "out", progress=lambda documents, tokens: seen.append((documents, tokens)))
    assert seen[-1][0] == 60
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("texts", "changes", "words"),
    [
        ([], {}, "no documents"),
        (["river stone."], {}, "no row to train on.*two documents"),
        (["river stone.\nbird."] * 9, {"held_out_share": 0.001}, "no row to evaluate on"),
        (["river stone.\nbird."] * 9, {"held_out_share": 0.0}, "held_out_share"),
        (["river stone.\nbird."] * 9, {"passes": 0}, "passes"),
    ],
)
def test_what_cannot_be_prepared_is_told(tmp_path, texts, changes, words):
    with pytest.raises(BertKerasError, match=words):
        run(tmp_path / "out", texts, **changes)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("x")
    with pytest.raises(BertKerasError, match="exists already"):
        run(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "precious.txt"]


def test_an_unfinished_folder_is_no_prepared_text(tmp_path):
    run(tmp_path / "out")
    (tmp_path / "out" / "prepared.json").unlink()
    with pytest.raises(BertKerasError, match="not to the end"):
        Prepared.open(tmp_path / "out")
    with pytest.raises(BertKerasError, match="bertkeras prepare"):
        Prepared.open(tmp_path / "nowhere")


def test_what_a_killed_attempt_left_is_cleared(tmp_path):
    left = tmp_path / "out.partial" / "train"
    left.mkdir(parents=True)
    (left / "rows-00099.tfrecord").write_bytes(b"half")
    prepared = run(tmp_path / "out")
    assert not (prepared.folder / "train" / "rows-00099.tfrecord").exists()
    assert not left.exists()
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["documents"] == 60
