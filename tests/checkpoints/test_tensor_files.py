import hashlib
import json
import os
import signal
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors

from bertkeras.checkpoints import tensor_files
from bertkeras.checkpoints.tensor_files import LIMIT, read_safetensors, read_tensors, sha256_of, write_safetensors
from bertkeras.errors import BertKerasError

MUTANTS = 2000 if os.environ.get("BERTKERAS_PARITY_FULL") else 400
RANDOM = np.random.default_rng(1019)
ARRAYS = {
    "matrix": RANDOM.normal(size=(5, 7)).astype(np.float32),
    "double": RANDOM.normal(size=3),
    "half": np.array([0.1, -65504, np.inf], np.float16),
    "brain": np.array([0.1, -3e38, np.nan], ml_dtypes.bfloat16),
    "number": np.array(1.5, np.float32),
    "nothing": np.zeros((0, 3), np.float32),
    "mask": np.array([True, False]),
    **{name: np.arange(-3, 4).astype(name) for name in ("int64", "int32", "int16", "int8")},
    **{name: np.arange(7).astype(name) for name in ("uint64", "uint32", "uint16", "uint8")},
}
EXPECTED = {**ARRAYS, "half": ARRAYS["half"].astype(np.float32), "brain": ARRAYS["brain"].astype(np.float32)}
SHARDS = {"a.safetensors": ("matrix", "int64"), "b.safetensors": ("half", "mask"), "c.safetensors": ("number",)}
WEIGHT_MAP = {name: shard for shard, names in SHARDS.items() for name in names}


def same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].flags.writeable


def index_file(folder, name="model.safetensors", weight_map=WEIGHT_MAP):
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {"total_size": 7}, "weight_map": weight_map}))


@pytest.fixture
def sharded(tmp_path):
    for shard, names in SHARDS.items():
        write_safetensors(tmp_path / shard, {name: ARRAYS[name] for name in names})
    index_file(tmp_path)
    return tmp_path


def refuses(folder, message, path=None, read=read_tensors):
    with pytest.raises(BertKerasError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    assert str(path or folder) in str(caught.value)


def test_every_bit_comes_back_and_half_precision_becomes_single(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", ARRAYS)
    same(read_tensors(tmp_path), EXPECTED)
    same(read_tensors(str(tmp_path)), EXPECTED)


def test_written_files_are_read_by_others(tmp_path):
    path = tmp_path / "model.safetensors"
    views = {"transposed": ARRAYS["matrix"].T, "column": ARRAYS["matrix"][:, 3], "number": ARRAYS["number"]}
    write_safetensors(path, views)
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        same({name: file.get_tensor(name) for name in file.keys()}, views)  # noqa: SIM118
    write_safetensors(path, views, metadata={"made": "here"})
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"made": "here"}


def test_reads_what_pytorch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    state = {
        kind: (torch.arange(35).reshape(5, 7) / 3).to(getattr(torch, kind)) for kind in ("bfloat16", "half", "long")
    }
    save_file(state, tmp_path / "model.safetensors")
    expected = {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in state.items()}
    same(read_tensors(tmp_path), expected)
    write_safetensors(tmp_path / "ours.safetensors", {"brain": ARRAYS["brain"]})
    brain = load_file(tmp_path / "ours.safetensors")["brain"]
    assert brain.dtype == torch.bfloat16
    np.testing.assert_array_equal(brain.float().numpy(), EXPECTED["brain"])


def test_a_full_disk_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"small": np.zeros(2)})
    before = path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(BertKerasError, match=r"^cannot write .*model\.safetensors: .*; nothing was changed$"):
            write_safetensors(path, {"large": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 9999)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    refuses(tmp_path / "none", "^cannot read .*none: No such file or directory$", read=sha256_of)


def test_shards(sharded):
    same(read_tensors(sharded), {name: EXPECTED[name] for name in WEIGHT_MAP})


def test_shards_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    for shard, names in SHARDS.items():
        state = {name: torch.from_numpy(np.array(ARRAYS[name])) for name in names}
        torch.save(state, tmp_path / shard.replace("safetensors", "bin"))
    weight_map = {name: shard.replace("safetensors", "bin") for name, shard in WEIGHT_MAP.items()}
    index_file(tmp_path, "pytorch_model.bin", weight_map)
    same(read_tensors(tmp_path), {name: EXPECTED[name] for name in WEIGHT_MAP})


def test_a_cache_of_links(sharded, tmp_path):
    """As the cache of `huggingface_hub`: the names are links to files that are named by their hashes."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in list(sharded.glob("*.*")):
        blob = blobs / sha256_of(path)
        path.rename(blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    same(read_tensors(snapshot), {name: EXPECTED[name] for name in WEIGHT_MAP})
    for blob in blobs.iterdir():
        blob.unlink()
    refuses(snapshot, "holds no weights: none of model.safetensors, pytorch_model.bin and their index.json; give the")


def test_the_order_of_preference(sharded, monkeypatch):
    monkeypatch.setattr("bertkeras.checkpoints.torch_pickle.read_torch_pickle", lambda path: {path.name: np.zeros(1)})
    write_safetensors(sharded / "model.safetensors", {"whole": ARRAYS["matrix"]})
    (sharded / "pytorch_model.bin").touch()
    (sharded / "c.bin").touch()
    index_file(sharded, "pytorch_model.bin", {"c.bin": "c.bin"})
    assert read_tensors(sharded).keys() == {"whole"}
    (sharded / "model.safetensors").unlink()
    assert read_tensors(sharded).keys() == WEIGHT_MAP.keys()
    (sharded / "model.safetensors.index.json").unlink()
    assert read_tensors(sharded).keys() == {"pytorch_model.bin"}
    (sharded / "pytorch_model.bin").unlink()
    assert read_tensors(sharded).keys() == {"c.bin"}


def test_no_weights(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    refuses(tmp_path, "holds no weights: none of model.safetensors, pytorch_model.bin and their index.json; give the")
    refuses(tmp_path / "none", "holds no weights: no such folder; give the folder of a Hugging Face model$")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    refuses(tmp_path, "holds no weights")
    refuses(tmp_path / "model.safetensors", "no such file", read=read_safetensors)


OUTSIDE = [
    "../a.safetensors",
    "/etc/passwd",
    "sub/a.safetensors",
    "..",
    ".",
    "",
    "C:\\a",
    "a\0b",
    "a\nb",
    "a" * 999,
    "~",
]
INDEX = {
    **{repr(name)[:20]: ({"matrix": name}, "only plain names of files beside it are read") for name in OUTSIDE},
    "a missing shard": ({"matrix": "d.safetensors"}, "index.json names d.safetensors, which is not there; download it"),
    "a folder": ({"matrix": "folder"}, "index.json names folder, which is not there"),
    "a missing tensor": (
        {**WEIGHT_MAP, "other": "a.safetensors"},
        "a.safetensors lacks the tensor other, which model.safetensors.index.json has there; download the folder again",
    ),
    "another shard": (
        {**WEIGHT_MAP, "number": "a.safetensors"},
        "a.safetensors lacks the tensor number, which",
    ),
    "a tensor it does not name": (
        {name: shard for name, shard in WEIGHT_MAP.items() if name != "half"},
        "b.safetensors holds the tensor half, which model.safetensors.index.json does not name; download the folder",
    ),
    "a number": (5, "no weight_map from tensors to files"),
    "numbers": ({"matrix": 5}, "no weight_map from tensors to files"),
    "itself": ({"matrix": "model.safetensors.index.json"}, "damaged"),
    "a name of two lines": ({**WEIGHT_MAP, "a\nb": "a.safetensors"}, r"lacks the tensor a\\nb, which"),
}


@pytest.mark.parametrize("kind", INDEX)
def test_indexes_that_lie_are_refused(sharded, kind):
    weight_map, message = INDEX[kind]
    (sharded / "folder").mkdir()
    index_file(sharded, weight_map=weight_map)
    refuses(sharded, message)


def test_a_tensor_in_two_shards(sharded):
    write_safetensors(sharded / "b.safetensors", {name: ARRAYS[name] for name in ("half", "mask", "matrix")})
    message = "b.safetensors holds the tensor matrix, which model.safetensors.index.json has in a.safetensors; download"
    refuses(sharded, message)


NO_INDEX = {
    "empty": (b"", "is damaged"),
    "half": (b'{"weight_map": {"matr', "is damaged"),
    "a list": (b"[]", "a JSON value that is not an object"),
    "an empty object": (b"{}", "no weight_map from tensors to files"),
    "no UTF-8": (b"\xff\xfe{}", "is damaged"),
    "a name twice": (b'{"weight_map": {"number": "c.safetensors", "number": "a.safetensors"}}', "a name given twice"),
    "deep": (b"[" * 100_000, "is damaged"),
    "deep objects": (b'{"a":' * 100_000, "is damaged"),
    "a long number": (b'{"weight_map": ' + b"9" * 10_000 + b"}", "is damaged"),
    "long": (b'{"weight_map": {}}' + b" " * LIMIT, "where a description of the tensors should be"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "fetch them with: git lfs pull"),
}


@pytest.mark.parametrize("kind", NO_INDEX)
def test_damaged_indexes_are_refused(sharded, kind):
    data, message = NO_INDEX[kind]
    (sharded / "model.safetensors.index.json").write_bytes(data)
    refuses(sharded, message)


def file_of(header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32", **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


EIGHT = bytes(8)
DAMAGE = {
    "nothing": (b"", "damaged"),
    "seven bytes": (bytes(7), "damaged"),
    "no header": (EIGHT, "damaged"),
    "garbage": (b"<!DOCTYPE html>\n" * 9, "it ends too early"),
    "a header beyond the end": (file_of({}, length=3), "it ends too early"),
    "a header without end": (file_of({}, length=2**64 - 1), "it ends too early"),
    "a long header": (file_of(b"{}" + b" " * LIMIT), "where a description of the tensors should be"),
    "no JSON": (file_of(b"{"), "damaged"),
    "no UTF-8": (file_of(b'{"\xff": {}}'), "damaged"),
    "deep": (file_of(b'{"a":' + b"[" * 100_000), "damaged"),
    "a list": (file_of([]), "not an object"),
    "a tensor that is a list": (file_of({"a": []}), "without type, shape and offsets"),
    "no type": (file_of({"a": {"shape": [2], "data_offsets": [0, 8]}}, EIGHT), "without type, shape and offsets"),
    "a word more": (file_of({"a": entry(strides=[1])}, EIGHT), "without type, shape and offsets, or with more"),
    "a tensor twice": (file_of(b'{"a": {}, "a": {}}'), "a name given twice"),
    "a name of two lines": (file_of({"a\nb": entry()}, EIGHT), r"a tensor named a\\nb\)"),
    "a name that is no text": (file_of({"\ud800": entry()}, EIGHT), r"a tensor named \\ud800\)"),
    "another type": (
        file_of({"a": entry(dtype="F8_E4M3")}, EIGHT),
        r"safetensors holds a of the type F8_E4M3, known are F64,",
    ),
    "a type that is a list": (file_of({"a": entry(dtype=[])}, EIGHT), "of the type"),
    "a size below zero": (file_of({"a": entry([-2])}, EIGHT), "something else than sizes"),
    "two sizes below zero": (file_of({"a": entry([-1, -2])}, EIGHT), "something else than sizes"),
    "half a size": (file_of({"a": entry([2.0])}, EIGHT), "something else than sizes"),
    "a true size": (file_of({"a": entry([True, 2])}, EIGHT), "something else than sizes"),
    "a size that is text": (file_of({"a": entry("2")}, EIGHT), "not a short list"),
    "a large size": (file_of({"a": entry([2**64])}, EIGHT), "something else than sizes"),
    "large sizes": (file_of({"a": entry([2**62, 2**62])}, EIGHT), "does not fit its bytes"),
    "large sizes and none": (file_of({"a": entry([0, 2**62, 2**62], [0, 0])}), "damaged"),
    "many axes": (file_of({"a": entry([1] * 33 + [2])}, EIGHT), "not a short list"),
    "a shape of other bytes": (file_of({"a": entry([3])}, EIGHT), "does not fit its bytes"),
    "three offsets": (file_of({"a": entry(offsets=[0, 8, 8])}, EIGHT), "does not fit its bytes"),
    "offsets backwards": (file_of({"a": entry(offsets=[8, 0])}, EIGHT), "does not fit its bytes"),
    "an offset below zero": (file_of({"a": entry(offsets=[-8, 0])}, EIGHT), "something else than sizes"),
    "an offset beyond": (file_of({"a": entry(offsets=[8, 16])}, EIGHT), "a gap or an overlap before the tensor a"),
    "an overlap": (file_of({"a": entry(), "b": entry()}, EIGHT), "a gap or an overlap before the tensor b"),
    "a partial overlap": (file_of({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "a gap or an overlap"),
    "a gap": (
        file_of({"a": entry(), "b": entry(offsets=[9, 17])}, bytes(17)),
        "a gap or an overlap before the tensor b",
    ),
    "a byte more": (file_of({"a": entry()}, bytes(9)), r"\d+ bytes by its header, \d+ in the file"),
    "a byte less": (file_of({"a": entry()}, bytes(7)), r"\d+ bytes by its header, \d+ in the file"),
    "metadata of numbers": (file_of({"__metadata__": {"a": 5}}), "metadata that are not text"),
    "metadata that are a list": (file_of({"__metadata__": []}), "metadata that are not text"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "fetch them with: git lfs pull"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_refused(tmp_path, kind):
    data, message = DAMAGE[kind]
    (tmp_path / "model.safetensors").write_bytes(data)
    refuses(tmp_path, message)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {name: ARRAYS[name] for name in WEIGHT_MAP})
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refuses(tmp_path, "is damaged")


def damaged(data, random):
    """One or two random changes."""
    data = bytearray(data)
    for _ in range(random.integers(1, 3)):
        a, b, c = sorted(random.integers(0, len(data) + 1, 3))
        match random.integers(7):
            case 0 | 1 if a < len(data):
                data[a] ^= 1 << random.integers(8)
            case 2 if a < len(data):
                data[a] = random.choice(list(b'0123456789-[]{}":,.eE \\\0\xff'))
            case 3:
                del data[a if random.integers(2) else max(a, len(data) - 30) :]
            case 4:
                data[a:a] = random.bytes(random.integers(1, 9))
            case 5:
                data[a:c] = data[b:c] + data[a:b]
            case 6:
                data[a:b] = data[a : (a + b) // 2]
    return bytes(data)


def read_or_message(folder):
    try:
        return read_tensors(folder)
    except BertKerasError as error:
        return str(error)


def harm(folder, file, check):
    """Read the folder with one of its files damaged in many ways; `check` sees what was read all the same."""
    good, refused = (folder / file).read_bytes(), 0
    for mutant in range(MUTANTS):
        data = damaged(good, np.random.default_rng([1021, mutant]))
        (folder / file).write_bytes(data)
        arrays = read_or_message(folder)
        if isinstance(arrays, str):
            assert "\n" not in arrays, mutant
            assert str(folder) in arrays, mutant
            refused += 1
        else:
            check(arrays, data)
    print(f"{file}: {MUTANTS} files, {refused} refused")  # shown by pytest -s
    assert MUTANTS / 10 < refused < MUTANTS  # the changes are neither without effect nor fatal always


def test_random_damage_to_a_file_is_read_or_refused(tmp_path):
    def check(arrays, data):
        """Nothing is read that the format's own package refuses, and nothing otherwise."""
        theirs = dict(safetensors.deserialize(data))
        assert arrays.keys() == theirs.keys()
        for name, array in arrays.items():
            plain = np.frombuffer(theirs[name]["data"], tensor_files.DTYPES[theirs[name]["dtype"]])
            assert array.shape == tuple(theirs[name]["shape"])
            np.testing.assert_array_equal(array.ravel(), plain)

    write_safetensors(tmp_path / "model.safetensors", {name: ARRAYS[name] for name in WEIGHT_MAP})
    harm(tmp_path, "model.safetensors", check)


def test_random_damage_to_an_index_is_read_or_refused(sharded):
    """An index can lose all that it says of a shard; what is left is read."""
    harm(sharded, "model.safetensors.index.json", lambda arrays, _: same(arrays, {n: EXPECTED[n] for n in arrays}))
