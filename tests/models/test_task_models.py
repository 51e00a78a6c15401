"""The models of tasks: classes of texts and of pieces, answers, vectors."""

import logging

import keras
import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import (
    BertBackbone,
    BertMaskedLM,
    BertQuestionAnswerer,
    BertTextClassifier,
    BertTextEmbedder,
    BertTokenClassifier,
)
from tests.checks import check_model, numpy, randomize, small_batch, small_config, small_tokenizer

CONFIG = small_config()
CLASSIFIER = {"num_classes": 5, "labels": list("abcde"), "task": "multi_label", "head_dropout": 0.17}
TAGGER = {"num_classes": 3, "labels": list("abc"), "head_dropout": 0.17}
EMBEDDER = {"pooling": "max", "normalize": False, "max_length": 7, "with_pooler": True}
MODELS = [
    (BertTextClassifier, CLASSIFIER),
    (BertTokenClassifier, TAGGER),
    (BertQuestionAnswerer, {}),
    (BertTextEmbedder, EMBEDDER),
    (BertBackbone, {"with_pooler": False}),
]


def inputs_of(config=CONFIG):
    inputs, _ = small_batch(config)
    del inputs["mask_positions"]
    return inputs


def drawn(cls, config=CONFIG, **options):
    model = cls(config, **options)
    randomize(model)
    return model


@pytest.mark.parametrize(("cls", "options"), MODELS)
def test_every_model_check(cls, options, tmp_path):
    check_model(cls, options, inputs_of(), tmp_path)


@pytest.mark.parametrize(("cls", "options"), MODELS)
def test_every_bit_and_every_option_comes_back(cls, options, tmp_path):
    model = drawn(cls, **options, tokenizer=small_tokenizer())
    model.model_card = {"command": "make it"}
    model.save_to_preset(tmp_path)
    again = cls.from_preset(tmp_path)
    assert {name: getattr(again, name) for name in options} == options
    assert again.model_card == {"command": "make it"}
    for weight, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), numpy(other))


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def loss_of(model, y, weights=None):
    outputs = model(inputs_of())
    labels = keras.tree.map_structure(keras.ops.convert_to_tensor, y)
    if weights is not None:
        weights = keras.ops.convert_to_tensor(weights)
    return float(numpy(model.compute_loss(None, labels, outputs, weights))), numpy(outputs).astype("float64")


def test_the_loss_of_one_class():
    y, weights = np.array([0, 2, 1, 2, 0], "int32"), np.array([1, 0, 2, 0.5, 0], "float32")
    model = drawn(BertTextClassifier, num_classes=3)
    loss, logits = loss_of(model, y)
    losses = -log_softmax(logits)[np.arange(5), y]
    assert loss == pytest.approx(losses.mean(), rel=1e-5)
    assert loss_of(model, y, weights)[0] == pytest.approx((losses * weights).sum() / 3.5, rel=1e-5)
    assert loss_of(model, y[:, None])[0] == pytest.approx(loss, rel=1e-6)


def test_the_loss_of_several_classes():
    y = np.array([[0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]], "int32")
    loss, logits = loss_of(drawn(BertTextClassifier, num_classes=3, task="multi_label"), y)
    probability = 1 / (1 + np.exp(-logits))
    assert loss == pytest.approx(-np.log(np.where(y, probability, 1 - probability)).mean(), rel=1e-5)


def test_the_loss_of_numbers():
    y = np.array([0.5, -1, 2, 0, 7], "float32")
    loss, numbers = loss_of(drawn(BertTextClassifier, num_classes=1, task="regression"), y)
    assert loss == pytest.approx(np.square(numbers[:, 0] - y).mean(), rel=1e-5)


def test_labels_of_pieces_below_zero_do_not_count():
    y = np.random.default_rng(3).integers(-1, 3, (5, 7)).astype("int32")
    model = drawn(BertTokenClassifier, num_classes=3)
    loss, logits = loss_of(model, y)
    losses = -np.take_along_axis(log_softmax(logits), np.maximum(y, 0)[..., None], -1)[..., 0] * (y >= 0)
    assert loss == pytest.approx(losses.sum() / (y >= 0).sum(), rel=1e-5)
    weights = np.array([1, 0, 2, 0, 0], "float32")
    expected = (losses * weights[:, None]).sum() / ((y >= 0) * weights[:, None]).sum()
    assert loss_of(model, y, weights)[0] == pytest.approx(expected, rel=1e-5)
    assert loss_of(model, np.full((5, 7), -100, "int32"))[0] == 0


def test_the_loss_of_spans():
    y = {"start_positions": np.array([0, 1, 2, 0, 1], "int32"), "end_positions": np.array([2, 2, 2, 1, 1], "int32")}
    loss, logits = loss_of(drawn(BertQuestionAnswerer), y)
    begin, end = (log_softmax(logits[..., part])[np.arange(5), y[name]] for part, name in enumerate(y))
    assert loss == pytest.approx(-(begin + end).mean() / 2, rel=1e-5)


def test_a_loss_of_one_s_own():
    model = drawn(BertTextClassifier, num_classes=3)
    model.compile("sgd", loss="mse", run_eagerly=True)
    y = np.zeros((5, 3), "float32")
    loss, logits = loss_of(model, y)
    assert loss == pytest.approx(np.square(logits).mean(), rel=1e-5)


@pytest.mark.parametrize("cls", [BertTextClassifier, BertTokenClassifier])
def test_fit_learns_by_heart(cls):
    inputs = inputs_of()
    model = cls(CONFIG, num_classes=3)
    y = np.array([0, 1, 2, 1, 0], "int32")
    if cls is BertTokenClassifier:
        y = np.where(inputs["padding_mask"], y[:, None], -100).astype("int32")
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(inputs, y, epochs=60, batch_size=5, verbose=0)
    right = np.argmax(model.predict(inputs, verbose=0), -1) == y
    assert right[y >= 0].all()


def test_the_classifier_reads_the_first_vector():
    model = drawn(BertTextClassifier, num_classes=3)
    encoded = model.backbone(inputs_of())["pooled_output"]
    np.testing.assert_allclose(numpy(model(inputs_of())), numpy(model.classifier(encoded)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_pooling_leaves_padding_out(pooling):
    model = drawn(BertTextEmbedder, pooling=pooling, normalize=False)
    inputs = inputs_of()
    encoded = numpy(model.backbone(inputs)["sequence_output"])
    kept = inputs["padding_mask"]
    for row, vectors, is_token in zip(numpy(model(inputs)), encoded, kept, strict=True):
        real = vectors[is_token]
        expected = {"cls": real[0], "mean": real.mean(0), "max": real.max(0)}[pooling]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)
    unit = drawn(BertTextEmbedder, pooling=pooling)
    np.testing.assert_allclose(np.linalg.norm(numpy(unit(inputs)), axis=1), 1, rtol=1e-5)
    assert not kept.all()


def test_embed_keeps_the_order_and_cuts():
    config = small_config(vocabulary_size=17)
    model = drawn(BertTextEmbedder, config, tokenizer=small_tokenizer(), max_length=6)
    texts = ["the cat sat on the mat.", "dog", "the dogs ran on the cat on the mat.", "", "cat sat"]
    together = model.embed(texts, batch_size=2)
    assert together.shape == (5, 21)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(model.embed(text)[0], vector, rtol=1e-5, atol=1e-5)
    ids = np.array([[2, 5, 6, 8, 10, 3]], "int32")  # [CLS] the cat sat on [SEP]
    np.testing.assert_allclose(together[0], numpy(model({"token_ids": ids}))[0], rtol=1e-5, atol=1e-5)
    assert model.embed([]).shape == (0, 21)


def test_heads_begin_anew_and_say_so(tmp_path, caplog):
    drawn(BertBackbone, with_pooler=False).save_to_preset(tmp_path)
    with caplog.at_level(logging.WARNING, "bertkeras"):
        model = BertTextClassifier.from_preset(tmp_path, num_classes=3)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: no weights for classifier, which begins anew",
        f"{tmp_path}: no weights for backbone/pooler, which begins anew",
    ]
    table = numpy(drawn(BertBackbone).token_table)
    np.testing.assert_array_equal(numpy(model.backbone.token_table), table)


def test_a_head_of_another_model_is_not_taken(tmp_path):
    drawn(BertTokenClassifier, num_classes=3).save_to_preset(tmp_path)
    model = BertTextClassifier.from_preset(tmp_path, num_classes=3)
    assert not numpy(model.classifier.bias).any()
    same = BertTokenClassifier.from_preset(tmp_path)
    assert numpy(same.classifier.bias).all()
    assert not numpy(BertTokenClassifier.from_preset(tmp_path, new_head=True).classifier.bias).any()
    with pytest.raises(BertKerasError, match=r"needs \(21, 2\); pass new_head=True to begin it anew"):
        BertTokenClassifier.from_preset(tmp_path, num_classes=2)
    other = BertTokenClassifier.from_preset(tmp_path, num_classes=2, new_head=True)
    assert numpy(other.classifier.kernel).shape == (21, 2)


def test_what_is_missing_says_what_to_pass(tmp_path):
    drawn(BertMaskedLM).save_to_preset(tmp_path)
    with pytest.raises(BertKerasError, match=r"no weights for backbone/pooler/.*; pass with_pooler=False$"):
        BertBackbone.from_preset(tmp_path)
    BertBackbone.from_preset(tmp_path, with_pooler=False)
    with pytest.raises(BertKerasError, match="does not say enough for a BertTextClassifier: .*num_classes"):
        BertTextClassifier.from_preset(tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BertTextClassifier(CONFIG, 3, task="sorting"), "task must be one of single_label, .* got 'sorting'"),
        (lambda: BertTextClassifier(CONFIG, 0), "num_classes must be a positive integer, got 0"),
        (lambda: BertTextClassifier(CONFIG, 2, labels=["a"]), r"labels must be 2 different names, got \['a'\]"),
        (lambda: BertTokenClassifier(CONFIG, 2, labels=["a", "a"]), "labels must be 2 different names"),
        (lambda: BertTextEmbedder(CONFIG, pooling="sum"), "pooling must be one of cls, mean, max, got 'sum'"),
        (lambda: BertTextEmbedder(CONFIG, max_length=2), "max_length must be between 3 and 11, got 2"),
        (lambda: BertTextEmbedder(CONFIG, max_length=12), "max_length must be between 3 and 11, got 12"),
        (lambda: BertTextEmbedder(CONFIG).embed("the cat"), "embed needs a tokenizer"),
    ],
)
def test_errors(make, words):
    with pytest.raises(BertKerasError, match=words):
        make()
