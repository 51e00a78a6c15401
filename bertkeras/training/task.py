"""What a task is to fine-tuning: a model, rows, figures, decisions to tune, cheap baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.models.base import PresetModel
from bertkeras.pipelines.tasks import TaskRows
from bertkeras.training.finetune_config import FinetuneConfig

SHOWN = 12  # mistakes in a report


class Task(ABC):
    """One task with its data at hand.

    Args:
        config: All options.
        train: The examples to learn from.
        labels: The names of their labels, and of some that they lack; by default theirs.

    Attributes:
        model_class: The class of its models.
        main: The figure on development data that chooses the best epoch; larger is better.
        labels: What the model tells apart, in order; `None` where it gives numbers or spans.
        together: Rows that must share a batch.
    """

    model_class: ClassVar[type[PresetModel]]
    main: ClassVar[str] = ""
    together: ClassVar[int] = 1
    labels: list[str] | None = None

    def __init__(self, config: FinetuneConfig, train: Sequence[Any], labels: Sequence[str] | None = None) -> None:
        self.config = config

    @abstractmethod
    def model(self) -> PresetModel:
        """A model with the pretrained weights and a new head."""

    @abstractmethod
    def rows(self, model: Any, examples: Sequence[Any]) -> TaskRows:
        """What the model learns from."""

    @abstractmethod
    def evaluate(self, model: Any, examples: Sequence[Any]) -> dict[str, float]:
        """Figures on examples."""

    def tune(self, model: Any, dev: Sequence[Any]) -> dict[str, Any]:
        """Fit on development data what training does not: thresholds, temperature; what was found, by name."""
        return {}

    @abstractmethod
    def baselines(self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
        """Figures of cheap methods, as `majority_...` and `baseline_...`."""

    def weights(self, rows: TaskRows) -> np.ndarray | None:
        """How much each row weighs in the loss, `(rows,)`; `None`: all alike."""
        return None

    @abstractmethod
    def mistakes(self, model: Any, examples: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
        """The heads of a table and up to `SHOWN` lines of it: what the model got wrong."""

    def _load(self, **options: Any) -> Any:
        """The model, which cuts texts at the length that it is trained with."""
        if self.config.head_dropout is not None and "head_dropout" in self.model_class.preset_options:
            options["head_dropout"] = self.config.head_dropout
        model: Any = self.model_class.from_preset(self.config.model, **options)
        if model.tokenizer is None:
            raise BertKerasError(f"{self.config.model} holds no tokenizer; add its vocab.txt or tokenizer.json")
        model.max_length = self.config.row_length(model.config.max_sequence_length)
        return model
