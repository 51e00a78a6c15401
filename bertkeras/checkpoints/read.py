"""One way in for every format."""

from __future__ import annotations

import os
from pathlib import Path

from bertkeras.checkpoints.hub import locate
from bertkeras.checkpoints.presets import CONFIG_FILE, Preset, format_of, read_preset
from bertkeras.errors import BertKerasError

KERAS_HUB = "kerashub://"


def read_checkpoint(where: str | os.PathLike[str]) -> Preset:
    """A model from wherever it lies, in whichever format.

    Args:
        where: A folder of this package, of Hugging Face `transformers`, of KerasHub, or with a TensorFlow 1
            checkpoint, or such a checkpoint's path without `.index`; `hf://organisation/name`; `kerashub://preset`;
            or the name of a pretrained model, such as `all-MiniLM-L6-v2`.

    Raises:
        BertKerasError: Nothing is there, or nothing that can be read.
    """
    where = os.fspath(where)
    if where.startswith(KERAS_HUB):
        from bertkeras.checkpoints.keras_hub import read_keras_hub

        return read_keras_hub(where.removeprefix(KERAS_HUB))
    folder = locate(where)
    found = "TensorFlow 1" if Path(f"{folder}.index").is_file() else format_of(folder)
    if found == "bertkeras":
        return read_preset(folder)
    if found == "KerasHub":
        from bertkeras.checkpoints.keras_hub import read_keras_hub

        return read_keras_hub(os.fspath(folder))
    if found == "transformers":
        from bertkeras.checkpoints.hugging_face import read_hugging_face

        return read_hugging_face(folder)
    if found == "TensorFlow 1":
        from bertkeras.checkpoints.tensorflow1 import read_tensorflow1

        return read_tensorflow1(folder)
    what = "no such folder" if not folder.is_dir() else f"neither {CONFIG_FILE} nor config.json in it"
    raise BertKerasError(
        f"{where} is not a preset: {what}; give a folder made by save_to_preset or by pretrain, one of Hugging Face,"
        " or hf://organisation/name"
    )
