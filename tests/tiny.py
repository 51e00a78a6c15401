"""A language small enough to learn in seconds, and the options to learn it."""

from __future__ import annotations

import numpy as np

from bertkeras import BertConfig, WordPieceTokenizer
from bertkeras.pipelines import Masking, RowOptions, pretraining_dataset
from bertkeras.pipelines.prepare import Prepared, prepare

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


def prepare_rows(folder):
    """Write this language's rows and its vocabulary to `folder`."""
    tokenizer = WordPieceTokenizer.train(documents(), OPTIONS["vocabulary_size"])
    prepare(documents(), tokenizer, folder, RowOptions(OPTIONS["max_sequence_length"]), passes=2, held_out_share=0.2)
    return folder


def pretraining_batches(folder, batch_size):
    """Endless batches of what `prepare_rows` wrote, the same ones every time."""
    tokenizer = WordPieceTokenizer.load(folder)
    masking = Masking(tokenizer.vocabulary_size, tokenizer.mask_id, tuple(tokenizer.special_ids), max_predictions=4)
    return pretraining_dataset(Prepared.open(folder).train, masking, batch_size)


def config(dropout):
    """A BERT large enough for this language."""
    return BertConfig(
        vocabulary_size=OPTIONS["vocabulary_size"],
        num_layers=2,
        hidden_dim=32,
        num_heads=2,
        intermediate_dim=64,
        max_sequence_length=OPTIONS["max_sequence_length"],
        dropout=dropout,
        attention_dropout=dropout,
    )
