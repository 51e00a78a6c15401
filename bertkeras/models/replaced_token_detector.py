"""A BERT that learns from every position: which pieces are not the original ones (ELECTRA)."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.layers import TransformerEncoderBlock
from bertkeras.layers.dense import Dense
from bertkeras.models.backbone import BertBackbone, attention_mask
from bertkeras.models.base import PresetModel
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.models.pretrainer import masked_lm_head
from bertkeras.text.wordpiece import WordPieceTokenizer


@keras.saving.register_keras_serializable(package="bertkeras")
class BertReplacedTokenDetector(PresetModel):
    """A small masked LM fills the blanks, and `BertBackbone` tells its pieces from the original ones.

    The small one, the generator, shares the embeddings, has `generator_layers` blocks of its own and learns as any
    masked LM does. Its fillings are drawn, without a gradient. The backbone then learns from all positions, not from
    the masked sixth alone. With `compile(optimizer)` and no loss, `fit` takes `(inputs, labels)` of the pretraining
    pipeline, the labels being among the inputs too.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        generator_layers: Encoder blocks of the generator; a quarter to a half of the backbone's is good.
        detection_weight: What the loss of telling is multiplied with before it is added to the generator's; 50 in
            ELECTRA.
        tokenizer: Kept with the model in presets.
        seed: Of the fillings; `None` takes one from `keras.utils.set_random_seed`.

    Call arguments:
        inputs: As for `BertBackbone`, masked, with `mask_positions`, `mlm_labels` and `mlm_weights`, each
            `(batch, predictions)`.
        training: Whether dropout is on.

    Returns:
        `mlm_logits` `(batch, predictions, vocabulary_size)`; `detection_logits` `(batch, length)`, above 0 where a
        piece is taken for a replacement; and `is_replaced` `(batch, length)` booleans, what is so.

    Reference: Clark et al. 2020, ELECTRA, https://arxiv.org/abs/2003.10555
    """

    preset_options: ClassVar[tuple[str, ...]] = ("generator_layers", "detection_weight")

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        generator_layers: int = 1,
        detection_weight: float = 50.0,
        tokenizer: WordPieceTokenizer | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        if generator_layers < 1 or detection_weight <= 0:
            raise BertKerasError(
                f"generator_layers and detection_weight must be positive, got {generator_layers} and {detection_weight}"
            )
        config = self.config
        self.generator_layers, self.detection_weight = generator_layers, detection_weight
        self.backbone = BertBackbone(config, with_pooler=False, dtype=self.dtype_policy, name="backbone")
        self.generator_blocks = [
            TransformerEncoderBlock(
                config.num_heads,
                config.intermediate_dim,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=config.activation,
                layer_norm_epsilon=config.layer_norm_epsilon,
                rotary=config.positions == "rotary",
                gated=config.gated_feed_forward,
                initializer_range=config.initializer_range,
                dtype=self.dtype_policy,
                name=f"generator_{index}",
            )
            for index in range(generator_layers)
        ]
        self.mlm_head = masked_lm_head(config, self.dtype_policy)
        self.detector = Dense(1, dtype=self.dtype_policy, name="detector")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = [keras.metrics.Mean(name=name) for name in ("mlm_loss", "detection_loss", "detection_accuracy")]
        self.build()

    def build(self, input_shape: Any = None) -> None:
        shape = (None, None, self.config.hidden_dim)
        for block in self.generator_blocks:
            block.build(shape)
        self.mlm_head.build(shape)
        self.detector.build(shape)
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        x = self.backbone.embeddings(
            inputs["token_ids"],
            segment_ids=inputs.get("segment_ids"),
            position_ids=inputs.get("position_ids"),
            training=training,
        )
        mask, positions = attention_mask(inputs), inputs["mask_positions"]
        for block in self.generator_blocks:
            wanted = positions if block is self.generator_blocks[-1] else None
            x = block(x, attention_mask=mask, output_positions=wanted, training=training)
        mlm_logits = self.mlm_head(x, None, self.backbone.token_table)  # (batch, predictions, vocabulary_size)
        drawn = self._drawn(mlm_logits)

        def filled(pieces: Any) -> Any:
            """The row `(batch, length)` with pieces `(batch, predictions)` in its blanks."""
            return ops.where(is_blank, ops.sum(where * pieces[..., None], axis=1), ids)

        ids = ops.cast(inputs["token_ids"], "int32")
        where = ops.one_hot(positions, ops.shape(ids)[1], dtype="int32")  # (batch, predictions, length)
        where = where * ops.cast(inputs["mlm_weights"] > 0, "int32")[..., None]
        is_blank = ops.sum(where, axis=1) > 0
        seen, original = filled(drawn), filled(ops.cast(inputs["mlm_labels"], "int32"))
        encoded = self.backbone({**inputs, "token_ids": seen}, training=training)["sequence_output"]
        return {
            "mlm_logits": mlm_logits,
            "detection_logits": ops.cast(self.detector(encoded)[..., 0], "float32"),
            "is_replaced": ops.not_equal(seen, original),
        }

    def _drawn(self, logits: Any) -> Any:
        """A piece for each blank, drawn by its probability: the largest of the logits plus Gumbel noise."""
        logits = ops.stop_gradient(ops.cast(logits, "float32"))
        uniform = keras.random.uniform(ops.shape(logits), minval=1e-9, maxval=1.0, seed=self.seed_generator)
        return ops.cast(ops.argmax(logits - ops.log(-ops.log(uniform)), axis=-1), "int32")

    def compute_output_shape(self, input_shape: dict[str, Any]) -> dict[str, Any]:
        rows = input_shape["token_ids"]
        logits = (*input_shape["mask_positions"], self.config.vocabulary_size)
        return {"mlm_logits": logits, "detection_logits": rows, "is_replaced": rows}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        weights = x["mlm_weights"]
        mlm_loss = weighted_mean(cross_entropy(x["mlm_labels"], y_pred["mlm_logits"]), weights)
        is_piece = x.get("padding_mask")
        if is_piece is None and x.get("sequence_ids") is not None:
            is_piece = x["sequence_ids"] > 0
        targets, logits = ops.cast(y_pred["is_replaced"], "float32"), y_pred["detection_logits"]
        detection_loss = weighted_mean(ops.softplus(logits) - logits * targets, is_piece)
        right = ops.cast((logits > 0) == y_pred["is_replaced"], "float32")
        values = (mlm_loss, detection_loss, weighted_mean(right, is_piece))
        for tracker, value in zip(self.trackers, values, strict=True):
            tracker.update_state(value)
        return mlm_loss + self.detection_weight * detection_loss
