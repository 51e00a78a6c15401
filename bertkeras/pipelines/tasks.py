"""Labelled examples to rows of pieces, and rows to batches that are addressed by step."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bertkeras.datasets.examples import QuestionExample, TextExample, TokenExample
from bertkeras.errors import BertKerasError
from bertkeras.text.encoding import padded
from bertkeras.text.tags import spans_of, tags_of
from bertkeras.text.targets import target_rows
from bertkeras.text.windows import context_windows, word_windows
from bertkeras.text.wordpiece import WordPieceTokenizer


@dataclass
class TaskRows:
    """What a task model learns from.

    Args:
        ids: Pieces of each row.
        segment_ids: As many numbers 0 or 1.
        labels: Of each row: an int for a class; an array of 0 and 1 for several labels; a float; a list of an int for
            each piece; or `(start, end)` for spans.
        pad_id: What fills up short rows.
        counts: What was cut or left out, by name, for the reader to see: nothing is dropped silently.
        output_positions: Of each row the places that the labels belong to, if not to all.
    """

    ids: list[list[int]]
    segment_ids: list[list[int]]
    labels: list[Any]
    pad_id: int
    counts: Counter[str] = field(default_factory=Counter)
    output_positions: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int]) -> tuple[dict[str, np.ndarray], Any]:
        """Inputs and labels of some rows, filled up to the longest: `(rows, length)`, and with -1 in labels of
        pieces."""
        token_ids, padding_mask = padded([self.ids[row] for row in rows], self.pad_id)
        segment_ids, _ = padded([self.segment_ids[row] for row in rows], 0)
        inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}
        if self.output_positions is not None:
            inputs["output_positions"], _ = padded([self.output_positions[row] for row in rows], 0)
        chosen = [self.labels[row] for row in rows]
        if isinstance(chosen[0], tuple):
            spans = np.array(chosen, "int32")
            return inputs, {"start_positions": spans[:, 0], "end_positions": spans[:, 1]}
        if isinstance(chosen[0], list):
            return inputs, padded(chosen, -1)[0]
        return inputs, np.array(chosen, "int32" if isinstance(chosen[0], int) else "float32")


def text_rows(
    tokenizer: WordPieceTokenizer,
    examples: Sequence[TextExample],
    max_length: int,
    labels: Sequence[str] | None = None,
) -> TaskRows:
    """A row for each text or pair of texts; the longer text of a pair is cut first.

    Args:
        labels: Names of the classes, in order; `None` for numbers.

    Raises:
        BertKerasError: A label that is not among `labels`, or some examples with and some without a pair.
    """
    pairs = [example.pair for example in examples if example.pair is not None]
    if pairs and len(pairs) != len(examples):
        raise BertKerasError(f"{len(pairs)} of {len(examples)} examples have a pair; all or none must have one")
    whole = tokenizer.encode_batch([example.text for example in examples], pairs or None)
    cut = tokenizer.encode_batch([example.text for example in examples], pairs or None, max_length=max_length)
    numbers = {name: index for index, name in enumerate(labels or [])}
    rows = TaskRows([e.ids for e in cut], [e.segment_ids for e in cut], [], tokenizer.pad_id)
    rows.counts["texts cut"] = sum(len(before) > len(after) for before, after in zip(whole, cut, strict=True))
    for example in examples:
        wanted = example.label if isinstance(example.label, tuple) else (example.label,)
        unknown = [name for name in wanted if labels is not None and name not in numbers]
        if unknown:
            raise BertKerasError(f"line {example.line}: unknown label {unknown[0]!r}; known are {', '.join(numbers)}")
        if labels is None:
            rows.labels.append(float(example.label) if isinstance(example.label, (int, float)) else 0.0)
        elif isinstance(example.label, tuple):
            rows.labels.append(np.array([name in example.label for name in numbers], "float32"))
        else:
            rows.labels.append(numbers[str(example.label)])
    return rows


def token_rows(
    tokenizer: WordPieceTokenizer,
    examples: Sequence[TokenExample],
    max_length: int,
    tags: Sequence[str],
    scheme: str = "bio",
) -> TaskRows:
    """Rows of words, with a label at the first piece of each; long sentences become several rows.

    Tags are read as spans and written anew in `scheme`, in each row for itself, so that all are legal in it. No label
    is lost: an entity that a cut divides is counted.

    Raises:
        BertKerasError: An entity whose tag is not among `tags`.
    """
    numbers = {tag: index for index, tag in enumerate(tags)}
    rows = TaskRows([], [], [], tokenizer.pad_id)
    spans = [spans_of(example.tags) for example in examples]
    for window in word_windows(tokenizer, [example.tokens for example in examples], max_length):
        first, last = window.words.start, window.words.stop
        inside = []
        for span in spans[window.sentence]:
            if span.start < last and span.end > first:
                part = span._replace(start=max(span.start, first) - first, end=min(span.end, last) - first)
                inside.append(part)
                rows.counts["entities divided"] += first <= span.start and span.end > last
        labels = [-1] * len(window.ids)
        for place, tag in zip(window.positions, tags_of(inside, last - first, scheme), strict=True):
            if tag not in numbers:
                line = examples[window.sentence].line
                raise BertKerasError(f"line {line}: unknown label {tag!r}; known are {', '.join(numbers)}")
            labels[place] = numbers[tag]
        rows.ids.append(window.ids)
        rows.segment_ids.append([0] * len(window.ids))
        rows.labels.append(labels)
        rows.counts["words cut"] += window.cut
        rows.counts["sentences divided"] += first == 0 and last < len(examples[window.sentence].tokens)
    return rows


def question_rows(
    tokenizer: WordPieceTokenizer, examples: Sequence[QuestionExample], max_length: int, overlap: int = 128
) -> TaskRows:
    """Rows of a question and a part of its context, labelled with the first answer's first and last piece.

    A row that does not hold the whole answer is labelled with `[CLS]`, at 0, as for a question without one. An answer
    that no row holds is counted, and so is one that begins or ends inside a piece: the whole piece is taken.
    """
    questions, contexts = [example.question for example in examples], [example.context for example in examples]
    rows = TaskRows([], [], [], tokenizer.pad_id)
    held, shortened = set(), set()
    for window in context_windows(tokenizer, questions, contexts, max_length, overlap):
        example = examples[window.question]
        label = (0, 0)
        if example.answers:
            answer = example.answers[0]
            begin, end = answer.start, answer.start + len(answer.text)
            while begin < end and _is_dropped(example.context[begin]):
                begin += 1
            while begin < end and _is_dropped(example.context[end - 1]):
                end -= 1
            inside = [index for index, (s, e) in enumerate(window.offsets) if s < end and e > begin]
            if inside and window.offsets[inside[0]][0] <= begin and window.offsets[inside[-1]][1] >= end:
                label = (window.context_start + inside[0], window.context_start + inside[-1])
                if window.question not in held:
                    exact = (window.offsets[inside[0]][0], window.offsets[inside[-1]][1]) == (begin, end)
                    rows.counts["answers inside a piece"] += not exact
                held.add(window.question)
        rows.ids.append(window.ids)
        rows.segment_ids.append(window.segment_ids)
        rows.labels.append(label)
        shortened.update([window.question] if window.question_cut else [])
    rows.counts["questions cut"] = len(shortened)
    rows.counts["answers that no row holds"] = sum(bool(e.answers) for e in examples) - len(held)
    return rows


def _is_dropped(character: str) -> bool:
    """Whether the tokenizer leaves it out: white space, control characters, signs without width."""
    return character.isspace() or character == "\ufffd" or unicodedata.category(character).startswith("C")


def similarity_rows(tokenizer: WordPieceTokenizer, examples: Sequence[TextExample], max_length: int) -> TaskRows:
    """Two rows for each pair of texts, one after the other, both with the pair's number."""
    texts = [text for example in examples for text in (example.text, example.pair or "")]
    rows = text_rows(tokenizer, [TextExample(text) for text in texts], max_length)
    rows.labels = [float(e.label) if isinstance(e.label, (int, float)) else 1.0 for e in examples for _ in (0, 1)]
    return rows


def generation_rows(tokenizer: WordPieceTokenizer, examples: Sequence[TextExample], max_length: int) -> TaskRows:
    """Rows of a source and its target, labelled with the piece that comes next in the target.

    Of a row that is too long the longer text is cut first, which is counted; a target that was cut does not teach where
    to end.
    """
    found = target_rows(tokenizer, [e.text for e in examples], [e.pair or "" for e in examples], max_length)
    return TaskRows(
        [row.encoding.ids for row in found],
        [row.encoding.segment_ids for row in found],
        [row.labels for row in found],
        tokenizer.pad_id,
        Counter({"rows cut": sum(row.cut for row in found)}),
        [list(row.positions) for row in found],
    )


def order_of(rows: TaskRows, batch_size: int, seed: int, epoch: int, together: int = 1) -> list[list[int]]:
    """The batches of an epoch: every row once, in an order drawn anew for each epoch.

    Rows of like length share a batch, which saves padding: the shuffled rows are cut into stretches of 32 batches, each
    stretch is sorted by length and cut into batches, and the batches are shuffled.

    Args:
        together: How many rows that follow each other must stay in one batch.
    """
    generator = np.random.default_rng([seed, epoch])
    groups = generator.permutation(len(rows) // together)
    per_batch = max(1, batch_size // together)
    batches = []
    for begin in range(0, len(groups), 32 * per_batch):
        stretch = groups[begin : begin + 32 * per_batch]
        lengths = [max(len(rows.ids[together * group + part]) for part in range(together)) for group in stretch]
        stretch = stretch[np.argsort(lengths, kind="stable")]
        batches += [stretch[at : at + per_batch] for at in range(0, len(stretch), per_batch)]
    return [
        [int(together * group + part) for group in batches[index] for part in range(together)]
        for index in generator.permutation(len(batches))
    ]


def steps_per_epoch(rows: TaskRows, batch_size: int, together: int = 1) -> int:
    """Batches in an epoch."""
    groups, per_batch = len(rows) // together, max(1, batch_size // together)
    full, rest = divmod(groups, 32 * per_batch)
    return full * 32 + -(-rest // per_batch)


def task_batches(
    rows: TaskRows, batch_size: int, epochs: int, seed: int, start_step: int = 0, together: int = 1
) -> Iterator[tuple[dict[str, np.ndarray], Any, list[int]]]:
    """Inputs, labels and row numbers of every step from `start_step` on."""
    per_epoch = steps_per_epoch(rows, batch_size, together)
    for epoch in range(start_step // per_epoch, epochs):
        batches = order_of(rows, batch_size, seed, epoch, together)
        for batch in batches[start_step - epoch * per_epoch if epoch == start_step // per_epoch else 0 :]:
            yield *rows.batch(batch), batch
