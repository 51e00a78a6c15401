"""The kernel itself needs a GPU (`benchmarks/gpu.py` compares it there); here stands in what its documentation says."""

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras import BertBackbone, BertConfig, BertKerasError
from bertkeras.layers import MultiHeadSelfAttention, flash
from bertkeras.layers.flash import Flash, can_flash, count_runs
from bertkeras.layers.recompute import Savings, saving
from tests.checks import numpy, randomize

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the kernel is reached through JAX")
RNG = np.random.default_rng(0)
HALF = np.zeros((2, 8, 32), "float16")


@pytest.fixture
def gpu(monkeypatch):
    """A machine with the kernels, as far as the package asks."""
    monkeypatch.setattr(flash, "has_flash_kernels", lambda: True)


@pytest.fixture
def kernel(gpu, monkeypatch):
    """The kernel's arguments, noted, and its result, computed operation by operation."""
    import jax
    import jax.numpy as jnp
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    calls = []

    def attention(query, key, value, mask=None, q_seqlen=None, kv_seqlen=None, q_offsets=None, kv_offsets=None, **rest):
        calls.append({"packed": q_offsets is not None, **rest})
        if q_offsets is not None:
            assert q_offsets.shape[1] == q_seqlen.shape[1] + 1
            place, starts = jnp.arange(query.shape[1])[None, :, None], q_offsets[:, None, :-1]
            inside = (starts >= 0) & (place >= starts) & (place < starts + q_seqlen[:, None])
            mask = jnp.any(inside[:, :, None] & inside[:, None], axis=-1)[:, None]
        assert mask is None or mask.shape[2:] == (query.shape[1], key.shape[1])  # the kernel spreads no queries
        scores = rest["scale"] * jnp.einsum("bqnd,bknd->bnqk", query, key).astype("float32")
        scores = scores if mask is None else jnp.where(mask, scores, -1e30)
        return jnp.einsum("bnqk,bknd->bqnd", jax.nn.softmax(scores).astype(value.dtype), value)

    monkeypatch.setattr(cudnn, "dot_product_attention", attention)
    return calls


def test_no_kernel_on_this_machine():
    assert not can_flash(HALF, 16, 0.0)


def test_what_the_kernel_cannot_do(gpu):
    assert can_flash(HALF, 16, 0.0)
    assert not can_flash(HALF.astype("float32"), 16, 0.0)
    assert not can_flash(HALF[:, :7], 16, 0.0)
    assert not can_flash(HALF, 12, 0.0)
    assert not can_flash(HALF, 136, 0.0)
    with flash.flash(Flash(on=False)):
        assert not can_flash(HALF, 16, 0.0)


def test_dropout_must_be_allowed_and_comes_once(gpu):
    long = np.zeros((2, 256, 32), "float16")
    assert not can_flash(long, 16, 0.1)
    with flash.flash(Flash(dropout=True)):
        assert can_flash(long, 16, 0.1)
        assert not can_flash(HALF, 16, 0.1)
        with saving(Savings(True)):
            assert not can_flash(long, 16, 0.1)
            assert can_flash(long, 16, 0.0)


def test_the_switch_of_keras(gpu):
    try:
        keras.config.disable_flash_attention()
        assert not can_flash(HALF, 16, 0.0)
    finally:
        keras.config.enable_flash_attention()


def packed_ids(rows, length, texts):
    """Rows of up to so many texts, some with padding at an end or both."""
    ids = np.sort(RNG.integers(1, texts + 1, (rows, length)), axis=1)
    first = RNG.integers(0, 2, (rows, 1))
    last = RNG.integers(length // 2, length + 1, (rows, 1))
    place = np.arange(length)
    return np.where((place >= first) & (place < last), ids, 0).astype("int32")


@on_jax
def test_runs():
    ids = packed_ids(40, 18, 4)
    lengths, starts = (np.asarray(x) for x in flash.runs(ids, 8))
    assert lengths.shape == (40, 8)
    assert starts.shape == (40, 9)
    for row, found, begins in zip(ids, lengths, starts, strict=True):
        at = [0, *(np.flatnonzero(np.diff(row)) + 1), 18]
        count = len(at) - 1
        assert found.tolist() == [*np.diff(at), *[-1] * (8 - count)]
        assert begins.tolist() == [*at[:-1], *[-1] * (9 - count)]


@pytest.mark.parametrize(
    ("row", "count"),
    [
        ([1, 1, 1, 1, 1, 1], 2),
        ([1, 1, 2, 2, 0, 0], 4),
        ([0, 1, 2, 3, 0, 0], 8),
        ([0, 0, 0, 0, 0, 0], 2),
        ([1, 2, 1, 1, 1, 1], None),  # the first goes on behind the second
        ([1, 0, 1, 1, 1, 1], None),
        ([1, 2, 3, 4, 5, 0], None),  # more than four
    ],
)
def test_count_runs(row, count):
    full = [1, 1, 1, 2, 2, 2]
    assert count_runs(np.array([full, row]), limit=5, shortest=6) == count


def test_short_rows_take_a_mask():
    assert count_runs(np.ones((2, 255), "int32")) is None
    assert count_runs(np.ones((2, 256), "int32")) == 2


@on_jax
@pytest.mark.parametrize("sequences", [None, 8])
def test_a_packed_model_is_the_same_through_the_kernel(kernel, sequences):
    config = BertConfig(31, 3, 32, 2, 40, 18, attention_dropout=0.0, dropout=0.0)
    backbone = BertBackbone(config, dtype="mixed_bfloat16")
    randomize(backbone, scale=0.1)
    ids = packed_ids(6, 18, 4)
    inputs = {"token_ids": RNG.integers(0, 31, (6, 18)).astype("int32"), "sequence_ids": ids}
    with flash.flash(Flash(on=False)):
        expected = numpy(backbone(inputs)["sequence_output"])
    assert not kernel
    with flash.flash(Flash(sequences=sequences)):
        found = numpy(backbone(inputs)["sequence_output"])
    assert [call["packed"] for call in kernel] == [sequences is not None] * 3
    np.testing.assert_allclose(found[ids > 0], expected[ids > 0], atol=0.05)


@on_jax
@pytest.mark.parametrize("shape", [None, (6, 18), (6, 18, 18), (6, 2, 18, 18)])
def test_attention_is_the_same_through_the_kernel(kernel, monkeypatch, shape):
    monkeypatch.setattr(flash, "LONG", 18)
    layer = MultiHeadSelfAttention(2, dropout=0.3, seed=5, dtype="mixed_bfloat16")
    x = RNG.normal(size=(6, 18, 32)).astype("float32")
    mask = None if shape is None else RNG.random(shape) < 0.7
    layer.build(x.shape)
    randomize(layer, scale=0.2)
    expected, _ = layer(x, mask, return_attention_scores=True)
    assert not kernel
    np.testing.assert_allclose(numpy(layer(x, mask)), numpy(expected), atol=0.03)
    with flash.flash(Flash(dropout=True)):
        layer(x, mask, training=True)
    assert [(call["dropout_rate"], call["seed"]) for call in kernel] == [(0.0, 0), (0.3, 5)]


def test_ids_of_sequences_are_a_mask_where_their_runs_are_counted():
    layer = MultiHeadSelfAttention(2)
    x = RNG.normal(size=(6, 18, 8)).astype("float32")
    ids = packed_ids(6, 18, 3)
    mask = (ids[:, :, None] == ids[:, None]) & (ids[:, None] > 0)
    with pytest.raises(BertKerasError, match="must be boolean"):
        layer(x, ids)
    with flash.flash(Flash(sequences=8)):
        np.testing.assert_array_equal(numpy(layer(x, ops.convert_to_tensor(ids))), numpy(layer(x, mask)))
