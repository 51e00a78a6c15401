"""What the workers of `bertkeras.pipelines.beam` do with an element; nothing here needs Beam."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bertkeras.files import write_text
from bertkeras.pipelines.documents import Encoder, Segmenter, joined, make_encoder, tokenised
from bertkeras.pipelines.layout import PARTS, Layout
from bertkeras.pipelines.ngrams import NgramCounts
from bertkeras.pipelines.prepare import NGRAMS_FILE, passes_over
from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions, make_rows
from bertkeras.pipelines.shards import Shard, count_tokens, serialised_rows, write_shard
from bertkeras.text.corpus import INSTALLED_DOCS, Corpus, Unit
from bertkeras.text.wordpiece import WordPieceTokenizer

CHUNK_CHARACTERS = 2**20  # of text that a worker tokenises at once
SUMMARY_FILE = "summary.json"

ChunkKey = tuple[int, int]  # number of the unit, number of the chunk in it
BlockKey = tuple[str, int]  # part, number of the block in it
PassKey = tuple[str, int, int]  # part, block, pass: the order of the rows
ShardKey = tuple[str, int]  # part, number of the file


@dataclasses.dataclass(frozen=True)
class Steps:
    """What the workers do with an element of the pipeline; sent to them, so its attributes are plain.

    Args:
        corpus: What is read.
        folder: Holds the tokenizer and takes the shards.
        options: How documents become rows.
        vocabulary_size: That of the tokenizer.
        passes, held_out_share, segmenter, block_tokens, rows_per_shard: As for `prepare`.
    """

    corpus: Corpus
    folder: Path
    options: RowOptions
    vocabulary_size: int
    passes: int
    held_out_share: float
    segmenter: Segmenter | None
    block_tokens: int
    rows_per_shard: int

    def units(self) -> list[tuple[int, Unit]]:
        """The numbered units of the corpus, with paths that do not depend on where a worker was started."""
        return [
            (number, unit if unit.kind == INSTALLED_DOCS else unit._replace(path=os.path.abspath(unit.path)))
            for number, unit in enumerate(self.corpus.units())
        ]

    def read(self, numbered: tuple[int, Unit]) -> Iterator[tuple[ChunkKey, list[str]]]:
        """The documents of a unit in chunks of about `CHUNK_CHARACTERS`."""
        number, unit = numbered
        chunk = itertools.count()
        texts: list[str] = []
        size = 0
        for text in self.corpus.read(unit):
            texts.append(text)
            size += len(text)
            if size >= CHUNK_CHARACTERS:
                yield (number, next(chunk)), texts
                texts, size = [], 0
        if texts:
            yield (number, next(chunk)), texts

    def tokenise(self, chunk: tuple[ChunkKey, list[str]]) -> tuple[ChunkKey, list[DocumentBlock]]:
        """The documents of a chunk that have a piece."""
        key, texts = chunk
        return key, list(tokenised(texts, _encoder(self.folder, self.segmenter)))

    def measure(self, chunk: tuple[ChunkKey, list[DocumentBlock]]) -> tuple[ChunkKey, list[tuple[int, int]]]:
        """Tokens and sentences of each document."""
        key, documents = chunk
        return key, [(len(document.tokens), len(document.sentence_starts)) for document in documents]

    def lay_out(self, sizes: list[tuple[ChunkKey, list[tuple[int, int]]]]) -> tuple[Layout, dict[ChunkKey, int]]:
        """The layout of all documents, and the number of the first one of every chunk."""
        layout = Layout(self.options.seed, self.held_out_share, self.block_tokens)
        first_documents = {}
        for key, documents in sorted(sizes):
            first_documents[key] = layout.counted["documents"]
            for tokens, sentences in documents:
                layout.add(tokens, sentences)
        return layout, first_documents

    def place(
        self, chunk: tuple[ChunkKey, list[DocumentBlock]], plan: tuple[Layout, dict[ChunkKey, int]]
    ) -> Iterator[tuple[BlockKey, tuple[int, DocumentBlock]]]:
        """The documents of a chunk by the block they belong to, with the number of the first."""
        key, documents = chunk
        layout, first_documents = plan
        of_block: dict[BlockKey, list[tuple[int, DocumentBlock]]] = {}
        for number, document in enumerate(documents, first_documents[key]):
            of_block.setdefault(layout.place_of(number), []).append((number, document))
        for block, numbered in of_block.items():
            yield block, (numbered[0][0], joined([document for _, document in numbered]))

    def join(self, group: tuple[BlockKey, Iterable[tuple[int, DocumentBlock]]]) -> tuple[BlockKey, DocumentBlock]:
        """The whole block."""
        key, numbered = group
        return key, joined([documents for _, documents in sorted(numbered, key=_first)])

    def count_ngrams(
        self, block: tuple[BlockKey, DocumentBlock], plan: tuple[Layout, dict[ChunkKey, int]]
    ) -> Iterator[NgramCounts]:
        """The counts of a training block, if `prepare` would not have stopped counting before it."""
        (part, number), documents = block
        counts = NgramCounts(self.vocabulary_size)
        if part == "train" and counts.goes_on_after(sum(plan[0].block_sizes[part][:number])):
            counts.add(documents.tokens, documents.document_starts)
            yield counts

    def add_ngrams(self, counts: Iterable[NgramCounts]) -> NgramCounts:
        total = NgramCounts(self.vocabulary_size)
        for some in counts:
            total.merge(some)
        return total

    def count_rows(self, block: tuple[BlockKey, DocumentBlock]) -> Iterator[tuple[PassKey, dict[str, int]]]:
        """What each pass makes of a block: `rows`, `tokens` in them, and tokens `unpaired`."""
        for key, rows in self._passes(block):
            unpaired = int(rows["unpaired_tokens"])
            tokens = count_tokens(rows, self.options)
            yield key, {"rows": len(rows["label"]), "tokens": tokens, "unpaired": unpaired}

    def make_rows(
        self, block: tuple[BlockKey, DocumentBlock], counts: list[tuple[PassKey, dict[str, int]]]
    ) -> Iterator[tuple[ShardKey, tuple[int, list[bytes]]]]:
        """The rows of a block by the shard they belong to, with the number of the first."""
        part = block[0][0]
        in_order = sorted((key, count["rows"]) for key, count in counts if key[0] == part)
        ends = itertools.accumulate(rows for _, rows in in_order)
        first_rows = {key: end - rows for (key, rows), end in zip(in_order, ends, strict=True)}
        for key, rows in self._passes(block):
            numbered = enumerate(serialised_rows(rows, self.options), first_rows[key])
            for shard, group in itertools.groupby(numbered, lambda pair: pair[0] // self.rows_per_shard):
                of_shard = list(group)
                yield (part, shard), (of_shard[0][0], [row for _, row in of_shard])

    def write(self, group: tuple[ShardKey, Iterable[tuple[int, list[bytes]]]]) -> tuple[ShardKey, Shard]:
        """A file of rows."""
        (part, number), numbered = group
        rows = [row for _, rows in sorted(numbered, key=_first) for row in rows]
        return (part, number), write_shard(self.folder / part, number, rows)

    def conclude(
        self,
        _: None,
        plan: tuple[Layout, dict[ChunkKey, int]],
        counts: list[tuple[PassKey, dict[str, int]]],
        shards: list[tuple[ShardKey, Shard]],
        ngrams: NgramCounts,
    ) -> None:
        """Write down what `prepare_with_beam` needs to finish."""
        layout, first_documents = plan
        ngrams.save(self.folder / NGRAMS_FILE)
        summary = {
            "chunks": len(first_documents),
            "layout": dataclasses.asdict(layout),
            "tokens": {part: sum(count["tokens"] for key, count in counts if key[0] == part) for part in PARTS},
            "unpaired": sum(count["unpaired"] for key, count in counts if key[0] == "train"),
            "shards": {
                part: [dataclasses.asdict(shard) for key, shard in sorted(shards, key=_first) if key[0] == part]
                for part in PARTS
            },
        }
        write_text(self.folder / SUMMARY_FILE, json.dumps(summary))

    def _passes(self, block: tuple[BlockKey, DocumentBlock]) -> Iterator[tuple[PassKey, dict[str, Any]]]:
        (part, number), documents = block
        for pass_number in range(passes_over(part, self.passes)):
            yield (part, number, pass_number), make_rows(documents, self.options, number, pass_number)


@functools.lru_cache(maxsize=1)
def _encoder(folder: Path, segmenter: Segmenter | None) -> Encoder:
    """Made once in a process, for all its threads and all the chunks that it is given."""
    return make_encoder(WordPieceTokenizer.load(folder), segmenter)


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]
