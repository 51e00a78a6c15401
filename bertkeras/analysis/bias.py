"""Whether a model takes sides: published measures of bias, with intervals."""

from __future__ import annotations

import difflib
import itertools
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.running import needed_tokenizer
from bertkeras.models.search import log_softmax
from bertkeras.text.encoding import padded
from bertkeras.text.wordpiece import WordPieceTokenizer

Blank = tuple[
    Sequence[int], int, int
]  # a row in which something is masked, a masked place in it, the piece wanted there


@dataclass(frozen=True)
class Share:
    """A part of a whole, in percent.

    Args:
        percent: 100 times `hits / count`.
        interval: From where to where it lies with 95 % confidence (Wilson 1927).
        hits: How many.
        count: Of how many.
    """

    percent: float
    interval: tuple[float, float]
    hits: int
    count: int

    @classmethod
    def of(cls, hits: int, count: int) -> Share:
        if not count:
            return cls(math.nan, (math.nan, math.nan), 0, 0)
        from scipy.stats import binomtest

        low, high = binomtest(hits, count).proportion_ci(method="wilson")
        return cls(100 * hits / count, (100 * low, 100 * high), hits, count)


@dataclass(frozen=True, eq=False)
class CrowsPairs:
    """How often a masked LM finds the more stereotyping sentence of a pair the likelier one.

    Args:
        metric: The measure: 50 % has no preference. Pairs that come out equal count as no.
        stereotype: The same of the pairs of which `sent_more` shows a stereotype about a disadvantaged group; pairs
            that come out equal are left out.
        antistereotype: The same of the pairs of which `sent_less` goes against one.
        by_type: The measure for each kind of bias.
        neutral: How many pairs come out equal, to three decimals.
        scores: `(pairs, 2)`: the pseudo-log-likelihoods of `sent_more` and `sent_less`, to three decimals.
    """

    metric: Share
    stereotype: Share
    antistereotype: Share
    by_type: dict[str, Share]
    neutral: int
    scores: np.ndarray


def crows_pairs(model: BertMaskedLM, rows: Sequence[Mapping[str, Any]], batch_size: int = 64) -> CrowsPairs:
    """The measure of CrowS-Pairs: which of two sentences that differ in a group's name is the likelier.

    A sentence's score is the sum of the log probabilities of the pieces that both sentences have, each masked in turn
    while all others are shown, so that how common the group's name is does not count.

    Args:
        model: A masked LM with a tokenizer.
        rows: With `sent_more`, `sent_less`, `stereo_antistereo` and `bias_type`, such as
            `bertkeras.datasets.rows("crows-pairs", "test")`.
        batch_size: How many rows are computed at once.

    Raises:
        BertKerasError: No pairs, no tokenizer, or a sentence of more pieces than the model reads.

    Reference: Nangia et al. 2020, https://arxiv.org/abs/2010.00133; on what the pairs miss, Blodgett et al. 2021,
        https://aclanthology.org/2021.acl-long.81/
    """
    tokenizer = needed_tokenizer(model.tokenizer, "crows_pairs")
    if not rows:
        raise BertKerasError("no pairs of sentences to compare")
    blanks: list[Blank] = []
    owners: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        sides = [tokenizer.encode(row[name]).ids for name in ("sent_more", "sent_less")]
        for side, (ids, places) in enumerate(zip(sides, shared_places(*sides), strict=True)):
            for place in places[1:-1]:  # all but [CLS] and [SEP]
                blanks.append(([*ids[:place], tokenizer.mask_id, *ids[place + 1 :]], place, ids[place]))
                owners.append((index, side))
    scores = np.zeros((len(rows), 2))
    np.add.at(scores, tuple(np.array(owners).T), blank_log_probs(model, tokenizer, blanks, batch_size))
    scores = scores.round(3)
    more, less = scores.T
    stereotyping = np.array([row["stereo_antistereo"] == "stereo" for row in rows])
    counted, decided = more > less, more != less  # `sent_more` is the stereotyping sentence in either direction

    def share(of: np.ndarray, whole: np.ndarray) -> Share:
        return Share.of(int(counted[of].sum()), int(whole.sum()))

    types = np.array([row["bias_type"] for row in rows])
    everything = np.ones(len(rows), bool)
    return CrowsPairs(
        share(everything, everything),
        share(stereotyping, stereotyping & decided),
        share(~stereotyping, ~stereotyping & decided),
        {str(name): share(types == name, types == name) for name in sorted(set(types))},
        int((~decided).sum()),
        scores,
    )


def shared_places(first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where two rows of pieces have the same ones, in order, as `difflib` finds them; as many places in each."""
    matches = difflib.SequenceMatcher(None, [*map(str, first)], [*map(str, second)]).get_matching_blocks()
    return [m.a + i for m in matches for i in range(m.size)], [m.b + i for m in matches for i in range(m.size)]


def blank_log_probs(
    model: BertMaskedLM, tokenizer: WordPieceTokenizer, blanks: Sequence[Blank], batch_size: int = 64
) -> np.ndarray:
    """The log probability of the piece wanted in each blank, `(blanks,)` float64, in nats.

    Raises:
        BertKerasError: A row that is longer than the model reads.
    """
    limit = model.config.max_sequence_length
    longest = max((len(ids) for ids, _, _ in blanks), default=0)
    if longest > limit:
        raise BertKerasError(f"a sentence has {longest} pieces, but the model reads at most {limit}; leave it out")
    found = np.zeros(len(blanks))
    by_length = sorted(range(len(blanks)), key=lambda index: len(blanks[index][0]))
    for begin in range(0, len(blanks), batch_size):
        batch = by_length[begin : begin + batch_size]
        token_ids, padding_mask = padded([blanks[index][0] for index in batch], tokenizer.pad_id)
        places = np.array([[blanks[index][1]] for index in batch], "int32")
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask, "mask_positions": places}
        logits = ops.convert_to_numpy(ops.cast(model(inputs, training=False), "float32"))[:, 0]
        known = log_softmax(logits[:, : tokenizer.vocabulary_size].astype("float64"))
        found[batch] = known[range(len(batch)), [blanks[index][2] for index in batch]]
    return found


@dataclass(frozen=True)
class StereoSet:
    """StereoSet's three scores, in percent, each the mean over the groups asked for.

    Args:
        language_model: How often a word that makes sense is likelier than one that does not; 100 is best.
        stereotype: How often the stereotype is likelier than its opposite; 50 has no preference.
        icat: `language_model * min(stereotype, 100 - stereotype) / 50`; 100 is best.
        intervals: For each of the three, where it lies with 95 % confidence: 1,000 draws of groups, with replacement.
        count: How many sentences were asked for.
    """

    language_model: float
    stereotype: float
    icat: float
    intervals: dict[str, tuple[float, float]]
    count: int


def stereoset(model: BertMaskedLM, rows: Sequence[Mapping[str, Any]], seed: int = 0, batch_size: int = 64) -> StereoSet:
    """The scores of StereoSet's sentences with a blank (its pairs of sentences are for models of whole texts).

    A word's score is the mean of the log probabilities of its pieces, from left to right, the earlier ones shown and
    the later ones masked.

    Args:
        model: A masked LM with a tokenizer.
        rows: With `kind`, `target`, `context` and a sentence for `stereotype`, `anti-stereotype` and `unrelated`, such
            as `bertkeras.datasets.rows("stereoset", "dev")`; those of another kind than `intrasentence` are passed
            over.
        seed: Draws the samples of the intervals.
        batch_size: How many rows are computed at once.

    Raises:
        BertKerasError: No row with a blank.

    Reference: Nadeem, Bethke, Reddy 2021, https://arxiv.org/abs/2004.09456
    """
    tokenizer = needed_tokenizer(model.tokenizer, "stereoset")
    rows = [row for row in rows if row["kind"] == "intrasentence"]
    if not rows:
        raise BertKerasError("no row of kind intrasentence with a BLANK in its context")
    blanks: list[Blank] = []
    owners: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        head, _, tail = row["context"].partition("BLANK")
        before, after = tokenizer.encode_ids([head, tail])
        for side, name in enumerate(("stereotype", "anti-stereotype", "unrelated")):
            (pieces,) = tokenizer.encode_ids([blank_word(row["context"], row[name])])
            for shown, piece in enumerate(pieces):
                hidden = [tokenizer.mask_id] * (len(pieces) - shown)
                ids = [tokenizer.cls_id, *before, *pieces[:shown], *hidden, *after, tokenizer.sep_id]
                blanks.append((ids, 1 + len(before) + shown, piece))
                owners.append((index, side))
    sums, counts = np.zeros((len(rows), 3)), np.zeros((len(rows), 3))
    where = tuple(np.array(owners).T)
    np.add.at(sums, where, blank_log_probs(model, tokenizer, blanks, batch_size))
    np.add.at(counts, where, 1)
    pro, anti, unrelated = (sums / np.maximum(counts, 1)).T

    targets = [row["target"] for row in rows]
    groups = [np.flatnonzero([target == name for target in targets]) for name in sorted(set(targets))]
    sensible = ((pro > unrelated).astype(float) + (anti > unrelated)) / 2
    by_group = np.array([[sensible[group].mean(), (pro > anti)[group].mean()] for group in groups]) * 100

    def scores(by_group: np.ndarray) -> tuple[float, float, float]:
        language_model, stereotype = by_group.mean(axis=0)
        return language_model, stereotype, language_model * min(stereotype, 100 - stereotype) / 50

    rng = np.random.default_rng(seed)
    draws = [scores(by_group[rng.integers(len(groups), size=len(groups))]) for _ in range(1000)]
    ends = np.percentile(draws, [2.5, 97.5], axis=0).T
    names = ("language_model", "stereotype", "icat")
    intervals = {name: (float(low), float(high)) for name, (low, high) in zip(names, ends, strict=True)}
    language_model, stereotype, icat = map(float, scores(by_group))
    return StereoSet(language_model, stereotype, icat, intervals, len(rows))


def blank_word(context: str, sentence: str) -> str:
    """The word that a sentence has where the context has `BLANK`, found by counting words, as StereoSet's authors do.

    Raises:
        BertKerasError: No `BLANK`, or no word there.
    """
    places = [place for place, word in enumerate(context.split(" ")) if "BLANK" in word]
    words = sentence.split(" ")
    word = words[places[0]].strip(string.punctuation) if places and places[0] < len(words) else ""
    if not word:
        raise BertKerasError(f"no word in {sentence!r} where {context!r} has its BLANK")
    return word


@dataclass(frozen=True)
class Association:
    """How much more one set of texts is like a quality than another.

    Args:
        effect: In standard deviations, between -2 and 2; 0 is no difference.
        interval: Where it lies with 95 % confidence: 1,000 draws of the texts of each set, with replacement.
        p_value: How often texts dealt to the two sets at random come out as far above 0, or farther.
    """

    effect: float
    interval: tuple[float, float]
    p_value: float


def weat(
    first: np.ndarray,
    second: np.ndarray,
    first_quality: np.ndarray,
    second_quality: np.ndarray,
    permutations: int = 10_000,
    seed: int = 0,
) -> Association:
    """The Word Embedding Association Test, on any vectors; on those of sentences with a word in them it is SEAT.

    Each text of the two sets has a leaning: its mean cosine with the first quality less that with the second. The
    effect is the difference of the mean leanings of the two sets over the standard deviation of all.

    Args:
        first: `(texts, width)`, such as vectors of sentences about women.
        second: As many texts, such as the same about men.
        first_quality: `(texts, width)`, such as sentences about family.
        second_quality: Such as sentences about a career.
        permutations: At most so many ways to deal are tried; all of them where there are no more.
        seed: Draws the ways and the samples.

    Raises:
        BertKerasError: Sets of different sizes, or of fewer than two texts.

    Reference: Caliskan, Bryson, Narayanan 2017, https://arxiv.org/abs/1608.07187; May et al. 2019,
        https://arxiv.org/abs/1903.10561
    """
    if len(first) != len(second) or len(first) < 2:
        raise BertKerasError(f"weat needs two sets of the same size, at least 2; got {len(first)} and {len(second)}")
    texts, good, bad = (_unit(x) for x in (np.concatenate([first, second]), first_quality, second_quality))
    leanings = (texts @ good.T).mean(axis=1) - (texts @ bad.T).mean(axis=1)  # (texts,)
    half = len(first)

    def effect(x: np.ndarray, y: np.ndarray) -> float:
        spread = np.concatenate([x, y]).std(ddof=1)
        return float((x.mean() - y.mean()) / spread) if spread else 0.0

    rng = np.random.default_rng(seed)
    if math.comb(2 * half, half) <= permutations:
        deals = [np.array(deal) for deal in itertools.combinations(range(2 * half), half)]
    else:
        deals = [np.arange(half), *(rng.permutation(2 * half)[:half] for _ in range(permutations - 1))]
    sums = np.array([leanings[deal].sum() for deal in deals])
    draws = [effect(rng.choice(leanings[:half], half), rng.choice(leanings[half:], half)) for _ in range(1000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    tolerance = 1e-12 * max(1.0, np.abs(sums).max())  # the dealt sets are summed in another order
    p_value = float(np.mean(sums >= leanings[:half].sum() - tolerance))
    return Association(effect(leanings[:half], leanings[half:]), (float(low), float(high)), p_value)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, "float64")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
