"""BERT that turns a text into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.text.encoding import padded
from bertkeras.text.wordpiece import WordPieceTokenizer

POOLINGS = ("cls", "mean", "max")


@keras.saving.register_keras_serializable(package="bertkeras")
class BertTextEmbedder(PresetModel):
    """`BertBackbone`, and of its vectors one for the whole text (Reimers and Gurevych 2019).

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        pooling: `"mean"` or `"max"` over the pieces of the text, padding left out, or `"cls"`: the first vector.
        normalize: Whether vectors get length 1, so that their products are cosines.
        max_length: `embed` cuts longer texts to so many pieces; `None` takes all that the model can read.
        with_pooler: Whether a pooler is carried along, unused, so that a checkpoint that has one keeps it.
        tokenizer: Turns strings into ids; `embed` needs it.

    Call arguments:
        inputs: As for `BertBackbone`.
        training: Whether dropout is on.

    Returns:
        `(batch, hidden_dim)`.

    Reference: Sentence-BERT, https://arxiv.org/abs/1908.10084
    """

    preset_options: ClassVar[tuple[str, ...]] = ("pooling", "normalize", "max_length", "with_pooler")

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        pooling: str = "mean",
        normalize: bool = True,
        max_length: int | None = None,
        with_pooler: bool = False,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        if pooling not in POOLINGS:
            raise BertKerasError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        if max_length is not None and not 2 < max_length <= self.config.max_sequence_length:
            raise BertKerasError(
                f"max_length must be between 3 and {self.config.max_sequence_length}, got {max_length!r}"
            )
        self.pooling = pooling
        self.normalize = normalize
        self.max_length = max_length
        self.with_pooler = with_pooler
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
        is_token = padding_mask[..., None]  # (batch, length, 1)
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

    def embed(self, texts: str | Sequence[str], batch_size: int = 32) -> np.ndarray:
        """The vectors of texts, `(texts, hidden_dim)` float32, in their order.

        Raises:
            BertKerasError: No tokenizer, or no strings.
        """
        if self.tokenizer is None:
            raise BertKerasError("embed needs a tokenizer: pass tokenizer=... or load a preset that holds one")
        texts = [texts] if isinstance(texts, str) else list(texts)
        limit = self.max_length or self.config.max_sequence_length
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts, max_length=limit)]
        vectors = np.zeros((len(rows), self.config.hidden_dim), "float32")
        by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))  # little padding in each batch
        for begin in range(0, len(rows), batch_size):
            batch = by_length[begin : begin + batch_size]
            token_ids, padding_mask = padded([rows[index] for index in batch], self.tokenizer.pad_id)
            outputs = self({"token_ids": token_ids, "padding_mask": padding_mask}, training=False)
            vectors[batch] = ops.convert_to_numpy(ops.cast(outputs, "float32"))
        return vectors
