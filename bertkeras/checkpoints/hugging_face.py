"""The folders of Hugging Face `transformers`: `config.json`, safetensors and the tokenizer's files."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import numpy as np

from bertkeras.checkpoints import sentence_transformers
from bertkeras.checkpoints.hugging_face_config import (
    CONFIG_FILE,
    read_model_name,
    read_options,
    to_bert_config,
    to_hugging_face_config,
)
from bertkeras.checkpoints.model_card import write_model_card
from bertkeras.checkpoints.names import NameTable, Rule, dense, norm
from bertkeras.checkpoints.presets import WEIGHTS_FILE, Preset, check_no_other, has_tokenizer, model_of, read_json
from bertkeras.checkpoints.shapes import check_layers, check_shapes
from bertkeras.checkpoints.tensor_files import read_tensors, write_safetensors
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.files import write_text

logger = logging.getLogger("bertkeras")

BLOCK, THEIR_BLOCK = "backbone/encoder_{i}", "bert.encoder.layer.{i}"
RULES = [
    *(
        Rule(f"backbone/embeddings/{ours}_table", (f"bert.embeddings.{theirs}_embeddings.weight",))
        for ours, theirs in (("token", "word"), ("position", "position"), ("segment", "token_type"))
    ),
    *norm("backbone/embeddings/layer_norm", "bert.embeddings.LayerNorm.", "weight", "bias"),
    *(
        Rule(
            f"{BLOCK}/attention/qkv/{ours}",
            tuple(f"{THEIR_BLOCK}.attention.self.{part}.{theirs}" for part in ("query", "key", "value")),
            transposed=ours == "kernel",
        )
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    ),
    *dense(f"{BLOCK}/attention/output", f"{THEIR_BLOCK}.attention.output.dense.", "weight", transposed=True),
    *norm(f"{BLOCK}/attention_norm", f"{THEIR_BLOCK}.attention.output.LayerNorm.", "weight", "bias"),
    *dense(f"{BLOCK}/feed_forward/expand", f"{THEIR_BLOCK}.intermediate.dense.", "weight", transposed=True),
    *dense(f"{BLOCK}/feed_forward/contract", f"{THEIR_BLOCK}.output.dense.", "weight", transposed=True),
    *norm(f"{BLOCK}/feed_forward_norm", f"{THEIR_BLOCK}.output.LayerNorm.", "weight", "bias"),
    *dense("backbone/pooler", "bert.pooler.dense.", "weight", transposed=True),
    *dense("mlm_head/transform", "cls.predictions.transform.dense.", "weight", transposed=True),
    *norm("mlm_head/layer_norm", "cls.predictions.transform.LayerNorm.", "weight", "bias"),
    Rule("mlm_head/output_bias", ("cls.predictions.bias",)),
    Rule("mlm_head/output_table", ("cls.predictions.decoder.weight",)),
    *dense("nsp_head/scores", "cls.seq_relationship.", "weight", transposed=True),
    *dense("classifier", "classifier.", "weight", transposed=True),
    *dense("span_head", "qa_outputs.", "weight", transposed=True),
]

# Buffers, and the second names of tied weights.
NOT_WEIGHTS = re.compile(r"bert\.embeddings\.(position_ids|token_type_ids)")
OUTPUT_TABLE, OUTPUT_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
TIED = {OUTPUT_TABLE: "bert.embeddings.word_embeddings.weight", OUTPUT_BIAS: "cls.predictions.bias"}


def read_hugging_face(folder: str | os.PathLike[str]) -> Preset:
    """Read a folder that `save_pretrained` of `transformers` wrote, of any release; nothing in it is executed.

    Old names (`gamma`, `beta`), names without `bert.`, and a configuration without `architectures` are understood.

    Raises:
        BertKerasError: An option that this package cannot honour, a tensor that contradicts the configuration,
            or a file that is missing or damaged.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    said = read_json(path)
    config = to_bert_config(said, path)
    arrays, unknown = to_canonical(read_tensors(folder), config, folder)
    if unknown:
        logger.warning("%s: not read, for no model here has a place for it: %s", folder, ", ".join(sorted(unknown)))
    model = read_model_name(said, path) or model_of(arrays)
    options = read_options(said, model, arrays, path)
    if model == "BertBackbone" and sentence_transformers.is_one(folder):
        embedder = sentence_transformers.read_options(folder, config.max_sequence_length)
        model, options = "BertTextEmbedder", {**options, **embedder}
    return Preset(model, config, options, arrays, tokenizer=folder if has_tokenizer(folder) else None)


def write_hugging_face(folder: str | os.PathLike[str], preset: Preset, pad_token_id: int = 0) -> None:
    """Write `model.safetensors`, `config.json` and a model card, for `transformers` to load; torch is not needed.

    Args:
        folder: Where to.
        preset: The model.
        pad_token_id: The id of `[PAD]`.

    Raises:
        BertKerasError: `transformers` has no such model, or cannot compute what this configuration says.
    """
    folder = Path(folder)
    check_no_other(folder, "transformers")
    if preset.model != "BertTextEmbedder" and sentence_transformers.is_one(folder):
        raise BertKerasError(f"{folder} holds a text embedder; nothing was changed, choose another folder")
    described = to_hugging_face_config(preset, pad_token_id)
    theirs = NameTable(RULES, preset.config.num_layers).to_theirs(preset.arrays, "BERT in transformers")
    if OUTPUT_TABLE in theirs:
        theirs[OUTPUT_BIAS] = theirs[TIED[OUTPUT_BIAS]]
    if described["architectures"] == ["BertModel"]:
        theirs = {name.removeprefix("bert."): value for name, value in theirs.items()}
    write_safetensors(folder / WEIGHTS_FILE, theirs)
    library = "transformers"
    if preset.model == "BertTextEmbedder":
        library = "sentence-transformers"
        sentence_transformers.write(folder, preset.options, preset.config.hidden_dim)
    write_model_card(folder, preset, library)
    write_text(folder / CONFIG_FILE, json.dumps(described, indent=2) + "\n")


# The weights.


def to_canonical(
    arrays: dict[str, np.ndarray], config: BertConfig, source: Path
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Their tensors under our names, and the names of those that have no place here."""
    named: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        modern = modern_name(name)
        if NOT_WEIGHTS.fullmatch(modern):
            continue
        if modern in named:
            raise BertKerasError(f"{source}: two tensors claim to be {modern}; {name} is one of them")
        named[modern] = value
    if config.tie_embeddings:
        for second, first in TIED.items():
            if second in named and not np.array_equal(value := named.pop(second), named.setdefault(first, value)):
                raise BertKerasError(f"{source}: {second} differs from {first}, but tie_word_embeddings is not false")
    elif OUTPUT_BIAS in named:  # of the two it is the one that counts
        named[TIED[OUTPUT_BIAS]] = named.pop(OUTPUT_BIAS)
    check_layers(named, THEIR_BLOCK, config, os.fspath(source / CONFIG_FILE))
    ours, unknown = NameTable(RULES, config.num_layers).to_ours(named, os.fspath(source))
    check_shapes(ours, config, os.fspath(source))
    return ours, unknown


def modern_name(name: str) -> str:
    """A name of any release as the newest one writes it."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return f"bert.{name}" if re.match(r"(embeddings|encoder|pooler)\.", name) else name
