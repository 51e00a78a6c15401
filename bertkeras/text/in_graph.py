"""The tokenizer as TensorFlow operations, for `tf.data` and for a model that is shipped with it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.text.wordpiece import WordPieceTokenizer, bert_normalizer

if TYPE_CHECKING:
    import tensorflow as tf

PLAIN_TEXT = r"[\t\n\r -~]*"  # ASCII without control characters


class InGraphTokenizer:
    """Gives the ids of `WordPieceTokenizer.encode(text, add_special_tokens=False)` inside a TensorFlow graph.

    TensorFlow Text's `FastBertTokenizer` agrees with Hugging Face `tokenizers` on plain ASCII, so such texts go
    straight through it. On other text it does not: it composes compatibility characters ("ß" becomes "ss", "２" becomes
    "2"), puts spaces for control characters, keeps private-use ones and knows another version of Unicode. There each
    character is first replaced by what `tokenizers` makes of it, looked up in a table that is asked from `tokenizers`
    itself, then the words are split at white space and cut by the `FastWordpieceTokenizer`.

    All options of `WordPieceTokenizer` are honoured, and so are invalid bytes, which count as U+FFFD and are dropped.
    What differs is the order of marks that canonical ordering swaps though accents are not removed with them: two
    adjacent characters of category Mc whose combining classes descend, such as U+302E before U+1D165. They do not
    occur together in any language, and come out in the order in which they were written.

    Args:
        tokenizer: The tokenizer to follow.

    Call arguments:
        texts: `tf.string` tensor of shape `(batch,)`, UTF-8.

    Returns:
        `tf.RaggedTensor` of `int32` ids, shape `(batch, None)`, without special tokens.

    Raises:
        BertKerasError: TensorFlow Text is not installed, or `texts` is of another shape.

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
        splits = tf.gather(made.row_splits, codes.row_splits)
        return tf.strings.unicode_encode(tf.RaggedTensor.from_row_splits(filled, splits, validate=False), "UTF-8")


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
        lengths: Length of each row.
    """

    pages: np.ndarray
    page_of: np.ndarray
    rows: np.ndarray
    lengths: np.ndarray


@lru_cache(maxsize=4)
def _character_table(lowercase: bool, strip_accents: bool, split_cjk: bool) -> CharacterTable:
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer = bert_normalizer(lowercase, strip_accents, split_cjk)
    pre_tokenizer = BertPreTokenizer()
    numbers: dict[tuple[int, ...], int] = {(SELF,): 0}
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
            row = tuple(SELF if one == character else ord(one) for one in spaced)
            row_of[ord(character)] = numbers.setdefault(row, len(numbers))
    for start, end, same_as in _UNIFORM:
        row_of[start:end] = row_of[same_as]

    pages, page_of = np.unique(row_of.reshape(-1, 256), axis=0, return_inverse=True)
    lengths = np.array([len(row) for row in numbers], dtype=np.int64)
    rows = np.array([code for row in numbers for code in row], dtype=np.int32)
    return CharacterTable(pages.reshape(-1), page_of.reshape(-1).astype(np.int32), rows, lengths)


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
