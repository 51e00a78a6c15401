"""Whether weights are those that a `config.json` or `bert_config.json` tells of."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from bertkeras.checkpoints.hugging_face_config import OPTIONS, SIZES
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError

# Sizes by the names that stand in the file.
BLOCK_SHAPES = {
    "attention/qkv/kernel": ("hidden_size", "3 * hidden_size"),
    "attention/qkv/bias": ("3 * hidden_size",),
    "attention/output/kernel": ("hidden_size", "hidden_size"),
    "attention/output/bias": ("hidden_size",),
    "attention_norm/gamma": ("hidden_size",),
    "attention_norm/beta": ("hidden_size",),
    "feed_forward/expand/kernel": ("hidden_size", "intermediate_size"),
    "feed_forward/expand/bias": ("intermediate_size",),
    "feed_forward/contract/kernel": ("intermediate_size", "hidden_size"),
    "feed_forward/contract/bias": ("hidden_size",),
    "feed_forward_norm/gamma": ("hidden_size",),
    "feed_forward_norm/beta": ("hidden_size",),
}
EMBEDDING_SHAPES = {
    "backbone/embeddings/token_table": ("vocab_size", "hidden_size"),
    "backbone/embeddings/position_table": ("max_position_embeddings", "hidden_size"),
    "backbone/embeddings/segment_table": ("type_vocab_size", "hidden_size"),
    "backbone/embeddings/layer_norm/gamma": ("hidden_size",),
    "backbone/embeddings/layer_norm/beta": ("hidden_size",),
}


def check_layers(names: Iterable[str], block: str, config: BertConfig, source: str) -> None:
    """The weights are of as many encoder blocks as the configuration says.

    Args:
        names: Of the weights, as they stand in the file.
        block: How the names of a block begin there, with `{i}` for its number.
    """
    begin = re.compile(re.escape(block).replace(r"\{i\}", r"(\d+)") + "[./]")
    found = {int(match[1]) for match in map(begin.match, names) if match}
    if len(found) != config.num_layers or (found and max(found) >= config.num_layers):
        raise BertKerasError(
            f"{source}: num_hidden_layers is {config.num_layers}, but the weights are those of {len(found)} layers"
        )


def check_shapes(arrays: dict[str, np.ndarray], config: BertConfig, source: str) -> None:
    """Every weight of the encoder, by canonical name, is there and has the shape that the configuration gives it."""
    sizes = {theirs: getattr(config, ours) for theirs, ours in {**SIZES, **OPTIONS}.items()}
    blocks = {
        f"backbone/encoder_{index}/{name}": shape
        for index in range(config.num_layers)
        for name, shape in BLOCK_SHAPES.items()
    }
    for name, shape in {**EMBEDDING_SHAPES, **blocks}.items():
        if name not in arrays:
            raise BertKerasError(f"{source}: no weights for {name}; an encoder cannot be without")
        expected = tuple(3 * sizes[part[4:]] if part.startswith("3 * ") else sizes[part] for part in shape)
        if arrays[name].shape != expected:
            raise BertKerasError(
                f"{source}: {name} has shape {arrays[name].shape}, but its configuration says {expected}:"
                f" ({', '.join(shape)})"
            )
