import dataclasses
import json

import pytest

from bertkeras.config import SIZES, BertConfig
from bertkeras.errors import BertKerasError

VALUES = {"vocabulary_size": 37, "num_layers": 2, "hidden_dim": 21, "num_heads": 3, "intermediate_dim": 13}


def test_defaults_are_those_of_the_paper():
    config = BertConfig(**VALUES)
    assert dataclasses.asdict(config) == {
        **VALUES,
        "max_sequence_length": 512,
        "num_segments": 2,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation": "gelu",
        "layer_norm_epsilon": 1e-12,
        "initializer_range": 0.02,
        "position_initializer": "normal",
        "positions": "learned",
        "gated_feed_forward": False,
        "norm_first": False,
        "tie_embeddings": True,
    }


@pytest.mark.parametrize(
    ("size", "numbers"),
    {
        "tiny": (2, 128, 2),
        "mini": (4, 256, 4),
        "small": (4, 512, 8),
        "medium": (8, 512, 8),
        "base": (12, 768, 12),
        "large": (24, 1024, 16),
    }.items(),
)
def test_sizes(size, numbers):
    config = BertConfig.from_size(size, vocabulary_size=101, dropout=0.3)
    assert (config.num_layers, config.hidden_dim, config.num_heads) == numbers
    assert config.intermediate_dim == 4 * config.hidden_dim
    assert (config.vocabulary_size, config.dropout) == (101, 0.3)
    assert BertConfig.from_size(size, 101, hidden_dim=16 * 24).hidden_dim == 384
    assert len(SIZES) == 6


def test_round_trips():
    config = BertConfig(
        **VALUES,
        activation="gelu_tanh",
        norm_first=True,
        positions="rotary",
        gated_feed_forward=True,
        layer_norm_epsilon=1e-7,
    )
    assert BertConfig.from_dict(config.to_dict()) == config
    assert BertConfig.from_dict(json.loads(config.to_json())) == config
    assert config.to_json().endswith("}\n")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_layers = 3


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
@pytest.mark.parametrize("name", [*VALUES, "max_sequence_length", "num_segments"])
def test_sizes_are_positive_integers(name, value):
    with pytest.raises(BertKerasError, match=f"^{name} must be a positive integer, got {value!r}$"):
        BertConfig(**{**VALUES, name: value})


def test_heads_divide_the_width():
    with pytest.raises(BertKerasError, match="num_heads must divide hidden_dim, got num_heads=4 and hidden_dim=21"):
        BertConfig(**{**VALUES, "num_heads": 4})


@pytest.mark.parametrize("value", [1, -0.1, 1.5, float("nan"), "0.1", None])
@pytest.mark.parametrize("name", ["dropout", "attention_dropout"])
def test_dropout_is_a_share(name, value):
    with pytest.raises(BertKerasError, match=rf"^{name} must be a number in \[0, 1\), got {value!r}$"):
        BertConfig(**VALUES, **{name: value})
    assert getattr(BertConfig(**VALUES, **{name: 0}), name) == 0


@pytest.mark.parametrize("value", [0, -1e-12, float("nan"), float("inf"), "1e-12", None])
@pytest.mark.parametrize("name", ["layer_norm_epsilon", "initializer_range"])
def test_epsilon_and_range_are_positive(name, value):
    with pytest.raises(BertKerasError, match=f"^{name} must be a positive number, got {value!r}$"):
        BertConfig(**VALUES, **{name: value})


def test_unknown_names():
    with pytest.raises(BertKerasError, match=r"^unknown BertConfig option a_typo, width$"):
        BertConfig.from_dict({**VALUES, "width": 3, "a_typo": 5})
    with pytest.raises(
        BertKerasError, match="unknown size 'huge'; choose one of tiny, mini, small, medium, base, larg"
    ):
        BertConfig.from_size("huge", 101)
    with pytest.raises(BertKerasError, match="unknown BertConfig option heads"):
        BertConfig.from_size("tiny", 101, heads=3)


def test_a_missing_value():
    with pytest.raises(BertKerasError, match=r"^missing BertConfig option hidden_dim, num_heads$"):
        BertConfig.from_dict({"vocabulary_size": 37, "num_layers": 2, "intermediate_dim": 13})
