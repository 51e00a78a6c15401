"""The same weights in KerasHub's `BertBackbone` give the same outputs and gradients."""

import numpy as np
import pytest

from bertkeras.config import BertConfig
from bertkeras.models import BertBackbone
from tests.checks import gradients, numpy, randomize

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

from keras import ops  # noqa: E402


def some_case(seed):
    """KerasHub's BERT has the approximate GELU and an epsilon of 1e-12; the rest by chance."""
    rng = np.random.default_rng(seed)
    heads, head_dim = rng.choice([2, 3, 5]), rng.choice([3, 5, 7])
    config = BertConfig(
        vocabulary_size=int(rng.choice([31, 41, 53])),
        num_layers=int(rng.integers(1, 4)),
        hidden_dim=int(heads * head_dim),
        num_heads=int(heads),
        intermediate_dim=int(rng.choice([11, 23, 29])),
        max_sequence_length=int(rng.choice([13, 17])),
        num_segments=int(rng.integers(2, 4)),
        dropout=0.0,
        attention_dropout=0.0,
        activation="gelu_tanh",
        layer_norm_epsilon=1e-12,
    )
    batch, length = int(rng.integers(2, 6)), int(rng.integers(7, 13))
    return config, {
        "token_ids": rng.integers(0, config.vocabulary_size, (batch, length)).astype("int32"),
        "segment_ids": rng.integers(0, config.num_segments, (batch, length)).astype("int32"),
        "padding_mask": np.arange(length) < rng.integers(2, length + 1, (batch, 1)),
    }


def counterparts(hub, config):
    """Canonical name -> KerasHub's variables; for the fused kernel and bias the three of query, key and value."""
    found = {
        "embeddings/token_table": [hub.token_embedding.embeddings],
        "embeddings/position_table": [hub.position_embedding.position_embeddings],
        "embeddings/segment_table": [hub.segment_embedding.embeddings],
        "embeddings/layer_norm/gamma": [hub.embeddings_layer_norm.gamma],
        "embeddings/layer_norm/beta": [hub.embeddings_layer_norm.beta],
        "pooler/kernel": [hub.pooled_dense.kernel],
        "pooler/bias": [hub.pooled_dense.bias],
    }
    for index in range(config.num_layers):
        block, prefix = hub.get_layer(f"transformer_layer_{index}"), f"encoder_{index}"
        attention = block._self_attention_layer
        for kind in ("kernel", "bias"):
            parts = (attention._query_dense, attention._key_dense, attention._value_dense)
            found[f"{prefix}/attention/qkv/{kind}"] = [getattr(part, kind) for part in parts]
            for ours, part in (
                ("attention/output", attention._output_dense),
                ("feed_forward/expand", block._feedforward_intermediate_dense),
                ("feed_forward/contract", block._feedforward_output_dense),
            ):
                found[f"{prefix}/{ours}/{kind}"] = [getattr(part, kind)]
        for kind in ("gamma", "beta"):
            found[f"{prefix}/attention_norm/{kind}"] = [getattr(block._self_attention_layer_norm, kind)]
            found[f"{prefix}/feed_forward_norm/{kind}"] = [getattr(block._feedforward_layer_norm, kind)]
    return {f"backbone/{name}": variables for name, variables in found.items()}


@pytest.mark.parametrize("seed", range(3))
def test_outputs_losses_and_gradients(seed):
    config, inputs = some_case(seed)
    backbone = BertBackbone(config)
    randomize(backbone, seed=seed)
    hub = keras_hub.models.BertBackbone(
        vocabulary_size=config.vocabulary_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.hidden_dim,
        intermediate_dim=config.intermediate_dim,
        dropout=0.0,
        max_sequence_length=config.max_sequence_length,
        num_segments=config.num_segments,
    )
    theirs = counterparts(hub, config)
    ours = backbone.canonical_weights()
    assert set(theirs) == set(ours)
    assert sum(len(variables) for variables in theirs.values()) == len(hub.weights)
    for name, variables in theirs.items():
        pieces = np.split(numpy(ours[name]), len(variables), axis=-1)
        for variable, piece in zip(variables, pieces, strict=True):
            variable.assign(piece.reshape(variable.shape))

    hub_inputs = {**inputs, "padding_mask": inputs["padding_mask"].astype("int32")}
    kept = inputs["padding_mask"]
    found, expected = backbone(inputs), hub(hub_inputs)
    np.testing.assert_allclose(
        numpy(found["sequence_output"])[kept], numpy(expected["sequence_output"])[kept], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(numpy(found["pooled_output"]), numpy(expected["pooled_output"]), rtol=1e-5, atol=1e-5)

    rng = np.random.default_rng(seed)
    directions = [
        ops.convert_to_tensor(rng.normal(size=value.shape) * scale, "float32")
        for value, scale in ((numpy(found["sequence_output"]), kept[..., None]), (numpy(found["pooled_output"]), 1.0))
    ]

    def loss_of(model, inputs):
        outputs = model(inputs)
        return ops.sum(outputs["sequence_output"] * directions[0]) + ops.sum(outputs["pooled_output"] * directions[1])

    loss, expected = (float(numpy(loss_of(*pair))) for pair in ((backbone, inputs), (hub, hub_inputs)))
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-4)
    our_gradients = dict(zip(ours, gradients(lambda: loss_of(backbone, inputs), list(ours.values())), strict=True))
    names = [(name, variable) for name, variables in theirs.items() for variable in variables]
    their_gradients = {}
    for (name, _), gradient in zip(
        names, gradients(lambda: loss_of(hub, hub_inputs), [variable for _, variable in names]), strict=True
    ):
        their_gradients.setdefault(name, []).append(gradient)
    for name, pieces in their_gradients.items():
        gradient = our_gradients[name]
        expected = np.concatenate([piece.reshape((*gradient.shape[:-1], -1)) for piece in pieces], axis=-1)
        atol = 1e-5 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=atol, err_msg=name)
        assert expected.any(), name
