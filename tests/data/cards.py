"""The tables of the data cards: as measured, and as a card has them.

`python -m tests.data.cards entailment` prints the tables of a card, to be pasted into it.
"""

import re
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score

from bertkeras.datasets.shipped import SPLITS, TASKS, shipped_path
from bertkeras.text.corpus import split_sentences
from bertkeras.text.tags import spans_of
from tests.data.labels import BOTH, HYPOTHESIS, contradicted_shares, judged
from tests.data.language import commonest_opening, diversity, words
from tests.data.models import out_of_fold, tf_idf
from tests.data.real_sets import REAL
from tests.data.sets import KINDS, examples, joined, label_names, language, texts


@dataclass(frozen=True)
class Figure:
    """A number in a card.

    Args:
        value: As measured.
        decimals: How many the card has.
        tolerance: By how much the card may differ beyond rounding: what another version of scikit-learn may change.
    """

    value: float
    decimals: int
    tolerance: float = 0.0

    def __str__(self):
        return f"{self.value:.{self.decimals}f}"

    def fits(self, cell):
        return re.fullmatch(r"-?\d+\.\d+", cell) is not None and (
            abs(float(cell) - self.value) <= 0.5001 * 10**-self.decimals + self.tolerance
        )


def quality(value):
    """A figure of a model."""
    return Figure(value, 3, 0.02)


# What stands in the tables


def size(name):
    """How many examples of what there are in each split."""
    columns = []
    for split in (*SPLITS, None):
        found = examples(name, split)
        counts = {}
        if TASKS[name] == "entities":
            counts["sentences"] = len(found)
            entities = Counter(span.type for example in found for span in spans_of(example.tags))
            counts |= {label: entities[label] for label in label_names(name)}
            counts["sentences without an entity"] = sum(not spans_of(example.tags) for example in found)
        elif TASKS[name] == "question-answering":
            counts["passages"] = len(texts(name, "passages", split))
            counts["questions"] = len(found)
            counts["questions without an answer"] = sum(not example.answers for example in found)
        elif TASKS[name] == "multi-label":
            counts["tickets"] = len(found)
            given = Counter(label for example in found for label in example.label)
            counts |= {label: given[label] for label in label_names(name)}
            number = Counter(len(example.label) for example in found)
            counts |= {f"with {many} label{'' if many == 1 else 's'}": number[many] for many in sorted(number)}
        else:
            counts["pairs" if name == "entailment" else "reviews"] = len(found)
            if name == "entailment":
                counts["premises"] = len(texts(name, "premises", split))
            given = Counter(example.label for example in found)
            counts |= {label: given[label] for label in label_names(name)}
        columns.append(counts)
    return [["", *SPLITS, "all"], *([row, *(column.get(row, 0) for column in columns)] for row in columns[-1])]


def length(name):
    """How long the texts are: in words, Chinese ones in characters with their punctuation."""
    unit = "characters" if language(name) == "zh" else "words"
    rows = [[unit, "mean", "shortest", "longest"]]
    for kind in KINDS[name]:
        found = [len(text) if unit == "characters" else len(words(text)) for text in texts(name, kind)]
        rows.append([kind, Figure(sum(found) / len(found), 1), min(found), max(found)])
    return rows


def variety(name):
    """How varied the language is, beside that of the real set."""
    unit = "characters" if language(name) == "zh" else "words"
    rows = [["", f"distinct {unit} in 500", "distinct-2", "distinct-3", "commonest opening"]]
    for kind, key in KINDS[name].items():
        found, real = texts(name, kind), REAL[key]
        rows.append([kind, *(Figure(share, 3) for share in diversity(found)), Figure(commonest_opening(found), 3)])
        rows.append([real.title, *(Figure(share, 3) for share in real.diversity), Figure(real.opening, 3)])
    return rows


def names_per_100_words(sentences, language):
    """Entities other than dates for every 100 words, or characters if they are Chinese."""
    names = sum(span.type != "date" for example in sentences for span in spans_of(example.tags))
    return 100 * names / sum(len(words(joined(example.tokens, language))) for example in sentences)


def density(name):
    """How close the entities stand, beside the real set."""
    found, real = examples(name), REAL[KINDS[name]["sentences"]]
    assert real.names is not None
    entities = [len(spans_of(example.tags)) for example in found]
    unit = "characters" if language(name) == "zh" else "words"
    return [
        ["", "entities in a sentence", f"persons, places and organisations in 100 {unit}"],
        ["sentences", Figure(sum(entities) / len(entities), 2), Figure(names_per_100_words(found, language(name)), 1)],
        [real.title, "", Figure(real.names, 1)],
    ]


def accuracy(decision):
    given, probabilities = decision
    return float((probabilities.argmax(1) == given).mean())


def difficulty(name):
    """How far a linear model comes, by cross-validation over all splits."""
    task, found = TASKS[name], examples(name)
    rows = [["", ""]]
    if task == "question-answering":
        return rows + _difficulty_of_questions(found)
    decisions = judged(name)
    if task == "multi-label":
        precisions = [average_precision_score(given, guess[:, 1]) for given, guess in decisions.values()]
        share = np.mean([given.mean() for given, _ in decisions.values()])
        rows.append(["average precision, mean over the labels, of tickets in a random order", Figure(share, 3)])
        rows.append(["average precision of TF-IDF and logistic regression", quality(np.mean(precisions))])
    elif task == "entities":
        known = {_name(span, example) for example in examples(name, "train") for span in spans_of(example.tags)}
        tested = [_name(span, example) for example in examples(name, "test") for span in spans_of(example.tags)]
        unseen = sum(entity not in known for entity in tested) / len(tested)
        rows.append(["entities of test that do not stand in train", Figure(unseen, 3)])
        rows.append(["entity F1 of a linear tagger", quality(_tagger_f1(name, *decisions["words"]))])
    else:
        given = next(iter(decisions.values()))[0]
        rows.append(["accuracy of the commonest label", Figure(np.bincount(given).max() / len(given), 3)])
        what = {"all": "", BOTH: f", {BOTH}", HYPOTHESIS: f", {HYPOTHESIS}"}
        for kind, decision in decisions.items():
            rows.append([f"accuracy of TF-IDF and logistic regression{what[kind]}", quality(accuracy(decision))])
    return rows


def labels(name):
    """Which share of the labels a linear model contradicts."""
    what = "words of a sentence" if TASKS[name] == "entities" else "labels"
    return [
        [what, "contradicted"],
        *([kind, Figure(share, 3, 0.01)] for kind, share in contradicted_shares(name).items()),
    ]


def _name(span, example):
    return " ".join(example.tokens[span.start : span.end])


def _tagger_f1(name, given, probabilities):
    names = label_names(name)
    tags = iter("O" if number == 0 else f"I-{names[number - 1]}" for number in probabilities.argmax(1))
    right = chosen = marked = 0
    for example in examples(name):
        truth = set(spans_of(example.tags))
        guess = set(spans_of([next(tags) for _ in example.tokens]))
        right, chosen, marked = right + len(truth & guess), chosen + len(guess), marked + len(truth)
    return 2 * right / (chosen + marked)


def _difficulty_of_questions(found):
    answered = [example for example in found if example.answers]
    unanswerable = [example for example in found if not example.answers]
    given = np.array([not example.answers for example in found]).astype(int)
    contexts = list(dict.fromkeys(example.context for example in found))
    groups = [contexts.index(example.context) for example in found]
    guessed = out_of_fold(tf_idf([example.question for example in found]), given, groups)
    asking = [example for example in found if {"who", "whom", "whose"} & set(words(example.question))]
    return [
        ["answers in the sentence that shares most words with the question", Figure(_sentence_accuracy(answered), 3)],
        ["words of a question that stand in its passage, if there is an answer", Figure(_shared_words(answered), 3)],
        ["words of a question that stand in its passage, if there is none", Figure(_shared_words(unanswerable), 3)],
        ["questions without an answer", Figure(len(unanswerable) / len(found), 3)],
        [
            "questions without an answer, of those with who, whom or whose",
            Figure(sum(not example.answers for example in asking) / len(asking), 3),
        ],
        [
            "accuracy of TF-IDF and logistic regression on the question alone, whether there is an answer",
            quality(accuracy((given, guessed))),
        ],
    ]


def _shared_words(questions):
    shares = [
        sum(word in passage for word in asked) / len(asked)
        for asked, passage in ((words(each.question), set(words(each.context))) for each in questions)
    ]
    return sum(shares) / len(shares)


def _sentence_accuracy(questions):
    right = 0
    for each in questions:
        asked = set(words(each.question))
        best = max(split_sentences(each.context), key=lambda sentence: len(asked & set(words(sentence))))
        begin = each.context.index(best)
        right += any(begin <= answer.start < begin + len(best) for answer in each.answers)
    return right / len(questions)


TABLES = {
    "Size": size,
    "Length": length,
    "Variety": variety,
    "Density": density,
    "Difficulty": difficulty,
    "Labels": labels,
}


def measured(name, heading):
    """A table of a card, row by row, as measured."""
    return TABLES[heading](name)


def headings(name):
    """The headings of a card below which a table must stand."""
    without = {
        "Density": TASKS[name] != "entities",
        "Labels": name in ("passages", "entailment"),  # a linear model does not know better than chance
    }
    return [heading for heading in TABLES if not without.get(heading)]


# As a card has it


def card_path(name):
    return shipped_path(name, "train").parent / "README.md"


def card_table(text, heading):
    """The first table below a heading of a card, row by row."""
    below = re.split(rf"^## {heading}$", text, flags=re.MULTILINE)[1]
    lines = re.split(r"^## ", below, flags=re.MULTILINE)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def written(rows):
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    for set_name in sys.argv[1:]:
        for title in headings(set_name):
            print(f"## {title}\n\n{written(measured(set_name, title))}\n")
