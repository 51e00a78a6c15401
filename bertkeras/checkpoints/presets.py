"""Our own preset: a folder with `bertkeras.json`, `model.safetensors` and the tokenizer's files."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.files import atomic_path, write_text

CONFIG_FILE, WEIGHTS_FILE = "bertkeras.json", "model.safetensors"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Preset:
    """A model as named arrays.

    Args:
        model: Name of the class that wrote it.
        config: The architecture.
        options: The class's further arguments, plain JSON values.
        arrays: Weights by canonical name.
    """

    model: str
    config: BertConfig
    options: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write_preset(folder: str | os.PathLike[str], preset: Preset) -> None:
    """Write the weights, then the description; each file atomically."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in preset.arrays.items()}, temporary)
    description = {
        "format": "bertkeras",
        "format_version": FORMAT_VERSION,
        "model": preset.model,
        "options": preset.options,
        "config": preset.config.to_dict(),
    }
    write_text(folder / CONFIG_FILE, json.dumps(description, indent=2) + "\n")


def read_preset(folder: str | os.PathLike[str]) -> Preset:
    """Read what `write_preset` wrote. Nothing is executed: JSON and safetensors are data.

    Raises:
        BertKerasError: No such folder, no preset in it, a newer format, or a damaged file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"no {CONFIG_FILE} in it"
        raise BertKerasError(f"{folder} is not a preset: {what}; give a folder made by save_to_preset or by pretrain")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        if version > FORMAT_VERSION:
            raise BertKerasError(f"{path}: format {version} is newer than this bertkeras reads; upgrade bertkeras")
        try:
            config = BertConfig.from_dict(description["config"])
        except BertKerasError as error:
            raise BertKerasError(f"{path}: {error}") from error
        arrays = load_file(folder / WEIGHTS_FILE)
        return Preset(description["model"], config, description["options"], arrays)
    except BertKerasError:
        raise
    except FileNotFoundError as error:
        raise BertKerasError(f"{folder}: {WEIGHTS_FILE} is missing") from error
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise BertKerasError(f"{folder}: the preset is damaged ({error})") from error


def has_tokenizer(folder: str | os.PathLike[str]) -> bool:
    return any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
