import dataclasses

import keras
import matplotlib
import numpy as np
import pytest

from bertkeras import BertBackbone, BertKerasError, BertMaskedLM, BertTextClassifier
from bertkeras.analysis import plot_attention, rollout, trace, without_heads
from tests.analysis.small import CONFIG, TOKENIZER, drawn
from tests.checks import numpy

TEXTS = ["the cat sat.", "the dog", "", "the dogs ran on the [MASK], he sat on the mat."]


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_trace_is_what_the_model_computes(norm_first):
    backbone = drawn(BertBackbone, config=dataclasses.replace(CONFIG, norm_first=norm_first))
    for text, found in zip(TEXTS, trace(backbone, TEXTS, batch_size=3), strict=True):
        encoding = TOKENIZER.encode(text, special_tokens_in_text=True)
        assert found.encoding == encoding
        expected = backbone({"token_ids": np.array([encoding.ids])})["sequence_output"]
        assert found.hidden_states.shape == (3, len(encoding), 24)
        np.testing.assert_allclose(found.hidden_states[-1], numpy(expected)[0], atol=2e-5)
        assert found.attention.shape == (2, 3, len(encoding), len(encoding))
        np.testing.assert_allclose(found.attention.sum(axis=-1), 1, atol=1e-5)


def test_pairs_have_two_segments():
    model = drawn(BertTextClassifier, 2)
    (found,) = trace(model, "the cat", "sat")
    assert found.tokens == ["[CLS]", "the", "cat", "[SEP]", "sat", "[SEP]"]
    inputs = {"token_ids": np.array([found.encoding.ids]), "segment_ids": np.array([found.encoding.segment_ids])}
    expected = model.backbone(inputs)["sequence_output"]
    np.testing.assert_allclose(found.hidden_states[-1], numpy(expected)[0], atol=2e-5)


def test_no_texts_no_traces():
    assert trace(drawn(BertBackbone), []) == []


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(BertKerasError, match="text 1 has 42 pieces, but the model reads at most 32"):
        trace(drawn(BertBackbone), ["the", "the " * 40])


def test_rollout_of_two_layers_by_hand():
    first = np.array([[1.0, 0.0], [0.5, 0.5]])
    second = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = rollout(np.array([[first, first], [second, second]]))
    np.testing.assert_allclose(found[0], [[1, 0], [0.25, 0.75]])
    np.testing.assert_allclose(found[1], [[0.625, 0.375], [0.625, 0.375]])


def test_silent_heads_hand_on_nothing_and_come_back():
    model = drawn(BertMaskedLM)
    inputs = {"token_ids": np.array([TOKENIZER.encode("the cat sat").ids]), "mask_positions": np.array([[2]])}
    weights = [numpy(weight) for weight in model.weights]
    before = numpy(model(inputs))
    with without_heads(model, {1: [0, 2]}):
        fewer = numpy(model(inputs))
    assert np.abs(fewer - before).max() > 0.01
    with without_heads(model, {0: range(3), 1: range(3)}):
        silent = numpy(model(inputs))
    for block in model.backbone.encoder_blocks:  # no head at all: the output's bias alone is added
        block.attention.output_dense.kernel.assign(np.zeros((24, 24)))
    np.testing.assert_array_equal(silent, numpy(model(inputs)))
    for weight, value in zip(model.weights, weights, strict=True):
        if not weight.path.endswith("attention/output/kernel"):
            np.testing.assert_array_equal(numpy(weight), value)


def test_heads_come_back_after_an_error():
    model = drawn(BertBackbone)
    weights = [numpy(weight) for weight in model.weights]
    with pytest.raises(RuntimeError), without_heads(model, {0: [1]}):
        raise RuntimeError
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), value)
    for heads in ({2: [0]}, {0: [3]}, {-1: [0]}):
        with pytest.raises(BertKerasError, match="no such heads"), without_heads(model, heads):
            pass


def test_with_low_rank_additions_too():
    model = drawn(BertBackbone)
    for block in model.encoder_blocks:
        block.attention.output_dense.enable_lora(2)
        block.attention.output_dense.lora_kernel_b.assign(np.ones((2, 24)))
    inputs = {"token_ids": np.array([TOKENIZER.encode("the cat sat").ids])}
    before = numpy(model(inputs)["sequence_output"])
    with without_heads(model, {0: range(3), 1: range(3)}):
        silent = numpy(model(inputs)["sequence_output"])
    np.testing.assert_array_equal(numpy(model(inputs)["sequence_output"]), before)
    for block in model.encoder_blocks:
        block.attention.output_dense._kernel.assign(np.zeros((24, 24)))
        block.attention.output_dense.lora_kernel_b.assign(np.zeros((2, 24)))
    np.testing.assert_array_equal(silent, numpy(model(inputs)["sequence_output"]))


def test_a_picture_has_the_pieces_on_both_axes():
    matplotlib.use("Agg")
    (found,) = trace(drawn(BertBackbone), "the cat sat")
    axes = plot_attention(found, layer=1, head=2)
    assert [label.get_text() for label in axes.get_xticklabels()] == found.tokens
    assert [label.get_text() for label in axes.get_yticklabels()] == found.tokens
    np.testing.assert_array_equal(axes.images[0].get_array(), found.attention[1, 2])
    assert plot_attention(found, layer=0, axes=axes) is axes
    assert "all heads" in axes.get_title()


def test_half_precision():
    model = drawn(BertBackbone, dtype="mixed_bfloat16")
    (found,) = trace(model, "the cat sat")
    assert found.hidden_states.dtype == found.attention.dtype == np.float32
    np.testing.assert_allclose(found.attention.sum(axis=-1), 1, atol=0.02)
    assert keras.backend.standardize_dtype(model({"token_ids": np.ones((1, 2), "int32")})["pooled_output"].dtype) == (
        "bfloat16"
    )
