"""Texts from a masked LM whose answers are known."""

import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import BertMaskedLM, gibbs_sample, mask_predict
from tests.checks import randomize, small_config, small_tokenizer

TOKENIZER = small_tokenizer()
CONFIG = small_config(vocabulary_size=17)  # two more than the tokenizer has
TEXTS = ["the [MASK] sat on [MASK] [MASK].", "[MASK]", "dog [MASK] [MASK]", "[MASK] [MASK] [MASK]"]


@pytest.fixture
def model():
    model = BertMaskedLM(CONFIG, tokenizer=TOKENIZER)
    randomize(model, scale=0.5)
    return model


class Told:
    """Stands for a model: `answer(row, position)` gives the shares of the 15 pieces there; keeps what it was asked."""

    def __init__(self, answer):
        self.answer, self.tokenizer, self.config = answer, TOKENIZER, CONFIG
        self.asked = []

    def __call__(self, inputs, training):
        assert training is False
        ids, positions = inputs["token_ids"].copy(), inputs["mask_positions"]
        self.asked.append((ids, positions.copy()))
        shares = [[self.answer(row, place) for place in places] for row, places in zip(ids, positions, strict=True)]
        return np.log(np.array(shares, "float32"))


def pieces(text):
    return TOKENIZER.encode(text, add_special_tokens=False, special_tokens_in_text=True).ids


def shares_of(**likely):
    """The shares given by word, the rest divided by the others."""
    shares = np.full(15, (1 - sum(likely.values())) / (15 - len(likely)))
    for word, share in likely.items():
        shares[TOKENIZER.token_to_id(word)] = share
    return shares


# Gibbs sampling.


def test_every_blank_has_its_turn_in_every_sweep():
    told = Told(lambda row, place: shares_of(cat=0.9))
    (text,) = gibbs_sample(told, start="the [MASK] [MASK] on [MASK]", sweeps=4, top_k=1)
    assert text == "the cat cat on cat"
    orders = np.array([positions[0, 0] for _, positions in told.asked]).reshape(4, 3)
    assert np.sort(orders, axis=1).tolist() == [[2, 3, 5]] * 4
    assert len({tuple(order) for order in orders.tolist()}) > 1
    masked = [np.flatnonzero(ids[0] == TOKENIZER.mask_id).tolist() for ids, _ in told.asked]
    for call, (order, places) in enumerate(zip(orders.ravel(), masked, strict=True)):
        assert order in places
        assert len(places) == max(1, 3 - call), "all are masked at first, later only the one in turn"
        assert told.asked[call][0][0, [0, 1, 4, 6]].tolist() == [2, 5, 10, 3]


def test_a_draw_sees_the_draws_before_it():
    """Each of two places wants the other's piece, so that after the first sweep they always agree."""

    def other(row, place):
        piece = row[3 - place]
        return shares_of(cat=0.499, dog=0.499) if piece == TOKENIZER.mask_id else np.eye(15)[piece] + 1e-12

    texts = gibbs_sample(Told(other), length=2, num_samples=40, sweeps=3)
    assert {"cat cat", "dog dog"} == set(texts)


@pytest.mark.parametrize(
    ("options", "expected"),
    # [MASK] has 0.3, the other four special tokens a third of what is left, 0.1: 0.667 remains
    [({}, (0.6, 0.3)), ({"temperature": 0.5, "top_k": 2}, (0.8, 0.2))],
)
def test_the_shares_of_the_draws(options, expected):
    """1,000 draws: the deviation of a share is at most sqrt(1/4 / 1000) = 0.016, and 0.08 is five of them."""
    told = Told(lambda row, place: shares_of(cat=0.4, dog=0.2, **{"[MASK]": 0.3}))
    texts = gibbs_sample(told, length=1, num_samples=1000, sweeps=1, batch_size=1000, **options)
    np.testing.assert_allclose(
        [np.mean([text == word for text in texts]) for word in ("cat", "dog")], expected, atol=0.08
    )
    assert (set(texts) == {"cat", "dog"}) == bool(options)


def test_a_sample_does_not_depend_on_those_beside_it(model):
    texts = gibbs_sample(model, start=TEXTS, sweeps=2, seed=7)
    assert texts == gibbs_sample(model, start=TEXTS, sweeps=2, seed=7)
    assert texts == gibbs_sample(model, start=TEXTS, sweeps=2, seed=7, batch_size=2)
    assert texts != gibbs_sample(model, start=TEXTS, sweeps=2, seed=8)


def test_samples_of_one_start_differ():
    starts = ["the [MASK] [MASK]", "[MASK] [MASK] sat"]
    texts = gibbs_sample(Told(lambda row, place: np.ones(15)), start=starts, num_samples=6, sweeps=1)
    assert [text.startswith("the") for text in texts[:6]] == [True] * 6
    assert [text.endswith("sat") for text in texts[6:]] == [True] * 6
    assert len({tuple(pieces(text)[1:]) for text in texts[:6]}) > 3


# Mask-predict.


def test_the_least_certain_are_masked_again():
    """Five blanks, three iterations: 5, then 5 * 2/3 = 3, then 5 * 1/3 = 1."""
    at_first = {1: 0.9, 2: 0.3, 3: 0.5, 4: 0.2, 5: 0.8}
    then = {2: 0.6, 3: 0.55, 4: 0.85}

    def answer(row, place):
        if (row == TOKENIZER.mask_id).sum() == 5:
            return shares_of(cat=at_first[place])
        return shares_of(dog=then.get(place, 0.01))  # of the others nothing may be taken

    told = Told(answer)
    (text,) = mask_predict(told, 5, iterations=3)
    masked = [np.flatnonzero(ids[0] == TOKENIZER.mask_id).tolist() for ids, _ in told.asked]
    assert masked == [[1, 2, 3, 4, 5], [2, 3, 4], [3]]
    assert text == "cat dog dog dog cat"
    assert [ids[0, 1:6].tolist() for ids, _ in told.asked][1] == [6, 4, 4, 4, 6]


def test_one_iteration_takes_the_likeliest_everywhere(model):
    blanks = model.fill_mask(TEXTS, top_k=15)
    for text, start, fillings in zip(mask_predict(model, TEXTS, iterations=1), TEXTS, blanks, strict=True):
        words = iter([next(f.token for f in blank if not f.token.startswith("[")) for blank in fillings])
        expected = [next(words) if piece == 4 else TOKENIZER.id_to_token(piece) for piece in pieces(start)]
        assert text == TOKENIZER.decode([TOKENIZER.token_to_id(word) for word in expected])


def test_more_iterations_than_blanks():
    told = Told(lambda row, place: shares_of(cat=0.9))
    assert mask_predict(told, ["the [MASK]", "[MASK] [MASK]"], iterations=9) == ["the cat", "cat cat"]
    # 2 * (9 - t) // 9 is 2, then 1 up to t = 4, then 0
    assert len(told.asked) == 5
    assert mask_predict(Told(lambda row, place: shares_of(cat=0.9)), [], iterations=9) == []


def test_texts_do_not_disturb_each_other(model):
    for options in ({}, {"temperature": 1.5, "top_k": 7, "seed": 3}):
        together = mask_predict(model, [*TEXTS[:3], 3], iterations=3, **options)
        assert together == mask_predict(model, TEXTS, iterations=3, batch_size=2, **options)


def test_drawn_texts_differ():
    told = Told(lambda row, place: shares_of(cat=0.3, dog=0.2))
    assert set(mask_predict(told, [3] * 6, iterations=2)) == {"cat cat cat"}
    texts = mask_predict(told, [3] * 6, iterations=2, temperature=1.0)
    assert len(set(texts)) > 3
    assert texts == mask_predict(told, [3] * 6, iterations=2, temperature=1.0)
    assert texts != mask_predict(told, [3] * 6, iterations=2, temperature=1.0, seed=1)
    few = " ".join(mask_predict(told, [3] * 20, iterations=2, temperature=1.0, top_k=2))
    assert set(few.split()) == {"cat", "dog"}


# Both.


@pytest.mark.parametrize("sample", [lambda m, t: gibbs_sample(m, start=t, sweeps=2), mask_predict])
def test_what_may_come(sample, model):
    """No special token and no piece beyond the tokenizer's, however likely; the given words stay, known or not."""
    likely = np.zeros(17)
    likely[[0, 1, 2, 3, 4, 15, 16]] = 50.0
    model.mlm_head.output_bias.assign(likely)
    (text,) = sample(model, "The bird [MASK] on [MASK].")
    ids = pieces(text)
    assert ids[:2] == [5, 1], "a word that the vocabulary lacks is shown as [UNK]"
    assert text.startswith("the [UNK]")
    assert 10 in ids
    assert not {0, 2, 3, 4} & set(ids)
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: gibbs_sample(m), "give length or start, one of them"),
        (lambda m: gibbs_sample(m, length=3, start="[MASK]"), "give length or start, one of them"),
        (lambda m: gibbs_sample(m, length=0), "a length must be a positive integer, got 0"),
        (lambda m: gibbs_sample(m, length=10), r"^12 pieces in .*at most 11; shorten it"),
        (lambda m: gibbs_sample(m, start="the cat"), r"no \[MASK\] in 'the cat'"),
        (lambda m: gibbs_sample(m, length=3, sweeps=0), "sweeps must be a positive integer, got 0"),
        (lambda m: gibbs_sample(m, length=3, num_samples=0), "num_samples must be a positive integer, got 0"),
        (lambda m: gibbs_sample(m, length=3, temperature=0), "temperature must be a positive number, got 0"),
        (lambda m: gibbs_sample(m, length=3, top_k=0), "top_k must be a positive integer, got 0"),
        (lambda m: gibbs_sample(m, length=3, seed=-1), "seed must be 0 or a positive integer, got -1"),
        (lambda m: gibbs_sample(BertMaskedLM(CONFIG), length=3), "gibbs_sample needs a tokenizer"),
        (lambda m: mask_predict(BertMaskedLM(CONFIG), 3), "mask_predict needs a tokenizer"),
        (lambda m: mask_predict(m, ["[MASK]", 0]), "a length must be a positive integer, got 0"),
        (lambda m: mask_predict(m, "the cat"), r"no \[MASK\] in 'the cat'"),
        (lambda m: mask_predict(m, 3, iterations=0), "iterations must be a positive integer, got 0"),
        (lambda m: mask_predict(m, 3, top_k=2), "top_k=2 needs a temperature, such as 1.0"),
    ],
)
def test_errors(call, words, model):
    with pytest.raises(BertKerasError, match=words):
        call(model)
