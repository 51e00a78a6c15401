"""The cheap methods: good where it is easy, at the level of chance where there is nothing to know."""

import numpy as np
import pytest

from bertkeras.datasets.examples import Answer, QuestionExample, TextExample, TokenExample
from bertkeras.training import baselines
from bertkeras.training.baselines import (
    answer_baselines,
    class_baselines,
    entity_baselines,
    label_baselines,
    number_baselines,
    similarity_baselines,
    vectorizer,
)

GOOD, BAD = ["good", "fine", "lovely"], ["bad", "dull", "awful"]
FILLERS = ["it", "was", "really", "not", "so", "very", "much", "of", "a", "thing", "that", "they", "had", "there"]


def texts(count, seed, labels=("bad", "good")):
    """One telling word among many; each class has three."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = str(rng.choice(labels))
        words = [*rng.choice(FILLERS, 6), rng.choice(GOOD if label == "good" else BAD)]
        found.append(TextExample(" ".join(rng.permutation(words)), label=label))
    return found


def test_easy_classes_are_learned():
    train, test = texts(120, 0), texts(80, 1)
    found = class_baselines(train, test, ["bad", "good"])
    assert min(found["baseline_accuracy"], found["baseline_f1_macro"], found["baseline_matthews"]) > 0.95
    counts = [sum(example.label == name for example in test) for name in ("bad", "good")]
    commonest = max(("bad", "good"), key=[example.label for example in train].count)
    assert found["majority_accuracy"] == counts[commonest == "good"] / 80
    assert found["majority_matthews"] == 0


def test_nothing_is_learned_from_the_test_data():
    """Labels that have nothing to do with the texts: 400 guesses are within 4 * 0.025 of a half."""
    rng = np.random.default_rng(2)

    def drawn(count):
        return [TextExample(example.text, label=str(rng.choice(["a", "b"]))) for example in texts(count, 3)]

    found = class_baselines(drawn(200), drawn(400), ["a", "b"])
    assert abs(found["baseline_accuracy"] - 0.5) < 0.1


@pytest.mark.parametrize("part", ["test", "dev"])
def test_labels_that_may_not_be_seen_are_not_looked_at(part, monkeypatch):
    """What is predicted stays the same when the labels of the test data are turned round."""
    said = []
    monkeypatch.setattr(baselines, "class_metrics", lambda truth, found: said.append(list(found)) or {})
    monkeypatch.setattr(baselines, "label_metrics", lambda truth, found: said.append(np.array(found).tolist()) or {})
    monkeypatch.setattr(baselines, "entity_metrics", lambda truth, found: said.append(found) or {})
    train, test = texts(60, 0), texts(30, 1)
    turned = [TextExample(e.text, label={"bad": "good", "good": "bad"}[e.label]) for e in test]

    def several(examples):
        return [TextExample(e.text, label=(e.label,)) for e in examples]

    def words(examples):
        return [
            TokenExample(
                tuple(e.text.split()), tuple(f"B-{e.label}" if w in GOOD + BAD else "O" for w in e.text.split())
            )
            for e in examples
        ]

    for examples in (test, turned):
        if part == "test":
            class_baselines(train, examples, ["bad", "good"])
            entity_baselines(words(train), words(examples))
        label_baselines(several(train), several(train), several(examples), ["bad", "good"])
    assert said[: len(said) // 2] == said[len(said) // 2 :]


def test_one_class_only_and_classes_that_training_lacks():
    found = class_baselines(texts(9, 0, ["good"]), texts(20, 1), ["bad", "good"])
    assert "baseline_accuracy" not in found
    assert 0 < found["majority_accuracy"] < 1
    found = class_baselines(texts(60, 0), [*texts(20, 1), TextExample("x", label="zzz")], ["bad", "good", "zzz"])
    assert 0.7 < found["baseline_accuracy"] <= 20 / 21


def test_pairs_are_read_with_both_texts():
    rng = np.random.default_rng(4)
    pairs = [
        TextExample("it was so", str(rng.choice(GOOD if label == "good" else BAD)), label)
        for label in rng.choice(["bad", "good"], 120)
    ]
    assert class_baselines(pairs[:80], pairs[80:], ["bad", "good"])["baseline_accuracy"] == 1


def test_easy_labels_are_learned():
    rng = np.random.default_rng(5)

    def drawn(count):
        found = []
        for _ in range(count):
            names = [name for name in ("red", "blue", "seldom") if rng.random() < {"seldom": 0.1}.get(name, 0.5)]
            found.append(TextExample(" ".join(rng.permutation([*rng.choice(FILLERS, 5), *names])), label=tuple(names)))
        return found

    found = label_baselines(drawn(200), drawn(60), drawn(100), ["blue", "red", "seldom"])
    assert found["baseline_f1_micro"] > 0.95
    assert found["majority_f1_micro"] < 0.75


def test_easy_numbers_are_learned():
    rng = np.random.default_rng(6)

    def drawn(count):
        found = []
        for _ in range(count):
            good, bad = rng.integers(0, 4, 2)
            words = [*rng.choice(GOOD, good), *rng.choice(BAD, bad), *rng.choice(FILLERS, 3)]
            found.append(TextExample(" ".join(rng.permutation(words)), label=float(good - bad)))
        return found

    train, test = drawn(200), drawn(80)
    found = number_baselines(train, test)
    assert found["baseline_spearman"] > 0.85
    assert found["baseline_mean_squared_error"] < found["majority_mean_squared_error"] / 2
    mean = np.mean([example.label for example in train])
    spread = np.mean([(example.label - mean) ** 2 for example in test])
    assert found["majority_mean_squared_error"] == pytest.approx(spread)


def test_texts_with_the_same_words_are_alike():
    pairs = [("a red cat", "the red cat", 1.0), ("a red cat", "one blue dog", 0.0), ("blue sea", "blue sky", 0.5)]
    examples = [TextExample(*pair) for pair in pairs]
    assert similarity_baselines(examples, examples)["baseline_spearman"] == pytest.approx(1)


def test_chinese_is_read_by_characters():
    assert vectorizer(["这部电影很好看", "太差了 NBA", "ok"]).build_analyzer()("好看") == ["好", "看", "好看"]
    assert vectorizer(["good film", "太差了"]).build_analyzer()("Good Film.") == ["good", "film", "good film"]
    rng = np.random.default_rng(7)
    drawn = [
        TextExample("".join(rng.permutation([*"这那部电影的了一", *word])), label=label)
        for label in rng.choice(["好", "坏"], 90)
        for word in [str(rng.choice(["赞", "美"] if label == "好" else ["差", "烂"]))]
    ]
    assert class_baselines(drawn[:60], drawn[60:], ["坏", "好"])["baseline_accuracy"] > 0.85


def test_texts_without_words_do_not_stop_a_run():
    faces = [
        TextExample(text, label=label)
        for text, label in [(":-)", "good"), (":-(", "bad"), ("👍", "good"), ("👎", "bad")]
    ]
    assert class_baselines(faces, faces, ["bad", "good"])["baseline_accuracy"] == 1


def sentence(text):
    """`Ada|B-who went home|O`: a bar before a tag, `O` where there is none."""
    pairs = [word.partition("|")[::2] for word in text.split()]
    return TokenExample(tuple(word for word, _ in pairs), tuple(tag or "O" for _, tag in pairs))


def test_the_gazetteer_by_hand():
    train = [
        sentence("Ada|B-who went to New|B-place York|I-place"),
        sentence("New|B-place York|I-place is new"),
        sentence("May|B-who went in may"),
        sentence("in May it is cold in May"),  # a name in one of three places: not taken
        sentence("York|B-who went ; York|B-who is old"),  # alone in two of four places: taken, of the commoner type
        sentence("Paris|B-place Paris|B-place Paris|B-who"),
        sentence("Ada|B-place Bay|I-place"),
    ]
    test = [
        sentence("Ada|B-who and May|B-who saw New|B-place York|I-place and York|B-place"),
        sentence("Paris|B-who is New"),
        sentence("in Ada|B-place Bay|I-place"),
    ]
    # said: Ada who, New York place, York who, Paris place, Ada Bay place (the longest): 3 of 5 right, 3 of 6 found
    found = entity_baselines(train, test)
    assert found["baseline_entity_precision"] == pytest.approx(3 / 5)
    assert found["baseline_entity_recall"] == pytest.approx(3 / 6)
    assert found["majority_entity_f1"] == 0


def test_names_that_no_sentence_knows():
    found = entity_baselines([sentence("no name here")], [sentence("Ada|B-who")])
    assert found["baseline_entity_f1"] == 0


def test_the_sentence_most_like_the_question():
    context = "The cat sleeps. The dog runs in the park! A bird sings."
    examples = [
        QuestionExample("1", "Where does the dog run?", context, (Answer("The dog runs in the park!", 16),)),
        QuestionExample("2", "What does a bird do?", context, (Answer("sings", 49),)),
        QuestionExample("3", "Who?", context),
        QuestionExample("4", "鸟在哪里？", "猫睡觉。鸟在树上。", (Answer("鸟在树上", 4),)),
    ]
    found = answer_baselines(examples)
    assert found["majority_exact_match"] == found["majority_f1"] == 1 / 4
    assert found["baseline_exact_match"] == pytest.approx(1 / 4)
    assert found["baseline_f1"] == pytest.approx((1 + 2 / 3) / 4)
    (chinese,) = [answer_baselines(examples[3:])]
    assert chinese["baseline_exact_match"] == 1
