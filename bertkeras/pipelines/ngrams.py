"""The two baselines a masked language model must beat: counting pieces, and counting pairs of pieces."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from bertkeras.checkpoints.tensor_files import write_safetensors


class NgramCounts:
    """Unigram and bigram counts of a token stream, and what they predict.

    The bigram model interpolates by absolute discounting (Ney, Essen and Kneser 1994), `p(w | v) = max(c(vw) - D, 0)
    / c(v) + D N(v) / c(v) p(w)`, with `D = n_1 / (n_1 + 2 n_2)` and `N(v)` the number of kinds of pieces seen after
    `v`; `p(w)` is the add-one unigram. Where no pair occurs just once, as in text that is repeated, `D` is 0.5: without
    a discount a new pair would have no probability.

    Args:
        vocabulary_size: Number of word pieces.
        token_limit: Tokens after which counting stops, so that a large corpus does not fill the memory.
    """

    def __init__(self, vocabulary_size: int, token_limit: int = 2**25) -> None:
        self.vocabulary_size = vocabulary_size
        self.token_limit = token_limit
        self.unigrams = np.zeros(vocabulary_size, "int64")
        self.keys = np.zeros(0, "int64")  # v * vocabulary_size + w, ascending
        self.counts = np.zeros(0, "int64")

    def add(self, tokens: np.ndarray, document_starts: np.ndarray) -> None:
        """Count a block of documents; no pair crosses from one document to the next."""
        if not self.goes_on_after(int(self.unigrams.sum())):
            return
        counts = NgramCounts(self.vocabulary_size)
        counts.unigrams = np.bincount(tokens, minlength=self.vocabulary_size)
        keys = tokens[:-1].astype("int64") * self.vocabulary_size + tokens[1:]
        crosses = np.zeros(len(tokens), bool)
        crosses[document_starts] = True
        counts.keys, counts.counts = np.unique(keys[~crosses[1:]], return_counts=True)
        self.merge(counts)

    def goes_on_after(self, tokens: int) -> bool:
        """Whether a block is counted that comes after so many tokens."""
        return tokens < self.token_limit

    def merge(self, other: NgramCounts) -> None:
        """Add the counts of another text; the order in which texts are merged does not matter."""
        self.unigrams += other.unigrams
        self.keys, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        self.counts = np.bincount(place, np.concatenate([self.counts, other.counts])).astype("int64")

    def evaluate(self, targets: np.ndarray, previous: np.ndarray) -> dict[str, float]:
        """Mean cross-entropy, in nats, and accuracy on masked pieces.

        Args:
            targets: `(n,)` the true pieces.
            previous: `(n,)` the true piece to the left of each, or -1 where there is none.

        Returns:
            `uniform_loss`, `unigram_loss`, `unigram_accuracy`, `bigram_loss`, `bigram_accuracy`.
        """
        size = self.vocabulary_size
        unigram = (self.unigrams + 1) / (self.unigrams.sum() + size)
        once, twice = (self.counts == 1).sum(), (self.counts == 2).sum()
        discount = once / (once + 2 * twice) if once else 0.5
        first = self.keys // size
        total = np.bincount(first, self.counts, minlength=size)
        kinds = np.bincount(first, minlength=size)

        known = (previous >= 0) & (total[previous] > 0)
        seen = np.where(known, total[previous], 1)
        key = previous.astype("int64") * size + targets
        place = np.minimum(np.searchsorted(self.keys, key), max(len(self.keys) - 1, 0))
        count = np.where(self.keys[place] == key, self.counts[place], 0) if len(self.keys) else np.zeros(len(key))
        pair = np.maximum(count - discount, 0) / seen + discount * kinds[previous] / seen * unigram[targets]
        bigram = np.where(known, pair, unigram[targets])

        best_unigram = int(self.unigrams.argmax())
        best_after = np.full(size, best_unigram)
        ascending = np.lexsort((self.counts, first))  # the last of each first piece has the highest count
        best_after[first[ascending]] = self.keys[ascending] % size
        guess = np.where(known, best_after[previous], best_unigram)
        return {
            "uniform_loss": float(np.log(size)),
            "unigram_loss": float(-np.log(unigram[targets]).mean()),
            "unigram_accuracy": float((targets == best_unigram).mean()),
            "bigram_loss": float(-np.log(bigram).mean()),
            "bigram_accuracy": float((targets == guess).mean()),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        write_safetensors(path, {"unigrams": self.unigrams, "keys": self.keys, "counts": self.counts}, {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NgramCounts:
        from safetensors.numpy import load_file

        arrays: dict[str, Any] = load_file(path)
        ngrams = cls(len(arrays["unigrams"]))
        ngrams.unigrams, ngrams.keys, ngrams.counts = arrays["unigrams"], arrays["keys"], arrays["counts"]
        return ngrams
