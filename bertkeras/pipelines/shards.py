"""Rows as bytes, and the files that hold them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
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


def serialised_rows(rows: dict[str, Any], options: RowOptions) -> Iterator[bytes]:
    """The rows that `make_rows` gave as `tf.train.Example`; the same rows give the same bytes in every process."""
    import tensorflow as tf

    def integers(values: list[int]) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    columns = {name: np.asarray(rows[name]) for name in ("token_ids", "second_start", "label", "continues_word")}
    has_boundaries = has_word_boundaries(rows)
    is_token = columns["token_ids"] != options.pad_id
    ends = options.max_sequence_length - np.argmax(is_token[:, ::-1], axis=1)
    for row, end in enumerate(ends):
        features = {
            "token_ids": integers(columns["token_ids"][row, :end].tolist()),
            "second_start": integers([int(columns["second_start"][row])]),
            "label": integers([int(columns["label"][row])]),
        }
        if has_boundaries:
            flags = columns["continues_word"][row].astype("uint8").tobytes()
            features["continues_word"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[flags]))
        example = tf.train.Example(features=tf.train.Features(feature=features))
        yield example.SerializeToString(deterministic=True)  # a map's order is otherwise left open


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
