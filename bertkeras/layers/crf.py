"""Linear-chain conditional random field (Lafferty, McCallum and Pereira 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bertkeras.errors import BertKerasError

# Added to a forbidden step: a path that takes one loses to every path that does not, and sums of it stay finite.
FORBIDDEN = -1e30


@keras.saving.register_keras_serializable(package="bertkeras")
class CRF(keras.layers.Layer):
    """Scores a whole sequence of tags: `p(y | x) = exp(sum_t x[t, y_t] + T[y_t-1, y_t]) / Z(x)`.

    `x` are the emissions, one score per position and tag, `T` the transitions, with a row for the beginning and a
    column for the end of the sequence. All of it is computed in float32, whatever the dtype of the emissions.

    A mask says which positions belong to the sequence. They may stand anywhere: BERT's `[CLS]`, its padding and the
    later pieces of a word are stepped over, and the tags of what is left follow each other.

    Args:
        num_classes: Number of tags.
        forbidden: Pairs `(from, to)` of tags that must not follow each other, such as those of
            `bertkeras.text.tags.forbidden_pairs`; -1 stands for the beginning in the first place and for the end in the
            second. No output ever has such a step.
        learned: Whether transitions are learned. Otherwise every step that is not forbidden scores 0: decoding then
            finds the best legal path of a model without transitions.

    Call arguments:
        emissions: `(batch, length, num_classes)`.
        mask: `(batch, length)` booleans, `True` = the position counts; all by default.

    Returns:
        The likeliest tags, `(batch, length)` int32, and -1 where the mask is `False`.

    Example:

    >>> import numpy as np
    >>> from bertkeras.layers import CRF
    >>> crf = CRF(num_classes=2, forbidden=[(0, 1)])
    >>> emissions = np.array([[[1.0, 0.0], [0.0, 3.0]]], "float32")
    >>> [[int(tag) for tag in row] for row in crf(emissions)]  # not 0, 1, which is better but forbidden
    [[1, 1]]

    Reference: Lafferty et al. 2001; Rabiner 1989, section III, for forward, backward and Viterbi.
    """

    def __init__(
        self,
        num_classes: int,
        forbidden: Sequence[tuple[int, int]] = (),
        learned: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # emissions in float32 stay so under every policy
        if not isinstance(num_classes, int) or num_classes < 1:
            raise BertKerasError(f"num_classes must be a positive integer, got {num_classes!r}")
        for pair in forbidden:
            if len(pair) != 2 or not all(-1 <= tag < num_classes for tag in pair):
                raise BertKerasError(f"forbidden must hold pairs of numbers from -1 to {num_classes - 1}, got {pair!r}")
        self.num_classes = num_classes
        self.forbidden = [(int(before), int(after)) for before, after in forbidden]
        self.learned = learned
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        size = self.num_classes + 1  # the last row is the beginning, the last column the end
        self.transitions = (
            self.add_weight(
                shape=(size, size), initializer="zeros", name="transitions", dtype="float32", autocast=False
            )
            if self.learned
            else None
        )

    def call(self, emissions: Any, mask: Any = None) -> Any:
        emissions, mask = self._checked(emissions, mask)
        return self._viterbi(_relative(emissions), mask, k=1)[0][:, 0]

    def compute_output_spec(self, emissions: Any, mask: Any = None) -> Any:
        self._check(emissions, mask)
        return keras.KerasTensor(emissions.shape[:-1], dtype="int32")

    def log_likelihood(self, emissions: Any, tags: Any, mask: Any = None) -> Any:
        """`log p(tags | emissions)` in nats, `(batch,)` float32; about -1e30 where the tags take a forbidden step.

        Only its first derivatives are right: those of `log_normalizer` are not meant to be differentiated again.

        Args:
            emissions: `(batch, length, num_classes)`.
            tags: `(batch, length)` integers; any where the mask is `False`.
            mask: `(batch, length)` booleans. A row without any position that counts gives 0.
        """
        emissions, mask = self._checked(emissions, mask)
        tags = ops.convert_to_tensor(tags)
        if not _fits(tags, emissions.shape[:2]):
            raise BertKerasError(f"tags must have shape {tuple(emissions.shape[:2])}, got {tuple(tags.shape)}")
        tags = ops.where(mask, ops.cast(tags, "int32"), -1)
        emissions = _relative(emissions)
        chosen = ops.one_hot(tags, self.num_classes, dtype="float32")  # zeros where masked
        steps = self._steps(tags)
        score = ops.sum(emissions * chosen, axis=(1, 2)) + ops.sum(steps * self._scores(), axis=(1, 2))
        return score - self.log_normalizer(emissions, mask)

    def log_normalizer(self, emissions: Any, mask: Any = None) -> Any:
        """`log Z`, the logarithm of the sum over all paths, `(batch,)` float32.

        Its derivatives are the marginals. They come from forward and backward recursion rather than by differentiating
        the loop, which XLA cannot do on TensorFlow: the value below is `log Z` plus terms that are zero but whose
        derivatives are those of `log Z`.
        """
        emissions, mask = self._checked(emissions, mask)
        scores = self._scores()
        log_z, marginals, steps = self._forward_backward(ops.stop_gradient(emissions), ops.stop_gradient(scores), mask)
        zero = emissions - ops.stop_gradient(emissions), scores - ops.stop_gradient(scores)
        linear = ops.sum(marginals * zero[0], axis=(1, 2)) + ops.sum(steps * zero[1], axis=(1, 2))
        return ops.stop_gradient(log_z) + linear

    def marginals(self, emissions: Any, mask: Any = None) -> Any:
        """`p(y_t = tag | emissions)`, `(batch, length, num_classes)` float32, zeros where the mask is `False`."""
        emissions, mask = self._checked(emissions, mask)
        return self._forward_backward(emissions, self._scores(), mask)[1]

    def best_paths(self, emissions: Any, mask: Any = None, k: int = 1) -> tuple[Any, Any]:
        """The `k` likeliest tag sequences, by the Viterbi recursion that keeps `k` paths into every tag.

        Returns:
            Tags `(batch, k, length)` int32, likeliest first, -1 where the mask is `False`; and the logarithms of their
            probabilities, `(batch, k)` float32. Where there are fewer than `k` legal paths, the rest have about -1e30
            or less, and their tags mean nothing.
        """
        if not isinstance(k, int) or k < 1:
            raise BertKerasError(f"k must be a positive integer, got {k!r}")
        emissions, mask = self._checked(emissions, mask)
        emissions = _relative(emissions)
        tags, path_scores = self._viterbi(emissions, mask, k)
        return tags, path_scores - self.log_normalizer(emissions, mask)[:, None]

    def _viterbi(self, emissions: Any, mask: Any, k: int) -> tuple[Any, Any]:
        """The tags of the best `k` paths, `(batch, k, length)`, and their scores, `(batch, k)`.

        A path's place is `tag * k + rank`: the tag it has come to, and how many better ones have come to the same tag.
        """
        scores = self._scores()
        arrivals = ops.repeat(ops.transpose(_between(scores)), k, axis=1)  # (tags, places)
        emissions = ops.repeat(_padded(emissions), k, axis=2)
        start = _start(emissions[:, 0], self.num_classes * k)

        def step(paths: Any, now: Any) -> Any:  # paths (batch, places)
            emission, counts = now[..., :-1], now[..., -1:] > 0
            paths = ops.where(counts, _largest(paths[:, None] + arrivals, k), paths) + emission
            return paths, paths

        last, paths = ops.scan(step, start, _time_first(emissions, mask))
        last = (last + ops.repeat(scores[:, -1], k))[:, None]
        path_scores, place = _largest(last, k), _places_of_largest(last, k)  # (batch, k)

        before = ops.concatenate([start[None], paths[:-1]])  # (length, batch, places)
        origins = _places_of_largest(before[:, :, None] + arrivals, k)
        same = ops.arange(arrivals.shape[1], dtype="int32")
        origins = ops.where(ops.transpose(mask)[:, :, None], origins, same)

        def back(place: Any, origins: Any) -> Any:
            return ops.take_along_axis(origins, place, axis=1), place

        _, route = ops.scan(back, place, origins, reverse=True)  # (length, batch, k)
        return ops.where(mask[:, None], ops.transpose(route // k, (1, 2, 0)), -1), path_scores

    def _forward_backward(self, emissions: Any, scores: Any, mask: Any) -> tuple[Any, Any, Any]:
        """`log Z` `(batch,)`, the marginals `(batch, length, num_classes)`, and how often each step is expected,
        `(batch, num_classes + 1, num_classes + 1)`.

        One scan does both recursions: axis 0 holds the sequences read from left to right, and from right to left with
        the transitions turned round. Every position starts from paths of which the best has 0, so that no more is
        rounded away at the end of a long sequence than at its beginning.
        """
        emissions = _padded(emissions)
        between = ops.stack([_between(scores), _between(ops.transpose(scores))])[:, None]
        both, counts = (ops.stack([x, ops.flip(x, axis=1)]) for x in (emissions, mask))
        start = _start(both[:, :, 0], self.num_classes)

        def step(paths: Any, now: Any) -> Any:  # paths (2, batch, num_classes + 1)
            emission, counts = now[..., :-1], now[..., -1:] > 0
            into = ops.where(counts, ops.logsumexp(paths[..., None] + between, axis=-2), paths)
            paths = into + emission
            return paths - ops.max(paths, axis=-1, keepdims=True), into

        last, into = ops.scan(step, start, _time_first(both, counts))
        into = ops.moveaxis(into, 0, 2)  # up to each position, without its emission
        forward, backward = into[0], ops.flip(into[1], axis=1)
        paths = forward + emissions
        best = ops.max(paths, axis=-1, keepdims=True)
        ends = last[0] + scores[:, -1]
        log_z = ops.sum(best, axis=(1, 2)) + ops.logsumexp(ends, axis=-1)
        marginals = ops.softmax(paths + backward, axis=-1)[:, :, :-1] * ops.cast(mask, "float32")[:, :, None]

        # p(y_t-1, y_t) = p(y_t-1 | y_t) p(y_t). Paths stand still where the mask is False, so what stands at t - 1
        # belongs to the position before t that counts.
        before = ops.concatenate([start[0][:, None], (paths - best)[:, :-1]], axis=1)
        origins = before[:, :, :, None] + scores[:, :-1] - forward[:, :, None, :-1]
        steps = ops.sum(ops.exp(ops.minimum(origins, 0.0)) * marginals[:, :, None], axis=1)
        return log_z, marginals, ops.concatenate([steps, ops.softmax(ends, axis=-1)[:, :, None]], axis=2)

    def _steps(self, tags: Any) -> Any:
        """How often a row takes each step, `(batch, num_classes + 1, num_classes + 1)`; -1 is stepped over."""
        tags = ops.pad(tags, [[0, 0], [1, 1]], constant_values=self.num_classes)  # the beginning and the end
        place = ops.arange(ops.shape(tags)[1], dtype="int32")
        order = ops.argsort(ops.where(tags < 0, place + ops.shape(tags)[1], place), axis=1)  # what counts comes first
        chosen = ops.one_hot(ops.take_along_axis(tags, order, axis=1), self.num_classes + 1, dtype="float32")
        return ops.matmul(ops.transpose(chosen[:, :-1], (0, 2, 1)), chosen[:, 1:])

    def _scores(self) -> Any:
        """The transitions, with the forbidden ones far below all others."""
        size = self.num_classes + 1
        barred = np.zeros((size, size), "float32")
        for before, after in self.forbidden:
            barred[before, after] = FORBIDDEN  # -1 is the last row and the last column
        barred = ops.convert_to_tensor(barred)
        return barred if self.transitions is None else ops.cast(self.transitions, "float32") + barred

    def _check(self, emissions: Any, mask: Any) -> None:
        if not _fits(emissions, (None, None, self.num_classes)):
            raise BertKerasError(
                f"emissions must have shape (batch, length, {self.num_classes}), got {tuple(emissions.shape)}"
            )
        if mask is not None:
            dtype, shape = keras.backend.standardize_dtype(mask.dtype), tuple(emissions.shape[:2])
            if dtype != "bool" or not _fits(mask, shape):
                raise BertKerasError(f"mask must be boolean of shape {shape}, got {dtype} of shape {tuple(mask.shape)}")

    def _checked(self, emissions: Any, mask: Any) -> tuple[Any, Any]:
        """Emissions in float32, zeros where the mask is `False`, and the mask."""
        emissions = ops.convert_to_tensor(emissions)
        mask = ops.ones(ops.shape(emissions)[:2], "bool") if mask is None else ops.convert_to_tensor(mask)
        self._check(emissions, mask)
        if not self.built:
            self.build()
        return ops.where(mask[:, :, None], ops.cast(emissions, "float32"), 0.0), mask

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "forbidden": self.forbidden,
            "learned": self.learned,
        }


def _fits(x: Any, shape: Sequence[int | None]) -> bool:
    """Whether `x` may have the shape, of which `None` is a size not known."""
    return len(x.shape) == len(shape) and all(a == b or None in (a, b) for a, b in zip(x.shape, shape, strict=True))


def _relative(emissions: Any) -> Any:
    """Emissions less the largest of their position: probabilities stay as they are, and less is rounded away."""
    return emissions - ops.stop_gradient(ops.max(emissions, axis=-1, keepdims=True))


def _padded(emissions: Any) -> Any:
    """Emissions with a 0 for the beginning, which the recursions treat as one more tag that no step leads to."""
    return ops.pad(emissions, [[0, 0], [0, 0], [0, 1]])


def _between(scores: Any) -> Any:
    return ops.concatenate([scores[:, :-1], ops.full_like(scores[:, -1:], FORBIDDEN)], axis=1)


def _start(like: Any, place: int) -> Any:
    """The one path before the first position: 0 at its place, and nothing anywhere else."""
    return ops.zeros_like(like) + ops.where(ops.arange(like.shape[-1]) == place, 0.0, FORBIDDEN)


def _time_first(emissions: Any, mask: Any) -> Any:
    """For `scan`: time before all other axes, and the mask as one more number behind the emissions. It is one tensor
    because Keras 3.15 on TensorFlow cannot scan several of a length that is not known."""
    return ops.moveaxis(ops.concatenate([emissions, ops.cast(mask[..., None], "float32")], axis=-1), -2, 0)


def _largest(x: Any, k: int) -> Any:
    """The `k` largest of every row of `x` `(..., rows, size)`, `(..., rows * k)`."""
    return ops.max(x, axis=-1) if k == 1 else _flat(ops.top_k(x, k)[0])


def _places_of_largest(x: Any, k: int) -> Any:
    return ops.argmax(x, axis=-1) if k == 1 else _flat(ops.cast(ops.top_k(x, k)[1], "int32"))


def _flat(x: Any) -> Any:
    return ops.reshape(x, (*ops.shape(x)[:-2], x.shape[-2] * x.shape[-1]))
