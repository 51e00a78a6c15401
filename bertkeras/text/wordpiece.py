"""Text to word pieces and back."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.text.encoding import Encoding, assemble
from bertkeras.text.wordpiece_trainer import SPECIAL_TOKENS, count_words, learn_vocabulary

if TYPE_CHECKING:
    import tokenizers
    from tokenizers.normalizers import BertNormalizer


class WordPieceTokenizer:
    """Splits text into words, and words into the longest pieces that the vocabulary has.

    Text is cleaned of control characters, Chinese characters are set apart, and where asked accents are stripped and
    letters lowercased; words end at white space and punctuation. Each word is then cut greedily from the left; a word
    that cannot be cut into known pieces becomes one `[UNK]`. The ids are those of Hugging Face `tokenizers`, which does
    the work.

    Args:
        vocabulary: The pieces in the order of their ids, or a dictionary from piece to id. Must hold `[PAD]`, `[UNK]`,
            `[CLS]`, `[SEP]` and `[MASK]`.
        lowercase: Whether letters are lowercased.
        strip_accents: Whether accents are removed; `None` means as `lowercase` says.
        split_cjk: Whether every Chinese character is a word of its own.
        continuation_prefix: Marks a piece that goes on inside a word; made of punctuation.
        max_characters_per_word: A longer word becomes `[UNK]`.

    Example:

    >>> from bertkeras.text import WordPieceTokenizer
    >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##want", "##ed", "coffee", "!"]
    >>> tokenizer = WordPieceTokenizer(pieces)
    >>> encoding = tokenizer.encode("Unwanted coffee!")
    >>> encoding.tokens
    ['[CLS]', 'un', '##want', '##ed', 'coffee', '!', '[SEP]']
    >>> encoding.offsets
    [(0, 0), (0, 2), (2, 6), (6, 8), (9, 15), (15, 16), (0, 0)]
    >>> tokenizer.decode(encoding.ids)
    'unwanted coffee!'

    Reference:
        Devlin et al. 2019, section 3, "Input/Output representations".
    """

    def __init__(
        self,
        vocabulary: Sequence[str] | Mapping[str, int],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        split_cjk: bool = True,
        continuation_prefix: str = "##",
        max_characters_per_word: int = 100,
    ) -> None:
        self._pieces = _checked_pieces(vocabulary)
        self._ids = {piece: index for index, piece in enumerate(self._pieces)}
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.split_cjk = split_cjk
        self.continuation_prefix = _checked_prefix(continuation_prefix)
        self.max_characters_per_word = max_characters_per_word
        if max_characters_per_word < 1:
            raise BertKerasError(f"max_characters_per_word must be at least 1, got {max_characters_per_word}")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self._ids[t] for t in SPECIAL_TOKENS)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary_size: int = 8000,
        *,
        lowercase: bool = True,
        min_frequency: int = 2,
        alphabet_size: int | None = None,
        strip_accents: bool | None = None,
        split_cjk: bool = True,
        continuation_prefix: str = "##",
        max_characters_per_word: int = 100,
    ) -> WordPieceTokenizer:
        """Learn a vocabulary from text. The same text gives the same vocabulary on every run.

        Args:
            texts: The text, read once and never held in memory: a `Corpus` or any iterable of strings.
            vocabulary_size: Number of pieces, the five special tokens (ids 0 to 4) included.
            lowercase: Whether letters are lowercased.
            min_frequency: A character or a piece that occurs more seldom is not taken; what holds such a character
                becomes `[UNK]`.
            alphabet_size: At most so many distinct characters, the most frequent first; `None` takes all of them.
            strip_accents: Whether accents are removed; `None` means as `lowercase` says.
            split_cjk: Whether every Chinese character is a word of its own.
            continuation_prefix: Marks a piece that goes on inside a word.
            max_characters_per_word: A longer word becomes `[UNK]` and is not learned from.

        Raises:
            BertKerasError: No text, or text that supports fewer pieces than asked for, or more characters than fit.

        Example:

        >>> from bertkeras.text import WordPieceTokenizer
        >>> tokenizer = WordPieceTokenizer.train(["low lower lowest", "new newer newest"], vocabulary_size=27)
        >>> tokenizer.encode("the newest").tokens
        ['[CLS]', '[UNK]', 'ne', '##west', '[SEP]']
        """
        from tokenizers.pre_tokenizers import BertPreTokenizer

        if isinstance(texts, str):
            raise BertKerasError("texts must be an iterable of strings, got one str; pass [text] or Corpus(path)")
        _checked_prefix(continuation_prefix)
        normalizer = bert_normalizer(lowercase, strip_accents, split_cjk)
        words = count_words(texts, normalizer, BertPreTokenizer())
        for word in [word for word in words if len(word) > max_characters_per_word]:
            del words[word]
        pieces = learn_vocabulary(
            words,
            vocabulary_size,
            min_frequency=min_frequency,
            alphabet_size=alphabet_size,
            continuation_prefix=continuation_prefix,
        )
        return cls(
            pieces,
            lowercase=lowercase,
            strip_accents=strip_accents,
            split_cjk=split_cjk,
            continuation_prefix=continuation_prefix,
            max_characters_per_word=max_characters_per_word,
        )

    # Text to ids.

    def encode(
        self,
        text: str,
        pair: str | None = None,
        *,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        special_tokens_in_text: bool = False,
    ) -> Encoding:
        """One text, or a pair of texts, as `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`.

        Args:
            text: The text.
            pair: The second text.
            max_length: Most tokens to keep, special tokens included; of a pair the longer text is cut first. Without
                it nothing is cut.
            add_special_tokens: Whether to add `[CLS]` and `[SEP]`.
            special_tokens_in_text: Whether `[MASK]` and its like, written in the text, stand for the special token.
                Otherwise they are text like any other: `[`, `mask`, `]`.

        Raises:
            BertKerasError: Not a string, a character that UTF-8 cannot write, or no room for text in `max_length`.
        """
        pairs = None if pair is None else [pair]
        options: dict[str, Any] = {"max_length": max_length, "add_special_tokens": add_special_tokens}
        return self.encode_batch([text], pairs, special_tokens_in_text=special_tokens_in_text, **options)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        special_tokens_in_text: bool = False,
    ) -> list[Encoding]:
        """As `encode`, for many texts at once, on all cores."""
        rows = [self._run(texts, special_tokens_in_text)]
        if pairs is not None:
            rows.append(self._run(pairs, special_tokens_in_text))
            if len(rows[0]) != len(rows[1]):
                raise BertKerasError(f"texts and pairs must have equal length, got {len(rows[0])} and {len(rows[1])}")
        special_ids = (self.cls_id, self.sep_id) if add_special_tokens else None
        return [assemble(parts, max_length, special_ids) for parts in zip(*rows, strict=True)]

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Only the ids, without special tokens: the quick way through a corpus."""
        return [encoding.ids for encoding in self._run(texts, False, with_offsets=False)]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of the pieces; spaces are put between words, and taken away before punctuation."""
        ids = [int(index) for index in ids]
        for index in ids:
            self.id_to_token(index)
        return self._marking_engine.decode(ids, skip_special_tokens=skip_special_tokens)

    def _run(self, texts: Sequence[str], special: bool, with_offsets: bool = True) -> list[tokenizers.Encoding]:
        if isinstance(texts, str):
            raise BertKerasError("a batch must be a list of strings, got one str; use encode(text)")
        texts = list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise BertKerasError(f"text must be a str, got {type(text).__name__}; for many texts use encode_batch")
        engine = self._marking_engine if special else self._engine
        run = engine.encode_batch if with_offsets else engine.encode_batch_fast
        try:
            return run(texts, add_special_tokens=False) if len(texts) != 1 else [engine.encode(texts[0])]
        except (UnicodeEncodeError, TypeError):
            for number, text in enumerate(texts):
                if surrogate := re.search("[\ud800-\udfff]", text):
                    raise BertKerasError(
                        f"text {number} has a lone surrogate, {surrogate[0]!r}, at character {surrogate.start()};"
                        " read it again with errors='replace'"
                    ) from None
            raise

    # The vocabulary.

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The pieces in the order of their ids."""
        return self._pieces

    @property
    def vocabulary_size(self) -> int:
        return len(self._pieces)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`, in this order."""
        return (self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)

    def id_to_token(self, index: int) -> str:
        if not 0 <= index < len(self._pieces):
            raise BertKerasError(f"no piece has id {index}; ids run from 0 to {len(self._pieces) - 1}")
        return self._pieces[index]

    def token_to_id(self, token: str) -> int:
        if token not in self._ids:
            raise BertKerasError(f"{token!r} is not a piece of the vocabulary; split the text with encode")
        return self._ids[token]

    def continuation_flags(self) -> np.ndarray:
        """Booleans of shape `(vocabulary_size,)`: whether the piece goes on inside a word."""
        prefix = self.continuation_prefix
        return np.array([piece.startswith(prefix) and piece != prefix for piece in self._pieces])

    def special_flags(self) -> np.ndarray:
        """Booleans of shape `(vocabulary_size,)`: whether the piece is one of the five special tokens."""
        flags = np.zeros(self.vocabulary_size, dtype=bool)
        flags[list(self.special_ids)] = True
        return flags

    # Identity.

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"vocabulary": list(self._pieces), **self._options()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WordPieceTokenizer:
        return cls(**config)

    def fingerprint(self) -> str:
        """SHA-256 over the vocabulary and the options: two tokenizers that agree on every text by construction."""
        options = {**self._options(), "strip_accents": self.strips_accents}
        return hashlib.sha256(json.dumps([self._pieces, options], sort_keys=True).encode()).hexdigest()

    @property
    def strips_accents(self) -> bool:
        """Whether accents are removed, with `strip_accents=None` worked out."""
        return self.lowercase if self.strip_accents is None else self.strip_accents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordPieceTokenizer) and self.fingerprint() == other.fingerprint()

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def __repr__(self) -> str:
        return f"WordPieceTokenizer(vocabulary_size={self.vocabulary_size}, lowercase={self.lowercase})"

    def _options(self) -> dict[str, Any]:
        return {
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "split_cjk": self.split_cjk,
            "continuation_prefix": self.continuation_prefix,
            "max_characters_per_word": self.max_characters_per_word,
        }

    # Files.

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`, which `transformers` loads as well."""
        from bertkeras.text.wordpiece_files import write

        write(self, Path(folder))

    @classmethod
    def load(cls, where: str | os.PathLike[str], *, lowercase: bool | None = None) -> WordPieceTokenizer:
        """Read what `save` wrote, or the tokenizer files of a published BERT.

        `tokenizer.json` says everything and is read first. Of a `vocab.txt` alone, `tokenizer_config.json` tells the
        options; what it leaves out is as in the first release of BERT: lowercase, accents stripped with it, Chinese
        characters set apart. A vocabulary with capital letters in it contradicts that, and then `lowercase` must be
        given.

        Args:
            where: The folder, or a file such as `vocab.txt`.
            lowercase: Overrides what the files say.

        Raises:
            BertKerasError: No tokenizer there, files that disagree, or a tokenizer that is not BERT's.
        """
        from bertkeras.text.wordpiece_files import read

        return cls(**read(Path(where), lowercase))

    # The engines of Hugging Face `tokenizers`, made when first used.

    @cached_property
    def _engine(self) -> tokenizers.Tokenizer:
        from tokenizers import Tokenizer
        from tokenizers.decoders import WordPiece as WordPieceDecoder
        from tokenizers.models import WordPiece
        from tokenizers.pre_tokenizers import BertPreTokenizer

        model = WordPiece(
            vocab=self._ids,
            unk_token="[UNK]",
            max_input_chars_per_word=self.max_characters_per_word,
            continuing_subword_prefix=self.continuation_prefix,
        )
        engine = Tokenizer(model)
        engine.normalizer = bert_normalizer(self.lowercase, self.strip_accents, self.split_cjk)
        engine.pre_tokenizer = BertPreTokenizer()
        engine.decoder = WordPieceDecoder(prefix=self.continuation_prefix)
        return engine

    @cached_property
    def _marking_engine(self) -> tokenizers.Tokenizer:
        """Takes special tokens written in the text for what they name."""
        from tokenizers import AddedToken, Tokenizer

        engine = Tokenizer.from_str(self._engine.to_str())
        engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
        return engine


def bert_normalizer(lowercase: bool, strip_accents: bool | None, split_cjk: bool) -> BertNormalizer:
    """What is done to the characters before the text is split into words."""
    from tokenizers.normalizers import BertNormalizer

    return BertNormalizer(
        clean_text=True, handle_chinese_chars=split_cjk, strip_accents=strip_accents, lowercase=lowercase
    )


def _checked_pieces(vocabulary: Sequence[str] | Mapping[str, int]) -> tuple[str, ...]:
    if isinstance(vocabulary, Mapping):
        ids = vocabulary
        if sorted(ids.values()) != list(range(len(ids))):
            raise BertKerasError(f"the ids of a vocabulary of {len(ids)} pieces must be 0 to {len(ids) - 1}, each once")
        pieces = tuple(sorted(ids, key=ids.__getitem__))
    else:
        pieces = tuple(vocabulary)
    seen: dict[str, int] = {}
    for index, piece in enumerate(pieces):
        if not isinstance(piece, str) or not piece:
            raise BertKerasError(f"piece {index} of the vocabulary must be a string that is not empty, got {piece!r}")
        if piece in seen:
            raise BertKerasError(f"the vocabulary holds {piece!r} twice, as {seen[piece]} and {index}; remove one")
        seen[piece] = index
    missing = [token for token in SPECIAL_TOKENS if token not in seen]
    if missing:
        raise BertKerasError(f"the vocabulary lacks {', '.join(missing)}; add a line for each")
    return pieces


def _checked_prefix(prefix: str) -> str:
    # Words never begin with punctuation and go on, so such a prefix cannot be mistaken for the beginning of a word.
    if not prefix or any(character.isalnum() or character.isspace() for character in prefix):
        raise BertKerasError(f"continuation_prefix must be punctuation such as '##', got {prefix!r}")
    return prefix
