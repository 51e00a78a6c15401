"""The search, over hand-made logits."""

import itertools

import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import Decoding
from bertkeras.models.search import draw, keep_likeliest, log_softmax, repeating, search

END, A, B = 0, 1, 2


def following(table, decoding, numbers=(0,)):
    """Search where `table` gives the shares of (END, A, B) after each beginning."""
    ids = [[()] for _ in numbers]
    calls = []

    def shares(beginning):
        return np.log(np.array(table.get(beginning, [1, 1, 1]), "float32"))

    def step(pieces, parents):
        rows = [beginning for source in ids for beginning in source]
        grown = [(*rows[parent], int(piece)) for piece, parent in zip(pieces, parents, strict=True)]
        assert len(grown) == len(numbers) * decoding.width
        ids[:] = [grown[i : i + decoding.width] for i in range(0, len(grown), decoding.width)]
        calls.append(grown)
        return np.stack([shares(beginning) for beginning in grown])

    first = np.stack([shares(()) for _ in numbers])
    return search(first, step, decoding, np.ones(3, bool), END, numbers), calls


# The likeliest first piece is A; the likeliest whole is B, then the end.
TABLE = {(): [0.1, 0.5, 0.4], (A,): [0.4, 0.3, 0.3], (B,): [0.9, 0.05, 0.05]}


def test_a_beam_finds_what_greedy_misses():
    (greedy,), calls = following(TABLE, Decoding(3))
    assert [target.ids for target in greedy] == [(A, END)]
    assert greedy[0].log_probability == pytest.approx(np.log(0.5 * 0.4))
    assert len(calls) == 1, "no step after the end"
    ((best, second),), _ = following(TABLE, Decoding(3, "beam", num_beams=2))
    assert (best.ids, second.ids) == ((B, END), (A, END))
    assert best.log_probability == pytest.approx(np.log(0.4 * 0.9))


def test_the_length_penalty_decides_between_short_and_long():
    table = {(): [0.4, 0.6, 1e-9], (A,): [1e-9, 1, 1e-9], (A, A): [0.5, 0.5, 1e-9]}
    found = {
        penalty: following(table, Decoding(4, "beam", num_beams=2, length_penalty=penalty))[0][0][0].ids
        for penalty in (0.0, 1.0)
    }
    # log 0.4 = -0.92 against log 0.3 = -1.20; by the piece -0.92 against -1.20 / 3 = -0.40
    assert found == {0.0: (END,), 1.0: (A, A, END)}


def test_the_last_piece_cuts_off():
    table = {beginning: [1e-9, 0.7, 0.3] for n in range(4) for beginning in itertools.product((A, B), repeat=n)}
    ((best,),), calls = following(table, Decoding(3))
    assert best.ids == (A, A, A)
    assert len(calls) == 2
    ((best,),), calls = following(table, Decoding(1))
    assert (best.ids, calls) == ((A,), [])


def test_a_beam_stops_when_none_that_lives_is_better():
    """Ends A and END have come when B goes on; it stops the search only if it is the worse for it."""
    table = {(): [0.3, 0.36, 0.34], (A,): [0.9, 0.05, 0.05], (B,): [0.02, 0.9, 0.08], (B, A): [0.98, 0.01, 0.01]}
    decoding = Decoding(6, "beam", num_beams=2)
    ((best, second),), calls = following(table, decoding)
    assert [set(rows) for rows in calls] == [{(A,), (B,)}, {(B, A), (B, B)}]
    assert (best.ids, second.ids) == ((B, A, END), (A, END))
    table[(B,)] = [0.34, 0.33, 0.33]
    ((best, second),), calls = following(table, decoding)
    assert [set(rows) for rows in calls] == [{(A,), (B,)}]
    assert (best.ids, second.ids) == ((A, END), (B, END))


def test_no_run_comes_twice():
    always = {beginning: [0.01, 0.9, 0.09] for n in range(8) for beginning in itertools.product((END, A, B), repeat=n)}
    found = {n: following(always, Decoding(7, no_repeat_ngram=n))[0][0][0].ids for n in (None, 1, 2, 3)}
    assert found[None] == (A,) * 7
    assert found[1] == (A, B, END)
    assert found[2] == (A, A, B, A, END), "then A A, A B and B B or their like would come again"
    assert found[3] == (A, A, A, B, A, A, END)


def test_repeating():
    assert repeating((5, 6, 5), 2) == [6]
    assert repeating((5, 6, 5, 7, 5), 2) == [6, 7]
    assert repeating((5, 6, 7), 1) == [5, 6, 7]
    assert repeating((5, 6, 5, 6), 3) == [5]
    assert repeating((5,), 3) == repeating((5, 5), None) == []


def test_a_source_is_drawn_for_by_its_number_alone():
    decoding = Decoding(6, "sample", seed=3)
    together, _ = following({}, decoding, numbers=list(range(8)))
    for number in (7, 0, 4):
        ((alone,),), _ = following({}, decoding, numbers=[number])
        assert [alone] == together[number]
    assert len({found[0].ids for found in together}) > 3
    other, _ = following({}, Decoding(6, "sample", seed=4), numbers=list(range(8)))
    assert [found[0].ids for found in other] != [found[0].ids for found in together]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [0.1, 0.5, 0.4]), ({"temperature": 0.5}, np.array([1, 25, 16]) / 42), ({"top_k": 2}, [0, 5 / 9, 4 / 9])],
)
def test_the_shares_of_what_is_drawn(options, expected):
    """4,000 draws: the standard deviation of a share is below sqrt(1/4 / 4000) = 0.008, and 0.04 is five of them."""
    found, _ = following(TABLE, Decoding(1, "sample", **options), numbers=range(4000))
    shares = np.bincount([target.ids[0] for (target,) in found], minlength=3) / 4000
    np.testing.assert_allclose(shares, expected, atol=0.04)
    assert (shares == 0).tolist() == [share == 0 for share in expected]
    assert {round(np.exp(t.log_probability), 4) for (t,) in found} == {
        p for p, e in zip([0.1, 0.5, 0.4], expected, strict=True) if e
    }


def kept(shares, **options):
    found = keep_likeliest(np.log(np.array([shares], "float32")), **options)[0]
    assert np.allclose(np.exp(found[found > -np.inf]), np.array(shares)[found > -np.inf])
    return np.flatnonzero(found > -np.inf).tolist()


def test_the_sets_to_draw_from():
    shares = [0.125, 0.5, 0.0625, 0.25, 0.0625]
    assert [kept(shares, top_k=k) for k in (1, 2, 3, 4, 5, 9)] == [
        [1],
        [1, 3],
        [0, 1, 3],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
    ]
    assert [kept(shares, top_p=p) for p in (0.01, 0.49, 0.51, 0.74, 0.76, 0.9)] == [
        [1],
        [1],
        [1, 3],
        [1, 3],
        [0, 1, 3],
        [0, 1, 2, 3],
    ]
    assert kept(shares, top_p=1.0) == kept(shares) == [0, 1, 2, 3, 4]
    # among the first two the shares are 2/3 and 1/3
    assert [kept(shares, top_k=2, top_p=p) for p in (0.66, 0.67)] == [[1], [1, 3]]
    two = keep_likeliest(np.log(np.array([shares, shares[::-1]])), top_k=1)
    assert (two > -np.inf).tolist() == [[False, True, False, False, False], [False, False, False, True, False]]


def test_draw_divides_the_line():
    log_probs = np.log(np.array([1, 2, 0.0, 5]), where=[True, True, False, True], out=np.full(4, -np.inf)) - 7
    for uniform, piece in ((0, 0), (0.124, 0), (0.126, 1), (0.374, 1), (0.376, 3), (1 - 1e-9, 3)):
        assert draw(log_probs, uniform) == piece
    assert draw(np.array([-np.inf, 0.0]), 0.0) == 1, "what has no share is never drawn"


def test_log_softmax():
    logits = np.array([[0, np.log(3), -np.inf], [1000, 1000, 1000]])
    np.testing.assert_allclose(np.exp(log_softmax(logits)), [[0.25, 0.75, 0], [1 / 3] * 3])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "best"}, "method must be one of greedy, beam, sample, got 'best'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a positive integer, got 0"),
        ({"method": "beam", "num_beams": 0}, "num_beams must be a positive integer, got 0"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram must be a positive integer, got 0"),
        ({"method": "sample", "temperature": 0}, "temperature must be a positive number, got 0"),
        ({"method": "sample", "top_k": 0}, "top_k must be a positive integer, got 0"),
        ({"method": "sample", "top_p": 1.5}, r"top_p must be a number in \(0, 1\], got 1.5"),
        ({"method": "sample", "seed": -1}, "seed must be 0 or a positive integer, got -1"),
        ({"top_p": 0.9}, "top_p=0.9 needs method='sample', got 'greedy'"),
        ({"num_beams": 8}, "num_beams=8 needs method='beam', got 'greedy'"),
        ({"method": "sample", "length_penalty": 0.5}, "length_penalty=0.5 needs method='beam', got 'sample'"),
        ({"method": "beam", "seed": 1}, "seed=1 needs method='sample', got 'beam'"),
    ],
)
def test_errors(options, words):
    with pytest.raises(BertKerasError, match=words):
        Decoding(**options)
