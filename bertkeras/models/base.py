"""What every model shares: presets, saved and loaded under canonical names."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np

from bertkeras.checkpoints import presets
from bertkeras.checkpoints.read import read_checkpoint
from bertkeras.checkpoints.write import write_checkpoint
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.text.wordpiece import WordPieceTokenizer

logger = logging.getLogger("bertkeras")


class PresetModel(keras.Model):
    """A model that goes to a folder and comes back: safetensors, JSON and the tokenizer's files.

    A subclass takes a `BertConfig` as its first argument, builds its variables in the constructor and lists

    - in `preset_options` the further arguments that a preset must remember,
    - in `new_parts` the beginnings of the names of weights that start anew where another model's preset lacks them,
    - in `can_do_without` which argument leaves out which weights.

    `model_card` holds what the model card of a preset tells: `data`, `metrics`, `command`.
    """

    preset_options: ClassVar[tuple[str, ...]] = ()
    new_parts: ClassVar[tuple[str, ...]] = ()
    can_do_without: ClassVar[dict[str, str]] = {}
    canonical_prefix: ClassVar[str] = ""

    def __init__(self, config: BertConfig | dict[str, Any], tokenizer: WordPieceTokenizer | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig.from_dict(config)
        self.tokenizer = tokenizer
        self.model_card: dict[str, Any] = {}
        if tokenizer is not None and tokenizer.vocabulary_size > self.config.vocabulary_size:
            raise BertKerasError(
                f"the tokenizer has {tokenizer.vocabulary_size} pieces but the model only {self.config.vocabulary_size}"
            )

    def canonical_weights(self) -> dict[str, keras.Variable]:
        """The model's variables, less the states of random generators, by name, such as
        `backbone/encoder_0/attention/qkv/kernel`; the same on every backend and for every model class."""
        return {
            f"{self.canonical_prefix}{layer.name}/" + variable.path.removeprefix(f"{layer.path}/"): variable
            for layer in self.layers
            for variable in layer.weights
        }

    def to_preset(self) -> presets.Preset:
        """The model as plain arrays and values, float32, which holds every bfloat16 exactly."""
        arrays = {
            name: np.asarray(keras.ops.convert_to_numpy(value), "float32")
            for name, value in self.canonical_weights().items()
        }
        options = {name: getattr(self, name) for name in self.preset_options}
        return presets.Preset(type(self).__name__, self.config, options, arrays, card=dict(self.model_card))

    def save_to_preset(self, folder: str | os.PathLike[str]) -> None:
        """Write `bertkeras.json`, `model.safetensors`, a model card and the tokenizer's files, if there is one.

        Each file is written under another name and then moved, so that a file under its final name is whole.
        """
        write_checkpoint(folder, self.to_preset(), "bertkeras", self.tokenizer)

    def save_to_hugging_face(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `transformers` loads: safetensors, configuration, tokenizer, model card; without torch.

        Raises:
            BertKerasError: `transformers` has no such model, or cannot compute what this one does.
        """
        write_checkpoint(folder, self.to_preset(), "hugging_face", self.tokenizer)

    def save_to_keras_hub(self, folder: str | os.PathLike[str], other_gelu: bool = False) -> None:
        """Write the backbone, with its pooler, and the tokenizer as a preset of KerasHub; heads stay behind.

        Args:
            folder: Where to.
            other_gelu: Accept that KerasHub computes the approximate GELU where this model has the exact one; its
                outputs then differ: by up to 0.004 of 5.6 in all-MiniLM-L6-v2.

        Raises:
            BertKerasError: KerasHub is not installed, or its BERT cannot compute what this one does.
        """
        write_checkpoint(folder, self.to_preset(), "keras_hub", self.tokenizer, other_gelu)

    @classmethod
    def from_preset(cls, where: str | os.PathLike[str], new_head: bool = False, **kwargs: Any) -> Self:
        """Build the model from wherever its weights lie.

        Args:
            where: A folder that `save_to_preset` or `bertkeras pretrain` wrote, or one of Hugging Face
                `transformers`, of KerasHub or of Google's TensorFlow 1 code; `hf://organisation/name`;
                `kerashub://preset`; or a name such as `all-MiniLM-L6-v2`. It may hold another model, as long as it has
                every weight that this one needs; a task's head begins anew then, which is logged.
            new_head: Begin the head anew even if there is one, such as for other classes.
            **kwargs: Passed to the constructor, such as `dtype="bfloat16"`, `tokenizer=...` or `num_classes=3`.

        Raises:
            BertKerasError: Nothing there that can be read, or a weight is missing or has another shape.
        """
        preset = read_checkpoint(where)
        same = preset.model in (None, cls.__name__)
        if "tokenizer" not in kwargs:
            kwargs["tokenizer"] = load_tokenizer(preset.tokenizer)
        options = preset.options if same else {}
        options = {name: options[name] for name in cls.preset_options if name in options}
        if kwargs.get("num_classes", options.get("num_classes")) != options.get("num_classes"):
            for name in ("labels", "thresholds"):  # those of other classes
                options.pop(name, None)
        try:
            model = cls(preset.config, **{**options, **kwargs})
        except TypeError as error:
            raise BertKerasError(f"{where} does not say enough for a {cls.__name__}: {error}") from error
        heads = tuple(part for part in cls.new_parts if not part.startswith("backbone/"))
        if new_head and not heads:
            raise BertKerasError(f"a {cls.__name__} has no head that could begin anew; leave out new_head=True")
        arrays = preset.arrays
        if new_head or not same:  # another model's head may have the same names
            arrays = {name: value for name, value in arrays.items() if not (heads and name.startswith(heads))}
        model.assign_weights(arrays, source=os.fspath(where))
        model.model_card = dict(preset.card)
        return model

    def assign_weights(self, arrays: dict[str, np.ndarray], source: str) -> None:
        """Set every variable from `arrays`; what the model has no place for is another head's and stays unread."""
        weights = self.canonical_weights()
        for part in self.new_parts:
            if not any(name.startswith(part) for name in arrays) and any(name.startswith(part) for name in weights):
                logger.warning("%s: no weights for %s, which begins anew", source, part.rstrip("/"))
                weights = {name: value for name, value in weights.items() if not name.startswith(part)}
        missing = [name for name in weights if name not in arrays]
        if missing:
            advice = [f"; pass {how}" for part, how in self.can_do_without.items() if missing[0].startswith(part)]
            raise BertKerasError(
                f"{source}: no weights for {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}; "
                f"this preset cannot make a {type(self).__name__}{''.join(advice)}"
            )
        for name, variable in weights.items():
            if arrays[name].shape != tuple(variable.shape):
                is_head = any(name.startswith(part) for part in self.new_parts)
                raise BertKerasError(
                    f"{source}: {name} has shape {arrays[name].shape}, the model needs {tuple(variable.shape)}"
                    f"{'; pass new_head=True to begin it anew' if is_head else ''}"
                )
        for name, variable in weights.items():
            variable.assign(arrays[name])

    def with_layers(self, layers: Sequence[int]) -> Self:
        """A shallower model with copies of some encoder blocks and of all else: a student to distil into.

        Args:
            layers: Which blocks, counted from 0, in their new order; DistilBERT takes every other one.

        Raises:
            BertKerasError: No layers, or one that is not there.

        Reference: Sanh et al. 2019, DistilBERT, https://arxiv.org/abs/1910.01108
        """
        deep = self.config.num_layers
        if not layers or not all(0 <= layer < deep for layer in layers):
            raise BertKerasError(f"layers must be some of 0 to {deep - 1}, got {list(layers)}")
        config = dataclasses.replace(self.config, num_layers=len(layers))
        model = type(self).from_config({**self.get_config(), "config": config.to_dict()})
        block = "backbone/encoder_"
        arrays = self.to_preset().arrays
        kept = {name: value for name, value in arrays.items() if not name.startswith(block)}
        for new, old in enumerate(layers):
            begin = f"{block}{old}/"
            kept |= {f"{block}{new}/{n.removeprefix(begin)}": v for n, v in arrays.items() if n.startswith(begin)}
        model.assign_weights(kept, source="the deeper model")
        return model

    def get_config(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in self.preset_options}
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": self.config.to_dict(),
            "tokenizer": None if self.tokenizer is None else self.tokenizer.get_config(),
            **options,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        if isinstance(config.get("tokenizer"), dict):
            config["tokenizer"] = WordPieceTokenizer.from_config(config["tokenizer"])
        return cls(**config)


def load_tokenizer(found: Path | dict[str, Any] | None, lowercase: bool | None = None) -> WordPieceTokenizer | None:
    """The tokenizer of a `Preset`; `lowercase` says what files that hold a vocabulary alone leave open."""
    if isinstance(found, dict):
        return WordPieceTokenizer(**found)
    return None if found is None else WordPieceTokenizer.load(found, lowercase=lowercase)
