"""A TensorFlow SavedModel that takes raw strings: the tokenizer is in its graph."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from bertkeras.errors import BertKerasError
from bertkeras.layers.common import prediction
from bertkeras.models.base import PresetModel
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.running import needed_tokenizer
from bertkeras.models.text_classifier import BertTextClassifier
from bertkeras.models.text_embedder import BertTextEmbedder
from bertkeras.text.in_graph import InGraphTokenizer

if TYPE_CHECKING:
    import tensorflow as tf


def export_saved_model(model: PresetModel, folder: str | os.PathLike[str], top_k: int = 5) -> Path:
    """Write a folder that TensorFlow and TensorFlow Text load without bertkeras, and that takes strings.

    What its signature `serving_default` gives for `texts`, `(batch,)` strings:

    - of a `BertTextClassifier`: `probabilities` `(batch, num_classes)`, calibrated, and `labels` `(num_classes,)`; of a
      regression `values`. A second signature, `pairs`, takes `texts` and `pairs`.
    - of a `BertTextEmbedder`: `vectors` `(batch, hidden_dim)`.
    - of a `BertMaskedLM`, for texts with any number of `[MASK]`: `pieces` and `probabilities`, `(blanks, top_k)`, and
      the number of each blank's text, `text` `(blanks,)`.

    Texts that are too long are cut, as `classify` and `embed` do it; a masked LM's are an error.

    Args:
        model: With a tokenizer, on the TensorFlow backend.
        folder: A new folder.
        top_k: How many pieces for each blank.

    Returns:
        The folder.

    Raises:
        BertKerasError: Another backend, a model without a tokenizer or of another kind, or a folder that is not empty.
    """
    folder = Path(folder)
    if keras.backend.backend() != "tensorflow":
        raise BertKerasError("a SavedModel needs the TensorFlow backend; run again with KERAS_BACKEND=tensorflow")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BertKerasError(f"{folder} is not empty; nothing was changed, choose another folder")
    import tensorflow as tf

    signatures = _signatures(model, Rows(model), top_k)
    module = tf.Module()
    module.kept = [variable.value for variable in model.variables]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        written = Path(temporary) / "model"
        tf.saved_model.save(module, os.fspath(written), signatures=signatures)
        if folder.exists():
            folder.rmdir()
        shutil.move(written, folder)
    return folder


class Rows:
    """Strings to rows of pieces, as TensorFlow operations; the same rows as `WordPieceTokenizer.encode`."""

    def __init__(self, model: PresetModel) -> None:
        self.tokenizer = needed_tokenizer(model.tokenizer, "a SavedModel")
        self.tokenize = InGraphTokenizer(self.tokenizer)
        self.longest = model.config.max_sequence_length
        self.limit = getattr(model, "max_length", None) or self.longest

    def of_texts(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._assembled([self.tokenize(texts)[:, : self.limit - 2]])

    def of_pairs(self, texts: tf.Tensor, pairs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The longer of the two is cut first, as in `truncated_lengths`."""
        import tensorflow as tf

        first, second = self.tokenize(texts), self.tokenize(pairs)
        room = self.limit - 3
        a, b = first.row_lengths(), second.row_lengths()
        short = tf.minimum(tf.minimum(a, b), room // 2)
        fits = a + b <= room
        keep_a = tf.where(fits, a, tf.where(a <= b, short, room - short))
        keep_b = tf.where(fits, b, tf.where(a <= b, room - short, short))
        return self._assembled([_beginnings(first, keep_a), _beginnings(second, keep_b)])

    def with_blanks(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Texts in which `[MASK]` is a blank; none is cut."""
        import tensorflow as tf

        parts = tf.strings.split(texts, "[MASK]")  # (batch, blanks + 1)
        ids = self.tokenize(parts.flat_values)  # (all parts, pieces)
        ids = tf.concat([ids, tf.fill([ids.nrows(), 1], self.tokenizer.mask_id)], axis=1)
        rows = parts.with_flat_values(ids).merge_dims(1, 2)[:, :-1]  # no blank behind the last part
        too_long = f"a text has more pieces than the {self.longest} that the model reads"
        fits = tf.debugging.assert_less_equal(rows.row_lengths(), tf.constant(self.longest - 2, tf.int64), too_long)
        with tf.control_dependencies([fits]):
            return self._assembled([tf.identity(rows)])

    def _assembled(self, parts: list[tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        import tensorflow as tf

        def column(piece: int) -> tf.Tensor:
            return tf.fill([parts[0].nrows(), 1], piece)

        pieces, segments = [column(self.tokenizer.cls_id)], [column(0)]
        for segment, part in enumerate(parts):
            pieces += [part, column(self.tokenizer.sep_id)]
            segments += [0 * part + segment, column(segment)]
        rows = tf.concat(pieces, axis=1)
        width = tf.maximum(rows.bounding_shape()[1], 1)  # of no texts there are no rows, but a place
        shape = tf.stack([rows.nrows(), width])
        return {
            "token_ids": rows.to_tensor(self.tokenizer.pad_id, shape=shape),
            "segment_ids": tf.concat(segments, axis=1).to_tensor(0, shape=shape),
            "padding_mask": tf.sequence_mask(rows.row_lengths(), width),
        }


def _beginnings(rows: tf.RaggedTensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    import tensorflow as tf

    starts = rows.row_starts()
    return tf.gather(rows.flat_values, tf.ragged.range(starts, starts + lengths))


def _signatures(model: PresetModel, rows: Rows, top_k: int) -> dict[str, Any]:
    import tensorflow as tf

    def signature(function: Callable[..., Any], *names: str) -> Any:
        specs = [tf.TensorSpec([None], tf.string, name=name) for name in names]
        return tf.function(function, input_signature=specs, autograph=False)

    def outputs(inputs: dict[str, Any]) -> Any:
        with prediction():
            return tf.cast(model(inputs, training=False), tf.float32)

    if isinstance(model, BertTextClassifier):

        def answer(inputs: dict[str, Any]) -> dict[str, Any]:
            logits = outputs(inputs)
            if model.task == "regression":
                return {"values": logits}
            curve = tf.sigmoid if model.task == "multi_label" else tf.nn.softmax
            names = model.labels or [str(index) for index in range(model.num_classes)]
            return {"probabilities": curve(logits / model.temperature), "labels": tf.constant(names)}

        return {
            "serving_default": signature(lambda texts: answer(rows.of_texts(texts)), "texts"),
            "pairs": signature(lambda texts, pairs: answer(rows.of_pairs(texts, pairs)), "texts", "pairs"),
        }
    if isinstance(model, BertTextEmbedder):
        return {"serving_default": signature(lambda texts: {"vectors": outputs(rows.of_texts(texts))}, "texts")}
    if isinstance(model, BertMaskedLM):
        pieces = tf.constant(rows.tokenizer.vocabulary)  # (vocabulary_size,) strings

        def fill(texts: Any) -> dict[str, Any]:
            inputs = rows.with_blanks(texts)
            blanks = tf.where(inputs["token_ids"] == rows.tokenizer.mask_id)  # (blanks, 2)
            positions = tf.RaggedTensor.from_value_rowids(blanks[:, 1], blanks[:, 0], tf.size(texts, tf.int64))
            logits = outputs({**inputs, "mask_positions": tf.cast(positions.to_tensor(0), tf.int32)})
            logits = tf.boolean_mask(logits[..., : len(pieces)], tf.sequence_mask(positions.row_lengths()))
            best = tf.math.top_k(tf.nn.softmax(logits), top_k)  # (blanks, top_k)
            return {"pieces": tf.gather(pieces, best.indices), "probabilities": best.values, "text": blanks[:, 0]}

        return {"serving_default": signature(fill, "texts")}
    raise BertKerasError(
        f"a {type(model).__name__} has no SavedModel: its answers are spans of characters, which need the tokenizer's "
        "offsets; export it to onnx and use WordPieceTokenizer beside it"
    )
