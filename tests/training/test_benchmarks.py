"""The arithmetic of the benchmarks: what they count as work, and how they sum it up."""

import itertools

import numpy as np
import pytest

from benchmarks.end_to_end import useful
from benchmarks.growth import MINI, VALUES, changed, slope
from benchmarks.minilm_contenders import batches_by_length, pieces
from benchmarks.step_contenders import Shape
from bertkeras import BertConfig
from bertkeras.training.plan import step_flops


@pytest.mark.parametrize("size", ["tiny", "mini", "small", "base"])
def test_needed_arithmetic_is_that_of_the_plan(size):
    shape = Shape.of_size(size)
    config = BertConfig.from_size(size, shape.vocabulary)
    assert shape.needed_flops == sum(step_flops(config, shape.rows, shape.length, shape.predictions, True).values())


@pytest.mark.parametrize("what", VALUES)
def test_one_thing_grows_and_the_pieces_of_a_batch_stay(what):
    for value in VALUES[what]:
        shape = changed(what, value)
        assert shape.tokens == MINI.tokens
        assert shape.rows * shape.predictions == MINI.rows * MINI.predictions
        assert shape.width == 64 * shape.heads
    assert MINI in [changed(what, value) for value in VALUES[what]]


def test_the_slope_is_the_exponent():
    assert slope((1, 2, 4, 8), [3.0 * x**1.7 for x in (1, 2, 4, 8)]) == pytest.approx(1.7)
    assert slope((10, 20), [5.0, 5.0]) == pytest.approx(0.0)


def test_padding_and_special_pieces_are_no_useful_work():
    ids = np.array([[2, 7, 4, 9, 3, 0], [2, 8, 3, 0, 0, 0]])
    assert useful(ids, ids != 0, [2, 3]) == 4  # what is masked, 4, counts


def test_rows_of_like_length_share_a_batch():
    ids = [[1] * length for length in np.random.default_rng(0).integers(3, 90, 200)]
    batches = batches_by_length(ids)
    assert sorted(row for batch in batches for row in batch) == list(range(200))
    assert all(max(len(ids[r]) for r in a) <= min(len(ids[r]) for r in b) for a, b in itertools.pairwise(batches))
    assert pieces(ids, range(200)) == sum(map(len, ids))
