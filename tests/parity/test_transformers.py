"""The same weights in `transformers` give the same outputs, losses and gradients."""

import numpy as np
import pytest
from checks import gradients, numpy, randomize

from bertkeras.config import BertConfig
from bertkeras.models import BertPretrainer
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

LAYER_NORM = {"gamma": "weight", "beta": "bias"}
TABLES = {"token_table": "word", "position_table": "position", "segment_table": "token_type"}
BLOCK = {
    "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward/expand": "intermediate.dense",
    "feed_forward/contract": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
REST = {
    "backbone/embeddings/layer_norm": "bert.embeddings.LayerNorm",
    "backbone/pooler": "bert.pooler.dense",
    "mlm_head/transform": "cls.predictions.transform.dense",
    "mlm_head/layer_norm": "cls.predictions.transform.LayerNorm",
    "nsp_head/scores": "cls.seq_relationship",
}


def under_their_names(arrays):
    """Our arrays, or gradients, under the names of `transformers`, in its layout."""
    theirs = {}
    for name, value in arrays.items():
        path, _, kind = name.rpartition("/")
        if kind in TABLES:
            theirs[f"bert.embeddings.{TABLES[kind]}_embeddings.weight"] = value
            continue
        if kind == "output_bias":
            theirs["cls.predictions.bias"] = value
            continue
        value, kind = value.T, {"kernel": "weight", **LAYER_NORM}.get(kind, kind)
        if path in REST:
            theirs[f"{REST[path]}.{kind}"] = value
            continue
        _, block, part = path.split("/", 2)
        prefix = f"bert.encoder.layer.{block.removeprefix('encoder_')}"
        if part == "attention/qkv":
            for third, piece in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                theirs[f"{prefix}.attention.self.{third}.{kind}"] = piece
        else:
            theirs[f"{prefix}.{BLOCK[part]}.{kind}"] = value
    return theirs


def some_case(seed):
    """A configuration and a batch: sizes, activation, epsilon, lengths and segments by chance."""
    rng = np.random.default_rng(seed)
    heads, head_dim = rng.choice([2, 3, 5]), rng.choice([3, 5, 7])
    config = BertConfig(
        vocabulary_size=int(rng.choice([31, 41, 53])),
        num_layers=int(rng.integers(1, 4)),
        hidden_dim=int(heads * head_dim),
        num_heads=int(heads),
        intermediate_dim=int(rng.choice([11, 23, 29])),
        max_sequence_length=int(rng.choice([13, 17])),
        num_segments=2,
        dropout=0.0,
        attention_dropout=0.0,
        activation=("gelu", "gelu_tanh", "relu")[seed % 3],
        layer_norm_epsilon=(1e-12, 1e-5, 1e-2)[seed % 3],
    )
    batch, length, predictions = int(rng.integers(2, 6)), int(rng.integers(7, 13)), 3
    lengths = rng.integers(predictions, length + 1, batch)
    inputs = {
        "token_ids": rng.integers(0, config.vocabulary_size, (batch, length)).astype("int32"),
        "segment_ids": (np.arange(length) >= rng.integers(1, length, (batch, 1))).astype("int32"),
        "padding_mask": np.arange(length) < lengths[:, None],
        "mask_positions": np.stack([rng.permutation(n)[:predictions] for n in lengths]).astype("int32"),
    }
    labels = {
        "mlm_labels": rng.integers(0, config.vocabulary_size, (batch, predictions)).astype("int32"),
        "mlm_weights": (np.arange(predictions) < rng.integers(1, predictions + 1, (batch, 1))).astype("float32"),
        "nsp_labels": rng.integers(0, 2, batch).astype("int32"),
    }
    return config, inputs, labels


def their_model(config, arrays):
    model = transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=config.vocabulary_size,
            num_hidden_layers=config.num_layers,
            hidden_size=config.hidden_dim,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_dim,
            max_position_embeddings=config.max_sequence_length,
            type_vocab_size=config.num_segments,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            hidden_act={"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
            layer_norm_eps=config.layer_norm_epsilon,
            pad_token_id=None,  # its embedding would get no gradient
            attn_implementation="eager",
        )
    )
    parameters = dict(model.named_parameters())
    assert set(arrays) == set(parameters), "every weight has a counterpart"
    with torch.no_grad():
        for name, value in arrays.items():
            assert tuple(parameters[name].shape) == value.shape, name
            parameters[name].copy_(torch.tensor(np.ascontiguousarray(value)))
    return model


@pytest.mark.parametrize("seed", range(6))
def test_outputs_losses_and_gradients(seed):
    config, inputs, labels = some_case(seed)
    pretrainer = BertPretrainer(config)
    randomize(pretrainer, seed=seed)
    weights = pretrainer.canonical_weights()
    theirs = their_model(config, under_their_names({name: numpy(value) for name, value in weights.items()}))

    batch, length = inputs["token_ids"].shape
    every_place = np.full((batch, length), -100)
    for row in range(batch):
        for place, label, weight in zip(
            inputs["mask_positions"][row], labels["mlm_labels"][row], labels["mlm_weights"][row], strict=True
        ):
            if weight:
                every_place[row, place] = label
    found = theirs(
        input_ids=torch.tensor(inputs["token_ids"]).long(),
        token_type_ids=torch.tensor(inputs["segment_ids"]).long(),
        attention_mask=torch.tensor(inputs["padding_mask"]).long(),
        labels=torch.tensor(every_place),
        next_sentence_label=torch.tensor(labels["nsp_labels"]).long(),
        output_hidden_states=True,
    )
    pooled = theirs.bert.pooler(found.hidden_states[-1])
    found.loss.backward()

    encoded, outputs = pretrainer.backbone(inputs), pretrainer(inputs)
    at_positions = np.take_along_axis(
        found.prediction_logits.detach().numpy(), inputs["mask_positions"][..., None], axis=1
    )
    for ours, expected in (
        (encoded["sequence_output"], found.hidden_states[-1].detach().numpy()),
        (encoded["pooled_output"], pooled.detach().numpy()),
        (outputs["mlm_logits"], at_positions),
        (outputs["nsp_logits"], found.seq_relationship_logits.detach().numpy()),
    ):
        np.testing.assert_allclose(numpy(ours), expected, rtol=1e-5, atol=1e-5)

    def loss_of():
        sums = pretraining_sums(pretrainer(inputs), labels)
        return pretraining_loss(sums, sums)

    assert float(numpy(loss_of())) == pytest.approx(found.loss.item(), rel=1e-5)
    our_gradients = dict(zip(weights, gradients(loss_of, list(weights.values())), strict=True))
    their_gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    for name, gradient in under_their_names(our_gradients).items():
        expected = their_gradients[name]
        np.testing.assert_allclose(
            gradient, expected, rtol=1e-4, atol=1e-5 * max(1, np.abs(expected).max()), err_msg=name
        )
        assert expected.any() or name.endswith("key.bias"), name  # a bias of the keys cancels in the softmax


def test_the_two_gelus_are_told_apart():
    """Were `gelu` taken for `gelu_tanh`, the parity above would fail by more than its tolerance."""
    config, inputs, _ = some_case(0)
    models = [BertPretrainer(config), BertPretrainer(BertConfig(**{**config.to_dict(), "activation": "gelu_tanh"}))]
    for model in models:
        randomize(model, seed=0)
    first, second = (numpy(model(inputs)["mlm_logits"]) for model in models)
    assert np.abs(first - second).max() > 1e-4
