"""A source and a target put together into one row, from which to learn to write the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertkeras.text.encoding import Encoding
from bertkeras.text.wordpiece import WordPieceTokenizer


@dataclass(frozen=True, slots=True)
class TargetRow:
    """`[CLS] source [SEP] target [SEP]`.

    Args:
        encoding: The row; segment 0 is the source, segment 1 the target.
        positions: The places whose next piece is to be learnt: from the first `[SEP]` on.
        cut: Whether pieces were cut off.
    """

    encoding: Encoding
    positions: range
    cut: bool

    @property
    def labels(self) -> list[int]:
        """The piece after each of the positions."""
        return [self.encoding.ids[place + 1] for place in self.positions]


def target_rows(
    tokenizer: WordPieceTokenizer, sources: Sequence[str], targets: Sequence[str], max_length: int
) -> list[TargetRow]:
    """Rows of at most `max_length` pieces. Of a longer row the longer text is cut first; a target that was cut does not
    teach where to end.

    Raises:
        BertKerasError: Not as many targets as sources, or no room for text in `max_length`.
    """
    rows = []
    for number, whole in enumerate(tokenizer.encode_batch(sources, targets)):
        row = whole
        if len(whole) > max_length:
            row = tokenizer.encode(sources[number], targets[number], max_length=max_length)
        target_is_cut = sum(row.segment_ids) < sum(whole.segment_ids)
        first = row.segment_ids.index(1)
        rows.append(TargetRow(row, range(first - 1, len(row) - 1 - target_is_cut), len(row) < len(whole)))
    return rows
