"""How varied the language of texts is, and how alike two texts are."""

import random
import re
from collections import Counter, defaultdict
from dataclasses import astuple, dataclass

WINDOW, STEP = 500, 25  # words
GRAMS = 2500
LONGEST = 30_000  # words
CJK = "\u4e00-\u9fff"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+(?:['’][a-z]+)?")  # a Chinese character is a word


def words(text):
    """The words of a text in small letters, without punctuation."""
    return WORD.findall(text.lower())


def n_grams(text, n):
    found = words(text)
    return [tuple(found[start : start + n]) for start in range(len(found) - n + 1)]


@dataclass(frozen=True)
class Diversity:
    """How varied texts are; every figure is at most 1.

    Args:
        distinct_words: The share of distinct words in 500 in a row, mean over the windows (moving-average type-token
            ratio, Covington and McFall 2010).
        distinct_2: The share of distinct pairs of neighbours in 2,500 in a row, mean over the windows (distinct-n,
            Li et al. 2016, which falls with the length of the text: hence windows of one length for every set).
        distinct_3: The same of three words in a row.
    """

    distinct_words: float
    distinct_2: float
    distinct_3: float

    def __iter__(self):
        return iter(astuple(self))


def diversity(texts):
    """The `Diversity` of the first 30,000 words of texts in a random order."""
    texts = [text for text in texts if words(text)]
    random.Random(0).shuffle(texts)
    kept, count = [], 0
    for text in texts:
        if count < LONGEST:
            kept.append(text)
            count += len(words(text))
    found = [word for text in kept for word in words(text)]
    pairs, triples = ([gram for text in kept for gram in n_grams(text, n)] for n in (2, 3))
    return Diversity(_distinct(found, WINDOW, STEP), _distinct(pairs, GRAMS, GRAMS), _distinct(triples, GRAMS, GRAMS))


def _distinct(items, window, step):
    """The share of distinct items in a window, mean over the windows."""
    assert len(items) >= window, f"only {len(items)}, but a window has {window}"
    starts = range(0, len(items) - window + 1, step)
    return sum(len(set(items[start : start + window])) for start in starts) / window / len(starts)


def near_duplicates(texts, n, above):
    """Pairs of texts whose sets of n-grams overlap by more than a share of their union (Jaccard)."""
    grams = [set(n_grams(text, n)) for text in texts]
    holders = defaultdict(list)
    found = []
    for index, own in enumerate(grams):
        shared = Counter(other for gram in own for other in holders[gram])
        found += [
            (texts[other], texts[index]) for other, count in shared.items() if count > above * len(own | grams[other])
        ]
        for gram in own:
            holders[gram].append(index)
    return found


def exact_duplicates(texts):
    """Texts that stand more than once, if case, spaces and punctuation are left aside."""
    counts = Counter(tuple(words(text)) for text in texts)
    return [" ".join(found) for found, count in counts.items() if count > 1]


def commonest_opening(texts):
    """The share of texts that begin with the two words with which most of them do."""
    openings = Counter(tuple(words(text)[:2]) for text in texts if words(text))
    return openings.most_common(1)[0][1] / openings.total()
