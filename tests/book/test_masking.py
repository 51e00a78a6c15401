"""The class of the chapter on masking chooses and replaces the pieces that the package's does."""

import numpy as np
import pytest

pytest.importorskip("nbformat")
pytest.importorskip("yaml")

from bertkeras.pipelines import Masking
from tests.book.notebooks import chapter_classes

VOCABULARY, MASK, SPECIAL = 211, 4, (0, 1, 2, 3, 4)


@pytest.mark.parametrize(("length", "predictions", "rate"), [(17, 3, 0.15), (64, 13, 0.2), (31, 7, 0.4)])
def test_masking(length, predictions, rate):
    random = np.random.default_rng(length)
    rows = random.integers(5, VOCABULARY, (97, length)).astype("int32")
    rows[:, 0] = 2
    for row, end in zip(rows, random.integers(2, length + 1, len(rows)), strict=True):
        row[end - 1], row[end:] = 3, 0
    numbers = random.integers(0, 10**6, len(rows))
    ours = chapter_classes("masking")["Masking"](VOCABULARY, MASK, SPECIAL, max_predictions=predictions, rate=rate)
    theirs = Masking(VOCABULARY, MASK, SPECIAL, max_predictions=predictions, rate=rate)
    found, wanted = ours(rows, numbers), theirs(rows, numbers)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
