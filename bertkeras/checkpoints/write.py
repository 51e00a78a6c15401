"""One way out for every format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from bertkeras.checkpoints import FORMATS
from bertkeras.checkpoints.presets import Preset, has_tokenizer, write_preset
from bertkeras.errors import BertKerasError

TENSORFLOW1_NAME = "bert_model.ckpt"


class Tokenizer(Protocol):
    """What a writer needs of `WordPieceTokenizer`."""

    pad_id: int

    def get_config(self) -> dict[str, Any]: ...

    def save(self, folder: Path) -> None: ...


def write_checkpoint(
    folder: str | os.PathLike[str],
    preset: Preset,
    to: str = "bertkeras",
    tokenizer: Tokenizer | None = None,
    other_gelu: bool = False,
) -> None:
    """Write a model and its tokenizer, each file under another name first, so that one under its final name is whole.

    Args:
        folder: Where to.
        preset: The model.
        to: One of `FORMATS`.
        tokenizer: Its tokenizer, if it has one.
        other_gelu: For KerasHub, accept that it computes the approximate GELU where this model has the exact one.

    Raises:
        BertKerasError: The format has no place for a part of the model, the folder holds another model or tokenizer,
            or the disk is full.
    """
    folder = Path(folder)
    if tokenizer is None and has_tokenizer(folder):
        raise BertKerasError(f"{folder} holds a tokenizer and this model none; choose another folder or remove it")
    if to == "keras_hub":
        from bertkeras.checkpoints.keras_hub import write_keras_hub

        write_keras_hub(folder, preset, None if tokenizer is None else tokenizer.get_config(), other_gelu)
        return
    if to == "hugging_face":
        from bertkeras.checkpoints.hugging_face import write_hugging_face

        write_hugging_face(folder, preset, pad_token_id=0 if tokenizer is None else tokenizer.pad_id)
    elif to == "tensorflow1":
        from bertkeras.checkpoints.tensorflow1 import write_tensorflow1

        write_tensorflow1(folder / TENSORFLOW1_NAME, preset)
    elif to == "bertkeras":
        write_preset(folder, preset)
    else:
        raise BertKerasError(f"unknown format {to!r}; choose one of {', '.join(FORMATS)}")
    if tokenizer is not None:
        tokenizer.save(folder)
