"""Raw text to records: split, tokenise, pair, shard."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bertkeras.errors import BertKerasError
from bertkeras.files import write_text
from bertkeras.pipelines.documents import Segmenter, joined, make_encoder, tokenised
from bertkeras.pipelines.layout import PARTS, Layout
from bertkeras.pipelines.ngrams import NgramCounts
from bertkeras.pipelines.records import Records, RecordWriter
from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions, make_rows
from bertkeras.text.wordpiece import WordPieceTokenizer

NGRAMS_FILE, STATISTICS_FILE = "ngrams.safetensors", "prepared.json"


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
        path = folder / STATISTICS_FILE
        if not path.is_file():
            raise BertKerasError(f"{folder} was not made by bertkeras prepare, or not to the end: no prepared.json")
        return cls(
            folder,
            Records.open(folder / "train"),
            Records.open(folder / "held_out"),
            NgramCounts.load(folder / NGRAMS_FILE),
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
    partial = begin(folder, passes, held_out_share)
    fingerprint = tokenizer.fingerprint()
    writers = {part: RecordWriter(partial / part, options, fingerprint, rows_per_shard) for part in PARTS}
    ngrams = NgramCounts(tokenizer.vocabulary_size)
    layout = Layout(options.seed, held_out_share, block_tokens)
    unpaired = 0
    for part, number, block in blocks(tokenised(documents, make_encoder(tokenizer, segmenter)), layout):
        for pass_number in range(passes_over(part, passes)):
            rows = make_rows(block, options, number, pass_number)
            if part == "train":
                unpaired += int(rows["unpaired_tokens"])
            writers[part].write(rows)
        if part == "train":
            ngrams.add(block.tokens, block.document_starts)
        if progress:
            progress(layout.counted["documents"], layout.counted["tokens"])
    check_rows({part: writer.rows for part, writer in writers.items()}, layout, options)
    records = {part: writer.close() for part, writer in writers.items()}
    ngrams.save(partial / NGRAMS_FILE)
    return finish(partial, folder, tokenizer, layout, records, unpaired, passes)


def begin(folder: Path, passes: int, held_out_share: float) -> Path:
    """Check the arguments of `prepare`; the cleared folder beside `folder` to write to.

    Raises:
        BertKerasError: The folder exists, or a number is out of range.
    """
    if folder.exists():
        raise BertKerasError(f"{folder} exists already; choose another folder or remove it")
    if passes < 1 or not 0 < held_out_share < 1:
        raise BertKerasError(f"need passes >= 1 and 0 < held_out_share < 1, got {passes} and {held_out_share}")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def blocks(documents: Iterable[DocumentBlock], layout: Layout) -> Iterator[tuple[str, int, DocumentBlock]]:
    """The documents gathered into blocks for training and for the evaluation: part, number and block."""
    gathered: dict[tuple[str, int], list[DocumentBlock]] = {}
    for document in documents:
        part, number = layout.add(len(document.tokens), len(document.sentence_starts))
        gathered.setdefault((part, number), []).append(document)
        if (part, number - 1) in gathered:  # nothing more comes into it
            yield part, number - 1, joined(gathered.pop((part, number - 1)))
    for (part, number), waiting in gathered.items():
        yield part, number, joined(waiting)


def passes_over(part: str, passes: int) -> int:
    """Times that rows are made of a block: the evaluation needs one."""
    return passes if part == "train" else 1


def check_rows(rows: dict[str, int], layout: Layout, options: RowOptions) -> None:
    """Raises: BertKerasError: There is no document, or a part without rows."""
    counted = layout.counted
    if not counted["documents"]:
        raise BertKerasError("the corpus holds no documents; nothing to prepare")
    for part in PARTS:
        if rows[part]:
            continue
        need = "two documents of two sentences" if options.pairs == "nsp" else "a document of two sentences"
        raise BertKerasError(
            f"no row to {'train' if part == 'train' else 'evaluate'} on: {counted['documents']} documents with "
            f"held-out share {layout.held_out_share} leave {counted['held_out_documents']} held out, and "
            f"pairs={options.pairs!r} needs at least {need} on each side; give more documents (a blank line parts "
            "them) or another share"
        )


def finish(
    partial: Path,
    folder: Path,
    tokenizer: WordPieceTokenizer,
    layout: Layout,
    records: dict[str, Records],
    unpaired: int,
    passes: int,
) -> Prepared:
    """Add the tokenizer and the statistics to the rows and n-gram counts in `partial`, and move all to `folder`.

    Args:
        partial: Where the rows and the counts were written.
        folder: Where they belong.
        tokenizer: Made the pieces.
        layout: Of all documents.
        records: For each part, the rows.
        unpaired: Training tokens that came into no pair, in all passes together.
        passes: Times that rows were made of the training text.
    """
    tokenizer.save(partial)
    statistics = {
        **layout.counted,
        "rows": records["train"].rows,
        "held_out_rows": records["held_out"].rows,
        "unpaired_share": unpaired / (passes * sum(layout.block_sizes["train"])),
    }
    write_text(partial / STATISTICS_FILE, json.dumps(statistics, indent=2) + "\n")
    os.replace(partial, folder)
    return Prepared.open(folder)
