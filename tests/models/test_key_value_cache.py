import numpy as np
import pytest
from keras import ops

from bertkeras.models import BertSeq2Seq
from bertkeras.models.key_value_cache import CachedReader
from tests.checks import compiled, numpy, randomize, small_config

SOURCES = [[2, 7, 9, 11, 3], [2, 5, 3], [2, 8, 6, 3]]
TARGETS = [[12, 7, 31, 7], [6, 6, 20, 14], [33, 8, 9, 10]]


def whole_rows(model, sources, targets):
    """The logits after each source and each piece of its target, from one call of the model."""
    width = max(map(len, sources)) + len(targets[0])
    inputs = {name: np.zeros((len(sources), width), "int32") for name in ("token_ids", "segment_ids")}
    positions = []
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        whole = source + target
        inputs["token_ids"][row, : len(whole)] = whole
        inputs["segment_ids"][row, len(source) : len(whole)] = 1
        positions.append(range(len(source) - 1, len(whole)))
    mask = np.arange(width) < np.array([[len(s) + len(t)] for s, t in zip(sources, targets, strict=True)])
    inputs |= {"padding_mask": mask, "output_positions": np.array(positions, "int32")}
    return numpy(compiled(lambda inputs: model(inputs))(inputs))


def read(model, sources, targets, width=7):
    """The same, piece by piece."""
    token_ids = np.array([source + [1] * (width - len(source)) for source in sources], "int32")
    padding_mask = np.arange(width) < np.array([[len(source)] for source in sources])
    reader = CachedReader(model.backbone, model.mlm_head, token_ids, padding_mask, len(targets[0]))
    rows = np.arange(len(sources), dtype="int32")
    steps = [reader.step(np.array(pieces, "int32"), rows) for pieces in zip(*targets, strict=True)]
    return np.stack([reader.logits, *steps], axis=1), reader


@pytest.mark.parametrize(
    ("options", "dtype", "atol"),
    [
        ({}, "float32", 1e-4),
        ({"norm_first": True}, "float32", 1e-4),
        ({"positions": "rotary", "gated_feed_forward": True}, "float32", 1e-4),
        ({}, "mixed_bfloat16", 0.2),
    ],
)
def test_piece_by_piece_as_in_one_call(options, dtype, atol):
    model = BertSeq2Seq(small_config(dropout=0.5, attention_dropout=0.5, **options), dtype=dtype)
    randomize(model)
    found, reader = read(model, SOURCES, TARGETS)
    expected = whole_rows(model, SOURCES, TARGETS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol)
    assert np.abs(expected).max() > 2
    shapes = {tuple(part.shape) for pair in reader.cache for part in pair}
    assert shapes == {(3, 3, 7 + 4, 7)}, "(rows, heads, slots, head_dim)"


def test_rows_go_on_with_any_row_of_the_call_before():
    model = BertSeq2Seq(small_config())
    randomize(model)
    reader = CachedReader(
        model.backbone, model.mlm_head, np.array([[2, 7, 3], [2, 9, 3]], "int32"), np.ones((2, 3), bool), new_pieces=3
    )
    reader.step(np.array([5, 6, 7, 8], "int32"), np.array([0, 0, 1, 1], "int32"))
    reader.step(np.array([9, 10, 11, 12], "int32"), np.array([1, 0, 3, 3], "int32"))
    found = reader.step(np.array([13, 14, 15, 16], "int32"), np.array([0, 0, 2, 3], "int32"))
    targets = [[6, 9, 13], [6, 9, 14], [8, 11, 15], [8, 12, 16]]
    expected = whole_rows(model, [[2, 7, 3]] * 2 + [[2, 9, 3]] * 2, targets)[:, -1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_no_gradient_is_kept():
    model = BertSeq2Seq(small_config())
    _, reader = read(model, SOURCES, TARGETS)
    assert not any(getattr(part, "requires_grad", False) for pair in reader.cache for part in pair)
    assert ops.is_tensor(reader.cache[0][0])
