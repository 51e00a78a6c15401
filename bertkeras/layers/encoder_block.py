"""One block of the Transformer encoder (Vaswani et al. 2017, figure 1, left)."""

from __future__ import annotations

from typing import Any

import keras

from bertkeras.layers.attention import MultiHeadSelfAttention
from bertkeras.layers.common import take_positions
from bertkeras.layers.dropout import Dropout
from bertkeras.layers.feed_forward import PositionwiseFeedForward
from bertkeras.layers.layer_norm import LayerNormalization


@keras.saving.register_keras_serializable(package="bertkeras")
class TransformerEncoderBlock(keras.layers.Layer):
    """Self-attention, then a feed-forward network, each with a residual and a layer norm.

    Post-norm (BERT): `x = norm(x + dropout(f(x)))`. Pre-norm (`norm_first=True`): `x = x + dropout(f(norm(x)))`.

    Args:
        num_heads: Attention heads; divides the width of the input.
        intermediate_dim: Width inside the feed-forward network.
        dropout: Dropout rate on what each half adds to the residual stream.
        attention_dropout: Dropout rate on the attention probabilities.
        activation: `"gelu"` (erf), `"gelu_tanh"` or another Keras activation name.
        layer_norm_epsilon: Added to the variance.
        rotary: Whether queries and keys are turned by their positions, as in `MultiHeadSelfAttention`.
        gated: Whether the feed-forward network has a gate, as in `PositionwiseFeedForward`.
        norm_first: Pre-norm (Xiong et al. 2020) instead of post-norm.
        initializer_range: Standard deviation of the truncated normal that draws the kernels.
        seed: Seed of the dropouts; `None` takes one from `keras.utils.set_random_seed`.

    Call arguments:
        inputs: `(batch, length, hidden_dim)`.
        attention_mask: As in `MultiHeadSelfAttention`.
        return_attention_scores: Also return the probabilities, `(batch, num_heads, length, length)`.
        output_positions: `(batch, n)` integers: compute the block at these positions only, which see all the others.
            They give the same rows as without.
        training: Whether dropout is on.

    Returns:
        `(batch, length or n, hidden_dim)`, or a pair of it and the probabilities.
    """

    def __init__(
        self,
        num_heads: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: str = "gelu",
        layer_norm_epsilon: float = 1e-12,
        rotary: bool = False,
        gated: bool = False,
        norm_first: bool = False,
        initializer_range: float = 0.02,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.rotary = rotary
        self.gated = gated
        self.norm_first = norm_first
        self.initializer_range = initializer_range
        self.seed = seed

        def seed_of(part: int) -> int | None:
            return None if seed is None else seed + part

        self.attention = MultiHeadSelfAttention(
            num_heads,
            dropout=attention_dropout,
            rotary=rotary,
            initializer_range=initializer_range,
            seed=seed_of(0),
            dtype=self.dtype_policy,
            name="attention",
        )
        self.feed_forward = PositionwiseFeedForward(
            intermediate_dim,
            activation=activation,
            gated=gated,
            initializer_range=initializer_range,
            dtype=self.dtype_policy,
            name="feed_forward",
        )
        self.attention_norm, self.feed_forward_norm = (
            LayerNormalization(epsilon=layer_norm_epsilon, dtype=self.dtype_policy, name=name)
            for name in ("attention_norm", "feed_forward_norm")
        )
        self.attention_output_dropout, self.feed_forward_dropout = (
            Dropout(dropout, seed=seed_of(part), dtype=self.dtype_policy) for part in (1, 2)
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.attention, self.attention_norm, self.feed_forward, self.feed_forward_norm):
            layer.build(input_shape)

    def call(
        self,
        inputs: Any,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        output_positions: Any = None,
        training: bool | None = None,
    ) -> Any:
        attended = self.attention(
            self.attention_norm(inputs) if self.norm_first else inputs,
            attention_mask,
            return_attention_scores=return_attention_scores,
            query_positions=output_positions,
            training=training,
        )
        attended, scores = attended if return_attention_scores else (attended, None)
        if output_positions is not None:
            inputs = take_positions(inputs, output_positions)  # (batch, n, hidden_dim)
        x = self.after_attention(inputs, attended, training=training)
        return (x, scores) if return_attention_scores else x

    def after_attention(self, inputs: Any, attended: Any, training: bool | None = None) -> Any:
        """The block from `attended` on, the attention's output at the positions of `inputs`, both of one shape."""
        x = inputs + self.attention_output_dropout(attended, training=training)
        if not self.norm_first:
            x = self.attention_norm(x)
        hidden = self.feed_forward(self.feed_forward_norm(x) if self.norm_first else x)
        x = x + self.feed_forward_dropout(hidden, training=training)
        return x if self.norm_first else self.feed_forward_norm(x)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def compute_output_spec(
        self,
        inputs: Any,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        output_positions: Any = None,
        training: bool | None = None,
    ) -> Any:
        return self.attention.compute_output_spec(inputs, attention_mask, return_attention_scores, output_positions)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "rotary": self.rotary,
            "gated": self.gated,
            "norm_first": self.norm_first,
            "initializer_range": self.initializer_range,
            "seed": self.seed,
        }
