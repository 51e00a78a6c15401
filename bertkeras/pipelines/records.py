"""Rows on disk: sharded TFRecord files and an index, read back in an order that can be entered anywhere."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.files import write_text
from bertkeras.pipelines.sentence_pairs import RowOptions

INDEX_FILE, FORMAT_VERSION = "index.json", 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file."""

    file: str
    rows: int
    size: int  # bytes


@dataclasses.dataclass(frozen=True)
class Records:
    """The index of a folder of records.

    Attributes:
        folder: Where the shards lie.
        options: How the rows were made.
        tokenizer: Fingerprint of the tokenizer that made them.
        has_word_boundaries: Whether the rows carry a segmenter's word boundaries.
        tokens: Pieces in all rows, special ones included, padding not.
        shards: The files, in the order they were written.
    """

    folder: Path
    options: RowOptions
    tokenizer: str
    has_word_boundaries: bool
    tokens: int
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Records:
        """Read the index and check that every shard is there and whole.

        Raises:
            BertKerasError: No index, a newer format, or a shard that is missing or has another size.
        """
        folder = Path(folder)
        path = folder / INDEX_FILE
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            if index["format_version"] > FORMAT_VERSION:
                raise BertKerasError(f"{path}: written by a newer bertkeras; upgrade to read it")
            shards = tuple(Shard(**shard) for shard in index["shards"])
            options = RowOptions(**index["options"])
            records = cls(folder, options, index["tokenizer"], index["has_word_boundaries"], index["tokens"], shards)
        except FileNotFoundError as error:
            raise BertKerasError(
                f"{folder} holds no records: no {INDEX_FILE}; make them with bertkeras prepare"
            ) from error
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise BertKerasError(
                f"{path} is damaged ({error}); make the records again with bertkeras prepare"
            ) from error
        for shard in shards:
            file = folder / shard.file
            size = file.stat().st_size if file.is_file() else None
            if size != shard.size:
                found = "is missing" if size is None else f"has {size} bytes, not {shard.size}"
                raise BertKerasError(f"{file} {found}; make the records again with bertkeras prepare")
        return records

    def stream(self, seed: int | None = 0, start_row: int = 0, window_rows: int = 2**18, repeat: bool = True) -> Any:
        """Serialised rows from `start_row` of the endless stream on.

        Every epoch the shards are put in a new order and grouped into windows of about `window_rows`; a window is read
        whole and its rows permuted. All orders are functions of `seed` and the epoch, and the index gives every
        window's size, so any row of any epoch is reached by reading one window.

        Args:
            seed: Of the orders; `None` keeps the order of the files.
            start_row: Where to begin, counted over all epochs.
            window_rows: Rows held in memory, at least a shard.
            repeat: Whether the stream goes on after one epoch.

        Returns:
            A `tf.data.Dataset` of scalar strings.
        """
        import tensorflow as tf

        def windows() -> Iterator[tuple[list[str], int, int]]:
            for epoch, number, shards, first in self._windows(seed, window_rows, start_row, repeat):
                files = [os.fspath(self.folder / shard.file) for shard in shards]
                key = 0 if seed is None else int(np.random.default_rng([seed, epoch, number]).integers(2**31))
                yield files, key, first

        def rows_of(files: Any, key: Any, first: Any) -> Any:
            rows = tf.data.TFRecordDataset(files).batch(2**31 - 1).get_single_element()
            if seed is not None:
                rows = tf.random.experimental.stateless_shuffle(rows, seed=[key, 0])
            return tf.data.Dataset.from_tensor_slices(rows[first:])

        signature = (tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32))
        return tf.data.Dataset.from_generator(windows, output_signature=signature).flat_map(rows_of)

    def _windows(
        self, seed: int | None, window_rows: int, start_row: int, repeat: bool
    ) -> Iterator[tuple[int, int, list[Shard], int]]:
        """Epoch, place in the epoch, shards and first row of each window from `start_row` on."""
        epoch, skip = divmod(start_row, self.rows) if repeat else (0, start_row)
        while True:
            order = np.arange(len(self.shards))
            if seed is not None:
                order = np.random.default_rng([seed, epoch]).permutation(order)
            window: list[Shard] = []
            number = 0
            for place, shard_number in enumerate(order):
                window.append(self.shards[shard_number])
                rows = sum(shard.rows for shard in window)
                last = place == len(order) - 1
                if not last and rows + self.shards[order[place + 1]].rows <= window_rows:
                    continue
                if skip < rows:
                    yield epoch, number, window, skip
                skip = max(0, skip - rows)
                window, number = [], number + 1
            if not repeat:
                return
            epoch += 1

    def parse(self, serialised: Any) -> dict[str, Any]:
        """`(batch,)` strings to padded batches: the dictionary that `make_rows` gave."""
        import tensorflow as tf

        length = self.options.max_sequence_length
        spec: dict[str, Any] = {
            "token_ids": tf.io.FixedLenSequenceFeature(
                [], tf.int64, allow_missing=True, default_value=self.options.pad_id
            ),
            "second_start": tf.io.FixedLenFeature([], tf.int64),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }
        if self.has_word_boundaries:
            spec["continues_word"] = tf.io.FixedLenFeature([], tf.string)
        parsed = tf.io.parse_example(serialised, spec)
        token_ids = tf.cast(parsed["token_ids"], tf.int32)
        missing = length - tf.shape(token_ids)[1]
        token_ids = tf.pad(token_ids, [[0, 0], [0, missing]], constant_values=self.options.pad_id)
        row = {
            "token_ids": tf.ensure_shape(token_ids, [None, length]),
            "second_start": tf.cast(parsed["second_start"], tf.int32),
            "label": tf.cast(parsed["label"], tf.int32),
        }
        if self.has_word_boundaries:
            flags = tf.io.decode_raw(parsed["continues_word"], tf.uint8, fixed_length=length)
            row["continues_word"] = tf.ensure_shape(tf.cast(flags, tf.bool), [None, length])
        return row


class RecordWriter:
    """Writes rows into shards; the index comes last, so a folder with an index is whole.

    Args:
        folder: An empty or missing folder.
        options: How the rows were made.
        tokenizer: Fingerprint of the tokenizer.
        rows_per_shard: Rows in a file.
    """

    def __init__(
        self, folder: str | os.PathLike[str], options: RowOptions, tokenizer: str, rows_per_shard: int = 2**14
    ) -> None:
        self.folder = Path(folder)
        self.options = options
        self.tokenizer = tokenizer
        self.rows_per_shard = rows_per_shard
        self.shards: list[Shard] = []
        self.tokens = 0
        self.has_word_boundaries = False
        self._pending: list[bytes] = []
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards) + len(self._pending)

    def write(self, rows: dict[str, Any]) -> None:
        """Add the rows that `make_rows` gave."""
        import tensorflow as tf

        def integers(values: list[int]) -> Any:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

        columns = {name: np.asarray(rows[name]) for name in ("token_ids", "second_start", "label", "continues_word")}
        self.has_word_boundaries = columns["continues_word"].shape[1] > 0
        is_token = columns["token_ids"] != self.options.pad_id
        self.tokens += int(is_token.sum())
        ends = self.options.max_sequence_length - np.argmax(is_token[:, ::-1], axis=1)
        for row, end in enumerate(ends):
            features = {
                "token_ids": integers(columns["token_ids"][row, :end].tolist()),
                "second_start": integers([int(columns["second_start"][row])]),
                "label": integers([int(columns["label"][row])]),
            }
            if self.has_word_boundaries:
                flags = columns["continues_word"][row].astype("uint8").tobytes()
                features["continues_word"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[flags]))
            example = tf.train.Example(features=tf.train.Features(feature=features))
            self._pending.append(example.SerializeToString())
            if len(self._pending) == self.rows_per_shard:
                self._write_shard()

    def _write_shard(self) -> None:
        import tensorflow as tf

        name = f"rows-{len(self.shards):05d}.tfrecord"
        path = self.folder / name
        try:
            with tf.io.TFRecordWriter(os.fspath(path)) as writer:
                for row in self._pending:
                    writer.write(row)
        except (OSError, tf.errors.OpError) as error:
            raise BertKerasError(f"cannot write {path}: {error}") from error
        self.shards.append(Shard(name, len(self._pending), path.stat().st_size))
        self._pending = []

    def close(self) -> Records:
        """Write what is left and the index; read it back."""
        if self._pending:
            self._write_shard()
        index = {
            "format": "bertkeras-records",
            "format_version": FORMAT_VERSION,
            "rows": self.rows,
            "tokens": self.tokens,
            "options": dataclasses.asdict(self.options),
            "tokenizer": self.tokenizer,
            "has_word_boundaries": self.has_word_boundaries,
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
        }
        write_text(self.folder / INDEX_FILE, json.dumps(index, indent=1) + "\n")
        return Records.open(self.folder)
