"""Texts to documents of word pieces: split into sentences, tokenised, with the word boundaries of a segmenter."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.pipelines.sentence_pairs import DocumentBlock
from bertkeras.text.corpus import split_sentences
from bertkeras.text.wordpiece import WordPieceTokenizer

Segmenter = Callable[[str], list[str]]
Encoder = Callable[[list[str]], "Encoded"]
SENTENCES_AT_ONCE = 8192


class Encoded(NamedTuple):
    """The pieces of many sentences, one after another.

    Attributes:
        tokens: `(pieces,)` int32 ids.
        continues_word: `(pieces,)` bool, or empty without a segmenter.
        splits: `(sentences + 1,)` int64: where each sentence begins, and the last one ends.
    """

    tokens: np.ndarray
    continues_word: np.ndarray
    splits: np.ndarray


@dataclasses.dataclass(frozen=True)
class NamedSegmenter:
    """A segmenter that other processes find by its name; many, such as `jieba.lcut`, cannot be sent to them.

    Args:
        name: `MODULE:FUNCTION`.

    Example:

    >>> segmenter = NamedSegmenter("textwrap:wrap")
    >>> segmenter("山水")
    ['山水']
    """

    name: str

    @functools.cached_property
    def function(self) -> Segmenter:
        """Raises: ImportError, AttributeError or ValueError: There is no such function."""
        module, _, function = self.name.partition(":")
        return getattr(importlib.import_module(module), function)

    def __call__(self, sentence: str) -> list[str]:
        return self.function(sentence)

    def __reduce__(self) -> tuple[type[NamedSegmenter], tuple[str]]:
        return NamedSegmenter, (self.name,)


def make_encoder(tokenizer: WordPieceTokenizer, segmenter: Segmenter | None) -> Encoder:
    """What gives the ids of many sentences and, with a segmenter, where words go on; it takes seconds to make."""
    return _segmented_encoder(tokenizer, segmenter) if segmenter else _plain_encoder(tokenizer)


def tokenised(documents: Iterable[str], encode: Encoder) -> Iterator[DocumentBlock]:
    """Each document as a block of its own, without sentences that have no piece; one with no other is left out.

    Args:
        documents: Texts; a line break is a sentence boundary.
        encode: Made by `make_encoder`.

    Yields:
        One block per document, in their order; what comes out does not depend on what stands around it.

    Raises:
        BertKerasError: The segmenter changed the text.
    """
    sentences: list[str] = []
    ends: list[int] = []  # of each document, in sentences

    def flush() -> Iterator[DocumentBlock]:
        encoded = encode(sentences)
        for first, end in itertools.pairwise([0, *ends]):
            splits = encoded.splits[first : end + 1]
            own = slice(splits[0], splits[-1])
            if own.start < own.stop:
                yield DocumentBlock(
                    encoded.tokens[own].copy(),  # a view would keep its neighbours in memory as long as it waits
                    encoded.continues_word[own].copy(),
                    splits[:-1][splits[:-1] < splits[1:]] - own.start,
                    np.zeros(1, "int64"),
                )
        sentences.clear()
        ends.clear()

    for document in documents:
        sentences += split_sentences(document)
        ends.append(len(sentences))
        if len(sentences) >= SENTENCES_AT_ONCE:
            yield from flush()
    yield from flush()


def joined(blocks: Sequence[DocumentBlock]) -> DocumentBlock:
    """One block of the documents of several, in their order."""
    sizes = [len(block.tokens) for block in blocks]
    starts = [0, *np.cumsum(sizes)[:-1].tolist()]
    return DocumentBlock(
        np.concatenate([block.tokens for block in blocks]),
        np.concatenate([block.continues_word for block in blocks]),
        np.concatenate([block.sentence_starts + start for block, start in zip(blocks, starts, strict=True)]),
        np.concatenate([block.document_starts + start for block, start in zip(blocks, starts, strict=True)]),
    )


def _plain_encoder(tokenizer: WordPieceTokenizer) -> Encoder:
    from bertkeras.text.in_graph import InGraphTokenizer

    in_graph = InGraphTokenizer(tokenizer)

    def encode(sentences: list[str]) -> Encoded:
        import tensorflow as tf

        ragged = in_graph(tf.constant(sentences, tf.string))
        return Encoded(ragged.values.numpy(), np.zeros(0, bool), ragged.row_splits.numpy())

    return encode


def _segmented_encoder(tokenizer: WordPieceTokenizer, segmenter: Segmenter) -> Encoder:
    def encode(sentences: list[str]) -> Encoded:
        ids: list[int] = []
        continues: list[bool] = []
        splits = [0]
        for sentence in sentences:
            words = segmenter(sentence)
            if "".join(words) != sentence:
                raise BertKerasError(f"the segmenter changed the text: {sentence[:40]!r} came back as {words[:8]!r}")
            word_starts = {0, *itertools.accumulate(map(len, words))}
            encoding = tokenizer.encode(sentence, add_special_tokens=False)
            ids += encoding.ids
            continues += [start not in word_starts for start, _ in encoding.offsets]
            splits.append(len(ids))
        return Encoded(np.array(ids, "int32"), np.array(continues, bool), np.array(splits, "int64"))

    return encode
