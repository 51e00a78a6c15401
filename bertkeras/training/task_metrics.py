"""How good predictions are, by the measures that each task is known by.

scikit-learn, SciPy and seqeval compute what they know; the rest stands here.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from bertkeras.datasets.examples import QuestionExample


def class_metrics(
    targets: Sequence[int], predicted: Sequence[int], probabilities: np.ndarray | None = None
) -> dict[str, float]:
    """`accuracy`, `f1_macro`, `matthews` and, with `probabilities` `(texts, classes)`, `calibration_error`."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    found = {
        "accuracy": float(accuracy_score(targets, predicted)),
        "f1_macro": float(f1_score(targets, predicted, average="macro", zero_division=0)),
        "matthews": float(matthews_corrcoef(targets, predicted)) if len({*targets, *predicted}) > 1 else 0.0,
    }
    if probabilities is not None:
        right = np.asarray(predicted) == np.asarray(targets)
        found["calibration_error"] = calibration_error(probabilities.max(axis=-1), right)
    return found


def label_metrics(
    targets: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None = None
) -> dict[str, float]:
    """`f1_micro`, `f1_macro` and `exact_accuracy` of several labels, `(texts, labels)` of 0 and 1."""
    from sklearn.metrics import f1_score

    targets, predicted = np.asarray(targets) > 0, np.asarray(predicted) > 0
    found = {
        "f1_micro": float(f1_score(targets, predicted, average="micro", zero_division=0)),
        "f1_macro": float(f1_score(targets, predicted, average="macro", zero_division=0)),
        "exact_accuracy": float((targets == predicted).all(axis=-1).mean()),
    }
    if probabilities is not None:
        found["calibration_error"] = calibration_error(probabilities.ravel(), targets.ravel())
    return found


def number_metrics(targets: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> dict[str, float]:
    """`spearman`, `pearson` and `mean_squared_error`; a correlation with a constant is 0."""
    from scipy.stats import pearsonr, spearmanr

    x, y = np.asarray(targets, "float64"), np.asarray(predicted, "float64")
    varies = np.ptp(x) > 0 and np.ptp(y) > 0
    return {
        "spearman": float(spearmanr(x, y).statistic) if varies else 0.0,
        "pearson": float(pearsonr(x, y).statistic) if varies else 0.0,
        "mean_squared_error": float(np.square(x - y).mean()),
    }


def entity_metrics(targets: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """`entity_precision`, `entity_recall` and `entity_f1`: whole names, with borders and type right, as in CoNLL."""
    from seqeval.metrics import f1_score, precision_score, recall_score

    gold, found = [list(tags) for tags in targets], [list(tags) for tags in predicted]
    return {
        "entity_precision": float(precision_score(gold, found, zero_division=0)),
        "entity_recall": float(recall_score(gold, found, zero_division=0)),
        "entity_f1": float(f1_score(gold, found, zero_division=0)),
    }


def answer_metrics(examples: Sequence[QuestionExample], answers: Sequence[str]) -> dict[str, float]:
    """`exact_match` and `f1` as SQuAD's script computes them: the best over the gold answers, the mean over questions.

    A question without gold answers is right if and only if the answer is empty. Where a gold answer has Chinese
    characters, each is a word and Chinese punctuation goes as well.

    Reference: Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822, and the evaluation script of SQuAD 2.0.
    """
    exact, overlap = [], []
    for example, answer in zip(examples, answers, strict=True):
        chinese = any(CJK.search(gold.text) for gold in example.answers)
        golds = [words for gold in example.answers if (words := answer_words(gold.text, chinese))] or [[]]
        found = answer_words(answer, chinese)
        exact.append(max(gold == found for gold in golds))
        overlap.append(max(word_overlap(gold, found) for gold in golds))
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(overlap))}


CJK = re.compile("[\u3400-\u9fff]")
CHINESE_MARKS = re.compile("[，。、；：？！“”‘’（）《》「」『』—…·～【】〈〉]")


def answer_words(text: str, chinese: bool = False) -> list[str]:
    """Lower-case words without ASCII punctuation and English articles."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    if chinese:
        text = CJK.sub(r" \g<0> ", CHINESE_MARKS.sub("", text))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def word_overlap(expected: list[str], found: list[str]) -> float:
    """Harmonic mean of the shares of words that each has in the other; 1 if both are empty."""
    if not expected or not found:
        return float(expected == found)
    same = sum((Counter(expected) & Counter(found)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(expected)
    return 2 * precision * recall / (precision + recall)


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Mean distance between how sure predictions are and how often they are right, over bins of equal width.

    Reference: Guo et al. 2017, equation 3, https://arxiv.org/abs/1706.04599
    """
    confidences, right = np.asarray(confidences, "float64"), np.asarray(right, "float64")
    places = np.clip((confidences * bins).astype(int), 0, bins - 1)
    gaps = [
        np.abs(confidences[places == place].mean() - right[places == place].mean()) * (places == place).mean()
        for place in np.unique(places)
    ]
    return float(np.sum(gaps))


def best_temperature(logits: np.ndarray, targets: np.ndarray, several: bool = False) -> float:
    """What to divide logits by so that development data are least surprising (Guo et al. 2017, section 4.2).

    Args:
        logits: `(texts, classes)`.
        targets: `(texts,)` integers, or with `several` labels `(texts, classes)` of 0 and 1.
    """
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, "float64")

    def surprise(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if several:
            return float(np.mean(np.logaddexp(0, scaled) - scaled * targets))
        shifted = scaled - scaled.max(axis=-1, keepdims=True)
        log_z = np.log(np.exp(shifted).sum(axis=-1))
        return float(np.mean(log_z - shifted[np.arange(len(targets)), targets]))

    found = minimize_scalar(surprise, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def best_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> list[float]:
    """For every label the probability from which it is best called on development data, by F1 of that label.

    Of thresholds that do equally well the one nearest to 0.5 is taken; a label that never occurs keeps 0.5.
    """
    thresholds = []
    for column in range(probabilities.shape[1]):
        scores, truth = probabilities[:, column], np.asarray(targets[:, column]) > 0
        steps = np.unique([0.0, *scores])
        candidates = np.unique([0.5, *((steps[1:] + steps[:-1]) / 2)])
        called = scores >= candidates[:, None]  # (candidates, texts)
        hits = (called & truth).sum(axis=1)
        f1 = 2 * hits / np.maximum(called.sum(axis=1) + truth.sum(), 1)
        best = candidates[f1 >= f1.max() - 1e-12]
        thresholds.append(float(best[np.abs(best - 0.5).argmin()]) if truth.any() else 0.5)
    return thresholds


def best_no_answer_threshold(differences: np.ndarray, gains: np.ndarray) -> float:
    """From which difference between the score of "no answer" and that of the best span to say "no answer".

    Args:
        differences: `(questions,)`.
        gains: How much better the metric of each question is with "no answer" than with the span, in [-1, 1].
    """
    order = np.argsort(-differences)
    edges = np.concatenate([[np.inf], differences[order], [-np.inf]])
    total = np.concatenate([[0.0], np.cumsum(gains[order])])  # no answer for the first k
    total[edges[:-1] == edges[1:]] = -np.inf  # no threshold tells equal ones apart
    best = int(total.argmax())
    low, high = edges[best + 1], edges[best]
    if np.isinf(low) and np.isinf(high):
        return 0.0
    return float(low + 1.0 if np.isinf(high) else high - 1.0 if np.isinf(low) else (low + high) / 2)
