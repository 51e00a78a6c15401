import itertools
import math

import numpy as np
import pytest
from keras import ops

from bertkeras import BertKerasError, BertMaskedLM
from bertkeras.analysis import crows_pairs, stereoset, weat
from bertkeras.analysis.bias import Share, blank_word, shared_places
from tests.analysis.small import CONFIG, TOKENIZER, drawn
from tests.checks import numpy

ROWS = [
    {"sent_more": more, "sent_less": less, "stereo_antistereo": direction, "bias_type": kind}
    for more, less, direction, kind in [
        ("she sat on the mat.", "he sat on the mat.", "stereo", "gender"),
        ("the nurse ran, she sat.", "the doctor ran, she sat.", "stereo", "work"),
        ("he is the nurses doctor", "she is the nurses doctor", "antistereo", "gender"),
        ("the dogs ran", "the dogs ran", "stereo", "work"),
        ("他是医生", "她是医生", "antistereo", "gender"),
    ]
]


def log_probs(model, ids, place):
    """The log probabilities of all pieces at one place."""
    logits = model({"token_ids": np.array([ids]), "mask_positions": np.array([[place]])})
    return numpy(ops.log_softmax(logits[0, 0, : TOKENIZER.vocabulary_size]))


def test_pairs_are_scored_by_the_pieces_they_share():
    model = drawn(BertMaskedLM)
    found = crows_pairs(model, ROWS, batch_size=4)
    for row, scores in zip(ROWS, found.scores, strict=True):
        sides = [TOKENIZER.encode(row[name]).ids for name in ("sent_more", "sent_less")]
        for ids, places, score in zip(sides, shared_places(*sides), scores, strict=True):
            expected = 0.0
            for place in places[1:-1]:
                masked = [*ids[:place], TOKENIZER.mask_id, *ids[place + 1 :]]
                expected += log_probs(model, masked, place)[ids[place]]
            assert score == pytest.approx(expected, abs=2e-3)
    more, less = found.scores.T
    hits = int((more > less).sum())
    assert (found.metric.hits, found.metric.count, found.neutral) == (hits, 5, 1)
    assert found.stereotype.count == 2  # less the one that comes out equal
    assert found.antistereotype.count == 2
    assert found.stereotype.hits + found.antistereotype.hits == hits
    assert {name: share.count for name, share in found.by_type.items()} == {"gender": 3, "work": 2}
    assert found.metric.percent == pytest.approx(20 * hits)


def test_a_sentence_that_is_too_long_is_refused():
    long = {**ROWS[0], "sent_more": "the " * 40, "sent_less": "the " * 41}
    with pytest.raises(BertKerasError, match="no pairs"):
        crows_pairs(drawn(BertMaskedLM), [])
    with pytest.raises(BertKerasError, match="43 pieces, but the model reads at most 32"):
        crows_pairs(drawn(BertMaskedLM), [long])


def test_shares_have_intervals():
    share = Share.of(60, 100)
    # Wilson: (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.96
    assert share.interval == pytest.approx((50.20, 69.06), abs=0.01)
    assert share.percent == 60
    assert math.isnan(Share.of(0, 0).percent)


def test_words_in_a_blank_are_scored_from_left_to_right():
    model = drawn(BertMaskedLM)
    rows = [
        {"kind": "intrasentence", "target": target, "context": "the BLANK sat.", **words}
        for target, words in [
            ("x", {"stereotype": "the dogs sat.", "anti-stereotype": "the cat sat.", "unrelated": "the mat sat."}),
            ("x", {"stereotype": "the nurse sat.", "anti-stereotype": "the he sat.", "unrelated": "the cats sat."}),
            ("y", {"stereotype": "the doctor sat.", "anti-stereotype": "the dog sat.", "unrelated": "the on sat."}),
        ]
    ]

    def encode(text):
        return TOKENIZER.encode(text, special_tokens_in_text=True).ids

    def score(word):
        (pieces,) = TOKENIZER.encode_ids([word])
        found = []
        for shown, piece in enumerate(pieces):
            row = encode("the " + "[MASK] " * len(pieces) + "sat.")
            row[2 : 2 + shown] = pieces[:shown]
            found.append(log_probs(model, row, 2 + shown)[piece])
        return np.mean(found)

    words = [["dogs", "cat", "mat"], ["nurse", "he", "cats"], ["doctor", "dog", "on"]]
    scores = np.array([[score(word) for word in row] for row in words])
    pro, anti, unrelated = scores.T
    sensible = ((pro > unrelated).astype(float) + (anti > unrelated)) / 2
    expected_lm = 100 * np.mean([sensible[:2].mean(), sensible[2]])
    expected_ss = 100 * np.mean([(pro > anti)[:2].mean(), (pro > anti)[2]])
    found = stereoset(model, [*rows, {"kind": "intersentence"}])
    assert found.language_model == pytest.approx(expected_lm)
    assert found.stereotype == pytest.approx(expected_ss)
    assert found.icat == pytest.approx(expected_lm * min(expected_ss, 100 - expected_ss) / 50)
    assert found.count == 3
    assert found == stereoset(model, rows)
    for name, (low, high) in found.intervals.items():
        assert low <= getattr(found, name) <= high
    with pytest.raises(BertKerasError, match="no row of kind intrasentence"):
        stereoset(model, [])


def test_the_word_of_a_blank():
    assert blank_word("She is a BLANK.", "She is a doctor.") == "doctor"
    assert blank_word("BLANK ran", "Dogs ran") == "Dogs"
    for context, sentence in [
        ("She is a BLANK.", "She is a"),
        ("She is a doctor.", "She is a doctor."),
        ("a BLANK", "a ."),
    ]:
        with pytest.raises(BertKerasError, match="no word in"):
            blank_word(context, sentence)


def test_association_by_hand():
    first, second = np.array([[1, 0], [3, 4]]), np.array([[0, 1], [0, 2]])
    good, bad = np.array([[1, 0.0]]), np.array([[0, 5.0]])
    # leanings: cosine with (1, 0) less cosine with (0, 1)
    leanings = np.array([1, 0.6 - 0.8, -1, -1])
    found = weat(first, second, good, bad)
    assert found.effect == pytest.approx((0.4 + 1) / leanings.std(ddof=1))
    sums = [leanings[list(deal)].sum() for deal in itertools.combinations(range(4), 2)]
    assert found.p_value == pytest.approx(np.mean(np.array(sums) >= 0.8 - 1e-9))
    assert found.interval[0] <= found.effect <= found.interval[1]


def test_association_of_like_sets_is_none():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 20, 8))
    found = weat(*vectors, permutations=500)
    assert found == weat(*vectors, permutations=500)
    assert abs(found.effect) < 1
    assert found.p_value > 0.01
    far = weat(vectors[0] + 2 * vectors[2, :1], vectors[1], vectors[2, :1], vectors[3, :1])
    assert far.effect > 1
    assert far.p_value < 0.01
    assert weat(*np.ones((4, 3, 2))).effect == 0
    with pytest.raises(BertKerasError, match="two sets of the same size"):
        weat(vectors[0], vectors[1, :-1], vectors[2], vectors[3])


def test_rows_of_the_table_that_are_no_piece_do_not_count():
    model = drawn(BertMaskedLM)
    before = crows_pairs(model, ROWS).scores
    bias = numpy(model.mlm_head.output_bias)
    bias[TOKENIZER.vocabulary_size :] = 50
    model.mlm_head.output_bias.assign(bias)
    assert CONFIG.vocabulary_size > TOKENIZER.vocabulary_size
    np.testing.assert_array_equal(crows_pairs(model, ROWS).scores, before)
