"""Folders of `sentence-transformers`: how vectors become one, what is put before a text and where it is cut."""

import json

import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import BertBackbone, BertTextClassifier, BertTextEmbedder
from tests.checks import randomize, small_config, small_tokenizer

TEXTS = ["the cat sat on the mat", "dogs", "", "the cat ran. the dog ran. the cat sat. the dog sat."]


def drawn(cls=BertTextEmbedder, **options):
    model = cls(small_config(), tokenizer=small_tokenizer(), **options)
    randomize(model)
    return model


@pytest.fixture
def folder(tmp_path):
    drawn(max_length=7).save_to_hugging_face(tmp_path)
    return tmp_path


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def module(kind, path="", idx=0):
    return {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{kind}"}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_the_same_vectors_there_and_back(pooling, normalize, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    model = drawn(pooling=pooling, normalize=normalize, max_length=7, with_pooler=True)
    model.save_to_hugging_face(tmp_path / "ours")
    theirs = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    expected = model.embed(TEXTS)
    np.testing.assert_allclose(theirs.encode(TEXTS), expected, rtol=1e-5, atol=1e-5)
    theirs.save(str(tmp_path / "theirs"))  # in the form of the release that is installed
    again = BertTextEmbedder.from_preset(tmp_path / "theirs")
    assert {name: getattr(again, name) for name in BertTextEmbedder.preset_options} == {
        "pooling": pooling,
        "normalize": normalize,
        "max_length": 7,
        "with_pooler": True,
        "objective": "contrastive",
        "scale": 20.0,
    }
    np.testing.assert_array_equal(again.embed(TEXTS), expected)


def test_no_limit_is_that_of_the_model(tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    model = drawn(with_pooler=True)
    model.save_to_hugging_face(tmp_path)
    theirs = library.SentenceTransformer(str(tmp_path), device="cpu")
    assert theirs.max_seq_length == 11
    np.testing.assert_allclose(theirs.encode(TEXTS), model.embed(TEXTS), rtol=1e-5, atol=1e-5)
    assert BertTextEmbedder.from_preset(tmp_path).max_length is None


@pytest.mark.parametrize(
    ("file", "value", "option"),
    [
        ("1_Pooling/config.json", {"word_embedding_dimension": 21, "pooling_mode": "max"}, {"pooling": "max"}),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            {"pooling": "cls"},
        ),
        ("modules.json", [module("Transformer"), module("Pooling", "1_Pooling")], {"normalize": False}),
        ("sentence_bert_config.json", {"max_seq_length": 5}, {"max_length": 5}),
        ("sentence_bert_config.json", {"max_seq_length": 512}, {"max_length": 11}),
        ("sentence_bert_config.json", {"do_lower_case": True}, {"max_length": None}),
        ("tokenizer_config.json", {"model_max_length": 5}, {"max_length": 7}),
        ("config_sentence_transformers.json", {"prompts": {"query": "q: "}, "default_prompt_name": None}, {}),
    ],
)
def test_what_its_files_say(folder, file, value, option):
    write(folder / file, value)
    model = BertTextEmbedder.from_preset(folder)
    expected = {"pooling": "mean", "normalize": True, "max_length": 7, **option}
    assert {name: getattr(model, name) for name in expected} == expected


def test_the_tokenizer_s_limit_counts_where_there_is_no_other(folder):
    (folder / "sentence_bert_config.json").unlink()
    for said, expected in ((5, 5), (512, 11), (10**30, None), (None, None)):
        write(folder / "tokenizer_config.json", {"model_max_length": said})
        assert BertTextEmbedder.from_preset(folder).max_length == expected


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        (
            "modules.json",
            [module("Transformer"), module("Pooling"), module("Dense")],
            "modules Transformer, Pooling, De",
        ),
        (
            "modules.json",
            [module("Transformer")],
            "modules Transformer are not supported; Transformer, Pooling and Norm",
        ),
        ("modules.json", [], "modules  are not supported"),
        ("modules.json", {}, "modules.json is damaged: it must hold a JSON list, got dict"),
        ("modules.json", [{"type": 3, "path": ""}], "modules.json is damaged: a module needs a type and a path"),
        ("modules.json", [{"type": "a.Transformer"}], "modules.json is damaged: a module needs a type and a path"),
        (
            "modules.json",
            [module("Transformer", "0_Transformer"), module("Pooling")],
            "the transformer lies in .*0_Tra",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode": "lasttoken"},
            "pooling 'lasttoken' is not supported; cls, mean, max",
        ),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}, r"pooling \['mean', 'max'\] is not supported"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            r"pooling \['mean_tokens', 'max_tokens'\] is not supported",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode_weightedmean_tokens": True},
            "pooling 'weightedmean_tokens' is not sup",
        ),
        ("1_Pooling/config.json", "{", "1_Pooling/config.json is damaged"),
        ("sentence_bert_config.json", {"max_seq_length": "7"}, "max_seq_length must be a number, got '7'"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
            "the prompt 'query' is put before every text, which is not supported",
        ),
    ],
)
def test_what_cannot_be_honoured(folder, file, value, message):
    write(folder / file, value)
    with pytest.raises(BertKerasError, match=message) as caught:
        BertTextEmbedder.from_preset(folder)
    assert str(folder / file) in str(caught.value)


def test_lowercase_that_the_tokenizer_does_not_know_of(folder):
    write(folder / "sentence_bert_config.json", {"do_lower_case": True})
    write(folder / "tokenizer_config.json", {"do_lower_case": False})
    with pytest.raises(BertKerasError, match="sentence_bert_config.json lowercases and tokenizer_config.json does not"):
        BertTextEmbedder.from_preset(folder)


def test_of_a_classifier_the_architecture_tells(tmp_path):
    """A cross-encoder has `modules.json` too."""
    drawn(BertTextClassifier, num_classes=3).save_to_hugging_face(tmp_path)
    write(tmp_path / "modules.json", [module("Transformer"), module("LogitScore")])
    assert BertTextClassifier.from_preset(tmp_path).num_classes == 3


def test_an_embedder_makes_a_backbone(folder):
    assert BertBackbone.from_preset(folder, with_pooler=False).config == small_config()
