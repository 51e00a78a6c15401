"""Rows for pretraining out of tokenised documents: sentence pairs, or single segments."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.pipelines.packing import packed_rows
from bertkeras.pipelines.row_random import row_uniform

PAIR_KINDS = ("nsp", "sop", "none", "packed")


class DocumentBlock(NamedTuple):
    """Some documents, flat: every array counts in tokens from the block's beginning.

    Attributes:
        tokens: `(tokens,)` int32 ids without special pieces.
        continues_word: `(tokens,)` bool, or empty when the vocabulary tells the word boundaries.
        sentence_starts: `(sentences,)` int64, ascending.
        document_starts: `(documents,)` int64, ascending; each is also a sentence start.
    """

    tokens: np.ndarray
    continues_word: np.ndarray
    sentence_starts: np.ndarray
    document_starts: np.ndarray


@dataclasses.dataclass(frozen=True)
class RowOptions:
    """How documents become rows.

    Args:
        max_sequence_length: Pieces in a row, special ones included.
        pairs: `"nsp"`: half the rows hold A and the text that follows it (label 0), half A and an equally long text
            from another document (label 1). `"sop"`: two halves of whole sentences, in order (0) or swapped (1).
            `"none"`: one segment. `"packed"`: several documents in a row, which do not see each other.
        short_row_probability: Share of the pairs cut to a random length, so that the model sees short ones too.
        cls_id, sep_id, pad_id: The special pieces.
        seed: Of every random choice.
    """

    max_sequence_length: int
    pairs: str = "nsp"
    short_row_probability: float = 0.1
    cls_id: int = 2
    sep_id: int = 3
    pad_id: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs not in PAIR_KINDS:
            raise BertKerasError(f"pairs must be one of {', '.join(PAIR_KINDS)}, got {self.pairs!r}")
        if self.max_sequence_length < 8:
            raise BertKerasError(f"max_sequence_length must be at least 8, got {self.max_sequence_length}")
        if not 0 <= self.short_row_probability <= 1:
            raise BertKerasError(f"short_row_probability must be in [0, 1], got {self.short_row_probability!r}")

    @property
    def has_labels(self) -> bool:
        return self.pairs in ("nsp", "sop")


def make_rows(block: DocumentBlock, options: RowOptions, block_number: Any, pass_number: Any) -> dict[str, Any]:
    """Cut a block of documents into rows, in graph, all rows at once.

    Every document is tiled by windows of `max_sequence_length - 3` tokens (2 with one segment), beginning at a random
    phase that changes with `pass_number`, so that passes see other rows and no token of a pair-able window is lost. A
    window is split into A and B at a sentence boundary drawn from those inside it. For next-sentence pairs the label
    is drawn after a replacement for B is found that is *exactly as long* as B: neither the length of the row nor its
    padding tells the label. A window with no boundary inside, or for which no other document is long enough, makes no
    pair under either label. For sentence order the sentences that the window's ends cut are left out: a sentence that
    begins or ends in its middle would tell which half stood outside.

    Args:
        block: The documents.
        options: How to cut.
        block_number: int64 scalar, the block's place in the corpus: a key of the random choices.
        pass_number: int64 scalar, which pass over the corpus this is: another key.

    Returns:
        `token_ids` `(rows, length)` int32; `second_start` `(rows,)` int32, the first position of segment 1;
        `label` `(rows,)` int32; `continues_word` `(rows, length)` bool or `(rows, 0)`; `unpaired_tokens`, an int64
        scalar: tokens of the windows that made no pair, and of sentences left out.
    """
    import tensorflow as tf

    block = DocumentBlock(*(tf.convert_to_tensor(part) for part in block))
    stream = tf.cast(block_number, tf.int64) * 1_000_003 + tf.cast(pass_number, tf.int64)
    if options.pairs == "packed":
        return packed_rows(block, options, stream)

    special = 2 if options.pairs == "none" else 3
    start, end, document = _windows(block, options.max_sequence_length - special, stream, options.seed)
    rows = tf.range(tf.shape(start, out_type=tf.int64)[0]) + stream * 2**31
    total = tf.reduce_sum(end - start)
    if options.pairs == "none":
        empty = tf.zeros_like(start)
        return _assemble(
            block, options, [start, end - start, empty, empty], tf.zeros_like(start, tf.int32), total - total
        )

    draw = row_uniform(options.seed, "pair", rows, 4)
    size = tf.cast(end - start, tf.float32)
    keep = tf.where(draw[:, 2] < options.short_row_probability, (2 + draw[:, 3] * (size - 2)) / size, 1.0)
    if options.pairs == "sop":
        start, end = _whole_sentences(block, start, start + tf.cast(keep * size, tf.int64))
    split, found = _split_at_sentence(block, start, end, draw[:, 0])
    label = tf.cast(draw[:, 1] < 0.5, tf.int32)
    a_length, b_length = split - start, end - split
    if options.pairs == "nsp":
        other, other_found = _other_document(block, document, b_length, rows, options.seed)
        found &= other_found
        # Cut short pairs at their outer ends, so that what is left of A and B still touches.
        a_kept, b_kept = (
            tf.maximum(tf.cast(tf.round(keep * tf.cast(length, tf.float32)), tf.int64), 1)
            for length in (a_length, b_length)
        )
        spans = [split - a_kept, a_kept, tf.where(label == 1, other, split), b_kept]
    else:
        halves = [start, a_length, split, b_length]
        spans = [tf.where(label == 1, halves[(i + 2) % 4], halves[i]) for i in range(4)]
    unpaired = total - tf.reduce_sum(tf.where(found, end - start, 0))
    spans = [tf.boolean_mask(part, found) for part in spans]
    return _assemble(block, options, spans, tf.boolean_mask(label, found), unpaired)


def _document_ends(block: DocumentBlock) -> Any:
    import tensorflow as tf

    return tf.concat([block.document_starts[1:], [tf.shape(block.tokens, out_type=tf.int64)[0]]], 0)


def _windows(block: DocumentBlock, size: int, stream: Any, seed: int) -> tuple[Any, Any, Any]:
    """Tile each document: start and end of each window, and its document."""
    import tensorflow as tf

    starts, ends = block.document_starts, _document_ends(block)
    numbers = tf.range(tf.shape(starts, out_type=tf.int64)[0]) + stream * 2**31
    phase = tf.cast(row_uniform(seed, "phase", numbers, 1)[:, 0] * size, tf.int64)
    phase = tf.where(ends - starts <= size, tf.zeros_like(phase), phase)  # what fits in one window stays whole
    count = (ends - starts + phase + size - 1) // size
    document = tf.repeat(tf.range(tf.shape(starts)[0]), count)
    nth = tf.range(tf.reduce_sum(count)) - tf.repeat(tf.cumsum(count, exclusive=True), count)
    origin = tf.gather(starts - phase, document) + nth * size
    start = tf.maximum(origin, tf.gather(starts, document))
    end = tf.minimum(origin + size, tf.gather(ends, document))
    return start, end, document


def _whole_sentences(block: DocumentBlock, start: Any, end: Any) -> tuple[Any, Any]:
    """The windows without the sentences that they cut; without any where none is whole."""
    import tensorflow as tf

    bounds = tf.concat([block.sentence_starts, [tf.shape(block.tokens, out_type=tf.int64)[0]]], 0)
    start = tf.gather(bounds, tf.searchsorted(bounds, start))
    end = tf.gather(bounds, tf.searchsorted(bounds, end, side="right") - 1)
    return start, tf.maximum(start, end)


def _split_at_sentence(block: DocumentBlock, start: Any, end: Any, draw: Any) -> tuple[Any, Any]:
    """A sentence start strictly inside each window, and whether there is one."""
    import tensorflow as tf

    boundaries = block.sentence_starts
    first = tf.searchsorted(boundaries, start, side="right", out_type=tf.int64)
    count = tf.searchsorted(boundaries, end, side="left", out_type=tf.int64) - first
    chosen = first + tf.cast(draw * tf.cast(count, tf.float32), tf.int64)
    found = count > 0
    last = tf.shape(boundaries, out_type=tf.int64)[0] - 1
    return tf.where(found, tf.gather(boundaries, tf.minimum(chosen, last)), end), found


def _other_document(block: DocumentBlock, document: Any, length: Any, rows: Any, seed: int) -> tuple[Any, Any]:
    """A sentence start in another document with at least `length` tokens after it, and whether one was found.

    Of 8 draws from all sentence starts with so much text after them, the first in another document.
    """
    import tensorflow as tf

    ends = _document_ends(block)
    owner = tf.searchsorted(block.document_starts, block.sentence_starts, side="right") - 1
    rest = tf.gather(ends, owner) - block.sentence_starts  # tokens from here to the document's end
    by_rest = tf.argsort(rest, stable=True)
    long_enough_from = tf.searchsorted(tf.gather(rest, by_rest), length, side="left")
    eligible = tf.cast(tf.shape(by_rest)[0] - long_enough_from, tf.float32)
    draws = row_uniform(seed, "other", rows, 8)
    nth = long_enough_from[:, None] + tf.cast(draws * eligible[:, None], tf.int32)
    candidate = tf.gather(by_rest, tf.minimum(nth, tf.shape(by_rest)[0] - 1))  # (rows, 8) sentences
    good = (tf.gather(owner, candidate) != tf.cast(document, owner.dtype)[:, None]) & (eligible > 0)[:, None]
    chosen = tf.gather(candidate, tf.argmax(tf.cast(good, tf.int32), axis=1), batch_dims=1)
    return tf.gather(block.sentence_starts, chosen), tf.reduce_any(good, axis=1)


def _assemble(block: DocumentBlock, options: RowOptions, spans: Any, label: Any, unpaired: Any) -> dict[str, Any]:
    """Write `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` for all rows by arithmetic on positions."""
    import tensorflow as tf

    a_start, a_length, b_start, b_length = (tf.cast(part, tf.int64)[:, None] for part in spans)
    place = tf.range(options.max_sequence_length, dtype=tf.int64)[None]  # (1, length)
    second = a_length + 2
    paired = options.pairs != "none"
    last_sep = second + b_length if paired else a_length + 1
    in_a = (place >= 1) & (place <= a_length)
    in_b = (place >= second) & (place < second + b_length)
    source = tf.where(in_a, a_start + place - 1, tf.where(in_b, b_start + place - second, tf.zeros_like(place)))
    token_ids = tf.gather(block.tokens, source)
    is_sep = (place == a_length + 1) | (place == last_sep)
    token_ids = tf.where(in_a | in_b, token_ids, tf.where(is_sep, options.sep_id, options.pad_id))
    token_ids = tf.where(place == 0, options.cls_id, token_ids)
    if block.continues_word.shape[0] == 0:
        continues_word = tf.zeros([tf.shape(token_ids)[0], 0], tf.bool)
    else:
        continues_word = tf.gather(block.continues_word, source) & (in_a | in_b)
    second_start = second if paired else tf.fill(tf.shape(second), tf.constant(options.max_sequence_length, tf.int64))
    return {
        "token_ids": token_ids,
        "second_start": tf.cast(second_start[:, 0], tf.int32),
        "label": label,
        "continues_word": continues_word,
        "unpaired_tokens": unpaired,
    }
