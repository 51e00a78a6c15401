import itertools

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.models import (
    BertBackbone,
    BertMaskedLM,
    BertPretrainer,
    BertSeq2Seq,
    Decoding,
    seq2seq_rows,
)
from bertkeras.models.search import log_softmax
from bertkeras.models.seq2seq import seq2seq_mask
from bertkeras.text import WordPieceTokenizer
from tests.checks import check_model, compiled, gradients, numpy, randomize, small_batch, small_config, small_tokenizer

CONFIG = small_config(vocabulary_size=17)  # two more than the tokenizer has
TOKENIZER = small_tokenizer()
SOURCES = ["the cat", "the dogs ran on", "", "dog sat"]


@pytest.fixture
def model():
    model = BertSeq2Seq(CONFIG, tokenizer=TOKENIZER)
    randomize(model)
    model.mlm_head.output_bias.assign(np.where(np.arange(17) == TOKENIZER.sep_id, 2.5, 0.0))  # some targets end
    return model


def inputs_of(config=CONFIG):
    inputs, _ = small_batch(config)
    return {**inputs, "output_positions": inputs.pop("mask_positions")}


def test_every_model_check(tmp_path):
    check_model(BertSeq2Seq, {}, inputs_of(small_config()), tmp_path)


# The mask.


def test_who_sees_whom():
    """Three pieces of source, two of target, one of padding; and a row with two, one and three."""
    segments = np.array([[0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]], "int32")
    is_token = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], bool)
    mask = seq2seq_mask(ops.convert_to_tensor(segments), ops.convert_to_tensor(is_token))
    nobody = [0, 0, 0, 0, 0, 0]
    assert numpy(mask).astype(int).tolist() == [
        [[1, 1, 1, 0, 0, 0]] * 3 + [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], nobody],
        [[1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 1, 0, 0, 0], nobody, nobody, nobody],
    ]
    without = numpy(seq2seq_mask(ops.convert_to_tensor(segments[:, :5])))
    np.testing.assert_array_equal(without[0], numpy(mask)[0, :5, :5])


def test_nobody_sees_what_comes_later(model):
    ids = np.array([[2, 5, 6, 3, 7, 8, 9]], "int32")
    segments = np.array([[0, 0, 0, 0, 1, 1, 1]], "int32")
    before = numpy(model({"token_ids": ids, "segment_ids": segments}))[0]
    for changed in range(7):
        other = ids.copy()
        other[0, changed] = 12
        after = numpy(model({"token_ids": other, "segment_ids": segments}))[0]
        differs = np.abs(after - before).max(axis=-1) > 1e-3
        sees = np.arange(7) >= (changed if changed > 3 else 0)  # all see the source
        assert differs.tolist() == sees.tolist()


def test_padding_changes_nothing(model):
    inputs = inputs_of()
    expected = numpy(model(inputs))
    other = {**inputs, "token_ids": np.where(inputs["padding_mask"], inputs["token_ids"], 5)}
    np.testing.assert_allclose(numpy(model(other)), expected, rtol=1e-5, atol=1e-5)


def test_the_backbone_under_a_mask_of_one_s_own(model):
    """The logits of some positions are those of all; with the padding mask alone they would be others."""
    inputs = inputs_of()
    positions = inputs.pop("output_positions")
    every = numpy(model(inputs))
    some = numpy(model({**inputs, "output_positions": positions}))
    np.testing.assert_allclose(some, np.take_along_axis(every, positions[..., None], 1), rtol=1e-4, atol=1e-4)
    mask = seq2seq_mask(ops.convert_to_tensor(inputs["segment_ids"]), ops.convert_to_tensor(inputs["padding_mask"]))
    ids = {name: inputs[name] for name in ("token_ids", "segment_ids")}
    ours = model.backbone({**ids, "attention_mask": mask})["sequence_output"]
    logits = numpy(model.mlm_head(ours, None, model.backbone.token_table))
    np.testing.assert_allclose(logits, every, rtol=1e-5, atol=1e-5)
    both_ways = numpy(model.backbone(inputs)["sequence_output"])
    assert not np.allclose(numpy(ours), both_ways, atol=1e-2)
    with pytest.raises(BertKerasError, match="give padding_mask or attention_mask, not both"):
        model.backbone({**inputs, "attention_mask": mask})


# Rows and loss.


def test_rows():
    rows = seq2seq_rows(TOKENIZER, ["the cat", "dog"], ["sat on the mat", "cats ran"], max_length=16)
    # [CLS] the cat [SEP] sat on the mat [SEP], and [CLS] dog [SEP] cat ##s ran [SEP]
    assert rows.inputs["token_ids"].tolist() == [[2, 5, 6, 3, 8, 10, 5, 11, 3], [2, 7, 3, 6, 12, 9, 3, 0, 0]]
    assert rows.inputs["segment_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0, 0]]
    assert rows.inputs["padding_mask"].sum(axis=1).tolist() == [9, 7]
    assert rows.inputs["output_positions"].tolist() == [[3, 4, 5, 6, 7], [2, 3, 4, 5, 0]]
    assert rows.labels.tolist() == [[8, 10, 5, 11, 3], [6, 12, 9, 3, -1]]
    assert {value.dtype.name for value in rows.inputs.values()} | {rows.labels.dtype.name} == {"int32", "bool"}
    assert rows.truncated == 0


def test_rows_that_are_cut():
    rows = seq2seq_rows(TOKENIZER, ["the cat", "the dog sat on the mat"], ["sat on the mat", "dog"], max_length=8)
    # [CLS] the cat [SEP] sat on the [SEP]: the target goes on, so no label says that it ends
    assert rows.inputs["token_ids"].tolist() == [[2, 5, 6, 3, 8, 10, 5, 3], [2, 5, 7, 8, 10, 3, 7, 3]]
    assert rows.inputs["output_positions"].tolist() == [[3, 4, 5], [5, 6, 0]]
    assert rows.labels.tolist() == [[8, 10, 5], [7, 3, -1]]
    assert rows.truncated == 2
    assert seq2seq_rows(TOKENIZER, ["the cat"], ["mat"], max_length=6).truncated == 0
    assert seq2seq_rows(TOKENIZER, ["the cat"], ["mat"], max_length=5).truncated == 1


def test_the_loss_of_the_target(model):
    rows = seq2seq_rows(TOKENIZER, ["the cat", "dog", "mat"], ["sat on the mat", "cats ran", ""], max_length=11)
    logits = numpy(model(rows.inputs)).astype("float64")
    counts = rows.labels >= 0
    assert counts.sum(axis=1).tolist() == [5, 4, 1]
    losses = -np.take_along_axis(log_softmax(logits), np.maximum(rows.labels, 0)[..., None], -1)[..., 0] * counts

    def loss_of(weights=None):
        weights = weights if weights is None else ops.convert_to_tensor(weights)
        return float(numpy(model.compute_loss(None, ops.convert_to_tensor(rows.labels), model(rows.inputs), weights)))

    assert loss_of() == pytest.approx(losses.sum() / 10, rel=1e-5)
    weights = np.array([1, 0, 2], "float32")
    expected = (losses * weights[:, None]).sum() / (5 + 2)
    assert loss_of(weights) == pytest.approx(expected, rel=1e-5)
    each = np.random.default_rng(0).random(rows.labels.shape).astype("float32")
    assert loss_of(each) == pytest.approx((losses * each).sum() / (each * counts).sum(), rel=1e-5)


def test_padding_learns_nothing(model):
    rows = seq2seq_rows(TOKENIZER, ["the cat", "dog"], ["sat on the mat", "cats"], max_length=11)
    labels = ops.convert_to_tensor(rows.labels)
    inputs = {**rows.inputs, "token_ids": np.where(rows.inputs["padding_mask"], rows.inputs["token_ids"], 16)}
    tables = [model.backbone.embeddings.token_table]
    (ours,) = gradients(lambda: model.compute_loss(None, labels, model(rows.inputs), None), tables)
    (other,) = gradients(lambda: model.compute_loss(None, labels, model(inputs), None), tables)
    np.testing.assert_allclose(other, ours, rtol=1e-4, atol=1e-5)
    assert np.abs(ours).max() > 1e-2


def test_a_loss_of_one_s_own(model):
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    rows = seq2seq_rows(TOKENIZER, ["the cat", "dog"], ["sat", "ran"], max_length=11)
    logits = model(rows.inputs)
    theirs = float(numpy(model.compute_loss(None, ops.convert_to_tensor(rows.labels), logits, None)))
    model.compile("sgd")
    ours = float(numpy(model.compute_loss(None, ops.convert_to_tensor(rows.labels), logits, None)))
    assert theirs == pytest.approx(ours, rel=1e-5)


# Generation.


def sequences_of(model, source, pieces, longest):
    """Every target there may be, with its log probability, from calls of the whole model."""
    start = model.tokenizer.encode(source).ids
    allowed = np.zeros(model.config.vocabulary_size, bool)
    allowed[pieces] = True
    beginnings = [beginning for n in range(longest) for beginning in itertools.product(pieces[1:], repeat=n)]
    ids = np.zeros((len(beginnings), len(start) + longest), "int32")
    positions = np.array([[len(start) + len(beginning) - 1] for beginning in beginnings], "int32")
    for row, beginning in zip(ids, beginnings, strict=True):
        row[: len(start) + len(beginning)] = [*start, *beginning]
    segments = np.broadcast_to(np.arange(ids.shape[1]) >= len(start), ids.shape).astype("int32")
    inputs = {"token_ids": ids, "segment_ids": segments, "output_positions": positions}
    logits = numpy(compiled(lambda inputs: model(inputs))(inputs))[:, 0]
    after = dict(zip(beginnings, log_softmax(np.where(allowed, logits.astype("float64"), -np.inf)), strict=True))
    found = {}
    for beginning in beginnings:
        log_probability = sum(after[beginning[:i]][piece] for i, piece in enumerate(beginning))
        for piece in pieces if len(beginning) + 1 == longest else pieces[:1]:
            found[(*beginning, piece)] = log_probability + after[beginning][piece]
    return found


@pytest.fixture(scope="module")
def two_words():
    keras.utils.set_random_seed(1009)
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no"])
    model = BertSeq2Seq(small_config(vocabulary_size=7), tokenizer=tokenizer)
    randomize(model)
    return model


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_a_wide_beam_finds_every_target_in_order(two_words, length_penalty):
    every = sequences_of(two_words, "yes no", [3, 5, 6], longest=3)
    assert len(every) == 1 + 2 + 4 + 8
    assert np.exp(list(every.values())).sum() == pytest.approx(1, rel=1e-5)
    best = sorted(every, key=lambda ids: -every[ids] / len(ids) ** length_penalty)
    decoding = Decoding(3, "beam", num_beams=15, length_penalty=length_penalty)
    (found,) = two_words.generations("yes no", decoding)
    assert [(*one.ids, 3) if one.finished else tuple(one.ids) for one in found] == best
    assert [one.log_probability for one in found] == pytest.approx([every[ids] for ids in best], rel=1e-4)
    assert [one.text for one in found[:2]] == [two_words.tokenizer.decode(ids) for ids in best[:2]]
    generated = two_words.generate("yes no", 3, "beam", num_beams=15, length_penalty=length_penalty)
    assert generated == [found[0].text]


def greedily(call, source, count):
    """The whole row each time, as long as the model reads; what comes later is not seen."""
    ids, start = TOKENIZER.encode(source).ids, len(TOKENIZER.encode(source).ids)
    for _ in range(count):
        row = np.zeros((1, 11), "int32")
        row[0, : len(ids)] = ids
        segments = (np.arange(11) >= start).astype("int32")[None]
        position = np.array([[len(ids) - 1]], "int32")
        logits = numpy(call({"token_ids": row, "segment_ids": segments, "output_positions": position}))[0, 0].copy()
        logits[[0, 1, 2, 4, 15, 16]] = -np.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == TOKENIZER.sep_id:
            break
    return ids[start:]


CUTS = [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}]


def test_greedy_takes_the_likeliest_each_time(model):
    found = model.generations(SOURCES, Decoding(5))
    call = compiled(lambda inputs: model(inputs))
    expected = [greedily(call, source, 5) for source in SOURCES]
    assert [one.ids + [3] * one.finished for (one,) in found] == expected
    assert {one.finished for (one,) in found} == {True, False}
    assert len({one.text for (one,) in found}) > 2
    texts = [one.text for (one,) in found]
    assert model.generate(SOURCES, 5) == texts == [TOKENIZER.decode(one.ids) for (one,) in found]
    for options in ({"method": "beam", "num_beams": 1}, *({"method": "sample", **cut} for cut in CUTS)):
        assert model.generate(SOURCES, 5, **options) == texts


@pytest.mark.parametrize("options", [{}, {"method": "beam", "num_beams": 3}, {"method": "sample", "seed": 5}])
def test_a_target_does_not_depend_on_its_batch(model, options):
    together = model.generations(SOURCES, Decoding(5, **options))
    apart = model.generations(SOURCES, Decoding(5, **options), batch_size=2)
    for one, other in zip(together, apart, strict=True):
        assert [target.ids for target in one] == [target.ids for target in other]
        assert [t.log_probability for t in one] == pytest.approx([t.log_probability for t in other], rel=1e-4)
    if options.get("method") != "sample":
        assert model.generate(SOURCES[::-1], 5, **options) == model.generate(SOURCES, 5, **options)[::-1]


def test_draws(model):
    draws = model.generate(["the cat"] * 4, 5, "sample", seed=0)
    assert draws == model.generate(["the cat"] * 4, 5, "sample", seed=0)
    assert draws[:2] == model.generate(["the cat"] * 2, 5, "sample", seed=0)
    assert draws != model.generate(["the cat"] * 4, 5, "sample", seed=1)
    assert len(set(draws)) > 2


def test_what_may_come(model):
    """No special token and no piece beyond the tokenizer's, however likely; and [SEP] ends."""
    likely = np.zeros(17)
    likely[[0, 1, 2, 4, 15, 16]] = 50.0
    model.mlm_head.output_bias.assign(likely)
    for decoding in (Decoding(5), Decoding(5, "beam", num_beams=3), Decoding(5, "sample")):
        for targets in model.generations(SOURCES, decoding):
            for target in targets:
                assert set(target.ids) <= set(range(5, 15))
                assert target.finished == (len(target.ids) < 5)
    model.mlm_head.output_bias.assign(np.where(np.arange(17) == 3, 50.0, 0.0))
    (target,) = model.generations(SOURCES, Decoding(5))[0]
    assert (target.text, target.ids, target.finished) == ("", [], True)
    assert target.log_probability == pytest.approx(0, abs=1e-6)
    model.mlm_head.output_bias.assign(np.where(np.arange(17) == 3, -50.0, 0.0))
    (target,) = model.generations(SOURCES, Decoding(5))[0]
    assert (len(target.ids), target.finished) == (5, False)
    model.mlm_head.output_bias.assign(np.where(np.arange(17) == 6, 50.0, 0.0))
    assert model.generate(SOURCES, 5) == ["cat cat cat cat cat"] * 4
    once = model.generate(SOURCES, 5, no_repeat_ngram=1)
    assert [text.split().count("cat") for text in once] == [1] * 4


def test_no_sources(model):
    assert model.generate([]) == []


def test_bfloat16(model):
    half = BertSeq2Seq(CONFIG, tokenizer=TOKENIZER, dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    for (one,), (other,) in zip(
        half.generations(SOURCES, Decoding(1)), model.generations(SOURCES, Decoding(1)), strict=True
    ):
        assert one.log_probability == pytest.approx(other.log_probability, abs=0.1)


WORDS = [*"abcdef"]


def test_it_learns_to_reverse():
    """All orders of three of six letters, learned by heart and read backwards."""
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    sources = [" ".join(letters) for letters in itertools.permutations(WORDS, 3)][::3]
    targets = [source[::-1] for source in sources]
    model = BertSeq2Seq(small_config(vocabulary_size=11, num_layers=1, hidden_dim=48, intermediate_dim=96), tokenizer)
    rows = seq2seq_rows(tokenizer, sources, targets, max_length=11)
    model.compile(keras.optimizers.Adam(0.01))
    losses = model.fit(rows.inputs, rows.labels, batch_size=20, epochs=40, verbose=0).history["loss"]
    assert losses[0] > 1.5
    assert losses[-1] < 0.1
    found = model.generations(sources, Decoding(4), batch_size=40)
    assert [one.text for (one,) in found] == targets
    assert all(one.finished for (one,) in found)
    assert model.generate(sources[:10], 4, "beam", num_beams=4) == targets[:10]


# Presets.


@pytest.mark.parametrize("cls", [BertPretrainer, BertMaskedLM])
def test_the_head_of_pretraining_is_taken_over(cls, tmp_path):
    pretrained = cls(CONFIG, tokenizer=TOKENIZER)
    randomize(pretrained)
    pretrained.save_to_preset(tmp_path)
    model = BertSeq2Seq.from_preset(tmp_path)
    weights = {name: numpy(value) for name, value in model.canonical_weights().items()}
    assert {name.split("/")[0] for name in weights} == {"backbone", "mlm_head"}
    for name, value in pretrained.canonical_weights().items():
        if name in weights:
            np.testing.assert_array_equal(weights[name], numpy(value), err_msg=name)
    assert len(model.generate(SOURCES, 5)) == 4


def test_its_own_preset(model, tmp_path):
    model.save_to_preset(tmp_path)
    again = BertSeq2Seq.from_preset(tmp_path)
    for weight, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), numpy(other))
    assert again.generate(SOURCES, 5) == model.generate(SOURCES, 5)
    BertMaskedLM.from_preset(tmp_path).fill_mask("the [MASK]")


def test_errors(model, tmp_path):
    with pytest.raises(BertKerasError, match="need num_segments=2 or more, got 1"):
        BertSeq2Seq(small_config(num_segments=1))
    with pytest.raises(BertKerasError, match="needs segment_ids: 0 for the source, 1 for the target"):
        model({"token_ids": np.zeros((1, 3), "int32")})
    with pytest.raises(BertKerasError, match="generate needs a tokenizer"):
        BertSeq2Seq(CONFIG).generate("the cat")
    with pytest.raises(BertKerasError, match=r"^4 pieces in 'the cat'.* and max_new_tokens=9, .* has 11 positions"):
        model.generate(["the", "the cat"], 9)
    assert len(model.generate(["the cat"] * 4, 8)) == 4  # the last piece takes no position
    with pytest.raises(BertKerasError, match="method must be one of"):
        model.generate("the cat", 3, "best")
    with pytest.raises(BertKerasError, match="equal length, got 1 and 2"):
        seq2seq_rows(TOKENIZER, ["the"], ["cat", "dog"], 11)
    with pytest.raises(BertKerasError, match="no pair of texts to make rows of"):
        seq2seq_rows(TOKENIZER, [], [], 11)
    with pytest.raises(BertKerasError, match="max_length=3 leaves no room for text"):
        seq2seq_rows(TOKENIZER, ["the"], ["cat"], 3)
    BertBackbone(CONFIG).save_to_preset(tmp_path)
    with pytest.raises(BertKerasError, match="no weights for mlm_head/.*cannot make a BertSeq2Seq"):
        BertSeq2Seq.from_preset(tmp_path)
    with pytest.raises(BertKerasError, match="BertSeq2Seq"):
        model.save_to_hugging_face(tmp_path / "export")
