import errno
import json
import os
import pickle

import numpy as np
import pytest

from bertkeras import files
from bertkeras.checkpoints import presets
from bertkeras.errors import BertKerasError
from bertkeras.models import BertBackbone, BertMaskedLM, BertPretrainer
from tests.checks import flat, numpy, randomize, small_batch, small_config, small_tokenizer

CONFIG = small_config(norm_first=True)
MODELS = [(BertBackbone, {}), (BertMaskedLM, {}), (BertPretrainer, {}), (BertPretrainer, {"next_sentence": False})]


def drawn(cls, config=CONFIG, **options):
    model = cls(config, **options)
    randomize(model)
    return model


def same_outputs(model, other):
    inputs, _ = small_batch(CONFIG)
    for output, expected in zip(flat(other(inputs)), flat(model(inputs)), strict=True):
        np.testing.assert_array_equal(output, expected)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "preset"
    drawn(BertPretrainer, tokenizer=small_tokenizer()).save_to_preset(folder)
    return folder


@pytest.mark.parametrize(("cls", "options"), MODELS)
def test_every_bit_comes_back(cls, options, tmp_path):
    model = drawn(cls, **options, tokenizer=small_tokenizer())
    model.save_to_preset(tmp_path / "new" / "preset")
    again = cls.from_preset(tmp_path / "new" / "preset")
    assert again.config == CONFIG
    assert again.tokenizer == small_tokenizer()
    assert {name: getattr(again, name) for name in options} == options
    for weight, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), numpy(other))
    same_outputs(model, again)


def test_a_bfloat16_model_comes_back(tmp_path):
    model = drawn(BertMaskedLM, dtype="bfloat16")
    model.save_to_preset(tmp_path)
    again = BertMaskedLM.from_preset(tmp_path, dtype="bfloat16")
    assert {weight.dtype for weight in again.weights} == {"bfloat16"}
    same_outputs(model, again)


def test_a_pretrainer_s_preset_makes_the_others(folder):
    pretrainer = BertPretrainer.from_preset(folder)
    inputs, _ = small_batch(CONFIG)
    logits = numpy(pretrainer(inputs)["mlm_logits"])
    np.testing.assert_allclose(numpy(BertMaskedLM.from_preset(folder)(inputs)), logits, rtol=1e-5, atol=1e-5)
    same_outputs(pretrainer.backbone, BertBackbone.from_preset(folder))
    without = BertPretrainer.from_preset(folder, next_sentence=False)
    np.testing.assert_allclose(numpy(without(inputs)["mlm_logits"]), logits, rtol=1e-5, atol=1e-5)
    assert BertBackbone.from_preset(folder).tokenizer == small_tokenizer()


def test_a_backbone_s_preset_makes_no_masked_lm(tmp_path):
    drawn(BertBackbone).save_to_preset(tmp_path)
    with pytest.raises(BertKerasError, match=r"no weights for mlm_head/.* and others; this preset cannot make a Be"):
        BertMaskedLM.from_preset(tmp_path)


def test_names_and_options_from_outside_win(folder):
    model = BertPretrainer.from_preset(folder, name="my_backbone", dtype="mixed_bfloat16")
    assert (model.name, model.dtype_policy.name) == ("my_backbone", "mixed_bfloat16")
    model.save_to_preset(folder)
    BertBackbone.from_preset(folder)


def test_the_files(folder):
    assert {"README.md", "bertkeras.json", "model.safetensors"} < set(os.listdir(folder))
    description = json.loads((folder / "bertkeras.json").read_text(encoding="utf-8"))
    assert description == {
        "format": "bertkeras",
        "format_version": 1,
        "model": "BertPretrainer",
        "options": {"next_sentence": True},
        "config": CONFIG.to_dict(),
        "card": {},
    }
    preset = presets.read_preset(folder)
    assert {value.dtype for value in preset.arrays.values()} == {np.dtype("float32")}
    assert set(preset.arrays) == set(BertPretrainer(CONFIG).canonical_weights())


def test_without_a_tokenizer_there_are_no_tokenizer_files(tmp_path):
    drawn(BertBackbone).save_to_preset(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["README.md", "bertkeras.json", "model.safetensors"]
    assert BertBackbone.from_preset(tmp_path).tokenizer is None


def changed(folder, **changes):
    path = folder / "bertkeras.json"
    description = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({k: v for k, v in description.items() if v is not None}), encoding="utf-8")


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


DAMAGE = {
    "no folder": (lambda f: f.rename(f.parent / "elsewhere"), "is not a preset: no such folder; give a folder made by"),
    "no description": (
        lambda f: (f / "bertkeras.json").unlink(),
        "is not a preset: neither bertkeras.json nor config.json in it",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "preset holds no weights: none of model.safetensors,"),
    "half a description": (lambda f: cut(f / "bertkeras.json", 0.5), "bertkeras.json is damaged: it "),
    "no JSON": (lambda f: (f / "bertkeras.json").write_bytes(b"\xff\xfe\x00"), "bertkeras.json is damaged: it "),
    "a list": (lambda f: (f / "bertkeras.json").write_text("[]"), "bertkeras.json is damaged: it "),
    "an empty description": (lambda f: (f / "bertkeras.json").write_text("{}"), "the preset is damaged"),
    "half the weights": (lambda f: cut(f / "model.safetensors", 0.5), "model.safetensors is damaged"),
    "the last byte lost": (lambda f: cut(f / "model.safetensors", 0.99999), "model.safetensors is damaged"),
    "no weights in the file": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
    "a newer format": (lambda f: changed(f, format_version=2), "format 2 is newer than this bertkeras reads; upgrade"),
    "a newer format with news": (
        lambda f: changed(f, format_version=7, config={"rotary": True}),
        "format 7 is newer than this bertkeras reads; upgrade",
    ),
    "a version that is none": (lambda f: changed(f, format_version="1"), "the preset is damaged"),
    "no configuration": (lambda f: changed(f, config=None), "the preset is damaged"),
    "no options": (lambda f: changed(f, options=None), "the preset is damaged"),
    "options that are none": (lambda f: changed(f, options=7), "the preset is damaged"),
    "a card that is none": (lambda f: changed(f, card="README"), "the preset is damaged"),
    "a model that is none": (lambda f: changed(f, model=["BertBackbone"]), "the preset is damaged"),
    "an unknown option": (
        lambda f: changed(f, config={**CONFIG.to_dict(), "rotary": True}),
        "unknown BertConfig option rotary",
    ),
    "a lacking option": (lambda f: changed(f, config={"vocabulary_size": 37}), "missing BertConfig option num_layers"),
    "another width": (
        lambda f: changed(f, config={**CONFIG.to_dict(), "intermediate_dim": 17}),
        r"contract/kernel has shape \(13, 21\), the model needs \(17, 21\)|expand/kernel has shape",
    ),
    "more layers": (
        lambda f: changed(f, config={**CONFIG.to_dict(), "num_layers": 3}),
        "no weights for backbone/encoder_2/",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_in_one_line(folder, damage):
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(BertKerasError, match=message) as caught:
        BertPretrainer.from_preset(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_nothing_in_a_preset_is_executed(folder, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(BertKerasError, match="damaged"):
        BertBackbone.from_preset(folder)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "bertkeras.json"])
def test_a_full_disk_leaves_the_old_files_whole(folder, monkeypatch, file):
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    replace = os.replace

    def full(source, target):
        if os.path.basename(target) == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(BertKerasError, match=f"cannot write .*{file}: No space left on device"):
        drawn(BertPretrainer, tokenizer=small_tokenizer()).save_to_preset(folder)
    monkeypatch.undo()
    after = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    assert set(after) == set(before), "a temporary file was left"
    assert after[file] == before[file]
    BertPretrainer.from_preset(folder)


def test_a_full_disk_while_the_weights_are_written(folder, monkeypatch):
    import safetensors.numpy

    def full(arrays, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(os.listdir(folder))
    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(BertKerasError, match=r"cannot write .*model.safetensors: No space left on device"):
        drawn(BertPretrainer, tokenizer=small_tokenizer()).save_to_preset(folder)
    assert sorted(os.listdir(folder)) == before
    BertPretrainer.from_preset(folder)


def test_has_tokenizer(folder, tmp_path):
    assert presets.has_tokenizer(folder)
    assert not presets.has_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    assert presets.has_tokenizer(tmp_path)


def test_a_tokenizer_of_another_model_is_not_taken_over(folder):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    with pytest.raises(BertKerasError, match="holds a tokenizer and this model none"):
        drawn(BertPretrainer).save_to_preset(folder)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before
