"""A vocabulary and a configuration for models whose weights are drawn."""

from bertkeras.config import BertConfig
from bertkeras.text import WordPieceTokenizer
from tests.checks import randomize

PIECES = [
    "the",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "nurse",
    "doctor",
    "he",
    "she",
    "##s",
    ".",
    ",",
    *"他她是医生",
]
TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES])
CONFIG = BertConfig(len(TOKENIZER.vocabulary) + 3, 2, 24, 3, 40, max_sequence_length=32)


def drawn(cls, *arguments, config=CONFIG, scale=0.3, **options):
    """A model with random weights, far from zero."""
    model = cls(config, *arguments, tokenizer=TOKENIZER, **options)
    randomize(model, scale=scale)
    return model
