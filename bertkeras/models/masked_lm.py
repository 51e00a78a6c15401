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
from bertkeras.models.running import as_list, needed_tokenizer
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
            For each text, for each blank from left to right, the `top_k` likeliest as `Filling`, likeliest first.

        Raises:
            BertKerasError: No tokenizer, more pieces asked for than there are, a text without `[MASK]`, or one
                longer than the position table.
        """
        tokenizer = needed_tokenizer(self.tokenizer, "fill_mask")
        if not 1 <= top_k <= tokenizer.vocabulary_size:
            raise BertKerasError(f"top_k must be between 1 and {tokenizer.vocabulary_size}, got {top_k}")
        texts = as_list(texts)
        if not texts:
            return []
        inputs, blanks = rows_with_blanks(texts, tokenizer, self.config.max_sequence_length)
        logits = self(inputs, training=False)
        logits = logits[..., : tokenizer.vocabulary_size]  # the table may have rows that are no piece
        probabilities = ops.convert_to_numpy(ops.softmax(ops.cast(logits, "float32"), axis=-1))
        best = np.argsort(-probabilities, axis=-1)[..., :top_k]
        return [
            [
                [
                    Filling(tokenizer.id_to_token(int(piece)), float(probabilities[row, blank, piece]))
                    for piece in best[row, blank]
                ]
                for blank in range(len(places))
            ]
            for row, places in enumerate(blanks)
        ]


def rows_with_blanks(
    texts: Sequence[str], tokenizer: WordPieceTokenizer, limit: int
) -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Texts in which `[MASK]` is a blank, as inputs of a `BertMaskedLM`, and the places of each text's blanks.

    Args:
        texts: At least one, each with at least one `[MASK]`.
        tokenizer: Turns them into ids.
        limit: How many pieces the model reads at most.

    Returns:
        `token_ids` and `padding_mask` `(texts, length)` and `mask_positions` `(texts, most blanks of a text)`, filled
        up with 0; and for each text the places of its blanks in the row.

    Raises:
        BertKerasError: A text without `[MASK]`, or one that is too long.
    """
    encodings = tokenizer.encode_batch(texts, special_tokens_in_text=True)
    blanks = [[i for i, piece in enumerate(e.ids) if piece == tokenizer.mask_id] for e in encodings]
    for text, encoding, places in zip(texts, encodings, blanks, strict=True):
        if not places:
            raise BertKerasError(f"no [MASK] in {text!r}; write [MASK] where a word is to be found")
        if len(encoding.ids) > limit:
            raise BertKerasError(
                f"{len(encoding.ids)} pieces in {text[:40]!r}..., but the model reads at most {limit}; shorten it"
            )
    token_ids, padding_mask = padded([encoding.ids for encoding in encodings], tokenizer.pad_id)
    mask_positions, _ = padded(blanks, 0)
    return {"token_ids": token_ids, "padding_mask": padding_mask, "mask_positions": mask_positions}, blanks
