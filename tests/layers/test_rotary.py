import dataclasses
import math

import numpy as np
import pytest
from keras import ops

from bertkeras.layers.rotary import rotate
from bertkeras.models import BertBackbone
from tests.checks import numpy, randomize, small_config


@pytest.mark.parametrize("head_dim", [4, 5])
@pytest.mark.parametrize("length_axis", [1, 2])
def test_each_pair_turns_by_its_angle(head_dim, length_axis):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, head_dim)).astype("float32")
    positions = np.array([[0, 7, 2], [5, 1, 3]])
    found = numpy(rotate(ops.convert_to_tensor(x), length_axis, ops.convert_to_tensor(positions)))
    for row, place, head in np.ndindex(2, 3, 3):
        at = (row, place, head) if length_axis == 1 else (row, head, place)
        expected = x[at].astype("float64")
        for i in range(2):
            angle = positions[row, place] / 10_000 ** (i / 2)
            a, b = x[at][i], x[at][i + 2]
            expected[i] = a * math.cos(angle) - b * math.sin(angle)
            expected[i + 2] = a * math.sin(angle) + b * math.cos(angle)
        np.testing.assert_allclose(found[at], expected, atol=1e-5)


def test_products_tell_the_distance_alone():
    query, key = map(ops.convert_to_tensor, np.random.default_rng(0).normal(size=(2, 1, 1, 1, 6)).astype("float32"))

    def product(query_at, key_at):
        turned = [rotate(x, 1, ops.convert_to_tensor([[at]])) for x, at in ((query, query_at), (key, key_at))]
        return float(np.sum(numpy(turned[0]) * numpy(turned[1])))

    assert product(3, 5) == pytest.approx(product(40, 42), abs=1e-4)
    assert product(3, 5) != pytest.approx(product(3, 6), abs=1e-3)


def test_a_row_moved_along_gives_the_same_vectors():
    backbone = BertBackbone(dataclasses.replace(small_config(positions="rotary"), max_sequence_length=8))
    randomize(backbone)
    assert not any("position_table" in weight.path for weight in backbone.weights)
    ids = np.array([[5, 9, 2, 7]])
    alone = numpy(backbone({"token_ids": ids})["sequence_output"])
    behind = {
        "token_ids": np.concatenate([[[3, 3, 3, 3, 3]], ids], axis=1),
        "sequence_ids": np.array([[1] * 5 + [2] * 4]),
    }
    np.testing.assert_allclose(numpy(backbone(behind)["sequence_output"])[:, 5:], alone, atol=1e-5)
    turned = numpy(backbone({"token_ids": ids[:, ::-1]})["sequence_output"])
    assert np.abs(turned[:, ::-1] - alone).max() > 0.01  # the order counts
