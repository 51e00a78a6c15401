"""Checkpoints of Google's BERT code; real ones where `BERTKERAS_DATA_HOME` names a folder that has them."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bertkeras.checkpoints.names import NameTable
from bertkeras.checkpoints.tensorflow1 import (
    CONFIG_NAMES,
    RULES,
    find_checkpoint,
    read_tensorflow1,
    read_training_state,
    shapes,
    write_tensorflow1,
)
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.models import (
    BertBackbone,
    BertMaskedLM,
    BertPretrainer,
    BertQuestionAnswerer,
    BertTextClassifier,
    BertTextEmbedder,
    BertTokenClassifier,
)
from tests.checks import numpy, randomize, small_batch, small_config, small_tokenizer

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

CONFIG = small_config(layer_norm_epsilon=1e-12, dropout=0.11, attention_dropout=0.13)
MODELS = [
    (BertBackbone, {}),
    (BertBackbone, {"with_pooler": False}),
    (BertPretrainer, {}),
    (BertMaskedLM, {}),
    (BertTextClassifier, {"num_classes": 3}),
    (BertQuestionAnswerer, {}),
]


def drawn(cls, config=CONFIG, **options):
    model = cls(config, **options)
    randomize(model)
    return model


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    write_tensorflow1(tmp_path / "bert_model.ckpt", drawn(BertPretrainer).to_preset())
    return tmp_path


@pytest.mark.parametrize(("cls", "options"), MODELS)
def test_every_bit_comes_back(cls, options, tmp_path):
    model = drawn(cls, **options)
    write_tensorflow1(tmp_path / "new" / "bert_model.ckpt", model.to_preset())
    assert sorted(contents(tmp_path / "new")) == [
        "bert_config.json",
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
    ]
    for where in (tmp_path / "new", tmp_path / "new" / "bert_model.ckpt"):
        again = cls.from_preset(where)
        assert again.config == CONFIG
        assert {name: getattr(again, name) for name in options} == options
        for name, weight in model.canonical_weights().items():
            np.testing.assert_array_equal(numpy(again.canonical_weights()[name]), numpy(weight), err_msg=name)
    assert read_training_state(tmp_path / "new") is None


def test_google_s_names_and_layout(folder):
    """Theirs are products `x @ kernel`, as ours, but `x @ weights^T` in the layers of scores."""
    read = tf.train.load_checkpoint(str(folder / "bert_model.ckpt")).get_tensor
    ours = {name: numpy(value) for name, value in drawn(BertPretrainer).canonical_weights().items()}
    qkv = ours["backbone/encoder_1/attention/qkv/kernel"]
    for part, name in enumerate(("query", "key", "value")):
        found = read(f"bert/encoder/layer_1/attention/self/{name}/kernel")
        np.testing.assert_array_equal(found, qkv[:, part * 21 : (part + 1) * 21])
    expand = read("bert/encoder/layer_0/intermediate/dense/kernel")
    np.testing.assert_array_equal(expand, ours["backbone/encoder_0/feed_forward/expand/kernel"])
    scores = read("cls/seq_relationship/output_weights")
    np.testing.assert_array_equal(scores, ours["nsp_head/scores/kernel"].T)
    assert json.loads((folder / "bert_config.json").read_text()).keys() == set(CONFIG_NAMES)


def test_a_vocabulary_beside_it(folder):
    small_tokenizer().save(folder)
    assert BertMaskedLM.from_preset(folder).tokenizer == small_tokenizer()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: BertTokenClassifier(CONFIG, 3), "Google's BERT has no model for a BertTokenClassifier; it has BertBa"),
        (lambda: BertTextEmbedder(CONFIG), "Google's BERT has no model for a BertTextEmbedder"),
        (
            lambda: BertBackbone(small_config()),
            "Google's BERT has layer_norm_epsilon 1e-12, this model 0.001; it cannot",
        ),
        (lambda: BertBackbone(small_config(norm_first=True)), "Google's BERT has norm_first False, this model True"),
        (
            lambda: BertTextClassifier(CONFIG, 3, task="multi_label"),
            "has task 'single_label', this model 'multi_label'",
        ),
        (lambda: BertTextClassifier(CONFIG, 3, head_dropout=0.0), "has head_dropout None, this model 0.0"),
    ],
)
def test_what_google_s_code_has_no_place_for(model, message, tmp_path):
    with pytest.raises(BertKerasError, match=message):
        write_tensorflow1(tmp_path / "new" / "bert_model.ckpt", model().to_preset())
    assert not (tmp_path / "new").exists()


def test_names_of_classes_stay_behind_and_this_is_said(tmp_path, caplog):
    model = BertTextClassifier(CONFIG, 2, labels=["no", "yes"])
    write_tensorflow1(tmp_path / "bert_model.ckpt", model.to_preset())
    assert ["no place for the names of the classes" in message for message in caplog.messages] == [True]
    assert BertTextClassifier.from_preset(tmp_path).labels is None


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def said(folder, **changes):
    path = folder / "bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DATA = "bert_model.ckpt.data-00000-of-00001"
DAMAGE = {
    "no values": (lambda f: (f / DATA).unlink(), "bert_model.ckpt: the values are missing or damaged: "),
    "half the values": (lambda f: cut(f / DATA, 0.5), "bert_model.ckpt: the values are missing or damaged: "),
    "half an index": (lambda f: cut(f / "bert_model.ckpt.index", 0.5), "bert_model.ckpt.index is damaged: "),
    "an empty index": (lambda f: (f / "bert_model.ckpt.index").write_bytes(b""), "bert_model.ckpt.index is damaged: "),
    "noise": (lambda f: (f / "bert_model.ckpt.index").write_bytes(bytes(range(256))), "ckpt.index is damaged: "),
    "no configuration": (lambda f: (f / "bert_config.json").unlink(), "cannot read .*bert_config.json: No such file"),
    "two checkpoints": (
        lambda f: shutil.copy(f / "bert_model.ckpt.index", f / "model.ckpt-20.index"),
        "must be or hold one TensorFlow checkpoint, found bert_model.ckpt.index, model.ckpt-20.index; give its path",
    ),
    "more layers": (lambda f: said(f, num_hidden_layers=3), "num_hidden_layers is 3, but the weights are those of 2"),
    "fewer layers": (lambda f: said(f, num_hidden_layers=1), "num_hidden_layers is 1, but the weights are those of 2"),
    "another width": (lambda f: said(f, intermediate_size=17), r"\(21, 13\), but its configuration says \(21, 17\)"),
    "another activation": (lambda f: said(f, hidden_act="maxout"), "unknown activation hidden_act='maxout'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_in_one_line(folder, damage):
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(BertKerasError, match=message) as caught:
        BertPretrainer.from_preset(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_one_of_two_checkpoints_by_its_path(folder):
    shutil.copy(folder / "bert_model.ckpt.index", folder / "model.ckpt-20.index")
    shutil.copy(folder / DATA, folder / DATA.replace("bert_model.ckpt", "model.ckpt-20"))
    BertPretrainer.from_preset(folder / "model.ckpt-20")
    with pytest.raises(BertKerasError, match=r"model.ckpt-21 is not a preset: no such folder"):
        BertPretrainer.from_preset(folder / "model.ckpt-21")
    with pytest.raises(BertKerasError, match=r"model.ckpt-21 must be or hold one TensorFlow checkpoint, found none"):
        read_tensorflow1(folder / "model.ckpt-21")


def test_a_weight_without_a_place(folder):
    names = [*shapes(folder / "bert_model.ckpt"), "adapter/kernel"]
    reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
    values = [reader.get_tensor(name) if name in reader.get_variable_to_shape_map() else [1.0] for name in names]
    tf.raw_ops.SaveV2(
        prefix=str(folder / "bert_model.ckpt"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )
    with pytest.raises(BertKerasError, match="no place for adapter/kernel in a BERT of bert_config.json"):
        BertPretrainer.from_preset(folder)


def test_a_failure_leaves_the_old_checkpoint_whole(folder, monkeypatch):
    before = contents(folder)

    def full(**_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device\nmore")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", full)
    with pytest.raises(BertKerasError, match=r"cannot write .*bert_model.ckpt: No space left on device$"):
        write_tensorflow1(folder / "bert_model.ckpt", drawn(BertMaskedLM).to_preset())
    assert contents(folder) == before


# What Google's code wrote.

HOME = Path(os.environ.get("BERTKERAS_DATA_HOME", "no-such-folder")) / "bert-tf1-checkpoints"
needs_data = pytest.mark.skipif(
    not HOME.is_dir(), reason="BERTKERAS_DATA_HOME names no folder with bert-tf1-checkpoints"
)
INDICES = {
    "chinese_L-12_H-768_A-12": (BertPretrainer, 206, None),
    "chinese_wwm_L-12_H-768_A-12": (BertPretrainer, 207, None),
    "uncased_L-2_H-128_A-2": (BertPretrainer, 46, None),
    "uncased_L-2_H-128_A-2-mrpc": (BertTextClassifier, 124, ()),
    "uncased_L-2_H-128_A-2-pretrain-step20": (BertPretrainer, 139, ()),
    # the pooler gets no gradient there
    "uncased_L-2_H-128_A-2-squad": (BertQuestionAnswerer, 120, ("backbone/pooler/kernel", "backbone/pooler/bias")),
    "uncased_L-8_H-512_A-8": (BertPretrainer, 142, None),
}


@needs_data
def test_the_toy_weight_by_weight():
    folder = HOME / "toy-tf1"
    reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
    preset = read_tensorflow1(folder)
    names = [name for name in reader.get_variable_to_shape_map() if "/adam_" not in name and name != "global_step"]
    assert len(names) == 46
    assert (preset.model, preset.options) == ("BertPretrainer", {"next_sentence": True})
    assert sum(array.size for array in preset.arrays.values()) == sum(reader.get_tensor(name).size for name in names)
    for ours, expected in {
        "backbone/embeddings/token_table": reader.get_tensor("bert/embeddings/word_embeddings"),
        "backbone/embeddings/layer_norm/gamma": reader.get_tensor("bert/embeddings/LayerNorm/gamma"),
        "backbone/encoder_1/attention/qkv/kernel": np.hstack(
            [
                reader.get_tensor(f"bert/encoder/layer_1/attention/self/{part}/kernel")
                for part in ("query", "key", "value")
            ]
        ),
        "backbone/encoder_0/attention/qkv/bias": np.hstack(
            [
                reader.get_tensor(f"bert/encoder/layer_0/attention/self/{part}/bias")
                for part in ("query", "key", "value")
            ]
        ),
        "backbone/encoder_0/feed_forward/expand/kernel": reader.get_tensor(
            "bert/encoder/layer_0/intermediate/dense/kernel"
        ),
        "backbone/pooler/kernel": reader.get_tensor("bert/pooler/dense/kernel"),
        "mlm_head/output_bias": reader.get_tensor("cls/predictions/output_bias"),
        "nsp_head/scores/kernel": reader.get_tensor("cls/seq_relationship/output_weights").T,
    }.items():
        np.testing.assert_array_equal(preset.arrays[ours], expected, err_msg=ours)


@needs_data
def test_the_toy_s_optimizer():
    folder = HOME / "toy-tf1"
    reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
    state, arrays = read_training_state(folder), read_tensorflow1(folder).arrays
    assert state.step == 20
    for moments, suffix in ((state.first_moments, "adam_m"), (state.second_moments, "adam_v")):
        assert {name: value.shape for name, value in moments.items()} == {n: v.shape for n, v in arrays.items()}
        scores = reader.get_tensor(f"cls/seq_relationship/output_weights/{suffix}")
        np.testing.assert_array_equal(moments["nsp_head/scores/kernel"], scores.T)
        assert np.abs(scores).max() > 0
    assert min(value.min() for value in state.second_moments.values()) >= 0


@needs_data
def test_the_toy_computes_what_transformers_does():
    """Its weights are laid into the model of `transformers` by hand, from the checkpoint itself."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = HOME / "toy-tf1"
    reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
    theirs = transformers.BertForPreTraining(transformers.BertConfig.from_json_file(folder / "bert_config.json"))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            source = re.sub(r"^(cls\.seq_relationship)\.weight", r"\1.output_weights", name)
            source = re.sub(r"^(cls\.seq_relationship|cls\.predictions)\.bias", r"\1.output_bias", source)
            source = re.sub(r"LayerNorm\.weight", "LayerNorm.gamma", source)
            source = re.sub(r"LayerNorm\.bias", "LayerNorm.beta", source)
            source = re.sub(r"_embeddings\.weight", "_embeddings", source).replace(".weight", ".kernel")
            value = reader.get_tensor(re.sub(r"layer\.(\d)", r"layer_\1", source).replace(".", "/"))
            parameter.copy_(torch.tensor(value.T if source.endswith("kernel") else value))
    model = BertPretrainer.from_preset(folder)
    assert model.tokenizer.vocabulary_size == 15
    inputs, _ = small_batch(model.config)
    with torch.no_grad():
        found = theirs.eval()(
            input_ids=torch.tensor(inputs["token_ids"]).long(),
            token_type_ids=torch.tensor(inputs["segment_ids"]).long(),
            attention_mask=torch.tensor(inputs["padding_mask"]).long(),
        )
    words = np.take_along_axis(found.prediction_logits.numpy(), inputs["mask_positions"][..., None], axis=1)
    outputs = model(inputs)
    np.testing.assert_allclose(numpy(outputs["mlm_logits"]), words, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        numpy(outputs["nsp_logits"]), found.seq_relationship_logits.numpy(), rtol=1e-5, atol=1e-5
    )


def config_of(folder):
    if (folder / "bert_config.json").is_file():
        said = json.loads((folder / "bert_config.json").read_text())
        return BertConfig(
            said["vocab_size"],
            said["num_hidden_layers"],
            said["hidden_size"],
            said["num_attention_heads"],
            said["intermediate_size"],
        )
    layers, width, heads = map(int, re.search(r"L-(\d+)_H-(\d+)_A-(\d+)", folder.name).groups())
    return BertConfig(21128 if "chinese" in folder.name else 30522, layers, width, heads, 4 * width)


@needs_data
@pytest.mark.parametrize("name", INDICES)
def test_an_index_names_exactly_our_weights(name):
    """Names, shapes and orientation of everything in a released model; its values are not here."""
    cls, count, without_moments = INDICES[name]
    folder = HOME / "index-only" / name
    config = config_of(folder)
    stored = shapes(find_checkpoint(folder))
    assert len(stored) == count
    model = cls(BertConfig(**{**config.to_dict(), "num_layers": 1}), **({"num_classes": 2} if "mrpc" in name else {}))
    expected = {n: tuple(w.shape) for n, w in model.canonical_weights().items()}
    pooler = {"backbone/pooler/kernel": (config.hidden_dim,) * 2, "backbone/pooler/bias": (config.hidden_dim,)}
    expected |= pooler  # the checkpoint keeps it, whether the model needs it or not
    for block in range(1, config.num_layers):  # as the first: so no large model need be drawn
        block_0 = {n: s for n, s in expected.items() if n.startswith("backbone/encoder_0/")}
        expected |= {n.replace("encoder_0", f"encoder_{block}"): shape for n, shape in block_0.items()}
    table = NameTable(RULES, config.num_layers)
    for suffix in ("", "/adam_m", "/adam_v"):
        # an array of that shape without memory
        arrays = {
            n.removesuffix(suffix): np.broadcast_to(np.float32(0), shape)
            for n, shape in stored.items()
            if n != "global_step" and (n.endswith(suffix) if suffix else "/adam_" not in n)
        }
        if suffix and without_moments is None:
            assert arrays == {}
            continue
        ours, unknown = table.to_ours(arrays, name)
        left_out = without_moments if suffix else ()
        assert unknown == set()
        assert {n: value.shape for n, value in ours.items()} == {n: s for n, s in expected.items() if n not in left_out}
