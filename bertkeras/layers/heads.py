"""The two heads that pretraining needs (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bertkeras.layers.common import bert_initializer, get_activation, take_positions, xla_on_accelerator
from bertkeras.layers.dense import Dense, affine
from bertkeras.layers.layer_norm import LayerNormalization


@keras.saving.register_keras_serializable(package="bertkeras")
class MaskedLMHead(keras.layers.Layer):
    """Scores every word piece at the masked positions only.

    `logits = layer_norm(activation(x W + b)) E^T + c`, where `E` is the token table of the embeddings or, with
    `tied=False`, a table of the head's own, and `c` a bias per piece. Only the `predictions` positions asked for are
    computed: at 15 % masking that is a sixth of the work of scoring every position, on the most expensive product of
    a small BERT.

    Args:
        vocabulary_size: Number of word pieces.
        activation: `"gelu"` (erf), `"gelu_tanh"` or another Keras activation name.
        layer_norm_epsilon: Added to the variance.
        initializer_range: Standard deviation of the truncated normal that draws the kernel.
        tied: Whether the scores come from the token table of the embeddings.

    Call arguments:
        inputs: `(batch, length, hidden_dim)`.
        mask_positions: `(batch, predictions)` integers in `[0, length)`; the unused ones may hold 0. `None` says
            that `inputs` are the masked positions already.
        embedding_table: `(vocabulary_size, hidden_dim)`, the token table; not looked at with `tied=False`.

    Returns:
        Logits, `(batch, predictions, vocabulary_size)`, in the compute dtype.
    """

    def __init__(
        self,
        vocabulary_size: int,
        activation: str = "gelu",
        layer_norm_epsilon: float = 1e-12,
        initializer_range: float = 0.02,
        tied: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # which would round the table before its time
        self.vocabulary_size = vocabulary_size
        self.tied = tied
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.activation_function = get_activation(activation)
        self.layer_norm = LayerNormalization(epsilon=layer_norm_epsilon, dtype=self.dtype_policy, name="layer_norm")

    def build(self, inputs_shape: tuple[int | None, ...], *_: Any, **__: Any) -> None:
        hidden_dim = inputs_shape[-1]
        self.transform = Dense(
            hidden_dim,
            kernel_initializer=bert_initializer(self.initializer_range),
            dtype=self.dtype_policy,
            name="transform",
        )
        self.transform.build(inputs_shape)
        self.layer_norm.build(inputs_shape)
        self.output_bias = self.add_weight(
            shape=(self.vocabulary_size,), initializer="zeros", autocast=False, name="output_bias"
        )
        if not self.tied:
            self.output_table = self.add_weight(
                shape=(self.vocabulary_size, hidden_dim),
                initializer=bert_initializer(self.initializer_range),
                autocast=False,
                name="output_table",
            )

    def call(self, inputs: Any, mask_positions: Any, embedding_table: Any = None) -> Any:
        x = inputs if mask_positions is None else take_positions(inputs, mask_positions)
        # (batch, predictions, hidden_dim)
        x = self.layer_norm(self.activation_function(self.transform(x)))
        table = embedding_table if self.tied else self.output_table
        bias, more = self.output_bias, -self.vocabulary_size % 64 if xla_on_accelerator() else 0
        if more:  # the matrix units of a GPU read rows of a round length several times as fast
            table, bias = ops.pad(table, ((0, more), (0, 0))), ops.pad(bias, (0, more))
        return affine(x, table, bias, transposed=True)[..., : self.vocabulary_size]

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        mask_positions_shape: tuple[int | None, ...] | None,
        embedding_table_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        return (*(mask_positions_shape or inputs_shape[:-1]), self.vocabulary_size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_range": self.initializer_range,
            "tied": self.tied,
        }


@keras.saving.register_keras_serializable(package="bertkeras")
class NextSentenceHead(keras.layers.Layer):
    """Two scores from the pooled `[CLS]` vector: 0 = B follows A, 1 = it does not.

    Args:
        initializer_range: Standard deviation of the truncated normal that draws the kernel.

    Call arguments:
        inputs: `(batch, hidden_dim)`.

    Returns:
        Logits, `(batch, 2)`.
    """

    def __init__(self, initializer_range: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initializer_range = initializer_range
        self.dense = Dense(
            2, kernel_initializer=bert_initializer(initializer_range), dtype=self.dtype_policy, name="scores"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.dense.build(input_shape)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initializer_range": self.initializer_range}
