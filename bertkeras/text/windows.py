"""Long texts cut into rows that a model can read, with nothing lost at the cuts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bertkeras.errors import BertKerasError
from bertkeras.text.wordpiece import WordPieceTokenizer


@dataclass(frozen=True, slots=True)
class WordWindow:
    """Some words of a sentence as one row `[CLS] words [SEP]`.

    Args:
        sentence: The number of the sentence.
        ids: Piece numbers.
        words: Which words of the sentence stand in the row.
        positions: For each of them, where in `ids` its first piece is.
        kept: For which words this window decides: all of them, or those farther from its ends than in its neighbours.
        cut: How many words lost pieces because one word is longer than a row.
    """

    sentence: int
    ids: list[int]
    words: range
    positions: list[int]
    kept: range
    cut: int = 0


def word_windows(
    tokenizer: WordPieceTokenizer, sentences: Sequence[Sequence[str]], max_length: int, overlap: int = 0
) -> list[WordWindow]:
    """Rows of at most `max_length` pieces, cut between words; neighbours share about `overlap` pieces.

    Every word of every sentence is kept by exactly one window. A word without pieces, such as a lone control
    character, stands as `[UNK]`.
    """
    room = max_length - 2
    if room < 1 or not 0 <= overlap < max(room, 2):
        raise BertKerasError(f"need max_length of 3 or more and an overlap below it, got {max_length} and {overlap}")
    known = sorted({word for sentence in sentences for word in sentence})
    pieces_of = dict(zip(known, tokenizer.encode_ids(known), strict=True)) if known else {}
    windows = []
    for number, sentence in enumerate(sentences):
        pieces = [(pieces_of[word] or [tokenizer.unk_id])[:room] for word in sentence]
        begins, ends = _cuts([len(part) for part in pieces], room, overlap)
        for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            ids, positions = [tokenizer.cls_id], []
            for part in pieces[begin:end]:
                positions.append(len(ids))
                ids += part
            kept_from = (begin + ends[index - 1] + 1) // 2 if index else 0
            kept_to = (begins[index + 1] + end + 1) // 2 if index + 1 < len(begins) else len(sentence)
            cut = sum(len(pieces_of[word]) > room for word in sentence[kept_from:kept_to])
            windows.append(
                WordWindow(
                    number, [*ids, tokenizer.sep_id], range(begin, end), positions, range(kept_from, kept_to), cut
                )
            )
    return windows


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """A question and a part of its context as one row `[CLS] question [SEP] part [SEP]`.

    Args:
        question: The number of the question.
        ids: Piece numbers.
        segment_ids: 0 for the question, 1 for the context.
        context_start: Where in `ids` the context begins.
        offsets: For every piece of the part, its span of characters in the whole context.
        kept: Which pieces of the row this window decides on: those with more context around them than elsewhere.
        question_cut: How many pieces of the question were left out.
    """

    question: int
    ids: list[int]
    segment_ids: list[int]
    context_start: int
    offsets: list[tuple[int, int]]
    kept: range
    question_cut: int = 0


def context_windows(
    tokenizer: WordPieceTokenizer,
    questions: Sequence[str],
    contexts: Sequence[str],
    max_length: int,
    overlap: int = 128,
    max_question: int = 64,
) -> list[ContextWindow]:
    """Rows of at most `max_length` pieces; neighbouring parts of a context share `overlap` pieces.

    Args:
        overlap: No more than half of a part.
        max_question: Pieces of a question beyond these are left out, and counted.
    """
    asked = tokenizer.encode_batch(questions, add_special_tokens=False)
    different = list(dict.fromkeys(contexts))  # several questions are asked about one text
    encoded = tokenizer.encode_batch(different, add_special_tokens=False) if different else []
    read = {
        text: replace(encoding, offsets=_with_marks(text, encoding.offsets))
        for text, encoding in zip(different, encoded, strict=True)
    }
    windows = []
    for number, (question, context) in enumerate(zip(asked, (read[context] for context in contexts), strict=True)):
        question_ids = question.ids[: min(max_question, max_length // 2)]
        head = [tokenizer.cls_id, *question_ids, tokenizer.sep_id]
        room = max_length - len(head) - 1
        if room < 2:
            raise BertKerasError(f"max_length={max_length} leaves no room for a context")
        begins, ends = _cuts([1] * len(context.ids), room, min(overlap, room // 2))
        for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            kept_from = (begin + ends[index - 1] + 1) // 2 if index else 0
            kept_to = (begins[index + 1] + end + 1) // 2 if index + 1 < len(begins) else len(context.ids)
            windows.append(
                ContextWindow(
                    number,
                    [*head, *context.ids[begin:end], tokenizer.sep_id],
                    [0] * len(head) + [1] * (end - begin + 1),
                    len(head),
                    context.offsets[begin:end],
                    range(len(head) + kept_from - begin, len(head) + kept_to - begin),
                    len(question.ids) - len(question_ids),
                )
            )
    return windows


def _with_marks(text: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same spans, each with the accents behind it that the tokenizer takes off."""
    found = []
    for index, (start, end) in enumerate(offsets):
        limit = offsets[index + 1][0] if index + 1 < len(offsets) else len(text)
        while end < limit and unicodedata.category(text[end]).startswith("M"):
            end += 1
        found.append((start, end))
    return found


def _cuts(sizes: list[int], room: int, overlap: int) -> tuple[list[int], list[int]]:
    """Begins and ends of runs of items whose sizes fit into `room`; neighbours share at most `overlap`."""
    begins, ends = [0], []
    total = 0
    for index, size in enumerate(sizes):
        if total + size > room:
            ends.append(index)
            begin, total = index, 0
            while begin > begins[-1] + 1 and total + sizes[begin - 1] <= overlap and total + size < room:
                begin -= 1
                total += sizes[begin]
            while total + size > room:  # the item itself must fit
                total -= sizes[begin]
                begin += 1
            begins.append(begin)
        total += size
    return begins, [*ends, len(sizes)]
