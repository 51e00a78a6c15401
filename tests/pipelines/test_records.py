import json

import numpy as np
import pytest
import tensorflow as tf

from bertkeras import BertKerasError
from bertkeras.pipelines.records import Records, RecordWriter
from bertkeras.pipelines.sentence_pairs import RowOptions, make_rows
from bertkeras.pipelines.shards import serialised_rows
from tests.pipelines.test_sentence_pairs import corpus

OPTIONS = RowOptions(61)


@pytest.fixture(scope="module")
def rows():
    return make_rows(corpus(), OPTIONS, 0, 0)


@pytest.fixture
def folder(tmp_path, rows):
    write(tmp_path / "records", rows)
    return tmp_path / "records"


def write(folder, rows, options=OPTIONS, rows_per_shard=37):
    writer = RecordWriter(folder, options, "fingerprint", rows_per_shard)
    writer.write(rows)
    return writer.close()


def read(records, count=None, **options):
    stream = records.stream(**options)
    serialised = list((stream if count is None else stream.take(count)).as_numpy_iterator())
    return records.parse(serialised)["token_ids"].numpy()


def test_rows_come_back(folder, rows):
    records = Records.open(folder)
    parsed = records.parse(list(records.stream(seed=None, repeat=False).as_numpy_iterator()))
    for name in ("token_ids", "second_start", "label"):
        np.testing.assert_array_equal(parsed[name], rows[name])
    assert records.rows == len(rows["label"])
    assert len(records.shards) == -(-records.rows // 37)
    assert records.tokens == (rows["token_ids"].numpy() != 0).sum()
    assert (records.options, records.tokenizer) == (OPTIONS, "fingerprint")
    assert "continues_word" not in parsed


@pytest.mark.parametrize("boundaries", [False, True])
def test_the_bytes_are_those_of_protocol_buffers(rows, boundaries):
    ids = rows["token_ids"].numpy()
    flags = (ids % 3 == 0)[:, : OPTIONS.max_sequence_length if boundaries else 0]
    for row, serialised in enumerate(serialised_rows({**rows, "continues_word": flags}, OPTIONS)):
        example = tf.train.Example()
        feature = example.features.feature
        feature["token_ids"].int64_list.value.extend(ids[row, : np.flatnonzero(ids[row])[-1] + 1])
        feature["second_start"].int64_list.value.append(rows["second_start"][row])
        feature["label"].int64_list.value.append(rows["label"][row])
        if boundaries:
            feature["continues_word"].bytes_list.value.append(flags[row].astype("uint8").tobytes())
        assert serialised == example.SerializeToString(deterministic=True)


def test_word_boundaries_come_back(tmp_path):
    block = corpus(documents=11)
    made = make_rows(block._replace(continues_word=block.tokens % 5 == 0), OPTIONS, 0, 0)
    records = write(tmp_path / "records", made)
    parsed = records.parse(list(records.stream(seed=None, repeat=False).as_numpy_iterator()))
    np.testing.assert_array_equal(parsed["continues_word"], made["continues_word"])


def test_packed_rows_keep_padding_in_front(tmp_path):
    made = make_rows(corpus(documents=31), RowOptions(61, pairs="packed"), 0, 0)
    assert (made["token_ids"].numpy()[:, 0] == 0).any()
    records = write(tmp_path / "records", made, RowOptions(61, pairs="packed"))
    np.testing.assert_array_equal(read(records, seed=None, repeat=False), made["token_ids"])


def test_an_epoch_is_a_permutation_and_each_another(folder, rows):
    records = Records.open(folder)
    n = records.rows
    twice = read(records, 2 * n, window_rows=100)
    first, second = twice[:n], twice[n:]
    expected = sorted(map(tuple, rows["token_ids"].numpy()))
    assert sorted(map(tuple, first)) == expected
    assert sorted(map(tuple, second)) == expected
    assert (first != second).any(1).mean() > 0.9
    assert (first != rows["token_ids"].numpy()).any(1).mean() > 0.9
    assert (read(records, n, window_rows=100, seed=1) != first).any(1).mean() > 0.9


@pytest.mark.parametrize("window_rows", [1, 100, 10**6])
@pytest.mark.parametrize("seed", [None, 0])
def test_the_stream_can_be_entered_anywhere(folder, window_rows, seed):
    records = Records.open(folder)
    n = records.rows
    whole = read(records, 3 * n, seed=seed, window_rows=window_rows)
    for start in (0, 1, 36, 37, 38, n - 1, n, n + 5, 2 * n + 73):
        part = read(records, 3 * n - start, seed=seed, start_row=start, window_rows=window_rows)
        np.testing.assert_array_equal(part, whole[start:])


def test_one_epoch_ends(folder):
    records = Records.open(folder)
    assert len(read(records, seed=0, repeat=False)) == records.rows
    assert len(read(records, seed=0, repeat=False, start_row=10)) == records.rows - 10


def spoil(folder, kind):
    shard = folder / "rows-00001.tfrecord"
    index = folder / "index.json"
    if kind == "no index":
        index.unlink()
    elif kind == "missing":
        shard.unlink()
    elif kind == "shorter":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif kind == "newer":
        index.write_text(json.dumps({**json.loads(index.read_text()), "format_version": 2}))
    else:
        index.write_text(index.read_text()[:-20])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no index", r"holds no records.*bertkeras prepare"),
        ("missing", r"rows-00001.tfrecord is missing"),
        ("shorter", r"rows-00001.tfrecord has \d+ bytes, not \d+"),
        ("newer", "newer bertkeras"),
        ("damaged", r"index.json is damaged"),
    ],
)
def test_what_is_not_whole_is_named(folder, kind, words):
    spoil(folder, kind)
    with pytest.raises(BertKerasError, match=words):
        Records.open(folder)


def test_a_disk_that_refuses_is_told_in_one_line(tmp_path, rows):
    writer = RecordWriter(tmp_path / "records", OPTIONS, "fingerprint", 37)
    (tmp_path / "records" / "rows-00000.tfrecord").mkdir()
    with pytest.raises(BertKerasError, match=r"cannot write .*rows-00000"):
        writer.write(rows)
    assert not (tmp_path / "records" / "index.json").exists()


@pytest.mark.parametrize(("hosts", "start"), [(2, 0), (3, 61), (64, 61), (128, 0)])
def test_each_host_has_its_rows_of_the_one_stream(folder, hosts, start):
    records = Records.open(folder)
    whole = read(records, 3 * records.rows, window_rows=100)
    for host in {0, 1, hosts - 1}:
        wanted = [row for number, row in enumerate(whole) if number >= start and number % hosts == host]
        part = read(records, len(wanted), part=(host, hosts), start_row=start, window_rows=100)
        np.testing.assert_array_equal(part, wanted)


def test_no_two_of_four_hosts_read_the_same_lane(folder):
    records = Records.open(folder)
    for epoch in range(3):
        stretches = [records._lanes(0, epoch, 0, (host, 4), 64, 10)["pieces"] for host in range(4)]
        rows = [(file, row) for pieces in stretches for file, skip, take in pieces for row in range(skip, skip + take)]
        assert len(rows) == len(set(rows)) == records.rows
