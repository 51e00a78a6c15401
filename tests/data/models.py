"""Linear models: how hard a set is, and which labels they contradict."""

import re

import numpy as np
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier

REPEATS = 3
ENGLISH = {"ngram_range": (1, 2), "token_pattern": r"\w+(?:['’]\w+)?|[!?]"}
CHINESE = {"ngram_range": (1, 2), "analyzer": "char"}


def tf_idf(texts, language="en"):
    """Words and pairs of words, or characters and pairs of them, weighted by TF-IDF, without any label."""
    return TfidfVectorizer(sublinear_tf=True, **(CHINESE if language == "zh" else ENGLISH)).fit_transform(texts)


def out_of_fold(features, labels, groups=None, *, strength=10.0, folds=10):
    """For each example the probabilities of logistic regressions that have not seen it.

    Args:
        features: A row for each example.
        labels: Whole numbers from 0.
        groups: Examples of one group are never parted. If `None`, every fold has each label in proportion, and the
            probabilities are the mean of `REPEATS` partings into folds.
        strength: How closely a model follows the labels: the inverse of the regularisation.
        folds: How many.
    """
    model = LogisticRegression(solver="liblinear", dual=True, C=strength, max_iter=1000)
    if len(set(labels)) > 2:
        model = OneVsRestClassifier(model)
    partings = [GroupKFold(folds)] if groups is not None else []
    partings = partings or [StratifiedKFold(folds, shuffle=True, random_state=seed) for seed in range(REPEATS)]
    found = [
        cross_val_predict(model, features, labels, groups=groups, cv=parting, method="predict_proba")
        for parting in partings
    ]
    return np.mean(found, axis=0)


def contradicted(probabilities, labels):
    """Whether a model contradicts a label with confidence, for each example.

    It does if it finds another label the likeliest, and at least as likely as it finds that label on average where it
    is given: what counts as confident in Northcutt, Jiang and Chuang (2021), "Confident Learning", section 3.1.
    """
    average = np.array([probabilities[labels == label, label].mean() for label in range(probabilities.shape[1])])
    likeliest = probabilities.argmax(1)
    return (likeliest != labels) & (probabilities.max(1) >= average[likeliest])


def with_wrong_labels(labels, share, classes, seed=0):
    """Labels as numbers from 0, a share of them, drawn at random, replaced by another one."""
    rng = np.random.default_rng(seed)
    wrong = np.array(labels, int)
    drawn = rng.random(len(wrong)) < share
    wrong[drawn] = (wrong[drawn] + rng.integers(1, classes, drawn.sum())) % classes
    return wrong


def word_features(tokens):
    """For each word of a sentence what a tagger looks at: the word, its shape and its ends, and the words around it."""

    def at(place):
        return tokens[place].lower() if 0 <= place < len(tokens) else ""

    shapes = [re.sub(r"(.)\1+", r"\1", "".join(map(_kind, token))) for token in tokens]
    for place in range(len(tokens)):
        word = at(place)
        yield [
            *(f"{offset} {at(place + offset)}" for offset in (-2, -1, 0, 1, 2)),
            *(f"{offset}+ {at(place + offset)} {at(place + offset + 1)}" for offset in (-2, -1, 0, 1)),
            *(f"{offset}~ {shapes[place + offset]}" for offset in (-1, 0, 1) if 0 <= place + offset < len(tokens)),
            f"begins {word[:3]}",
            f"ends {word[-3:]}",
            f"ends {word[-2:]}",
        ]


def _kind(letter):
    return "0" if letter.isdigit() else "A" if letter.isupper() else "a" if letter.islower() else letter


def hashed(features):
    """Lists of features as rows of numbers."""
    return FeatureHasher(2**18, input_type="string", alternate_sign=False).transform(features)
