"""Folders of `transformers`, both ways, with the same outputs there and here."""

import dataclasses
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from bertkeras.models import (
    BertBackbone,
    BertMaskedLM,
    BertPretrainer,
    BertQuestionAnswerer,
    BertTextClassifier,
    BertTextEmbedder,
    BertTokenClassifier,
)
from bertkeras.text import WordPieceTokenizer
from tests.checks import numpy, randomize, small_batch, small_config, small_tokenizer

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

CONFIG = small_config(dropout=0.11, attention_dropout=0.13, activation="gelu")
WITHOUT_POOLER = {"add_pooling_layer": False}
# class, its options, the class of `transformers` that loads it and its options
CASES = {
    "backbone": (BertBackbone, {}, "AutoModel", {}),
    "backbone without pooler": (BertBackbone, {"with_pooler": False}, "AutoModel", WITHOUT_POOLER),
    "pretrainer": (BertPretrainer, {}, "AutoModelForPreTraining", {}),
    "pretrainer of masked words": (BertPretrainer, {"next_sentence": False}, "AutoModelForMaskedLM", {}),
    "masked lm": (BertMaskedLM, {}, "AutoModelForMaskedLM", {}),
    "classifier": (
        BertTextClassifier,
        {"num_classes": 3, "labels": ["bad", "so so", "good"], "head_dropout": 0.17},
        "AutoModelForSequenceClassification",
        {},
    ),
    "classifier of two": (BertTextClassifier, {"num_classes": 2}, "AutoModelForSequenceClassification", {}),
    "several labels": (
        BertTextClassifier,
        {"num_classes": 5, "task": "multi_label"},
        "AutoModelForSequenceClassification",
        {},
    ),
    "regression": (
        BertTextClassifier,
        {"num_classes": 1, "task": "regression"},
        "AutoModelForSequenceClassification",
        {},
    ),
    "regression of three": (
        BertTextClassifier,
        {"num_classes": 3, "task": "regression"},
        "AutoModelForSequenceClassification",
        {},
    ),
    "tokens": (
        BertTokenClassifier,
        {"num_classes": 3, "labels": ["O", "B-PER", "I-PER"], "head_dropout": 0.0},
        "AutoModelForTokenClassification",
        {},
    ),
    "answers": (BertQuestionAnswerer, {}, "AutoModelForQuestionAnswering", {}),
    "embedder": (
        BertTextEmbedder,
        {"pooling": "cls", "normalize": False, "max_length": 7, "with_pooler": True},
        "AutoModel",
        {},
    ),
    "embedder without pooler": (BertTextEmbedder, {"pooling": "max"}, "AutoModel", WITHOUT_POOLER),
}


def drawn(cls, options, config=CONFIG, tokenizer=True):
    model = cls(config, **options, tokenizer=small_tokenizer() if tokenizer else None)
    randomize(model)
    return model


def batch(config=CONFIG):
    inputs, _ = small_batch(config)
    return inputs


def our_outputs(model):
    outputs = model(batch(model.config))
    if isinstance(model, BertBackbone):
        return [numpy(outputs[name]) for name in ("sequence_output", "pooled_output") if name in outputs]
    return [numpy(value) for value in (outputs.values() if isinstance(outputs, dict) else [outputs])]


def their_outputs(model, ours):
    """What the model of `transformers` says to our batch, in the form of our outputs."""
    inputs = batch(ours.config)
    with torch.no_grad():
        found = model.eval()(
            input_ids=torch.tensor(inputs["token_ids"]).long(),
            token_type_ids=torch.tensor(inputs["segment_ids"]).long(),
            attention_mask=torch.tensor(inputs["padding_mask"]).long(),
        )
    found = {name: value.numpy() for name, value in found.items()}
    if isinstance(ours, BertBackbone):
        return [found[name] for name in ("last_hidden_state", "pooler_output") if found.get(name) is not None]
    if isinstance(ours, BertTextEmbedder):
        vectors, mask = found["last_hidden_state"], inputs["padding_mask"][..., None]
        pooled = vectors[:, 0] if ours.pooling == "cls" else np.where(mask, vectors, -np.inf).max(axis=1)
        return [pooled / np.linalg.norm(pooled, axis=-1, keepdims=True) if ours.normalize else pooled]
    if isinstance(ours, BertQuestionAnswerer):
        return [np.stack([found["start_logits"], found["end_logits"]], axis=-1)]
    if isinstance(ours, BertPretrainer | BertMaskedLM):
        words = found.get("prediction_logits", found.get("logits"))
        words = np.take_along_axis(words, inputs["mask_positions"][..., None], axis=1)
        return [words, *([found["seq_relationship_logits"]] if "seq_relationship_logits" in found else [])]
    return [found["logits"]]


def assert_same(ours, theirs):
    for found, expected in zip(our_outputs(ours), their_outputs(theirs, ours), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def assert_equal_bits(model, again):
    weights, others = model.canonical_weights(), again.canonical_weights()
    assert set(weights) == set(others)
    for name, value in weights.items():
        np.testing.assert_array_equal(numpy(others[name]), numpy(value), err_msg=name)


@pytest.fixture
def complaints():
    """What `transformers` says while it loads."""
    said = []

    class Handler(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    handler = Handler(logging.WARNING)
    logging.getLogger("transformers").addHandler(handler)
    yield said
    logging.getLogger("transformers").removeHandler(handler)


@pytest.mark.parametrize("case", CASES)
def test_to_transformers_and_back(case, tmp_path, complaints):
    cls, options, auto, their_options = CASES[case]
    model = drawn(cls, options)
    model.save_to_hugging_face(tmp_path)
    theirs, said = getattr(transformers, auto).from_pretrained(tmp_path, **their_options, output_loading_info=True)
    assert not any(said.values()), said
    assert complaints == []
    assert_same(model, theirs)
    assert theirs.config.architectures == [type(theirs).__name__]

    again = cls.from_preset(tmp_path, **({"next_sentence": False} if cls is BertPretrainer and options else {}))
    assert_equal_bits(model, again)
    assert again.get_config() | {"name": None} == model.get_config() | {"name": None}


@pytest.mark.parametrize(
    ("cls", "auto"), [(BertMaskedLM, "AutoModelForMaskedLM"), (BertPretrainer, "AutoModelForPreTraining")]
)
def test_an_output_table_of_its_own(cls, auto, tmp_path, complaints):
    model = drawn(cls, {}, dataclasses.replace(CONFIG, tie_embeddings=False))
    model.save_to_hugging_face(tmp_path)
    theirs, said = getattr(transformers, auto).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said.values()), said
    assert complaints == []
    assert not theirs.config.tie_word_embeddings
    assert_same(model, theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path, tmp_path / "theirs"):
        assert_equal_bits(model, cls.from_preset(folder))


@pytest.mark.parametrize("case", ["backbone without pooler", "embedder without pooler"])
def test_a_pooler_that_is_not_there_is_all_that_lacks(case, tmp_path):
    drawn(*CASES[case][:2]).save_to_hugging_face(tmp_path)
    _, said = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(said["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not said["unexpected_keys"]


def test_the_configuration_there(tmp_path):
    options = CASES["classifier"][1]
    drawn(BertTextClassifier, options).save_to_hugging_face(tmp_path / "single")
    drawn(BertTextClassifier, CASES["several labels"][1]).save_to_hugging_face(tmp_path / "several")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "single")
    found = {name: getattr(config, name) for name in json.loads((tmp_path / "single" / "config.json").read_text())}
    assert found == {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": 37,
        "num_hidden_layers": 2,
        "hidden_size": 21,
        "num_attention_heads": 3,
        "intermediate_size": 13,
        "max_position_embeddings": 11,
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.11,
        "attention_probs_dropout_prob": 0.13,
        "layer_norm_eps": 0.001,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "id2label": {0: "bad", 1: "so so", 2: "good"},
        "label2id": {"bad": 0, "so so": 1, "good": 2},
        "problem_type": "single_label_classification",
        "classifier_dropout": 0.17,
    }
    several = transformers.AutoConfig.from_pretrained(tmp_path / "several")
    assert (several.problem_type, several.num_labels) == ("multi_label_classification", 5)
    assert several.classifier_dropout is None


@pytest.mark.parametrize(
    ("activation", "theirs"),
    [
        ("gelu", "gelu"),
        ("gelu_tanh", "gelu_new"),
        ("relu", "relu"),
        ("silu", "silu"),
        ("relu6", "relu6"),
        ("mish", "mish"),
        ("tanh", "tanh"),
        ("sigmoid", "sigmoid"),
        ("linear", "linear"),
    ],
)
def test_activations(activation, theirs, tmp_path):
    model = drawn(BertMaskedLM, {}, small_config(activation=activation))
    model.save_to_hugging_face(tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).hidden_act == theirs
    assert_same(model, transformers.AutoModelForMaskedLM.from_pretrained(tmp_path))
    assert BertMaskedLM.from_preset(tmp_path).config == model.config


@pytest.mark.parametrize("theirs", ["gelu_fast", "gelu_pytorch_tanh", "gelu_python", "swish"])
def test_other_names_of_activations(theirs, tmp_path):
    their_model("BertForMaskedLM", hidden_act=theirs).save_pretrained(tmp_path)
    assert_same(BertMaskedLM.from_preset(tmp_path), transformers.AutoModelForMaskedLM.from_pretrained(tmp_path))


def test_the_tokenizer_there(tmp_path, complaints):
    pieces = ["the", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", "[PAD]", "cat", "Été", "ete", "é", "##t", "e", "."]
    for number, options in enumerate(({}, {"lowercase": False}, {"strip_accents": False}, {"split_cjk": False})):
        tokenizer = WordPieceTokenizer(pieces, **options)
        folder = tmp_path / str(number)
        BertBackbone(CONFIG, tokenizer=tokenizer).save_to_hugging_face(folder)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        for text in ("The cats. Été", "été [MASK] ete 的 cat", "", "e\u0301te\u0301"):
            assert theirs(text)["input_ids"] == tokenizer.encode(text, special_tokens_in_text=True).ids
        ours = tokenizer.encode("the cat", "cats.")
        found = theirs("the cat", "cats.", padding="max_length", max_length=11)
        assert found["input_ids"] == [*ours.ids, *[6] * (11 - len(ours.ids))]
        assert found["token_type_ids"][: len(ours.ids)] == ours.segment_ids
        assert transformers.AutoConfig.from_pretrained(folder).pad_token_id == 6
        assert BertBackbone.from_preset(folder).tokenizer == tokenizer
    assert complaints == []


# What `transformers` wrote.


def their_model(architecture, **options):
    """A model of `transformers` with drawn weights."""
    config = transformers.BertConfig(
        vocab_size=37,
        num_hidden_layers=2,
        hidden_size=21,
        num_attention_heads=3,
        intermediate_size=13,
        max_position_embeddings=11,
        **options,
    )
    model = getattr(transformers, architecture)(config)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(float("LayerNorm.weight" in name), 0.3)
    return model


ARCHITECTURES = {
    "BertModel": BertBackbone,
    "BertForPreTraining": BertPretrainer,
    "BertForMaskedLM": BertMaskedLM,
    "BertForSequenceClassification": BertTextClassifier,
    "BertForTokenClassification": BertTokenClassifier,
    "BertForQuestionAnswering": BertQuestionAnswerer,
}


def as_pickle(model, folder):
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def with_old_names(model, folder):
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    state = {}
    for name, value in model.state_dict().items():
        begin, dot, end = name.rpartition(".LayerNorm.")
        state[f"{begin}.{old[f'LayerNorm.{end}']}" if dot else name] = value
    state["bert.embeddings.position_ids"] = torch.arange(11)[None]
    torch.save(state, folder / "pytorch_model.bin")
    said = json.loads((folder / "config.json").read_text())
    more = {"_num_labels": model.config.num_labels, "output_past": True, "num_beams": 1, "pruned_heads": {}}
    for name in ("id2label", "label2id"):
        said.pop(name, None)
    (folder / "config.json").write_text(json.dumps({**said, **more}))


def in_shards(model, folder):
    model.save_pretrained(folder, max_shard_size="4KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def without_prefix(model, folder):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file({name.removeprefix("bert."): value for name, value in load_file(path).items()}, path)


def without_architectures(model, folder):
    model.save_pretrained(folder)
    said = json.loads((folder / "config.json").read_text())
    del said["architectures"]
    (folder / "config.json").write_text(json.dumps(said))


SAVED = {
    "safetensors": lambda model, folder: model.save_pretrained(folder),
    "a pickle": as_pickle,
    "old names": with_old_names,
    "shards": in_shards,
    "no prefix": without_prefix,
    "no architectures": without_architectures,
    "float16": lambda model, folder: model.half().save_pretrained(folder),
    "bfloat16": lambda model, folder: model.bfloat16().save_pretrained(folder),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("way", SAVED)
def test_from_transformers(way, architecture, tmp_path, caplog):
    options = {"num_labels": 5} if "Classification" in architecture else {}
    theirs = their_model(architecture, layer_norm_eps=1e-3, **options)
    SAVED[way](theirs, tmp_path)
    model = ARCHITECTURES[architecture].from_preset(tmp_path)
    assert_same(model, theirs.float())
    assert model.config == small_config(dropout=0.1, attention_dropout=0.1, activation="gelu")
    assert caplog.messages == []
    if hasattr(model, "labels"):
        assert (model.num_classes, model.labels) == (5, None)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression", None])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_problem_types(problem, count, tmp_path):
    if (problem, count) == ("single_label_classification", 1):
        pytest.skip("transformers knows no choice among one class")
    theirs = their_model("BertForSequenceClassification", num_labels=count, problem_type=problem)
    theirs.save_pretrained(tmp_path)
    model = BertTextClassifier.from_preset(tmp_path)
    default = "regression" if count == 1 else "single_label"  # what transformers takes for granted with such labels
    assert (model.num_classes, model.task) == (count, problem.removesuffix("_classification") if problem else default)
    assert_same(model, theirs)


def test_names_of_classes(tmp_path):
    names = {0: "O", 1: "B-LOC", 2: "I-LOC"}
    theirs = their_model("BertForTokenClassification", id2label=names, classifier_dropout=0.17)
    theirs.save_pretrained(tmp_path)
    model = BertTokenClassifier.from_preset(tmp_path)
    assert (model.labels, model.head_dropout, model.dropout.rate) == (["O", "B-LOC", "I-LOC"], 0.17, 0.17)


@pytest.mark.parametrize("kept", [["vocab.txt"], ["tokenizer.json"], ["vocab.txt", "tokenizer.json"], []])
def test_tokenizer_files(kept, tmp_path):
    their_model("BertModel").save_pretrained(tmp_path)
    small_tokenizer().save(tmp_path)
    for name in {"vocab.txt", "tokenizer.json", "tokenizer_config.json"} - set(kept):
        (tmp_path / name).unlink()
    assert BertBackbone.from_preset(tmp_path).tokenizer == (small_tokenizer() if kept else None)


def test_a_tokenizer_that_transformers_wrote(tmp_path):
    their_model("BertModel").save_pretrained(tmp_path)
    vocabulary = {piece: index for index, piece in enumerate(small_tokenizer().vocabulary)}
    transformers.BertTokenizer(vocab=vocabulary, do_lower_case=False).save_pretrained(tmp_path)
    tokenizer = BertBackbone.from_preset(tmp_path).tokenizer
    assert tokenizer == WordPieceTokenizer(small_tokenizer().vocabulary, lowercase=False)


def test_an_export_needs_no_torch(tmp_path):
    drawn(BertTextEmbedder, {}).save_to_preset(tmp_path / "preset")
    code = (
        "import sys\n"
        "from bertkeras import BertTextEmbedder\n"
        "model = BertTextEmbedder.from_preset('preset')\n"
        "model.save_to_hugging_face('export')\n"
        "BertTextEmbedder.from_preset('export')\n"
        "sys.exit(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)) or 0)\n"
    )
    backend = os.environ["KERAS_BACKEND"].replace("torch", "tensorflow")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "export", add_pooling_layer=False)
    assert_same(BertBackbone.from_preset(tmp_path / "preset", with_pooler=False), theirs)
