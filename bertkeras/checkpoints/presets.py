"""Our own preset: a folder with `bertkeras.json`, `model.safetensors` and the tokenizer's files."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.checkpoints.model_card import write_model_card
from bertkeras.checkpoints.tensor_files import read_tensors, write_safetensors
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.files import write_text

CONFIG_FILE, WEIGHTS_FILE = "bertkeras.json", "model.safetensors"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Preset:
    """A model as named arrays.

    Args:
        model: Name of the class that wrote it; of the architecture, where that has no class here; `None` if unknown.
        config: The architecture.
        options: The class's further arguments, plain JSON values.
        arrays: Weights by canonical name.
        tokenizer: Where the tokenizer's files lie, or the arguments of `WordPieceTokenizer`, if there is any.
        card: What a model card tells: `data`, `metrics`, `command`, all optional, plain JSON values.
    """

    model: str | None
    config: BertConfig
    options: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tokenizer: Path | dict[str, Any] | None = None
    card: dict[str, Any] = dataclasses.field(default_factory=dict)


def write_preset(folder: str | os.PathLike[str], preset: Preset) -> None:
    """Write the weights, the model card, then the description; each file atomically."""
    folder = Path(folder)
    check_no_other(folder, "bertkeras")
    write_safetensors(folder / WEIGHTS_FILE, preset.arrays)
    write_model_card(folder, preset, library="bertkeras")
    description = {
        "format": "bertkeras",
        "format_version": FORMAT_VERSION,
        "model": preset.model,
        "options": preset.options,
        "config": preset.config.to_dict(),
        "card": preset.card,
    }
    write_text(folder / CONFIG_FILE, json.dumps(description, indent=2) + "\n")


def read_preset(folder: str | os.PathLike[str]) -> Preset:
    """Read what `write_preset` wrote. Nothing is executed: JSON and safetensors are data.

    Raises:
        BertKerasError: No preset there, a newer format, or a damaged file.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    description = read_json(path)
    try:
        version = description["format_version"]
        if version > FORMAT_VERSION:
            raise BertKerasError(f"{path}: format {version} is newer than this bertkeras reads; upgrade bertkeras")
        config = BertConfig.from_dict(description["config"])
        model, options, card = description["model"], dict(description["options"]), dict(description.get("card", {}))
        if not isinstance(model, str | None):
            raise TypeError(f"model is {model!r}")
    except BertKerasError as error:
        raise BertKerasError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BertKerasError(f"{path}: the preset is damaged ({error!r})") from error
    tokenizer = folder if has_tokenizer(folder) else None
    return Preset(model, config, options, read_tensors(folder), tokenizer, card)


def read_json(path: Path, kind: type = dict) -> Any:
    """A JSON file that holds an object, or with `kind=list` a list.

    Raises:
        BertKerasError: The file is missing, or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BertKerasError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BertKerasError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, kind):
        raise BertKerasError(f"{path} is damaged: it must hold a JSON {kind.__name__}, got {type(value).__name__}")
    return value


def format_of(folder: Path) -> str | None:
    """Whose folder it is: `bertkeras`, `transformers`, `KerasHub` or `TensorFlow 1`; `None` if of nobody known."""
    if (folder / CONFIG_FILE).is_file():
        return "bertkeras"
    if (folder / "config.json").is_file():
        try:
            module = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("module")
        except (OSError, ValueError, AttributeError, RecursionError):
            module = None  # the reader says what is wrong
        return "KerasHub" if "keras_" in str(module) else "transformers"
    return "TensorFlow 1" if folder.is_dir() and next(folder.glob("*.ckpt*.index"), None) else None


def check_no_other(folder: Path, ours: str) -> None:
    """A folder holds one model in one format: two share names of files, and would destroy each other."""
    found = format_of(folder)
    if found not in (None, ours, "TensorFlow 1"):
        raise BertKerasError(f"{folder} holds a model of {found}; nothing was changed, choose another folder")


def model_of(arrays: Iterable[str]) -> str | None:
    """The class whose weights these are, where their canonical names tell."""
    heads = {name.partition("/")[0] for name in arrays} - {"backbone"}
    known = {
        "": "BertBackbone",
        "mlm_head": "BertMaskedLM",
        "mlm_head nsp_head": "BertPretrainer",
        "span_head": "BertQuestionAnswerer",
    }
    return known.get(" ".join(sorted(heads)))


def has_tokenizer(folder: str | os.PathLike[str]) -> bool:
    return any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
