"""The tokenizer as TensorFlow operations, for `tf.data` and for a model that is shipped with it."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.text.wordpiece import WordPieceTokenizer, bert_normalizer

if TYPE_CHECKING:
    import tensorflow as tf

PLAIN_TEXT = r"[\t\n\r -~]*"  # ASCII without control characters
_NOT_IN_A_PIECE = re.compile(r"[\0\t\n\r ]")


class InGraphTokenizer:
    """Gives the ids of `WordPieceTokenizer.encode(text, add_special_tokens=False)` inside a TensorFlow graph.

    TensorFlow Text's `FastBertTokenizer` agrees with Hugging Face `tokenizers` on plain ASCII, so such texts go
    straight through it. On other text it does not: it composes compatibility characters ("ß" becomes "ss", "２" becomes
    "2"), puts spaces for control characters, keeps private-use ones and knows another version of Unicode. There each
    character is first replaced by what `tokenizers` makes of it, looked up in a table that is asked from `tokenizers`
    itself, then the words are split at white space and cut by the `FastWordpieceTokenizer`.

    The marks that stay when accents are removed, those of Adlam or Balinese for instance, are then put in canonical
    order, as `tokenizers` does. All options of `WordPieceTokenizer` are honoured, and so are invalid bytes, which count
    as U+FFFD and are dropped.

    So every text gives the same ids. What TensorFlow Text cannot store is refused, though no published vocabulary has
    it: a piece with white space or a NUL in it, a piece of more than 256 bytes, a `continuation_prefix` of a single
    character, and a vocabulary in which every piece but the special tokens mixes punctuation with something else.

    Args:
        tokenizer: The tokenizer to follow.

    Call arguments:
        texts: `tf.string` tensor of shape `(batch,)`, UTF-8.

    Returns:
        `tf.RaggedTensor` of `int32` ids, shape `(batch, None)`, without special tokens.

    Raises:
        BertKerasError: TensorFlow Text is not installed or cannot store the vocabulary, or `texts` is of another shape.

    Example:

    >>> from bertkeras.text import InGraphTokenizer, WordPieceTokenizer
    >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##want", "##ed", "coffee"]
    >>> tokenize = InGraphTokenizer(WordPieceTokenizer(pieces))
    >>> tokenize(["Unwanted coffee", "a café"]).to_list()
    [[5, 6, 7, 8], [1, 1]]

    Reference:
        Song et al. 2021, "Fast WordPiece tokenization".
    """

    def __init__(self, tokenizer: WordPieceTokenizer) -> None:
        tf, tf_text = _import_tensorflow_text()
        _check_storable(tokenizer)
        self.tokenizer = tokenizer
        common: dict[str, Any] = {
            "vocab": list(tokenizer.vocabulary),
            "suffix_indicator": tokenizer.continuation_prefix,
            "token_out_type": tf.int32,
            "unknown_token": "[UNK]",
        }
        limit = tokenizer.max_characters_per_word
        table = _character_table(tokenizer.lowercase, tokenizer.strips_accents, tokenizer.split_cjk)
        try:
            self._plain = tf_text.FastBertTokenizer(
                max_bytes_per_word=limit, lower_case_nfd_strip_accents=tokenizer.lowercase, **common
            )
            # A character has at most four bytes; words with too many characters are caught in `_tokenize_any`.
            self._cut_word = tf_text.FastWordpieceTokenizer(
                max_bytes_per_word=4 * limit, no_pretokenization=True, **common
            )
        except RuntimeError as error:
            raise BertKerasError(
                f"TensorFlow Text cannot use this vocabulary ({error}); train one with WordPieceTokenizer.train"
            ) from None
        self._pages, self._page_of = tf.constant(table.pages), tf.constant(table.page_of)
        self._rows = tf.RaggedTensor.from_row_lengths(table.rows, table.lengths)
        self._classes = tf.RaggedTensor.from_row_lengths(table.classes, table.lengths)
        self._begins, self._first_with_mark = tf.constant(table.begins), table.first_with_mark

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        import tensorflow as tf

        texts = tf.convert_to_tensor(texts)
        if texts.dtype != tf.string or texts.shape.rank != 1:
            raise BertKerasError(
                f"texts must be a string tensor of shape (batch,), got {texts.dtype.name} of shape {texts.shape};"
                " reshape it"
            )
        is_plain = tf.strings.regex_full_match(texts, PLAIN_TEXT)
        plain, other = tf.where(is_plain)[:, 0], tf.where(~is_plain)[:, 0]  # (num_plain,), (num_other,)
        ids = tf.concat(
            [self._plain.tokenize(tf.gather(texts, plain)), self._tokenize_any(tf.gather(texts, other))], axis=0
        )
        return tf.gather(ids, tf.argsort(tf.concat([plain, other], axis=0)))

    def _tokenize_any(self, texts: tf.Tensor) -> tf.RaggedTensor:
        import tensorflow as tf

        words = tf.strings.split(self._normalize(texts))  # (batch, words)
        flat = words.flat_values
        is_long = tf.strings.length(flat, unit="UTF8_CHAR") > self.tokenizer.max_characters_per_word
        pieces = self._cut_word.tokenize(tf.where(is_long, "[UNK]", flat))
        return words.with_flat_values(pieces).merge_dims(1, 2)

    def _normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Every character replaced by its row of the table, punctuation between spaces."""
        import tensorflow as tf

        codes = tf.strings.unicode_decode(texts, "UTF-8")  # (batch, characters)
        flat = codes.flat_values
        row = tf.gather(self._pages, tf.gather(self._page_of, flat // 256) * 256 + flat % 256)
        made = tf.gather(self._rows, row)  # (all characters, what each becomes)
        filled = tf.where(made.values == SELF, tf.repeat(flat, made.row_lengths()), made.values)

        def in_canonical_order() -> tf.Tensor:
            # Marks change places among themselves, never across a character that begins anew or the end of a text.
            group = tf.cumsum(tf.gather(self._begins, row)) + codes.value_rowids()  # (all characters,)
            place = 256 * tf.repeat(group, made.row_lengths()) + tf.gather(self._classes, row).values
            return tf.gather(filled, tf.argsort(place, stable=True))

        has_mark = tf.reduce_any(row >= self._first_with_mark)  # few batches have one and need the sorting
        filled = tf.cond(has_mark, in_canonical_order, lambda: filled)
        splits = tf.gather(made.row_splits, codes.row_splits)
        return tf.strings.unicode_encode(tf.RaggedTensor.from_row_splits(filled, splits, validate=False), "UTF-8")


def _check_storable(tokenizer: WordPieceTokenizer) -> None:
    prefix = tokenizer.continuation_prefix
    if len(prefix) == 1:
        raise BertKerasError(f"TensorFlow Text needs a continuation_prefix of two characters or more, got {prefix!r}")
    for index, piece in enumerate(tokenizer.vocabulary):
        # White space would go unnoticed: plain text is matched with the piece before it is split into words.
        if _NOT_IN_A_PIECE.search(piece) or len(piece.removeprefix(prefix).encode()) > 256:
            raise BertKerasError(
                f"TensorFlow Text cannot store piece {index}, {piece[:20]!r}, of {len(piece.encode())} bytes:"
                " it takes no white space, no NUL and at most 256 bytes; remove the piece"
            )


SELF = -1  # in a row of the table: the character that was looked up
_MARK = "ʘ"  # stands between characters: a letter with nothing to normalise, which nothing else becomes


class CharacterTable(NamedTuple):
    """What the normaliser of `tokenizers` makes of each code point, punctuation set between spaces.

    Most code points stay as they are, vanish, or stand alone, so the table holds for every code point only the number
    of a row, in pages of 256 of which equal ones are stored once.

    Args:
        pages: Row numbers, shape `(num_pages * 256,)`.
        page_of: The page of each 256 code points, shape `(0x1100,)`.
        rows: The code points of all rows, one after another, `SELF` for the one looked up.
        classes: Their canonical combining classes; 0 for all but a few marks, and for these too where accents stay and
            nothing is ordered.
        lengths: Length of each row.
        begins: For each row 1 or 0: whether the marks after this character stay after it. It may itself be dropped.
        first_with_mark: From here on the rows hold a code point whose class is not 0.
    """

    pages: np.ndarray
    page_of: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    lengths: np.ndarray
    begins: np.ndarray
    first_with_mark: int


class _Row(NamedTuple):
    codes: tuple[int, ...]
    classes: tuple[int, ...]
    begins: bool


@lru_cache(maxsize=4)
def _character_table(lowercase: bool, strip_accents: bool, split_cjk: bool) -> CharacterTable:
    from tokenizers.normalizers import NFD, Sequence
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer = bert_normalizer(lowercase, strip_accents, split_cjk)
    decompose = Sequence([bert_normalizer(False, False, False), NFD()])
    pre_tokenizer = BertPreTokenizer()
    class_of = _combining_classes() if strip_accents else {}
    numbers = {_Row((SELF,), (0,), True): 0}
    row_of = np.zeros(0x110000, dtype=np.int32)
    for start in _PROBED:
        characters = [chr(code) for code in range(start, start + 256)]
        if _MARK in characters:  # the mark itself cannot be told from the marks between
            made = [normalizer.normalize_str(character) for character in characters]
        else:
            made = normalizer.normalize_str(_MARK.join(["", *characters, ""])).split(_MARK)[1:-1]
        alphabet = _MARK.join(["", *set("".join(made)), ""])
        alone = {word for word, _ in pre_tokenizer.pre_tokenize_str(alphabet) if len(word) == 1} - {_MARK}
        for character, text in zip(characters, made, strict=True):
            spaced = "".join(f" {one} " if one in alone else one for one in text)
            first = (spaced or decompose.normalize_str(character))[:1]
            row = _Row(
                codes=tuple(SELF if one == character else ord(one) for one in spaced),
                classes=tuple(class_of.get(one, 0) for one in spaced),
                begins=first != "" and first not in class_of,
            )
            row_of[ord(character)] = numbers.setdefault(row, len(numbers))
    for start, end, same_as in _UNIFORM:
        row_of[start:end] = row_of[same_as]

    rows = sorted(numbers, key=lambda row: any(row.classes))
    row_of = np.argsort([numbers[row] for row in rows]).astype(np.int32)[row_of]
    pages, page_of = np.unique(row_of.reshape(-1, 256), axis=0, return_inverse=True)
    return CharacterTable(
        pages=pages.reshape(-1),
        page_of=page_of.reshape(-1).astype(np.int32),
        rows=np.array([code for row in rows for code in row.codes], dtype=np.int32),
        classes=np.array([number for row in rows for number in row.classes], dtype=np.int64),
        lengths=np.array([len(row.codes) for row in rows], dtype=np.int64),
        begins=np.array([row.begins for row in rows], dtype=np.int64),
        first_with_mark=sum(not any(row.classes) for row in rows),
    )


def _combining_classes() -> dict[str, int]:
    """The marks that canonical ordering moves. `tokenizers` knows fewer of them than Python does."""
    from tokenizers.normalizers import NFD

    marks = [chr(code) for code in range(0x110000) if unicodedata.combining(chr(code))]
    last = "\u0345"  # its class is the highest: every mark that is known goes before it
    return {one: unicodedata.combining(one) for one in marks if NFD().normalize_str(last + one) == one + last}


# The blocks of 256 code points that are asked for; surrogates are no characters.
_PROBED = [
    *range(0, 0xD800, 256),
    *range(0xE000, 0x40000, 256),
    *range(0xE0000, 0xE1000, 256),
    *(0xF0000, 0xFFF00, 0x10FF00),
]
# The others are alike: nothing is assigned there, or all of it is private use.
_UNIFORM = [
    (0x40000, 0xE0000, 0x3FF00),
    (0xE1000, 0xF0000, 0xE0F00),
    (0xF0100, 0xFFF00, 0xF0000),
    (0x100000, 0x10FF00, 0xF0000),
]


def _import_tensorflow_text() -> tuple[Any, Any]:
    try:
        import tensorflow as tf
        import tensorflow_text as tf_text
    except ImportError as error:
        raise BertKerasError(
            f'InGraphTokenizer needs TensorFlow Text ({error}); run: pip install "bertkeras[tensorflow]"'
        ) from None
    return tf, tf_text
