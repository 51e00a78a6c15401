"""BERT that turns a text into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bertkeras.config import OBJECTIVES, POOLINGS, BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.models.running import as_list, checked_max_length, needed_tokenizer, outputs_of
from bertkeras.text.wordpiece import WordPieceTokenizer


@keras.saving.register_keras_serializable(package="bertkeras")
class BertTextEmbedder(PresetModel):
    """`BertBackbone`, and of its vectors one for the whole text (Reimers and Gurevych 2019).

    With `compile(optimizer)` and no loss, `fit` learns from pairs of texts: rows 0 and 1 of a batch are a pair, rows 2
    and 3, and so on. With the objective `"contrastive"` every text must find its partner among those of the batch:
    cross-entropy over cosines times `scale`, in both directions (Henderson et al. 2017). With `"cosine"` the cosine of
    a pair shall be its label, `(batch,)`, the same for both of its rows: squared error.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        pooling: `"mean"` or `"max"` over the pieces of the text, padding left out, or `"cls"`: the first vector.
        normalize: Whether vectors get length 1, so that their products are cosines.
        max_length: `embed` cuts longer texts to so many pieces; `None` takes all that the model can read.
        with_pooler: Whether a pooler is carried along, unused, so that a checkpoint that has one keeps it.
        objective: `"contrastive"` or `"cosine"`: how pairs are learned from.
        scale: What cosines are multiplied with in the contrastive loss: 1 / temperature.
        tokenizer: Turns strings into ids; `embed` needs it.

    Call arguments:
        inputs: As for `BertBackbone`.
        training: Whether dropout is on.

    Returns:
        `(batch, hidden_dim)`.

    Reference: Sentence-BERT, https://arxiv.org/abs/1908.10084
    """

    preset_options: ClassVar[tuple[str, ...]] = (
        "pooling",
        "normalize",
        "max_length",
        "with_pooler",
        "objective",
        "scale",
    )

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        pooling: str = "mean",
        normalize: bool = True,
        max_length: int | None = None,
        with_pooler: bool = False,
        objective: str = "contrastive",
        scale: float = 20.0,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        if pooling not in POOLINGS:
            raise BertKerasError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        if objective not in OBJECTIVES:
            raise BertKerasError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
        if scale <= 0:
            raise BertKerasError(f"scale must be above 0, got {scale}")
        self.pooling = pooling
        self.normalize = normalize
        self.max_length = checked_max_length(max_length, self.config.max_sequence_length)
        self.with_pooler = with_pooler
        self.objective = objective
        self.scale = scale
        self.backbone = BertBackbone(self.config, with_pooler=with_pooler, dtype=self.dtype_policy, name="backbone")
        if self.backbone.pooler is not None:
            self.backbone.pooler.trainable = False
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        encoded = self.backbone(inputs, training=training)["sequence_output"]  # (batch, length, hidden_dim)
        padding_mask = inputs.get("padding_mask")
        if padding_mask is None:
            padding_mask = ops.ones_like(inputs["token_ids"], dtype="bool")
        is_token = ops.expand_dims(padding_mask, -1)  # (batch, length, 1)
        if self.pooling == "cls":
            pooled = encoded[:, 0]
        elif self.pooling == "max":
            pooled = ops.max(ops.where(is_token, encoded, ops.cast(-1e9, encoded.dtype)), axis=1)
        else:
            weights = ops.cast(is_token, encoded.dtype)
            pooled = ops.sum(encoded * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)
        return ops.normalize(pooled, axis=-1) if self.normalize else pooled

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (input_shape["token_ids"][0], self.config.hidden_dim)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        vectors = ops.normalize(ops.cast(y_pred, "float32"), axis=-1)
        vectors = ops.reshape(vectors, (-1, 2, self.config.hidden_dim))
        first, second = vectors[:, 0], vectors[:, 1]  # each (pairs, hidden_dim)
        weights = None if sample_weight is None else sample_weight[::2]
        if self.objective == "cosine":
            labels = ops.cast(ops.reshape(y, (-1, 2))[:, 0], "float32")
            return weighted_mean(ops.square(ops.sum(first * second, axis=-1) - labels), weights)
        cosines = ops.matmul(first, ops.transpose(second)) * self.scale  # (pairs, pairs)
        partner = ops.arange(ops.shape(cosines)[0])
        losses = cross_entropy(partner, cosines) + cross_entropy(partner, ops.transpose(cosines))
        return weighted_mean(losses / 2, weights)

    def embed(self, texts: str | Sequence[str], batch_size: int = 32) -> np.ndarray:
        """The vectors of texts, `(texts, hidden_dim)` float32, in their order.

        Raises:
            BertKerasError: No tokenizer, or no strings.
        """
        tokenizer = needed_tokenizer(self.tokenizer, "embed")
        limit = self.max_length or self.config.max_sequence_length
        encodings = tokenizer.encode_batch(as_list(texts), max_length=limit)
        vectors = outputs_of(self, [(encoding.ids, None) for encoding in encodings], tokenizer.pad_id, batch_size)
        return np.stack(vectors) if vectors else np.zeros((0, self.config.hidden_dim), "float32")
