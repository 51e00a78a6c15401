"""BERT that gives every piece of a text a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bertkeras.config import DECODERS, BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.layers.crf import CRF
from bertkeras.models.backbone import BertBackbone
from bertkeras.models.base import PresetModel
from bertkeras.models.losses import cross_entropy, weighted_mean
from bertkeras.models.running import as_list, checked_max_length, needed_tokenizer, outputs_of
from bertkeras.models.text_classifier import checked_labels, classifier_head
from bertkeras.text.tags import forbidden_pairs, is_tag, spans_of
from bertkeras.text.windows import word_windows
from bertkeras.text.wordpiece import WordPieceTokenizer
from bertkeras.text.words import word_spans


@dataclass(frozen=True)
class Entity:
    """A name in a text: `text[start:end]`, what it names, and the smallest probability of a tag in it."""

    text: str
    type: str
    start: int
    end: int
    probability: float


@keras.saving.register_keras_serializable(package="bertkeras")
class BertTokenClassifier(PresetModel):
    """`BertBackbone`, dropout, and a linear layer at every position (Devlin et al. 2019, section 5.3).

    With `compile(optimizer)` and no loss, `fit` learns from labels `(batch, length)`; a negative label does not count,
    such as at padding and at the later pieces of a word. The loss is in nats per label: cross-entropy, or with
    `decoder="crf"` minus the log-likelihood of the whole sequence.

    Where `labels` are tags (`O`, `B-place`, `I-place`, ...), no output ever breaks their scheme, with either decoder:
    the best legal sequence is found by the Viterbi recursion.

    Args:
        config: A `BertConfig`, or a dictionary with its fields.
        num_classes: Number of classes.
        labels: Their names, in order.
        head_dropout: Dropout before the linear layer; `None` takes that of `config`.
        decoder: `"softmax"`: every position for itself; `"crf"`: a learned `CRF` over the sequence.
        max_length: `tag` cuts longer texts into overlapping rows of so many pieces; `None` takes all that the model
            can read.
        tokenizer: Turns strings into ids; `tag` needs it.

    Call arguments:
        inputs: As for `BertBackbone`.
        training: Whether dropout is on.

    Returns:
        Logits, `(batch, length, num_classes)`: for a CRF its emissions.
    """

    preset_options: ClassVar[tuple[str, ...]] = ("num_classes", "labels", "head_dropout", "decoder", "max_length")
    new_parts: ClassVar[tuple[str, ...]] = ("classifier/", "crf/")

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        num_classes: int,
        labels: Sequence[str] | None = None,
        head_dropout: float | None = None,
        decoder: str = "softmax",
        max_length: int | None = None,
        tokenizer: WordPieceTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, tokenizer, **kwargs)
        if decoder not in DECODERS:
            raise BertKerasError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
        self.num_classes, self.labels = num_classes, checked_labels(labels, num_classes)
        self.head_dropout = head_dropout
        self.decoder = decoder
        self.max_length = checked_max_length(max_length, self.config.max_sequence_length)
        self.backbone = BertBackbone(self.config, with_pooler=False, dtype=self.dtype_policy, name="backbone")
        # not truncated, as in transformers: the larger layer learns faster from few sentences
        kernel = keras.initializers.RandomNormal(stddev=self.config.initializer_range)
        self.dropout, self.classifier = classifier_head(
            self.config, num_classes, head_dropout, self.dtype_policy, kernel
        )
        forbidden = forbidden_pairs(self.labels) if self.labels and all(map(is_tag, self.labels)) else ()
        self.crf = CRF(num_classes, forbidden, learned=decoder == "crf", dtype=self.dtype_policy, name="crf")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.classifier.build((None, None, self.config.hidden_dim))
        self.crf.build()
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        encoded = self.backbone(inputs, training=training)["sequence_output"]  # (batch, length, hidden_dim)
        return self.classifier(self.dropout(encoded, training=training))

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape["token_ids"], self.num_classes)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        weights = ops.cast(y >= 0, "float32")  # (batch, length)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            if self.decoder == "crf" and len(sample_weight.shape) != 1:
                raise BertKerasError("a CRF scores whole sequences: give weights (batch,), not one for each position")
            weights = weights * (sample_weight if len(sample_weight.shape) == 2 else sample_weight[:, None])
        if self.decoder == "softmax":
            return weighted_mean(cross_entropy(ops.maximum(y, 0), y_pred), weights)
        losses = -self.crf.log_likelihood(y_pred, ops.maximum(y, 0), y >= 0)  # (batch,)
        losses = losses if sample_weight is None else losses * sample_weight
        return ops.sum(losses) / ops.maximum(ops.sum(weights), keras.config.epsilon())

    def tag(self, texts: str | Sequence[str], batch_size: int = 32) -> list[list[Entity]]:
        """The entities of each text, from left to right, as spans of its characters; for labels that are tags.

        Raises:
            BertKerasError: No tokenizer, no strings, or labels that are no tags.
        """
        if not self.labels or not all(map(is_tag, self.labels)):
            raise BertKerasError("tag finds entities by tags such as B-place; these labels are none, use tag_words")
        texts = as_list(texts)
        places = [word_spans(text) for text in texts]
        words = [[text[start:end] for start, end in spans] for text, spans in zip(texts, places, strict=True)]
        found = []
        for text, spans, (tags, probabilities) in zip(texts, places, self._tag_words(words, batch_size), strict=True):
            assert probabilities is not None
            entities = []
            for first, last, type in spans_of(tags):
                start, end = spans[first][0], spans[last - 1][1]
                entities.append(Entity(text[start:end], type, start, end, float(min(probabilities[first:last]))))
            found.append(entities)
        return found

    def tag_words(self, sentences: Sequence[Sequence[str]], batch_size: int = 32) -> list[list[str]]:
        """One label for each word of each sentence."""
        return [tags for tags, _ in self._tag_words(sentences, batch_size, with_probabilities=False)]

    def _tag_words(
        self, sentences: Sequence[Sequence[str]], batch_size: int, with_probabilities: bool = True
    ) -> list[tuple[list[str], np.ndarray | None]]:
        """Labels and their probabilities: of all rows of a sentence together, so that no cut breaks the scheme."""
        tokenizer = needed_tokenizer(self.tokenizer, "tag")
        limit = self.max_length or self.config.max_sequence_length
        windows = word_windows(tokenizer, sentences, limit, overlap=limit // 4)
        outputs = outputs_of(self, [(window.ids, None) for window in windows], tokenizer.pad_id, batch_size)
        emissions = [np.zeros((len(sentence), self.num_classes), "float32") for sentence in sentences]
        for window, output in zip(windows, outputs, strict=True):
            first = window.words.start
            places = [window.positions[word - first] for word in window.kept]
            emissions[window.sentence][window.kept.start : window.kept.stop] = output[places]
        names = self.labels or [str(index) for index in range(self.num_classes)]
        found: list[Any] = [None] * len(sentences)
        by_length = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
        for begin in range(0, len(sentences), batch_size):
            batch = by_length[begin : begin + batch_size]
            longest = max(1, *(len(sentences[index]) for index in batch)) if batch else 1
            rows = np.zeros((len(batch), longest, self.num_classes), "float32")
            mask = np.zeros((len(batch), longest), bool)
            for row, index in enumerate(batch):
                rows[row, : len(sentences[index])] = emissions[index]
                mask[row, : len(sentences[index])] = True
            tags = ops.convert_to_numpy(self.crf(rows, mask))
            marginals = ops.convert_to_numpy(self.crf.marginals(rows, mask)) if with_probabilities else None
            for row, index in enumerate(batch):
                chosen = tags[row, : len(sentences[index])]
                sure = None if marginals is None else marginals[row, np.arange(len(chosen)), chosen]
                found[index] = [names[tag] for tag in chosen], sure
        return found
