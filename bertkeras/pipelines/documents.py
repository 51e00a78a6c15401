"""Texts to documents of word pieces: split into sentences, tokenised, with the word boundaries of a segmenter."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.pipelines.sentence_pairs import DocumentBlock
from bertkeras.text.corpus import split_sentences
from bertkeras.text.wordpiece import WordPieceTokenizer

Segmenter = Callable[[str], list[str]]
Encoder = Callable[[list[str]], tuple[list[np.ndarray], list[np.ndarray]]]
SENTENCES_AT_ONCE = 8192


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
    waiting: list[list[str]] = []

    def flush() -> Iterator[DocumentBlock]:
        ids, continues = encode([sentence for sentences in waiting for sentence in sentences])
        at = 0
        for sentences in waiting:
            chosen = [i for i in range(at, at + len(sentences)) if len(ids[i])]
            at += len(sentences)
            if chosen:
                yield _document([ids[i] for i in chosen], [continues[i] for i in chosen] if continues else [])
        waiting.clear()

    pending = 0
    for document in documents:
        waiting.append(split_sentences(document))
        pending += len(waiting[-1])
        if pending >= SENTENCES_AT_ONCE:
            yield from flush()
            pending = 0
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


def _document(sentences: list[np.ndarray], continues: list[np.ndarray]) -> DocumentBlock:
    return DocumentBlock(
        np.concatenate(sentences).astype("int32"),
        np.concatenate(continues) if continues else np.zeros(0, bool),
        np.cumsum([0, *map(len, sentences[:-1])]).astype("int64"),
        np.zeros(1, "int64"),
    )


def _plain_encoder(tokenizer: WordPieceTokenizer) -> Encoder:
    from bertkeras.text.in_graph import InGraphTokenizer

    in_graph = InGraphTokenizer(tokenizer)

    def encode(sentences: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        import tensorflow as tf

        ragged = in_graph(tf.constant(sentences, tf.string))
        return np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1]) if sentences else [], []

    return encode


def _segmented_encoder(tokenizer: WordPieceTokenizer, segmenter: Segmenter) -> Encoder:
    def encode(sentences: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        ids, continues = [], []
        for sentence in sentences:
            words = segmenter(sentence)
            if "".join(words) != sentence:
                raise BertKerasError(f"the segmenter changed the text: {sentence[:40]!r} came back as {words[:8]!r}")
            word_starts = set(np.cumsum([0, *map(len, words)]).tolist())
            encoding = tokenizer.encode(sentence, add_special_tokens=False)
            ids.append(np.asarray(encoding.ids, "int32"))
            starts = np.asarray([start in word_starts for start, _ in encoding.offsets], bool)
            continues.append(~starts)
        return ids, continues

    return encode
