"""Labels that a linear model contradicts.

`python -m tests.data.labels english-reviews` lists them, the least believed first, to be read again.
"""

import functools
import sys

import numpy as np

from bertkeras.datasets.shipped import TASKS
from tests.data.models import contradicted, hashed, out_of_fold, tf_idf, with_wrong_labels, word_features
from tests.data.sets import examples, joined, label_names, language, places, texts

OUTSIDE = "outside"
HYPOTHESIS, BOTH = "hypothesis alone", "premise and hypothesis"


@functools.cache
def judged(name, wrong=0.0):
    """What linear models say of labels that they have not seen.

    Args:
        name: A set with labels.
        wrong: The share of the labels to replace by wrong ones beforehand; of the words outside entities none.

    Returns:
        For each kind of decision its labels as numbers, and the probabilities that a model gives to each. A ticket is
        one decision for each label, a word of a sentence one; a pair is judged twice.
    """
    found, names = examples(name), label_names(name)
    if TASKS[name] == "multi-label":
        features = tf_idf(texts(name, "tickets"))
        decisions = {}
        for number, label in enumerate(names):
            given = with_wrong_labels([label in example.label for example in found], wrong, 2, seed=number)
            decisions[label] = given, out_of_fold(features, given)
        return decisions
    if TASKS[name] == "entities":
        names = [OUTSIDE, *names]
        sentences = [number for number, example in enumerate(found) for _ in example.tokens]
        given = np.array([names.index(tag.partition("-")[2] or OUTSIDE) for each in found for tag in each.tags])
        given[given > 0] = with_wrong_labels(given[given > 0], wrong, len(names))
        features = hashed(row for example in found for row in word_features(example.tokens))
        return {"words": (given, out_of_fold(features, given, sentences, strength=1.0, folds=5))}
    given = with_wrong_labels([names.index(example.label) for example in found], wrong, len(names))
    if name == "entailment":
        premises = texts(name, "premises")
        groups = [premises.index(example.text) for example in found]
        both = [f"{example.text} {example.pair}" for example in found]
        return {
            HYPOTHESIS: (given, out_of_fold(tf_idf(texts(name, "hypotheses")), given, groups)),
            BOTH: (given, out_of_fold(tf_idf(both), given, groups)),
        }
    return {"all": (given, out_of_fold(tf_idf(texts(name, "reviews"), language(name)), given))}


def contradicted_shares(name, wrong=0.0):
    """The share of labels that are contradicted, for each kind of decision; of the words of sentences for each type."""
    shares = {}
    for kind, (given, probabilities) in judged(name, wrong).items():
        found = contradicted(probabilities, given)
        if TASKS[name] == "entities":
            shares |= {
                label: float(found[given == number].mean())
                for number, label in enumerate([OUTSIDE, *label_names(name)])
            }
        else:
            shares[kind] = float(found.mean())
    return shares


def listing(name):
    """The contradicted labels, the least believed first: a line each."""
    if TASKS[name] == "entities":
        shown = [
            f"{place} {joined((*each.tokens[:at], f'[{each.tokens[at]}]', *each.tokens[at + 1 :]), language(name))}"
            for place, each in zip(places(name), examples(name), strict=True)
            for at in range(len(each.tokens))
        ]
    else:
        shown = [
            f"{place} {each.text}{f' | {each.pair}' if each.pair else ''}"
            for place, each in zip(places(name), examples(name), strict=True)
        ]
    lines = []
    for kind, (given, probabilities) in judged(name).items():
        classes = {"multi-label": ["not", "yes"], "entities": [OUTSIDE, *label_names(name)]}.get(TASKS[name])
        classes = classes or label_names(name)
        for row in np.flatnonzero(contradicted(probabilities, given)):
            guess = classes[probabilities[row].argmax()]
            belief = probabilities[row, given[row]]
            lines.append((belief, f"{belief:.2f} {kind}: {classes[given[row]]}, model: {guess}; {shown[row]}"))
    return [line for _, line in sorted(lines)]


if __name__ == "__main__":
    for set_name in sys.argv[1:]:
        print(*listing(set_name), sep="\n")
