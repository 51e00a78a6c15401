"""What cheap methods reach on the same data: the figure that a BERT must beat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertkeras.datasets.examples import QuestionExample, TextExample, TokenExample
from bertkeras.text.tags import Span, spans_of, tags_of
from bertkeras.training.task_metrics import (
    answer_metrics,
    best_thresholds,
    class_metrics,
    entity_metrics,
    label_metrics,
    number_metrics,
)

CJK = re.compile(r"[\u3400-\u9fff]")
PAIR = " \u241e "  # between the texts of a pair


def vectorizer(texts: Sequence[str]) -> Any:
    """TF-IDF of words and pairs of words, or for Chinese, and where there are no words, of one to three characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    chinese = sum(bool(CJK.search(text)) for text in texts) > len(texts) / 2
    if chinese or not any(re.search(r"\w", text) for text in texts):
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")


def joined(examples: Sequence[TextExample]) -> list[str]:
    """One text for each example; the second text of a pair stands behind a mark."""
    return [e.text if e.pair is None else e.text + PAIR + e.pair for e in examples]


def class_baselines(
    train: Sequence[TextExample], test: Sequence[TextExample], labels: Sequence[str]
) -> dict[str, float]:
    """Always the commonest class, and logistic regression on TF-IDF."""
    from sklearn.linear_model import LogisticRegression

    targets, truth = ([labels.index(str(e.label)) for e in part] for part in (train, test))
    commonest = Counter(targets).most_common(1)[0][0]
    found = _named("majority", class_metrics(truth, [commonest] * len(test)))
    if len(set(targets)) > 1:
        features = vectorizer(joined(train))
        model = LogisticRegression(C=10.0, max_iter=2000).fit(features.fit_transform(joined(train)), targets)
        found |= _named("baseline", class_metrics(truth, model.predict(features.transform(joined(test))).tolist()))
    return found


def label_baselines(
    train: Sequence[TextExample], dev: Sequence[TextExample], test: Sequence[TextExample], labels: Sequence[str]
) -> dict[str, float]:
    """The labels that more than half of the texts have, and logistic regressions on TF-IDF with tuned thresholds."""
    from sklearn.linear_model import LogisticRegression

    targets, tuned, truth = (_label_matrix(part, labels) for part in (train, dev, test))
    usual = targets.mean(axis=0) > 0.5
    if not usual.any():
        usual = np.arange(len(labels)) == targets.mean(axis=0).argmax()
    found = _named("majority", label_metrics(truth, np.tile(usual, (len(test), 1))))
    features = vectorizer(joined(train))
    x = features.fit_transform(joined(train))
    scores = {"dev": np.zeros(tuned.shape), "test": np.zeros(truth.shape)}
    for column in range(len(labels)):
        if 0 < targets[:, column].sum() < len(targets):
            model = LogisticRegression(C=10.0, max_iter=2000).fit(x, targets[:, column])
            for part, examples in (("dev", dev), ("test", test)):
                scores[part][:, column] = model.predict_proba(features.transform(joined(examples)))[:, 1]
    thresholds = np.array(best_thresholds(scores["dev"], tuned))
    return found | _named("baseline", label_metrics(truth, scores["test"] >= thresholds))


def number_baselines(train: Sequence[TextExample], test: Sequence[TextExample]) -> dict[str, float]:
    """Always the mean, and ridge regression on TF-IDF."""
    from sklearn.linear_model import Ridge

    targets, truth = ([float(e.label) for e in part] for part in (train, test))  # type: ignore[arg-type]
    features = vectorizer(joined(train))
    model = Ridge(alpha=1.0).fit(features.fit_transform(joined(train)), targets)
    return {
        **_named("majority", number_metrics(truth, [float(np.mean(targets))] * len(test))),
        **_named("baseline", number_metrics(truth, model.predict(features.transform(joined(test))))),
    }


def similarity_baselines(train: Sequence[TextExample], test: Sequence[TextExample]) -> dict[str, float]:
    """The cosine of TF-IDF vectors."""
    features = vectorizer([e.text for e in train]).fit([text for e in train for text in (e.text, e.pair or "")])
    first, second = features.transform([e.text for e in test]), features.transform([e.pair or "" for e in test])
    cosines = np.asarray(first.multiply(second).sum(axis=1)).ravel()
    return _named("baseline", number_metrics([float(e.label) for e in test], cosines))  # type: ignore[arg-type]


def entity_baselines(train: Sequence[TokenExample], test: Sequence[TokenExample]) -> dict[str, float]:
    """No entity at all, and every name that is one in most of its places in the training data, longest first."""
    seen: dict[tuple[str, ...], Counter[str]] = {}
    for example in train:
        for start, end, type in spans_of(example.tags):
            seen.setdefault(example.tokens[start:end], Counter())[type] += 1
    longest = max(map(len, seen), default=0)
    places: Counter[tuple[str, ...]] = Counter()
    for example in train:
        for start in range(len(example.tokens)):
            for size in range(1, longest + 1):
                run = example.tokens[start : start + size]
                if len(run) == size and run in seen:
                    places[run] += 1
    names = {run: types.most_common(1)[0][0] for run, types in seen.items() if 2 * types.total() >= places[run]}
    gold = [tags_of(spans_of(example.tags), len(example.tags)) for example in test]
    found = []
    for example in test:
        spans, start = [], 0
        while start < len(example.tokens):
            rest = range(min(longest, len(example.tokens) - start), 0, -1)
            sizes = (size for size in rest if example.tokens[start : start + size] in names)
            size = next(sizes, 0)
            if size:
                spans.append(Span(start, start + size, names[example.tokens[start : start + size]]))
            start += size or 1
        found.append(tags_of(spans, len(example.tokens)))
    return {
        **_named("majority", entity_metrics(gold, [["O"] * len(tags) for tags in gold])),
        **_named("baseline", entity_metrics(gold, found)),
    }


def answer_baselines(examples: Sequence[QuestionExample]) -> dict[str, float]:
    """Never an answer, and the sentence of the context that is most like the question by TF-IDF."""
    guesses = []
    features = vectorizer([example.context for example in examples])
    features.fit([example.context for example in examples])
    for example in examples:
        sentences = [part for part in re.split(r"(?<=[.!?])\s+|(?<=[。！？])", example.context) if part.strip()]
        likeness = features.transform(sentences) @ features.transform([example.question]).T
        guesses.append(sentences[int(np.asarray(likeness.todense()).ravel().argmax())])
    return {
        **_named("majority", answer_metrics(examples, [""] * len(examples))),
        **_named("baseline", answer_metrics(examples, guesses)),
    }


def generation_baselines(train: Sequence[TextExample], test: Sequence[QuestionExample]) -> dict[str, float]:
    """Always the commonest target, and the source itself."""
    commonest = Counter(example.pair or "" for example in train).most_common(1)[0][0]
    return {
        **_named("majority", answer_metrics(test, [commonest] * len(test))),
        **_named("baseline", answer_metrics(test, [example.context for example in test])),
    }


def _label_matrix(examples: Sequence[TextExample], labels: Sequence[str]) -> np.ndarray:
    return np.array([[name in (e.label or ()) for name in labels] for e in examples], "int32")  # type: ignore[operator]


def _named(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}
