"""BERT that marks the answer to a question in a text."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from bertkeras.config import BertConfig
from bertkeras.layers.common import bert_initializer
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.text.wordpiece import WordPieceTokenizer


@keras.saving.register_keras_serializable(package="bertkeras")
class BertQuestionAnswerer(PresetModel):
    """`BertBackbone` and two scores at every position: begin and end of the answer (Devlin et al. 2019, section 4.2).

    With `compile(optimizer)` and no loss, `fit` learns from `start_positions` and `end_positions`, both `(batch,)`
    integers, by the mean of two cross-entropies over the positions of the row.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        tokenizer: Kept with the model in presets.

    Call arguments:
        inputs: As for `BertBackbone`: the question is segment 0, the text segment 1.
        training: Whether dropout is on.

    Returns:
        Logits, `(batch, length, 2)`: begin and end.
    """

    new_parts: ClassVar[tuple[str, ...]] = ("span_head/",)

    def __init__(
        self, config: BertConfig | dict[str, Any], tokenizer: WordPieceTokenizer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        self.backbone = BertBackbone(self.config, with_pooler=False, dtype=self.dtype_policy, name="backbone")
        self.span_head = keras.layers.Dense(
            2,
            kernel_initializer=bert_initializer(self.config.initializer_range),
            dtype=self.dtype_policy,
            name="span_head",
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.span_head.build((None, None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        return self.span_head(self.backbone(inputs, training=training)["sequence_output"])

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape["token_ids"], 2)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        start = cross_entropy(y["start_positions"], y_pred[..., 0])
        end = cross_entropy(y["end_positions"], y_pred[..., 1])
        return weighted_mean((start + end) / 2, sample_weight)
