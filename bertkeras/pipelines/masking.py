"""Masked-LM targets, drawn anew every time a row is read (dynamic masking, Liu et al. 2019), or once for all."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.pipelines.row_random import content_number, row_uniform


@dataclasses.dataclass(frozen=True)
class Masking:
    """Chooses positions to predict and puts there `[MASK]`, a random word piece, or the piece itself.

    Positions are chosen in units: single pieces, whole words, or runs of up to `max_ngram` whole words. Units are
    taken in a random order until `rate` of the row's pieces are chosen. The unit that crosses that mark is taken
    with a probability equal to its part before the mark, so that the expected share is `rate` exactly, for rows of
    any length, where `max_predictions` leaves room for the last unit (long units in short rows may want twice the
    default). Special pieces are never chosen, never replaced and never put in.

    Args:
        vocabulary_size: Number of word pieces.
        mask_id: Id of `[MASK]`.
        special_ids: Ids that are never predicted, padding among them.
        continuation: `(vocabulary_size,)` booleans, `True` where a piece continues a word (`##ing`); needed for
            whole words.
        max_predictions: Positions per row, a fixed number so that shapes are static.
        rate: Share of the pieces to predict, 0.15 in BERT.
        mask_share: Share of the chosen positions that get `[MASK]`, 0.8 in BERT.
        random_share: Share that get a random piece, 0.1 in BERT; the rest keep their own.
        whole_words: Choose all pieces of a word or none (Cui et al. 2021).
        max_ngram: Longest run of words chosen together; a run of `n` words is drawn with a probability
            proportional to `1 / n` (Lan et al. 2020). More than 1 means whole words.
        dynamic: Whether a row has other masks each time it is read. If not, its masks depend on the seed and on what
            stands in it (static masking, as in BERT's own data).
        seed: The masks of a row depend on this and on its row number only.

    Raises:
        BertKerasError: A share or a size out of range, or whole words asked for without `continuation`.
    """

    vocabulary_size: int
    mask_id: int
    special_ids: tuple[int, ...]
    max_predictions: int
    continuation: np.ndarray | None = None
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_words: bool = False
    max_ngram: int = 1
    dynamic: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise BertKerasError(f"the mask rate must be in (0, 1], got {self.rate!r}")
        if self.mask_share < 0 or self.random_share < 0 or self.mask_share + self.random_share > 1:
            raise BertKerasError(
                f"mask_share and random_share must be shares of 1, got {self.mask_share!r} and {self.random_share!r}"
            )
        if self.max_predictions < 1 or self.max_ngram < 1:
            raise BertKerasError("max_predictions and max_ngram must be at least 1")
        if self.by_words and self.continuation is None:
            raise BertKerasError("whole-word and n-gram masking need `continuation`: which pieces continue a word")

    @property
    def by_words(self) -> bool:
        return self.whole_words or self.max_ngram > 1

    def __call__(self, token_ids: Any, row_numbers: Any, continues_word: Any = None) -> dict[str, Any]:
        """Mask a batch, in graph.

        Args:
            token_ids: `(batch, length)` int32, padded.
            row_numbers: `(batch,)` int64, the rows' places in the stream.
            continues_word: `(batch, length)` booleans, from a segmenter of a language without spaces; `None`
                takes the word boundaries from the vocabulary.

        Returns:
            `token_ids` `(batch, length)`, `mask_positions` `(batch, max_predictions)` ascending, `mlm_labels` the
            ids that stood there, and `mlm_weights` float32 1 where a position counts. Unused places hold position
            0, label 0, weight 0.
        """
        import tensorflow as tf

        length = token_ids.shape[1]
        if not self.dynamic:
            row_numbers = content_number(token_ids)
        special = tf.gather(tf.constant(_flags(self.vocabulary_size, self.special_ids)), token_ids)
        starts_unit = tf.ones_like(special)
        if self.by_words:
            starts_unit = self._starts_unit(token_ids, special, row_numbers, continues_word)
        places = self._choose(starts_unit, special, row_numbers)
        counts = places < length  # (batch, max_predictions)
        positions = tf.where(counts, places, 0)
        labels = tf.where(counts, tf.gather(token_ids, positions, batch_dims=1), 0)

        draw = row_uniform(self.seed, "replacement", row_numbers, 2 * self.max_predictions)
        kind, which = draw[:, : self.max_predictions], draw[:, self.max_predictions :]
        ordinary = np.flatnonzero(~_flags(self.vocabulary_size, self.special_ids)).astype("int32")
        random_ids = tf.gather(ordinary, tf.cast(which * len(ordinary), tf.int32))
        put = tf.where(kind < self.mask_share + self.random_share, random_ids, labels)
        put = tf.where(kind < self.mask_share, self.mask_id, put)

        batch_index = tf.broadcast_to(tf.range(tf.shape(token_ids)[0])[:, None], tf.shape(places))
        one_more = tf.pad(token_ids, [[0, 0], [0, 1]])  # takes what is put at unused places
        masked_ids = tf.tensor_scatter_nd_update(one_more, tf.stack([batch_index, places], axis=-1), put)[:, :length]
        return {
            "token_ids": masked_ids,
            "mask_positions": positions,
            "mlm_labels": labels,
            "mlm_weights": tf.cast(counts, tf.float32),
        }

    def _choose(self, starts_unit: Any, special: Any, row_numbers: Any) -> Any:
        """The chosen positions `(batch, max_predictions)`, ascending, then the row's length where none is left."""
        import tensorflow as tf

        batch, length = tf.shape(special)[0], special.shape[1]
        predictions = min(self.max_predictions, length)
        score = row_uniform(self.seed, "unit", row_numbers, length)
        if self.by_words:
            unit = tf.cumsum(tf.cast(starts_unit, tf.int32), axis=1) - 1  # (batch, length), 0 .. length - 1
            score = tf.gather(score, unit, batch_dims=1)
        # The positions in the order of choice, as far as there is room: of equal scores the first position comes first,
        # so units stay together, in their own order.
        score, order = tf.math.top_k(-tf.where(special, 2.0, score), predictions)
        place = tf.range(predictions)[None]
        luck = row_uniform(self.seed, "mark", row_numbers, length)
        if self.by_words:
            cell = unit + tf.range(batch)[:, None] * length
            column = tf.broadcast_to(tf.range(length)[None], tf.shape(unit))
            size = tf.math.unsorted_segment_sum(tf.ones_like(unit), cell, batch * length)
            first = tf.math.unsorted_segment_min(column, cell, batch * length)
            of_unit = tf.gather(cell, order, batch_dims=1)
            size, begin = tf.gather(size, of_unit), place - (order - tf.gather(first, of_unit))
            luck = tf.gather(tf.reshape(luck, [-1]), of_unit)
        else:
            size, begin = tf.ones_like(order), place
            luck = tf.gather(luck, order, batch_dims=1)

        ordinary = tf.cast(tf.logical_not(special), tf.float32)
        mark = self.rate * tf.reduce_sum(ordinary, axis=1, keepdims=True)
        part_before_mark = (mark - tf.cast(begin, tf.float32)) / tf.cast(size, tf.float32)
        fits = begin + size <= self.max_predictions
        places = tf.where((part_before_mark > luck) & fits & (score > -2.0), order, length)
        return tf.pad(
            tf.sort(places, axis=1), [[0, 0], [0, self.max_predictions - predictions]], constant_values=length
        )

    def _starts_unit(self, token_ids: Any, special: Any, row_numbers: Any, continues_word: Any) -> Any:
        """Whether each position begins a word, or with `max_ngram` a run of words."""
        import tensorflow as tf

        if continues_word is None:
            continues_word = tf.gather(tf.constant(np.asarray(self.continuation, bool)), token_ids)
        after_special = tf.pad(special[:, :-1], [[0, 0], [1, 0]], constant_values=True)
        starts_word = tf.logical_not(continues_word) | special | after_special
        if self.max_ngram == 1:
            return starts_word
        # Tile the words of the row with runs of random length; a run never crosses a special piece.
        length = token_ids.shape[1]
        weights = 1 / np.arange(1, self.max_ngram + 1)
        limits = tf.constant(np.cumsum(weights / weights.sum())[:-1], tf.float32)
        draw = row_uniform(self.seed, "ngram", row_numbers, length)
        run_lengths = 1 + tf.reduce_sum(tf.cast(draw[..., None] >= limits, tf.int32), axis=-1)
        run_starts = tf.cumsum(run_lengths, axis=1, exclusive=True)  # in words, (batch, length)
        word = tf.cumsum(tf.cast(starts_word, tf.int32), axis=1) - 1
        run = tf.searchsorted(run_starts, word, side="right")
        new_run = run != tf.pad(run[:, :-1], [[0, 0], [1, 0]])
        return starts_word & (new_run | special | after_special)


def default_max_predictions(max_sequence_length: int, rate: float) -> int:
    """Room for `rate` of a full row: `ceil(rate * max_sequence_length)`."""
    return math.ceil(rate * max_sequence_length)


def _flags(size: int, ids: tuple[int, ...]) -> np.ndarray:
    flags = np.zeros(size, bool)
    flags[list(ids)] = True
    return flags
