"""What each layer makes of a text, and who looks at whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.models.backbone import BertBackbone, attention_mask
from bertkeras.models.base import PresetModel
from bertkeras.models.running import as_list, needed_tokenizer
from bertkeras.text.encoding import Encoding, padded

if TYPE_CHECKING:
    import matplotlib.axes


@dataclass(frozen=True, eq=False)
class Trace:
    """A text on its way through a model.

    Args:
        encoding: The text in pieces.
        hidden_states: `(num_layers + 1, length, hidden_dim)` float32: the embeddings, then what each block gives. The
            last is what a head reads.
        attention: The probabilities, `(num_layers, num_heads, length, length)` float32, queries by keys; each row of
            keys sums to 1.
    """

    encoding: Encoding
    hidden_states: np.ndarray
    attention: np.ndarray

    @property
    def tokens(self) -> list[str]:
        """The pieces, `[CLS]` and `[SEP]` among them."""
        return self.encoding.tokens


def trace(
    model: PresetModel, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None, batch_size: int = 32
) -> list[Trace]:
    """What every layer makes of texts, or of pairs of texts, without dropout.

    Args:
        model: A model with a tokenizer: a `BertBackbone`, or one that has a `backbone`.
        texts: One or several; `[MASK]` in them is a blank.
        pairs: As many second texts.
        batch_size: How many rows are computed at once.

    Returns:
        A `Trace` for each, in their order.

    Raises:
        BertKerasError: No tokenizer, or a text of more pieces than the model reads.

    Example:

    >>> import keras
    >>> from bertkeras import BertBackbone, BertConfig, WordPieceTokenizer
    >>> from bertkeras.analysis import trace
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "list"])
    >>> backbone = BertBackbone(BertConfig.from_size("tiny", vocabulary_size=7), tokenizer=tokenizer)
    >>> found = trace(backbone, "a list")[0]
    >>> found.tokens, found.hidden_states.shape, found.attention.shape
    (['[CLS]', 'a', 'list', '[SEP]'], (3, 4, 128), (2, 2, 4, 4))
    """
    backbone, encodings = backbone_of(model), encode_rows(model, texts, pairs)
    pad_id = needed_tokenizer(model.tokenizer, "trace").pad_id
    traces: list[Any] = [None] * len(encodings)
    by_length = sorted(range(len(encodings)), key=lambda index: len(encodings[index]))
    for begin in range(0, len(encodings), batch_size):
        batch = by_length[begin : begin + batch_size]
        token_ids, padding_mask = padded([encodings[index].ids for index in batch], pad_id)
        segment_ids, _ = padded([encodings[index].segment_ids for index in batch], 0)
        inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}
        states, attention = _layers(backbone, inputs)
        for row, index in enumerate(batch):
            size = len(encodings[index])
            traces[index] = Trace(encodings[index], states[:, row, :size], attention[:, row, :, :size, :size])
    return traces


def _layers(backbone: BertBackbone, inputs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Of rows, `(num_layers + 1, batch, length, hidden_dim)` and `(num_layers, batch, num_heads, length, length)`."""
    x = backbone.embeddings(inputs["token_ids"], segment_ids=inputs["segment_ids"], training=False)
    mask = attention_mask(inputs)
    states, attention = [x], []
    for block in backbone.encoder_blocks:
        x, probabilities = block(x, attention_mask=mask, return_attention_scores=True, training=False)
        states.append(x)
        attention.append(probabilities)
    if backbone.final_norm is not None:
        states[-1] = backbone.final_norm(x)
    arrays = [[ops.convert_to_numpy(ops.cast(x, "float32")) for x in tensors] for tensors in (states, attention)]
    return np.stack(arrays[0]), np.stack(arrays[1])


def rollout(attention: np.ndarray) -> np.ndarray:
    """How much of each piece's vector comes from which piece's embedding, if heads count alike and half of each block's
    output is its own input: the product of `(mean over heads + identity) / 2` over the layers.

    Args:
        attention: As in `Trace`, `(num_layers, num_heads, length, length)`.

    Returns:
        `(num_layers, length, length)`: up to each layer; rows sum to 1.

    Reference: Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, https://arxiv.org/abs/2005.00928
    """
    mixed = (attention.mean(axis=1) + np.eye(attention.shape[-1], dtype=attention.dtype)) / 2
    layers = [mixed[0]]
    for layer in mixed[1:]:
        layers.append(layer @ layers[-1])
    return np.stack(layers)


@contextmanager
def without_heads(model: PresetModel, heads: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Within, some heads say nothing: what they hand on is multiplied by zero. Afterwards the weights are as before.

    Args:
        model: A `BertBackbone`, or a model that has a `backbone`.
        heads: For layers, counted from 0, the heads that shall be silent, counted from 0.

    Raises:
        BertKerasError: A layer or a head that the model does not have.

    Reference: Michel, Levy, Neubig 2019, Are Sixteen Heads Really Better than One?, https://arxiv.org/abs/1905.10650
    """
    blocks = backbone_of(model).encoder_blocks
    before = []
    for layer, silent in heads.items():
        if not 0 <= layer < len(blocks) or not all(0 <= head < blocks[layer].num_heads for head in silent):
            raise BertKerasError(
                f"no such heads: {list(silent)} of layer {layer}; there are layers 0 to {len(blocks) - 1} "
                f"with heads 0 to {blocks[0].num_heads - 1}"
            )
        for variable in blocks[layer].attention.output_dense.weights:
            if variable.path.endswith(("/kernel", "/lora_kernel_a")):  # whose rows read the outputs of the heads
                before.append((variable, np.array(ops.convert_to_numpy(variable)), blocks[layer].attention, silent))
    try:
        for variable, value, attention, silent in before:
            fewer = value.copy()
            for head in silent:
                fewer[head * attention.head_dim : (head + 1) * attention.head_dim] = 0
            variable.assign(fewer)
        yield
    finally:
        for variable, value, _, _ in before:
            variable.assign(value)


def plot_attention(found: Trace, layer: int, head: int | None = None, axes: matplotlib.axes.Axes | None = None) -> Any:
    """A picture of who looks at whom: a row for each piece that looks, a column for each that is seen.

    Args:
        found: From `trace`.
        layer: Counted from 0.
        head: Counted from 0; the mean of all if `None`.
        axes: Where to draw; new axes if `None`.

    Returns:
        The axes.
    """
    import matplotlib.pyplot as plt

    if axes is None:
        side = 1.5 + 0.32 * len(found.tokens)
        axes = plt.subplots(figsize=(side, side), layout="constrained")[1]
    chosen = found.attention[layer].mean(axis=0) if head is None else found.attention[layer, head]
    axes.imshow(chosen, vmin=0, vmax=1, cmap="cividis")
    axes.set_xticks(range(len(found.tokens)), found.tokens, rotation=90)
    axes.set_yticks(range(len(found.tokens)), found.tokens)
    axes.set_xlabel("is seen")
    axes.set_ylabel("looks")
    axes.set_title(f"layer {layer}, {'all heads' if head is None else f'head {head}'}")
    return axes


def backbone_of(model: PresetModel) -> BertBackbone:
    """The encoder of a model."""
    return model if isinstance(model, BertBackbone) else model.backbone


def encode_rows(
    model: PresetModel, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
) -> list[Encoding]:
    """Texts, or pairs, as rows of pieces, none of them cut.

    Raises:
        BertKerasError: No tokenizer, or more pieces than the model reads.
    """
    second = None if pairs is None else as_list(pairs)
    tokenizer = needed_tokenizer(model.tokenizer, "analysis")
    encodings = tokenizer.encode_batch(as_list(texts), second, special_tokens_in_text=True)
    limit = model.config.max_sequence_length
    for index, encoding in enumerate(encodings):
        if len(encoding) > limit:
            raise BertKerasError(
                f"text {index} has {len(encoding)} pieces, but the model reads at most {limit}; shorten it"
            )
    return encodings
