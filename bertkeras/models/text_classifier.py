"""BERT that sorts texts into classes, or gives them a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bertkeras.config import TEXT_TASKS, BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.layers.common import bert_initializer
from bertkeras.layers.dense import Dense
from bertkeras.layers.dropout import Dropout
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.models.running import as_list, checked_max_length, needed_tokenizer, outputs_of
from bertkeras.text.wordpiece import WordPieceTokenizer


@dataclass(frozen=True)
class Classification:
    """What a classifier says of a text.

    Args:
        labels: The class, or with several labels those above their thresholds; none for regression.
        probabilities: Of every class, in [0, 1]; none for regression.
        values: The numbers of a regression, one for each output.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]
    values: tuple[float, ...] = ()


@keras.saving.register_keras_serializable(package="bertkeras")
class BertTextClassifier(PresetModel):
    """`BertBackbone`, dropout, and a linear layer on the pooled `[CLS]` vector (Devlin et al. 2019, section 4.1).

    With `compile(optimizer)` and no loss, `fit` learns by the loss of the task.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        num_classes: Number of outputs.
        labels: Names of the classes, in order.
        task: `"single_label"` (labels `(batch,)` integers, cross-entropy), `"multi_label"` (labels
            `(batch, num_classes)` of 0 and 1, binary cross-entropy) or `"regression"` (labels `(batch, num_classes)`,
            squared error).
        head_dropout: Dropout before the linear layer; `None` takes that of `config`.
        max_length: `classify` cuts longer texts to so many pieces; `None` takes all that the model can read.
        temperature: Divides the logits before they become probabilities (Guo et al. 2017).
        thresholds: With several labels, the probability from which each one holds; 0.5 by default.
        tokenizer: Turns strings into ids; `classify` needs it.

    Call arguments:
        inputs: As for `BertBackbone`; a pair of texts is one row with two segments.
        training: Whether dropout is on.

    Returns:
        Logits, or for regression the numbers, `(batch, num_classes)`.
    """

    preset_options: ClassVar[tuple[str, ...]] = (
        "num_classes",
        "labels",
        "task",
        "head_dropout",
        "max_length",
        "temperature",
        "thresholds",
    )
    new_parts: ClassVar[tuple[str, ...]] = ("classifier/", "backbone/pooler/")

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        num_classes: int,
        labels: Sequence[str] | None = None,
        task: str = "single_label",
        head_dropout: float | None = None,
        max_length: int | None = None,
        temperature: float = 1.0,
        thresholds: Sequence[float] | None = None,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        if task not in TEXT_TASKS:
            raise BertKerasError(f"task must be one of {', '.join(TEXT_TASKS)}, got {task!r}")
        if temperature <= 0:
            raise BertKerasError(f"temperature must be above 0, got {temperature}")
        if thresholds is not None and (task != "multi_label" or len(thresholds) != num_classes):
            raise BertKerasError(f"thresholds are for multi_label, {num_classes} of them; got {list(thresholds)!r}")
        self.num_classes, self.labels = num_classes, checked_labels(labels, num_classes)
        self.task = task
        self.head_dropout = head_dropout
        self.max_length = checked_max_length(max_length, self.config.max_sequence_length)
        self.temperature = temperature
        self.thresholds = None if thresholds is None else [float(threshold) for threshold in thresholds]
        self.backbone = BertBackbone(self.config, dtype=self.dtype_policy, name="backbone")
        self.dropout, self.classifier = classifier_head(self.config, num_classes, head_dropout, self.dtype_policy)
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.classifier.build((None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        only_first = inputs["token_ids"][:, :0]  # no further position: the last block computes [CLS] alone
        encoded = self.backbone(inputs, output_positions=only_first, training=training)
        return self.classifier(self.dropout(encoded["pooled_output"], training=training))

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (input_shape["token_ids"][0], self.num_classes)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        logits = ops.cast(y_pred, "float32")
        if self.task == "single_label":
            return weighted_mean(cross_entropy(ops.reshape(y, (-1,)), logits), sample_weight)
        targets = ops.reshape(ops.cast(y, "float32"), ops.shape(logits))
        # of several labels: -log sigmoid of the logit, or of its negative, without overflow
        several = self.task == "multi_label"
        losses = ops.softplus(logits) - logits * targets if several else ops.square(logits - targets)
        return weighted_mean(ops.mean(losses, axis=-1), sample_weight)

    def logits_of(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """The model's outputs for texts, or pairs of texts, `(texts, num_classes)` float32, in their order."""
        tokenizer = needed_tokenizer(self.tokenizer, "classify")
        limit = self.max_length or self.config.max_sequence_length
        second = None if pairs is None else as_list(pairs)
        encodings = tokenizer.encode_batch(as_list(texts), second, max_length=limit)
        rows = [(encoding.ids, encoding.segment_ids) for encoding in encodings]
        found = outputs_of(self, rows, tokenizer.pad_id, batch_size)
        return np.stack(found) if found else np.zeros((0, self.num_classes), "float32")

    def classify(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None, batch_size: int = 32
    ) -> list[Classification]:
        """What the model says of each text, or of each pair of texts.

        Raises:
            BertKerasError: No tokenizer, no strings, or not as many pairs as texts.
        """
        return self.classifications(self.logits_of(texts, pairs, batch_size))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of logits, of the same shape; in float64, so that those of a row sum to 1."""
        scaled = logits.astype("float64") / self.temperature
        if self.task == "multi_label":
            return 1 / (1 + np.exp(-np.clip(scaled, -700, 700)))
        powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    def classifications(self, logits: np.ndarray) -> list[Classification]:
        """The decisions that belong to logits `(texts, num_classes)`."""
        if self.task == "regression":
            return [Classification((), {}, tuple(map(float, row))) for row in logits]
        names = self.labels or [str(index) for index in range(self.num_classes)]
        probabilities = self.probabilities(logits)
        if self.task == "multi_label":
            chosen = probabilities >= np.array(self.thresholds or [0.5] * self.num_classes)
        else:
            chosen = np.arange(self.num_classes) == probabilities.argmax(axis=-1)[:, None]
        return [
            Classification(
                tuple(name for name, is_chosen in zip(names, row_chosen, strict=True) if is_chosen),
                dict(zip(names, map(float, row), strict=True)),
            )
            for row, row_chosen in zip(probabilities, chosen, strict=True)
        ]


def classifier_head(
    config: BertConfig, num_classes: int, head_dropout: float | None, dtype: Any, initializer: Any = None
) -> tuple[Dropout, Dense]:
    """Dropout and the linear layer that scores classes."""
    rate = config.dropout if head_dropout is None else head_dropout
    kernel = initializer or bert_initializer(config.initializer_range)
    return (
        Dropout(rate, dtype=dtype, name="head_dropout"),
        Dense(num_classes, kernel_initializer=kernel, dtype=dtype, name="classifier"),
    )


def checked_labels(labels: Sequence[str] | None, num_classes: int) -> list[str] | None:
    """Names of classes: as many as there are, and no two alike."""
    if not isinstance(num_classes, int) or num_classes < 1:
        raise BertKerasError(f"num_classes must be a positive integer, got {num_classes!r}")
    if labels is not None and (len(labels) != num_classes or len(set(labels)) != num_classes):
        raise BertKerasError(f"labels must be {num_classes} different names, got {list(labels)!r}")
    return None if labels is None else list(labels)
