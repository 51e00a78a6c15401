import numpy as np
import pytest
import tensorflow as tf

from bertkeras.pipelines.masking import Masking
from bertkeras.pipelines.packing import packed_features
from bertkeras.pipelines.pretraining import pretraining_dataset
from bertkeras.pipelines.sentence_pairs import RowOptions, make_rows
from tests.pipelines.test_records import write
from tests.pipelines.test_sentence_pairs import corpus

VOCABULARY = 100_000
MASKING = Masking(VOCABULARY, 4, (0, 1, 2, 3, 4), max_predictions=11)


def records_of(tmp_path, **options):
    options = RowOptions(61, **options)
    return write(tmp_path / "records", make_rows(corpus(), options, 0, 0), options)


def equal(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_batches_hold_what_the_model_needs(tmp_path):
    records = records_of(tmp_path)
    inputs, labels = next(iter(pretraining_dataset(records, MASKING, 13)))
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "token_ids": (13, 61),
        "segment_ids": (13, 61),
        "padding_mask": (13, 61),
        "mask_positions": (13, 11),
    }
    assert {name: tuple(value.shape) for name, value in labels.items()} == {
        "mlm_labels": (13, 11),
        "mlm_weights": (13, 11),
        "nsp_labels": (13,),
    }
    whole = inputs["token_ids"].numpy().copy()
    row, prediction = np.nonzero(labels["mlm_weights"].numpy())
    whole[row, inputs["mask_positions"].numpy()[row, prediction]] = labels["mlm_labels"].numpy()[row, prediction]
    np.testing.assert_array_equal(inputs["padding_mask"], whole != 0)
    for ids, segments in zip(whole, inputs["segment_ids"].numpy(), strict=True):
        second = np.flatnonzero(ids == 3)[0] + 1  # after the first [SEP]
        end = (ids != 0).sum()
        assert segments.tolist() == [0] * second + [1] * (end - second) + [0] * (61 - end)


@pytest.mark.parametrize("start", [1, 7, 40])
def test_a_later_start_gives_the_same_batches(tmp_path, start):
    records = records_of(tmp_path)
    whole = list(pretraining_dataset(records, MASKING, 13).take(start + 3))
    part = list(pretraining_dataset(records, MASKING, 13, start_step=start).take(3))
    equal(part, whole[start:])


def test_masks_change_from_epoch_to_epoch(tmp_path):
    records = records_of(tmp_path)
    batch = records.rows
    first, second = pretraining_dataset(records, MASKING, batch, seed=None).take(2)
    np.testing.assert_array_equal(first[1]["nsp_labels"], second[1]["nsp_labels"])  # the same rows
    assert (first[0]["mask_positions"].numpy() != second[0]["mask_positions"].numpy()).mean() > 0.5


def test_masks_do_not_depend_on_the_batch_size(tmp_path):
    records = records_of(tmp_path)
    by_13 = list(pretraining_dataset(records, MASKING, 13).take(2))
    by_26 = next(iter(pretraining_dataset(records, MASKING, 26)))
    equal(tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *by_13), by_26)


def test_the_last_batch_may_be_smaller(tmp_path):
    records = records_of(tmp_path)
    sizes = [
        len(labels["nsp_labels"])
        for _, labels in pretraining_dataset(records, MASKING, 64, seed=None, repeat=False, drop_remainder=False)
    ]
    assert sum(sizes) == records.rows
    assert sizes[-1] == records.rows % 64


def test_single_segments_have_no_pair_labels(tmp_path):
    inputs, labels = next(iter(pretraining_dataset(records_of(tmp_path, pairs="none"), MASKING, 13)))
    assert "nsp_labels" not in labels
    assert inputs["segment_ids"].numpy().sum() == 0


def test_packed_rows_bring_sequences_and_positions(tmp_path):
    records = records_of(tmp_path, pairs="packed")
    inputs, labels = next(iter(pretraining_dataset(records, MASKING, 13)))
    assert set(inputs) == {"token_ids", "sequence_ids", "position_ids", "mask_positions"}
    assert set(labels) == {"mlm_labels", "mlm_weights"}
    rows = next(iter(records.stream(0).batch(13)))
    equal(
        packed_features(records.parse(rows)["token_ids"], 2, 0),
        {k: inputs[k] for k in ("sequence_ids", "position_ids")},
    )
