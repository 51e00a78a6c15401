"""KerasHub's BERT: its presets through its own library, backbone and vocabulary, both ways."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.checkpoints.names import NameTable, Rule, dense, norm
from bertkeras.checkpoints.presets import Preset, check_no_other
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError, first_line

BLOCK, THEIR_BLOCK = "backbone/encoder_{i}", "transformer_layer_{i}"
RULES = [
    *(
        Rule(f"backbone/embeddings/{ours}_table", (theirs,))
        for ours, theirs in (
            ("token", "token_embedding/embeddings"),
            ("position", "position_embedding/embeddings"),
            ("segment", "segment_embedding/embeddings"),
        )
    ),
    *norm("backbone/embeddings/layer_norm", "embeddings_layer_norm/", "gamma", "beta"),
    *(
        Rule(
            f"{BLOCK}/attention/qkv/{kind}",
            tuple(f"{THEIR_BLOCK}/self_attention_layer/{part}/{kind}" for part in ("query", "key", "value")),
        )
        for kind in ("kernel", "bias")
    ),
    *dense(f"{BLOCK}/attention/output", f"{THEIR_BLOCK}/self_attention_layer/attention_output/", "kernel"),
    *norm(f"{BLOCK}/attention_norm", f"{THEIR_BLOCK}/self_attention_layer_norm/", "gamma", "beta"),
    *dense(f"{BLOCK}/feed_forward/expand", f"{THEIR_BLOCK}/feedforward_intermediate_dense/", "kernel"),
    *dense(f"{BLOCK}/feed_forward/contract", f"{THEIR_BLOCK}/feedforward_output_dense/", "kernel"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{THEIR_BLOCK}/feedforward_layer_norm/", "gamma", "beta"),
    *dense("backbone/pooler", "pooled_dense/", "kernel"),
]
SIZES = (
    "vocabulary_size",
    "num_layers",
    "num_heads",
    "hidden_dim",
    "intermediate_dim",
    "dropout",
    "max_sequence_length",
    "num_segments",
)
ACTIVATION, EPSILON = "gelu_tanh", 1e-12  # KerasHub's BERT knows no others


def read_keras_hub(where: str) -> Preset:
    """The backbone of a KerasHub preset: a name such as `bert_base_zh`, a folder, or an address it knows.

    KerasHub computes the approximate GELU whatever the model was trained with, and so does what comes back here.

    Raises:
        BertKerasError: KerasHub is not installed, or cannot load this as a BERT.
    """
    keras_hub = import_keras_hub()
    try:
        backbone = keras_hub.models.BertBackbone.from_preset(where)
    except Exception as error:  # whatever the library raises about a preset that it cannot load
        raise BertKerasError(f"KerasHub cannot load {where} as a BertBackbone: {first_line(error)}") from error
    config = BertConfig(
        **{name: getattr(backbone, name) for name in SIZES},
        attention_dropout=backbone.dropout,
        activation=ACTIVATION,
        layer_norm_epsilon=EPSILON,
    )
    arrays, unknown = NameTable(RULES, config.num_layers).to_ours(flat_weights(backbone), where)
    if unknown:
        raise BertKerasError(f"{where}: no place for {', '.join(sorted(unknown)[:3])}; this KerasHub is not known here")
    try:
        tokenizer = keras_hub.models.BertTokenizer.from_preset(where)
    except Exception:  # a preset may hold a backbone alone
        tokenizer = None
    described = tokenizer and {
        "vocabulary": tokenizer.get_vocabulary(),
        "lowercase": tokenizer.lowercase,
        "strip_accents": tokenizer.strip_accents,
        "split_cjk": tokenizer.split_on_cjk,
        "continuation_prefix": tokenizer.suffix_indicator,
    }
    return Preset("BertBackbone", config, {"with_pooler": True}, arrays, tokenizer=described)


def write_keras_hub(
    folder: str | os.PathLike[str],
    preset: Preset,
    tokenizer: dict[str, Any] | None = None,
    other_gelu: bool = False,
) -> None:
    """Write the backbone as a KerasHub preset.

    Args:
        folder: Where to.
        preset: The model; its heads stay behind.
        tokenizer: The arguments of `WordPieceTokenizer`; without them there is a backbone alone.
        other_gelu: Accept that KerasHub computes the approximate GELU where this model has the exact one; its
            outputs then differ: by up to 0.004 of 5.6 in all-MiniLM-L6-v2.

    Raises:
        BertKerasError: KerasHub is not installed, its BERT cannot compute what this one does, or the disk is full.
    """
    keras_hub = import_keras_hub()
    config = preset.config
    wrong = {
        "positions": (config.positions, "learned"),
        "gated_feed_forward": (config.gated_feed_forward, False),
        "norm_first": (config.norm_first, False),
        "layer_norm_epsilon": (config.layer_norm_epsilon, EPSILON),
        "attention_dropout": (config.attention_dropout, config.dropout),
        "pooler": ("backbone/pooler/kernel" in preset.arrays, True),
    }
    for name, (here, there) in wrong.items():
        if here != there:
            raise BertKerasError(f"KerasHub's BERT has {name} {there!r}, this model {here!r}; it cannot go there")
    if config.activation != ACTIVATION and not (config.activation == "gelu" and other_gelu):
        raise BertKerasError(
            f"KerasHub's BERT computes {ACTIVATION}, this model {config.activation}; pass other_gelu=True"
            " or --other-gelu to accept other numbers for gelu"
        )
    folder = Path(folder)
    check_no_other(folder, "KerasHub")
    backbone = keras_hub.models.BertBackbone(**{name: getattr(config, name) for name in SIZES})
    ours = {name: value for name, value in preset.arrays.items() if name.startswith("backbone/")}
    theirs = NameTable(RULES, config.num_layers).to_theirs(ours, "KerasHub's BertBackbone")
    for variable in backbone.weights:
        variable.assign(theirs[variable.path].reshape(variable.shape))
    parts = [backbone, *([] if tokenizer is None else [_their_tokenizer(keras_hub, tokenizer)])]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing") as temporary:
            for part in parts:
                part.save_to_preset(temporary)
            for path in sorted(Path(temporary).rglob("*")):
                target = folder / path.relative_to(temporary)
                target.mkdir(exist_ok=True) if path.is_dir() else os.replace(path, target)
    except OSError as error:
        raise BertKerasError(f"cannot write {folder}: {error.strerror or first_line(error)}") from error


def _their_tokenizer(keras_hub: Any, options: dict[str, Any]) -> Any:
    lowercase, strip_accents = options["lowercase"], options["strip_accents"]
    if not options["split_cjk"]:
        raise BertKerasError("A preset of KerasHub cannot say split_cjk=False; the tokenizer cannot go there")
    return keras_hub.models.BertTokenizer(
        vocabulary=list(options["vocabulary"]),
        lowercase=lowercase,
        strip_accents=lowercase if strip_accents is None else strip_accents,
        suffix_indicator=options["continuation_prefix"],
    )


def flat_weights(backbone: Any) -> dict[str, np.ndarray]:
    """KerasHub's weights by path, each as a matrix or a vector: the axes of heads are merged."""
    hidden_dim = backbone.hidden_dim
    arrays = {}
    for variable in backbone.weights:
        value = np.asarray(keras.ops.convert_to_numpy(variable), "float32")
        if "/self_attention_layer/" in variable.path:
            value = value.reshape((hidden_dim, hidden_dim) if variable.path.endswith("kernel") else hidden_dim)
        arrays[variable.path] = value
    return arrays


def import_keras_hub() -> Any:
    try:
        import keras_hub
    except ImportError as error:
        raise BertKerasError(f"KerasHub is needed for this ({error}); run: pip install keras-nlp") from error
    return keras_hub
