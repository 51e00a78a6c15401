"""A target read piece by piece: what the pieces before it computed is kept, not computed again."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from bertkeras.layers import MaskedLMHead, TransformerEncoderBlock
from bertkeras.layers.common import take_positions
from bertkeras.models.backbone import BertBackbone


class CachedReader:
    """Reads the sources once, then one piece of each target per call.

    No position sees a later one, or of the target anything but what stands before it, so that keys and values never
    change once they are computed. Their tensors have room for the whole target from the start: every call has the same
    shapes, and nothing is compiled twice.

    Args:
        backbone: The encoder.
        head: Scores the pieces at a position.
        token_ids: The sources, `(batch, source length)` integers.
        padding_mask: Of the same shape, `True` = a token, padding at the end.
        new_pieces: How many pieces of a target will be read.
    """

    def __init__(
        self,
        backbone: BertBackbone,
        head: MaskedLMHead,
        token_ids: np.ndarray,
        padding_mask: np.ndarray,
        new_pieces: int,
    ) -> None:
        self.backbone, self.head = backbone, head
        self.cache: list[Any] = [None] * len(backbone.encoder_blocks)
        self.next_position = padding_mask.sum(axis=1).astype("int32")  # (rows,)
        self.next_slot = token_ids.shape[1]
        self.visible = np.pad(padding_mask, ((0, 0), (0, new_pieces)))  # (rows, slots)
        x = backbone.embeddings(token_ids, training=False)  # (batch, source length, hidden_dim)
        x = self._through_blocks(x, padding_mask)
        self.cache = [
            tuple(ops.pad(part, ((0, 0), (0, 0), (0, new_pieces), (0, 0))) for part in pair) for pair in self.cache
        ]  # pairs of (rows, heads, slots, head_dim)
        self.logits = self._scores(take_positions(x, self.next_position[:, None] - 1))

    def step(self, pieces: np.ndarray, parents: np.ndarray) -> np.ndarray:
        """The logits after one more piece in each row.

        Args:
            pieces: `(rows,)` integers.
            parents: `(rows,)` integers: the row of the call before that each goes on with.

        Returns:
            `(rows, vocabulary_size)` float32.
        """
        if not np.array_equal(parents, np.arange(len(self.visible))):
            self.visible, self.next_position = self.visible[parents], self.next_position[parents]
            self.cache = [tuple(ops.take(part, parents, axis=0) for part in pair) for pair in self.cache]
        self.visible[:, self.next_slot] = True
        token_ids, position_ids = pieces[:, None], self.next_position[:, None]  # (rows, 1)
        x = self.backbone.embeddings(token_ids, np.ones_like(token_ids), position_ids, training=False)
        x = self._through_blocks(x, self.visible, position_ids)  # (rows, 1, hidden_dim)
        self.next_slot, self.next_position = self.next_slot + 1, self.next_position + 1
        return self._scores(x)

    def _through_blocks(self, x: Any, visible: np.ndarray, positions: Any = None) -> Any:
        mask = ops.convert_to_tensor(visible[:, None, None, :])  # (rows, 1, 1, slots)
        is_new = ops.convert_to_tensor(np.arange(visible.shape[1])[:, None] == self.next_slot)  # (slots, 1)
        for number, block in enumerate(self.backbone.encoder_blocks):
            x, self.cache[number] = cached_block(block, x, mask, self.cache[number], is_new, positions)
        return x if self.backbone.final_norm is None else self.backbone.final_norm(x)

    def _scores(self, x: Any) -> np.ndarray:
        logits = self.head(x, None, self.backbone.token_table)[:, 0]
        return ops.convert_to_numpy(ops.cast(logits, "float32"))


def cached_block(
    block: TransformerEncoderBlock,
    x: Any,
    mask: Any,
    kept: tuple[Any, Any] | None,
    is_new: Any,
    positions: Any = None,
) -> tuple[Any, tuple[Any, Any]]:
    """One encoder block at new positions, which see the kept keys and values too.

    Args:
        block: The block.
        x: `(rows, new, hidden_dim)`.
        mask: `(rows, 1, 1, slots)` booleans.
        kept: Keys and values, `(rows, heads, slots, head_dim)` each; `None` where the new positions are all there is.
        is_new: `(slots, 1)` booleans: the slot of the one new position.
        positions: `(rows, new)` integers: where the new ones stand in their texts, if not at 0, 1, 2, ...

    Returns:
        `(rows, new, hidden_dim)`, and the keys and values with those of the new positions among them.
    """
    attention = block.attention
    query, key, value = attention.project(block.attention_norm(x) if block.norm_first else x, positions)
    if kept is not None:
        key, value = (ops.where(is_new, new, old) for new, old in zip((key, value), kept, strict=True))
    attended, _ = attention.attend(query, key, value, mask)
    # without stop_gradient PyTorch would hold on to every step before
    return block.after_attention(x, attended), (ops.stop_gradient(key), ops.stop_gradient(value))
