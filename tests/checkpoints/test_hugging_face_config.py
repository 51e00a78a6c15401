"""What a folder of `transformers` says and cannot be honoured here, or the other way round. Needs no `transformers`."""

import errno
import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertkeras import files
from bertkeras.checkpoints import tensor_files
from bertkeras.errors import BertKerasError
from bertkeras.models import (
    BertBackbone,
    BertMaskedLM,
    BertPretrainer,
    BertTextClassifier,
    BertTextEmbedder,
    BertTokenClassifier,
)
from tests.checks import numpy, randomize, small_config, small_tokenizer

CONFIG = small_config()


def drawn(cls, config=CONFIG, **options):
    model = cls(config, **options)
    randomize(model)
    return model


def said(folder, **changes):
    """Change `config.json`; `None` removes an entry."""
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def weights(folder, change):
    path = folder / "model.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


@pytest.fixture
def folder(tmp_path):
    """A masked-LM of `transformers`."""
    drawn(BertMaskedLM, tokenizer=small_tokenizer()).save_to_hugging_face(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def classifier(tmp_path):
    drawn(BertTextClassifier, num_classes=3, labels=["a", "b", "c"]).save_to_hugging_face(tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key', and only 'absolute'"),
        ({"is_decoder": True}, "is_decoder is True, and only False is supported"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"tie_word_embeddings": "no"}, "tie_embeddings must be true or false, got 'no'"),
        ({"pruned_heads": {"1": [0]}}, "pruned_heads is {'1': "),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}, and only None"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map is "),
        ({"model_type": "roberta"}, "model_type is 'roberta', and only 'bert' is supported"),
        ({"hidden_act": "gelu_10"}, "unknown activation hidden_act='gelu_10'; known are gelu, "),
        ({"hidden_act": ["gelu"]}, r"unknown activation hidden_act=\['gelu'\]"),
        ({"rotary": 1, "alibi": 0}, "unknown option alibi, rotary; if the numbers do not depend on it, remove it"),
        ({"hidden_size": "", "vocab_size": None}, "does not say vocab_size; it is no configuration of a BERT"),
        ({"hidden_size": 22}, "num_heads must divide hidden_dim"),
        ({"num_attention_heads": 3.0}, "num_heads must be a positive integer, got 3.0"),
        ({"hidden_dropout_prob": "0.1"}, "dropout must be a number in"),
        ({"layer_norm_eps": 0}, "layer_norm_epsilon must be a positive number, got 0"),
        ({"architectures": "BertModel"}, "architectures must be a list of names, got 'BertModel'"),
        ({"num_hidden_layers": 1}, "num_hidden_layers is 1, but the weights are those of 2 layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, but the weights are those of 2 layers"),
    ],
)
def test_an_option_that_cannot_be_honoured(folder, changes, message):
    said(folder, **changes)
    with pytest.raises(BertKerasError, match=message) as caught:
        BertMaskedLM.from_preset(folder)
    assert str(folder / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vocab_size", "intermediate_size", "max_position_embeddings", "type_vocab_size"])
def test_a_size_that_the_weights_contradict(folder, name):
    """Found before a model is built: such a table would not fit into any memory."""
    said(folder, **{name: 10**11})
    with pytest.raises(BertKerasError, match=rf"has shape \(.*but its configuration says \(.*100000000000.*{name}"):
        BertMaskedLM.from_preset(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\ufeff{}", "[" * 100_000])
def test_a_damaged_config(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(BertKerasError, match="config.json (is damaged|does not say)"):
        BertMaskedLM.from_preset(folder)


WORDS, LAYER = "bert.embeddings.word_embeddings.weight", "bert.encoder.layer"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a.update({"cls.predictions.decoder.weight": a[WORDS] + 1}),
            "cls.predictions.decoder.weight differs from bert.embeddings.word_embeddings.weight, but tie_word",
        ),
        (
            lambda a: a.update({"cls.predictions.decoder.bias": a["cls.predictions.bias"] + 1}),
            "cls.predictions.decoder.bias differs from cls.predictions.bias",
        ),
        (
            lambda a: a.update({"embeddings.word_embeddings.weight": a[WORDS]}),
            "two tensors claim to be bert.embeddings.w",
        ),
        (lambda a: a.pop(WORDS), "no weights for backbone/embeddings/token_table"),
        (
            lambda a: a.pop(f"{LAYER}.1.output.dense.bias"),
            "no weights for backbone/encoder_1/feed_forward/contract/bias",
        ),
        (lambda a: a.pop(f"{LAYER}.0.attention.self.key.bias"), "query.bias is there, but .*key.bias is not"),
        (
            lambda a: a.update({f"{LAYER}.0.output.dense.weight": np.zeros((21, 17), "float32")}),
            r"encoder_0/feed_forward/contract/kernel has shape \(17, 21\), but its configuration says \(13, 21\)",
        ),
        (
            lambda a: a.update({f"{LAYER}.2.output.dense.bias": np.zeros(21, "float32")}),
            "the weights are those of 3 layers",
        ),
        (lambda a: a.pop("cls.predictions.bias"), "no weights for mlm_head/output_bias"),
    ],
)
def test_weights_that_cannot_be_honoured(folder, change, message):
    weights(folder, change)
    with pytest.raises(BertKerasError, match=message) as caught:
        BertMaskedLM.from_preset(folder)
    assert str(folder) in str(caught.value)


def test_either_name_of_a_tied_weight_will_do(folder):
    expected = load_file(folder / "model.safetensors")
    weights(
        folder,
        lambda a: a.update(
            {
                "cls.predictions.decoder.weight": a.pop(WORDS),
                "cls.predictions.decoder.bias": a.pop("cls.predictions.bias"),
            }
        ),
    )
    model = BertMaskedLM.from_preset(folder)
    np.testing.assert_array_equal(numpy(model.backbone.token_table), expected[WORDS])
    np.testing.assert_array_equal(numpy(model.mlm_head.output_bias), expected["cls.predictions.bias"])


def test_a_tensor_without_a_place_is_told_of(folder, caplog):
    weights(folder, lambda a: a.update({"adapter.weight": np.zeros(3, "float32")}))
    BertMaskedLM.from_preset(folder)
    assert caplog.messages == [f"{folder}: not read, for no model here has a place for it: adapter.weight"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, "the classifier has 3 outputs, but id2label tells of 2; mend it"),
        ({"id2label": {}, "num_labels": 2}, "the classifier has 3 outputs, but num_labels tells of 2; mend it"),
        ({"id2label": {}, "_num_labels": 5}, "the classifier has 3 outputs, but num_labels tells of 5; mend it"),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, "id2label must give the numbers 0 to 2 different names"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "id2label must give the numbers 0 to 2 different names"),
        ({"id2label": {"0": "a", "1": "b", "2": 3}}, "id2label must give the numbers 0 to 2 different names"),
        ({"id2label": ["a", "b", "c"]}, "id2label tells of 3; mend it"),
        ({"problem_type": "ranking"}, "unknown problem_type 'ranking'; known: single_label_classification, "),
        ({"problem_type": ["regression"]}, r"unknown problem_type \['regression'\]"),
        ({"classifier_dropout": 1.5}, r"classifier_dropout must be a number in \[0, 1\), got 1.5"),
        ({"classifier_dropout": "none"}, "classifier_dropout must be a number in"),
    ],
)
def test_a_classifier_that_contradicts_its_config(classifier, changes, message):
    said(classifier, **changes)
    with pytest.raises(BertKerasError, match=message) as caught:
        BertTextClassifier.from_preset(classifier)
    assert str(classifier / "config.json") in str(caught.value)


def test_a_head_of_another_class_begins_anew(classifier, caplog):
    theirs = load_file(classifier / "model.safetensors")["classifier.weight"].T
    model = BertTokenClassifier.from_preset(classifier, num_classes=3)
    assert caplog.messages == [f"{classifier}: no weights for classifier, which begins anew"]
    assert model.labels is None
    assert not np.allclose(numpy(model.classifier.kernel), theirs, atol=1e-3)
    assert np.abs(numpy(model.classifier.kernel)).max() < 0.1  # five standard deviations
    words = load_file(classifier / "model.safetensors")[WORDS]
    np.testing.assert_array_equal(numpy(model.backbone.token_table), words)
    with pytest.raises(BertKerasError, match="does not say enough for a BertTokenClassifier: .*num_classes"):
        BertTokenClassifier.from_preset(classifier)


@pytest.mark.parametrize("count", [3, 5])
def test_a_new_head(classifier, caplog, count):
    model = BertTextClassifier.from_preset(classifier, num_classes=count, new_head=True)
    assert caplog.messages == [f"{classifier}: no weights for classifier, which begins anew"]
    assert model.num_classes == count
    assert model.labels == (["a", "b", "c"] if count == 3 else None)
    assert np.abs(numpy(model.classifier.kernel)).max() < 0.05
    with pytest.raises(BertKerasError, match="a BertMaskedLM has no head that could begin anew"):
        BertMaskedLM.from_preset(classifier, new_head=True)


@pytest.mark.parametrize("options", [{"num_classes": 5}, {"num_classes": 2, "labels": ["yes", "no"]}])
def test_another_number_of_classes(classifier, options):
    with pytest.raises(
        BertKerasError, match=r"classifier/kernel has shape \(21, 3\).*pass new_head=True to begin it anew"
    ):
        BertTextClassifier.from_preset(classifier, **options)


def test_a_classifier_on_a_backbone_without_pooler(tmp_path, caplog):
    drawn(BertBackbone, with_pooler=False).save_to_hugging_face(tmp_path)
    BertTextClassifier.from_preset(tmp_path, num_classes=5)
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "no weights for classifier, which begins anew",
        "no weights for backbone/pooler, which begins anew",
    ]
    with pytest.raises(BertKerasError, match=r"no weights for backbone/pooler/.*; pass with_pooler=False"):
        BertBackbone.from_preset(tmp_path, with_pooler=True)


def test_a_classifier_whose_kind_nobody_tells(classifier):
    said(classifier, architectures=None)
    assert BertTextClassifier.from_preset(classifier).labels == ["a", "b", "c"]
    assert BertTokenClassifier.from_preset(classifier).labels == ["a", "b", "c"]


def test_an_architecture_that_has_no_class_here(classifier, caplog):
    said(classifier, architectures=["BertForMultipleChoice"])
    BertTextClassifier.from_preset(classifier, num_classes=3)
    assert caplog.messages == [f"{classifier}: no weights for classifier, which begins anew"]


# Exports.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (small_config(norm_first=True), "has norm_first False; a model with True stays here"),
        (small_config(positions="rotary"), "has positions 'learned'; a model with 'rotary' stays here"),
        (small_config(gated_feed_forward=True), "has gated_feed_forward False; a model with True stays here"),
        (small_config(activation="elu"), "transformers has no activation 'elu'"),
    ],
)
def test_what_transformers_cannot_compute(config, message, tmp_path):
    with pytest.raises(BertKerasError, match=message):
        BertBackbone(config).save_to_hugging_face(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_class_is_no_choice(tmp_path):
    with pytest.raises(BertKerasError, match="transformers knows no choice among one class"):
        BertTextClassifier(CONFIG, num_classes=1).save_to_hugging_face(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_keeps_to_one_format(folder, classifier, tmp_path):
    """Both formats call their weights `model.safetensors`: the second would destroy the first."""
    preset, embedder = tmp_path / "preset", tmp_path / "embedder"
    model = drawn(BertMaskedLM, tokenizer=small_tokenizer())
    model.save_to_preset(preset)
    drawn(BertTextEmbedder, tokenizer=small_tokenizer()).save_to_hugging_face(embedder)
    for save, where, message in (
        (model.save_to_hugging_face, preset, "holds a model of bertkeras; nothing was changed, choose another folder"),
        (model.save_to_preset, folder, "holds a model of transformers; nothing was changed, choose another folder"),
        (model.save_to_hugging_face, embedder, "holds a text embedder; nothing was changed, choose another folder"),
        (drawn(BertMaskedLM).save_to_hugging_face, folder, "holds a tokenizer and this model none; choose another"),
    ):
        before = contents(where)
        with pytest.raises(BertKerasError, match=message):
            save(where)
        assert contents(where) == before
    model.save_to_hugging_face(folder)  # the same format again
    drawn(BertPretrainer).save_to_hugging_face(classifier)
    BertPretrainer.from_preset(classifier)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "README.md", "modules.json", "vocab.txt"])
def test_a_full_disk_leaves_the_old_files_whole(tmp_path, monkeypatch, file):
    drawn(BertTextEmbedder, tokenizer=small_tokenizer()).save_to_hugging_face(tmp_path)
    before = contents(tmp_path)
    replace = os.replace

    def full(source, target):
        if os.path.basename(target) == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    other = drawn(BertTextEmbedder, small_config(dropout=0.5), max_length=5, tokenizer=small_tokenizer())
    with pytest.raises(BertKerasError, match=f"cannot write .*{file}: No space left on device"):
        other.save_to_hugging_face(tmp_path)
    monkeypatch.undo()
    after = contents(tmp_path)
    assert set(after) == set(before), "a temporary file was left"
    assert after[next(path for path in after if path.name == file)] == before[next(p for p in before if p.name == file)]
    BertTextEmbedder.from_preset(tmp_path)


def test_a_full_disk_on_the_first_file_leaves_nothing_new(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensor_files.os, "replace", full)
    with pytest.raises(BertKerasError, match="cannot write .*model.safetensors: No space left on device"):
        drawn(BertMaskedLM).save_to_hugging_face(tmp_path / "new")
    assert contents(tmp_path) == {}
