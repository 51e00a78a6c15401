"""A language small enough to learn in seconds, and the options to learn it."""

from __future__ import annotations

import numpy as np

SUBJECTS = {"river": "flows", "bird": "sings", "stone": "rests", "wind": "blows", "star": "shines", "tree": "grows"}
PLACES = ["near the hill", "over the sea", "by the road", "in the night", "at noon"]


def documents(count: int = 80, seed: int = 0) -> list[str]:
    """Each document keeps to one subject, so that the next sentence can be told from another document's."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        subject = random.choice(list(SUBJECTS))
        sentences = [
            f"The {subject} {SUBJECTS[subject]} {random.choice(PLACES)}." for _ in range(random.integers(3, 9))
        ]
        texts.append("\n".join(sentences))
    return texts


def write_corpus(path, count: int = 80):
    path.write_text("\n\n".join(documents(count)), encoding="utf-8")
    return path


OPTIONS = {
    "vocabulary_size": 98,  # all the text supports: every word is a piece
    "max_sequence_length": 24,
    "size": "tiny",
    "num_layers": 1,
    "hidden_dim": 16,
    "num_heads": 2,
    "steps": 12,
    "dropout": 0.1,
    "batch_size": 8,
    "passes": 2,
    "held_out_share": 0.2,
    "log_steps": 4,
    "checkpoint_steps": 5,
    "sentences": ["The [MASK] flows by the road."],
}
