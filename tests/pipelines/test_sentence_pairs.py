import numpy as np
import pytest

from bertkeras import BertKerasError
from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions, make_rows

CLS, SEP, PAD, FIRST = 2, 3, 0, 10


def corpus(documents=97, seed=0, longest=60):
    """Tokens number themselves, so that a row tells where its text came from."""
    random = np.random.default_rng(seed)
    starts, document_starts, at = [], [], 0
    for _ in range(documents):
        document_starts.append(at)
        for length in random.integers(1, longest, random.integers(2, 31)):
            starts.append(at)
            at += length
    return DocumentBlock(
        np.arange(FIRST, FIRST + at, dtype="int32"),
        np.zeros(0, bool),
        np.array(starts, "int64"),
        np.array(document_starts, "int64"),
    )


def numpy_rows(block, options, block_number=0, pass_number=0):
    return {name: value.numpy() for name, value in make_rows(block, options, block_number, pass_number).items()}


def parts(rows):
    """A and B of every row, as places in the block's tokens."""
    for ids, second, label in zip(rows["token_ids"], rows["second_start"], rows["label"], strict=True):
        end = int((ids != PAD).sum())
        assert ids[0] == CLS
        assert ids[second - 1] == SEP
        assert ids[end - 1] == SEP
        yield ids[1 : second - 1] - FIRST, ids[second : end - 1] - FIRST, label


def document_of(block, place):
    return np.searchsorted(block.document_starts, place, side="right") - 1


OPTIONS = RowOptions(61, cls_id=CLS, sep_id=SEP, pad_id=PAD, short_row_probability=0.0)


def test_next_sentence_pairs():
    block = corpus()
    rows = numpy_rows(block, OPTIONS)
    starts = set(block.sentence_starts.tolist())
    for a, b, label in parts(rows):
        assert len(a) >= 1
        assert len(b) >= 1
        assert (np.diff(a) == 1).all()
        assert (np.diff(b) == 1).all()
        assert document_of(block, a[0]) == document_of(block, a[-1])
        assert document_of(block, b[0]) == document_of(block, b[-1])
        assert int(b[0]) in starts
        if label == 0:
            assert b[0] == a[-1] + 1
            assert document_of(block, a[0]) == document_of(block, b[0])
        else:
            assert document_of(block, a[0]) != document_of(block, b[0])


def test_half_the_pairs_are_false_and_the_length_tells_nothing():
    block = corpus(documents=900)
    rows = numpy_rows(block, OPTIONS)
    labels = rows["label"]
    n = len(labels)
    assert n > 5000
    assert abs(labels.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    lengths = (rows["token_ids"] != PAD).sum(1)
    for measure in (lengths, rows["second_start"]):
        of_true, of_false = measure[labels == 0], measure[labels == 1]
        spread = measure.std() * np.sqrt(1 / len(of_true) + 1 / len(of_false))
        assert abs(of_true.mean() - of_false.mean()) < 4 * spread


def test_true_pairs_and_dropped_windows_tile_the_documents():
    block = corpus()
    rows = numpy_rows(block, OPTIONS)
    covered = np.zeros(len(block.tokens), int)
    for a, b, label in parts(rows):
        covered[a] += 1
        if label == 0:
            covered[b] += 1
    assert covered.max() == 1
    false_b = sum(len(b) for _, b, label in parts(rows) if label == 1)
    assert covered.sum() + false_b + rows["unpaired_tokens"] == len(block.tokens)


def test_full_rows_have_no_padding():
    rows = numpy_rows(corpus(), OPTIONS)
    assert ((rows["token_ids"] != PAD).sum(1) == 61).mean() > 0.6  # all but the ends of documents


def test_passes_and_seeds_cut_elsewhere():
    block = corpus()
    base = numpy_rows(block, OPTIONS)
    again = numpy_rows(block, OPTIONS)
    np.testing.assert_array_equal(base["token_ids"], again["token_ids"])
    for other in (
        numpy_rows(block, OPTIONS, pass_number=1),
        numpy_rows(block, OPTIONS, block_number=1),
        numpy_rows(block, RowOptions(61, short_row_probability=0.0, seed=1)),
    ):
        same = {tuple(row) for row in base["token_ids"]} & {tuple(row) for row in other["token_ids"]}
        assert len(same) < len(base["token_ids"]) / 4


def test_short_rows_keep_a_and_b_touching():
    block = corpus()
    rows = numpy_rows(block, RowOptions(61, short_row_probability=1.0))
    lengths = (rows["token_ids"] != PAD).sum(1)
    assert lengths.min() < 15
    assert 20 < lengths.mean() < 45
    for a, b, label in parts(rows):
        if label == 0:
            assert b[0] == a[-1] + 1
    mixed = numpy_rows(block, RowOptions(61, short_row_probability=0.5))
    assert lengths.mean() < (mixed["token_ids"] != PAD).sum(1).mean()


def test_sentence_order():
    block = corpus(documents=400)
    rows = numpy_rows(block, RowOptions(61, pairs="sop", short_row_probability=0.0))
    for a, b, label in parts(rows):
        assert b[0] == a[-1] + 1 if label == 0 else a[0] == b[-1] + 1
    n = len(rows["label"])
    assert abs(rows["label"].mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


@pytest.mark.parametrize("short", [0.0, 1.0])
def test_no_cut_sentence_tells_the_order(short):
    block = corpus(documents=200, longest=20)
    rows = numpy_rows(block, RowOptions(61, pairs="sop", short_row_probability=short))
    bounds = {*block.sentence_starts.tolist(), len(block.tokens)}
    used = 0
    for a, b, _ in parts(rows):
        assert {a[0], a[-1] + 1, b[0], b[-1] + 1} <= bounds
        used += len(a) + len(b)
    assert used + rows["unpaired_tokens"] == len(block.tokens)
    assert len(rows["label"]) > 100


def test_short_sentence_orders_are_shorter():
    block = corpus(documents=200, longest=20)
    whole, short = (
        (numpy_rows(block, RowOptions(61, pairs="sop", short_row_probability=share))["token_ids"] != PAD).sum(1).mean()
        for share in (0.0, 1.0)
    )
    assert short < 0.8 * whole


def test_single_segments_tile_everything():
    block = corpus()
    rows = numpy_rows(block, RowOptions(61, pairs="none"))
    tokens = rows["token_ids"][rows["token_ids"] >= FIRST] - FIRST
    assert sorted(tokens.tolist()) == list(range(len(block.tokens)))
    assert (rows["second_start"] == 61).all()
    assert (rows["label"] == 0).all()
    ends = (rows["token_ids"] != PAD).sum(1)
    assert (rows["token_ids"][np.arange(len(ends)), ends - 1] == SEP).all()
    for ids, end in zip(rows["token_ids"], ends, strict=True):
        assert document_of(block, ids[1] - FIRST) == document_of(block, ids[end - 2] - FIRST)


def test_a_window_without_a_boundary_makes_no_pair_and_is_counted():
    # Two documents of one sentence and one of two: only the last can be split.
    block = DocumentBlock(
        np.arange(10, 30, dtype="int32"), np.zeros(0, bool), np.array([0, 6, 12, 15]), np.array([0, 6, 12])
    )
    rows = numpy_rows(block, OPTIONS)
    assert len(rows["label"]) == 1
    assert rows["unpaired_tokens"] == 12
    (a, b, label), *_ = parts(rows)
    assert a.tolist() == [2 + 10, 3 + 10, 4 + 10]
    assert label == 1 or b.tolist() == [15, 16, 17, 18, 19]


def test_one_document_alone_makes_no_next_sentence_pair():
    block = DocumentBlock(np.arange(10, 30, dtype="int32"), np.zeros(0, bool), np.array([0, 9]), np.array([0]))
    assert len(numpy_rows(block, OPTIONS)["label"]) == 0


def test_word_boundaries_follow_their_tokens():
    block = corpus()
    block = block._replace(continues_word=block.tokens % 5 == 0)
    for pairs in ("nsp", "packed"):
        rows = numpy_rows(block, RowOptions(61, pairs=pairs))
        ids = rows["token_ids"]
        np.testing.assert_array_equal(rows["continues_word"], (ids >= FIRST) & (ids % 5 == 0))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"pairs": "both"}, "pairs must be"), ({"short_row_probability": 2.0}, "short_row_probability")],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(BertKerasError, match=words):
        RowOptions(61, **options)
    with pytest.raises(BertKerasError, match="at least 8"):
        RowOptions(7)
