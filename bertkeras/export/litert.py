"""A model as one LiteRT file (formerly TensorFlow Lite), for phones and small devices; any batch, any length."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from bertkeras.errors import BertKerasError
from bertkeras.files import atomic_path
from bertkeras.layers.common import prediction
from bertkeras.models.base import PresetModel
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.seq2seq import BertSeq2Seq

WEIGHTS = ("float32", "float16", "int8")


def export_litert(model: PresetModel, path: str | os.PathLike[str], weights: str = "float32") -> Path:
    """Write a model as a `.tflite` file, with the signature `serving_default`.

    It takes what the Keras model takes: `token_ids` and `segment_ids` int32 and `padding_mask` bool, `(batch, length)`,
    and of a masked LM `mask_positions` int32 `(batch, predictions)`; and gives what it gives. The inputs of an
    interpreter have one row of one piece until they are resized, to any batch and length.

    Args:
        model: On the TensorFlow backend.
        path: The file.
        weights: What weights are stored as: `"float32"`, `"float16"` in half the room, or `"int8"` in a quarter, with
            which products are computed in integers.

    Returns:
        The path.

    Raises:
        BertKerasError: Another backend, a model that is not run in one go, or a disk that is full.
    """
    path = Path(path)
    if keras.backend.backend() != "tensorflow":
        raise BertKerasError("a LiteRT file needs the TensorFlow backend; run again with KERAS_BACKEND=tensorflow")
    if weights not in WEIGHTS:
        raise BertKerasError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    if isinstance(model, BertSeq2Seq):
        raise BertKerasError("a BertSeq2Seq has no LiteRT form: it is run once for each piece that it writes")
    import tensorflow as tf

    row = [None, None]
    inputs = {
        "token_ids": tf.TensorSpec(row, tf.int32, "token_ids"),
        "segment_ids": tf.TensorSpec(row, tf.int32, "segment_ids"),
        "padding_mask": tf.TensorSpec(row, tf.bool, "padding_mask"),
    }
    if isinstance(model, BertMaskedLM) or hasattr(model, "mlm_head"):
        inputs["mask_positions"] = tf.TensorSpec(row, tf.int32, "mask_positions")

    @tf.function(input_signature=list(inputs.values()), autograph=False)
    def serve(*values: Any) -> Any:
        with prediction():
            outputs = model(dict(zip(inputs, values, strict=True)), training=False)
        return outputs if isinstance(outputs, dict) else {"outputs": outputs}

    module = tf.Module()
    module.kept, module.serve = [variable.value for variable in model.variables], serve
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], module)
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    written = converter.convert()
    with atomic_path(path) as temporary:
        temporary.write_bytes(written)
    return path
