"""Files are put together by hand here, so that all but the comparison with PyTorch runs without it."""

import copyreg
import errno
import io
import itertools
import os
import pickle
import pickletools
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from bertkeras.checkpoints.tensor_files import LIMIT, WeightsFile
from bertkeras.checkpoints.torch_pickle import MAGIC_NUMBER, read_torch_pickle
from bertkeras.errors import BertKerasError

MUTANTS = 2000 if os.environ.get("BERTKERAS_PARITY_FULL") else 400


# Instructions of a pickle: https://github.com/python/cpython/blob/main/Lib/pickletools.py
def text(value):
    return b"X" + struct.pack("<i", len(value.encode())) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x0a" + value.to_bytes(10, "little")


def several(*values):
    return b"(" + b"".join(values) + b"t"


def named(module, name):
    return f"c{module}\n{name}\n".encode()


DICT = named("collections", "OrderedDict") + b")R"


def storage(key, kind, count, *more):
    return (
        several(text("storage"), named("torch", f"{kind}Storage"), text(key), text("cpu"), number(count), *more) + b"Q"
    )


def tensor(stored, shape, strides, offset=0):
    sizes = (several(*map(number, shape)), several(*map(number, strides)))
    return named("torch._utils", "_rebuild_tensor_v2") + several(stored, number(offset), *sizes, b"\x89", DICT) + b"R"


METADATA = b"}" + text("_metadata") + DICT + b"sb"


def state_dict(tensors, after=METADATA):
    return (
        b"\x80\x02"
        + DICT
        + b"("
        + b"".join(text(name) + value for name, value in tensors.items())
        + b"u"
        + after
        + b"."
    )


def zip_file(state, storages, compression=zipfile.ZIP_STORED, **parts):
    stream = io.BytesIO()
    contents = {
        "data.pkl": state,
        "byteorder": b"little",
        "version": b"3\n",
        **{f"data/{key}": value.tobytes() for key, value in storages.items()},
    }
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in {**contents, **parts}.items():
            if content is not None:
                archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def legacy_file(state, storages, magic=MAGIC_NUMBER, version=1001, system=SYSTEM, keys=None):
    keys = list(storages) if keys is None else keys
    heads = [
        head if isinstance(head, bytes) else pickle.dumps(head, 2) for head in (magic, version, system, state, keys)
    ]
    return b"".join(heads + [struct.pack("<q", value.size) + value.tobytes() for value in storages.values()])


CONTAINERS = {"zip": zip_file, "legacy": legacy_file}
STORED = {
    "0": np.arange(1, 36, dtype=np.float32),
    "1": np.array([0.5, -2, 65504], np.float16),
    "2": np.array([1.5, -3e38], ml_dtypes.bfloat16),
    "3": np.arange(7),
    "4": np.array([], np.float32),
    "5": np.array([True, False]),
}
KINDS = {"0": "Float", "1": "Half", "2": "BFloat16", "3": "Long", "4": "Float", "5": "Bool"}


def stored(key):
    return storage(key, KINDS[key], STORED[key].size)


TENSORS = {
    "whole": tensor(stored("0"), (5, 7), (7, 1)),
    "transposed": tensor(stored("0"), (7, 5), (1, 7)),
    "part": tensor(stored("0"), (3, 2), (7, 3), offset=9),
    "last": tensor(stored("0"), (), (), offset=34),
    "tied": tensor(stored("0"), (5, 7), (7, 1)),
    "half": tensor(stored("1"), (3,), (1,)),
    "brain": named("torch._utils", "_rebuild_parameter")
    + several(tensor(stored("2"), (2,), (1,)), b"\x88", DICT)
    + b"R",
    "ids": tensor(stored("3"), (1, 7), (2**62, 1)),
    "twice": tensor(stored("3"), (2, 7), (0, 1)),
    "nothing": tensor(stored("4"), (0, 5), (5, 1)),
    "mask": tensor(stored("5"), (2,), (1,)),
}
MATRIX = STORED["0"].reshape(5, 7)
EXPECTED = {
    "whole": MATRIX,
    "transposed": MATRIX.T,
    "part": np.array([[10, 13], [17, 20], [24, 27]], np.float32),
    "last": np.float32(35),
    "tied": MATRIX,
    "half": np.array([0.5, -2, 65504], np.float32),
    "brain": np.array([1.5, -3e38], ml_dtypes.bfloat16).astype(np.float32),
    "ids": np.arange(7)[None],
    "twice": np.tile(np.arange(7), (2, 1)),
    "nothing": np.zeros((0, 5), np.float32),
    "mask": np.array([True, False]),
}
# What a plain model saves: for the damage, smaller than the above.
PLAIN = state_dict({name: TENSORS[name] for name in ("whole", "half", "ids")})
PLAIN_STORED = {key: STORED[key] for key in "013"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


@pytest.fixture(params=CONTAINERS)
def container(request):
    return CONTAINERS[request.param]


def read(path, data):
    path.write_bytes(data)
    return read_torch_pickle(path)


def refuses(path, data, message="."):
    with pytest.raises(BertKerasError, match=message) as caught:
        read(path, data)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def same(arrays, expected):
    assert list(arrays) == list(expected)
    for name, value in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].flags.c_contiguous
        assert arrays[name].flags.writeable


def test_reads(container, path):
    arrays = read(path, container(state_dict(TENSORS), STORED))
    same(arrays, EXPECTED)
    assert arrays["tied"] is arrays["whole"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_what_pytorch_writes(path, zipped, protocol):
    torch = pytest.importorskip("torch")
    kinds = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    matrix = torch.arange(35).reshape(5, 7)
    state = torch.nn.TransformerEncoderLayer(14, 2, 22).state_dict(prefix="layer.")
    assert state._metadata
    state.update({kind: (matrix % 3).to(getattr(torch, kind)) for kind in kinds})
    state.update({"transposed": matrix.T, "column": matrix[1:, 3], "expanded": torch.arange(5).expand(1, -1)})
    state.update(
        {"scalar": torch.tensor(1.5), "none": torch.zeros(0, 3), "parameter": torch.nn.Parameter(torch.ones(2))}
    )
    torch.save(state, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    halves = (torch.float16, torch.bfloat16)
    expected = {name: (t.float() if t.dtype in halves else t).detach().numpy() for name, t in state.items()}
    same(read_torch_pickle(path), {name: np.asarray(value, order="C") for name, value in expected.items()})


def test_pytorch_reads_the_file_of_these_tests(path):
    torch = pytest.importorskip("torch")
    tensors = {name: value for name, value in TENSORS.items() if name != "ids"}  # its stride is larger than its storage
    path.write_bytes(zip_file(state_dict(tensors), STORED))
    for name, value in torch.load(path, weights_only=True).items():
        np.testing.assert_array_equal(value.detach().float().numpy(), EXPECTED[name])


def test_needs_no_pytorch(path):
    path.write_bytes(zip_file(PLAIN, PLAIN_STORED))
    code = "import sys; from bertkeras.checkpoints import torch_pickle as t; t.read_torch_pickle(sys.argv[1])"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules", path], check=True)


def test_a_checksum_that_pytorch_left_out_does_not_matter(path):
    data = bytearray(zip_file(PLAIN, PLAIN_STORED))
    for found in re.finditer(b"PK\x01\x02", bytes(data)):
        data[found.start() + 16 : found.start() + 20] = bytes(4)
    assert set(read(path, data)) == {"whole", "half", "ids"}


def command(canary):
    return text(f"echo > '{canary}'")


OS, EVAL = named("os", "system"), named("builtins", "eval")
BYTES, MAP = named("builtins", "bytes"), named("builtins", "map")
HARM = {
    "global and reduce": lambda c: OS + several(command(c)) + b"R",
    "tuple1": lambda c: OS + command(c) + b"\x85R",
    "stack_global": lambda c: text("os") + text("system") + b"\x93" + several(command(c)) + b"R",
    "inst": lambda c: b"(" + command(c) + b"ios\nsystem\n",
    "obj": lambda c: b"(" + OS + command(c) + b"o",
    "newobj": lambda c: BYTES + several(MAP + several(OS, b"](" + command(c) + b"e") + b"\x81") + b"\x81",
    "newobj_ex": lambda c: BYTES + several(MAP + several(OS, b"](" + command(c) + b"e") + b"}\x92") + b"}\x92",
    "build": lambda c: (
        named("types", "SimpleNamespace") + b")R}" + text("__setstate__") + OS + b"sb" + command(c) + b"b"
    ),
    "build on a dictionary": lambda c: DICT + b"}" + text("__setstate__") + OS + b"sb" + command(c) + b"b",
    "ext1": lambda c: b"\x82\xf1" + several(command(c)) + b"R",
    "ext2": lambda c: b"\x83\xf1\x00" + several(command(c)) + b"R",
    "ext4": lambda c: b"\x84\xf1\x00\x00\x00" + several(command(c)) + b"R",
    "eval": lambda c: EVAL + several(text(f"open({str(c)!r}, 'w')")) + b"R",
    "eval of Python 2": lambda c: (
        b"\x80\x02" + named("__builtin__", "eval") + several(text(f"open({str(c)!r}, 'w')")) + b"R"
    ),
    "exec": lambda c: named("builtins", "exec") + several(text(f"open({str(c)!r}, 'w')")) + b"R",
    "an attribute's attribute": lambda c: text("os") + text("path.os.system") + b"\x93" + several(command(c)) + b"R",
    "getattr": lambda c: (
        named("builtins", "getattr")
        + several(named("builtins", "__import__") + several(text("os")) + b"R", text("system"))
        + b"R"
        + several(command(c))
        + b"R"
    ),
    "memo": lambda c: OS + b"q\x070h\x07" + several(command(c)) + b"R",
    "in a storage": lambda c: several(text("storage"), OS + several(command(c)) + b"R", text("0")) + b"Q",
    "torch.hub": lambda c: named("torch.hub", "load") + several(text("evil/evil"), text("evil")) + b"R",
    "torch.load": lambda c: named("torch", "load") + several(text(str(c))) + b"R",
    "torch.storage": lambda c: named("torch.storage", "_load_from_bytes") + several(text(str(c))) + b"R",
    "a spaced name": lambda c: b"cos system\nx\n" + several(command(c)) + b"R",
}
DUDS = {"build on a dictionary", "in a storage", "torch.hub", "torch.load", "torch.storage", "a spaced name"}
REFUSAL = (
    r"bin (asks to call|holds the pickle instruction) .*; a file of weights has no need of that, so it was not read"
)


@pytest.fixture(params=HARM)
def harm(request, tmp_path):
    copyreg.add_extension("os", "system", 0xF1)
    yield HARM[request.param](tmp_path / "canary")
    copyreg.remove_extension("os", "system", 0xF1)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", sorted(HARM.keys() - DUDS))
def test_the_harm_is_real(name, tmp_path):
    copyreg.add_extension("os", "system", 0xF1)
    pickle.loads(b"\x80\x04" + HARM[name](tmp_path / "canary") + b".")
    copyreg.remove_extension("os", "system", 0xF1)
    assert (tmp_path / "canary").exists()


def test_nothing_is_executed(container, path, harm):
    refuses(path, container(b"\x80\x04" + harm + b".", {}), REFUSAL)
    refuses(path, container(b"\x80\x02" + DICT + b"(" + text("weight") + harm + b"u.", {}), REFUSAL)
    refuses(path, container(state_dict(TENSORS, after=harm + b"b"), STORED), REFUSAL)


@pytest.mark.parametrize("where", ["magic", "version", "system", "keys"])
def test_nothing_is_executed_around_the_state_dict(path, harm, where):
    refuses(path, legacy_file(PLAIN, PLAIN_STORED, **{where: b"\x80\x04" + harm + b"."}), REFUSAL)


def test_a_refusal_names_what_was_asked_for(container, path):
    ask = container(b"\x80\x02" + OS + several(text("ls")) + b"R.", {})
    refuses(path, ask, r"bin asks to call os\.system; a file of weights has no need of that, so it was not read$")
    refuses(path, container(b"\x80\x02(ios\nsystem\n.", {}), r"holds the pickle instruction INST \(os system\); a file")
    refuses(path, container(b"\x80\x02" + named("e" * 999, "\t") + b".", {}), r"asks to call e{100}\.\.\.; a file")


# What a state dict has no need of, after an ordered dictionary's name and nothing else that is refused.
OTHERS = [
    "0",
    "1",
    "2",
    ")\x81",
    ")}\x92",
    "o",
    "icollections\nOrderedDict\n",
    "\x82\1",
    "P0\n",
    "\x8f",
    "(\x91",
    "(d",
    "(l",
]
OTHERS += ["I1\n", "L1L\n", "F1\n", "S'a'\n", "U\1a", "V1\n", "C\1a", "g0\n", "p0\n", "\x8b\1\0\0\0\1", "\x97", "\x98"]


@pytest.mark.parametrize("other", OTHERS)
def test_instructions_that_a_state_dict_does_not_need(container, path, other):
    state = b"\x80\x05" + named("collections", "OrderedDict") + other.encode("latin-1") + b"."
    refuses(
        path, container(state, {}), r"bin holds the pickle instruction [A-Z_0-9]+ \(.*\); a file of weights has no need"
    )


def test_a_pickle_in_no_container(path, harm):
    refuses(path, b"\x80\x04" + harm + b".", REFUSAL)


ONE = np.zeros(1, np.float32)


def one(shape, strides, offset=0, count=1):
    return state_dict({"weight": tensor(storage("0", "Float", count), shape, strides, offset)}), {"0": ONE}


def called(function, *arguments):
    return state_dict({"weight": named(*function.rsplit(".", 1)) + several(*arguments) + b"R"}), {}


STRANGE = {
    "a reach beyond": (one((2,), (1,)), "a tensor that reaches beyond its storage"),
    "an offset beyond": (one((), (), offset=1), "a tensor that reaches beyond its storage"),
    "an offset before": (one((), (), offset=-1), "a tensor that reaches beyond its storage"),
    "a large stride": (one((2,), (2**70,)), "something else than sizes"),
    "a stride backwards": (one((2,), (-1,)), "something else than sizes"),
    "a size below zero": (one((-1,), (1,)), "something else than sizes"),
    "no size": (called("torch._utils._rebuild_tensor_v2", storage("0", "Float", 1), b"K\0NN\x89", DICT), "not a short"),
    "too many axes": (one((1,) * 33, (1,) * 33), "not a short list"),
    "sizes for which no number stands": (one((0, 2**62, 2**62), (1, 1, 1)), "too big|dimension"),
    "one stride": (one((1, 1), (1,)), "a stride too few"),
    "a long storage": (one((5,), (1,), count=5), "not as long as its tensors need"),
    "one element, many times": (one((10**9,), (0,)), r"\d+ bytes that would become 4000000000"),
    "more elements than there are numbers": (one((2**60, 2**60), (0, 0)), "bytes that would become"),
    "no such storage": ((one((), ())[0], {}), "is missing|list of storages"),
    "one storage as two types": (
        (
            state_dict({n: tensor(storage("0", n, 1), (), ()) for n in ("Float", "Int")}),
            {"0": ONE},
        ),
        "two types or lengths",
    ),
    "a state dict in a dictionary": (
        (b"\x80\x02}" + text("model") + PLAIN[2:-1] + b"s.", PLAIN_STORED),
        r"holds a value of type dict under model, not a tensor; save model\.state_dict\(\)$",
    ),
    "a number": ((pickle.dumps(5, 2), {}), "holds no state dict but a value of type int; save"),
    "a list": (
        (pickle.dumps([1.5, None, True, (1, 2), (1, 2, 3, 4)], 2), {}),
        "no state dict but a value of type list",
    ),
    "a number under a name": (
        (pickle.dumps({"epoch": 3}, 2), {}),
        "holds a value of type int under epoch, not a tensor",
    ),
    "keys that are no names": ((pickle.dumps({3: 3}, 2), {}), "keys that are not names"),
    "a key that cannot be one": ((b"\x80\x02}]Ns.", {}), "keys that are not names"),
    "a name of two lines": ((state_dict({"a\nb": tensor(stored("3"), (), ())}), STORED), r"a tensor named a\\nb\)"),
    "a name that is no text": ((b"\x80\x02}X\x03\0\0\0\xed\xa0\x80Ns.", {}), r"a tensor named \\ud800\)"),
    "half a pickle": ((PLAIN[:50], PLAIN_STORED), "damaged"),
    "no end": ((PLAIN[:-1], PLAIN_STORED), "damaged|a value of type list"),
    "an empty pickle": ((b"\x80\x02.", {}), "a value too few"),
    "a mark too few": ((b"\x80\x02t.", {}), "a mark too few"),
    "a value below the mark": ((b"\x80\x02N(\x85.", {}), "a value too few"),
    "an unknown memo": ((b"\x80\x02h\x07.", {}), "never put down"),
    "an item for a number": ((b"\x80\x02K\x01K\x01a.", {}), "a value of type int where it needs a list"),
    "items for a list": ((b"\x80\x02](K\x01u.", {}), "keys that are not names"),
    "attributes of a list": ((b"\x80\x02]}b.", {}), "a value of type list where it needs a dict"),
    "a list in itself": ((b"\x80\x02]q\0h\0a.", {}), "no state dict but a value of type list"),
    "deep": ((b"\x80\x02" + b"]" * 9999 + b"a" * 9998 + b".", {}), "no state dict but a value of type list"),
    "a dictionary with arguments": (called("collections.OrderedDict", b"]"), "a call that is not written as"),
    "a storage called": (called("torch.FloatStorage", b"K\1"), "a call that is not written as"),
    "a number called": ((b"\x80\x02K\1)R.", {}), "a call that is not written as"),
    "a tensor of nothing": (called("torch._utils._rebuild_tensor_v2"), "a call that is not written as"),
    "a negated view": (
        called("torch._utils._rebuild_tensor_v2", storage("0", "Float", 1), b"K\0))\x89", DICT, b"}"),
        "a call that is not written as",
    ),
    "a parameter of nothing": (
        called("torch._utils._rebuild_parameter", b"N\x88", DICT),
        "a call that is not written as",
    ),
    "a storage of nothing": ((b"\x80\x02NQ.", {}), "a storage that is not described as"),
    "a storage of a dictionary": (
        (b"\x80\x02" + several(text("storage"), DICT[:-2], text("0"), text("cpu"), b"K\1") + b"Q.", {}),
        "a storage that is not described as",
    ),
    "a view of a storage": (
        (b"\x80\x02" + storage("0", "Float", 1, several(text("0"), b"K\0K\1")) + b".", {}),
        "a storage that is not described as",
    ),
    "another type": (
        (state_dict({"a": tensor(storage("0", "ComplexFloat", 1), (), ())}), {"0": ONE}),
        r"asks to call torch\.ComplexFloatStorage; ",
    ),
    "a whole model": ((pickle.dumps(re.compile("a"), 2), {}), r"asks to call re\._compile; a file"),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_state_dicts_are_refused(container, path, strange):
    parts, message = STRANGE[strange]
    refuses(path, container(*parts), message)


ZERO = np.zeros(10**7, np.float32)
ZEROS = state_dict({"weight": tensor(storage("0", "Float", ZERO.size), ZERO.shape, (1,))})
FILES = {
    "empty": (b"", "is not a file that torch.save wrote; give a file of weights"),
    "text": (b"<!DOCTYPE html>\n" * 9, "is not a file that torch.save wrote"),
    "another number": (legacy_file(PLAIN, PLAIN_STORED, magic=5), "is not a file that torch.save wrote"),
    "another version": (legacy_file(PLAIN, PLAIN_STORED, version=1002), "its format is not the known one, 1001"),
    "another machine's": (
        legacy_file(PLAIN, PLAIN_STORED, system={"little_endian": False}),
        "save it again as safetens",
    ),
    "no machine's": (legacy_file(PLAIN, PLAIN_STORED, system=[]), "save it again as safetensors"),
    "another machine's zip": (zip_file(PLAIN, PLAIN_STORED, byteorder=b"big"), "save it again as safetensors"),
    "no list of storages": (legacy_file(PLAIN, PLAIN_STORED, keys=5), "its list of storages is not"),
    "storages by number": (legacy_file(PLAIN, PLAIN_STORED, keys=[0, 1, 3]), "its list of storages is not"),
    "a storage twice": (legacy_file(PLAIN, PLAIN_STORED, keys=["0", "0", "1", "3"]), "its list of storages is not"),
    "a storage more": (legacy_file(PLAIN, STORED), "its list of storages is not"),
    "in another order": (legacy_file(PLAIN, PLAIN_STORED, keys=["3", "0", "1"]), "is not as long as its tensors need"),
    "the last byte lost": (legacy_file(PLAIN, PLAIN_STORED)[:-1], "it ends too early"),
    "a byte more": (legacy_file(PLAIN, PLAIN_STORED) + b"\0", "1 bytes after its end"),
    "a zip archive of something": (
        zip_file(PLAIN, {}, **{"data.pkl": None}),
        "but not one that torch.save wrote; give",
    ),
    "two state dicts": (zip_file(PLAIN, {}, **{"../other/data.pkl": PLAIN}), "missing|but not one that"),
    "a zip bomb": (zip_file(ZEROS, {"0": ZERO}, zipfile.ZIP_DEFLATED), "is compressed or encrypted"),
    "a long pickle": (zip_file(b"\x80\x02" + b"]" * LIMIT, {}), "where a description of the tensors should be"),
    "a long pickle, legacy": (legacy_file(b"\x80\x02" + b"N" * LIMIT, {}), "exhausted before seeing STOP"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "fetch them with: git lfs pull"),
    "an archive with a table only": (zip_file(PLAIN, {})[-22:], "is not a file that torch.save wrote"),
}


@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_refused(path, kind):
    data, message = FILES[kind]
    tracemalloc.start()
    refuses(path, data, message)
    assert tracemalloc.get_traced_memory()[1] < 200 * LIMIT
    tracemalloc.stop()


def test_a_long_table_of_a_zip_archive_is_refused(path):
    entry = b"PK\x01\x02" + bytes(42)  # becomes an object of half a kilobyte
    count = LIMIT // len(entry) + 1
    end = b"PK\x05\x06" + bytes(4) + struct.pack("<HHIIH", 0, 0, count * len(entry), 4, 0)
    refuses(path, b"PK\x03\x04" + entry * count + end, "where a description of the tensors should be")


def test_no_file(path, tmp_path):
    for missing in (path, tmp_path):
        with pytest.raises(BertKerasError, match=r"^cannot read .*: no such file$"):
            read_torch_pickle(missing)


def test_a_disk_that_fails(path, monkeypatch):
    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path.write_bytes(b"")
    monkeypatch.setattr(WeightsFile, "read", failing)
    with pytest.raises(BertKerasError, match=r"^cannot read .*bin: Input/output error$"):
        read_torch_pickle(path)


def test_memory_is_that_of_the_tensors(container, path):
    path.write_bytes(container(ZEROS, {"0": ZERO}))
    tracemalloc.start()
    read_torch_pickle(path)
    assert tracemalloc.get_traced_memory()[1] < 1.1 * ZERO.nbytes
    tracemalloc.stop()


def test_every_truncation_is_refused(container, path):
    data = container(PLAIN, PLAIN_STORED)
    for length in range(len(data)):
        refuses(path, data[:length])


def damaged(data, random):
    """One or two random changes."""
    data = bytearray(data)
    for _ in range(random.integers(1, 3)):
        a, b, c = sorted(random.integers(0, len(data) + 1, 3))
        match random.integers(7):
            case 0 | 1 if a < len(data):
                data[a] ^= 1 << random.integers(8)
            case 2 if a < len(data):
                data[a] = random.choice([0, 1, 0x7F, 0x80, 0xFF, *b"(.]}tRbQ0"])
            case 3:
                del data[a if random.integers(2) else max(a, len(data) - 30) :]
            case 4:
                data[a:a] = random.bytes(random.integers(1, 9))
            case 5:
                data[a:c] = data[b:c] + data[a:b]
            case 6:
                data[a : a + 8] = struct.pack("<q", random.choice([0, -1, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**40]))
    return bytes(data)


def damaged_instructions(state, random):
    """The same with whole instructions of a pickle, and with numbers in them."""
    starts = [position for _, _, position in pickletools.genops(state)] + [len(state)]
    parts = [state[a:b] for a, b in itertools.pairwise(starts)]
    for _ in range(random.integers(1, 3)):
        a, b, c = sorted(random.integers(0, len(parts), 3))
        match random.integers(6):
            case 0:
                del parts[a]
            case 1:
                parts.insert(a, parts[b])
            case 2:
                parts[a], parts[b] = parts[b], parts[a]
            case 3:
                parts[a] = random.choice(pickletools.opcodes).code.encode("latin-1") + parts[a][1:]
            case 4:
                parts[a:c] = parts[b:c] + parts[a:b]
            case 5:
                numbers = [i for i, part in enumerate(parts) if part[:1] in b"JK"]
                parts[random.choice(numbers)] = number(int(random.choice([-1, 0, 1, 3, 70, 2**31 - 1, 2**62])))
        parts = parts or [b"."]
    return b"".join(parts)


MUTATIONS = {
    "zip": lambda random: damaged(zip_file(PLAIN, PLAIN_STORED), random),
    "legacy": lambda random: damaged(legacy_file(PLAIN, PLAIN_STORED), random),
    "instructions": lambda random: zip_file(damaged_instructions(PLAIN, random), PLAIN_STORED),
}


def read_or_message(path, data):
    try:
        return read(path, data)
    except BertKerasError as error:
        return str(error)


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.filterwarnings("ignore")  # pickletools on strings of Python 2
def test_damage_at_random_is_read_or_refused(path, kind):
    refused = 0
    for mutant in range(MUTANTS):
        data = MUTATIONS[kind](np.random.default_rng([1013, mutant]))
        arrays = read_or_message(path, data)
        if isinstance(arrays, str):
            assert "\n" not in arrays, mutant
            assert str(path) in arrays, mutant
            refused += 1
        else:
            assert all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in arrays.items())
            assert sum(array.nbytes for array in arrays.values()) <= 4 * len(data)
    print(f"{kind}: {MUTANTS} files, {refused} refused")  # shown by pytest -s
    assert MUTANTS / 10 < refused < MUTANTS  # the changes are neither without effect nor fatal always
