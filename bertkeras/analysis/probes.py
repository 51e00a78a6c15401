"""What can be read from the vectors of each layer, and from the attention of each head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertkeras.analysis.attention_maps import Trace, trace
from bertkeras.datasets.examples import TextExample, TokenExample
from bertkeras.errors import BertKerasError
from bertkeras.models.base import PresetModel
from bertkeras.text.encoding import Encoding


@dataclass(frozen=True, eq=False)
class Probe:
    """What a linear classifier reads from the vectors of each layer.

    Args:
        accuracy: `(num_layers + 1,)`, on the test examples: of the embeddings, then of each block.
        control: The same where each word's label was drawn at random, once for the whole vocabulary: what a classifier
            can learn by heart. `None` for texts, of which none comes twice.
        majority: The accuracy of the commonest label.
    """

    accuracy: np.ndarray
    control: np.ndarray | None
    majority: float

    @property
    def selectivity(self) -> np.ndarray:
        """How much more is read than learnt by heart, `(num_layers + 1,)`."""
        if self.control is None:
            raise BertKerasError("a probe of texts has no control task; look at accuracy and majority")
        return self.accuracy - self.control


def layer_probes(
    model: PresetModel,
    train: Sequence[TextExample] | Sequence[TokenExample],
    test: Sequence[TextExample] | Sequence[TokenExample],
    seed: int = 0,
) -> Probe:
    """Logistic regressions on the vectors of each layer, which stay as they are.

    Of a text, or pair of texts, the mean of its vectors is read, `[CLS]` and `[SEP]` among them; of a word in a
    sentence that of its first piece. Words are those of `TokenExample`, the labels their tags.

    Args:
        model: A model with a tokenizer: a `BertBackbone`, or one that has a `backbone`.
        train: Examples to learn from, with one label each.
        test: Examples to ask for, of the same kind.
        seed: Draws the labels of the control task.

    Raises:
        BertKerasError: No examples, examples without one label, or a text of more pieces than the model reads.

    Reference: Hewitt and Liang 2019, Designing and Interpreting Probes with Control Tasks,
        https://arxiv.org/abs/1909.03368
    """
    if not train or not test:
        raise BertKerasError("a probe needs examples to learn from and examples to ask for")
    (vectors, labels, words), (test_vectors, test_labels, test_words) = (_read(model, part) for part in (train, test))
    majority = max(set(labels), key=labels.count)
    control = None
    if words is not None and test_words is not None:
        rng = np.random.default_rng(seed)
        drawn = {word: labels[rng.integers(len(labels))] for word in sorted({*words, *test_words})}
        control = _accuracies(vectors, [drawn[w] for w in words], test_vectors, [drawn[w] for w in test_words])
    return Probe(
        _accuracies(vectors, labels, test_vectors, test_labels),
        control,
        float(np.mean([label == majority for label in test_labels])),
    )


def _read(
    model: PresetModel, examples: Sequence[TextExample] | Sequence[TokenExample]
) -> tuple[np.ndarray, list[str], list[str] | None]:
    """Vectors `(num_layers + 1, examples or words, hidden_dim)`, a label for each, and the words of sentences."""
    texts = [example for example in examples if isinstance(example, TextExample)]
    sentences = [example for example in examples if isinstance(example, TokenExample)]
    labels: list[str] = [example.label for example in texts if isinstance(example.label, str)]
    if texts and (sentences or len(labels) < len(texts)):
        raise BertKerasError("a probe of texts needs texts with one label each")
    if texts:
        pairs = [text.pair or "" for text in texts] if any(text.pair is not None for text in texts) else None
        traces = trace(model, [text.text for text in texts], pairs)
        return np.stack([found.hidden_states.mean(axis=1) for found in traces], axis=1), labels, None
    vectors, words = [], []
    for found, example in zip(trace(model, [" ".join(e.tokens) for e in sentences]), sentences, strict=True):
        places = word_positions(found.encoding, example.tokens)
        for word, tag, place in zip(example.tokens, example.tags, places, strict=True):
            if place is not None:
                vectors.append(found.hidden_states[:, place])
                labels.append(tag)
                words.append(word.lower())
    return np.stack(vectors, axis=1), labels, words


def word_positions(encoding: Encoding, words: Sequence[str]) -> list[int | None]:
    """Where the first piece of each word stands in the row of `" ".join(words)`; `None` for a word without a piece."""
    starts = {start: place for place, (start, end) in reversed(list(enumerate(encoding.offsets))) if end > start}
    positions, begin = [], 0
    for word in words:
        inside = [starts[at] for at in range(begin, begin + len(word)) if at in starts]
        positions.append(inside[0] if inside else None)
        begin += len(word) + 1
    return positions


def _accuracies(
    vectors: np.ndarray, labels: Sequence[str], test_vectors: np.ndarray, test_labels: Sequence[str]
) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(labels)) < 2:
        raise BertKerasError(f"a probe needs labels of two kinds at least, got only {labels[0]!r}")
    found = []
    for layer, test_layer in zip(vectors, test_vectors, strict=True):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        found.append(classifier.fit(layer, labels).score(test_layer, test_labels))
    return np.array(found)


def head_targets(traces: Sequence[Trace], pairs: Sequence[Sequence[tuple[int, int]]]) -> tuple[np.ndarray, float]:
    """How often each head looks where it should, and how often a fixed distance would do.

    A head looks at the piece to which it gives most, itself, `[CLS]` and `[SEP]` left out: to those many heads give
    what they have no use for.

    Args:
        traces: From `trace`.
        pairs: For each trace pairs of places: who looks, and where it should.

    Returns:
        The shares `(num_layers, num_heads)`, and that of the distance that is commonest among the pairs.

    Raises:
        BertKerasError: No pairs, or not as many lists as traces.

    Reference: Clark, Khandelwal, Levy, Manning 2019, What Does BERT Look At?, https://arxiv.org/abs/1906.04341
    """
    if len(traces) != len(pairs) or not any(pairs):
        raise BertKerasError(f"head_targets needs a list of pairs for each trace; got {len(pairs)} for {len(traces)}")
    hits = []
    for found, places in zip(traces, pairs, strict=True):
        added = [end == start for start, end in found.encoding.offsets]
        for looker, wanted in places:
            weights = np.where(added, -1.0, found.attention[:, :, looker])  # (layers, heads, length)
            weights[:, :, looker] = -1
            hits.append(weights.argmax(axis=-1) == wanted)
    distances = [wanted - looker for places in pairs for looker, wanted in places]
    return np.mean(hits, axis=0), max(map(distances.count, set(distances))) / len(distances)
