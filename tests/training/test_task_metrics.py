"""Figures of tasks against the libraries and scripts that the field reports by, and against trying everything."""

import itertools
import random
import string
from collections import Counter

import numpy as np
import pytest

from bertkeras.datasets.examples import Answer, QuestionExample
from bertkeras.text.tags import SCHEMES, spans_of, tag_names, tags_of
from bertkeras.training.task_metrics import (
    answer_metrics,
    answer_words,
    best_no_answer_threshold,
    best_temperature,
    best_thresholds,
    calibration_error,
    class_metrics,
    entity_metrics,
    label_metrics,
    number_metrics,
    word_overlap,
)

# Entities.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_entity_f1_of_random_predictions_is_seqeval_s(scheme):
    """10,200 sentences over the schemes. Ours goes by spans to BIO; seqeval reads the scheme itself. Gold is legal,
    predictions need not be."""
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    draw = random.Random(3)
    names = tag_names(["place", "creative-work", "人名"], scheme)
    for _ in range(34):
        gold, found = [], []
        for _ in range(100):
            tags = draw.choices(names, k=draw.randrange(1, 13))
            legal = tags_of(spans_of(tags), len(tags), scheme)
            gold.append(legal)
            found.append([tag if draw.random() < 0.7 else draw.choice(names) for tag in legal])
        ours = entity_metrics(
            [tags_of(spans_of(tags), len(tags)) for tags in gold],
            [tags_of(spans_of(tags), len(tags)) for tags in found],
        )
        assert ours["entity_f1"] == pytest.approx(seqeval.f1_score(gold, found), abs=1e-12)
        assert ours["entity_precision"] == pytest.approx(seqeval.precision_score(gold, found), abs=1e-12)
        assert ours["entity_recall"] == pytest.approx(seqeval.recall_score(gold, found), abs=1e-12)
        assert 0.2 < ours["entity_f1"] < 0.9


def test_entity_metrics_by_hand():
    gold = [["B-a", "I-a", "O", "B-b"], ["O", "O"], ["B-a"]]
    found = [["B-a", "I-a", "O", "B-a"], ["B-b", "O"], ["O"]]  # 1 of 3 right, 1 of 3 found
    figures = entity_metrics(gold, found)
    assert figures == pytest.approx({"entity_precision": 1 / 3, "entity_recall": 1 / 3, "entity_f1": 1 / 3})
    assert entity_metrics(gold, [["O"] * len(tags) for tags in gold])["entity_f1"] == 0


# Answers.

# What real answers are made of: articles, marks, numbers, scripts, signs without width
WORDS = [
    *("the", "The", "a", "A", "an", "AN", "(the)", "«a»", "“the”", "a-the", "an.", "the/a", "an\u0301", "\u200bthe"),
    *("theory", "Ana", "cat", "Dog's", "dog’s", "a’s", "$3.50", "3.50", "2,000", "2000", "1/2", "½", "²", "U.S.", "US"),
    *("e-mail", "café", "cafe\u0301", "Ångström", "straße", "STRASSE", "İstanbul", "ﬁne", "ς", "Σ", "ſ", "Привет"),
    *(
        "हिन्दी",
        "👍",
        "👨\u200d👩\u200d👧",
        "–",
        "—",
        "-",
        "...",
        "!",
        "_",
        "x_y",
        "`",
        "\u00a0",
        "\t",
        "\n",
        "\u3000",
        "",
    ),
]


def squad_score(golds, answer, version):
    """Exact match and F1 of one answer by the rules of SQuAD's scripts, evaluate-v1.1.py and evaluate-v2.0.py.

    Lower case; no ASCII punctuation; no articles between word borders; words are what white space leaves. Version 2.0
    leaves out gold answers of which nothing remains, and gives 1 where gold and answer are both nothing; version 1.1
    gives such a pair an F1 of 0.
    """

    def words(text):
        kept = text.lower().translate({ord(mark): None for mark in string.punctuation})
        parts, part = [], ""
        for character in kept + " ":
            if character.isalnum() or character == "_":
                part += character
            else:
                parts += [" " if part in ("a", "an", "the") else part, character]
                part = ""
        return "".join(parts).split()

    def f1(gold, found):
        left, same = list(gold), 0
        for word in found:
            if word in left:
                left.remove(word)
                same += 1
        if version == "2.0" and not (gold and found):
            return float(gold == found)
        return 2 * same / (len(gold) + len(found)) if same else 0.0

    found, golds = words(answer), [words(gold) for gold in golds]
    if version == "2.0":
        golds = [gold for gold in golds if gold] or [[]]
    return float(found in golds), max(f1(gold, found) for gold in golds)


def phrase(draw):
    parts = draw.choices(WORDS, k=draw.choices(range(8), [1, 4, 4, 3, 2, 1, 1, 1])[0])
    return "".join(part + draw.choice([" ", " ", " ", "", "  ", "-", ", "]) for part in parts)


def guess(draw, golds):
    """Nothing, something else, or a gold answer with a word more, a word less, or in capitals."""
    if not golds or draw.random() < 0.3:
        return draw.choice(["", phrase(draw)])
    parts = draw.choice(golds).split(" ")
    if draw.random() < 0.5:
        parts.pop(draw.randrange(len(parts)))
    if draw.random() < 0.3:
        parts.insert(draw.randint(0, len(parts)), draw.choice(WORDS))
    return " ".join(parts).upper() if draw.random() < 0.3 else " ".join(parts)


def test_10000_random_answers_score_as_by_squad_s_scripts():
    draw = random.Random(5)
    examples, answers, expected = [], [], []
    seen = Counter()
    for number in range(10_000):
        golds = [phrase(draw) for _ in range(draw.choice([0, 1, 1, 2, 3]))]
        answer = guess(draw, golds)
        examples.append(QuestionExample(str(number), "?", "", tuple(Answer(gold, 0) for gold in golds)))
        answers.append(answer)
        ours = answer_metrics(examples[-1:], [answer])
        expected.append(squad_score(golds, answer, "2.0"))
        assert (ours["exact_match"], ours["f1"]) == pytest.approx(expected[-1], abs=1e-12), (golds, answer)
        if golds and all(answer_words(gold) for gold in golds):
            assert (ours["exact_match"], ours["f1"]) == pytest.approx(squad_score(golds, answer, "1.1")), (
                golds,
                answer,
            )
        seen["right", ours["exact_match"]] += 1
        seen["half right"] += 0 < ours["f1"] < 1
        seen["nothing asked for"] += not golds
    assert min(seen.values()) > 500, "all kinds of answers occur"
    exact, overlap = np.mean(expected, axis=0)
    assert answer_metrics(examples, answers) == pytest.approx({"exact_match": exact, "f1": overlap})


@pytest.mark.parametrize(
    ("gold", "answer", "exact", "f1"),
    [
        (["The cat"], "cat.", 1, 1),
        (["the cat sat"], "a cat ran", 0, 1 / 2),
        (["cat cat dog"], "cat", 0, 1 / 2),
        (["dog", "black cat"], "Black-cat", 0, 0),
        (["dog", "black cat"], "Black cat", 1, 1),
        ([], "", 1, 1),
        ([], "the", 1, 1),
        ([], "cat", 0, 0),
        (["the"], "", 1, 1),
        (["the", "cat"], "", 0, 0),
        (["北京大学"], "北京大学。", 1, 1),
        (["北京大学"], "京大", 0, 2 / 3),
        (["《红楼梦》"], "红楼梦", 1, 1),
        (["iPhone手机"], "手机", 0, 4 / 5),
    ],
)
def test_answers_by_hand(gold, answer, exact, f1):
    example = QuestionExample("1", "?", "", tuple(Answer(text, 0) for text in gold))
    assert answer_metrics([example], [answer]) == pytest.approx({"exact_match": exact, "f1": f1})


def test_word_overlap_does_not_know_order():
    assert word_overlap(["a", "b"], ["b", "a"]) == 1
    assert word_overlap([], []) == 1
    assert word_overlap([], ["a"]) == word_overlap(["a"], []) == 0


# Classes, labels, numbers.


def test_class_metrics_are_scikit_learn_s_and_hand_counts():
    rng = np.random.default_rng(7)
    for classes in (2, 3, 7):
        targets = rng.integers(0, classes, 211)
        found = np.where(rng.random(211) < 0.6, targets, rng.integers(0, classes, 211))
        counts = np.zeros((classes, classes))
        np.add.at(counts, (targets, found), 1)
        hits = np.diag(counts)
        f1 = 2 * hits / (counts.sum(0) + counts.sum(1))
        right, by_gold, by_guess = hits.sum(), counts.sum(1), counts.sum(0)
        matthews = (right * 211 - by_gold @ by_guess) / np.sqrt(
            (211**2 - by_guess @ by_guess) * (211**2 - by_gold @ by_gold)
        )
        ours = class_metrics(targets.tolist(), found.tolist())
        assert ours == pytest.approx({"accuracy": right / 211, "f1_macro": f1.mean(), "matthews": matthews})
    assert class_metrics([0, 0, 1], [0, 0, 0])["matthews"] == 0


def test_label_metrics_by_hand_counts():
    rng = np.random.default_rng(8)
    targets = (rng.random((97, 5)) < [0.1, 0.3, 0.5, 0.7, 0.0]).astype(int)
    found = np.where(rng.random((97, 5)) < 0.8, targets, 1 - targets)
    hits, calls, golds = (targets & found).sum(0), found.sum(0), targets.sum(0)
    ours = label_metrics(targets, found)
    assert ours["f1_micro"] == pytest.approx(2 * hits.sum() / (calls.sum() + golds.sum()))
    assert ours["f1_macro"] == pytest.approx((2 * hits / (calls + golds)).mean())
    assert ours["exact_accuracy"] == pytest.approx(
        np.mean([np.array_equal(*rows) for rows in zip(targets, found, strict=True)])
    )
    with_probabilities = label_metrics(targets, found, found * 0.8 + 0.1)
    assert with_probabilities["calibration_error"] == pytest.approx(
        calibration_error((found * 0.8 + 0.1).ravel(), targets.ravel())
    )


def test_number_metrics_by_ranks_and_sums():
    rng = np.random.default_rng(9)
    x, y = rng.integers(0, 20, 101).astype(float), rng.normal(size=101)
    y = np.round(y + x / 5, 1)  # with ties

    def pearson(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a @ b) / np.sqrt((a @ a) * (b @ b))

    def ranks(a):
        return np.array([(a < value).sum() + ((a == value).sum() + 1) / 2 for value in a])

    ours = number_metrics(x, y)
    assert ours == pytest.approx(
        {"pearson": pearson(x, y), "spearman": pearson(ranks(x), ranks(y)), "mean_squared_error": ((x - y) ** 2).mean()}
    )
    constant = number_metrics([1.0, 2.0, 4.0], [3.0, 3.0, 3.0])
    assert (constant["spearman"], constant["pearson"]) == (0, 0)
    assert constant["mean_squared_error"] == pytest.approx((4 + 1 + 1) / 3)


# Calibration and thresholds.


def test_calibration_error_by_hand():
    assert calibration_error(np.array([1.0, 1.0, 1.0]), np.array([True, True, True])) == 0
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, False])) == 1
    # 0.85 said four times and right twice, 0.55 said once and right: 4/5 of |0.85 - 0.5| and 1/5 of |0.55 - 1|
    found = calibration_error(np.array([0.85] * 4 + [0.55]), np.array([1, 0, 1, 0, 1]))
    assert found == pytest.approx(0.8 * 0.35 + 0.2 * 0.45)
    # one bin: 0.81 right, 0.89 wrong: |0.85 - 0.5|, not the mean of 0.19 and 0.89
    assert calibration_error(np.array([0.81, 0.89]), np.array([1, 0])) == pytest.approx(0.35)
    # the same in bins of a half: everything falls into the upper one
    assert calibration_error(np.array([0.6, 0.95]), np.array([1, 0]), bins=2) == pytest.approx(abs(0.775 - 0.5))
    found = class_metrics([0, 1], [0, 0], np.array([[0.9, 0.1], [0.7, 0.3]]))["calibration_error"]
    assert found == pytest.approx(0.5 * 0.1 + 0.5 * 0.7)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_best_temperature_finds_the_one_that_drew_the_labels(temperature):
    """Labels drawn from softmax(logits / T). With 20,000 of them the estimate is good to 3 per cent or so: the
    Fisher information of log T is the mean variance of logits / T under the model, here above 0.2, which gives a
    standard deviation below 1 / sqrt(0.2 * 20000) = 0.016; 4 of them are allowed."""
    rng = np.random.default_rng(10)
    logits = 3 * temperature**0.5 * rng.normal(size=(20_000, 4))
    powers = np.exp(logits / temperature)
    drawn = (rng.random((20_000, 1)) > np.cumsum(powers / powers.sum(-1, keepdims=True), axis=-1)).sum(-1)
    assert best_temperature(logits, drawn) == pytest.approx(temperature, rel=0.064)
    several = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits / temperature))).astype(int)
    assert best_temperature(logits, several, several=True) == pytest.approx(temperature, rel=0.064)


def test_best_temperature_stays_within_bounds_and_finite():
    sure = np.array([[1000.0, -1000.0], [-1000.0, 1000.0]])
    assert 0.05 <= best_temperature(sure, np.array([0, 1])) <= 20
    assert 0.05 <= best_temperature(sure, np.array([1, 0])) <= 20
    assert 0.05 <= best_temperature(sure, np.array([[0, 1], [1, 0]]), several=True) <= 20


def f1_of(called, truth):
    return 2 * (called & truth).sum() / max(called.sum() + truth.sum(), 1)


def test_best_thresholds_against_trying_all():
    rng = np.random.default_rng(11)
    for trial in range(300):
        rows = int(rng.integers(1, 12))
        scores = rng.choice([0.05, 0.1, 0.3, 0.45, 0.6, 0.8, 0.99], (rows, 3)) if trial % 2 else rng.random((rows, 3))
        targets = (rng.random((rows, 3)) < 0.4).astype(int)
        for column, found in enumerate(best_thresholds(scores, targets)):
            values, truth = scores[:, column], targets[:, column] > 0
            if not truth.any():
                assert found == 0.5
                continue
            tried = [0.0, 0.5, *(values + 1e-9), *(values - 1e-9)]
            best = max(f1_of(values >= threshold, truth) for threshold in tried)
            assert f1_of(values >= found, truth) == pytest.approx(best)
            assert 0 < found < 1
            if f1_of(values >= 0.5, truth) == pytest.approx(best):
                assert found == 0.5


def test_a_threshold_may_call_everything():
    """A seldom label whose probabilities are all low, and most of the texts have it."""
    (found,) = best_thresholds(np.array([[0.1], [0.2], [0.15]]), np.array([[1], [0], [1]]))
    assert found < 0.1


def test_best_no_answer_threshold_against_trying_all():
    rng = np.random.default_rng(12)
    for trial in range(500):
        size = int(rng.integers(1, 9))
        differences = rng.normal(size=size) if trial % 2 else rng.integers(-2, 3, size).astype(float)
        if trial % 7 == 0:
            differences[0] = np.inf  # a context without any span
        gains = rng.choice([-1.0, -0.5, 0.0, 0.4, 1.0], size)
        found = best_no_answer_threshold(differences, gains)
        assert np.isfinite(found)
        finite = differences[np.isfinite(differences)]
        tried = [0.0, *(finite + 1e-6), *(finite - 1e-6)]
        best = max(gains[differences > threshold].sum() for threshold in tried)
        assert gains[differences > found].sum() == pytest.approx(best), (differences, gains, found)


def test_a_no_answer_threshold_keeps_a_distance():
    assert best_no_answer_threshold(np.array([2.0, -4.0]), np.array([1.0, -1.0])) == -1
    assert best_no_answer_threshold(np.array([2.0, 3.0]), np.array([1.0, 1.0])) == 1
    assert best_no_answer_threshold(np.array([2.0, 3.0]), np.array([-1.0, -1.0])) == 4
    for order in itertools.permutations([(5.0, 1.0), (1.0, -1.0), (0.0, 1.0), (-2.0, -1.0)]):
        differences, gains = np.array(order).T
        assert best_no_answer_threshold(differences, gains) == 3
