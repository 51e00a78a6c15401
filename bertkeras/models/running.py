"""Rows of any lengths through a model, a batch at a time."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers.common import prediction
from bertkeras.text.encoding import padded
from bertkeras.text.wordpiece import WordPieceTokenizer

Row = tuple[Sequence[int], Sequence[int] | None]  # ids, and segment ids or None where all are 0


def outputs_of(model: keras.Model, rows: Sequence[Row], pad_id: int, batch_size: int = 32) -> list[np.ndarray]:
    """The model's output for every row, float32, in the order of the rows.

    Rows of like length share a batch, so that there is little padding. An output per position is cut to the length of
    its row.

    Raises:
        BertKerasError: An output that is not finite.
    """
    outputs: list[Any] = [None] * len(rows)
    forward = graph_of(model) if len(rows) > batch_size else functools.partial(model, training=False)
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    for begin in range(0, len(rows), batch_size):
        batch = by_length[begin : begin + batch_size]
        token_ids, padding_mask = padded([rows[index][0] for index in batch], pad_id)
        segment_ids, _ = padded([rows[index][1] or [0] * len(rows[index][0]) for index in batch], 0)
        inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}
        found = ops.convert_to_numpy(ops.cast(forward(inputs), "float32"))
        for index, output in zip(batch, found, strict=True):
            outputs[index] = output[: len(rows[index][0])] if output.ndim > 1 else output
            if not np.isfinite(outputs[index]).all():
                raise BertKerasError(f"the model gives numbers that are not finite for row {index}")
    return outputs


def graph_of(model: keras.Model) -> Callable[[dict[str, Any]], Any]:
    """The model's output for a batch, without dropout, computed by TensorFlow as one graph for batches of any shape.

    A graph takes little more than half the time of the same operations called one by one from Python, but as long as
    several batches to trace. It is kept while the model has the same variables, which `add_lora` changes. On other
    backends it is the model itself.
    """
    if keras.backend.backend() != "tensorflow":
        return functools.partial(model, training=False)
    import tensorflow as tf

    variables = [id(variable) for variable in model.variables]
    if model not in _graphs or _graphs[model][0] != variables:
        reference: Any = weakref.ref(model)  # the graph must not keep alive what it is kept for
        ids, mask = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool)
        signature = [{"token_ids": ids, "segment_ids": ids, "padding_mask": mask}]

        def outputs(inputs: dict[str, Any]) -> Any:
            with prediction():
                return reference()(inputs, training=False)

        graph = tf.function(outputs, signature, autograph=False)
        _graphs[model] = (variables, graph)
    return _graphs[model][1]


_graphs: weakref.WeakKeyDictionary[keras.Model, tuple[list[int], Any]] = weakref.WeakKeyDictionary()


def needed_tokenizer(tokenizer: WordPieceTokenizer | None, what: str) -> WordPieceTokenizer:
    """The tokenizer, or an error that says who needs one."""
    if tokenizer is None:
        raise BertKerasError(f"{what} needs a tokenizer: pass tokenizer=... or load a preset that holds one")
    return tokenizer


def checked_max_length(max_length: int | None, max_sequence_length: int) -> int | None:
    """`max_length`, which must leave room for text and fit into the position table."""
    if max_length is not None and not 2 < max_length <= max_sequence_length:
        raise BertKerasError(f"max_length must be between 3 and {max_sequence_length}, got {max_length!r}")
    return max_length


def as_list(texts: str | Sequence[str]) -> list[str]:
    """One text or several as a list of texts."""
    return [texts] if isinstance(texts, str) else list(texts)
