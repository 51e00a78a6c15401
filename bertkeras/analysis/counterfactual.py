"""The same text about the other gender."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bertkeras.errors import BertKerasError

# In English, each with its counterpart in both directions; `her`, which has two, is decided by what follows
ENGLISH = (
    ("he", "she"), ("him", "her"), ("his", "her"), ("his", "hers"), ("himself", "herself"), ("man", "woman"),
    ("men", "women"), ("boy", "girl"), ("boys", "girls"), ("male", "female"), ("males", "females"),
    ("father", "mother"), ("fathers", "mothers"), ("dad", "mum"), ("son", "daughter"), ("sons", "daughters"),
    ("brother", "sister"), ("brothers", "sisters"), ("husband", "wife"), ("husbands", "wives"), ("uncle", "aunt"),
    ("uncles", "aunts"), ("nephew", "niece"), ("nephews", "nieces"), ("grandfather", "grandmother"),
    ("grandson", "granddaughter"), ("king", "queen"), ("kings", "queens"), ("prince", "princess"),
    ("princes", "princesses"), ("actor", "actress"), ("actors", "actresses"), ("waiter", "waitress"),
    ("waiters", "waitresses"), ("gentleman", "lady"), ("gentlemen", "ladies"), ("mr", "mrs"), ("sir", "madam"),
    ("boyfriend", "girlfriend"), ("bridegroom", "bride"), ("widower", "widow"), ("policeman", "policewoman"),
    ("businessman", "businesswoman"), ("chairman", "chairwoman"), ("salesman", "saleswoman"),
)  # fmt: skip
CHINESE = (
    ("他", "她"), ("男", "女"), ("先生", "女士"), ("父亲", "母亲"), ("爸爸", "妈妈"), ("儿子", "女儿"),
    ("哥哥", "姐姐"), ("弟弟", "妹妹"), ("丈夫", "妻子"), ("爷爷", "奶奶"), ("叔叔", "阿姨"), ("兄弟", "姐妹"),
    ("国王", "王后"), ("王子", "公主"), ("新郎", "新娘"),
)  # fmt: skip
# What comes after `her` where it is no possessive: `I saw her and ...`, `told her that ...`
_NOT_POSSESSED = frozenset((
    "a", "about", "across", "after", "again", "against", "all", "along", "am", "an", "and", "are", "around",
    "as", "at", "away", "back", "because", "been", "before", "behind", "but", "by", "can", "could", "did", "do",
    "does", "down", "during", "each", "even", "ever", "for", "from", "had", "has", "have", "her", "here", "his",
    "how", "if", "in", "into", "is", "it", "its", "just", "later", "like", "many", "may", "might", "more",
    "most", "much", "my", "never", "no", "not", "now", "of", "off", "on", "once", "only", "or", "our", "out",
    "over", "quite", "since", "so", "some", "soon", "than", "that", "the", "their", "them", "then", "there",
    "they", "this", "those", "though", "through", "to", "today", "too", "toward", "towards", "under", "until",
    "up", "upon", "us", "very", "was", "we", "well", "were", "what", "when", "where", "which", "while", "who",
    "why", "will", "with", "without", "would", "yesterday", "yet", "you", "your",
))  # fmt: skip


def swap_words(text: str, pairs: Sequence[tuple[str, str]] = (*ENGLISH, *CHINESE)) -> str:
    """The text with every word of a pair in the place of its counterpart, whether small, `Capitalised` or `CAPITAL`.

    Words in Latin letters are swapped whole; Chinese words wherever they stand, the longest first. A word that
    belongs to several pairs becomes its first counterpart; `her`, though, becomes `his` before what can be hers and
    `him` elsewhere, and `his` becomes `her` before such a word and `hers` elsewhere. Names stay.

    Args:
        text: Any text.
        pairs: Words and their counterparts, in small letters.

    Raises:
        BertKerasError: A pair that is no two words.

    Example:

    >>> from bertkeras.analysis import swap_words
    >>> swap_words("He gave her his book, and her brother thanked her.")
    'She gave him her book, and his sister thanked him.'
    >>> swap_words("她的父亲是医生。")
    '他的母亲是医生。'

    Reference: Zmigrod et al. 2019, https://arxiv.org/abs/1906.04571; Lu et al. 2020, https://arxiv.org/abs/1807.11714
    """
    counterparts = counterparts_of(pairs)
    latin = sorted((word for word in counterparts if word.isascii()), key=len, reverse=True)
    other = sorted((word for word in counterparts if not word.isascii()), key=len, reverse=True)
    patterns = [rf"(?<![\w'])(?:{'|'.join(map(re.escape, latin))})(?![\w])"] if latin else []
    patterns += list(map(re.escape, other))
    if not patterns:
        return text

    def swapped(match: re.Match[str]) -> str:
        word = match[0].lower()
        choices = counterparts[word]
        choice = choices[0]
        if word in ("her", "his") and len(choices) > 1:
            owns = _owns(text[match.end() :])
            wanted = {"her": ("his", "him"), "his": ("her", "hers")}[word][not owns]
            choice = wanted if wanted in choices else choice
        return _cased(choice, match[0])

    return re.sub("|".join(patterns), swapped, text, flags=re.IGNORECASE)


def counterparts_of(pairs: Sequence[tuple[str, str]]) -> Mapping[str, list[str]]:
    """For each word those it may become, in the order of the pairs."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(word, str) and word for word in pair):
            raise BertKerasError(f"pairs must be two words each, got {pair!r}")
        for word, other in (pair, pair[::-1]):
            if other not in found.setdefault(word.lower(), []):
                found[word.lower()].append(other.lower())
    return found


def _owns(rest: str) -> bool:
    """Whether what follows can be somebody's: a word at once, that is none of those which say otherwise."""
    following = re.match(r"\s+([^\W\d_]+)", rest)
    return following is not None and following[1].lower() not in _NOT_POSSESSED


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word.capitalize() if like[0].isupper() else word
