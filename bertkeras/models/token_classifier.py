"""BERT that gives every piece of a text a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.models.text_classifier import checked_labels, classifier_head
from bertkeras.text.wordpiece import WordPieceTokenizer


@keras.saving.register_keras_serializable(package="bertkeras")
class BertTokenClassifier(PresetModel):
    """`BertBackbone`, dropout, and a linear layer at every position (Devlin et al. 2019, section 5.3).

    With `compile(optimizer)` and no loss, `fit` learns by cross-entropy from labels `(batch, length)`; a negative
    label does not count, such as at padding and at the later pieces of a word.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        num_classes: Number of classes.
        labels: Their names, in order.
        head_dropout: Dropout before the linear layer; `None` takes that of `config`.
        tokenizer: Kept with the model in presets.

    Call arguments:
        inputs: As for `BertBackbone`.
        training: Whether dropout is on.

    Returns:
        Logits, `(batch, length, num_classes)`.
    """

    preset_options: ClassVar[tuple[str, ...]] = ("num_classes", "labels", "head_dropout")
    new_parts: ClassVar[tuple[str, ...]] = ("classifier/",)

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        num_classes: int,
        labels: Sequence[str] | None = None,
        head_dropout: float | None = None,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        self.num_classes, self.labels = num_classes, checked_labels(labels, num_classes)
        self.head_dropout = head_dropout
        self.backbone = BertBackbone(self.config, with_pooler=False, dtype=self.dtype_policy, name="backbone")
        self.dropout, self.classifier = classifier_head(self.config, num_classes, head_dropout, self.dtype_policy)
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.classifier.build((None, None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        encoded = self.backbone(inputs, training=training)["sequence_output"]  # (batch, length, hidden_dim)
        return self.classifier(self.dropout(encoded, training=training))

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape["token_ids"], self.num_classes)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        weights = ops.cast(y >= 0, "float32")  # (batch, length)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            weights = weights * (sample_weight if len(sample_weight.shape) == 2 else sample_weight[:, None])
        return weighted_mean(cross_entropy(ops.maximum(y, 0), y_pred), weights)
