"""Which pieces of a text a model's answer hangs on."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import ops

from bertkeras.analysis.attention_maps import backbone_of, encode_rows, rollout, trace
from bertkeras.analysis.gradients import values_and_gradients
from bertkeras.errors import BertKerasError
from bertkeras.models.base import PresetModel
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.running import needed_tokenizer
from bertkeras.models.text_classifier import BertTextClassifier

logger = logging.getLogger("bertkeras")

FOR, AGAINST = "0, 114, 178", "213, 94, 0"  # blue and vermilion, which colour-blind eyes tell apart


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each piece of a text did for an answer. In a notebook it shows itself: blue for it, orange against it.

    Args:
        tokens: The pieces, `[CLS]` and `[SEP]` among them.
        scores: `(length,)` float64; above 0 speaks for the answer.
        method: How they were found.
        target: What the answer is.
        value: The answer's log odds, or what the explainer's objective gives.
        baseline_value: The same where every piece is the baseline's; `None` for a method without one.
    """

    tokens: list[str]
    scores: np.ndarray
    method: str
    target: str
    value: float
    baseline_value: float | None = field(default=None)

    @property
    def completeness_error(self) -> float:
        """How far the scores' sum is from `value - baseline_value`, as a share of it: 0 for exact integrated gradients.

        Raises:
            BertKerasError: A method whose scores have no such sum.
        """
        if self.baseline_value is None:
            raise BertKerasError(f"scores of {self.method} sum to nothing in particular")
        rise = self.value - self.baseline_value
        error = abs(float(self.scores.sum()) - rise)
        return error / abs(rise) if rise else float(error > 0)

    def _repr_html_(self) -> str:
        largest = np.abs(self.scores).max(initial=0) or 1.0
        pieces = [
            f'<span style="background: rgba({FOR if score > 0 else AGAINST}, {0.7 * abs(score) / largest:.2f}); '
            f'padding: 0.1em 0.2em; border-radius: 0.2em" title="{score:+.3f}">{html.escape(token)}</span>'
            for token, score in zip(self.tokens, self.scores, strict=True)
        ]
        return f"<p>{html.escape(self.method)} for <b>{html.escape(self.target)}</b>: {' '.join(pieces)}</p>"


class Explainer:
    """A text, a model, and the answer that is to be explained.

    The number that is explained is the log odds of the answer, `log p / (1 - p)`, which for one label of several is its
    logit; for a regression it is the output.

    Args:
        model: A `BertTextClassifier`, a `BertMaskedLM`, or with `objective` any model that has a `backbone`.
        text: The text; for a masked LM with one `[MASK]`.
        pair: The second text of a pair.
        target: The label, by name or number, or the piece that fills the blank; what the model finds likeliest if
            `None`.
        objective: From the model's outputs for a batch of rows to a number for each, `(batch,)`, in the place of log
            odds.
        batch_size: How many rows are computed at once.

    Raises:
        BertKerasError: A target that the model does not know, a text that is too long, a masked LM's text without one
            blank, or another model without an objective.

    Example:

    >>> from bertkeras import BertConfig, BertTextClassifier, WordPieceTokenizer
    >>> from bertkeras.analysis import Explainer
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film"])
    >>> config = BertConfig.from_size("tiny", vocabulary_size=8)
    >>> model = BertTextClassifier(config, 2, labels=["bad", "good"], tokenizer=tokenizer)
    >>> found = Explainer(model, "a fine film", target="good").integrated_gradients()
    >>> found.tokens, bool(found.completeness_error < 0.01)
    (['[CLS]', 'a', 'fine', 'film', '[SEP]'], True)
    """

    def __init__(
        self,
        model: PresetModel,
        text: str,
        pair: str | None = None,
        target: str | int | None = None,
        objective: Callable[[Any], Any] | None = None,
        batch_size: int = 32,
    ) -> None:
        self.model, self.text, self.pair, self.batch_size = model, text, pair, batch_size
        self.tokenizer = needed_tokenizer(model.tokenizer, "an explanation")
        (self.encoding,) = encode_rows(model, text, pair)
        self.ids = np.array(self.encoding.ids, "int32")  # (length,)
        self.blank: int | None = None
        if isinstance(model, BertMaskedLM):
            blanks = np.flatnonzero(self.ids == self.tokenizer.mask_id)
            if len(blanks) != 1:
                raise BertKerasError(f"an explanation needs one [MASK] in the text, got {len(blanks)} in {text[:40]!r}")
            self.blank = int(blanks[0])
        fixed = np.isin(self.ids, (self.tokenizer.cls_id, self.tokenizer.sep_id))
        self.pieces = np.array(
            [i for i in np.flatnonzero(~fixed) if i != self.blank], int
        )  # places of what the text says
        self.target, self.objective = self._aim(target, objective)

    def _aim(
        self, target: str | int | None, objective: Callable[[Any], Any] | None
    ) -> tuple[str, Callable[[Any], Any]]:
        """The target's name, and the number that is explained."""
        if objective is not None:
            return "the objective" if target is None else str(target), objective
        model = self.model
        if isinstance(model, BertMaskedLM):
            names = list(self.tokenizer.vocabulary)
        elif isinstance(model, BertTextClassifier):
            names = model.labels or [str(index) for index in range(model.num_classes)]
        else:
            raise BertKerasError(
                f"a {type(model).__name__} needs objective=..., from its outputs to the number to explain"
            )
        if target is None:
            logits = ops.convert_to_numpy(self._scores(self.model(self._inputs(self.ids[None]), training=False)))
            target = int(logits[0, : len(names)].argmax())
        if isinstance(target, str) and target not in names:
            few = f"; it has {', '.join(names)}" if len(names) <= 20 else ""
            raise BertKerasError(f"the model has no {target!r}{few}")
        index = names.index(target) if isinstance(target, str) else target
        if not 0 <= index < len(names):
            raise BertKerasError(f"the target must be between 0 and {len(names) - 1}, got {index}")
        alone = getattr(model, "task", "single_label") != "single_label" or len(names) == 1

        def log_odds(outputs: Any) -> Any:
            scores = self._scores(outputs)[:, : len(names)]  # a masked LM's table may have rows that are no piece
            if alone:
                return scores[:, index]
            others = ops.concatenate([scores[:, :index], scores[:, index + 1 :]], axis=1)
            return scores[:, index] - ops.logsumexp(others, axis=1)

        return names[index], log_odds

    def _scores(self, outputs: Any) -> Any:
        """The logits `(batch, names)` of a classifier, or of a masked LM's blank."""
        return ops.cast(outputs if self.blank is None else outputs[:, 0], "float32")

    def _inputs(self, ids: np.ndarray, vectors: Any = None) -> dict[str, Any]:
        """Rows of ids `(rows, length)`, and vectors in the place of those of the table, as inputs of the model."""
        inputs: dict[str, Any] = {
            "token_ids": ids,
            "segment_ids": np.tile(np.array(self.encoding.segment_ids, "int32"), (len(ids), 1)),
            "padding_mask": np.ones(ids.shape, bool),
        }
        if self.blank is not None:
            inputs["mask_positions"] = np.full((len(ids), 1), self.blank, "int32")
        return inputs if vectors is None else {**inputs, "token_vectors": vectors}

    def values(self, ids: np.ndarray) -> np.ndarray:
        """What the model makes of rows of ids `(rows, length)` in the place of the text's: `(rows,)` float64."""
        found = [
            ops.convert_to_numpy(self.objective(self.model(self._inputs(part), training=False)))
            for part in _parts(ids, self.batch_size)
        ]
        return np.concatenate(found).astype("float64")

    def _gradients(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values `(rows,)` and gradients `(rows, length, hidden_dim)` for token vectors `(rows, length,
        hidden_dim)`."""

        def value(part: Any) -> Any:
            ids = np.tile(self.ids, (part.shape[0], 1))
            return self.objective(self.model(self._inputs(ids, part), training=False))

        found = [values_and_gradients(value, part) for part in _parts(vectors, self.batch_size)]
        return np.concatenate([values for values, _ in found]), np.concatenate([slopes for _, slopes in found])

    def vectors_of(self, ids: np.ndarray) -> np.ndarray:
        """The rows of the token table, `(length, hidden_dim)` float32."""
        table = ops.convert_to_numpy(ops.cast(backbone_of(self.model).token_table, "float32"))
        return table[ids]

    def with_pieces(self, positions: np.ndarray, piece: str) -> np.ndarray:
        """The text's ids `(length,)` with a piece at some positions in the place of their own."""
        ids = self.ids.copy()
        ids[positions] = self.tokenizer.token_to_id(piece)
        return ids

    def integrated_gradients(
        self, baseline: str = "[MASK]", steps: int = 16, tolerance: float = 0.01, max_steps: int = 1024
    ) -> Attribution:
        """The gradients on the straight way from a text that says nothing to this one, times the way.

        Every piece of the text but `[CLS]`, `[SEP]` and the blank starts as the baseline's vector. The scores sum to
        the difference that the text makes: the integral is taken by Gauss-Legendre quadrature, with twice as many steps
        until it does.

        Args:
            baseline: The piece that says nothing: `"[MASK]"`, which a BERT reads as a piece it is not told, or
                `"[PAD]"`.
            steps: How many points of the way come first.
            tolerance: Largest `completeness_error` that is good enough.
            max_steps: No more points than that; it is logged if they do not do.

        Reference: Sundararajan, Taly, Yan 2017, Axiomatic Attribution for Deep Networks,
            https://arxiv.org/abs/1703.01365
        """
        end, start = (self.vectors_of(ids) for ids in (self.ids, self.with_pieces(self.pieces, baseline)))
        (value, baseline_value), _ = self._gradients(np.stack([end, start]))
        while True:
            nodes, weights = np.polynomial.legendre.leggauss(steps)  # of [-1, 1], with sum 2
            points = start + ((nodes + 1) / 2)[:, None, None].astype("float32") * (end - start)
            _, gradients = self._gradients(points)
            mean = np.tensordot(weights / 2, gradients, axes=1)  # (length, hidden_dim)
            scores = (mean * (end - start)).sum(axis=-1)
            found = self._found(scores, "integrated gradients", value, baseline_value)
            if found.completeness_error <= tolerance:
                return found
            if 2 * steps > max_steps:
                logger.warning(
                    "integrated gradients of %r sum to %.2f %% off after %d steps; raise max_steps",
                    self.text[:40], 100 * found.completeness_error, steps,
                )  # fmt: skip
                return found
            steps *= 2

    def gradient_times_input(self) -> Attribution:
        """The gradient at the text itself, times its vectors: one step, and no sum to hold it to.

        Reference: Shrikumar, Greenside, Kundaje 2017, https://arxiv.org/abs/1704.02685
        """
        vectors = self.vectors_of(self.ids)
        values, gradients = self._gradients(vectors[None])
        return self._found((gradients[0] * vectors).sum(axis=-1), "gradient times input", values[0])

    def attention(self, layer: int | None = None) -> Attribution:
        """How much the first position, or the blank, attends to each piece: the mean over heads, of one layer or all.

        Which is no explanation of the answer (Jain and Wallace 2019, https://arxiv.org/abs/1902.10186): see what
        `deletion_curve` says of it.
        """
        attention = self._trace().attention.mean(axis=1)  # (layers, length, length)
        if layer is not None and not -len(attention) <= layer < len(attention):
            raise BertKerasError(f"no layer {layer}; they are counted from 0 to {len(attention) - 1}")
        chosen = attention.mean(axis=0) if layer is None else attention[layer]
        return self._found(chosen[self.blank or 0], "attention")

    def attention_rollout(self) -> Attribution:
        """The same, traced back through all layers by `rollout`."""
        return self._found(rollout(self._trace().attention)[-1, self.blank or 0], "attention rollout")

    def _trace(self) -> Any:
        return trace(self.model, self.text, self.pair)[0]

    def _found(
        self, scores: np.ndarray, method: str, value: float | None = None, baseline_value: float | None = None
    ) -> Attribution:
        value = self.values(self.ids[None])[0] if value is None else value
        scores = np.asarray(scores, "float64")
        return Attribution(
            self.encoding.tokens, scores, method, self.target, float(value),
            None if baseline_value is None else float(baseline_value),
        )  # fmt: skip

    def deletion_curve(self, scores: np.ndarray, replacement: str = "[MASK]") -> np.ndarray:
        """What is explained while the text loses its pieces, those with the highest scores first.

        The sooner it falls, the better the scores say what the answer hangs on.

        Args:
            scores: `(length,)`, such as those of an `Attribution`; `[CLS]`, `[SEP]` and the blank stay whatever theirs.
            replacement: The piece that stands where one was lost.

        Returns:
            `(pieces + 1,)` float64: with none lost, with one, and so on to all.

        Reference: Samek et al. 2017, https://arxiv.org/abs/1509.06321
        """
        scores = np.asarray(scores)
        if scores.shape != self.ids.shape:
            raise BertKerasError(f"scores must be {self.ids.shape}, one for each piece of the text, got {scores.shape}")
        order = self.pieces[np.argsort(-scores[self.pieces], kind="stable")]
        return self.values(np.stack([self.with_pieces(order[:lost], replacement) for lost in range(len(order) + 1)]))


def _parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]
