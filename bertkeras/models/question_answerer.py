"""BERT that marks the answer to a question in a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.layers.common import bert_initializer
from bertkeras.layers.dense import Dense
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.models.running import as_list, checked_max_length, needed_tokenizer, outputs_of
from bertkeras.text.windows import ContextWindow, context_windows
from bertkeras.text.wordpiece import WordPieceTokenizer

CANDIDATES = 20  # best spans that share the probability, as in google-research/bert, run_squad.py


Scored = tuple[float, int, int]  # a score, and the characters where a span begins and ends


@dataclass(frozen=True)
class FoundAnswer:
    """A span of the context that answers a question: `context[start:end] == text`; empty if the text does not say.

    Args:
        score: Sum of the two logits.
        probability: Among the candidates, "the text does not say" included.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


@keras.saving.register_keras_serializable(package="bertkeras")
class BertQuestionAnswerer(PresetModel):
    """`BertBackbone` and two scores at every position: begin and end of the answer (Devlin et al. 2019, section 4.2).

    With `compile(optimizer)` and no loss, `fit` learns from `start_positions` and `end_positions`, both `(batch,)`
    integers, by the mean of two cross-entropies over the positions of the row.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        max_length: Pieces in a row of question and context; `None` takes all that the model can read.
        overlap: Pieces that neighbouring rows of a long context share.
        max_answer: Most pieces of an answer.
        no_answer_threshold: The text is said not to answer where the score of `[CLS]` passes that of the best span by
            more than this (Devlin et al. 2019, section 4.3); `None`: it always answers.
        tokenizer: Turns strings into ids; `answer` needs it.

    Call arguments:
        inputs: As for `BertBackbone`: the question is segment 0, the text segment 1.
        training: Whether dropout is on.

    Returns:
        Logits, `(batch, length, 2)`: begin and end.
    """

    preset_options: ClassVar[tuple[str, ...]] = ("max_length", "overlap", "max_answer", "no_answer_threshold")
    new_parts: ClassVar[tuple[str, ...]] = ("span_head/",)

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        max_length: int | None = None,
        overlap: int = 128,
        max_answer: int = 30,
        no_answer_threshold: float | None = None,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        self.max_length = checked_max_length(max_length, self.config.max_sequence_length)
        if overlap < 0 or max_answer < 1:
            raise BertKerasError(f"need overlap >= 0 and max_answer >= 1, got {overlap} and {max_answer}")
        self.overlap = overlap
        self.max_answer = max_answer
        self.no_answer_threshold = no_answer_threshold
        self.backbone = BertBackbone(self.config, with_pooler=False, dtype=self.dtype_policy, name="backbone")
        self.span_head = Dense(
            2,
            kernel_initializer=bert_initializer(self.config.initializer_range),
            dtype=self.dtype_policy,
            name="span_head",
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.span_head.build((None, None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        return self.span_head(self.backbone(inputs, training=training)["sequence_output"])

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape["token_ids"], 2)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        start = cross_entropy(y["start_positions"], y_pred[..., 0])
        end = cross_entropy(y["end_positions"], y_pred[..., 1])
        return weighted_mean((start + end) / 2, sample_weight)

    def answer(
        self, questions: str | Sequence[str], contexts: str | Sequence[str], top_k: int = 1, batch_size: int = 32
    ) -> list[list[FoundAnswer]]:
        """The best answers to each question in its context, as spans of the characters of the context.

        Args:
            questions: One question or several.
            contexts: As many texts, of any length: long ones are read in overlapping rows.
            top_k: Answers for each question, best first.
            batch_size: Rows at a time.

        Raises:
            BertKerasError: No tokenizer, no strings, or not as many contexts as questions.
        """
        count = max(top_k, CANDIDATES)
        return [
            self._ranked(context, spans, nothing, top_k)
            for context, spans, nothing in self._candidates(as_list(questions), as_list(contexts), batch_size, count)
        ]

    def scores_with_none(
        self, questions: Sequence[str], contexts: Sequence[str], batch_size: int = 32
    ) -> list[tuple[str, float]]:
        """For each question the best span, and by how much the score of "no answer" passes it: what
        `no_answer_threshold` is compared with."""
        found = []
        for context, spans, nothing in self._candidates(questions, contexts, batch_size, 1):
            score, start, end = max(spans, default=(-np.inf, 0, 0))
            found.append((context[start:end], float(nothing - score)))
        return found

    def _candidates(
        self, questions: Sequence[str], contexts: Sequence[str], batch_size: int, count: int
    ) -> Iterator[tuple[str, list[Scored], float]]:
        """For each question its context, the `count` best spans of each row, and the lowest score of "no answer"."""
        tokenizer = needed_tokenizer(self.tokenizer, "answer")
        if len(questions) != len(contexts):
            raise BertKerasError(f"{len(questions)} questions, but {len(contexts)} contexts; give one for each")
        limit = self.max_length or self.config.max_sequence_length
        windows = context_windows(tokenizer, questions, contexts, limit, self.overlap)
        rows = [(window.ids, window.segment_ids) for window in windows]
        outputs = outputs_of(self, rows, tokenizer.pad_id, batch_size)
        spans: list[list[Scored]] = [[] for _ in questions]
        nothing = [np.inf] * len(questions)
        for window, logits in zip(windows, outputs, strict=True):
            spans[window.question] += self._spans(window, logits, count)
            nothing[window.question] = min(nothing[window.question], float(logits[0].sum()))
        yield from zip(contexts, spans, nothing, strict=True)

    def _spans(self, window: ContextWindow, logits: np.ndarray, count: int) -> list[Scored]:
        """The best spans that begin where this row decides, with the characters where they begin and end."""
        first, last = window.context_start, len(window.ids) - 1
        begins = np.array(window.kept, int)
        ends = begins[:, None] + np.arange(self.max_answer)  # (begins, lengths)
        scores = logits[begins, :1] + logits[np.minimum(ends, last), 1]
        scores[ends >= last] = -np.inf
        best = [divmod(int(place), self.max_answer) for place in np.argsort(-scores, axis=None, kind="stable")[:count]]
        return [
            (
                float(scores[row, more]),
                window.offsets[begins[row] - first][0],
                window.offsets[ends[row, more] - first][1],
            )
            for row, more in best
            if ends[row, more] < last
        ]

    def _ranked(self, context: str, spans: list[Scored], nothing: float, top_k: int) -> list[FoundAnswer]:
        best: dict[tuple[int, int], float] = {}
        for score, start, end in spans:
            best[start, end] = max(score, best.get((start, end), score))
        ranked = sorted(((score, *place) for place, score in best.items()), reverse=True)[: max(top_k, CANDIDATES)]
        none = (nothing, 0, 0)
        if self.no_answer_threshold is not None:
            is_none = not ranked or nothing - ranked[0][0] > self.no_answer_threshold
            ranked = [none, *ranked] if is_none else [ranked[0], *sorted([none, *ranked[1:]], reverse=True)]
        elif not ranked:
            ranked = [none]
        scores = np.array([score for score, _, _ in ranked])
        powers = np.exp(scores - scores.max())
        return [
            FoundAnswer(context[start:end], start, end, float(score), float(power))
            for (score, start, end), power in zip(ranked[:top_k], powers / powers.sum(), strict=False)
        ]
