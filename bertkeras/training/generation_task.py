"""The task of writing a text for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertkeras.datasets.examples import Answer, QuestionExample, TextExample
from bertkeras.models import BertSeq2Seq
from bertkeras.models.base import PresetModel
from bertkeras.pipelines.tasks import TaskRows, generation_rows
from bertkeras.training import baselines, task_metrics
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.task import SHOWN, Task


class Generation(Task):
    """The second text of each pair is written from the first; scored by the words that both have."""

    model_class = BertSeq2Seq
    main = "f1"

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        super().__init__(config, train)
        self.longest = max(len(example.pair or "") for example in train)

    def model(self) -> PresetModel:
        return self._load()

    def rows(self, model: Any, examples: Sequence[TextExample]) -> TaskRows:
        limit = self.config.row_length(model.config.max_sequence_length)
        return generation_rows(model.tokenizer, examples, limit)

    def written(self, model: Any, examples: Sequence[TextExample]) -> list[str]:
        """What the model writes, greedily, at most half as long as a row; of a source that is too long the end is not
        read."""
        limit = self.config.row_length(model.config.max_sequence_length)
        new = min(self.longest + 1, limit // 2)  # a piece has one character at least
        room = limit - new
        sources = []
        for example in examples:
            offsets = model.tokenizer.encode(example.text, max_length=room).offsets
            sources.append(example.text[: offsets[-2][1]])
        return model.generate(sources, max_new_tokens=new)

    def evaluate(self, model: Any, examples: Sequence[TextExample]) -> dict[str, float]:
        return task_metrics.answer_metrics(as_questions(examples), self.written(model, examples))

    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        return baselines.generation_baselines(train, as_questions(test))

    def mistakes(self, model: Any, examples: Sequence[TextExample]) -> tuple[list[str], list[list[str]]]:
        some = examples[: 5 * SHOWN]
        lines = [
            [example.text, example.pair or "", text]
            for example, text in zip(some, self.written(model, some), strict=True)
            if text != example.pair
        ]
        return ["source", "target", "written"], lines[:SHOWN]


def as_questions(examples: Sequence[TextExample]) -> list[QuestionExample]:
    """Sources as contexts and targets as answers, which are compared by their words in the same way."""
    return [QuestionExample("", "", example.text, (Answer(example.pair or "", 0),)) for example in examples]
