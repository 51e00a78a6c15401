"""ONNX files give the numbers of the Keras models."""

import dataclasses
import json

import numpy as np
import pytest

from bertkeras import (
    BertBackbone,
    BertKerasError,
    BertMaskedLM,
    BertPretrainer,
    BertQuestionAnswerer,
    BertSeq2Seq,
    BertTextClassifier,
    BertTextEmbedder,
    BertTokenClassifier,
)
from bertkeras.analysis import trace
from tests.analysis.small import CONFIG, TOKENIZER, drawn
from tests.checks import numpy

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from bertkeras.export import export_onnx  # noqa: E402

MODELS = {
    "backbone": (BertBackbone, (), {}),
    "without pooler": (BertBackbone, (), {"with_pooler": False}),
    "classifier": (BertTextClassifier, (3,), {}),
    "tagger": (BertTokenClassifier, (5,), {"decoder": "crf", "labels": ["O", "B-a", "I-a", "B-b", "I-b"]}),
    "spans": (BertQuestionAnswerer, (), {}),
    "masked": (BertMaskedLM, (), {}),
    "pretrainer": (BertPretrainer, (), {}),
    **{f"embedder, {pooling}": (BertTextEmbedder, (), {"pooling": pooling}) for pooling in ("cls", "mean", "max")},
    "embedder as it is": (BertTextEmbedder, (), {"normalize": False}),
}


def rows(batch, length, seed=0, masked=False):
    """Rows of any pieces, the first one full, with both segments and padding."""
    rng = np.random.default_rng(seed)
    sizes = np.array([length, *rng.integers(1, length + 1, batch - 1)])
    inputs = {
        "token_ids": rng.integers(0, CONFIG.vocabulary_size, (batch, length), dtype="int32"),
        "segment_ids": rng.integers(0, 2, (batch, length), dtype="int32"),
        "padding_mask": np.arange(length) < sizes[:, None],
    }
    return {**inputs, "mask_positions": rng.integers(0, length, (batch, 4), dtype="int32")} if masked else inputs


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def outputs_of(path, inputs):
    running = session(path)
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(None, inputs), strict=True))


def named(outputs, name):
    return outputs if isinstance(outputs, dict) else {name: outputs}


@pytest.mark.parametrize("what", MODELS)
def test_any_batch_and_length_gives_the_numbers_of_keras(what, tmp_path):
    cls, arguments, options = MODELS[what]
    model = drawn(cls, *arguments, scale=0.2, **options)
    path = export_onnx(model.to_preset(), tmp_path / "model.onnx")
    for batch, length in [(1, 1), (3, 7), (2, 32), (5, 2)]:
        inputs = rows(batch, length, batch, masked=what in ("masked", "pretrainer"))
        found = outputs_of(path, inputs)
        expected = named(model(inputs), "embedding" if "embedder" in what else "logits")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            value = numpy(value)
            assert found[name].shape == value.shape
            seen = (
                inputs["padding_mask"] if value.shape[:2] == (batch, length) and name != "mlm_logits" else slice(None)
            )
            np.testing.assert_allclose(found[name][seen], value[seen], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_first": True},
        {"positions": "rotary"},
        {"gated_feed_forward": True, "num_heads": 2, "hidden_dim": 26, "positions": "rotary", "norm_first": True},
        {"activation": "gelu_tanh"},
        {"activation": "relu"},
        {"activation": "silu"},
        {"tie_embeddings": False},
        {"layer_norm_epsilon": 1e-3},
        {"num_layers": 1, "num_heads": 1},
    ],
)
def test_every_option_of_the_architecture(changes, tmp_path):
    model = drawn(BertMaskedLM, config=dataclasses.replace(CONFIG, **changes), scale=0.2)
    inputs = rows(3, 9, masked=True)
    found = outputs_of(export_onnx(model.to_preset(), tmp_path / "model.onnx"), inputs)
    np.testing.assert_allclose(found["logits"], numpy(model(inputs)), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("what", ["classifier", "masked", "embedder, mean"])
def test_attention_beside_the_answer(what, tmp_path):
    cls, arguments, options = MODELS[what]
    model = drawn(cls, *arguments, **options)
    ids = np.array([TOKENIZER.encode("the cat sat, he ran.").ids], "int32")
    inputs = {**rows(*ids.shape, masked=what == "masked"), "token_ids": ids, "segment_ids": np.zeros_like(ids)}
    found = outputs_of(export_onnx(model.to_preset(), tmp_path / "with.onnx", attention=True), inputs)
    expected = trace(model, "the cat sat, he ran.")[0].attention
    np.testing.assert_allclose(found.pop("attention")[:, 0], expected, atol=1e-5)
    plain = outputs_of(export_onnx(model.to_preset(), tmp_path / "plain.onnx"), inputs)
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "share", "error"), [("float16", 0.6, 0.02), ("bfloat16", 0.6, 0.1), ("int8", 0.5, 0.3)]
)
def test_narrow_weights_are_smaller_and_near(weights, share, error, tmp_path):
    config = dataclasses.replace(CONFIG, vocabulary_size=997, hidden_dim=48, intermediate_dim=96)
    model = drawn(BertMaskedLM, config=config, scale=0.15)
    inputs = rows(2, 12, masked=True)
    full = export_onnx(model.to_preset(), tmp_path / "full.onnx")
    narrow = export_onnx(model.to_preset(), tmp_path / "narrow.onnx", weights=weights)
    assert narrow.stat().st_size < share * full.stat().st_size
    expected, found = (outputs_of(path, inputs)["logits"] for path in (full, narrow))
    assert 0 < np.abs(found - expected).max() < error * expected.std()


def test_the_file_tells_what_it_holds(tmp_path):
    labels = ["O", "B-a", "I-a"]
    model = drawn(BertTokenClassifier, 3, decoder="crf", labels=labels)
    path = export_onnx(model.to_preset(), tmp_path / "folder" / "model.onnx")
    about = json.loads(session(path).get_modelmeta().custom_metadata_map["bertkeras"])
    assert about["model"] == "BertTokenClassifier"
    assert about["options"]["labels"] == labels
    assert about["config"] == CONFIG.to_dict()
    np.testing.assert_allclose(about["crf/transitions"], numpy(model.crf.transitions), rtol=1e-6)
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_bad_requests_leave_no_file(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(BertKerasError, match="a BertSeq2Seq has no ONNX form"):
        export_onnx(drawn(BertSeq2Seq).to_preset(), path)
    with pytest.raises(BertKerasError, match="weights must be one of float32"):
        export_onnx(drawn(BertMaskedLM).to_preset(), path, weights="int4")
    config = dataclasses.replace(CONFIG, activation="mish")
    with pytest.raises(BertKerasError, match="'mish' has no ONNX form"):
        export_onnx(drawn(BertMaskedLM, config=config).to_preset(), path)
    assert list(tmp_path.iterdir()) == []
