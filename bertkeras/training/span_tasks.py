"""Tasks on parts of texts: entities and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bertkeras.datasets.examples import QuestionExample, TokenExample
from bertkeras.datasets.readers import types_of
from bertkeras.errors import BertKerasError
from bertkeras.models import BertQuestionAnswerer, BertTokenClassifier
from bertkeras.models.base import PresetModel
from bertkeras.pipelines.tasks import TaskRows, question_rows, token_rows
from bertkeras.text.tags import Span, spans_of, tag_names, tags_of
from bertkeras.training import baselines, task_metrics
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.task import SHOWN, Task


class Entities(Task):
    """Names in sentences."""

    model_class = BertTokenClassifier
    main = "entity_f1"

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        super().__init__(config, train)
        types = labels or types_of(train)
        if not types:
            raise BertKerasError("the training data hold no entity; there is nothing to learn")
        self.labels = tag_names(types, config.scheme)

    def model(self) -> PresetModel:
        return self._load(
            num_classes=len(self.labels or ()),
            labels=self.labels,
            decoder=self.config.decoder,
            new_head=True,
        )

    def rows(self, model: Any, examples: Sequence[TokenExample]) -> TaskRows:
        assert self.labels is not None
        return token_rows(model.tokenizer, examples, model.max_length, self.labels, self.config.scheme)

    def evaluate(self, model: Any, examples: Sequence[TokenExample]) -> dict[str, float]:
        found = model.tag_words([example.tokens for example in examples])
        as_bio = [tags_of(spans_of(tags), len(tags)) for tags in found]
        gold = [tags_of(spans_of(example.tags), len(example.tags)) for example in examples]
        return task_metrics.entity_metrics(gold, as_bio)

    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        return baselines.entity_baselines(train, test)

    def mistakes(self, model: Any, examples: Sequence[TokenExample]) -> tuple[list[str], list[list[str]]]:
        some, lines = examples[: 20 * SHOWN], []
        for example, tags in zip(some, model.tag_words([e.tokens for e in some]), strict=True):
            gold, found = set(spans_of(example.tags)), set(spans_of(tags))
            if gold != found:
                missed, extra = (", ".join(_shown(example.tokens, part)) for part in (gold - found, found - gold))
                lines.append([" ".join(example.tokens), missed, extra])
        return ["sentence", "not found", "found, but not so labelled"], lines[:SHOWN]


class QuestionAnswering(Task):
    """Spans that answer questions."""

    model_class = BertQuestionAnswerer
    main = "f1"

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        super().__init__(config, train)
        self.some_without = any(not example.answers for example in train)

    def model(self) -> PresetModel:
        threshold = 0.0 if self.some_without else None
        return self._load(overlap=self.config.overlap, no_answer_threshold=threshold, new_head=True)

    def rows(self, model: Any, examples: Sequence[QuestionExample]) -> TaskRows:
        return question_rows(model.tokenizer, examples, model.max_length, model.overlap)

    def evaluate(self, model: Any, examples: Sequence[QuestionExample]) -> dict[str, float]:
        answers = model.answer([example.question for example in examples], [example.context for example in examples])
        figures = task_metrics.answer_metrics(examples, [found[0].text for found in answers])
        if self.some_without:
            right = [
                bool(found[0].text) == bool(example.answers) for found, example in zip(answers, examples, strict=True)
            ]
            figures["answerable_accuracy"] = float(np.mean(right))
        return figures

    def tune(self, model: Any, dev: Sequence[QuestionExample]) -> dict[str, Any]:
        if not self.some_without:
            return {}
        differences, gains = [], []
        scored = model.scores_with_none([example.question for example in dev], [example.context for example in dev])
        for example, (answer, difference) in zip(dev, scored, strict=True):
            span, none = (task_metrics.answer_metrics([example], [text])["f1"] for text in (answer, ""))
            differences.append(difference)
            gains.append(none - span)
        model.no_answer_threshold = task_metrics.best_no_answer_threshold(np.array(differences), np.array(gains))
        return {"no_answer_threshold": model.no_answer_threshold}

    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        return baselines.answer_baselines(test)

    def mistakes(self, model: Any, examples: Sequence[QuestionExample]) -> tuple[list[str], list[list[str]]]:
        some = examples[: 20 * SHOWN]
        answers = model.answer([example.question for example in some], [example.context for example in some])
        lines = [
            [example.question, " / ".join(sorted({answer.text for answer in example.answers})), found[0].text]
            for example, found in zip(some, answers, strict=True)
            if task_metrics.answer_metrics([example], [found[0].text])["f1"] == 0
        ]
        return ["question", "answers", "said"], lines[:SHOWN]


def _shown(tokens: Sequence[str], spans: set[Span]) -> list[str]:
    return [f"{' '.join(tokens[start:end])} ({type})" for start, end, type in sorted(spans)]
