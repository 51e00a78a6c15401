"""A SavedModel that takes strings says what the model says, also in a process that knows nothing of bertkeras."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from bertkeras import BertKerasError, BertMaskedLM, BertTextClassifier, BertTextEmbedder, BertTokenClassifier
from tests.analysis.small import CONFIG, drawn

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
pytest.importorskip("tensorflow_text", reason="TensorFlow Text is not installed")
if keras.backend.backend() != "tensorflow":
    pytest.skip("a SavedModel needs the TensorFlow backend", allow_module_level=True)
from bertkeras.export import export_saved_model  # noqa: E402

TEXTS = ["the cat sat on the mat.", "", "Dogs, he ran", "她是医生", "the " * 60, "unknown wörds"]
PAIRS = ["he ran " * 20, "the dog", "", "他", "she " * 60, "."]


def loaded(model, folder):
    return tf.saved_model.load(str(export_saved_model(model, folder / "model"))).signatures


@pytest.mark.parametrize("max_length", [None, 7])
@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_classifiers(task, max_length, tmp_path):
    options = {} if task == "regression" else {"labels": ["a", "b", "c"], "temperature": 1.7}
    model = drawn(BertTextClassifier, 3, task=task, max_length=max_length, scale=0.15, **options)
    signatures = loaded(model, tmp_path)
    for found, expected in [
        (signatures["serving_default"](texts=tf.constant(TEXTS)), model.classify(TEXTS)),
        (signatures["pairs"](texts=tf.constant(TEXTS), pairs=tf.constant(PAIRS)), model.classify(TEXTS, PAIRS)),
    ]:
        if task == "regression":
            np.testing.assert_allclose(found["values"], [e.values for e in expected], atol=1e-5)
            continue
        assert [name.decode() for name in found["labels"].numpy()] == ["a", "b", "c"]
        values = [list(e.probabilities.values()) for e in expected]
        np.testing.assert_allclose(found["probabilities"], values, atol=1e-5)


def test_any_number_of_texts(tmp_path):
    signatures = loaded(drawn(BertTextClassifier, 2), tmp_path)
    for count in (0, 1, 5):
        found = signatures["serving_default"](texts=tf.constant(TEXTS[:count], tf.string))
        assert found["probabilities"].shape == (count, 2)
        assert [name.decode() for name in found["labels"].numpy()] == ["0", "1"]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_embedders(pooling, tmp_path):
    model = drawn(BertTextEmbedder, pooling=pooling)
    found = loaded(model, tmp_path)["serving_default"](texts=tf.constant(TEXTS))
    np.testing.assert_allclose(found["vectors"], model.embed(TEXTS), atol=1e-5)


def test_blanks(tmp_path):
    model = drawn(BertMaskedLM, scale=0.15)
    fill = loaded(model, tmp_path)["serving_default"]
    texts = ["the [MASK] sat on the [MASK].", "[MASK]", "no blank", "他[MASK]医生"]
    found = fill(texts=tf.constant(texts))
    assert found["text"].numpy().tolist() == [0, 0, 1, 3]
    expected = [blank for text in texts if "[MASK]" in text for blank in model.fill_mask(text)[0]]
    assert [[p.decode() for p in row] for row in found["pieces"].numpy()] == [[f.token for f in b] for b in expected]
    np.testing.assert_allclose(found["probabilities"], [[f.probability for f in b] for b in expected], atol=1e-5)
    assert fill(texts=tf.constant(["none"]))["text"].shape == (0,)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more pieces than the 32"):
        fill(texts=tf.constant(["the " * 40 + "[MASK]"]))


def test_in_a_process_without_bertkeras(tmp_path):
    model = drawn(BertTextClassifier, 2, labels=["no", "yes"])
    folder = export_saved_model(model, tmp_path / "model")
    code = (
        "import json, sys; import tensorflow as tf, tensorflow_text\n"
        f"answer = tf.saved_model.load({str(folder)!r}).signatures['serving_default']\n"
        f"found = answer(texts=tf.constant({TEXTS!r}))['probabilities']\n"
        "assert not {'bertkeras', 'tokenizers'} & {*sys.modules}, 'not a clean process'\n"
        "print(json.dumps(found.numpy().tolist()))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = [list(found.probabilities.values()) for found in model.classify(TEXTS)]
    np.testing.assert_allclose(json.loads(run.stdout.splitlines()[-1]), expected, atol=1e-5)


def test_bad_requests_change_nothing(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(BertKerasError, match="is not empty; nothing was changed"):
        export_saved_model(drawn(BertTextClassifier, 2), tmp_path / "full")
    with pytest.raises(BertKerasError, match="a BertTokenClassifier has no SavedModel"):
        export_saved_model(drawn(BertTokenClassifier, 2), tmp_path / "other")
    with pytest.raises(BertKerasError, match="needs a tokenizer"):
        export_saved_model(BertTextClassifier(CONFIG, 2), tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
