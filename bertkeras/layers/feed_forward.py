"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bertkeras.layers.common import bert_initializer, get_activation
from bertkeras.layers.dense import Dense, as_rows


@keras.saving.register_keras_serializable(package="bertkeras")
class PositionwiseFeedForward(keras.layers.Layer):
    """`activation(x W_1 + b_1) W_2 + b_2`, the same at every position; no residual inside.

    With a gate it is `(activation(x U + b) * (x V + c)) W_2 + b_2`; `U` and `V` are the halves of one kernel.

    Args:
        intermediate_dim: Width between the two products, `4 * hidden_dim` in BERT.
        activation: `"gelu"` (erf), `"gelu_tanh"` or another Keras activation name.
        gated: Whether there is a gate (Shazeer 2020, GLU Variants Improve Transformer,
            https://arxiv.org/abs/2002.05202). It takes half as many weights more, or as many with two thirds of the
            width.
        initializer_range: Standard deviation of the truncated normal that draws the kernels.

    Call arguments:
        inputs: `(batch, length, hidden_dim)`.

    Returns:
        `(batch, length, hidden_dim)`.

    Example:

    >>> import numpy as np
    >>> from bertkeras.layers import PositionwiseFeedForward
    >>> tuple(PositionwiseFeedForward(intermediate_dim=12)(np.ones((2, 5, 3), "float32")).shape)
    (2, 5, 3)
    """

    def __init__(
        self,
        intermediate_dim: int,
        activation: str = "gelu",
        gated: bool = False,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.activation = activation
        self.gated = gated
        self.initializer_range = initializer_range
        self.activation_function = get_activation(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        scale = self.initializer_range
        width = self.intermediate_dim * (2 if self.gated else 1)
        self.expand = Dense(width, kernel_initializer=bert_initializer(scale), dtype=self.dtype_policy, name="expand")
        self.contract = Dense(
            input_shape[-1], kernel_initializer=bert_initializer(scale), dtype=self.dtype_policy, name="contract"
        )
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.intermediate_dim))

    def call(self, inputs: Any) -> Any:
        rows = as_rows(inputs)
        if self.gated:
            opening, content = ops.split(self.expand(rows), 2, axis=-1)
            hidden = self.activation_function(opening) * content  # (batch, length, intermediate_dim)
        else:
            hidden = self.activation_function(self.expand(rows))  # (batch, length, intermediate_dim)
        outputs = self.contract(hidden)  # (batch, length, hidden_dim)
        return outputs if rows is inputs else ops.reshape(outputs, ops.shape(inputs))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": self.activation,
            "gated": self.gated,
            "initializer_range": self.initializer_range,
        }
