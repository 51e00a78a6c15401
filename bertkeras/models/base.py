"""What every model shares: presets, saved and loaded under canonical names."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import keras
import numpy as np

from bertkeras.checkpoints import presets
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.text.wordpiece import WordPieceTokenizer


class PresetModel(keras.Model):
    """A model that goes to a folder and comes back: safetensors, JSON and the tokenizer's files.

    A subclass takes a `BertConfig` as its first argument, builds its variables in the constructor and lists in
    `preset_options` the further arguments that a preset must remember.
    """

    preset_options: ClassVar[tuple[str, ...]] = ()
    canonical_prefix: ClassVar[str] = ""

    def __init__(self, config: BertConfig | dict[str, Any], tokenizer: WordPieceTokenizer | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig.from_dict(config)
        self.tokenizer = tokenizer
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

    def save_to_preset(self, folder: str | os.PathLike[str]) -> None:
        """Write `bertkeras.json`, `model.safetensors` and, when the model holds a tokenizer, its files.

        Each file is written under another name and then moved, so that a file under its final name is whole.
        """
        if self.tokenizer is None and presets.has_tokenizer(folder):
            raise BertKerasError(f"{folder} holds a tokenizer and this model none; choose another folder or remove it")
        arrays = {
            name: np.asarray(keras.ops.convert_to_numpy(value), "float32")  # holds every bfloat16 exactly
            for name, value in self.canonical_weights().items()
        }
        options = {name: getattr(self, name) for name in self.preset_options}
        presets.write_preset(folder, presets.Preset(type(self).__name__, self.config, options, arrays))
        if self.tokenizer is not None:
            self.tokenizer.save(folder)

    @classmethod
    def from_preset(cls, where: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Build the model from a folder that `save_to_preset` wrote, or from a run of `bertkeras pretrain`.

        The folder may hold another model of this package, as long as it has every weight that this one needs.

        Args:
            where: The folder.
            **kwargs: Passed to the constructor, such as `dtype="bfloat16"`.

        Raises:
            BertKerasError: No such folder, not a preset, or a weight is missing or has another shape.
        """
        preset = presets.read_preset(where)
        tokenizer = WordPieceTokenizer.load(where) if presets.has_tokenizer(where) else None
        options = {name: preset.options[name] for name in cls.preset_options if name in preset.options}
        model = cls(preset.config, tokenizer=tokenizer, **{**options, **kwargs})
        model.assign_weights(preset.arrays, source=os.fspath(where))
        return model

    def assign_weights(self, arrays: dict[str, np.ndarray], source: str) -> None:
        """Set every variable from `arrays`; what the model has no place for is another head's and stays unread."""
        weights = self.canonical_weights()
        missing = [name for name in weights if name not in arrays]
        if missing:
            raise BertKerasError(
                f"{source}: no weights for {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}; "
                f"this preset cannot make a {type(self).__name__}"
            )
        for name, variable in weights.items():
            if arrays[name].shape != tuple(variable.shape):
                raise BertKerasError(
                    f"{source}: {name} has shape {arrays[name].shape}, the model needs {tuple(variable.shape)}"
                )
        for name, variable in weights.items():
            variable.assign(arrays[name])

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
