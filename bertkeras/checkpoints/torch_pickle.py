"""Weights that PyTorch saved (`pytorch_model.bin`), read as data: nothing that the file names is ever called.

A pickle is a program for a small stack machine, and Python's machine calls any function the program asks for. The
machine here knows only the instructions that a state dict is made of. The three functions a state dict asks for are
names in a table, and what they would do is done here: an empty dictionary, a description of a tensor.

Reference:
    The instructions and their arguments: the module `pickletools`. The two layouts of a file: `torch.serialization`.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pickletools
import zipfile
from typing import Any, BinaryIO

import numpy as np

from bertkeras.checkpoints import tensor_files
from bertkeras.checkpoints.tensor_files import LIMIT, WeightsFile, reading, shown, sizes, span
from bertkeras.errors import BertKerasError

STORAGES = {"Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32"}
STORAGES |= {"Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL"}
DTYPES = {f"torch.{name}Storage": tensor_files.DTYPES[short] for name, short in STORAGES.items()}
DICT = "collections.OrderedDict"
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
NO_NEED = "a file of weights has no need of that, so it was not read"
ZIP_START, MAGIC_NUMBER, PROTOCOL_VERSION = b"PK\3\4", 0x1950A86A20F9469CFC6C, 1001


def read_torch_pickle(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a state dict that `torch.save` wrote, in its zip layout or the older one. Needs no PyTorch.

    Returns:
        Arrays under the file's own names; float16 and bfloat16 become float32, which holds them exactly. Names that
        share one tensor, as tied weights do, share one array.

    Raises:
        BertKerasError: No such file, a damaged one, or one that holds something else than tensors.
    """
    with reading(path) as file:
        is_zip = file.read(len(ZIP_START)) == ZIP_START
        file.seek(0)
        state, places = _read_zip(file) if is_zip else _read_legacy(file)
        tensors = dict.fromkeys(state.values())  # each once, in the file's order
        needed = sum(math.prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in tensors)
        if needed > 2 * file.size:  # an element may be handed out many times over, by a stride of 0
            raise ValueError(f"{file.size} bytes that would become {needed}")
        arrays = {
            tensor: file.array(
                places[tensor.storage.key] + tensor.offset * tensor.storage.dtype.itemsize,
                tensor.storage.dtype,
                tensor.shape,
                tensor.strides,
            )
            for tensor in tensors
        }
        return {name: arrays[tensor] for name, tensor in state.items()}


@dataclasses.dataclass(frozen=True)
class _Global:
    """A function or class the file names; only its name is kept."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A run of `count` elements somewhere in the file."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A window on a storage; `offset` and `strides` count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _read_zip(file: WeightsFile) -> tuple[dict[str, _Tensor], dict[str, int]]:
    """The layout since PyTorch 1.6, a zip archive: the tensors, and at which byte each storage starts."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    roots = [name.removesuffix("/data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise BertKerasError("is a zip archive, but not one that torch.save wrote; give a file of weights")

    def place(name: str) -> tuple[int, int]:
        """Start and length of a part. `zipfile` would check sums that PyTorch lets its users leave out."""
        entry = entries.get(f"{roots[0]}/{name}")
        if entry is None or not 0 <= entry.header_offset < file.size:
            raise ValueError(f"its part {shown(name)} is missing")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise ValueError(f"its part {shown(name)} is compressed or encrypted, which torch.save does not do")
        file.seek(entry.header_offset)
        header = file.read(30)  # its last two numbers are the lengths of what stands between it and the part
        start = file.tell() + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        if header[:4] != ZIP_START or start + entry.file_size > file.size:
            raise ValueError(f"its part {shown(name)} is not where the archive says")
        return start, entry.file_size

    def content(name: str) -> bytes:
        start, length = place(name)
        file.seek(start)
        return file.read(length)

    if f"{roots[0]}/byteorder" in entries and content("byteorder") != b"little":
        raise BertKerasError("has the byte order of another kind of machine; save it again as safetensors")
    state = _state(_unpickle(io.BytesIO(content("data.pkl"))))
    places = {}
    for storage in _storages(state):
        places[storage.key], length = place(f"data/{storage.key}")
        if length != storage.count * storage.dtype.itemsize:
            raise ValueError(f"its part data/{shown(storage.key)} is not as long as its tensors need")
    return state, places


def _read_legacy(file: WeightsFile) -> tuple[dict[str, _Tensor], dict[str, int]]:
    """The layout before PyTorch 1.6: five pickles, the fourth the state dict, and the storages one after another."""
    stream = io.BytesIO(file.read(min(LIMIT, file.size)))
    if stream.getbuffer()[:1] != b"\x80" or _unpickle(stream) != MAGIC_NUMBER:
        raise BertKerasError("is not a file that torch.save wrote; give a file of weights")
    if _unpickle(stream) != PROTOCOL_VERSION:
        raise ValueError(f"its format is not the known one, {PROTOCOL_VERSION}")
    system = _unpickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BertKerasError("has the byte order of another kind of machine; save it again as safetensors")
    state = _state(_unpickle(stream))
    storages = {storage.key: storage for storage in _storages(state)}
    keys, position = _unpickle(stream), stream.tell()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    places = {}
    for storage in (storages[key] for key in keys):
        file.seek(position)
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError(f"its storage {shown(storage.key)} is not as long as its tensors need")
        places[storage.key] = position + 8
        position += 8 + storage.count * storage.dtype.itemsize
        if position > file.size:
            raise ValueError("it ends too early")
    if position != file.size:
        raise ValueError(f"{file.size - position} bytes after its end")
    return state, places


def _state(value: Any) -> dict[str, _Tensor]:
    if not isinstance(value, dict):
        raise BertKerasError(f"holds no state dict but {_kind(value)}; save model.state_dict()")
    for name, tensor in value.items():
        if not name.isprintable():
            raise ValueError(f"a tensor named {shown(name)}")
        if not isinstance(tensor, _Tensor):
            raise BertKerasError(f"holds {_kind(tensor)} under {shown(name)}, not a tensor; save model.state_dict()")
    return value


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__.lstrip('_').lower()}"


def _storages(state: dict[str, _Tensor]) -> set[_Storage]:
    storages = {tensor.storage for tensor in state.values()}
    if len({storage.key for storage in storages}) != len(storages):
        raise ValueError("one storage with two types or lengths")
    return storages


class _Stack:
    """The machine's stack; what lies below a mark cannot be taken before the mark is."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.marks: list[int] = []

    def pop(self, n: int) -> list[Any]:
        self._need(n)
        start = len(self.values) - n
        taken, self.values[start:] = self.values[start:], []
        return taken

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("a pickle with a mark too few")
        n = len(self.values) - self.marks[-1]
        taken = self.pop(n)
        self.marks.pop()
        return taken

    def top(self, kind: type = object) -> Any:
        self._need(1)
        if not isinstance(self.values[-1], kind):
            raise ValueError(f"a pickle with {_kind(self.values[-1])} where it needs a {kind.__name__}")
        return self.values[-1]

    def _need(self, n: int) -> None:
        if n > len(self.values) - (self.marks[-1] if self.marks else 0):
            raise ValueError("a pickle with a value too few")


def _unpickle(stream: BinaryIO) -> Any:
    """Run one pickle, up to its STOP. Values are constants, containers, and the three descriptions above."""
    stack = _Stack()
    memo: dict[int, Any] = {}
    push = stack.values.append
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                (value,) = stack.pop(1)
                return value
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                push(argument)
            case "EMPTY_DICT":
                push({})
            case "EMPTY_LIST":
                push([])
            case "EMPTY_TUPLE":
                push(())
            case "MARK":
                stack.marks.append(len(stack.values))
            case "TUPLE":
                push(tuple(stack.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(stack.pop(int(opcode.name[-1]))))
            case "APPEND" | "APPENDS":
                items = stack.pop(1) if opcode.name == "APPEND" else stack.pop_to_mark()
                stack.top(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = stack.pop(2) if opcode.name == "SETITEM" else stack.pop_to_mark()
                if len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
                    raise ValueError("a dictionary with keys that are not names")
                stack.top(dict).update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if argument is None else argument] = stack.top()
            case "BINGET" | "LONG_BINGET":
                if argument not in memo:
                    raise ValueError("a pickle that takes up a value it never put down")
                push(memo[argument])
            case "GLOBAL":
                push(_known(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                push(_known(*stack.pop(2)))
            case "BINPERSID":
                push(_storage(*stack.pop(1)))
            case "REDUCE":
                push(_call(*stack.pop(2)))
            case "BUILD":  # attributes of the dictionary, `_metadata`: the versions of the model's layers
                stack.pop(1)
                stack.top(dict)
            case name:
                raise BertKerasError(f"holds the pickle instruction {name} ({shown(argument)}); {NO_NEED}")
    raise AssertionError("genops ends with STOP or an error")


def _known(module: object, attribute: object) -> _Global:
    name = f"{module}.{attribute}" if isinstance(module, str) and isinstance(attribute, str) else "something nameless"
    if name not in {DICT, TENSOR, PARAMETER, *DTYPES}:
        raise BertKerasError(f"asks to call {shown(name)}; {NO_NEED}")
    return _Global(name)


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", _Global(name), str(key), str(), count, *view) if name in DTYPES and view in ([], [None]):
            return _Storage(key, DTYPES[name], *sizes([count]))
    raise ValueError("a storage that is not described as PyTorch does it")


def _call(function: Any, arguments: Any) -> Any:
    """What the three known functions would give."""
    match function, arguments:
        case _Global(name), () if name == DICT:
            return {}
        case _Global(name), (_Tensor() as tensor, bool(), dict()) if name == PARAMETER:
            return tensor
        case _Global(name), (_Storage() as storage, int(offset), shape, strides, bool(), dict()) if name == TENSOR:
            shape, strides = sizes(shape), sizes(strides)
            if len(shape) != len(strides):
                raise ValueError("a tensor with a stride too few or too many")
            if offset < 0 or offset + span(shape, strides) > storage.count:
                raise ValueError("a tensor that reaches beyond its storage")
            return _Tensor(storage, offset, shape, strides)
    raise ValueError("a call that is not written as PyTorch does it")
