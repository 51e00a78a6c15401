import dataclasses
import tomllib

import pytest

from bertkeras import BertKerasError, WordPieceTokenizer
from bertkeras.training.pretrain_config import PretrainConfig


def test_defaults_are_valid_and_survive_toml(tmp_path):
    config = PretrainConfig()
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert PretrainConfig(**PretrainConfig.load_toml(tmp_path / "config.toml")) == config


def test_every_option_survives_toml(tmp_path):
    config = PretrainConfig(
        corpus="x.txt", tokenizer="t", num_layers=3, ema=0.9, max_predictions=7, hidden_dim=64, sentences=["a [MASK]"]
    )
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert PretrainConfig(**PretrainConfig.load_toml(tmp_path / "config.toml")) == config
    assert tomllib.loads(config.to_toml())["ema"] == 0.9


def test_every_field_has_help_and_a_group():
    for field in dataclasses.fields(PretrainConfig):
        assert field.metadata["help"], field.name
        assert field.metadata["group"], field.name


def test_sizes_and_overrides_reach_the_model():
    config = PretrainConfig(
        num_layers=3, hidden_dim=64, dropout=0.3, activation="gelu_tanh", norm_first=True, tie_embeddings=False,
        positions="rotary", gated_feed_forward=True,
    )  # fmt: skip
    model = config.bert_config(97)
    assert (model.num_layers, model.hidden_dim, model.num_heads, model.intermediate_dim) == (3, 64, 2, 256)
    assert (model.dropout, model.attention_dropout, model.activation) == (0.3, 0.3, "gelu_tanh")
    assert model.norm_first
    assert (model.positions, model.gated_feed_forward) == ("rotary", True)
    assert not model.tie_embeddings
    assert model.max_sequence_length == 64
    assert model.initializer_range == pytest.approx(0.02 * 12**0.5)  # width 64, where 0.02 is for 768
    assert PretrainConfig(hidden_dim=64, intermediate_dim=80).bert_config(97).intermediate_dim == 80


def test_masking_follows_the_tokenizer():
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"])
    config = PretrainConfig(mask_rate=0.2, whole_words=True, max_ngram=2, seed=3, mask_share=1.0, random_share=0.0)
    masking = config.masking(tokenizer, 100)
    assert (masking.mask_share, masking.random_share, masking.dynamic) == (1.0, 0.0, True)
    assert not PretrainConfig(dynamic_masks=False).masking(tokenizer, 100).dynamic
    assert (masking.rate, masking.max_predictions, masking.seed) == (0.2, 20, 3)
    assert masking.continuation.tolist() == [False] * 6 + [True]
    assert (masking.mask_id, masking.special_ids, masking.max_ngram) == (4, (0, 1, 2, 3, 4), 2)
    assert masking.whole_words
    assert PretrainConfig(max_predictions=9).masking(tokenizer, 100).max_predictions == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"virtual_devices": 3}, "virtual_devices=3 is not a power of two"),
        ({"virtual_devices": 64}, "virtual_devices=64 does not divide batch_size=32"),
        ({"virtual_devices": 4, "accumulation": 2}, "leave accumulation at 1"),
        ({"virtual_devices": 4, "flash_dropout": True}, "leave one of them out"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"head_chunks": 0}, "head_chunks must be at least 1"),
        ({"steps": 1.5}, "steps must be int"),
        ({"steps": True}, "steps must be int"),
        ({"corpus": 3}, "corpus must be str"),
        ({"learning_rate": "high"}, "learning_rate must be float"),
        ({"learning_rate": 0}, "must be positive"),
        ({"pairs": "both"}, "pairs must be one of"),
        ({"size": "huge"}, "size must be one of"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"batch_size": 10, "accumulation": 3}, "does not divide"),
        ({"warmup_share": 1.0}, "warmup_share"),
        ({"mask_rate": 0.0}, "mask_rate"),
        ({"mask_share": 0.95}, "mask_share and random_share must be shares of 1"),
        ({"random_share": -0.1}, "mask_share and random_share must be shares of 1"),
        ({"ema": 1.0}, "ema"),
        ({"sentences": ["no blank"]}, r"no \[MASK\]"),
        ({"hidden_dim": 65}, "num_heads must divide"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"max_sequence_length": 3}, "at least 8"),
    ],
)
def test_bad_options_are_refused(changes, words):
    with pytest.raises(BertKerasError, match=words):
        PretrainConfig(**changes)


def test_an_integer_may_stand_for_a_float():
    assert PretrainConfig(learning_rate=1).learning_rate == 1.0


@pytest.mark.parametrize(
    ("text", "words"), [("step = 3", "unknown option 'step'"), ("steps = ", "is not TOML"), (None, "no such file")]
)
def test_a_bad_file_is_named(tmp_path, text, words):
    path = tmp_path / "options.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BertKerasError, match=f"options.toml.*{words}"):
        PretrainConfig.load_toml(path)
