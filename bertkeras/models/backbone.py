"""The BERT encoder: ids in, vectors out."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.layers import BertEmbeddings, TransformerEncoderBlock
from bertkeras.layers.attention import mask_of_sequences
from bertkeras.layers.common import bert_initializer
from bertkeras.layers.dense import Dense
from bertkeras.layers.flash import flash_sequences
from bertkeras.layers.layer_norm import LayerNormalization
from bertkeras.layers.recompute import recomputed, savings
from bertkeras.models.base import PresetModel
from bertkeras.text.wordpiece import WordPieceTokenizer


@keras.saving.register_keras_serializable(package="bertkeras")
class BertBackbone(PresetModel):
    """Embeddings, `num_layers` encoder blocks and, on the first position, a pooler.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        with_pooler: Whether there is a pooler. Models that need each position's vector only have none.
        tokenizer: Kept with the model in presets; not used in the call.

    Call arguments:
        inputs: A dictionary of `(batch, length)` tensors. `token_ids` (integers) is required. `segment_ids`
            (integers) defaults to zero. `padding_mask` (boolean, `True` = a token) defaults to all tokens. Rows
            that hold several sequences give `sequence_ids` instead of the mask (1, 2, ... in each row, 0 =
            padding), so that no sequence sees another, and `position_ids` that start anew in each. Any other rule
            of who sees whom is an `attention_mask` instead, `(batch, length, length)` boolean, queries by keys.
            `token_vectors` `(batch, length, hidden_dim)` stand in for the rows of the token table, as in
            `BertEmbeddings`.
        output_positions: `(batch, n)` integers: the positions whose vectors are wanted, all if `None`. The last
            block then leaves the others out: with one in six masked, it does three eighths of its work, and the vectors
            asked for are the same.
        training: Whether dropout is on.

    Returns:
        A dictionary: `sequence_output` `(batch, length or n, hidden_dim)` and, with a pooler, `pooled_output`
        `(batch, hidden_dim)`.

    Example:

    >>> import numpy as np
    >>> from bertkeras import BertBackbone, BertConfig
    >>> backbone = BertBackbone(BertConfig.from_size("tiny", vocabulary_size=97))
    >>> outputs = backbone({"token_ids": np.ones((2, 7), "int32")})
    >>> tuple(outputs["sequence_output"].shape), tuple(outputs["pooled_output"].shape)
    ((2, 7, 128), (2, 128))

    Reference: Devlin et al. 2019, https://arxiv.org/abs/1810.04805
    """

    canonical_prefix = "backbone/"
    preset_options: ClassVar[tuple[str, ...]] = ("with_pooler",)
    can_do_without: ClassVar[dict[str, str]] = {"backbone/pooler/": "with_pooler=False"}

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        with_pooler: bool = True,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        self.with_pooler = with_pooler
        config = self.config
        self.embeddings = BertEmbeddings(
            config.vocabulary_size,
            config.hidden_dim,
            config.max_sequence_length,
            config.num_segments,
            dropout=config.dropout,
            layer_norm_epsilon=config.layer_norm_epsilon,
            initializer_range=config.initializer_range,
            positions=config.positions,
            position_initializer=config.position_initializer,
            dtype=self.dtype_policy,
            name="embeddings",
        )
        self.encoder_blocks = [
            TransformerEncoderBlock(
                config.num_heads,
                config.intermediate_dim,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=config.activation,
                layer_norm_epsilon=config.layer_norm_epsilon,
                rotary=config.positions == "rotary",
                gated=config.gated_feed_forward,
                norm_first=config.norm_first,
                initializer_range=config.initializer_range,
                dtype=self.dtype_policy,
                name=f"encoder_{index}",
            )
            for index in range(config.num_layers)
        ]
        self.final_norm = (
            LayerNormalization(epsilon=config.layer_norm_epsilon, dtype=self.dtype_policy, name="final_norm")
            if config.norm_first
            else None
        )
        self.pooler = (
            Dense(
                config.hidden_dim,
                activation="tanh",
                kernel_initializer=bert_initializer(config.initializer_range),
                dtype=self.dtype_policy,
                name="pooler",
            )
            if with_pooler
            else None
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        hidden_shape = (None, None, self.config.hidden_dim)
        self.embeddings.build((None, None))
        for block in self.encoder_blocks:
            block.build(hidden_shape)
        if self.final_norm is not None:
            self.final_norm.build(hidden_shape)
        if self.pooler is not None:
            self.pooler.build((None, self.config.hidden_dim))
        self.built = True

    def call(
        self, inputs: dict[str, Any], output_positions: Any = None, training: bool | None = None
    ) -> dict[str, Any]:
        x = self.embeddings(
            inputs["token_ids"],
            segment_ids=inputs.get("segment_ids"),
            position_ids=inputs.get("position_ids"),
            token_vectors=inputs.get("token_vectors"),
            training=training,
        )  # (batch, length, hidden_dim)
        mask = attention_mask(inputs)
        wanted = output_positions
        if wanted is not None and self.pooler is not None:  # the pooler reads the first
            first = ops.zeros_like(inputs["token_ids"][:, :1])
            wanted = ops.concatenate([first, ops.cast(wanted, first.dtype)], axis=1)
        for block in self.encoder_blocks:
            positions = wanted if block is self.encoder_blocks[-1] else None
            if training and savings().recompute:
                x = recomputed(block, x, attention_mask=mask, output_positions=positions)
            else:
                x = block(x, attention_mask=mask, output_positions=positions, training=training)
        if self.final_norm is not None:
            x = self.final_norm(x)
        if self.pooler is None:
            return {"sequence_output": x}
        return {
            "sequence_output": x if wanted is None else x[:, 1:],
            "pooled_output": self.pooler(x[:, 0]),
        }

    def compute_output_shape(
        self, inputs_shape: dict[str, Any], output_positions_shape: tuple[int | None, ...] | None = None
    ) -> dict[str, Any]:
        batch, length = output_positions_shape or inputs_shape["token_ids"]
        hidden_dim = self.config.hidden_dim
        pooled = {"pooled_output": (batch, hidden_dim)} if self.with_pooler else {}
        return {"sequence_output": (batch, length, hidden_dim), **pooled}

    @property
    def token_table(self) -> keras.Variable:
        """The token embeddings, `(vocabulary_size, hidden_dim)`, which the masked-LM head shares."""
        return self.embeddings.token_table


def attention_mask(inputs: dict[str, Any]) -> Any:
    """Who may attend to whom: the padding mask, or as given; of packed rows for all blocks at once, or their ids."""
    names = ("padding_mask", "sequence_ids", "attention_mask")
    given = [name for name in names if inputs.get(name) is not None]
    if len(given) > 1:
        raise BertKerasError(
            f"give {' or '.join(given)}, not both: a packed row marks its padding with id 0, and an attention_mask "
            "says of every position who sees it"
        )
    if given != ["sequence_ids"]:
        return inputs[given[0]] if given else None
    sequence_ids = inputs["sequence_ids"]
    return sequence_ids if flash_sequences() else mask_of_sequences(sequence_ids)
