"""Rows on disk: sharded TFRecord files and an index, read back in an order that can be entered anywhere."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.files import write_text
from bertkeras.pipelines.sentence_pairs import RowOptions
from bertkeras.pipelines.shards import Shard, count_tokens, has_word_boundaries, serialised_rows, write_shard

INDEX_FILE, FORMAT_VERSION = "index.json", 1
LANES = 64  # streams that an epoch is read in at once


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

    def stream(
        self,
        seed: int | None = 0,
        start_row: int = 0,
        *,
        part: tuple[int, int] = (0, 1),
        window_rows: int = 2**18,
        repeat: bool = True,
    ) -> Any:
        """Serialised rows from `start_row` of the endless stream on, or every `n`-th of them.

        Every epoch the shards are put in a new order, and the whole is cut into 64 *lanes* of equal length. A lane is
        read window by window and the rows of a window are permuted; row `i` of the epoch is the next one of lane
        `i mod 64`. All orders are functions of `seed` and the epoch, and the index gives every lane's beginning, so
        any row of any epoch is reached by reading one window of each lane.

        Host `k` of `n` takes rows `k, k + n, k + 2 n, ...`: for the 2, 4, 8, ... hosts that divide 64 these are whole
        lanes, which no other host reads in that epoch, and so, of many files, about its share of them. Together the
        hosts have the very stream that one host has.

        Args:
            seed: Of the orders; `None` keeps the order of the files.
            start_row: Where to begin, counted over all epochs and all parts.
            part: `(k, n)`: only rows whose number, counted over all epochs, leaves `k` when divided by `n`.
            window_rows: Rows held in memory by all lanes together.
            repeat: Whether the stream goes on after one epoch.

        Returns:
            A `tf.data.Dataset` of scalar strings.
        """
        import tensorflow as tf

        lanes = 1 if seed is None else LANES
        window = max(window_rows // lanes, 1)
        paths = tf.constant([os.fspath(self.folder / shard.file) for shard in self.shards])

        def epochs() -> Iterator[dict[str, np.ndarray]]:
            epoch, first = divmod(start_row, self.rows) if repeat else (0, start_row)
            while True:
                # numbers of the rows count over all epochs, so that a part's rows stay evenly spaced
                residue = (part[0] - epoch * self.rows) % part[1]
                yield self._lanes(seed, epoch, first, (residue, part[1]), lanes, window)
                if not repeat:
                    return
                epoch, first = epoch + 1, 0

        def rows_of_epoch(plan: dict[str, Any]) -> Any:
            def rows_of_lane(number: Any) -> Any:
                lane = plan["lanes"][number]
                pieces = plan["pieces"][lane[0] : lane[1]]
                rows = tf.data.Dataset.from_tensor_slices(pieces).flat_map(
                    lambda piece: tf.data.TFRecordDataset(tf.gather(paths, piece[0])).skip(piece[1]).take(piece[2])
                )
                if seed is not None:
                    rows = (
                        rows.batch(window)
                        .enumerate(lane[2])
                        .flat_map(
                            lambda nth, rows: tf.data.Dataset.from_tensor_slices(
                                tf.random.experimental.stateless_shuffle(rows, seed=tf.stack([lane[3], nth]))
                            )
                        )
                    )
                rows = rows.skip(lane[4])
                return rows.shard(plan["stride"], 0) if part[1] > 1 else rows

            count = tf.shape(plan["lanes"], out_type=tf.int64)[0]
            return tf.data.Dataset.range(count).interleave(rows_of_lane, cycle_length=lanes, block_length=1)

        signature = {
            "lanes": tf.TensorSpec([None, 5], tf.int64),
            "pieces": tf.TensorSpec([None, 3], tf.int64),
            "stride": tf.TensorSpec([], tf.int64),
        }
        return tf.data.Dataset.from_generator(epochs, output_signature=signature).flat_map(rows_of_epoch)

    def _lanes(
        self, seed: int | None, epoch: int, first: int, part: tuple[int, int], lanes: int, window: int
    ) -> dict[str, np.ndarray]:
        """What an epoch reads from row `first` on, for the rows `i` of it with `i mod part[1] == part[0]`.

        Returns:
            `lanes`: for each lane with such rows, in the order of their turns, its slice of `pieces` (begin, end), the
            number of the window it begins with, the key of its permutations, and the rows to pass over. `pieces`: file,
            rows to pass over and rows to take. `stride`: every which row of the lanes is wanted.
        """
        order = np.arange(len(self.shards))
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(order)
        ends = np.cumsum([self.shards[shard].rows for shard in order])
        each, longer = divmod(self.rows, lanes)  # the first `longer` lanes have a row more
        stride = part[1] // math.gcd(lanes, part[1])
        turns = []
        for lane in range(lanes):
            size = each + (lane < longer)
            # row i of the lane is row lane + i * lanes of the epoch; the wanted ones come every `stride`
            nth = -(-max(first - lane, 0) // lanes)
            wanted = [i for i in range(nth, min(nth + stride, size)) if (lane + i * lanes - part[0]) % part[1] == 0]
            if wanted:
                turns.append((lane + wanted[0] * lanes, lane, wanted[0], size))
        table: list[tuple[int, ...]] = []
        pieces: list[tuple[int, ...]] = []
        for _, lane, nth, size in sorted(turns):
            begin = lane * each + min(lane, longer)
            at, end = begin + nth // window * window, begin + size
            begin_piece = len(pieces)
            for place in range(int(np.searchsorted(ends, at, side="right")), len(order)):
                if at >= end:
                    break
                before = int(ends[place]) - self.shards[order[place]].rows
                take = min(int(ends[place]), end) - at
                pieces.append((order[place], at - before, take))
                at += take
            key = 0 if seed is None else int(np.random.default_rng([seed, epoch, lane]).integers(2**31))
            table.append((begin_piece, len(pieces), nth // window, key, nth % window))
        return {
            "lanes": np.asarray(table, "int64").reshape(-1, 5),
            "pieces": np.asarray(pieces, "int64").reshape(-1, 3),
            "stride": np.asarray(stride, "int64"),
        }

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
        self.has_word_boundaries = has_word_boundaries(rows)
        self.tokens += count_tokens(rows, self.options)
        self._pending += serialised_rows(rows, self.options)
        while len(self._pending) >= self.rows_per_shard:
            self._write_shard()

    def _write_shard(self) -> None:
        self.shards.append(write_shard(self.folder, len(self.shards), self._pending[: self.rows_per_shard]))
        del self._pending[: self.rows_per_shard]

    def close(self) -> Records:
        """Write what is left and the index; read it back."""
        if self._pending:
            self._write_shard()
        shards = tuple(self.shards)
        records = Records(self.folder, self.options, self.tokenizer, self.has_word_boundaries, self.tokens, shards)
        return write_index(records)


def write_index(records: Records) -> Records:
    """Write the index beside the shards, which makes the folder whole; read it back."""
    index = {
        "format": "bertkeras-records",
        "format_version": FORMAT_VERSION,
        "rows": records.rows,
        "tokens": records.tokens,
        "options": dataclasses.asdict(records.options),
        "tokenizer": records.tokenizer,
        "has_word_boundaries": records.has_word_boundaries,
        "shards": [dataclasses.asdict(shard) for shard in records.shards],
    }
    write_text(records.folder / INDEX_FILE, json.dumps(index, indent=1) + "\n")
    return Records.open(records.folder)
