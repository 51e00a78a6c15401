"""Tasks on whole texts: classes, numbers, likeness."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bertkeras.datasets.examples import TextExample
from bertkeras.errors import BertKerasError
from bertkeras.models import BertTextClassifier, BertTextEmbedder
from bertkeras.models.base import PresetModel
from bertkeras.pipelines.tasks import TaskRows, similarity_rows, text_rows
from bertkeras.training import baselines, task_metrics
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.task import SHOWN, Task


class Classification(Task):
    """One class for each text."""

    model_class = BertTextClassifier
    main = "accuracy"
    kind = "single_label"

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        super().__init__(config, train)
        found = set(labels or (name for example in train for name in _labels_of(example)))
        by_value = all(map(is_number, found))
        self.labels = sorted(found, key=lambda name: (float(name) if by_value else 0.0, name))
        if len(self.labels) < 2:
            raise BertKerasError(f"the training data have one label only, {self.labels}; there is nothing to learn")

    def model(self) -> PresetModel:
        return self._load(
            num_classes=len(self.labels or ()),
            labels=self.labels,
            task=self.kind,
            new_head=True,
            temperature=1.0,
            thresholds=None,
        )

    def rows(self, model: Any, examples: Sequence[TextExample]) -> TaskRows:
        return text_rows(model.tokenizer, examples, model.max_length, self.labels)

    def targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        assert self.labels is not None
        return np.array([self.labels.index(str(example.label)) for example in examples])

    def logits(self, model: Any, examples: Sequence[TextExample]) -> np.ndarray:
        pairs = None if examples[0].pair is None else [example.pair or "" for example in examples]
        return model.logits_of([example.text for example in examples], pairs)

    def evaluate(self, model: Any, examples: Sequence[TextExample]) -> dict[str, float]:
        probabilities = model.probabilities(self.logits(model, examples))
        predicted = probabilities.argmax(axis=-1).tolist()
        return task_metrics.class_metrics(self.targets(examples).tolist(), predicted, probabilities)

    def tune(self, model: Any, dev: Sequence[TextExample]) -> dict[str, Any]:
        model.temperature = task_metrics.best_temperature(self.logits(model, dev), self.targets(dev))
        return {"temperature": model.temperature}

    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        assert self.labels is not None
        return baselines.class_baselines(train, test, self.labels)

    def weights(self, rows: TaskRows) -> np.ndarray | None:
        if self.config.class_weights == "none":
            return None
        counts = Counter(rows.labels)
        return np.array([len(rows) / (len(counts) * counts[label]) for label in rows.labels], "float32")

    def mistakes(self, model: Any, examples: Sequence[TextExample]) -> tuple[list[str], list[list[str]]]:
        """The surest mistakes first."""
        found = model.classifications(self.logits(model, examples))
        wrong = [
            (max(guess.probabilities.values()), baselines.joined([example])[0], gold, ", ".join(guess.labels))
            for example, guess in zip(examples, found, strict=True)
            if (gold := ", ".join(sorted(_labels_of(example)))) != ", ".join(sorted(guess.labels))
        ]
        lines = sorted(wrong, reverse=True)[:SHOWN]
        return ["text", "label", "said", "how sure"], [[*cells, f"{sure:.0%}"] for sure, *cells in lines]


class MultiLabel(Classification):
    """Any number of labels for each text."""

    main = "f1_micro"
    kind = "multi_label"

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        super().__init__(config, train, labels)
        shares = (self.targets(train).sum(axis=0) + 0.5) / (len(train) + 1)
        self.bias = np.log(shares / (1 - shares))

    def model(self) -> PresetModel:
        """The bias begins at how seldom each label is; otherwise the whole model would have to learn that first."""
        model: Any = super().model()
        model.classifier.bias.assign(self.bias)
        return model

    def targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        return np.array([[name in _labels_of(example) for name in self.labels or ()] for example in examples], "int32")

    def evaluate(self, model: Any, examples: Sequence[TextExample]) -> dict[str, float]:
        probabilities = model.probabilities(self.logits(model, examples))
        thresholds = np.array(model.thresholds or [0.5] * model.num_classes)
        return task_metrics.label_metrics(self.targets(examples), probabilities >= thresholds, probabilities)

    def tune(self, model: Any, dev: Sequence[TextExample]) -> dict[str, Any]:
        logits, targets = self.logits(model, dev), self.targets(dev)
        model.temperature = task_metrics.best_temperature(logits, targets, several=True)
        model.thresholds = task_metrics.best_thresholds(model.probabilities(logits), targets)
        return {"temperature": model.temperature, "thresholds": model.thresholds}

    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        assert self.labels is not None
        return baselines.label_baselines(train, dev, test, self.labels)

    def weights(self, rows: TaskRows) -> np.ndarray | None:
        """Of a text: the mean weight of its labels, by how seldom they are."""
        if self.config.class_weights == "none":
            return None
        targets = np.stack(rows.labels)
        rarity = len(rows) / np.maximum(targets.sum(axis=0), 1)
        weights = (targets * rarity).sum(axis=1) / np.maximum(targets.sum(axis=1), 1)
        weights = np.where(weights > 0, weights, weights[weights > 0].mean())
        return (weights / weights.mean()).astype("float32")


class Regression(Task):
    """A number for each text."""

    model_class = BertTextClassifier
    main = "spearman"

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        super().__init__(config, train)
        self.bias = np.array([np.mean([float(example.label) for example in train])])  # type: ignore[arg-type]

    def model(self) -> PresetModel:
        options = {"labels": None, "thresholds": None, "temperature": 1.0}  # not those of another task
        model = self._load(num_classes=1, task="regression", new_head=True, **options)
        model.classifier.bias.assign(self.bias)
        return model

    def rows(self, model: Any, examples: Sequence[TextExample]) -> TaskRows:
        return text_rows(model.tokenizer, examples, model.max_length)

    def values(self, model: Any, examples: Sequence[TextExample]) -> np.ndarray:
        pairs = None if examples[0].pair is None else [example.pair or "" for example in examples]
        return model.logits_of([example.text for example in examples], pairs)[:, 0]

    def evaluate(self, model: Any, examples: Sequence[TextExample]) -> dict[str, float]:
        return task_metrics.number_metrics(_numbers_of(examples), self.values(model, examples))

    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        return baselines.number_baselines(train, test)

    def mistakes(self, model: Any, examples: Sequence[TextExample]) -> tuple[list[str], list[list[str]]]:
        return _farthest(examples, self.values(model, examples))


class Similarity(Task):
    """Two texts, and how alike they are: by the cosine of their vectors."""

    model_class = BertTextEmbedder
    main = "spearman"
    together = 2

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        super().__init__(config, train)
        self.largest = max(1.0, *(abs(number) for number in _numbers_of(train)))

    def scaled(self, examples: Sequence[TextExample]) -> list[TextExample]:
        """With labels that a cosine can have: those of a scale such as 0 to 5 are divided by the largest."""
        numbers = _numbers_of(examples)
        return [replace(e, label=number / self.largest) for e, number in zip(examples, numbers, strict=True)]

    def model(self) -> PresetModel:
        options = {} if self.config.pooling is None else {"pooling": self.config.pooling}
        return self._load(objective=self.config.objective, **options)

    def rows(self, model: Any, examples: Sequence[TextExample]) -> TaskRows:
        scaled = self.scaled(examples)
        if self.config.objective == "contrastive":
            scaled = [example for example, number in zip(scaled, _numbers_of(scaled), strict=True) if number >= 0.5]
            if not scaled:
                raise BertKerasError("the contrastive objective learns from pairs that are alike; there are none")
        rows = similarity_rows(model.tokenizer, scaled, model.max_length)
        rows.counts["pairs left out as unlike"] = len(examples) - len(scaled)
        return rows

    def values(self, model: Any, examples: Sequence[TextExample]) -> np.ndarray:
        first = model.embed([example.text for example in examples])
        return cosines(first, model.embed([example.pair or "" for example in examples]))

    def evaluate(self, model: Any, examples: Sequence[TextExample]) -> dict[str, float]:
        return task_metrics.number_metrics(_numbers_of(self.scaled(examples)), self.values(model, examples))

    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        return baselines.similarity_baselines(train, self.scaled(test))

    def mistakes(self, model: Any, examples: Sequence[TextExample]) -> tuple[list[str], list[list[str]]]:
        return _farthest(examples, self.values(model, examples))


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of the vectors of two tables, row by row."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(axis=-1) / np.maximum(lengths, 1e-12)


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _labels_of(example: TextExample) -> tuple[str, ...]:
    return example.label if isinstance(example.label, tuple) else (str(example.label),)


def _numbers_of(examples: Sequence[TextExample]) -> list[float]:
    return [float(example.label) for example in examples]  # type: ignore[arg-type]


def _farthest(examples: Sequence[TextExample], values: np.ndarray) -> tuple[list[str], list[list[str]]]:
    """The texts whose numbers are farthest from their labels in rank."""
    targets = np.array(_numbers_of(examples))
    ranks = (np.argsort(np.argsort(part)) for part in (targets, values))
    order = np.argsort(-np.abs(np.subtract(*ranks)))[:SHOWN]
    lines = [[baselines.joined([examples[i]])[0], f"{targets[i]:g}", f"{values[i]:.3f}"] for i in order]
    return ["text", "label", "said"], lines
