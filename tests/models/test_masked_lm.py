import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import BertMaskedLM, BertPretrainer, Filling
from tests.checks import check_model, numpy, randomize, small_batch, small_config, small_tokenizer

CONFIG = small_config(vocabulary_size=17)  # two more than the tokenizer has


@pytest.fixture
def model():
    model = BertMaskedLM(CONFIG, tokenizer=small_tokenizer())
    randomize(model)
    return model


def softmax(logits):
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def test_every_model_check(tmp_path):
    check_model(BertMaskedLM, {}, small_batch(small_config())[0], tmp_path)


def test_the_pretrainer_s_logits(model):
    pretrainer = BertPretrainer(CONFIG)
    weights = {name: numpy(value) for name, value in model.canonical_weights().items()}
    others = {name: numpy(value) for name, value in pretrainer.canonical_weights().items() if name not in weights}
    assert {name.rpartition("/")[0] for name in others} == {"nsp_head/scores", "backbone/pooler"}
    pretrainer.assign_weights({**weights, **others}, "the masked LM")
    inputs, _ = small_batch(CONFIG)
    logits = numpy(pretrainer(inputs)["mlm_logits"])
    np.testing.assert_allclose(numpy(model(inputs)), logits, rtol=1e-5, atol=1e-5)


def test_fill_mask_gives_the_likeliest_first(model):
    (blanks,) = model.fill_mask("The cat [MASK] on the [MASK].", top_k=4)
    assert [len(blank) for blank in blanks] == [4, 4]
    # [CLS] the cat [MASK] on the [MASK] . [SEP]
    ids = np.array([[2, 5, 6, 4, 10, 5, 4, 14, 3]], "int32")
    logits = numpy(model({"token_ids": ids, "mask_positions": np.array([[3, 6]], "int32")}))[0]
    vocabulary = small_tokenizer().vocabulary
    for blank, scores in zip(blanks, logits, strict=True):
        probabilities = softmax(scores[: len(vocabulary)].astype("float64"))
        order = np.argsort(-probabilities)[:4]
        assert [filling.token for filling in blank] == [vocabulary[piece] for piece in order]
        assert [filling.probability for filling in blank] == pytest.approx(probabilities[order].tolist(), rel=1e-4)
        assert isinstance(blank[0], Filling)
        assert isinstance(blank[0].probability, float)


def test_texts_of_different_lengths_do_not_disturb_each_other(model):
    texts = ["[MASK]", "the dogs [MASK] on the [MASK] [MASK].", "cat [MASK]"]
    together = model.fill_mask(texts, top_k=3)
    assert [len(blanks) for blanks in together] == [1, 3, 1]
    for text, blanks in zip(texts, together, strict=True):
        (alone,) = model.fill_mask(text, top_k=3)
        for one, other in zip(alone, blanks, strict=True):
            assert [filling.token for filling in one] == [filling.token for filling in other]
            assert [f.probability for f in one] == pytest.approx([f.probability for f in other], rel=1e-4)


def test_no_piece_beyond_the_tokenizer(model):
    """The model has rows without a piece: they are never offered, and the pieces' shares add up to 1."""
    model.mlm_head.output_bias.assign(np.array([0.0] * 15 + [50.0, 50.0]))
    ((blank,),) = model.fill_mask("[MASK]", top_k=15)
    assert sum(filling.probability for filling in blank) == pytest.approx(1, rel=1e-5)
    assert {filling.token for filling in blank} == set(small_tokenizer().vocabulary)


def test_no_dropout():
    model = BertMaskedLM(small_config(vocabulary_size=15, dropout=0.5), tokenizer=small_tokenizer())
    assert model.fill_mask("the [MASK]") == model.fill_mask("the [MASK]")


def test_no_text(model):
    assert model.fill_mask([]) == []


@pytest.mark.parametrize("top_k", [0, -1, 16])
def test_top_k_out_of_range(model, top_k):
    with pytest.raises(BertKerasError, match=f"top_k must be between 1 and 15, got {top_k}"):
        model.fill_mask("the [MASK]", top_k=top_k)


def test_errors(model):
    with pytest.raises(BertKerasError, match=r"no \[MASK\] in 'the dog'"):
        model.fill_mask(["the [MASK]", "the dog"])
    with pytest.raises(BertKerasError, match=r"^12 pieces in 'the the .*at most 11; shorten it"):
        model.fill_mask("the " * 9 + "[MASK]")
    assert len(model.fill_mask("the " * 8 + "[MASK]")) == 1
    with pytest.raises(BertKerasError, match="needs a tokenizer"):
        BertMaskedLM(CONFIG).fill_mask("the [MASK]")
