"""From records to the batches that a pretrainer eats."""

from __future__ import annotations

from typing import Any

from bertkeras.errors import BertKerasError
from bertkeras.pipelines.masking import Masking
from bertkeras.pipelines.packing import packed_features
from bertkeras.pipelines.records import Records


def pretraining_dataset(
    records: Records,
    masking: Masking,
    batch_size: int,
    *,
    seed: int | None = 0,
    start_step: int = 0,
    part: tuple[int, int] = (0, 1),
    repeat: bool = True,
    drop_remainder: bool = True,
) -> Any:
    """Batches from step `start_step` on; the same ones that a run from step 0 would have come to.

    Shuffled rows, numbered from the beginning of the stream; a row's masks depend on its number alone.

    Args:
        records: Where the rows lie.
        masking: How to mask them.
        batch_size: Rows in a batch, over all hosts.
        seed: Of the order of rows; `None` keeps the order of the files.
        start_step: Batches to pass over, at no cost but the reading of one window.
        part: `(k, n)`: this is host `k` of `n`, and gets its `batch_size / n` rows of each batch. Each host reads its
            own files, and together they have the batches, and the masks, that one host would have.
        repeat: Whether the stream is endless.
        drop_remainder: Whether a last, smaller batch is left out, so that shapes are static.

    Returns:
        A `tf.data.Dataset` of `(inputs, labels)`: see `batch_features`.

    Raises:
        BertKerasError: The hosts do not divide the batch.
    """
    import tensorflow as tf

    if batch_size % part[1]:
        raise BertKerasError(f"{part[1]} hosts do not divide batch_size={batch_size}")
    start_row = start_step * batch_size

    rows = batch_size // part[1]

    def to_batch(nth: Any, serialised: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        places = nth * rows + tf.range(tf.shape(serialised, tf.int64)[0])  # in this host's part of the stream
        row_numbers = start_row + part[0] + places * part[1]
        return batch_features(records, masking, row_numbers, records.parse(serialised))

    return (
        records.stream(seed, start_row, part=part, repeat=repeat)
        .batch(rows, drop_remainder=drop_remainder)
        .enumerate()
        .map(to_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def batch_features(
    records: Records, masking: Masking, row_numbers: Any, rows: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mask parsed rows and add what the model needs beside the ids.

    Returns:
        `inputs`: `token_ids`, `segment_ids`, `padding_mask` (or for packed rows `sequence_ids` and `position_ids`),
        all `(batch, length)`, and `mask_positions` `(batch, predictions)`. `labels`: `mlm_labels` and `mlm_weights`
        `(batch, predictions)` and, for pairs, `nsp_labels` `(batch,)`.
    """
    import tensorflow as tf

    options, ids = records.options, rows["token_ids"]
    masked = masking(ids, row_numbers, rows.get("continues_word"))
    inputs = {"token_ids": masked["token_ids"], "mask_positions": masked["mask_positions"]}
    if options.pairs == "packed":
        inputs |= packed_features(ids, options.cls_id, options.pad_id)
    else:
        place = tf.range(options.max_sequence_length)[None]
        padding_mask = ids != options.pad_id
        second = (place >= rows["second_start"][:, None]) & padding_mask
        inputs |= {"padding_mask": padding_mask, "segment_ids": tf.cast(second, tf.int32)}
    labels = {"mlm_labels": masked["mlm_labels"], "mlm_weights": masked["mlm_weights"]}
    if options.has_labels:
        labels["nsp_labels"] = rows["label"]
    return inputs, labels
