import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bertkeras import BertKerasError
from bertkeras.pipelines.masking import Masking, default_max_predictions

VOCABULARY, LENGTH, MASK_ID, SPECIAL = 1009, 127, 4, (0, 1, 2, 3, 4)
CONTINUATION = np.arange(VOCABULARY) % 3 == 0  # every third piece continues a word
CONTINUATION[:5] = False


def masking(**changes):
    plain = Masking(VOCABULARY, MASK_ID, SPECIAL, max_predictions=20, continuation=CONTINUATION)
    return dataclasses.replace(plain, **changes)


def rows(count, length=LENGTH, seed=0):
    """`[CLS] ... [SEP] ... [SEP]` with padding after a random end."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, VOCABULARY, (count, length)).astype("int32")
    ends = random.integers(length // 2, length + 1, count)
    ids[:, 0] = 2
    ids[:, length // 3] = 3
    ids[np.arange(count), ends - 1] = 3
    ids[np.arange(length)[None] >= ends[:, None]] = 0
    return ids


def run(ids, row_numbers=None, **changes):
    numbers = tf.range(len(ids), dtype=tf.int64) if row_numbers is None else tf.constant(row_numbers, tf.int64)
    return {name: value.numpy() for name, value in masking(**changes)(tf.constant(ids), numbers).items()}


def chosen_mask(result, shape):
    """Which places of each row are to be predicted."""
    chosen = np.zeros(shape, int)
    row, prediction = np.nonzero(result["mlm_weights"])
    np.add.at(chosen, (row, result["mask_positions"][row, prediction]), 1)
    return chosen


@pytest.mark.parametrize(
    "changes", [{}, {"whole_words": True, "max_predictions": 30}, {"max_ngram": 3, "max_predictions": 30}]
)
def test_labels_positions_and_weights_belong_together(changes):
    ids = rows(300)
    result = run(ids, **changes)
    chosen = chosen_mask(result, ids.shape)
    assert chosen.max() == 1  # no place twice
    assert not chosen[np.isin(ids, SPECIAL)].any()
    row, prediction = np.nonzero(result["mlm_weights"])
    np.testing.assert_array_equal(
        result["mlm_labels"][row, prediction], ids[row, result["mask_positions"][row, prediction]]
    )
    np.testing.assert_array_equal(result["token_ids"][chosen == 0], ids[chosen == 0])
    unused = result["mlm_weights"] == 0
    assert (result["mask_positions"][unused] == 0).all()
    assert (result["mlm_labels"][unused] == 0).all()
    used = np.where(unused, LENGTH, result["mask_positions"])
    assert (np.diff(used, axis=1) >= 0).all()  # ascending, filling last


def test_shares_over_many_tokens():
    # 10 million ordinary tokens: the chosen share is 0.15 to within 5 binomial standard deviations, sqrt(pq/n) each;
    # of the 1.5 million chosen, 80 % [MASK], 10 % random, 10 % kept, likewise.
    total = chosen = masked = kept = 0
    for seed in range(40):
        ids = rows(2800, seed=seed)
        result = run(ids, row_numbers=np.arange(2800) + 2800 * seed)
        weights = result["mlm_weights"] > 0
        put = np.take_along_axis(result["token_ids"], result["mask_positions"], 1)[weights]
        true = result["mlm_labels"][weights]
        total += (~np.isin(ids, SPECIAL)).sum()
        chosen += weights.sum()
        masked += (put == MASK_ID).sum()
        kept += (put == true).sum()
        assert (np.isin(put, SPECIAL) <= (put == MASK_ID)).all()
    assert total > 10_000_000

    def off(count, share, n):
        return abs(count / n - share) / np.sqrt(share * (1 - share) / n)

    assert off(chosen, 0.15, total) < 5
    assert off(masked, 0.8, chosen) < 5
    # a random piece is the true one once in 1,004 times
    assert off(kept, 0.1 + 0.1 / (VOCABULARY - 5), chosen) < 5


def test_every_place_and_every_random_piece_is_as_likely():
    ids = np.full((30_000, 23), 7, "int32")
    ids[:, 0], ids[:, -1] = 2, 3
    result = run(ids, mask_share=0.0, random_share=1.0, max_predictions=4)
    per_place = chosen_mask(result, ids.shape).sum(0)[1:-1]  # expected 4,500 each, sd 62
    assert abs(per_place - 4500).max() < 5 * 62
    put = np.take_along_axis(result["token_ids"], result["mask_positions"], 1)[result["mlm_weights"] > 0]
    counts = np.bincount(put, minlength=VOCABULARY)
    assert counts[:5].sum() == 0
    expected = len(put) / (VOCABULARY - 5)  # about 94
    chi_square = ((counts[5:] - expected) ** 2 / expected).sum()
    assert abs(chi_square - 1003) < 5 * np.sqrt(2 * 1003)


def test_masks_depend_on_seed_and_row_number_alone():
    ids = rows(50)
    whole = run(ids)
    part = run(ids[[31, 7]], row_numbers=[31, 7])
    for name in whole:
        np.testing.assert_array_equal(part[name], whole[name][[31, 7]])
    assert (run(ids, seed=1)["mask_positions"] != whole["mask_positions"]).any()
    assert (run(ids, row_numbers=np.arange(50) + 50)["mask_positions"] != whole["mask_positions"]).any()


def check_words_are_whole(ids, chosen):
    ordinary = ~np.isin(ids, SPECIAL)
    after_special = np.pad(~ordinary[:, :-1], [(0, 0), (1, 0)], constant_values=True)
    goes_on = CONTINUATION[ids] & ordinary & ~after_special
    np.testing.assert_array_equal(chosen[:, 1:][goes_on[:, 1:]], chosen[:, :-1][goes_on[:, 1:]])


def test_whole_words_are_taken_whole_and_at_the_right_rate():
    ids = rows(4000)
    chosen = chosen_mask(run(ids, whole_words=True, max_predictions=40), ids.shape).astype(bool)
    check_words_are_whole(ids, chosen)
    n = (~np.isin(ids, SPECIAL)).sum()  # about 380,000 tokens, sd 0.0006
    assert abs(chosen.sum() / n - 0.15) < 5 * np.sqrt(0.15 * 0.85 / n)


def test_a_word_that_does_not_fit_the_predictions_is_left_whole():
    ids = rows(400)
    chosen = chosen_mask(run(ids, whole_words=True, rate=0.9, max_predictions=13), ids.shape).astype(bool)
    check_words_are_whole(ids, chosen)
    counts = chosen.sum(1)
    assert counts.max() == 13  # filled to the last where it can be
    assert (counts < 13).any()


def test_a_word_begins_after_a_special_piece_even_with_a_continuing_one():
    ids = np.tile(np.array([[2, 6, 6, 3]], "int32"), (4000, 1))  # a text may be cut inside a word
    result = run(ids, whole_words=True, rate=0.5)
    share = (result["mlm_weights"].sum(1) == 2).mean()  # sd 0.008
    assert abs(share - 0.5) < 0.04


def test_a_segmenter_decides_over_the_vocabulary():
    ids = np.full((500, 12), 8, "int32")  # 8 does not continue a word by the vocabulary
    ids[:, 0], ids[:, -1] = 2, 3
    flags = np.zeros(ids.shape, bool)
    flags[:, [2, 4, 5, 8, 10]] = True  # words: 1-2, 3-5, 6, 7-8, 9-10
    result = masking(whole_words=True, rate=0.3)(tf.constant(ids), tf.range(500, dtype=tf.int64), tf.constant(flags))
    chosen = chosen_mask({k: v.numpy() for k, v in result.items()}, ids.shape)
    for word in ((1, 2), (3, 4, 5), (6,), (7, 8), (9, 10)):
        assert (np.ptp(chosen[:, word], axis=1) == 0).all()
        assert chosen[:, word].any()


def test_ngrams_come_in_runs_of_words_and_never_cross_a_special_piece():
    ids = np.full((6000, 43), 7, "int32")
    ids[:, 0], ids[:, 21], ids[:, -1] = 2, 3, 3
    result = run(ids, max_ngram=3, max_predictions=20, rate=0.02)  # of 40 tokens: one unit, sometimes
    chosen = chosen_mask(result, ids.shape)
    sizes = chosen.sum(1)
    assert set(sizes) == {0, 1, 2, 3}
    for row in np.flatnonzero(sizes):
        places = np.flatnonzero(chosen[row])
        assert np.ptp(places) == len(places) - 1
        assert (places < 21).all() or (places > 21).all()
    # A run of n is drawn with weight 1/n and then taken with probability 0.8/n: counts go as 1/n^2.
    counts = np.bincount(sizes)[1:]
    assert 2.8 < counts[0] / counts[1] < 5.4
    assert 5.5 < counts[0] / counts[2] < 13


def test_pairs_of_words_in_a_batch_smaller_than_a_row():
    ids = np.full((8, 43), 7, "int32")
    ids[:, 0], ids[:, -1] = 2, 3
    chosen = chosen_mask(run(ids, max_ngram=2, max_predictions=40, rate=0.5), ids.shape)
    assert np.ptp(chosen[:, 15:42], axis=1).all()  # no run goes on to the end
    assert ((chosen[:, 1:-1] == 1) & (chosen[:, 2:] == 1)).any()
    alone = chosen_mask(run(ids, whole_words=True, max_predictions=40, rate=0.5), ids.shape)
    assert (alone != chosen).any()


def test_a_row_may_begin_inside_a_word():
    ids = np.tile(np.array([[6, 6, 10, 3]], "int32"), (500, 1))
    chosen = chosen_mask(run(ids, whole_words=True, rate=0.5), ids.shape)
    np.testing.assert_array_equal(chosen[:, 0], chosen[:, 1])
    assert set(chosen[:, 0]) == {0, 1}


def test_the_rate_is_exact_for_ngrams_too():
    ids = rows(4000)
    chosen = chosen_mask(run(ids, max_ngram=3, max_predictions=60), ids.shape)
    n = (~np.isin(ids, SPECIAL)).sum()
    assert abs(chosen.sum() / n - 0.15) < 5 * np.sqrt(0.15 * 0.85 / n)


def test_never_more_than_max_predictions():
    result = run(rows(200), rate=0.9, max_predictions=13)
    assert (result["mlm_weights"].sum(1) == 13).all()


def test_rows_shorter_than_the_predictions_keep_the_static_shape():
    ids = np.array([[2, 9, 10, 3]], "int32")
    result = run(ids, rate=1.0, max_predictions=7)
    assert result["mask_positions"].tolist() == [[1, 2, 0, 0, 0, 0, 0]]
    assert result["mlm_weights"].tolist() == [[1, 1, 0, 0, 0, 0, 0]]


def test_a_row_of_padding_alone_has_nothing_to_predict():
    assert run(np.zeros((3, 11), "int32"))["mlm_weights"].sum() == 0


def test_default_predictions_hold_the_rate_of_a_full_row():
    assert default_max_predictions(128, 0.15) == 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0.0}, "mask rate"),
        ({"rate": 1.1}, "mask rate"),
        ({"mask_share": 0.9, "random_share": 0.2}, "shares of 1"),
        ({"mask_share": -0.1}, "shares of 1"),
        ({"random_share": -0.1}, "shares of 1"),
        ({"max_predictions": 0}, "at least 1"),
        ({"max_ngram": 0}, "at least 1"),
        ({"whole_words": True, "continuation": None}, "continuation"),
        ({"max_ngram": 2, "continuation": None}, "continuation"),
    ],
)
def test_bad_options_are_refused(changes, words):
    with pytest.raises(BertKerasError, match=words):
        masking(**changes)


def test_shares_at_their_ends():
    ids = rows(50)
    for mask_share, random_share in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        result = run(ids, mask_share=mask_share, random_share=random_share, max_predictions=1)
        row, place = np.arange(50), result["mask_positions"][:, 0]
        assert result["mlm_weights"].shape == (50, 1)
        put, own = result["token_ids"][row, place], ids[row, place]
        if mask_share:
            assert (put == MASK_ID).all()
        else:
            assert (put != own).mean() > 0.9 if random_share else (put == own).all()


def test_static_masks_depend_on_seed_and_content_alone():
    ids = rows(50)
    once, again = run(ids, dynamic=False), run(ids[::-1], row_numbers=np.arange(50) + 50, dynamic=False)
    for name in once:
        np.testing.assert_array_equal(again[name][::-1], once[name])
    assert (run(ids, dynamic=False, seed=1)["mask_positions"] != once["mask_positions"]).any(axis=1).all()
    other = ids.copy()
    other[:, 1] = 5 + (other[:, 1] - 4) % (VOCABULARY - 5)  # another piece
    assert (run(other, dynamic=False)["mask_positions"] != once["mask_positions"]).any(axis=1).all()
    swapped = ids.copy()
    swapped[:, [1, 2]] = ids[:, [2, 1]]
    assert (run(swapped, dynamic=False)["mask_positions"] != once["mask_positions"]).any(axis=1).mean() > 0.9


def test_static_masks_are_as_many_and_as_even_as_dynamic_ones():
    ids = rows(4000)
    chosen = chosen_mask(run(ids, dynamic=False, max_predictions=40), ids.shape).astype(bool)
    ordinary = ~np.isin(ids, SPECIAL)
    assert not (chosen & ~ordinary).any()
    assert chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.002)
    by_place = chosen.mean(axis=0)[1 : LENGTH // 3]
    assert np.abs(by_place - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / 4000)
