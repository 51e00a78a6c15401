"""Presets of KerasHub, both ways, with the same outputs there and here."""

import errno
import json
import os

import numpy as np
import pytest

from bertkeras.checkpoints import keras_hub as formats
from bertkeras.checkpoints.read import read_checkpoint
from bertkeras.errors import BertKerasError
from bertkeras.models import BertBackbone, BertMaskedLM, BertTextClassifier
from bertkeras.text import WordPieceTokenizer
from tests.checks import numpy, randomize, small_batch, small_config, small_tokenizer

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

CONFIG = small_config(layer_norm_epsilon=1e-12, num_segments=3, dropout=0.11, attention_dropout=0.11)


def drawn(cls=BertBackbone, config=CONFIG, **options):
    model = cls(config, **options)
    randomize(model)
    return model


def their_backbone():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=37,
        num_layers=2,
        num_heads=3,
        hidden_dim=21,
        intermediate_dim=13,
        dropout=0.11,
        max_sequence_length=11,
        num_segments=3,
    )
    randomize(backbone)
    return backbone


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same(ours, theirs):
    inputs, _ = small_batch(CONFIG)
    del inputs["mask_positions"]
    found = ours(inputs)
    expected = theirs({**inputs, "padding_mask": inputs["padding_mask"].astype("int32")})
    for name in ("sequence_output", "pooled_output"):
        np.testing.assert_allclose(numpy(found[name]), numpy(expected[name]), rtol=1e-5, atol=1e-5)


def test_from_keras_hub(tmp_path):
    theirs = their_backbone()
    theirs.save_to_preset(tmp_path)
    for where in (tmp_path, f"kerashub://{tmp_path}"):
        model = BertBackbone.from_preset(where)
        assert_same(model, theirs)
        assert model.config == CONFIG
        assert model.tokenizer is None
    classifier = BertTextClassifier.from_preset(tmp_path, num_classes=5)
    np.testing.assert_array_equal(numpy(classifier.backbone.pooler.kernel), numpy(theirs.pooled_dense.kernel))
    with pytest.raises(BertKerasError, match="no weights for mlm_head/"):
        BertMaskedLM.from_preset(tmp_path)


def test_to_keras_hub_and_back(tmp_path):
    model = drawn(tokenizer=small_tokenizer())
    model.save_to_keras_hub(tmp_path)
    assert_same(model, keras_hub.models.BertBackbone.from_preset(str(tmp_path)))
    again = BertBackbone.from_preset(tmp_path)
    for name, weight in model.canonical_weights().items():
        np.testing.assert_array_equal(numpy(again.canonical_weights()[name]), numpy(weight), err_msg=name)
    assert again.config == CONFIG
    assert again.tokenizer.fingerprint() == small_tokenizer().fingerprint()
    assert {path.name for path in tmp_path.iterdir()} == {
        "assets",
        "config.json",
        "metadata.json",
        "model.weights.h5",
        "tokenizer.json",
    }


def test_the_heads_stay_behind(tmp_path):
    model = drawn(BertTextClassifier, num_classes=5)
    model.save_to_keras_hub(tmp_path)
    assert_same(model.backbone, keras_hub.models.BertBackbone.from_preset(str(tmp_path)))


OPTIONS = [{}, {"lowercase": False}, {"strip_accents": False}, {"lowercase": False, "strip_accents": True}]


@pytest.mark.parametrize("options", [*OPTIONS, {"continuation_prefix": "@@"}])
def test_the_tokenizer_both_ways(options, tmp_path):
    pytest.importorskip("tensorflow_text", reason="tensorflow_text is not installed")
    pieces = [*small_tokenizer().vocabulary, "été", "ete", "Été", "Ete", "的", "的cat", "@@s"]
    tokenizer = WordPieceTokenizer(pieces, **options)
    drawn(tokenizer=tokenizer).save_to_keras_hub(tmp_path)
    theirs = keras_hub.models.BertTokenizer.from_preset(str(tmp_path))
    for text in ("the cats ran.", "Été", "été", "的cat", "dog"):
        assert list(map(int, theirs(text))) == tokenizer.encode(text, add_special_tokens=False).ids, text
    again = BertBackbone.from_preset(tmp_path).tokenizer
    assert again.fingerprint() == tokenizer.fingerprint()


def test_a_tokenizer_that_keras_hub_would_forget(tmp_path):
    """Its presets do not keep `split_on_cjk`."""
    model = drawn(tokenizer=WordPieceTokenizer(small_tokenizer().vocabulary, split_cjk=False))
    with pytest.raises(BertKerasError, match="A preset of KerasHub cannot say split_cjk=False"):
        model.save_to_keras_hub(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation": "gelu"},
            "KerasHub's BERT computes gelu_tanh, this model gelu; pass other_gelu=True or --other-gelu to",
        ),
        ({"activation": "relu"}, "KerasHub's BERT computes gelu_tanh, this model relu"),
        ({"layer_norm_epsilon": 1e-5}, "KerasHub's BERT has layer_norm_epsilon 1e-12, this model 1e-05; it cannot go"),
        ({"norm_first": True}, "KerasHub's BERT has norm_first False, this model True"),
        ({"attention_dropout": 0.13}, "KerasHub's BERT has attention_dropout 0.11, this model 0.13"),
        (None, "KerasHub's BERT has pooler True, this model False"),
    ],
)
def test_what_keras_hub_cannot_compute(changes, message, tmp_path):
    config = small_config(**{**CONFIG.to_dict(), **(changes or {})})
    model = drawn(config=config, with_pooler=changes is not None)
    with pytest.raises(BertKerasError, match=message):
        model.save_to_keras_hub(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_other_gelu_where_it_is_accepted(tmp_path):
    model = drawn(config=small_config(**{**CONFIG.to_dict(), "activation": "gelu"}))
    model.save_to_keras_hub(tmp_path, other_gelu=True)
    assert_same(drawn(), keras_hub.models.BertBackbone.from_preset(str(tmp_path)))  # of the same weights
    relu = drawn(config=small_config(**{**CONFIG.to_dict(), "activation": "relu"}))
    with pytest.raises(BertKerasError, match="computes gelu_tanh, this model relu"):
        relu.save_to_keras_hub(tmp_path, other_gelu=True)


def test_a_folder_keeps_to_one_format(tmp_path):
    model = drawn(tokenizer=small_tokenizer())
    model.save_to_keras_hub(tmp_path / "theirs")
    model.save_to_hugging_face(tmp_path / "hugging")
    for save, name, message in (
        (model.save_to_keras_hub, "hugging", "holds a model of transformers; nothing was changed"),
        (model.save_to_hugging_face, "theirs", "holds a model of KerasHub; nothing was changed"),
        (model.save_to_preset, "theirs", "holds a model of KerasHub; nothing was changed"),
        (drawn().save_to_keras_hub, "theirs", "holds a tokenizer and this model none"),
    ):
        before = contents(tmp_path / name)
        with pytest.raises(BertKerasError, match=message):
            save(tmp_path / name)
        assert contents(tmp_path / name) == before
    model.save_to_keras_hub(tmp_path / "theirs")


@pytest.mark.parametrize(
    "change",
    [
        {"class_name": "GemmaBackbone", "registered_name": "keras_hub>GemmaBackbone"},
        {"module": "keras_evil", "class_name": "Harm", "registered_name": "evil>Harm"},
        {"config": {}},
    ],
)
def test_what_keras_hub_cannot_load(tmp_path, change):
    their_backbone().save_to_preset(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BertKerasError, match="KerasHub cannot load .* as a BertBackbone: ") as caught:
        BertBackbone.from_preset(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_half_the_weights(tmp_path):
    their_backbone().save_to_preset(tmp_path)
    path = tmp_path / "model.weights.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BertKerasError, match="KerasHub cannot load"):
        BertBackbone.from_preset(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "model.weights.h5"])
def test_a_full_disk_leaves_the_old_files_whole(tmp_path, monkeypatch, file):
    drawn().save_to_keras_hub(tmp_path)
    before = contents(tmp_path)
    replace = os.replace

    def full(source, target):
        if os.path.basename(target) == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(formats.os, "replace", full)
    with pytest.raises(BertKerasError, match=f"cannot write {tmp_path}: No space left on device"):
        drawn(config=small_config(**{**CONFIG.to_dict(), "dropout": 0.5, "attention_dropout": 0.5})).save_to_keras_hub(
            tmp_path
        )
    monkeypatch.undo()
    after = contents(tmp_path)
    assert set(after) == set(before), "a temporary file was left"
    BertBackbone.from_preset(tmp_path)


def test_without_keras_hub(tmp_path, monkeypatch):
    their_backbone().save_to_preset(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "keras_hub", None)
    with pytest.raises(BertKerasError, match=r"KerasHub is needed for this \(.*\); run: pip install keras-nlp"):
        read_checkpoint(tmp_path)
