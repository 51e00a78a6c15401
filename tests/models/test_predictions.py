"""What the task models say of texts: the same whatever else is asked, legal, and spans of the very text."""

import itertools

import keras
import numpy as np
import pytest

from bertkeras.checkpoints.hub import locate
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.models import BertQuestionAnswerer, BertTextClassifier, BertTextEmbedder, BertTokenClassifier
from bertkeras.text import WordPieceTokenizer
from bertkeras.text.tags import forbidden_pairs, spans_of, tag_names
from bertkeras.text.words import word_spans
from tests.checks import JIT, numpy, randomize

PIECES = ["the", "cat", "dog", "sat", "ran", "on", "mat", "cafe", "naive", "##s", "##ning", ".", ",", "?", *"王八北京"]
TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES, "👍"])
CONFIG = BertConfig(len(TOKENIZER.vocabulary), 2, 24, 3, 40, max_sequence_length=32)
TEXTS = [
    "the cat sat on the mat.",
    "",
    "dog",
    "Café 北京, the dogs ran.",
    "the " * 50,
    "王八",
    "cats ranning on mats ?",
]
CONTEXTS = [text if text.strip() else "." for text in TEXTS]


def drawn(cls, *arguments, seed=11, scale=0.15, config=CONFIG, **options):
    model = cls(config, *arguments, tokenizer=TOKENIZER, **options)
    randomize(model, seed=seed, scale=scale)
    return model


def kinds(scale):
    """For each kind of model a function from texts to what it says of each, as rows of numbers."""
    classifier = drawn(BertTextClassifier, 3, scale=scale)
    several = drawn(BertTextClassifier, 3, task="multi_label", thresholds=[0.2, 0.5, 0.9], scale=scale)
    regression = drawn(BertTextClassifier, 2, task="regression", scale=scale)
    embedders = [drawn(BertTextEmbedder, pooling=pooling, scale=scale) for pooling in ("cls", "mean", "max")]
    decoder = "softmax" if scale == 0.1 else "crf"
    tagger = drawn(BertTokenClassifier, 5, tag_names(["a", "b"]), decoder=decoder, max_length=16, scale=scale)
    answerer = drawn(BertQuestionAnswerer, max_length=16, overlap=3, no_answer_threshold=-1.0, scale=scale)

    def tags(texts, batch_size):
        words = [[text[start:end] for start, end in word_spans(text)] for text in texts]
        entities = tagger.tag(texts, batch_size)
        return [
            [*names, *itertools.chain(*((entity.start, entity.end, entity.probability) for entity in some))]
            for names, some in zip(tagger.tag_words(words, batch_size), entities, strict=True)
        ]

    def answers(texts, batch_size):
        questions = [TEXTS[len(text) % len(TEXTS)] for text in texts]
        found = answerer.answer(questions, [text if text.strip() else "." for text in texts], 3, batch_size)
        return [[value for a in some for value in (a.text, a.start, a.end, a.score, a.probability)] for some in found]

    def classes(model, with_pairs=False):
        def found(texts, batch_size):
            pairs = [text[::2] for text in texts] if with_pairs else None
            return [[*c.labels, *c.probabilities.values(), *c.values] for c in model.classify(texts, pairs, batch_size)]

        return found

    return {
        "classes": classes(classifier),
        "pairs": classes(classifier, with_pairs=True),
        "labels": classes(several),
        "numbers": classes(regression),
        **{f"vectors by {e.pooling}": lambda texts, size, e=e: e.embed(texts, size).tolist() for e in embedders},
        "tags": tags,
        "answers": answers,
    }


def same(one, other):
    """Equal, numbers to 1e-6 of themselves or of 1."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            if isinstance(x, float):
                assert abs(x - y) <= 1e-6 * max(1.0, abs(x)), (x, y)
            else:
                assert x == y


@pytest.mark.parametrize("scale", [0.1, 0.2])
def test_predictions_do_not_depend_on_what_else_is_asked(scale):
    """Each text alone, with others, in another order and batch, beside shorter and longer ones."""
    order = np.random.default_rng(3).permutation(len(TEXTS))
    for name, say in kinds(scale).items():
        together = say(TEXTS, 32)
        shuffled = say([TEXTS[index] for index in order], 32 if JIT else 3)  # JAX compiles for every shape
        try:
            same([together[index] for index in order], shuffled)
            same(together[3:4], say(TEXTS[3:4], 1))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        assert say([], 4) == []


def test_predictions_of_all_minilm_do_not_depend_on_what_else_is_asked():
    try:
        folder = locate("all-MiniLM-L6-v2")
    except BertKerasError as error:
        pytest.skip(str(error))
    model = BertTextEmbedder.from_preset(folder)
    texts = [
        "A cat sat on the mat.",
        "Who?",
        "word " * 200,
        "北京欢迎你",
        "It was the best of times, the worst of times",
    ]
    together = model.embed(texts)
    np.testing.assert_allclose(model.embed(texts[:1]), together[:1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.embed(texts[::-1], batch_size=2)[::-1], together, rtol=0, atol=1e-6)


def tagger_with_random_logits(scheme, decoder, max_length):
    """Logits that differ from word to word and from place to place, so that most steps between the best are illegal."""
    labels, rng = tag_names(["a", "b"], scheme), np.random.default_rng(5)
    model = drawn(BertTokenClassifier, len(labels), labels, decoder=decoder, max_length=max_length, scale=0.1)
    for table in (model.backbone.token_table, model.backbone.embeddings.position_table, model.classifier.kernel):
        table.assign(3 * rng.normal(size=table.shape))
    if decoder == "crf":
        model.crf.transitions.assign(np.random.default_rng(6).normal(size=model.crf.transitions.shape))
    return model


@pytest.mark.parametrize("decoder", ["softmax", "crf"])
@pytest.mark.parametrize("scheme", ["io", "bio", "bioes"])
def test_no_sequence_of_tags_breaks_the_scheme(scheme, decoder):
    rng = np.random.default_rng(7)
    words = [*PIECES[:9], "cats", "ranning", "unknown", *"王八北京", "👍"]
    sentences = [list(rng.choice(words, size)) for size in (0, 1, 4, 13, 25, 60)]
    model = tagger_with_random_logits(scheme, decoder, max_length=12)  # at most ten words in a row
    forbidden = {
        tuple(None if number < 0 else model.labels[number] for number in pair) for pair in forbidden_pairs(model.labels)
    }
    found = model.tag_words(sentences, batch_size=3)
    assert [len(tags) for tags in found] == [len(sentence) for sentence in sentences]
    for tags in found:
        assert not tags or not forbidden & set(itertools.pairwise([None, *tags, None]))
    assert set(itertools.chain(*found)) == set(model.labels)
    texts = [" ".join(sentence) for sentence in sentences]
    for text, entities in zip(texts, model.tag(texts, batch_size=3), strict=True):
        ends = [0, *(entity.end for entity in entities)]
        for entity, end in zip(entities, ends, strict=False):
            assert text[entity.start : entity.end] == entity.text
            assert end <= entity.start < entity.end
            assert 0 < entity.probability <= 1
            assert entity.type in ("a", "b")


def test_entities_are_those_of_the_words():
    text = "The cafe\u0301s, 北京 👍🏽 and the dogs' mat."
    model = tagger_with_random_logits("bio", "softmax", 32)
    spans = word_spans(text)
    (tags,) = model.tag_words([[text[start:end] for start, end in spans]])
    expected = [(spans[first][0], spans[last - 1][1], type) for first, last, type in spans_of(tags)]
    (found,) = model.tag(text)
    assert [(entity.start, entity.end, entity.type) for entity in found] == expected
    assert expected


def test_a_word_is_judged_by_its_first_piece_where_it_has_most_context():
    """Two rows of a long sentence, decoded together: emissions by hand from the model itself."""
    model = tagger_with_random_logits("bio", "crf", max_length=12)
    words = ["cats", "dogs", "the", "ranning", "mats", "on", "cats", "sat", "dogs", "ran"]  # 16 pieces; 10 in a row
    ids = [TOKENIZER.encode_ids([word])[0] for word in words]
    rows = [range(0, 6), range(4, 10)]  # 10 pieces; then from "mats" on, since 3 pieces are shared at most
    emissions = np.zeros((1, 10, 5), "float32")
    for row, kept in zip(rows, [range(0, 5), range(5, 10)], strict=True):
        pieces = [2, *itertools.chain(*(ids[word] for word in row)), 3]
        logits = numpy(model({"token_ids": np.array([pieces], "int32")}))[0]
        for word in kept:
            emissions[0, word] = logits[1 + sum(len(ids[other]) for other in range(row.start, word))]
    expected = [model.labels[tag] for tag in numpy(model.crf(emissions))[0]]
    assert model.tag_words([words]) == [expected]


def test_labels_that_are_no_tags():
    model = drawn(BertTokenClassifier, 3, ["noun", "verb", "other"])
    (found,) = model.tag_words([["the", "cat", "sat"]])
    logits = numpy(model({"token_ids": np.array([[2, 5, 6, 8, 3]], "int32")}))[0, 1:4]
    assert found == [model.labels[index] for index in logits.argmax(-1)]
    with pytest.raises(BertKerasError, match="these labels are none, use tag_words"):
        model.tag("the cat")


# Answers.

PASSAGES = [
    "the cat sat on the mat, the dogs ran.",
    "Cafe\u0301 na\u00efve, 北京 王八 👍🏽 the DOGS\u2026 ran?",
    "北京王八北京。the cat 👨\u200d👩\u200d👧, \u200ecafe\u0301\u200e!",
    "the cats sat on the mat. " * 12,
]


def test_answers_are_spans_of_the_text():
    for max_length, overlap in ((32, 8), (14, 4), (14, 100)):
        model = drawn(BertQuestionAnswerer, max_length=max_length, overlap=overlap, scale=0.2)
        found = model.answer(["the cat ?"] * len(PASSAGES), PASSAGES, top_k=20)
        for passage, answers in zip(PASSAGES, found, strict=True):
            assert len(answers) == 20
            assert len({(answer.start, answer.end) for answer in answers}) == 20
            assert sum(answer.probability for answer in answers) == pytest.approx(1)
            assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)
            for answer in answers:
                assert answer.text == passage[answer.start : answer.end] == answer.text.strip()
                assert answer.text
                assert not passage[answer.end :].startswith("\u0301"), "an accent cut off"


def brute_force(model, question, context, max_length):
    """All spans of at most `max_answer` pieces, scored by the model in one row."""
    encoding = TOKENIZER.encode(question, context, max_length=max_length)
    inputs = {"token_ids": np.array([encoding.ids], "int32"), "segment_ids": np.array([encoding.segment_ids], "int32")}
    logits = numpy(model(inputs))[0].astype("float64")
    first, last = encoding.segment_ids.index(1), len(encoding) - 1
    spans = [
        (logits[begin, 0] + logits[end, 1], encoding.offsets[begin][0], encoding.offsets[end][1])
        for begin in range(first, last)
        for end in range(begin, min(begin + model.max_answer, last))
    ]
    return sorted(spans, reverse=True), logits[0].sum()


@pytest.mark.parametrize("seed", range(4))
def test_the_best_span_is_found_by_trying_all(seed):
    model = drawn(BertQuestionAnswerer, max_answer=4, scale=0.2, seed=seed)
    model.span_head.kernel.assign(3 * np.random.default_rng(seed).normal(size=model.span_head.kernel.shape))
    context = "the cat sat on the mat, cats ran on mats. dogs ran ?"
    spans, nothing = brute_force(model, "the dog ?", context, 32)
    (found,) = model.answer("the dog ?", context, top_k=30)
    for answer, (score, start, end) in zip(found, spans[:30], strict=True):
        assert (answer.start, answer.end) == (start, end)
        assert answer.score == pytest.approx(score, abs=1e-4)
    (scored,) = model.scores_with_none(["the dog ?"], [context])
    assert scored == (context[spans[0][1] : spans[0][2]], pytest.approx(nothing - spans[0][0], abs=1e-4))

    difference = nothing - spans[0][0]
    for threshold, is_none in ((difference - 0.01, True), (difference + 0.01, False)):
        model.no_answer_threshold = threshold
        ((best, *others),) = model.answer("the dog ?", context, top_k=25)
        assert (best.text == "") == is_none == (best.start == best.end == 0)
        assert sum(answer.text == "" for answer in [best, *others]) <= 1


def test_it_always_answers_without_a_threshold(monkeypatch):
    """Begins are best at the end of the context and ends at its beginning: no good begin stands before a good end."""
    model = drawn(BertQuestionAnswerer, max_length=32, overlap=8)

    def call(inputs, training=None):
        place = np.arange(inputs["token_ids"].shape[1], dtype="float32")
        return keras.ops.convert_to_tensor(np.tile(np.stack([place, -place], -1), (len(inputs["token_ids"]), 1, 1)))

    monkeypatch.setattr(model, "call", call)
    monkeypatch.setattr(type(model), "__call__", lambda self, *arguments, **options: call(*arguments, **options))
    context = "the cat sat on mat, " * 20
    ((answer, *_),) = model.answer("the ?", context, top_k=3)
    assert answer.text in ("the", "cat", "sat", "on", "mat", ",")


def test_a_context_without_pieces_has_no_answer():
    model = drawn(BertQuestionAnswerer)
    ((answer,),) = model.answer("the ?", "\u200b")
    assert (answer.text, answer.start, answer.end, answer.probability) == ("", 0, 0, 1)
    ((text, difference),) = model.scores_with_none(["the ?"], ["\u200b"])
    assert (text, difference) == ("", np.inf)


# Errors.


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BertTextClassifier(CONFIG, 2).classify("a"), "classify needs a tokenizer"),
        (lambda: BertTokenClassifier(CONFIG, 3, tag_names(["a"])).tag("a"), "tag needs a tokenizer"),
        (lambda: BertTokenClassifier(CONFIG, 3).tag_words([["a"]]), "tag needs a tokenizer"),
        (lambda: BertTokenClassifier(CONFIG, 3).tag("a"), "use tag_words"),
        (lambda: BertQuestionAnswerer(CONFIG).answer("a", "b"), "answer needs a tokenizer"),
        (lambda: drawn(BertQuestionAnswerer).answer(["a", "b"], "c"), "2 questions, but 1 contexts"),
        (lambda: drawn(BertTextClassifier, 2).classify(["a", "b"], ["c"]), "equal length, got 2 and 1"),
        (lambda: drawn(BertTextClassifier, 2).classify([3]), "must be a str, got int"),
        (lambda: drawn(BertTextClassifier, 2).classify("a\ud800"), "lone surrogate"),
        (lambda: BertTextClassifier(CONFIG, 2, temperature=0.0), "temperature must be above 0"),
        (lambda: BertTextClassifier(CONFIG, 2, thresholds=[0.5, 0.5]), "thresholds are for multi_label"),
        (lambda: BertTextClassifier(CONFIG, 2, task="multi_label", thresholds=[0.5]), "2 of them; got \\[0.5\\]"),
        (lambda: BertTokenClassifier(CONFIG, 2, decoder="viterbi"), "decoder must be one of softmax, crf"),
        (lambda: BertQuestionAnswerer(CONFIG, overlap=-1), "need overlap >= 0 and max_answer >= 1"),
        (lambda: BertQuestionAnswerer(CONFIG, max_answer=0), "need overlap >= 0 and max_answer >= 1"),
        (lambda: BertQuestionAnswerer(CONFIG, max_length=33), "max_length must be between 3 and 32, got 33"),
        (lambda: BertTextEmbedder(CONFIG, objective="triplet"), "objective must be one of"),
        (lambda: BertTextEmbedder(CONFIG, scale=0), "scale must be above 0"),
    ],
)
def test_errors(call, words):
    with pytest.raises(BertKerasError, match=words):
        call()


@pytest.mark.parametrize(
    ("cls", "arguments", "call"),
    [
        (BertTextClassifier, [2], lambda model: model.classify("the cat")),
        (BertTextEmbedder, [], lambda model: model.embed("the cat")),
        (BertTokenClassifier, [3, tag_names(["a"])], lambda model: model.tag("the cat")),
        (BertQuestionAnswerer, [], lambda model: model.answer("the ?", "the cat")),
    ],
)
def test_weights_that_are_no_numbers_are_told(cls, arguments, call):
    model = drawn(cls, *arguments)
    model.backbone.token_table.assign(np.full(model.backbone.token_table.shape, np.nan))
    with pytest.raises(BertKerasError, match="not finite for row 0"):
        call(model)


def test_probabilities_and_decisions():
    logits = np.array([[2.0, 0.0, -1.0], [-800.0, 900.0, 0.0]], "float32")
    single = drawn(BertTextClassifier, 3, labels=["x", "y", "z"], temperature=2.0)
    probabilities = single.probabilities(logits)
    np.testing.assert_allclose(probabilities[0], np.exp([1, 0, -0.5]) / np.exp([1, 0, -0.5]).sum(), rtol=1e-12)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-12)
    assert [found.labels for found in single.classifications(logits)] == [("x",), ("y",)]
    several = drawn(BertTextClassifier, 3, labels=["x", "y", "z"], task="multi_label", thresholds=[0.9, 0.5, 0.2])
    found = several.classifications(logits)
    assert [decision.labels for decision in found] == [("y", "z"), ("y", "z")]
    assert found[0].probabilities["x"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert np.isfinite(several.probabilities(logits)).all()


def test_other_classes_take_over_neither_labels_nor_thresholds(tmp_path):
    options = {"labels": ["x", "y", "z"], "task": "multi_label", "thresholds": [0.9, 0.5, 0.2]}
    drawn(BertTextClassifier, 3, **options).save_to_preset(tmp_path)
    model = BertTextClassifier.from_preset(tmp_path, num_classes=2, new_head=True)
    assert (model.labels, model.thresholds, model.task) == (None, None, "multi_label")
    again = BertTextClassifier.from_preset(tmp_path)
    assert {name: getattr(again, name) for name in options} == options
