"""Raw text to records: split, tokenise, pair, shard."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.files import write_text
from bertkeras.pipelines.ngrams import NgramCounts
from bertkeras.pipelines.records import Records, RecordWriter
from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions, make_rows
from bertkeras.text.corpus import split_sentences
from bertkeras.text.wordpiece import WordPieceTokenizer

Segmenter = Callable[[str], list[str]]
SENTENCES_AT_ONCE = 8192


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A folder of prepared text: `train/`, `held_out/`, n-gram counts, statistics and the tokenizer.

    Attributes:
        folder: Where it is.
        train, held_out: The rows.
        ngrams: Counts over the training documents.
        statistics: `documents`, `held_out_documents`, `sentences`, `tokens`, `rows`, `held_out_rows` and
            `unpaired_share`, the share of training tokens that came into no pair: see `make_rows`.
    """

    folder: Path
    train: Records
    held_out: Records
    ngrams: NgramCounts
    statistics: dict[str, float]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Prepared:
        """Raises: BertKerasError: `prepare` did not make the folder, or did not finish."""
        folder = Path(folder)
        path = folder / "prepared.json"
        if not path.is_file():
            raise BertKerasError(f"{folder} was not made by bertkeras prepare, or not to the end: no prepared.json")
        return cls(
            folder,
            Records.open(folder / "train"),
            Records.open(folder / "held_out"),
            NgramCounts.load(folder / "ngrams.safetensors"),
            json.loads(path.read_text(encoding="utf-8")),
        )


def prepare(
    documents: Iterable[str],
    tokenizer: WordPieceTokenizer,
    folder: str | os.PathLike[str],
    options: RowOptions,
    *,
    passes: int = 4,
    held_out_share: float = 0.02,
    segmenter: Segmenter | None = None,
    block_tokens: int = 2**22,
    rows_per_shard: int = 2**14,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write the rows of a corpus, made `passes` times over, each time with other windows and pairs.

    Documents stream through in blocks of about `block_tokens`; the other half of a false pair comes from the same
    block. Everything is written beside `folder` first and moved there at the end.

    Args:
        documents: Texts; a line break is a sentence boundary.
        tokenizer: Makes the pieces, and is saved beside the rows.
        folder: Must not exist.
        options: How documents become rows.
        passes: Times the training text is cut into rows.
        held_out_share: Share of the documents kept from training, for the evaluation.
        segmenter: Cuts a sentence of a language without spaces into words (such as `jieba.lcut`), for whole-word
            masking; the words joined must give the sentence.
        block_tokens: Tokens held in memory.
        rows_per_shard: Rows in a file.
        progress: Called with the documents and tokens read so far.

    Raises:
        BertKerasError: The folder exists, there is no document, or nothing is left to train or to evaluate on.
    """
    folder = Path(folder)
    if folder.exists():
        raise BertKerasError(f"{folder} exists already; choose another folder or remove it")
    if passes < 1 or not 0 < held_out_share < 1:
        raise BertKerasError(f"need passes >= 1 and 0 < held_out_share < 1, got {passes} and {held_out_share}")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    fingerprint = tokenizer.fingerprint()
    writers = {
        part: RecordWriter(partial / part, options, fingerprint, rows_per_shard) for part in ("train", "held_out")
    }
    ngrams = NgramCounts(tokenizer.vocabulary_size)
    counted = {"documents": 0, "held_out_documents": 0, "sentences": 0, "tokens": 0}
    unpaired = 0
    blocks = {"train": 0, "held_out": 0}
    for part, block in _blocks(documents, tokenizer, options.seed, held_out_share, segmenter, block_tokens, counted):
        for pass_number in range(passes if part == "train" else 1):
            rows = make_rows(block, options, blocks[part], pass_number)
            if part == "train":
                unpaired += int(rows["unpaired_tokens"])
            writers[part].write(rows)
        blocks[part] += 1
        if part == "train":
            ngrams.add(block.tokens, block.document_starts)
        if progress:
            progress(counted["documents"], counted["tokens"])
    _check(counted, writers, options, held_out_share)
    records = {part: writer.close() for part, writer in writers.items()}
    ngrams.save(partial / "ngrams.safetensors")
    tokenizer.save(partial)
    statistics = {
        **counted,
        "rows": records["train"].rows,
        "held_out_rows": records["held_out"].rows,
        "unpaired_share": unpaired / (passes * max(int(ngrams.unigrams.sum()), 1)),
    }
    write_text(partial / "prepared.json", json.dumps(statistics, indent=2) + "\n")
    os.replace(partial, folder)
    return Prepared.open(folder)


def _check(counted: dict[str, int], writers: dict[str, RecordWriter], options: RowOptions, share: float) -> None:
    if not counted["documents"]:
        raise BertKerasError("the corpus holds no documents; nothing to prepare")
    for part, writer in writers.items():
        if writer.rows:
            continue
        need = "two documents of two sentences" if options.pairs == "nsp" else "a document of two sentences"
        raise BertKerasError(
            f"no row to {'train' if part == 'train' else 'evaluate'} on: {counted['documents']} documents with "
            f"held-out share {share} leave {counted['held_out_documents']} held out, and pairs={options.pairs!r} "
            f"needs at least {need} on each side; give more documents (a blank line parts them) or another share"
        )


def _blocks(
    documents: Iterable[str],
    tokenizer: WordPieceTokenizer,
    seed: int,
    held_out_share: float,
    segmenter: Segmenter | None,
    block_tokens: int,
    counted: dict[str, int],
) -> Iterator[tuple[str, DocumentBlock]]:
    """Tokenised documents, gathered into blocks for training and for the evaluation."""
    gathered: dict[str, list[list[np.ndarray]]] = {"train": [], "held_out": []}
    boundaries: dict[str, list[list[np.ndarray]]] = {"train": [], "held_out": []}
    sizes = {"train": 0, "held_out": 0}

    def flush(part: str) -> DocumentBlock:
        block = _flatten(gathered[part], boundaries[part])
        gathered[part], boundaries[part], sizes[part] = [], [], 0
        return block

    for sentences, continues in _tokenised(documents, tokenizer, segmenter):
        number = counted["documents"]
        held_out = np.random.default_rng([seed, number]).random() < held_out_share
        part = "held_out" if held_out else "train"
        counted["documents"] += 1
        counted["held_out_documents"] += int(held_out)
        counted["sentences"] += len(sentences)
        size = sum(map(len, sentences))
        counted["tokens"] += size
        # A block never ends with the next document waiting alone: it ends when that one would make it too large.
        if sizes[part] and sizes[part] + size > block_tokens:
            yield part, flush(part)
        gathered[part].append(sentences)
        boundaries[part].append(continues)
        sizes[part] += size
    for part, waiting in gathered.items():
        if waiting:
            yield part, flush(part)


def _tokenised(
    documents: Iterable[str], tokenizer: WordPieceTokenizer, segmenter: Segmenter | None
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """For each document, the ids of its sentences and, with a segmenter, where words go on; many at a time."""
    encode = _segmented_encoder(tokenizer, segmenter) if segmenter else _plain_encoder(tokenizer)
    waiting: list[list[str]] = []

    def flush() -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
        ids, continues = encode([sentence for sentences in waiting for sentence in sentences])
        at = 0
        for sentences in waiting:
            chosen = [i for i in range(at, at + len(sentences)) if len(ids[i])]
            at += len(sentences)
            if chosen:
                yield [ids[i] for i in chosen], [continues[i] for i in chosen] if continues else []
        waiting.clear()

    pending = 0
    for document in documents:
        waiting.append(split_sentences(document))
        pending += len(waiting[-1])
        if pending >= SENTENCES_AT_ONCE:
            yield from flush()
            pending = 0
    yield from flush()


Encoder = Callable[[list[str]], tuple[list[np.ndarray], list[np.ndarray]]]


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


def _flatten(documents: list[list[np.ndarray]], continues: list[list[np.ndarray]]) -> DocumentBlock:
    sentences = [sentence for document in documents for sentence in document]
    lengths = np.asarray([len(sentence) for sentence in sentences], "int64")
    sentence_starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype("int64")
    first_sentence = np.concatenate([[0], np.cumsum([len(document) for document in documents])[:-1]]).astype("int64")
    flags = [flag for document in continues for flag in document]
    return DocumentBlock(
        np.concatenate(sentences).astype("int32"),
        np.concatenate(flags) if flags else np.zeros(0, bool),
        sentence_starts,
        sentence_starts[first_sentence],
    )
