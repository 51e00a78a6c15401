"""Texts sorted into classes that no training example showed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bertkeras.datasets.knowledge import Knowledge
from bertkeras.errors import BertKerasError
from bertkeras.models.cloze import Cloze
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.running import Row, as_list, needed_tokenizer, outputs_of
from bertkeras.models.search import log_softmax
from bertkeras.models.text_classifier import BertTextClassifier, Classification
from bertkeras.models.text_embedder import BertTextEmbedder
from bertkeras.models.token_classifier import Entity
from bertkeras.text.wordpiece import WordPieceTokenizer

METHODS = {"cloze": BertMaskedLM, "entailment": BertTextClassifier, "similarity": BertTextEmbedder}
CLOZE_TEMPLATE = "{text} It was about [MASK]."
LABEL_TEMPLATE = "This text is about {label}."
CONTENT_FREE = ("N/A", "[MASK]", "")  # those of Zhao et al. 2021

Words = Mapping[str, str | Sequence[str]]
Fit = Callable[[int], list[list[int]]]  # the texts, with facts, as at most so many pieces each


def zero_shot(
    model: BertMaskedLM | BertTextClassifier | BertTextEmbedder,
    texts: str | Sequence[str],
    labels: Sequence[str] | Words,
    *,
    method: str | None = None,
    template: str | None = None,
    verbalizers: Words | None = None,
    multi_label: bool = False,
    calibrate: bool = True,
    temperature: float | None = None,
    evidence: Knowledge | None = None,
    append_facts: bool = True,
    supports: Mapping[str, str] | None = None,
    weight: float = 1.0,
    batch_size: int = 32,
) -> list[Classification]:
    """Classify texts by what the labels are called, in one of three ways, which the class of the model decides.

    - A `BertMaskedLM` fills a blank (Schick and Schütze 2021), `method="cloze"`. A word of several pieces gets as many
      `[MASK]`s and scores the mean of its pieces' log probabilities; see `Cloze`.
    - A `BertTextClassifier` trained on entailment, one of whose labels is `entailment`, says whether the text entails
      the template with the label in it (Yin et al. 2019), `method="entailment"`. A label's share is in proportion to
      the probability of entailment. With `multi_label` each label holds or not by itself, by entailment against
      contradiction, or against all else where contradiction is no label.
    - A `BertTextEmbedder` compares the vector of the text with that of the template with the label in it,
      `method="similarity"`. Shares are the softmax of cosines divided by the temperature.

    Several words for one label have their probabilities averaged. Of a text that is too long the end is cut, of the
    template nothing.

    Evidence adds what the model need not know. Facts on the names in a text are put behind it, as many whole sentences
    as fit into the room that it leaves, or into half of all room if that is more. And a log-linear vote: each
    different type found in the text adds `weight` to the log probability of the label that it supports, or with
    `multi_label` to its log odds.

    Args:
        model: One of the three, with a tokenizer.
        texts: One text or several.
        labels: Their names, two or more, or with `multi_label` one or more; or a dictionary as for `verbalizers`.
        method: `"cloze"`, `"entailment"` or `"similarity"`, to make sure that the model is one for it.
        template: For cloze with `{text}` and `[MASK]`, each once, by default `"{text} It was about [MASK]."`; otherwise
            with `{label}`, by default `"This text is about {label}."`. Of any language.
        verbalizers: For every label the word or words, description or descriptions, that stand for it in the
            template; by default its name.
        multi_label: Whether several labels may hold, or none: those of probability 0.5 or more. Entailment only.
        calibrate: Cloze only: divide each word's probability by the one it has where the text says nothing (Zhao et
            al. 2021), so that a word gains nothing by being frequent.
        temperature: Divides log probabilities, log odds or cosines; by default cosines are multiplied with
            `model.scale` and the others kept.
        evidence: What is known about names.
        append_facts: Whether facts of the evidence are put behind the text.
        supports: For types of the evidence the label that each speaks for.
        weight: How much a type counts, in nats; 1 multiplies the odds by 2.7.
        batch_size: How many rows are computed at once; results do not depend on it, up to the rounding of sums.

    Returns:
        For each text its likeliest label, or with `multi_label` those that hold, and the probability of every label.

    Raises:
        BertKerasError: A model of another class or without tokenizer; labels, words, a template or supports that do
            not fit together; or no room for text beside the template.

    Example:

    >>> from bertkeras import BertConfig, BertMaskedLM, Knowledge, WordPieceTokenizer, zero_shot
    >>> words = ["it", "was", "about", "sport", "law", "ada", "spoke", ":", "judge", "."]
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    >>> model = BertMaskedLM(BertConfig.from_size("tiny", 15), tokenizer=tokenizer)
    >>> knowledge = Knowledge([("Ada", "judge")])
    >>> labels = ["sport", "law"]  # of a model that has learned nothing, the evidence decides
    >>> zero_shot(model, "Ada spoke.", labels, evidence=knowledge, supports={"judge": "law"}, weight=9.0)[0].labels
    ('law',)

    Reference: https://arxiv.org/abs/2001.07676 (cloze), https://arxiv.org/abs/1909.00161 (entailment),
        https://arxiv.org/abs/2102.09690 (calibration)
    """
    way = next((way for way, cls in METHODS.items() if isinstance(model, cls)), None)
    if way is None:
        names = ", ".join(cls.__name__ for cls in METHODS.values())
        raise BertKerasError(f"zero_shot needs one of {names}; got {type(model).__name__}")
    if method not in (None, way):
        raise BertKerasError(f"a {type(model).__name__} is for method={way!r}; got {method!r}")
    if multi_label and way != "entailment":
        raise BertKerasError(f"multi_label needs a BertTextClassifier for entailment; got a {type(model).__name__}")
    if temperature is None:
        temperature = 1 / model.scale if isinstance(model, BertTextEmbedder) else 1.0
    elif not 0 < temperature < math.inf:
        raise BertKerasError(f"temperature must be a positive number, got {temperature!r}")
    tokenizer = needed_tokenizer(model.tokenizer, "zero_shot")
    words, texts = checked_words(labels, verbalizers, multi_label), as_list(texts)
    votes = _votes(texts, list(words), evidence, supports, weight)
    flat = [word for several in words.values() for word in several]
    if template is None:
        template = CLOZE_TEMPLATE if way == "cloze" else LABEL_TEMPLATE
    limit = getattr(model, "max_length", None) or model.config.max_sequence_length
    fit = functools.partial(_fitted, tokenizer, texts, evidence if append_facts else None, limit)
    if isinstance(model, BertMaskedLM):
        scores = _cloze(model, Cloze(tokenizer, template, flat), fit, calibrate, batch_size)
    else:
        filled = _filled(tokenizer, template, flat, limit)
        if isinstance(model, BertTextClassifier):
            scores = _entailment(model, tokenizer, filled, fit, multi_label, batch_size)
        else:
            scores = _similarity(model, tokenizer, filled, fit, batch_size)
    return _classified(scores / temperature, words, votes, multi_label)


def find_entities(knowledge: Knowledge, text: str) -> list[Entity]:
    """Named entities without training: the names in a text that a gazetteer has a type for, from left to right.

    A name of several types gives an entity for each, of equal probabilities, since the gazetteer cannot say which of
    them is meant.

    Example:

    >>> from bertkeras import Knowledge, find_entities
    >>> knowledge = Knowledge([("Ada Lovelace", "person"), ("Washington", "person"), ("Washington", "place")])
    >>> [(found.text, found.type, found.probability) for found in find_entities(knowledge, "Ada Lovelace, Washington")]
    [('Ada Lovelace', 'person', 1.0), ('Washington', 'person', 0.5), ('Washington', 'place', 0.5)]
    """
    return [
        Entity(mention.text, type, mention.start, mention.end, 1 / len(mention.types))
        for mention in knowledge.find(text)
        for type in mention.types
    ]


def _cloze(model: BertMaskedLM, cloze: Cloze, fit: Fit, calibrate: bool, batch_size: int) -> np.ndarray:
    """Log probabilities `(texts, words)`, less those where the text says nothing."""
    log_probs = cloze.log_probs(model, fit(cloze.size), batch_size)
    if calibrate:
        room = model.config.max_sequence_length - cloze.size
        encodings = cloze.tokenizer.encode_batch(CONTENT_FREE, add_special_tokens=False, special_tokens_in_text=True)
        nothing = cloze.log_probs(model, [encoding.ids[:room] for encoding in encodings], batch_size)
        log_probs = log_probs - log_mean(nothing, axis=0)
    return log_probs


def _entailment(
    model: BertTextClassifier,
    tokenizer: WordPieceTokenizer,
    hypotheses: list[list[int]],
    fit: Fit,
    multi_label: bool,
    batch_size: int,
) -> np.ndarray:
    """Log probabilities, or for several labels log odds, of entailment, `(texts, hypotheses)`."""
    names = [name.casefold() for name in model.labels or []]
    if "entailment" not in names or model.task != "single_label" or len(names) < 2:
        raise BertKerasError(
            f"zero_shot needs a classifier of pairs, task='single_label', with the label 'entailment'; "
            f"got task={model.task!r} with {', '.join(model.labels or []) or 'no names of labels'}"
        )
    rows: list[Row] = []
    for text in fit(3 + max(map(len, hypotheses))):
        for hypothesis in hypotheses:
            ids = [tokenizer.cls_id, *text, tokenizer.sep_id, *hypothesis, tokenizer.sep_id]
            rows.append((ids, [0] * (len(text) + 2) + [1] * (len(hypothesis) + 1)))
    outputs = outputs_of(model, rows, tokenizer.pad_id, batch_size)
    logits = np.array(outputs, "float64").reshape(-1, len(hypotheses), len(names)) / model.temperature
    log_probs, yes = log_softmax(logits), names.index("entailment")
    if not multi_label:
        return log_probs[..., yes]
    others = [names.index("contradiction")] if "contradiction" in names else [i for i in range(len(names)) if i != yes]
    return log_probs[..., yes] - np.logaddexp.reduce(log_probs[..., others], axis=-1)


def _similarity(
    model: BertTextEmbedder, tokenizer: WordPieceTokenizer, descriptions: list[list[int]], fit: Fit, batch_size: int
) -> np.ndarray:
    """Cosines `(texts, descriptions)`."""
    texts = fit(2)
    rows: list[Row] = [([tokenizer.cls_id, *ids, tokenizer.sep_id], None) for ids in [*texts, *descriptions]]
    vectors = np.array(outputs_of(model, rows, tokenizer.pad_id, batch_size), "float64")
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors[: len(texts)] @ vectors[len(texts) :].T


def _fitted(
    tokenizer: WordPieceTokenizer, texts: list[str], evidence: Knowledge | None, limit: int, others: int
) -> list[list[int]]:
    """The pieces of each text and of facts about it that fit beside `others` into a row of `limit`."""
    room = limit - others
    if room < 1:
        raise BertKerasError(
            f"template and label take {others} of the model's {limit} pieces and leave no room for text; shorten them"
        )
    rows = []
    for text, ids in zip(texts, tokenizer.encode_ids(texts), strict=True):
        facts = [] if evidence is None else tokenizer.encode_ids(evidence.facts(text))
        free = max(room - len(ids), room // 2)
        taken: list[int] = []
        for fact in facts:
            if len(taken) + len(fact) <= free:
                taken += fact
        rows.append(ids[: room - len(taken)] + taken)
    return rows


def _votes(
    texts: list[str],
    labels: list[str],
    evidence: Knowledge | None,
    supports: Mapping[str, str] | None,
    weight: float,
) -> np.ndarray:
    """What the types found in each text add to each label, `(texts, labels)`."""
    votes = np.zeros((len(texts), len(labels)))
    if not math.isfinite(weight):
        raise BertKerasError(f"weight must be a finite number, got {weight!r}")
    if not supports:
        return votes
    if evidence is None:
        raise BertKerasError("supports needs evidence=Knowledge(...), which finds the types")
    for type, label in supports.items():
        if label not in labels:
            raise BertKerasError(f"supports has {type!r} speak for {label!r}; the labels are {', '.join(labels)}")
        if type not in evidence.known_types:
            raise BertKerasError(f"supports names the type {type!r}, which nothing in the evidence has")
    for row, text in zip(votes, texts, strict=True):
        for type in evidence.types(text):
            if type in supports:
                row[labels.index(supports[type])] += weight
    return votes


def _classified(
    scores: np.ndarray, words: dict[str, list[str]], votes: np.ndarray, multi_label: bool
) -> list[Classification]:
    """What follows from scores `(texts, words)`, log probabilities or for several labels log odds, and from votes."""
    ends = np.cumsum([len(several) for several in words.values()])[:-1]

    def of_labels(log_probs: np.ndarray) -> np.ndarray:
        return np.stack([log_mean(part, axis=1) for part in np.split(log_probs, ends, axis=1)], axis=1)

    if multi_label:
        odds = of_labels(-np.logaddexp(0, -scores)) - of_labels(-np.logaddexp(0, scores)) + votes
        probabilities = np.exp(-np.logaddexp(0, -odds))
        chosen = probabilities >= 0.5
    else:
        probabilities = np.exp(log_softmax(of_labels(scores) + votes))
        chosen = np.arange(len(words)) == probabilities.argmax(axis=1)[:, None]
    return [
        Classification(
            tuple(label for label, is_chosen in zip(words, row_chosen, strict=True) if is_chosen),
            dict(zip(words, map(float, row), strict=True)),
        )
        for row, row_chosen in zip(probabilities, chosen, strict=True)
    ]


def _filled(tokenizer: WordPieceTokenizer, template: str, words: list[str], limit: int) -> list[list[int]]:
    """The pieces of the template with each word in it."""
    if template.count("{label}") != 1:
        raise BertKerasError(
            f"a template for this model has {{label}} once, such as {LABEL_TEMPLATE!r}; got {template!r}"
        )
    filled = tokenizer.encode_ids([template.replace("{label}", word) for word in words])
    for word, ids in zip(words, filled, strict=True):
        if len(ids) > limit - 2:
            raise BertKerasError(f"{len(ids)} pieces for {word[:40]!r} in the template; the model reads {limit - 2}")
    return filled


def checked_words(labels: Sequence[str] | Words, verbalizers: Words | None, multi_label: bool) -> dict[str, list[str]]:
    """For every label the words that stand for it, at least one."""
    names = [labels] if isinstance(labels, str) else list(labels)
    if isinstance(labels, Mapping):
        if verbalizers is not None:
            raise BertKerasError("labels is a dictionary of words already; leave out verbalizers")
        verbalizers = labels
    least = 1 if multi_label else 2
    if len(names) < least or len(set(names)) < len(names) or not all(isinstance(n, str) and n.strip() for n in names):
        raise BertKerasError(f"labels must be {least} or more different names, got {names!r}")
    if verbalizers is None:
        return {name: [name] for name in names}
    for name in [*names, *verbalizers]:
        if name not in verbalizers or name not in names:
            what = "no label" if name in verbalizers else "a label without words"
            raise BertKerasError(f"verbalizers must have words for the labels and for nothing else; {name!r} is {what}")
    words = {name: as_list(verbalizers[name]) for name in names}
    for name, several in words.items():
        if not several or not all(isinstance(word, str) and word.strip() for word in several):
            raise BertKerasError(f"verbalizers for {name!r} must be one or more words, got {several!r}")
    return words


def log_mean(log_values: np.ndarray, axis: int) -> np.ndarray:
    """The logarithm of the mean of what these are the logarithms of."""
    return np.logaddexp.reduce(log_values, axis=axis) - np.log(log_values.shape[axis])
