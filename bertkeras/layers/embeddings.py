"""Token, position and segment embeddings (Devlin et al. 2019, figure 2)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers.common import bert_initializer, make_position_initializer
from bertkeras.layers.dropout import Dropout
from bertkeras.layers.layer_norm import LayerNormalization


@keras.saving.register_keras_serializable(package="bertkeras")
class BertEmbeddings(keras.layers.Layer):
    """`dropout(layer_norm(token + position + segment))`.

    The segment rows are added by a product with a one-hot matrix and the positions by a slice, so that their
    gradients are dense: Keras 3.15 on TensorFlow squares a sparse gradient in Adam without summing repeated rows. The
    tables are read, and their gradients summed, in their own precision, whatever that of the layer.

    Args:
        vocabulary_size: Rows of the token table.
        hidden_dim: Width.
        max_sequence_length: Rows of the position table.
        num_segments: Rows of the segment table.
        dropout: Dropout rate, in training only.
        layer_norm_epsilon: Added to the variance.
        initializer_range: Standard deviation of the truncated normal that draws the tables.
        positions: `"learned"`, a table, or `"rotary"`: none, since queries and keys are turned by their positions.
        position_initializer: `"normal"` draws the position table like the others; `"sinusoidal"` lets it begin as sines
            and cosines (Vaswani et al. 2017), from which it goes on to learn.
        seed: Seed of the dropout; `None` takes one from `keras.utils.set_random_seed`.

    Call arguments:
        token_ids: `(batch, length)` integers.
        segment_ids: `(batch, length)` integers; `None` means all zero.
        position_ids: `(batch, length)` integers; `None` means `0, 1, 2, ...`. Packed rows need them.
        token_vectors: `(batch, length, hidden_dim)`: these in the place of the rows of the token table that `token_ids`
            name, to see what the outputs owe to them.
        training: Whether dropout is on.

    Returns:
        `(batch, length, hidden_dim)`.

    Raises:
        BertKerasError: More tokens in a row than there are positions.
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        max_sequence_length: int = 512,
        num_segments: int = 2,
        dropout: float = 0.0,
        layer_norm_epsilon: float = 1e-12,
        initializer_range: float = 0.02,
        positions: str = "learned",
        position_initializer: str = "normal",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments
        self.dropout = dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.positions = positions
        self.position_initializer = position_initializer
        self.seed = seed
        self.layer_norm = LayerNormalization(epsilon=layer_norm_epsilon, dtype=self.dtype_policy, name="layer_norm")
        self.embedding_dropout = Dropout(dropout, seed=seed, dtype=self.dtype_policy)

    def build(self, token_ids_shape: tuple[int | None, ...], **_: Any) -> None:
        def table(name: str, rows: int, initializer: keras.initializers.Initializer) -> Any:
            shape = (rows, self.hidden_dim)
            return self.add_weight(shape=shape, initializer=initializer, autocast=False, name=name)

        for_positions = make_position_initializer(self.position_initializer, self.initializer_range)
        self.token_table = table("token_table", self.vocabulary_size, bert_initializer(self.initializer_range))
        self.position_table = None
        if self.positions == "learned":
            self.position_table = table("position_table", self.max_sequence_length, for_positions)
        self.segment_table = table("segment_table", self.num_segments, bert_initializer(self.initializer_range))
        self.layer_norm.build((None, None, self.hidden_dim))

    def call(
        self,
        token_ids: Any,
        segment_ids: Any = None,
        position_ids: Any = None,
        token_vectors: Any = None,
        training: bool | None = None,
    ) -> Any:
        length = ops.shape(token_ids)[1]
        has_table = self.position_table is not None
        if has_table and position_ids is None and isinstance(length, int) and length > self.max_sequence_length:
            raise BertKerasError(
                f"a row has {length} tokens, but there are only {self.max_sequence_length} positions; cut the rows, or "
                "build the model with a larger max_sequence_length"
            )
        tokens = token_vectors
        if tokens is None:
            tokens = ops.take(self.token_table, token_ids, axis=0)  # (batch, length, hidden_dim)
        if self.position_table is None:
            positions = 0
        elif position_ids is None:
            positions = self.position_table[:length]  # (length, hidden_dim)
        else:
            positions = self._rows(self.position_table, position_ids)  # (batch, length, hidden_dim)
        segments = self.segment_table[0] if segment_ids is None else self._rows(self.segment_table, segment_ids)
        embeddings = ops.cast(tokens + positions + segments, self.compute_dtype)
        return self.embedding_dropout(self.layer_norm(embeddings), training=training)

    @staticmethod
    def _rows(table: Any, ids: Any) -> Any:
        """`table[ids]` as a product with a one-hot matrix."""
        return ops.matmul(ops.one_hot(ids, table.shape[0], dtype=table.dtype), table)

    def compute_output_shape(self, token_ids_shape: tuple[int | None, ...], **_: Any) -> tuple[int | None, ...]:
        return (*token_ids_shape, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "max_sequence_length": self.max_sequence_length,
            "num_segments": self.num_segments,
            "dropout": self.dropout,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_range": self.initializer_range,
            "positions": self.positions,
            "position_initializer": self.position_initializer,
            "seed": self.seed,
        }
