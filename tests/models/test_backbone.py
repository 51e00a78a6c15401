import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.models import BertBackbone
from bertkeras.models.backbone import attention_mask
from tests.checks import check_model, gradients, numpy, randomize, small_batch, small_config

CONFIG = small_config()


@pytest.fixture
def inputs():
    return {name: value for name, value in small_batch(CONFIG)[0].items() if name != "mask_positions"}


@pytest.fixture
def backbone():
    backbone = BertBackbone(CONFIG)
    randomize(backbone)
    return backbone


def test_every_model_check(inputs, tmp_path):
    check_model(BertBackbone, {}, inputs, tmp_path)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_parts_in_order(inputs, norm_first):
    backbone = BertBackbone(small_config(norm_first=norm_first))
    randomize(backbone)
    x = backbone.embeddings(inputs["token_ids"], segment_ids=inputs["segment_ids"])
    for block in backbone.encoder_blocks:
        x = block(x, attention_mask=inputs["padding_mask"])
    if norm_first:
        x = backbone.final_norm(x)
    pooled = np.tanh(numpy(x)[:, 0] @ numpy(backbone.pooler.kernel) + numpy(backbone.pooler.bias))
    outputs = backbone(inputs)
    np.testing.assert_allclose(numpy(outputs["sequence_output"]), numpy(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numpy(outputs["pooled_output"]), pooled, rtol=1e-5, atol=1e-5)
    assert len(backbone.encoder_blocks) == CONFIG.num_layers


@pytest.mark.parametrize(("size", "parameters"), [("tiny", 4_385_920), ("mini", 11_170_560)])
def test_parameters_of_published_sizes(size, parameters):
    """The counts of the released miniatures, with the vocabulary of 30522 pieces and the pooler."""
    assert BertBackbone(BertConfig.from_size(size, vocabulary_size=30522)).count_params() == parameters


def test_padding_changes_nothing(backbone, inputs):
    expected = numpy(backbone(inputs)["sequence_output"])
    mask = inputs["padding_mask"]
    other = {**inputs, "token_ids": np.where(mask, inputs["token_ids"], 5)}
    np.testing.assert_allclose(numpy(backbone(other)["sequence_output"])[mask], expected[mask], rtol=1e-5, atol=1e-5)
    for row, length in enumerate(mask.sum(-1)):
        alone = {name: inputs[name][row : row + 1, :length] for name in ("token_ids", "segment_ids")}
        outputs = backbone(alone)
        np.testing.assert_allclose(numpy(outputs["sequence_output"])[0], expected[row, :length], rtol=1e-5, atol=1e-5)


def test_packed_rows_equal_sequences_alone(backbone):
    """Two rows: lengths 3 and 5 with 3 places of padding, and lengths 4, 2 and 5."""
    rng = np.random.default_rng(3)
    lengths, width = [[3, 5], [4, 2, 5]], 11
    shape = (len(lengths), width)
    row = {name: np.zeros(shape, "int32") for name in ("token_ids", "segment_ids", "position_ids", "sequence_ids")}
    row["token_ids"] += 6  # also where there is padding
    alone = []
    for r, parts in enumerate(lengths):
        start = 0
        for number, length in enumerate(parts, start=1):
            place = (r, slice(start, start + length))
            row["token_ids"][place] = rng.integers(0, CONFIG.vocabulary_size, length)
            row["segment_ids"][place] = np.arange(length) > 1
            row["position_ids"][place] = np.arange(length)
            row["sequence_ids"][place] = number
            alone.append((place, {name: row[name][place][None] for name in ("token_ids", "segment_ids")}))
            start += length
    output = numpy(backbone(row)["sequence_output"])
    assert np.isfinite(output).all()
    for place, sequence in alone:
        expected = numpy(backbone(sequence)["sequence_output"])[0]
        np.testing.assert_allclose(output[place], expected, rtol=1e-5, atol=1e-5)


def test_who_may_attend_to_whom_in_a_packed_row():
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    mask = attention_mask({"sequence_ids": ops.convert_to_tensor(np.array([[1, 1, 2, 0]], "int32"))})
    assert numpy(mask).astype(int).tolist() == [expected]


def test_a_mask_of_one_s_own(backbone, inputs):
    """What padding_mask and sequence_ids say, an attention_mask can say too, and more."""
    tokens = inputs["token_ids"]
    sequences = np.tile(np.array([1, 1, 2, 2, 2, 0, 0], "int32"), (5, 1))
    for given in ({"padding_mask": inputs["padding_mask"]}, {"sequence_ids": sequences}):
        mask = attention_mask({name: ops.convert_to_tensor(value) for name, value in given.items()})
        if "padding_mask" in given:
            mask = np.repeat(numpy(mask)[:, None], 7, axis=1)
        expected = numpy(backbone({"token_ids": tokens, **given})["sequence_output"])
        found = numpy(backbone({"token_ids": tokens, "attention_mask": mask})["sequence_output"])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    only_itself = np.tile(np.eye(7, dtype=bool), (5, 1, 1))
    changed = np.where(np.arange(7) == 3, 5, tokens)
    one, other = (
        numpy(backbone({"token_ids": ids, "attention_mask": only_itself})["sequence_output"])
        for ids in (tokens, changed)
    )
    differs = (np.abs(one - other).max(axis=-1) > 1e-4).any(axis=0)
    assert differs.tolist() == [place == 3 for place in range(7)]


def test_packed_padding_gives_no_nan_in_the_gradients(backbone):
    ids = np.array([[1, 1, 2, 0, 0], [0, 0, 0, 0, 0]], "int32")
    inputs = {"token_ids": ids, "sequence_ids": ids, "position_ids": ids}

    def loss_of():
        return ops.sum(backbone(inputs)["sequence_output"] ** 2)

    assert all(np.isfinite(gradient).all() for gradient in gradients(loss_of, backbone.trainable_variables))


def test_defaults(backbone, inputs):
    tokens = inputs["token_ids"]
    every = {
        "token_ids": tokens,
        "segment_ids": np.zeros_like(tokens),
        "padding_mask": np.ones(tokens.shape, bool),
        "position_ids": np.broadcast_to(np.arange(tokens.shape[1], dtype="int32"), tokens.shape),
    }
    np.testing.assert_allclose(
        numpy(backbone({"token_ids": tokens})["sequence_output"]),
        numpy(backbone(every)["sequence_output"]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_wrong_masks(backbone, inputs):
    with pytest.raises(BertKerasError, match="padding_mask or sequence_ids, not both"):
        backbone({**inputs, "sequence_ids": np.ones_like(inputs["token_ids"])})
    with pytest.raises(BertKerasError, match="padding_mask or attention_mask, not both"):
        backbone({**inputs, "attention_mask": np.ones((5, 7, 7), bool)})
    with pytest.raises(BertKerasError, match="must be boolean"):
        backbone({**inputs, "padding_mask": ops.convert_to_tensor(inputs["padding_mask"].astype("int32"))})


def test_dropout_only_in_training(inputs):
    for changes in ({"dropout": 0.3}, {"attention_dropout": 0.3}):
        backbone = BertBackbone(small_config(**changes))
        randomize(backbone)
        calm, again = (numpy(backbone(inputs)["sequence_output"]) for _ in range(2))
        one, two = (numpy(backbone(inputs, training=True)["sequence_output"]) for _ in range(2))
        np.testing.assert_array_equal(calm, again)
        assert not np.allclose(one, calm)
        assert not np.allclose(one, two)


def test_the_global_seed_repeats_the_dropout(inputs):
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        backbone = BertBackbone(small_config(dropout=0.3, attention_dropout=0.3))
        runs.append(numpy(backbone(inputs, training=True)["sequence_output"]))
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_configuration_reaches_every_part(norm_first):
    config = small_config(
        dropout=0.11, attention_dropout=0.13, layer_norm_epsilon=0.017, initializer_range=1e-9, norm_first=norm_first
    )
    backbone = BertBackbone(config)
    parts = list(backbone._flatten_layers())
    norms = [part for part in parts if isinstance(part, keras.layers.LayerNormalization)]
    rates = [part.rate for part in parts if hasattr(part, "rate")]
    assert [norm.epsilon for norm in norms] == [0.017] * (1 + 2 * config.num_layers + norm_first)
    assert sorted(rates) == [0.11] * (1 + 2 * config.num_layers) + [0.13] * config.num_layers
    for weight in backbone.weights:
        if not weight.path.endswith("gamma"):
            assert np.abs(numpy(weight)).max() < 3e-9, weight.path


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_activation_reaches_the_blocks(activation, inputs):
    backbone, other = BertBackbone(small_config(activation=activation)), BertBackbone(small_config(activation="relu"))
    randomize(backbone, scale=1.0)
    other.set_weights(backbone.get_weights())
    assert [block.feed_forward.activation for block in backbone.encoder_blocks] == [activation] * 2
    assert not np.allclose(
        numpy(backbone(inputs)["sequence_output"]), numpy(other(inputs)["sequence_output"]), atol=1e-3
    )


def test_every_weight_gets_a_gradient(backbone, inputs):
    def loss_of():
        outputs = backbone(inputs)
        return ops.sum(outputs["sequence_output"][..., 0]) + ops.sum(outputs["pooled_output"][..., 0])

    for weight, gradient in zip(
        backbone.trainable_variables, gradients(loss_of, backbone.trainable_variables), strict=True
    ):
        assert np.isfinite(gradient).all()
        assert gradient.any(), weight.path


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_asked_for_some_positions_it_gives_the_same_vectors_and_gradients(inputs, norm_first, packed):
    backbone = BertBackbone(small_config(norm_first=norm_first))
    randomize(backbone)
    if packed:
        del inputs["padding_mask"]
        inputs["sequence_ids"] = np.tile(np.array([1, 1, 2, 2, 2, 0, 0], "int32"), (5, 1))
    positions = np.array([[6, 0, 3], [1, 1, 2], [0, 0, 0], [4, 2, 5], [3, 5, 1]], "int32")
    weights = ops.convert_to_tensor(np.random.default_rng(4).normal(size=(5, 3, CONFIG.hidden_dim)), "float32")

    def chosen():
        return ops.take_along_axis(backbone(inputs)["sequence_output"], positions[..., None], axis=1)

    some, every = backbone(inputs, output_positions=positions), backbone(inputs)
    np.testing.assert_allclose(numpy(some["sequence_output"]), numpy(chosen()), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numpy(some["pooled_output"]), numpy(every["pooled_output"]), rtol=1e-5, atol=1e-5)
    variables = backbone.trainable_variables
    expected = gradients(lambda: ops.sum(chosen() * weights), variables)
    found = gradients(
        lambda: ops.sum(backbone(inputs, output_positions=positions)["sequence_output"] * weights), variables
    )
    for variable, gradient, other in zip(variables, found, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-4, err_msg=variable.path)


def test_no_two_weights_begin_with_the_same_numbers():
    # one initializer object used twice would draw the same numbers twice
    model = BertBackbone(BertConfig(97, 2, 12, 2, 48, 24))
    drawn = [numpy(value).ravel()[:8] for value in model.canonical_weights().values() if len(value.shape) == 2]
    assert len(drawn) == 3 + 4 * 2 + 1
    assert len({tuple(values) for values in drawn}) == len(drawn)
