"""Where each document goes: its number, the training text or the held-out one, and the block of it."""

from __future__ import annotations

import bisect
import dataclasses

import numpy as np

PARTS = ("train", "held_out")


def _of_parts() -> dict[str, list[int]]:
    return {part: [] for part in PARTS}


@dataclasses.dataclass
class Layout:
    """The places of the documents, decided by their sizes alone, one after another.

    Documents are numbered in the order of the corpus, those without a piece left out. Whether one is held out is drawn
    from its number. Each part is gathered into blocks: a block ends when the next document would make it too large.

    Args:
        seed: Of the draw.
        held_out_share: Share of the documents kept from training.
        block_tokens: Tokens in a block, unless its one document has more.
        counted: `documents`, `held_out_documents`, `sentences` and `tokens` so far.
        first_documents: For each part, the number of the first document of every block.
        block_sizes: For each part, the tokens in every block.
    """

    seed: int
    held_out_share: float
    block_tokens: int
    counted: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"documents": 0, "held_out_documents": 0, "sentences": 0, "tokens": 0}
    )
    first_documents: dict[str, list[int]] = dataclasses.field(default_factory=_of_parts)
    block_sizes: dict[str, list[int]] = dataclasses.field(default_factory=_of_parts)

    def add(self, tokens: int, sentences: int) -> tuple[str, int]:
        """Place the next document.

        Args:
            tokens: Its pieces, at least one.
            sentences: Its sentences.

        Returns:
            The part and the number of the block.
        """
        number = self.counted["documents"]
        part = self.part_of(number)
        self.counted["documents"] += 1
        self.counted["held_out_documents"] += int(part == "held_out")
        self.counted["sentences"] += sentences
        self.counted["tokens"] += tokens
        sizes = self.block_sizes[part]
        # A block never ends with the next document waiting alone: it ends when that one would make it too large.
        if not sizes or sizes[-1] + tokens > self.block_tokens:
            self.first_documents[part].append(number)
            sizes.append(0)
        sizes[-1] += tokens
        return part, len(sizes) - 1

    def part_of(self, number: int) -> str:
        held_out = np.random.default_rng([self.seed, number]).random() < self.held_out_share
        return "held_out" if held_out else "train"

    def place_of(self, number: int) -> tuple[str, int]:
        """The part and the block of a document that was added before."""
        part = self.part_of(number)
        return part, bisect.bisect_right(self.first_documents[part], number) - 1
