"""Word pieces put together into one row: special tokens, segments, truncation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertkeras.errors import BertKerasError

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text, or a pair of texts, as word pieces.

    Args:
        ids: Piece numbers.
        segment_ids: 0 for the first text, 1 for the second; `[CLS]` and the first `[SEP]` belong to the first.
        offsets: For every piece its span `(start, end)` of characters in the text it came from, so that
            `text[start:end]` is what the piece stands for; `(0, 0)` for added special tokens.
        tokens: The pieces themselves.
    """

    ids: list[int]
    segment_ids: list[int]
    offsets: list[tuple[int, int]]
    tokens: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def _extend(self, ids: list[int], segment: int, offsets: list[tuple[int, int]], tokens: list[str]) -> None:
        self.ids.extend(ids)
        self.segment_ids.extend([segment] * len(ids))
        self.offsets.extend(offsets)
        self.tokens.extend(tokens)


def assemble(
    parts: Sequence[tokenizers.Encoding], max_length: int | None, special_ids: tuple[int, int] | None
) -> Encoding:
    """`[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`, no longer than `max_length`.

    Args:
        parts: One text or two, already cut into pieces.
        max_length: Most tokens to keep, special tokens included; `None` keeps all.
        special_ids: Ids of `[CLS]` and `[SEP]`; `None` leaves them out.
    """
    lengths = [len(part) for part in parts]
    if max_length is not None:
        num_special = 1 + len(parts) if special_ids else 0
        if max_length <= num_special:
            raise BertKerasError(f"max_length={max_length} leaves no room for text; use {num_special + 1} or more")
        lengths = truncated_lengths(lengths, max_length - num_special)

    row = Encoding([], [], [], [])
    if special_ids:
        row._extend([special_ids[0]], 0, [(0, 0)], ["[CLS]"])
    for segment, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        row._extend(part.ids[:length], segment, part.offsets[:length], part.tokens[:length])
        if special_ids:
            row._extend([special_ids[1]], segment, [(0, 0)], ["[SEP]"])
    return row


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids filled up: `token_ids` int32 and `padding_mask`, `True` = a token, both `(rows, longest)`."""
    sizes = np.array([len(row) for row in rows])
    padding_mask = np.arange(sizes.max(initial=0)) < sizes[:, None]
    token_ids = np.full(padding_mask.shape, pad_id, "int32")
    token_ids[padding_mask] = [index for row in rows for index in row]
    return token_ids, padding_mask


def truncated_lengths(lengths: list[int], room: int) -> list[int]:
    """How much of one text or two to keep: the longer is cut until both fit."""
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    # An odd token goes to the longer text, and to the second of two equal ones, as in Hugging Face `tokenizers`.
    short = min(*lengths, room // 2)
    return [short, room - short] if lengths[0] <= lengths[1] else [room - short, short]
