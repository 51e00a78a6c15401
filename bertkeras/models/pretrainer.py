"""BERT with the heads it is pretrained with, and the loss of pretraining."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.layers import MaskedLMHead, NextSentenceHead
from bertkeras.layers.recompute import savings
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.chunked_head import sums_in_chunks
from bertkeras.models.losses import losses_and_points
from bertkeras.text.wordpiece import WordPieceTokenizer


@keras.saving.register_keras_serializable(package="bertkeras")
class BertPretrainer(PresetModel):
    """`BertBackbone` with a masked-LM head and, unless `next_sentence=False`, a next-sentence head.

    With `compile(optimizer)` and no loss, `fit` takes pairs `(inputs, labels)`, where `labels` holds `mlm_labels`
    and `mlm_weights` `(batch, predictions)` and `nsp_labels` `(batch,)`. `bertkeras.training.pretrain` is the
    trainer with checkpoints, exact resume and baselines.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        next_sentence: Whether there is a head for sentence pairs. It serves next-sentence and sentence-order
            labels alike.
        tokenizer: Kept with the model in presets.

    Call arguments:
        inputs: As for `BertBackbone`, and `mask_positions` `(batch, predictions)` integers. `training_inputs` may add
            the labels.
        training: Whether dropout is on.

    Returns:
        A dictionary: `mlm_logits` `(batch, predictions, vocabulary_size)` and, with the second head,
        `nsp_logits` `(batch, 2)`. Where the labels are among the inputs, the sums `mlm_loss` and `mlm_accuracy` of
        `pretraining_sums` take the place of the first.
    """

    preset_options: ClassVar[tuple[str, ...]] = ("next_sentence",)
    can_do_without: ClassVar[dict[str, str]] = {
        "nsp_head/": "next_sentence=False",
        "backbone/pooler/": "next_sentence=False",
    }

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        next_sentence: bool = True,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        self.next_sentence = next_sentence
        self.backbone = BertBackbone(self.config, with_pooler=next_sentence, dtype=self.dtype_policy, name="backbone")
        self.mlm_head = masked_lm_head(self.config, self.dtype_policy)
        self.nsp_head = (
            NextSentenceHead(self.config.initializer_range, dtype=self.dtype_policy, name="nsp_head")
            if next_sentence
            else None
        )
        self.trackers = [keras.metrics.Mean(name=name) for name in METRICS if next_sentence or "nsp" not in name]
        self.build()

    def build(self, input_shape: Any = None) -> None:
        hidden_dim = self.config.hidden_dim
        self.mlm_head.build((None, None, hidden_dim))
        if self.nsp_head is not None:
            self.nsp_head.build((None, hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        encoded = self.backbone(inputs, output_positions=inputs["mask_positions"], training=training)
        vectors, table = encoded["sequence_output"], self.backbone.token_table
        if "mlm_labels" in inputs:
            of_loss = inputs["mlm_labels"], ops.cast(inputs["mlm_weights"], "float32"), savings().head_chunks
            outputs = dict(
                zip(("mlm_loss", "mlm_accuracy"), sums_in_chunks(self.mlm_head, vectors, table, *of_loss), strict=True)
            )
        else:
            outputs = {"mlm_logits": self.mlm_head(vectors, None, table)}
        if self.nsp_head is not None:
            outputs["nsp_logits"] = self.nsp_head(encoded["pooled_output"])
        return outputs

    def compute_output_shape(self, input_shape: dict[str, Any]) -> dict[str, Any]:
        shapes = {"mlm_logits": (*input_shape["mask_positions"], self.config.vocabulary_size)}
        if self.next_sentence:
            shapes["nsp_logits"] = (input_shape["token_ids"][0], 2)
        return shapes

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool | None = True,
    ) -> Any:
        if sample_weight is not None:
            raise BertKerasError("BertPretrainer takes its weights as labels['mlm_weights'], not as sample_weight")
        sums = pretraining_sums(y_pred, y)
        for tracker in self.trackers:
            kind = tracker.name.split("_")[0]
            count = sums[f"{kind}_count"]
            tracker.update_state(sums[tracker.name] / ops.maximum(count, 1.0), sample_weight=count)
        return pretraining_loss(sums, sums)


METRICS = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")


def masked_lm_head(config: BertConfig, dtype: Any) -> MaskedLMHead:
    """The masked-LM head that belongs to a backbone of this configuration."""
    return MaskedLMHead(
        config.vocabulary_size,
        activation=config.activation,
        layer_norm_epsilon=config.layer_norm_epsilon,
        initializer_range=config.initializer_range,
        tied=config.tie_embeddings,
        dtype=dtype,
        name="mlm_head",
    )


def training_inputs(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
    """The inputs, with the labels of the masked-LM head where it is to score its positions in chunks."""
    return inputs if savings().head_chunks == 1 else inputs | {n: labels[n] for n in ("mlm_labels", "mlm_weights")}


def pretraining_sums(outputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
    """Sums of loss and of right answers, and the counts they run over, all float32 scalars.

    Sums rather than means, because only sums may be added over micro-batches, replicas and hosts.

    Args:
        outputs: Of `BertPretrainer`.
        labels: `mlm_labels` `(batch, predictions)` integers, `mlm_weights` `(batch, predictions)` with 1 where a
            position counts and 0 where it is filling, and, if there is a next-sentence head, `nsp_labels` `(batch,)`.

    Returns:
        `mlm_loss`, `mlm_accuracy`, `mlm_count` and, with the second head, the same three with `nsp_`.
    """
    parts = [("mlm", labels["mlm_labels"], ops.cast(labels["mlm_weights"], "float32"))]
    if "nsp_logits" in outputs:
        parts.append(("nsp", labels["nsp_labels"], ops.ones_like(labels["nsp_labels"], dtype="float32")))
    sums: dict[str, Any] = {}
    for kind, targets, weights in parts:
        if f"{kind}_logits" not in outputs:
            sums |= {name: outputs[name] for name in ("mlm_loss", "mlm_accuracy")} | {"mlm_count": ops.sum(weights)}
            continue
        logits = outputs[f"{kind}_logits"]
        targets, weights = ops.reshape(targets, (-1,)), ops.reshape(weights, (-1,))
        losses, points = losses_and_points(targets, ops.reshape(logits, (-1, logits.shape[-1])))
        sums[f"{kind}_loss"] = ops.sum(losses * weights)
        sums[f"{kind}_accuracy"] = ops.sum(points * weights)
        sums[f"{kind}_count"] = ops.sum(weights)
    return sums


def pretraining_loss(sums: dict[str, Any], counts: dict[str, Any]) -> Any:
    """The loss to differentiate: each sum over the *global* count, MLM plus NSP.

    Args:
        sums: From `pretraining_sums`, of a whole batch or of a part of it.
        counts: The counts of the whole global batch. Where there is only one part, `sums` itself.
    """
    loss = sums["mlm_loss"] / ops.maximum(counts["mlm_count"], 1.0)
    if "nsp_loss" in sums:
        loss = loss + sums["nsp_loss"] / ops.maximum(counts["nsp_count"], 1.0)
    return loss
