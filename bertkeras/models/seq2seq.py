"""BERT that reads one text and writes another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.key_value_cache import CachedReader
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.models.pretrainer import masked_lm_head
from bertkeras.models.running import as_list, needed_tokenizer
from bertkeras.models.search import Decoding, Hypothesis, search
from bertkeras.text.encoding import padded
from bertkeras.text.targets import target_rows
from bertkeras.text.wordpiece import WordPieceTokenizer


@dataclasses.dataclass(frozen=True)
class Generation:
    """A target that was found.

    Args:
        text: The text.
        ids: Its pieces, without `[SEP]`.
        log_probability: Of the pieces, `[SEP]` included, where only what may come has a share.
        finished: Whether `[SEP]` came; if not, `max_new_tokens` cut it off.
    """

    text: str
    ids: list[int]
    log_probability: float
    finished: bool


@dataclasses.dataclass(frozen=True)
class Seq2SeqRows:
    """Pairs of texts as `BertSeq2Seq` learns from them: `model.fit(rows.inputs, rows.labels)`.

    Args:
        inputs: `token_ids`, `segment_ids`, `padding_mask` `(rows, length)`, `output_positions` `(rows, n)`.
        labels: `(rows, n)` integers: the piece after each of the positions, -1 where there is none.
        truncated: How many rows were cut.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray
    truncated: int


@keras.saving.register_keras_serializable(package="bertkeras")
class BertSeq2Seq(PresetModel):
    """`BertBackbone` with the masked-LM head, under a mask that makes it write (Dong et al. 2019).

    A row is `[CLS] source [SEP] target [SEP]`, the source in segment 0, the target in segment 1. Source positions see
    the source, target positions the source and the target up to themselves. The vector of each position predicts the
    next piece, the source's `[SEP]` the first of the target. UniLM itself learns by filling blanks in the target, and
    writes by filling one put at its end; the next piece at every position gives as many lessons as there are pieces.

    With `compile(optimizer)` and no loss, `fit` learns by cross-entropy from `seq2seq_rows`. `from_preset` takes any
    pretrained model that has a masked-LM head.

    Args:
        config: A `BertConfig`, or a dictionary with its fields; two segments at least.
        tokenizer: Turns strings into ids and back; `generate` needs it.

    Call arguments:
        inputs: As for `BertBackbone`, with `segment_ids`; and, if only some positions are to predict,
            `output_positions` `(batch, n)` integers.
        training: Whether dropout is on.

    Returns:
        Logits of the next piece, `(batch, length or n, vocabulary_size)`.

    Raises:
        BertKerasError: One segment only, or no `segment_ids`.

    Reference: UniLM, https://arxiv.org/abs/1905.03197
    """

    def __init__(
        self, config: BertConfig | dict[str, Any], tokenizer: WordPieceTokenizer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        if self.config.num_segments < 2:
            raise BertKerasError(f"source and target need num_segments=2 or more, got {self.config.num_segments}")
        self.backbone = BertBackbone(self.config, with_pooler=False, dtype=self.dtype_policy, name="backbone")
        self.mlm_head = masked_lm_head(self.config, self.dtype_policy)
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.mlm_head.build((None, None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        if inputs.get("segment_ids") is None:
            raise BertKerasError("BertSeq2Seq needs segment_ids: 0 for the source, 1 for the target")
        rest = {name: value for name, value in inputs.items() if name not in ("padding_mask", "output_positions")}
        mask = seq2seq_mask(inputs["segment_ids"], inputs.get("padding_mask"))
        encoded = self.backbone(
            {**rest, "attention_mask": mask}, output_positions=inputs.get("output_positions"), training=training
        )
        return self.mlm_head(encoded["sequence_output"], None, self.backbone.token_table)

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape.get("output_positions", input_shape["token_ids"]), self.config.vocabulary_size)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        weights = ops.cast(y >= 0, "float32")  # (batch, n)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            weights = weights * (sample_weight if len(sample_weight.shape) == 2 else sample_weight[:, None])
        return weighted_mean(cross_entropy(ops.maximum(y, 0), y_pred), weights)

    def generate(
        self,
        sources: str | Sequence[str],
        max_new_tokens: int = 64,
        method: str = "greedy",
        num_beams: int = 4,
        length_penalty: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        no_repeat_ngram: int | None = None,
        batch_size: int = 16,
    ) -> list[str]:
        """The best target for each source, in their order.

        A special token never comes but `[SEP]`, which ends a target. A target does not depend on the sources beside
        its own, up to the rounding of sums; a drawn one depends on the seed and on the number of its source in
        `sources`, so that the same source given twice gets two draws.

        Args:
            sources: One text or several.
            max_new_tokens, method, num_beams, length_penalty, temperature, top_k, top_p, seed, no_repeat_ngram: As in
                `Decoding`.
            batch_size: How many sources are worked on at once.

        Raises:
            BertKerasError: No tokenizer, an option out of range or of another method, or a source that leaves no
                room for `max_new_tokens`.
        """
        decoding = Decoding(
            max_new_tokens,
            method,
            num_beams,
            length_penalty,
            temperature,
            top_k,
            top_p,
            seed,
            no_repeat_ngram,
        )
        return [best.text for best, *_ in self.generations(sources, decoding, batch_size)]

    def generations(
        self, sources: str | Sequence[str], decoding: Decoding, batch_size: int = 16
    ) -> list[list[Generation]]:
        """As `generate`, with probabilities: for each source up to `num_beams` targets, best first."""
        tokenizer, limit = needed_tokenizer(self.tokenizer, "generate"), self.config.max_sequence_length
        sources = as_list(sources)
        rows = [encoding.ids for encoding in tokenizer.encode_batch(sources)]
        for text, row in zip(sources, rows, strict=True):
            if len(row) + decoding.max_new_tokens - 1 > limit:  # the last piece is written, not read
                raise BertKerasError(
                    f"{len(row)} pieces in {text[:40]!r}... and max_new_tokens={decoding.max_new_tokens}, but the "
                    f"model has {limit} positions; shorten the source or ask for fewer"
                )
        allowed = np.zeros(self.config.vocabulary_size, bool)  # the table may have rows that are no piece
        allowed[: tokenizer.vocabulary_size] = ~tokenizer.special_flags()
        allowed[tokenizer.sep_id] = True
        found: list[list[Generation]] = [[] for _ in rows]
        by_length = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # little padding in each batch
        for begin in range(0, len(rows), batch_size):
            batch = by_length[begin : begin + batch_size]
            token_ids, padding_mask = padded([rows[number] for number in batch], tokenizer.pad_id)
            filling = ((0, 0), (0, min(-token_ids.shape[1] % 32, limit - token_ids.shape[1])))  # so few shapes
            token_ids, padding_mask = np.pad(token_ids, filling), np.pad(padding_mask, filling)
            reader = CachedReader(
                self.backbone, self.mlm_head, token_ids, padding_mask, new_pieces=decoding.max_new_tokens - 1
            )
            targets = search(reader.logits, reader.step, decoding, allowed, tokenizer.sep_id, batch)
            for number, best in zip(batch, targets, strict=True):
                found[number] = [generation(target, tokenizer) for target in best]
        return found


def generation(target: Hypothesis, tokenizer: WordPieceTokenizer) -> Generation:
    """A target with its text, the `[SEP]` at its end left out."""
    finished = target.ids[-1] == tokenizer.sep_id
    ids = list(target.ids[:-1] if finished else target.ids)
    return Generation(tokenizer.decode(ids), ids, target.log_probability, finished)


def seq2seq_mask(segment_ids: Any, padding_mask: Any = None) -> Any:
    """Who sees whom, `(batch, length, length)` booleans, queries by keys.

    A source position comes at 0 and the target's positions at 1, 2, 3, ...: each sees what comes no later than itself.
    Padding sees nobody and is seen by nobody.

    Args:
        segment_ids: `(batch, length)` integers, 0 for the source and 1 for the target, which stands behind it.
        padding_mask: `(batch, length)` booleans, `True` = a token; `None` if all are.
    """
    order = ops.cumsum(ops.cast(segment_ids > 0, "int32"), axis=1)  # (batch, length)
    mask = ops.less_equal(order[:, None, :], order[:, :, None])
    if padding_mask is None:
        return mask
    return ops.logical_and(mask, ops.logical_and(padding_mask[:, None, :], padding_mask[:, :, None]))


def seq2seq_rows(
    tokenizer: WordPieceTokenizer, sources: Sequence[str], targets: Sequence[str], max_length: int
) -> Seq2SeqRows:
    """Pairs of source and target as rows to learn from.

    Args:
        tokenizer: Turns strings into ids.
        sources: The texts to read.
        targets: The texts to write, one for each source.
        max_length: Most pieces of a row, special tokens included. Of a longer row the longer text is cut first; a
            target that was cut does not teach where to end.

    Raises:
        BertKerasError: Not as many targets as sources, or none, or no room for text in `max_length`.

    Example:

    >>> from bertkeras import WordPieceTokenizer, seq2seq_rows
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"])
    >>> rows = seq2seq_rows(tokenizer, ["one two"], ["three"], max_length=16)
    >>> [tokenizer.id_to_token(piece) for piece in rows.inputs["token_ids"][0]]
    ['[CLS]', 'one', 'two', '[SEP]', 'three', '[SEP]']
    >>> rows.inputs["output_positions"].tolist(), [tokenizer.id_to_token(piece) for piece in rows.labels[0]]
    ([[3, 4]], ['three', '[SEP]'])
    """
    rows = target_rows(tokenizer, sources, targets, max_length)
    if not rows:
        raise BertKerasError("no pair of texts to make rows of; give at least one source and its target")
    token_ids, padding_mask = padded([row.encoding.ids for row in rows], tokenizer.pad_id)
    segment_ids, _ = padded([row.encoding.segment_ids for row in rows], 0)
    output_positions, _ = padded([list(row.positions) for row in rows], 0)
    inputs = {
        "token_ids": token_ids,
        "segment_ids": segment_ids,
        "padding_mask": padding_mask,
        "output_positions": output_positions,
    }
    return Seq2SeqRows(inputs, padded([row.labels for row in rows], -1)[0], sum(row.cut for row in rows))
