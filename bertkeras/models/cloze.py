"""How well words fill a blank behind, or before, a text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.search import log_softmax
from bertkeras.text.encoding import padded
from bertkeras.text.wordpiece import WordPieceTokenizer


class Cloze:
    """A template with a place for a text and a blank for a word, and the words that may fill it.

    A word of several pieces gets as many `[MASK]`s. Its pieces are scored from left to right, the earlier ones shown
    and the later ones masked, and the score is the mean of their log probabilities. All masked at once, `foot` would
    not help to find `##ball`; one masked at a time, `##ball` would give `foot` away, so that rare words of many pieces
    looked likely (Kauf and Ivanova 2023). Words share a row wherever they show the same pieces: those of one piece
    need one row for each text, however many they are.

    Args:
        tokenizer: Turns strings into ids.
        template: With `{text}` once and `[MASK]` once, in any order.
        words: At least one.

    Raises:
        BertKerasError: A template without the two, or a word that the vocabulary cannot write.

    Reference: https://arxiv.org/abs/2001.07676 (templates and words that stand for labels),
        https://arxiv.org/abs/2305.10588 (from left to right within a word)
    """

    def __init__(self, tokenizer: WordPieceTokenizer, template: str, words: Sequence[str]) -> None:
        if template.count("{text}") != 1 or template.count("[MASK]") != 1:
            raise BertKerasError(
                f"a template for a masked LM has {{text}} once and [MASK] once, which becomes as many as a word has "
                f"pieces; got {template!r}"
            )
        self.tokenizer = tokenizer
        self.words = [tuple(ids) for ids in tokenizer.encode_ids(words)]
        for word, ids in zip(words, self.words, strict=True):
            if not ids or tokenizer.unk_id in ids:
                raise BertKerasError(f"the vocabulary cannot write {word!r}; choose another word in verbalizers=...")
        first, hole, middle, _, last = re.split(r"(\{text\}|\[MASK\])", template)
        self.text_comes_first = hole == "{text}"
        encodings = tokenizer.encode_batch([first, middle, last], add_special_tokens=False, special_tokens_in_text=True)
        self.parts = [encoding.ids for encoding in encodings]
        self.size = 2 + sum(map(len, self.parts)) + max(map(len, self.words))  # all that is not text

    def row(self, text: Sequence[int], length: int, shown: Sequence[int]) -> tuple[list[int], int]:
        """The row of a text in which a word of `length` pieces begins with those shown, and its first blank."""
        first, middle, last = self.parts
        blank = [*shown, *[self.tokenizer.mask_id] * (length - len(shown))]
        head = [self.tokenizer.cls_id, *first]
        if self.text_comes_first:
            head += [*text, *middle]
            tail = last
        else:
            tail = [*middle, *text, *last]
        return [*head, *blank, *tail, self.tokenizer.sep_id], len(head) + len(shown)

    def log_probs(self, model: BertMaskedLM, texts: Sequence[Sequence[int]], batch_size: int = 32) -> np.ndarray:
        """The mean log probability of each word's pieces, `(texts, words)`, in nats.

        Args:
            model: Fills the blanks.
            texts: Ids, so few that with `size` others they fit into the model.
            batch_size: How many rows are computed at once.
        """
        steps = sorted({(len(word), word[:shown]) for word in self.words for shown in range(len(word))})
        pieces = sorted({piece for word in self.words for piece in word})
        found = np.zeros((len(texts), len(steps), len(pieces)))
        rows = [(text, step) for text in range(len(texts)) for step in range(len(steps))]
        rows.sort(key=lambda row: len(texts[row[0]]) + steps[row[1]][0])  # little padding in each batch
        for begin in range(0, len(rows), batch_size):
            batch = rows[begin : begin + batch_size]
            filled = [self.row(texts[text], *steps[step]) for text, step in batch]
            token_ids, padding_mask = padded([ids for ids, _ in filled], self.tokenizer.pad_id)
            mask_positions = np.array([[blank] for _, blank in filled], "int32")
            inputs = {"token_ids": token_ids, "padding_mask": padding_mask, "mask_positions": mask_positions}
            logits = ops.convert_to_numpy(ops.cast(model(inputs, training=False), "float32"))[:, 0]
            known = logits[:, : self.tokenizer.vocabulary_size]  # the table may have rows that are no piece
            for (text, step), log_probs in zip(batch, log_softmax(known.astype("float64")), strict=True):
                found[text, step] = log_probs[pieces]
        scores = [
            [found[:, steps.index((len(word), word[:i])), pieces.index(piece)] for i, piece in enumerate(word)]
            for word in self.words
        ]
        return np.stack([np.mean(score, axis=0) for score in scores], axis=-1)
