"""LiteRT files give the numbers of the Keras models."""

import keras
import numpy as np
import pytest

from bertkeras import BertKerasError, BertSeq2Seq, BertTextClassifier
from tests.analysis.small import drawn
from tests.checks import numpy
from tests.export.test_onnx import MODELS, named, rows

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
if keras.backend.backend() != "tensorflow":
    pytest.skip("a LiteRT file needs the TensorFlow backend", allow_module_level=True)
from bertkeras.export import export_litert  # noqa: E402


def outputs_of(path, inputs):
    interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner("serving_default")
    return runner(**inputs)


@pytest.mark.parametrize("what", ["classifier", "tagger", "spans", "masked", "pretrainer", "embedder, mean"])
def test_any_batch_and_length_gives_the_numbers_of_keras(what, tmp_path):
    cls, arguments, options = MODELS[what]
    model = drawn(cls, *arguments, scale=0.2, **options)
    path = export_litert(model, tmp_path / "model.tflite")
    for batch, length in [(1, 1), (3, 7), (2, 32)]:
        inputs = rows(batch, length, batch, masked=what in ("masked", "pretrainer"))
        found = outputs_of(path, inputs)
        expected = named(model(inputs), "outputs")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], numpy(value), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("weights", "share"), [("float16", 0.6), ("int8", 0.5)])
def test_narrow_weights_are_smaller_and_near(weights, share, tmp_path):
    import dataclasses

    from tests.analysis.small import CONFIG

    config = dataclasses.replace(CONFIG, vocabulary_size=997, hidden_dim=48, intermediate_dim=96)
    model = drawn(BertTextClassifier, 3, config=config, scale=0.15)
    inputs = rows(2, 12)
    full = export_litert(model, tmp_path / "full.tflite")
    narrow = export_litert(model, tmp_path / "narrow.tflite", weights=weights)
    assert narrow.stat().st_size < share * full.stat().st_size
    expected, found = (outputs_of(path, inputs)["outputs"] for path in (full, narrow))
    assert 0 < np.abs(found - expected).max() < 0.3 * expected.std()


def test_bad_requests_leave_no_file(tmp_path):
    with pytest.raises(BertKerasError, match="a BertSeq2Seq has no LiteRT form"):
        export_litert(drawn(BertSeq2Seq), tmp_path / "model.tflite")
    with pytest.raises(BertKerasError, match="weights must be one of float32, float16, int8"):
        export_litert(drawn(BertTextClassifier, 2), tmp_path / "model.tflite", weights="bfloat16")
    assert list(tmp_path.iterdir()) == []
