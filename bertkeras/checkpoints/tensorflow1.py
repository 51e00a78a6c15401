"""The checkpoints of Google's BERT, written by TensorFlow 1, and the state of its optimizer."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.checkpoints.hugging_face_config import to_bert_config, to_hugging_face_config
from bertkeras.checkpoints.names import NameTable, Rule, dense, norm
from bertkeras.checkpoints.presets import Preset, has_tokenizer, model_of, read_json
from bertkeras.checkpoints.shapes import check_layers, check_shapes
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError, first_line
from bertkeras.files import write_text

logger = logging.getLogger("bertkeras")

CONFIG_FILE = "bert_config.json"
BLOCK, THEIR_BLOCK = "backbone/encoder_{i}", "bert/encoder/layer_{i}"
RULES = [
    *(
        Rule(f"backbone/embeddings/{ours}_table", (f"bert/embeddings/{theirs}_embeddings",))
        for ours, theirs in (("token", "word"), ("position", "position"), ("segment", "token_type"))
    ),
    *norm("backbone/embeddings/layer_norm", "bert/embeddings/LayerNorm/", "gamma", "beta"),
    *(
        Rule(
            f"{BLOCK}/attention/qkv/{kind}",
            tuple(f"{THEIR_BLOCK}/attention/self/{part}/{kind}" for part in ("query", "key", "value")),
        )
        for kind in ("kernel", "bias")
    ),
    *dense(f"{BLOCK}/attention/output", f"{THEIR_BLOCK}/attention/output/dense/", "kernel"),
    *norm(f"{BLOCK}/attention_norm", f"{THEIR_BLOCK}/attention/output/LayerNorm/", "gamma", "beta"),
    *dense(f"{BLOCK}/feed_forward/expand", f"{THEIR_BLOCK}/intermediate/dense/", "kernel"),
    *dense(f"{BLOCK}/feed_forward/contract", f"{THEIR_BLOCK}/output/dense/", "kernel"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{THEIR_BLOCK}/output/LayerNorm/", "gamma", "beta"),
    *dense("backbone/pooler", "bert/pooler/dense/", "kernel"),
    *dense("mlm_head/transform", "cls/predictions/transform/dense/", "kernel"),
    *norm("mlm_head/layer_norm", "cls/predictions/transform/LayerNorm/", "gamma", "beta"),
    Rule("mlm_head/output_bias", ("cls/predictions/output_bias",)),
    *dense("nsp_head/scores", "cls/seq_relationship/output_", "weights", transposed=True),
    *dense("classifier", "output_", "weights", transposed=True),
    *dense("span_head", "cls/squad/output_", "weights", transposed=True),
]
MODELS = ("BertBackbone", "BertPretrainer", "BertMaskedLM", "BertTextClassifier", "BertQuestionAnswerer")
CONFIG_NAMES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "initializer_range",
)  # fmt: skip
FIRST_MOMENT, SECOND_MOMENT, STEP = "/adam_m", "/adam_v", "global_step"


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """What Google's optimizer keeps, by canonical name.

    Args:
        step: Steps done.
        first_moments: Running mean of the gradients, with beta 0.9.
        second_moments: Running mean of their squares, with beta 0.999. Neither is corrected for its start at zero.
    """

    step: int
    first_moments: dict[str, np.ndarray]
    second_moments: dict[str, np.ndarray]


def read_tensorflow1(where: str | os.PathLike[str]) -> Preset:
    """Read a released BERT, or one that Google's scripts trained; the optimizer's slots are left out.

    `"gelu"` is taken as the erf form, as everywhere in the field, though the last version of Google's code computes the
    approximation; write `gelu_new` as `hidden_act` in `bert_config.json` if the difference matters.

    Args:
        where: The folder, with `bert_config.json`, or the checkpoint's path without `.index`.

    Raises:
        BertKerasError: No checkpoint, several in the folder, a damaged file, or a tensor that fits nowhere.
    """
    path = find_checkpoint(where)
    config_path = path.parent / CONFIG_FILE
    config = to_bert_config(read_json(config_path), config_path)
    names = [name for name in shapes(path) if not name.endswith((FIRST_MOMENT, SECOND_MOMENT)) and name != STEP]
    arrays = _to_ours(_read(path, names), config, path)
    check_shapes(arrays, config, os.fspath(path))
    return Preset(
        "BertTextClassifier" if "classifier/kernel" in arrays else model_of(arrays),
        config,
        _options(arrays),
        arrays,
        tokenizer=path.parent if has_tokenizer(path.parent) else None,
    )


def read_training_state(where: str | os.PathLike[str]) -> TrainingState | None:
    """The step and the moments of Adam, or `None` where a checkpoint holds none, as the released ones."""
    path = find_checkpoint(where)
    config_path = path.parent / CONFIG_FILE
    config = to_bert_config(read_json(config_path), config_path)
    stored = shapes(path)
    if STEP not in stored or not any(name.endswith(FIRST_MOMENT) for name in stored):
        return None
    moments = []
    for suffix in (FIRST_MOMENT, SECOND_MOMENT):
        names = [name for name in stored if name.endswith(suffix)]
        found = {name.removesuffix(suffix): value for name, value in _read(path, names).items()}
        moments.append(_to_ours(found, config, path))
    if lone := sorted(moments[0].keys() ^ moments[1].keys()):
        raise BertKerasError(f"{path}: {lone[0]} has one of its two moments; the checkpoint is not whole")
    return TrainingState(int(_read(path, [STEP])[STEP]), *moments)


def write_tensorflow1(path: str | os.PathLike[str], preset: Preset) -> None:
    """Write a checkpoint that Google's BERT code restores, with the name `path` (such as `.../bert_model.ckpt`).

    That code knows no names of classes, which stay behind with a warning, and of the two GELUs the one that its version
    calls `"gelu"`; `"gelu_tanh"` is written as `"gelu_new"`, which it refuses and `read_tensorflow1` takes back.

    Raises:
        BertKerasError: TensorFlow is not installed, the disk is full, or Google's code has no place for a weight or an
            option of the model.
    """
    path = Path(path)
    check_known_to_google(preset)
    described = to_hugging_face_config(preset, pad_token_id=0)
    theirs = NameTable(RULES, preset.config.num_layers).to_theirs(preset.arrays, "Google's BERT")
    tf = import_tensorflow(path, "writing")
    names = sorted(theirs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing") as temporary:
            tf.raw_ops.SaveV2(
                prefix=os.path.join(temporary, path.name),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[theirs[name] for name in names],
            )
            for file in sorted(Path(temporary).iterdir()):  # the values, then the index
                os.replace(file, path.parent / file.name)
    except (OSError, tf.errors.OpError) as error:
        raise BertKerasError(f"cannot write {path}: {first_line(error)}") from error
    text = json.dumps({name: described[name] for name in CONFIG_NAMES}, indent=2)
    write_text(path.parent / CONFIG_FILE, text + "\n")
    if preset.options.get("labels"):
        logger.warning("%s: a TensorFlow 1 checkpoint has no place for the names of the classes", path)


def check_known_to_google(preset: Preset) -> None:
    """Refuse a model of which a part would be lost without a word."""
    config, options = preset.config, preset.options
    if preset.model not in MODELS:
        raise BertKerasError(f"Google's BERT has no model for a {preset.model}; it has {', '.join(MODELS)}")
    fixed = {
        "positions": (config.positions, "learned"),
        "gated_feed_forward": (config.gated_feed_forward, False),
        "norm_first": (config.norm_first, False),
        "layer_norm_epsilon": (config.layer_norm_epsilon, 1e-12),
        "task": (options.get("task", "single_label"), "single_label"),
        "head_dropout": (options.get("head_dropout"), None),
    }
    for name, (here, there) in fixed.items():
        if here != there:
            raise BertKerasError(f"Google's BERT has {name} {there!r}, this model {here!r}; it cannot go there")


def find_checkpoint(where: str | os.PathLike[str]) -> Path:
    """The checkpoint's path without its suffix."""
    path = Path(where)
    found = sorted(path.glob("*.index")) if path.is_dir() else [Path(f"{path}.index")]
    if len(found) != 1 or not found[0].is_file():
        what = ", ".join(file.name for file in found) if path.is_dir() and found else "none"
        raise BertKerasError(
            f"{where} must be or hold one TensorFlow checkpoint, found {what}; give its path without .index"
        )
    return found[0].with_suffix("")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of everything in a checkpoint; the index file alone tells them."""
    return {name: tuple(shape) for name, shape in _reader(path).get_variable_to_shape_map().items()}


def import_tensorflow(path: Path, doing: str) -> Any:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise BertKerasError(
            f'{path}: {doing} it needs TensorFlow ({error}); run: pip install "bertkeras[tensorflow]"'
        ) from error
    return tf


def _reader(path: Path) -> Any:
    tf = import_tensorflow(path, "reading")
    try:
        return tf.train.load_checkpoint(os.fspath(path))
    except Exception as error:  # an OpError or a RuntimeError, as the version of TensorFlow likes
        raise BertKerasError(f"{path}.index is damaged: {first_line(error)}") from error


def _read(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    reader = _reader(path)
    try:
        return {name: reader.get_tensor(name) for name in names}
    except Exception as error:  # an OpError, or an IndexError where the values end too early
        raise BertKerasError(f"{path}: the values are missing or damaged: {first_line(error)}") from error


def _to_ours(arrays: dict[str, np.ndarray], config: BertConfig, path: Path) -> dict[str, np.ndarray]:
    check_layers(arrays, THEIR_BLOCK, config, os.fspath(path.parent / CONFIG_FILE))
    ours, unknown = NameTable(RULES, config.num_layers).to_ours(arrays, os.fspath(path))
    if unknown:
        raise BertKerasError(f"{path}: no place for {', '.join(sorted(unknown)[:3])} in a BERT of {CONFIG_FILE}")
    return ours


def _options(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if "classifier/kernel" in arrays:
        return {"num_classes": arrays["classifier/kernel"].shape[-1]}
    options = {
        "BertBackbone": {"with_pooler": "backbone/pooler/kernel" in arrays},
        "BertPretrainer": {"next_sentence": True},
    }
    return options.get(model_of(arrays) or "", {})
