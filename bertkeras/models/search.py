"""Which piece comes next: the likeliest, the beginning of the best beam, or one drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from bertkeras.errors import BertKerasError

METHODS = {
    "greedy": ("no_repeat_ngram",),
    "beam": ("num_beams", "length_penalty", "no_repeat_ngram"),
    "sample": ("temperature", "top_k", "top_p", "seed", "no_repeat_ngram"),
}


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a target is found, piece by piece.

    Args:
        max_new_tokens: Most pieces of a target, its `[SEP]` included.
        method: `"greedy"` takes the likeliest piece each time. `"beam"` goes on with the `num_beams` likeliest
            beginnings at once, and stops when as many have ended and none that goes on compares better as it stands.
            `"sample"` draws each piece.
        num_beams: How many beginnings are kept; 1 is greedy.
        length_penalty: Targets are compared by `log p / pieces ** length_penalty` (`[SEP]` is a piece): 0 compares
            probabilities, which favours the short, 1 the mean per piece.
        temperature: Divides the logits before drawing: less than 1 favours the likely.
        top_k: Draw among so many likeliest pieces only (Fan et al. 2018).
        top_p: Draw among the fewest likeliest pieces only whose probabilities, after `top_k`, reach this sum
            (Holtzman et al. 2020).
        seed: Seed of the draws, 0 or more.
        no_repeat_ngram: No run of so many pieces comes twice in a target.

    Raises:
        BertKerasError: A value out of range, or one that `method` has no use for.

    Reference: https://arxiv.org/abs/1805.04833 (top-k), https://arxiv.org/abs/1904.09751 (top-p)
    """

    max_new_tokens: int = 64
    method: str = "greedy"
    num_beams: int = 4
    length_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    no_repeat_ngram: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BertKerasError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        check_draw(self.temperature, self.top_k, self.top_p, self.seed)
        for name in ("max_new_tokens", "num_beams", "no_repeat_ngram"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise BertKerasError(f"{name} must be a positive integer, got {value!r}")
        for field in dataclasses.fields(self)[2:]:
            value, users = getattr(self, field.name), [m for m in METHODS if field.name in METHODS[m]]
            if self.method not in users and value != field.default:
                raise BertKerasError(
                    f"{field.name}={value!r} needs method={' or '.join(map(repr, users))}, got {self.method!r}"
                )

    @property
    def width(self) -> int:
        """How many beginnings are kept for each source."""
        return self.num_beams if self.method == "beam" else 1


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """The beginning of a target, or all of it.

    Args:
        ids: Its pieces, `[SEP]` included where it has ended.
        log_probability: The sum of their log probabilities.
        parent: Which of the beginnings of the step before it goes on with.
    """

    ids: tuple[int, ...] = ()
    log_probability: float = 0.0
    parent: int = 0

    def score(self, length_penalty: float) -> float:
        return self.log_probability / len(self.ids) ** length_penalty


class Beam:
    """The targets of one source while they grow.

    Args:
        decoding: How.
        end_id: The piece that ends a target.
        random: Where the draws come from.
    """

    def __init__(self, decoding: Decoding, end_id: int, random: np.random.Generator) -> None:
        self.decoding, self.end_id, self.random = decoding, end_id, random
        self.live = [Hypothesis()]
        self.ended: list[Hypothesis] = []

    def grow(self, log_probs: np.ndarray) -> None:
        """Go on by one piece; `log_probs` `(live, pieces)`, which is changed, are those after each live beginning."""
        width = self.decoding.width
        for row, hypothesis in zip(log_probs, self.live, strict=True):
            row[repeating(hypothesis.ids, self.decoding.no_repeat_ngram)] = -np.inf
        live = []
        for rank, (parent, piece) in enumerate(self._chosen(log_probs)):
            before = self.live[parent]
            log_probability = before.log_probability + float(log_probs[parent, piece])
            grown = Hypothesis((*before.ids, piece), log_probability, parent)
            if piece != self.end_id:
                live.append(grown)
            elif rank < width:
                self.ended.append(grown)
        self.live, self.ended = live[:width], self._best(self.ended)
        if len(self.ended) == width and self._best(self.ended + self.live) == self.ended:
            self.live = []

    def _chosen(self, log_probs: np.ndarray) -> list[tuple[int, int]]:
        """Beginnings and pieces to go on with, best first; twice the width, because any of them may be the end."""
        decoding = self.decoding
        if decoding.method == "sample":
            kept = keep_likeliest(log_probs / decoding.temperature, decoding.top_k, decoding.top_p)
            return [(0, draw(kept[0], self.random.random()))]
        totals = log_probs + np.array([[hypothesis.log_probability] for hypothesis in self.live])
        flat = totals.ravel()
        best = np.argpartition(-flat, min(2 * decoding.width, flat.size) - 1)[: 2 * decoding.width]
        best = best[np.lexsort((best, -flat[best]))]
        return [divmod(int(place), log_probs.shape[1]) for place in best if flat[place] > -np.inf]

    def found(self) -> list[Hypothesis]:
        """The targets, best first: those that have ended, and those that were still growing at the last piece."""
        return self._best(self.ended + self.live)

    def _best(self, targets: list[Hypothesis]) -> list[Hypothesis]:
        return sorted(targets, key=lambda t: -t.score(self.decoding.length_penalty))[: self.decoding.width]


def search(
    logits: np.ndarray,
    step: Callable[[np.ndarray, np.ndarray], np.ndarray],
    decoding: Decoding,
    allowed: np.ndarray,
    end_id: int,
    numbers: Sequence[int],
) -> list[list[Hypothesis]]:
    """The targets of a batch of sources.

    Args:
        logits: `(sources, pieces)`, of the first piece of each target.
        step: Given `pieces` and `parents`, both `(sources * width,)`: the next pieces, and the rows of the call before
            that they go on with. Gives the logits of the pieces after them, `(sources * width, pieces)`.
        decoding: How.
        allowed: `(pieces,)` booleans: which may come at all. Probabilities are shares among them.
        end_id: The piece that ends a target.
        numbers: A number for each source, which seeds its draws together with `decoding.seed`.

    Returns:
        For each source up to `width` targets, best first.
    """
    beams = [Beam(decoding, end_id, np.random.default_rng([decoding.seed, number])) for number in numbers]
    for count in range(1, decoding.max_new_tokens + 1):
        log_probs = log_softmax(np.where(allowed, logits, -np.inf))
        rows = len(logits) // len(beams)  # of each source: one at first, then `width`
        for number, beam in enumerate(beams):
            if beam.live:
                beam.grow(log_probs[number * rows :][: len(beam.live)])
        if count == decoding.max_new_tokens or not any(beam.live for beam in beams):
            break
        pieces = np.full((len(beams), decoding.width), end_id, "int32")
        parents = np.repeat(np.arange(len(beams), dtype="int32")[:, None] * rows, decoding.width, axis=1)
        for number, beam in enumerate(beams):
            pieces[number, : len(beam.live)] = [hypothesis.ids[-1] for hypothesis in beam.live]
            parents[number, : len(beam.live)] += np.array([h.parent for h in beam.live], "int32")
        logits = step(pieces.ravel(), parents.ravel())
    return [beam.found() for beam in beams]


def repeating(ids: Sequence[int], n: int | None) -> list[int]:
    """The pieces that after `ids` would complete a run of `n` pieces that is in `ids` already."""
    if n is None:
        return []
    last = tuple(ids[len(ids) - n + 1 :])
    return [ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i : i + n - 1]) == last]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis; `-inf` stays."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def keep_likeliest(log_probs: np.ndarray, top_k: int | None = None, top_p: float | None = None) -> np.ndarray:
    """The same `(rows, pieces)` with `-inf` for all but the `top_k` likeliest of each row, and of these for all but
    the fewest whose probabilities, as shares among them, reach `top_p`; of equals the first stays."""
    if top_k is None and top_p is None:
        return log_probs
    order = np.argsort(-log_probs, axis=-1, kind="stable")[:, :top_k]
    ranked = np.take_along_axis(log_probs, order, axis=-1)
    if top_p is not None:
        shares = np.exp(log_softmax(ranked.astype("float64")))
        likelier = np.cumsum(shares, axis=-1) - shares  # the sum of those before
        ranked = np.where(likelier < top_p, ranked, -np.inf)
    kept = np.full_like(log_probs, -np.inf)
    np.put_along_axis(kept, order, ranked, axis=-1)
    return kept


def draw(log_probs: np.ndarray, uniform: float) -> int:
    """A piece by its share of `exp(log_probs)` `(pieces,)`, by a number drawn uniformly from [0, 1)."""
    cumulative = np.cumsum(np.exp((log_probs - log_probs.max()).astype("float64")))
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))


def check_draw(temperature: float | None, top_k: int | None, top_p: float | None, seed: int) -> None:
    """What draws need: a positive temperature, at least one piece, and a seed that is one."""
    if temperature is not None and not 0 < temperature < float("inf"):
        raise BertKerasError(f"temperature must be a positive number, got {temperature!r}")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise BertKerasError(f"top_k must be a positive integer, got {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise BertKerasError(f"top_p must be a number in (0, 1], got {top_p!r}")
    if not isinstance(seed, int) or seed < 0:
        raise BertKerasError(f"seed must be 0 or a positive integer, got {seed!r}")
