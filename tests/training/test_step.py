import keras
import numpy as np
import pytest
import tensorflow as tf

from bertkeras import BertConfig, BertKerasError, BertPretrainer
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums
from bertkeras.training import AdamW, WarmupLinearDecay, make_test_step, make_train_step

BATCH, LENGTH, PREDICTIONS, VOCABULARY = 12, 11, 5, 97


def batch(seed=0, pairs=True):
    """Rows with very different numbers of predictions: 1 in the first half, all in the second."""
    random = np.random.default_rng(seed)
    counts = np.where(np.arange(BATCH) < BATCH // 2, 1, PREDICTIONS)
    inputs = {
        "token_ids": random.integers(5, VOCABULARY, (BATCH, LENGTH)),
        "segment_ids": random.integers(0, 2, (BATCH, LENGTH)),
        "padding_mask": np.arange(LENGTH)[None] < random.integers(6, LENGTH + 1, (BATCH, 1)),
        "mask_positions": random.integers(0, 6, (BATCH, PREDICTIONS)),
    }
    labels = {
        "mlm_labels": random.integers(5, VOCABULARY, (BATCH, PREDICTIONS)),
        "mlm_weights": (np.arange(PREDICTIONS)[None] < counts[:, None]).astype("float32"),
    }
    if pairs:
        labels["nsp_labels"] = random.integers(0, 2, BATCH)
    as_tensor = lambda x: tf.constant(x, tf.int32 if x.dtype == "int64" else x.dtype)  # noqa: E731
    return tf.nest.map_structure(as_tensor, (inputs, labels))


def model_of(dropout=0.0, pairs=True):
    keras.utils.set_random_seed(0)
    config = BertConfig(VOCABULARY, 2, 14, 2, 26, LENGTH, dropout=dropout, attention_dropout=dropout)
    return BertPretrainer(config, next_sentence=pairs)


def train(steps=3, pairs=True, dropout=0.0, optimizer=None, **options):
    model = model_of(dropout, pairs)
    optimizer = optimizer or AdamW(WarmupLinearDecay(1e-2, 2, 10), global_clipnorm=0.1)
    step = make_train_step(model, optimizer, **options)
    sums = [step(*batch(seed, pairs)) for seed in range(steps)]
    return model, optimizer, sums


def weights(model):
    # A key's bias adds the same to all scores of a query, so its gradient is nothing but rounding, which Adam blows up.
    found = {}
    for name, value in model.canonical_weights().items():
        array = value.numpy().copy()
        if name.endswith("qkv/bias"):
            array[14:28] = 0
        found[name] = array
    return found


def assert_close(one, other, tolerance=2e-6):
    for name, value in weights(one).items():
        np.testing.assert_allclose(weights(other)[name], value, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("accumulation", [2, 3])
@pytest.mark.parametrize("pairs", [True, False])
def test_accumulation_is_the_whole_batch(accumulation, jit_compile, pairs):
    whole, optimizer, sums = train(pairs=pairs, jit_compile=jit_compile)
    parts, other, part_sums = train(pairs=pairs, jit_compile=jit_compile, accumulation=accumulation)
    assert_close(whole, parts)
    assert int(optimizer.iterations) == int(other.iterations) == 3  # the schedule saw steps, not micro-batches
    for one, two in zip(sums, part_sums, strict=True):
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("pairs", [True, False])
def test_virtual_devices_are_the_whole_batch(jit_compile, pairs):
    whole, optimizer, sums = train(pairs=pairs, jit_compile=jit_compile)
    parts, other, part_sums = train(pairs=pairs, jit_compile=jit_compile, virtual_devices=4)
    assert_close(whole, parts)
    assert int(optimizer.iterations) == int(other.iterations) == 3
    for one, two in zip(sums, part_sums, strict=True):
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_recomputed_activations_change_no_number_of_virtual_devices(jit_compile):
    options = {"dropout": 0.3, "jit_compile": jit_compile, "virtual_devices": 4}
    kept, _, _ = train(**options)
    again, _, _ = train(**options, recompute=True)
    assert_close(kept, again)


def test_virtual_devices_that_cannot_be_shared_out():
    with pytest.raises(BertKerasError, match="virtual_devices=6 is not a power of two"):
        train(virtual_devices=6)
    with pytest.raises(BertKerasError, match="leave accumulation at 1"):
        train(virtual_devices=2, accumulation=2)
    with pytest.raises(BertKerasError, match="leave one of them out"):
        train(virtual_devices=2, flash_dropout=True)
    with pytest.raises(BertKerasError, match="8 virtual devices do not divide a batch of 12"):
        train(virtual_devices=8)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_recomputed_activations_change_no_number(jit_compile, accumulation):
    options = {"dropout": 0.3, "jit_compile": jit_compile, "accumulation": accumulation}
    kept, _, sums = train(**options)
    again, _, other_sums = train(recompute=True, **options)
    assert_close(kept, again)
    for one, two in zip(sums, other_sums, strict=True):
        np.testing.assert_allclose(one["mlm_loss"], two["mlm_loss"], rtol=1e-6)


def test_xla_changes_no_number():
    assert_close(train(jit_compile=True)[0], train(jit_compile=False)[0])


def test_the_step_follows_the_gradient_of_the_mean_over_masked_positions():
    rate = 0.5
    model, _, sums = train(steps=1, optimizer=keras.optimizers.SGD(rate))
    fresh = model_of()
    inputs, labels = batch()
    with tf.GradientTape() as tape:
        outputs = fresh(inputs, training=True)
        logits = tf.nn.log_softmax(outputs["mlm_logits"])
        picked = -tf.gather(logits, labels["mlm_labels"], batch_dims=2)
        mlm = tf.reduce_sum(picked * labels["mlm_weights"]) / tf.reduce_sum(labels["mlm_weights"])
        nsp = -tf.reduce_mean(tf.gather(tf.nn.log_softmax(outputs["nsp_logits"]), labels["nsp_labels"], batch_dims=1))
        loss = mlm + nsp
    values = [v.value for v in fresh.trainable_variables]
    for variable, gradient in zip(fresh.trainable_variables, tape.gradient(loss, values), strict=True):
        variable.assign(variable - rate * tf.convert_to_tensor(gradient))
    assert_close(model, fresh)
    np.testing.assert_allclose(sums[0]["mlm_loss"] / sums[0]["mlm_count"], mlm, rtol=1e-5)
    np.testing.assert_allclose(sums[0]["nsp_loss"] / sums[0]["nsp_count"], nsp, rtol=1e-5)


def test_micro_batches_draw_other_dropout_masks():
    model = model_of(dropout=0.5)
    step = make_train_step(model, AdamW(1e-3), accumulation=3)
    before = [v.numpy().copy() for v in model.non_trainable_variables if "seed" in v.path]
    step(*batch())
    after = [v.numpy() for v in model.non_trainable_variables if "seed" in v.path]
    assert before
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_accumulation_must_divide_the_batch():
    with pytest.raises(BertKerasError, match="accumulation=5 does not divide the batch size 12"):
        train(steps=1, accumulation=5)


def test_tokens_are_counted_without_padding():
    model = model_of(dropout=0.5)
    inputs, labels = batch()
    test_step = make_test_step(model)
    sums = test_step(inputs, labels)
    assert sums["tokens"] == inputs["padding_mask"].numpy().sum()
    np.testing.assert_array_equal(sums["mlm_loss"], test_step(inputs, labels)["mlm_loss"])  # no dropout
    packed = {k: v for k, v in inputs.items() if k != "padding_mask"}
    packed["sequence_ids"] = tf.cast(inputs["padding_mask"], tf.int32) * 2
    assert test_step(packed, labels)["tokens"] == sums["tokens"]


def test_sums_of_parts_over_the_whole_count_make_the_whole_loss():
    model = model_of()
    inputs, labels = batch()
    whole = pretraining_sums(model(inputs), labels)
    halves = [
        tf.nest.map_structure(lambda x, half=half: x[half], (inputs, labels)) for half in (slice(6), slice(6, None))
    ]
    parts = [pretraining_loss(pretraining_sums(model(x), y), whole) for x, y in halves]
    np.testing.assert_allclose(sum(parts), pretraining_loss(whole, whole), rtol=1e-6)
    mean_of_means = np.mean([pretraining_loss(s, s) for s in (pretraining_sums(model(x), y) for x, y in halves)])
    assert abs(mean_of_means - float(pretraining_loss(whole, whole))) > 1e-4  # the mistake that this guards against


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("options", [{}, {"accumulation": 3}, {"virtual_devices": 4}, {"recompute": True}])
def test_a_head_in_chunks_changes_no_number(jit_compile, options):
    whole, _, sums = train(jit_compile=jit_compile, **options)
    parts, _, other_sums = train(jit_compile=jit_compile, head_chunks=3, **options)
    assert_close(whole, parts)
    for one, two in zip(sums, other_sums, strict=True):
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-6)


def test_no_chunk_at_all():
    with pytest.raises(BertKerasError, match="head_chunks must be at least 1"):
        train(head_chunks=0)
