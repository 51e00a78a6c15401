"""Raw text in, a WordPiece vocabulary out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bertkeras.errors import BertKerasError

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def count_words(texts: Iterable[str], normalizer: Normalizer, pre_tokenizer: PreTokenizer) -> Counter[str]:
    """How often each word occurs; what is kept in memory is the distinct words, never the text."""
    counts: Counter[str] = Counter()
    for text in texts:
        if not isinstance(text, str):
            raise BertKerasError(f"texts must give str, got {type(text).__name__}; pass a Corpus or a list of strings")
        words = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))
        counts.update(word for word, _ in words)
    return counts


def learn_vocabulary(
    words: Counter[str],
    vocabulary_size: int,
    *,
    min_frequency: int = 2,
    alphabet_size: int | None = None,
    continuation_prefix: str = "##",
) -> list[str]:
    """Learn word pieces from word counts, the same ones on every run.

    Starting from single characters, the pair of neighbouring pieces that occurs most often becomes a new piece, until
    the vocabulary is full. The vocabulary begins with `[PAD] [UNK] [CLS] [SEP] [MASK]`, then come the characters in
    code-point order, then the learned pieces in the order in which they were found.

    Args:
        words: How often each word occurs.
        vocabulary_size: Number of pieces, special tokens included.
        min_frequency: A character or a pair that occurs more seldom is not taken.
        alphabet_size: At most so many distinct characters, the most frequent first; `None` takes all of them.
        continuation_prefix: Marks a piece that goes on inside a word.

    Returns:
        The pieces, `vocabulary_size` of them.

    Raises:
        BertKerasError: No words, or words that support fewer pieces than asked for, or more characters than fit.

    Reference:
        Schuster and Nakajima 2012, "Japanese and Korean voice search", section 3; the pair is chosen by its count, as
        in Sennrich et al. 2016.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.trainers import WordPieceTrainer

    for name, value in (("vocabulary_size", vocabulary_size), ("min_frequency", min_frequency)):
        if not isinstance(value, int) or value < 1:
            raise BertKerasError(f"{name} must be a positive integer, got {value!r}")
    if not words:
        raise BertKerasError(
            "the text holds no words, so there is nothing to learn a vocabulary from; check the corpus"
        )

    alphabet = _alphabet(words, min_frequency, alphabet_size)
    characters = _character_pieces(words, alphabet, continuation_prefix)
    base = [*SPECIAL_TOKENS, *characters]
    if len(base) > vocabulary_size:
        raise BertKerasError(
            f"vocabulary_size={vocabulary_size} is too small: {len(alphabet)} characters and the special tokens alone"
            f" need {len(base)} pieces; ask for more, or keep only the most frequent characters with alphabet_size"
        )

    # The trainer numbers the pieces "##x" as it meets them in a hash table, so the numbers, and with them the choice
    # between equally frequent pairs, change from run to run. Naming every character beforehand takes the chance out.
    trainer = WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        special_tokens=base,
        continuing_subword_prefix=continuation_prefix,
        show_progress=False,
    )
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = WhitespaceSplit()
    learner.train_from_iterator(_repeated(words, alphabet), trainer)

    ids = learner.get_vocab()
    if len(ids) < vocabulary_size:
        raise BertKerasError(
            f"the text supports only {len(ids)} pieces at min_frequency={min_frequency}, {vocabulary_size} were asked"
            f" for; use vocabulary_size={len(ids)} or less, or give more text"
        )
    return sorted(ids, key=ids.__getitem__)


def _alphabet(words: Counter[str], min_frequency: int, alphabet_size: int | None) -> set[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return {character for character in ranked[:alphabet_size] if counts[character] >= min_frequency}


def _character_pieces(words: Iterable[str], alphabet: set[str], continuation_prefix: str) -> list[str]:
    """A character that occurs in longer words can begin or continue one; punctuation and Chinese stand alone."""
    joined = {character for word in words if len(word) > 1 for character in word} & alphabet
    return sorted(alphabet) + [continuation_prefix + character for character in sorted(joined)]


def _repeated(words: Counter[str], alphabet: set[str]) -> Iterator[str]:
    """Each word as often as it was counted, in lines of at most a thousand."""
    for word, count in words.items():
        if alphabet.issuperset(word):
            for start in range(0, count, 1000):
                yield f"{word} " * min(1000, count - start)
