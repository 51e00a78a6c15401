"""Which weights of a pretrained model learn, how fast, and as what."""

from __future__ import annotations

from typing import Any

import keras

from bertkeras.errors import BertKerasError
from bertkeras.models.base import PresetModel


def layer_factors(
    model: PresetModel, decay: float = 1.0, head_factor: float = 1.0, crf_factor: float = 1.0
) -> dict[str, float]:
    """Learning-rate factors by variable, for `AdamW(factors=...)`: lower layers learn more slowly.

    The top block and the pooler have factor 1, each block below it `decay` times that of the block above, the
    embeddings another `decay`. Head and CRF have factors of their own.

    Reference: Howard and Ruder 2018, section 3.2 (discriminative fine-tuning), https://arxiv.org/abs/1801.06146
    """
    num_layers = model.config.num_layers
    factors = {}
    for name, variable in model.canonical_weights().items():
        part = name.split("/")[1] if name.startswith("backbone/") else ""
        if part == "embeddings":
            factor = decay**num_layers
        elif part.startswith("encoder_"):
            factor = decay ** (num_layers - 1 - int(part.removeprefix("encoder_")))
        elif part:
            factor = 1.0
        else:
            factor = crf_factor if name.startswith("crf/") else head_factor
        if factor != 1.0:
            factors[variable.path] = factor
    return factors


def freeze(model: PresetModel, layers: int = 0, embeddings: bool = False) -> None:
    """Leave the lowest encoder blocks, and the embeddings, as they are.

    Raises:
        BertKerasError: More blocks than the model has.
    """
    backbone: Any = model.backbone  # type: ignore[attr-defined]
    if layers > len(backbone.encoder_blocks):
        raise BertKerasError(f"freeze_layers={layers}, but the model has {len(backbone.encoder_blocks)} encoder blocks")
    for block in backbone.encoder_blocks[:layers]:
        block.trainable = False
    if embeddings:
        backbone.embeddings.trainable = False


def add_lora(model: PresetModel, rank: int) -> None:
    """Train low-rank additions to the kernels of every encoder block; all else that was pretrained rests.

    The pooler of a classifier, which has a preset's weights or new ones, learns with the head. Keras's own
    `Dense.enable_lora`. `merged` adds them to the kernels when training is done.

    Reference: Hu et al. 2021, https://arxiv.org/abs/2106.09685
    """
    backbone: Any = model.backbone  # type: ignore[attr-defined]
    backbone.embeddings.trainable = False
    parts = [part for block in backbone.encoder_blocks for part in block._flatten_layers(include_self=False)]
    for layer in [*parts, backbone.final_norm]:
        if isinstance(layer, keras.layers.Dense):
            layer.enable_lora(rank)
            layer.bias.trainable = False
        elif isinstance(layer, keras.layers.LayerNormalization):
            layer.trainable = False


def merged(model: PresetModel) -> PresetModel:
    """A model of the same class without low-rank additions that computes the same."""
    plain = type(model).from_config(model.get_config())
    arrays = {name: keras.ops.convert_to_numpy(value) for name, value in model.canonical_weights().items()}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dense) and layer.lora_enabled:
            name = next(name for name, value in model.canonical_weights().items() if value is layer._kernel)
            arrays[name] = keras.ops.convert_to_numpy(layer.kernel)
    plain.assign_weights(arrays, source="the fine-tuned model")
    plain.model_card = dict(model.model_card)
    return plain
