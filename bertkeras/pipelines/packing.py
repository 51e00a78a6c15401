"""Several documents in one row, without any seeing another (Krell et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertkeras.pipelines.row_random import row_uniform

if TYPE_CHECKING:
    from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions


def packed_rows(block: DocumentBlock, options: RowOptions, stream: Any) -> dict[str, Any]:
    """Lay the documents end to end, `[CLS] document [SEP]` each, and cut the line into rows.

    The first and the last place of a row are kept for the `[CLS]` and `[SEP]` that a cut makes necessary; where the cut
    falls between two documents they are padding. A phase drawn from `stream` moves the cuts from pass to pass.

    Returns:
        As `make_rows`; every sequence of a row begins with `[CLS]`, and padding may stand at either end.
    """
    import tensorflow as tf

    size = options.max_sequence_length - 2
    ends = tf.concat([block.document_starts[1:], [tf.shape(block.tokens, out_type=tf.int64)[0]]], 0)
    lengths = ends - block.document_starts
    line_ends = tf.cumsum(lengths + 2)
    line_starts = line_ends - lengths - 2
    phase = tf.cast(row_uniform(options.seed, "pack", tf.reshape(stream, [1]), 1)[0, 0] * size, tf.int64)
    total = line_ends[-1] + phase
    rows = (total + size - 1) // size

    place = tf.range(rows * size) - phase  # along the line; negative before it begins
    on_line = (place >= 0) & (place < line_ends[-1])
    document = tf.minimum(tf.searchsorted(line_ends, place, side="right"), tf.shape(line_ends)[0] - 1)
    inside = place - tf.gather(line_starts, document)
    is_cls = on_line & (inside == 0)
    is_sep = on_line & (inside == tf.gather(lengths, document) + 1)
    is_token = on_line & ~is_cls & ~is_sep
    source = tf.where(is_token, tf.gather(block.document_starts, document) + inside - 1, tf.zeros_like(place))
    ids = tf.where(is_token, tf.gather(block.tokens, source), options.pad_id)
    ids = tf.where(is_cls, options.cls_id, tf.where(is_sep, options.sep_id, ids))
    ids = tf.reshape(ids, [rows, size])

    # A cut may leave a lone [SEP] in front or a lone [CLS] at the back: padding.
    front, back = ids[:, :1], ids[:, -1:]
    front = tf.where(front == options.sep_id, options.pad_id, front)
    back = tf.where(back == options.cls_id, options.pad_id, back)
    ids = tf.concat([front, ids[:, 1:-1], back], 1)
    opened = (front == options.cls_id) | (front == options.pad_id)
    closed = (back == options.sep_id) | (back == options.pad_id)
    ids = tf.concat(
        [tf.where(opened, options.pad_id, options.cls_id), ids, tf.where(closed, options.pad_id, options.sep_id)], 1
    )
    if block.continues_word.shape[0] == 0:
        continues_word = tf.zeros([rows, 0], tf.bool)
    else:
        flags = tf.reshape(tf.gather(block.continues_word, source) & is_token, [rows, size])
        continues_word = tf.pad(flags, [[0, 0], [1, 1]])
    return {
        "token_ids": ids,
        "second_start": tf.fill([rows], options.max_sequence_length),
        "label": tf.zeros([rows], tf.int32),
        "continues_word": continues_word,
        "unpaired_tokens": tf.constant(0, tf.int64),
    }


def packed_features(token_ids: Any, cls_id: int, pad_id: int) -> dict[str, Any]:
    """What the model needs to keep the sequences of a row apart.

    Args:
        token_ids: `(batch, length)`, each sequence beginning with `[CLS]`.
        cls_id, pad_id: The special pieces.

    Returns:
        `sequence_ids` `(batch, length)`: 1, 2, ... along the row and 0 for padding; `position_ids`
        `(batch, length)`: 0, 1, ... in each sequence.
    """
    import tensorflow as tf

    length = token_ids.shape[1]
    sequence = tf.cumsum(tf.cast(token_ids == cls_id, tf.int32), axis=1)  # 0 .. length
    cell = sequence + tf.range(tf.shape(token_ids)[0])[:, None] * (length + 1)
    column = tf.broadcast_to(tf.range(length)[None], tf.shape(token_ids))
    first = tf.math.unsorted_segment_min(column, cell, tf.shape(token_ids)[0] * (length + 1))
    padding = token_ids == pad_id
    return {
        "sequence_ids": tf.where(padding, 0, sequence),
        "position_ids": tf.where(padding, 0, column - tf.gather(first, cell)),
    }
