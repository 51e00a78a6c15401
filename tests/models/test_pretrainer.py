import math

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.models import BertPretrainer
from bertkeras.models.pretrainer import METRICS, pretraining_loss, pretraining_sums
from bertkeras.training.optimizers import AdamW
from tests.checks import JIT, check_model, compiled, flat, gradients, numpy, randomize, small_batch, small_config

CONFIG = small_config()


@pytest.fixture
def pretrainer():
    pretrainer = BertPretrainer(CONFIG)
    randomize(pretrainer)
    return pretrainer


def loss_of(pretrainer, inputs, labels):
    sums = pretraining_sums(pretrainer(inputs), labels)
    return pretraining_loss(sums, sums)


def part_of(values, rows):
    return {name: value[rows] for name, value in values.items()}


@pytest.mark.parametrize("next_sentence", [True, False])
def test_every_model_check(tmp_path, next_sentence):
    check_model(BertPretrainer, {"next_sentence": next_sentence}, small_batch(CONFIG)[0], tmp_path)


def test_heads_see_the_backbone(pretrainer):
    inputs, _ = small_batch(CONFIG)
    outputs, encoded = pretrainer(inputs), pretrainer.backbone(inputs)
    mlm = pretrainer.mlm_head(
        encoded["sequence_output"], inputs["mask_positions"], pretrainer.backbone.embeddings.token_table
    )
    np.testing.assert_allclose(numpy(outputs["mlm_logits"]), numpy(mlm), rtol=1e-5, atol=1e-5)
    nsp = pretrainer.nsp_head(encoded["pooled_output"])
    np.testing.assert_allclose(numpy(outputs["nsp_logits"]), numpy(nsp), rtol=1e-5, atol=1e-5)


def test_without_next_sentence():
    pretrainer = BertPretrainer(CONFIG, next_sentence=False)
    inputs, labels = small_batch(CONFIG)
    outputs = pretrainer(inputs)
    assert set(outputs) == {"mlm_logits"}
    assert set(pretraining_sums(outputs, labels)) == {"mlm_loss", "mlm_accuracy", "mlm_count"}
    assert set(pretraining_sums(outputs, {k: labels[k] for k in ("mlm_labels", "mlm_weights")})) >= {"mlm_loss"}


def test_sums_worked_out():
    """Two of three places count. ln of 4, 2 and 3 equal exponentials and so on, by hand."""
    ln2, ln3 = math.log(2), math.log(3)
    outputs = {
        "mlm_logits": np.array([[[0.0, ln2, 0.0], [ln3, 0.0, 0.0], [9.0, 0.0, 0.0]]], "float32"),
        "nsp_logits": np.array([[0.0, ln3]], "float32"),
    }
    labels = {
        "mlm_labels": np.array([[1, 2, 1]]),
        "mlm_weights": np.array([[1.0, 1.0, 0.0]], "float32"),
        "nsp_labels": np.array([0]),
    }
    sums = {name: float(value) for name, value in pretraining_sums(outputs, labels).items()}
    # -ln(2/4) for the first place, which is right; -ln(1/5) for the second, which is not; -ln(1/4) for the pair
    expected = {
        "mlm_loss": ln2 + math.log(5),
        "mlm_accuracy": 1,
        "mlm_count": 2,
        "nsp_loss": math.log(4),
        "nsp_accuracy": 0,
        "nsp_count": 1,
    }
    assert sums == pytest.approx(expected, rel=1e-6)
    assert float(pretraining_loss(sums, sums)) == pytest.approx((ln2 + math.log(5)) / 2 + math.log(4), rel=1e-6)
    assert float(pretraining_loss(sums, {"mlm_count": 8.0, "nsp_count": 4.0})) == pytest.approx(
        (ln2 + math.log(5)) / 8 + math.log(4) / 4, rel=1e-6
    )


def test_uniform_prediction_costs_ln_of_the_vocabulary():
    pretrainer = BertPretrainer(CONFIG)
    pretrainer.backbone.token_table.assign(np.zeros(pretrainer.backbone.token_table.shape))
    pretrainer.nsp_head.dense.kernel.assign(np.zeros(pretrainer.nsp_head.dense.kernel.shape))
    sums = pretraining_sums(pretrainer(small_batch(CONFIG)[0]), small_batch(CONFIG)[1])
    assert float(sums["mlm_loss"] / sums["mlm_count"]) == pytest.approx(math.log(CONFIG.vocabulary_size), rel=1e-5)
    assert float(sums["nsp_loss"] / sums["nsp_count"]) == pytest.approx(math.log(2), rel=1e-5)


def test_a_new_model_starts_near_the_uniform_prediction():
    pretrainer = BertPretrainer(small_config(vocabulary_size=997))
    inputs, labels = small_batch(pretrainer.config, batch=31)
    sums = pretraining_sums(pretrainer(inputs), labels)
    assert float(sums["mlm_loss"] / sums["mlm_count"]) == pytest.approx(math.log(997), abs=0.1)


def test_what_has_no_weight_changes_nothing(pretrainer):
    inputs, labels = small_batch(CONFIG)
    variables = pretrainer.trainable_variables
    before = float(loss_of(pretrainer, inputs, labels))
    expected = gradients(lambda: loss_of(pretrainer, inputs, labels), variables)
    unused = labels["mlm_weights"] == 0
    others = {
        **labels,
        "mlm_labels": np.where(unused, (labels["mlm_labels"] + 3) % CONFIG.vocabulary_size, labels["mlm_labels"]),
    }
    moved = {**inputs, "mask_positions": np.where(unused, 0, inputs["mask_positions"])}
    assert not np.array_equal(moved["mask_positions"], inputs["mask_positions"])
    assert float(loss_of(pretrainer, moved, others)) == pytest.approx(before, rel=1e-6)
    for found, gradient in zip(gradients(lambda: loss_of(pretrainer, moved, others), variables), expected, strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-6)

    def wider(value):
        return np.concatenate([value, np.zeros((len(value), 4), value.dtype)], axis=1)

    padded = {**labels, "mlm_labels": wider(labels["mlm_labels"]), "mlm_weights": wider(labels["mlm_weights"])}
    more = {**inputs, "mask_positions": wider(inputs["mask_positions"])}
    assert float(loss_of(pretrainer, more, padded)) == pytest.approx(before, rel=1e-6)
    for found, gradient in zip(gradients(lambda: loss_of(pretrainer, more, padded), variables), expected, strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cuts", [(1,), (2, 3), (1, 2, 3, 4)])
def test_parts_add_up_to_the_whole(pretrainer, cuts):
    inputs, labels = small_batch(CONFIG)
    variables = pretrainer.trainable_variables
    sums_of = compiled(lambda inputs, labels: pretraining_sums(pretrainer(inputs), labels))
    whole = sums_of(inputs, labels)
    rows = np.split(np.arange(5), cuts)
    masked = [labels["mlm_weights"][part].sum() for part in rows]
    assert len(set(masked)) > 1, "the parts should hold different numbers of masked positions"
    parts = [sums_of(part_of(inputs, part), part_of(labels, part)) for part in rows]
    for name, value in whole.items():
        assert float(sum(part[name] for part in parts)) == pytest.approx(float(value), rel=1e-5)
    losses = [float(pretraining_loss(part, whole)) for part in parts]
    assert sum(losses) == pytest.approx(float(pretraining_loss(whole, whole)), rel=1e-5)

    expected = gradients(lambda: loss_of(pretrainer, inputs, labels), variables)
    found = [
        gradients(
            lambda part=part: pretraining_loss(
                pretraining_sums(pretrainer(part_of(inputs, part)), part_of(labels, part)), whole
            ),
            variables,
        )
        for part in rows
    ]
    for variable, gradient, pieces in zip(variables, expected, zip(*found, strict=True), strict=True):
        np.testing.assert_allclose(sum(pieces), gradient, rtol=1e-4, atol=1e-5, err_msg=variable.path)


def test_no_masked_position_at_all(pretrainer):
    inputs, labels = small_batch(CONFIG)
    labels["mlm_weights"] = np.zeros_like(labels["mlm_weights"])
    sums = pretraining_sums(pretrainer(inputs), labels)
    assert float(sums["mlm_loss"]) == 0
    assert float(pretraining_loss(sums, sums)) == pytest.approx(float(sums["nsp_loss"]) / 5, rel=1e-6)
    found = gradients(lambda: loss_of(pretrainer, inputs, labels), pretrainer.trainable_variables)
    assert all(np.isfinite(gradient).all() for gradient in found)


def test_sums_are_float32_in_bfloat16():
    """The logits are rounded to bfloat16, what is computed from them is not."""
    inputs, labels = small_batch(CONFIG)
    pretrainer = BertPretrainer(CONFIG, dtype="bfloat16")
    outputs = pretrainer(inputs)
    sums = pretraining_sums(outputs, labels)
    assert {keras.backend.standardize_dtype(value.dtype) for value in sums.values()} == {"float32"}
    logits = numpy(outputs["mlm_logits"]).astype("float64")
    picked = np.take_along_axis(logits, labels["mlm_labels"][..., None], -1)[..., 0]
    expected = ((np.log(np.exp(logits).sum(-1)) - picked) * labels["mlm_weights"]).sum()
    assert float(sums["mlm_loss"]) == pytest.approx(expected, rel=1e-5)


def test_every_weight_is_trained(pretrainer):
    found = gradients(lambda: loss_of(pretrainer, *small_batch(CONFIG)), pretrainer.trainable_variables)
    for variable, gradient in zip(pretrainer.trainable_variables, found, strict=True):
        assert gradient.any(), variable.path


def dataset(rows, batch):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(rows).batch(batch)


@pytest.mark.parametrize("next_sentence", [True, False])
def test_fit_lowers_the_loss_and_reports_the_parts(next_sentence):
    inputs, labels = small_batch(CONFIG, batch=23)
    if not next_sentence:
        del labels["nsp_labels"]
    pretrainer = BertPretrainer(small_config(dropout=0.1, num_layers=1), next_sentence=next_sentence)
    # once as a user gets it, with XLA, which takes its time to compile
    pretrainer.compile(optimizer=AdamW(3e-3), jit_compile="auto" if next_sentence else JIT)
    history = pretrainer.fit(dataset((inputs, labels), 23), epochs=13, verbose=0).history
    kinds = ("mlm", "nsp") if next_sentence else ("mlm",)
    names = {f"{kind}_{what}" for kind in kinds for what in ("loss", "accuracy")}
    assert set(history) == {"loss", *names}
    assert history["loss"][-1] < history["loss"][0] - 0.2
    assert history["mlm_loss"][-1] < history["mlm_loss"][0] - 0.2


def test_metrics_are_means_over_the_places_of_all_batches(pretrainer):
    """Not means of the batches' means: the three batches hold 1, 5 and 0 masked positions."""
    inputs, labels = small_batch(CONFIG)
    assert [labels["mlm_weights"][rows].sum() for rows in (slice(2), slice(2, 4), slice(4, 5))] == [1, 5, 0]
    pretrainer.compile(optimizer=AdamW(), jit_compile=JIT)
    assert [metric.name for metric in pretrainer.metrics] == ["loss", *METRICS], "each once"
    found = pretrainer.evaluate(dataset((inputs, labels), 2), verbose=0, return_dict=True)
    sums = {name: float(value) for name, value in pretraining_sums(pretrainer(inputs), labels).items()}
    for kind in ("mlm", "nsp"):
        for what in ("loss", "accuracy"):
            expected = sums[f"{kind}_{what}"] / sums[f"{kind}_count"]
            assert found[f"{kind}_{what}"] == pytest.approx(expected, rel=1e-5), (kind, what)


def test_a_small_batch_is_learned_by_heart():
    config = small_config(num_layers=1, hidden_dim=33, intermediate_dim=67)
    inputs, labels = small_batch(config, batch=11)
    pretrainer = BertPretrainer(config)
    pretrainer.compile(optimizer=AdamW(1e-2, weight_decay=0.0), jit_compile=JIT)
    pretrainer.fit(dataset((inputs, labels), 11).repeat(80), verbose=0)
    found = pretrainer.evaluate(dataset((inputs, labels), 11), verbose=0, return_dict=True)
    assert found["mlm_loss"] < 0.05
    assert found["nsp_loss"] < 0.05
    assert found["mlm_accuracy"] == found["nsp_accuracy"] == 1.0


def test_sample_weight_is_refused(pretrainer):
    inputs, labels = small_batch(CONFIG)
    pretrainer.compile(optimizer=AdamW(), run_eagerly=True)
    with pytest.raises(BertKerasError, match="mlm_weights"):
        pretrainer.fit(dataset((inputs, labels, np.ones(5, "float32")), 5), verbose=0)


def test_a_bfloat16_model_trains():
    inputs, labels = small_batch(CONFIG, batch=11)
    pretrainer = BertPretrainer(small_config(num_layers=1), dtype="mixed_bfloat16")
    pretrainer.compile(optimizer=AdamW(3e-3), jit_compile=JIT)
    history = pretrainer.fit(dataset((inputs, labels), 11), epochs=11, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.2
    assert all(np.isfinite(value).all() for value in flat(pretrainer(inputs)))


def test_classes_that_tie_share_the_point():
    logits = np.array([[[2.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 2.0, 0.0]]], "float32")
    labels = {"mlm_labels": np.array([[0, 3, 0]]), "mlm_weights": np.ones((1, 3), "float32")}
    sums = pretraining_sums({"mlm_logits": ops.convert_to_tensor(logits)}, labels)
    assert float(sums["mlm_accuracy"]) == 0.5 + 0.25 + 0.0
