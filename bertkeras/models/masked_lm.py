"""A trained BERT that fills blanks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.pretrainer import masked_lm_head
from bertkeras.text.encoding import padded
from bertkeras.text.wordpiece import WordPieceTokenizer


@dataclasses.dataclass(frozen=True)
class Filling:
    """One word piece for one blank, with its probability in [0, 1]."""

    token: str
    probability: float


@keras.saving.register_keras_serializable(package="bertkeras")
class BertMaskedLM(PresetModel):
    """`BertBackbone` with the masked-LM head.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        tokenizer: Turns strings into ids; `fill_mask` needs it.

    Call arguments:
        inputs: As for `BertBackbone`, and `mask_positions` `(batch, predictions)` integers.

    Returns:
        Logits, `(batch, predictions, vocabulary_size)`.
    """

    def __init__(
        self, config: BertConfig | dict[str, Any], tokenizer: WordPieceTokenizer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        self.backbone = BertBackbone(self.config, with_pooler=False, dtype=self.dtype_policy, name="backbone")
        self.mlm_head = masked_lm_head(self.config, self.dtype_policy)
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.mlm_head.build((None, None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        encoded = self.backbone(inputs, output_positions=inputs["mask_positions"], training=training)
        return self.mlm_head(encoded["sequence_output"], None, self.backbone.token_table)

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape["mask_positions"], self.config.vocabulary_size)

    def fill_mask(self, texts: str | Sequence[str], top_k: int = 5) -> list[list[list[Filling]]]:
        """The likeliest word pieces for every `[MASK]` of every text.

        Args:
            texts: One text or several, each with at least one `[MASK]`.
            top_k: How many pieces for each blank.

        Returns:
            For each text, for each blank from left to right, `top_k` `Filling`s, likeliest first.

        Raises:
            BertKerasError: No tokenizer, more pieces asked for than there are, a text without `[MASK]`, or one
                longer than the position table.
        """
        if self.tokenizer is None:
            raise BertKerasError("fill_mask needs a tokenizer: pass tokenizer=... or load a preset that holds one")
        if not 1 <= top_k <= self.tokenizer.vocabulary_size:
            raise BertKerasError(f"top_k must be between 1 and {self.tokenizer.vocabulary_size}, got {top_k}")
        texts = [texts] if isinstance(texts, str) else list(texts)
        encodings = [self.tokenizer.encode(text, special_tokens_in_text=True) for text in texts]
        blanks = [[i for i, piece in enumerate(e.ids) if piece == self.tokenizer.mask_id] for e in encodings]
        limit = self.config.max_sequence_length
        for text, encoding, places in zip(texts, encodings, blanks, strict=True):
            if not places:
                raise BertKerasError(f"no [MASK] in {text!r}; write [MASK] where a word is to be found")
            if len(encoding.ids) > limit:
                raise BertKerasError(
                    f"{len(encoding.ids)} pieces in {text[:40]!r}..., but the model reads at most {limit}; shorten it"
                )
        if not texts:
            return []
        token_ids, padding_mask = padded([encoding.ids for encoding in encodings], self.tokenizer.pad_id)
        predictions = max(len(places) for places in blanks)
        mask_positions = np.zeros((len(texts), predictions), "int32")
        for row, places in enumerate(blanks):
            mask_positions[row, : len(places)] = places
        logits = self(
            {"token_ids": token_ids, "padding_mask": padding_mask, "mask_positions": mask_positions}, training=False
        )
        logits = logits[..., : self.tokenizer.vocabulary_size]  # the table may have rows that are no piece
        probabilities = ops.convert_to_numpy(ops.softmax(ops.cast(logits, "float32"), axis=-1))
        best = np.argsort(-probabilities, axis=-1)[..., :top_k]
        return [
            [
                [
                    Filling(self.tokenizer.id_to_token(int(piece)), float(probabilities[row, blank, piece]))
                    for piece in best[row, blank]
                ]
                for blank in range(len(places))
            ]
            for row, places in enumerate(blanks)
        ]
