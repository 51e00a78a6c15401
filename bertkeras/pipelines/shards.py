"""Rows as bytes, and the files that hold them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.files import atomic_path
from bertkeras.pipelines.sentence_pairs import RowOptions


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file."""

    file: str
    rows: int
    size: int  # bytes


def has_word_boundaries(rows: dict[str, Any]) -> bool:
    """Whether the rows that `make_rows` gave carry a segmenter's word boundaries."""
    return rows["continues_word"].shape[1] > 0


def count_tokens(rows: dict[str, Any], options: RowOptions) -> int:
    """Pieces in the rows that `make_rows` gave, special ones included, padding not."""
    return int((np.asarray(rows["token_ids"]) != options.pad_id).sum())


def serialised_rows(rows: dict[str, Any], options: RowOptions) -> list[bytes]:
    """The rows that `make_rows` gave as `tf.train.Example`; the same rows give the same bytes in every process."""
    import tensorflow as tf

    ids = np.asarray(rows["token_ids"])
    is_token = ids != options.pad_id
    ends = options.max_sequence_length - np.argmax(is_token[:, ::-1], axis=1)

    def messages(kind: str, sizes: Any = 1, **fields: Any) -> Any:
        """A message of each row `(rows, 1)`; a field is `(rows, most values)`, and `sizes` counts the values."""
        sizes = np.broadcast_to(np.asarray(sizes).reshape(-1, 1), (len(ids), len(fields)))
        return tf.io.encode_proto(sizes, list(fields.values()), list(fields), f"tensorflow.{kind}")[:, None]

    def entry(name: str, feature: Any) -> Any:
        return messages("Features.FeatureEntry", key=tf.fill([len(ids), 1], name), value=feature)

    def integers(values: Any, sizes: Any = 1) -> Any:
        return messages("Feature", int64_list=messages("Int64List", sizes, value=tf.cast(values, tf.int64)))

    entries = [
        entry("label", integers(rows["label"][:, None])),
        entry("second_start", integers(rows["second_start"][:, None])),
        entry("token_ids", integers(ids, ends)),
    ]
    if has_word_boundaries(rows):
        flags = [row.tobytes() for row in np.asarray(rows["continues_word"]).astype("uint8")]
        value = messages("BytesList", value=tf.reshape(tf.constant(flags, tf.string), [-1, 1]))
        entries.insert(0, entry("continues_word", messages("Feature", bytes_list=value)))
    # The names ascend, as in a map that Protocol Buffers serialise deterministically.
    features = messages("Features", len(entries), feature=tf.concat(entries, axis=1))
    return messages("Example", features=features)[:, 0].numpy().tolist()


def write_shard(folder: Path, number: int, rows: Sequence[bytes]) -> Shard:
    """Write a file of serialised rows: whole under its name, or not there.

    Raises:
        BertKerasError: The folder cannot be written to.
    """
    import tensorflow as tf

    path = folder / f"rows-{number:05d}.tfrecord"
    try:
        with atomic_path(path) as temporary, tf.io.TFRecordWriter(os.fspath(temporary)) as writer:
            for row in rows:
                writer.write(row)
    except tf.errors.OpError as error:
        raise BertKerasError(f"cannot write {path}: {error}") from error
    return Shard(path.name, len(rows), path.stat().st_size)
