"""The files of weights in a Hugging Face folder, as named arrays."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.files import atomic_path

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
# A BERT describes its tensors in some 100 kB. What is read beside the tensors is held below this, since a byte of a
# pickle, of JSON or of a zip file's table can cost a hundred bytes of memory.
LIMIT = 2 << 20
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")


def read_tensors(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The weights in a folder: of `model.safetensors` or its shards, else of `pytorch_model.bin` or its shards.

    Nothing in the files is executed, and neither PyTorch nor more memory than the weights take is needed.

    Returns:
        Arrays under the file's own names; float16 and bfloat16 become float32, which holds them exactly.

    Raises:
        BertKerasError: No such folder, no weights in it, a missing shard, or a damaged file.
    """
    from bertkeras.checkpoints.torch_pickle import read_torch_pickle  # here, since it builds on this file

    folder = Path(folder)
    readers = {"model.safetensors": read_safetensors, "pytorch_model.bin": read_torch_pickle}
    for name, read in readers.items():
        index = folder / f"{name}.index.json"
        if os.path.isfile(folder / name):
            return read(folder / name)
        if os.path.isfile(index):
            return _read_shards(index, read)
    what = f"none of {', '.join(readers)} and their index.json" if os.path.isdir(folder) else "no such folder"
    raise BertKerasError(f"{folder} holds no weights: {what}; give the folder of a Hugging Face model")


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of one safetensors file: the length of a JSON header, the header, the tensors without a gap.

    Read here, since whether the package `safetensors` reads bfloat16 without PyTorch depends on its version.

    Reference:
        https://github.com/huggingface/safetensors#format
    """
    with reading(path) as file:
        length = int.from_bytes(file.read(min(8, file.size)), "little")
        if file.size < 8 + length:
            raise ValueError("it ends too early")
        tensors = _header(file.read(length))
        position = start = 8 + length
        for name, (_, _, begin, end) in sorted(tensors.items(), key=lambda item: item[1][2:]):
            if start + begin != position or end < begin:
                raise ValueError(f"a gap or an overlap before the tensor {name}")
            position = start + end
        if position != file.size:
            raise ValueError(f"{position} bytes by its header, {file.size} in the file")
        return {name: file.array(start + begin, dtype, shape) for name, (dtype, shape, begin, _) in tensors.items()}


def write_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays atomically.

    Args:
        metadata: By default `{"format": "pt"}`, which `transformers` asks for.

    Raises:
        BertKerasError: The disk is full or the folder cannot be written; what stood under `path` is unharmed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # Not ascontiguousarray, which makes a number a vector.
    contiguous = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata={"format": "pt"} if metadata is None else dict(metadata))
        except SafetensorError as error:  # a full disk too comes as one
            raise BertKerasError(f"cannot write {path}: {error}; nothing was changed") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file of any size, in hexadecimal."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BertKerasError(f"cannot read {path}: {error.strerror}") from error


class WeightsFile(io.FileIO):
    """An open file of weights: a description, read in small pieces, and tensors, copied out one at a time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        size = self.size - self.tell() if size is None or size < 0 else size
        if size > LIMIT:
            raise ValueError(f"{size} bytes where a description of the tensors should be")
        return super().read(size)

    def array(
        self, start: int, dtype: np.dtype, shape: Sequence[int], strides: Sequence[int] | None = None
    ) -> np.ndarray:
        """Copy out the tensor that starts at byte `start`; half precision becomes float32.

        Args:
            strides: From one index to the next, per axis, in elements; `None` for a tensor without gaps.
        """
        wide = np.dtype(np.float32) if dtype in (DTYPES["F16"], DTYPES["BF16"]) else dtype
        if 0 in shape:
            return np.zeros(shape, wide)
        # Only what the tensor spans is mapped, and NumPy checks once more that no index leaves it.
        data = np.memmap(self, np.uint8, "r", start, (span(shape, strides) * dtype.itemsize,))
        if strides is not None:  # along an axis of length 1 a stride means nothing and may be any number
            strides = [stride * dtype.itemsize if n > 1 else 0 for n, stride in zip(shape, strides, strict=True)]
        return np.array(np.ndarray(shape, dtype, data, strides=strides), wide, order="C")


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[WeightsFile]:
    """Open a file of weights. Whatever turns out to be wrong with it becomes one line that begins with its path."""
    if not os.path.isfile(path):
        raise BertKerasError(f"cannot read {path}: no such file")
    try:
        with WeightsFile(path) as file:
            if file.read(min(64, file.size)).startswith(b"version https://git-lfs"):
                raise BertKerasError("is a pointer of Git LFS, not the weights; fetch them with: git lfs pull")
            file.seek(0)
            yield file
    except BertKerasError as error:
        raise BertKerasError(f"{path} {error}") from error
    except OSError as error:
        raise BertKerasError(f"cannot read {path}: {error.strerror or error}") from error
    # `zipfile` has several ways to fail; a RuntimeError is among them, and JSON nested too deep is one too.
    except (ValueError, OverflowError, RuntimeError, struct.error, zipfile.BadZipFile) as error:
        raise BertKerasError(f"{path} is damaged ({shown(error)}); download it again") from error


def shown(value: object) -> str:
    """Text out of a file that is not trusted, fit to stand in a message: short, in one line, printable."""
    text = str(value)
    start = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:100])
    return start if len(text) <= 100 else f"{start}..."


def sizes(value: Any) -> tuple[int, ...]:
    """`value` as a shape; refuses what is none."""
    if not isinstance(value, list | tuple) or len(value) > 32:
        raise ValueError("a tensor's shape is not a short list")
    if not all(type(n) is int and 0 <= n <= sys.maxsize for n in value):
        raise ValueError("a tensor's shape holds something else than sizes")
    return tuple(value)


def span(shape: Sequence[int], strides: Sequence[int] | None = None) -> int:
    """Elements from the first of a tensor to its last, both counted."""
    if strides is None or 0 in shape:
        return math.prod(shape)
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))


def _read_shards(index: Path, read: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    with reading(index) as file:
        weight_map = _json(file.read()).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise ValueError("no weight_map from tensors to files")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        shards.setdefault(shard, set()).add(name)
    for shard in shards:
        if not PLAIN_NAME.fullmatch(shard):
            raise BertKerasError(f"{index} names the file {shown(shard)}; only plain names of files beside it are read")
        if not os.path.isfile(index.parent / shard):
            raise BertKerasError(f"{index} names {shard}, which is not there; download it too")
    arrays: dict[str, np.ndarray] = {}
    for shard, names in sorted(shards.items()):
        part = read(index.parent / shard)
        for name in sorted(part.keys() ^ names):
            if name in part:
                where = f"has in {weight_map[name]}" if name in weight_map else "does not name"
                what = f"holds the tensor {shown(name)}, which {index.name} {where}"
            else:
                what = f"lacks the tensor {shown(name)}, which {index.name} has there"
            raise BertKerasError(f"{index.parent / shard} {what}; download the folder again")
        arrays |= part
    return arrays


def _header(data: bytes) -> dict[str, tuple[np.dtype, tuple[int, ...], int, int]]:
    """By name: type, shape, first byte, byte after the last, both counted from the end of the header."""
    header = _json(data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata that are not text")
    tensors = {}
    for name, tensor in header.items():
        if not name.isprintable():
            raise ValueError(f"a tensor named {shown(name)}")
        if not isinstance(tensor, dict) or tensor.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"the tensor {shown(name)} without type, shape and offsets, or with more")
        dtype, shape, offsets = tensor["dtype"], sizes(tensor["shape"]), sizes(tensor["data_offsets"])
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise BertKerasError(f"holds {shown(name)} of the type {shown(dtype)}, known are {', '.join(DTYPES)}")
        if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
            raise ValueError(f"the tensor {shown(name)} with a shape that does not fit its bytes")
        tensors[name] = (DTYPES[dtype], shape, *offsets)
    return tensors


def _json(data: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name given twice")
        return dict(pairs)

    value = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    if not isinstance(value, dict):
        raise ValueError("a JSON value that is not an object")
    return value
