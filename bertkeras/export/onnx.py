"""A model as one ONNX file, written from its weights, whatever the backend; any batch, any length."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from bertkeras.checkpoints.presets import Preset
from bertkeras.errors import BertKerasError
from bertkeras.export.onnx_graph import WEIGHT_TYPES, Graph
from bertkeras.files import atomic_path

ROW: tuple[str | int, ...] = ("batch", "length")
SUPPORTED_WEIGHTS = (*WEIGHT_TYPES, "int8")


def export_onnx(
    preset: Preset, path: str | os.PathLike[str], weights: str = "float32", attention: bool = False
) -> Path:
    """Write a model as an ONNX file for onnxruntime, on a server, a phone or in a browser.

    Inputs, for any batch and any length up to the model's longest: `token_ids` and `segment_ids` int32 and
    `padding_mask` bool, `(batch, length)`; for a masked LM also `mask_positions` int32 `(batch, predictions)`. Outputs
    have the names and shapes of the Keras model: `logits` of a classifier, a tagger, a span model or a masked LM,
    `mlm_logits` and `nsp_logits`, `embedding`, or `sequence_output` and `pooled_output`. The file's metadata holds the
    configuration, the labels and, of a tagger, the transitions of its CRF.

    Args:
        preset: The model, such as `model.to_preset()`.
        path: The file.
        weights: What weights are stored as. `"float32"` gives the numbers of the Keras model. `"float16"` and
            `"bfloat16"` take half the room and as long. `"int8"` takes a quarter and computes products in integers,
            with inputs rounded as they come: faster on most processors, and less exact.
        attention: Also give `attention`, `(num_layers, batch, num_heads, length, length)`.

    Returns:
        The path.

    Raises:
        BertKerasError: A model that has no such form, or is too large for a file, or a disk that is full.

    Example:

    >>> from bertkeras import BertConfig, BertTextClassifier
    >>> from bertkeras.export import export_onnx
    >>> model = BertTextClassifier(BertConfig.from_size("tiny", vocabulary_size=97), num_classes=2)
    >>> export_onnx(model.to_preset(), "classifier.onnx").stat().st_size > 1_000_000
    True
    """
    path = Path(path)
    if weights not in SUPPORTED_WEIGHTS:
        raise BertKerasError(f"weights must be one of {', '.join(SUPPORTED_WEIGHTS)}, got {weights!r}")
    model = build(preset, "float32" if weights == "int8" else weights, attention)
    if model.ByteSize() > onnx.checker.MAXIMUM_PROTOBUF:
        raise BertKerasError("the model is larger than the 2 GB that an ONNX file holds; use weights='bfloat16'")
    with atomic_path(path) as temporary:
        if weights == "int8":
            _write_quantized(model, temporary)
        else:
            onnx.save(model, temporary)
    return path


def _write_quantized(model: onnx.ModelProto, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # 7 bits: products of 8 overflow the 16 bits in which processors without VNNI add two of them
    quantize_dynamic(model, path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def build(preset: Preset, weight_type: str, attention: bool) -> onnx.ModelProto:
    """The model as a graph."""
    if preset.model not in HEADS:
        raise BertKerasError(f"a {preset.model or 'nameless model'} has no ONNX form; these have: {', '.join(HEADS)}")
    encoder = Encoder(preset, weight_type, attention)
    outputs = HEADS[preset.model](encoder)
    if attention:
        rank5 = [encoder.graph.add("Unsqueeze", x, encoder.graph.constant([0])) for x in encoder.attention]
        encoder.graph.add("Concat", *rank5, name="attention", axis=0)
        config = preset.config
        outputs["attention"] = (config.num_layers, "batch", config.num_heads, "length", "length")
    inputs: dict[str, tuple[int, tuple[str | int, ...]]] = {
        "token_ids": (TensorProto.INT32, ROW),
        "segment_ids": (TensorProto.INT32, ROW),
        "padding_mask": (TensorProto.BOOL, ROW),
    }
    if encoder.asks_for_positions:
        inputs["mask_positions"] = (TensorProto.INT32, ("batch", "predictions"))
    model = encoder.graph.model(preset.model, inputs, outputs)
    crf = {name: array.tolist() for name, array in preset.arrays.items() if name.startswith("crf/")}
    about = {"model": preset.model, "config": preset.config.to_dict(), "options": preset.options, **crf}
    model.producer_name = "bertkeras"
    model.metadata_props.add(key="bertkeras", value=json.dumps(about, ensure_ascii=False))
    return model


class Encoder:
    """The backbone, in the arithmetic of `BertBackbone`."""

    def __init__(self, preset: Preset, weight_type: str, keep_attention: bool) -> None:
        self.config, self.options, self.keep_attention = preset.config, preset.options, keep_attention
        self.graph = Graph(preset.arrays, weight_type)
        self.attention: list[str] = []
        self.asks_for_positions = False
        g, config = self.graph, preset.config
        # Who may not be seen costs -1e9, as in MultiHeadSelfAttention
        hidden = g.add("Cast", g.add("Not", "padding_mask"), to=TensorProto.FLOAT)
        cost = g.add("Mul", hidden, g.constant(-1e9, "float32"))
        self.cost = g.add("Unsqueeze", cost, g.constant([1, 2]))  # (batch, 1, 1, length)
        length = g.add("Shape", "token_ids", start=1, end=2)
        tables = "backbone/embeddings"
        tokens = g.add("Gather", g.weight(f"{tables}/token_table"), "token_ids", axis=0)
        segments = g.add("Gather", g.weight(f"{tables}/segment_table"), "segment_ids", axis=0)
        x = g.add("Add", tokens, segments)

        def beginning(table: str) -> str:
            return g.add("Slice", table, g.constant([0]), length, g.constant([0]))  # (length, width of the table)

        self.turns: tuple[str, str] | None = None
        if config.positions == "rotary":
            half = config.hidden_dim // config.num_heads // 2
            angles = np.outer(np.arange(config.max_sequence_length), 10_000.0 ** (-np.arange(half) / half))
            cosine, sine = (beginning(g.constant(wave(angles), "float32")) for wave in (np.cos, np.sin))
            axes = g.constant([0, 2])
            self.turns = g.add("Unsqueeze", cosine, axes), g.add("Unsqueeze", sine, axes)  # (1, length, 1, half)
        else:
            x = g.add("Add", x, beginning(g.weight(f"{tables}/position_table")))
        self.embeddings = g.layer_norm(x, f"{tables}/layer_norm", config.layer_norm_epsilon)

    def encode(self, choose: Callable[[str], str] | None = None, name: str | None = None) -> str:
        """The vectors of all positions, `(batch, length, hidden_dim)`, or of those that `choose` picks out of them.

        The last block then computes no others, unless its attention is to be shown.
        """
        g, x = self.graph, self.embeddings
        last = self.config.num_layers - 1
        for layer in range(last + 1):
            x = self._block(x, layer, choose if layer == last and not self.keep_attention else None)
        if choose is not None and self.keep_attention:
            x = choose(x)
        if self.config.norm_first:
            x = g.layer_norm(x, "backbone/final_norm", self.config.layer_norm_epsilon)
        return x if name is None else g.add("Identity", x, name=name)

    def _block(self, x: str, layer: int, choose: Callable[[str], str] | None) -> str:
        g, config = self.graph, self.config
        block = f"backbone/encoder_{layer}"

        def norm(x: str, which: str, here: bool) -> str:
            return g.layer_norm(x, f"{block}/{which}_norm", config.layer_norm_epsilon) if here else x

        seen = norm(x, "attention", config.norm_first)
        x = g.add("Add", x if choose is None else choose(x), self._attend(seen, choose, block))
        x = norm(x, "attention", not config.norm_first)
        hidden = g.dense(norm(x, "feed_forward", config.norm_first), f"{block}/feed_forward/expand")
        if config.gated_feed_forward:
            opening, content = g.split("Split", hidden, count=2, axis=-1)
            hidden = g.add("Mul", activated(g, opening, config.activation), content)
        else:
            hidden = activated(g, hidden, config.activation)
        hidden = g.dense(hidden, f"{block}/feed_forward/contract")
        return norm(g.add("Add", x, hidden), "feed_forward", not config.norm_first)

    def _attend(self, x: str, choose: Callable[[str], str] | None, block: str) -> str:
        g, heads, width = self.graph, self.config.num_heads, self.config.hidden_dim
        qkv = f"{block}/attention/qkv"
        if choose is None or self.turns:
            query, key, value = g.split("Split", g.dense(x, qkv), count=3, axis=-1)
            if self.turns:
                query, key = self._turned(query), self._turned(key)
            query = query if choose is None else choose(query)
        else:  # some positions look, and only they need queries
            query = g.dense(choose(x), qkv, slice(0, width))
            key, value = g.split("Split", g.dense(x, qkv, slice(width, None)), count=2, axis=-1)

        def by_head(x: str, order: tuple[int, ...]) -> str:
            return g.add("Transpose", g.add("Reshape", x, g.constant([0, 0, heads, width // heads])), perm=order)

        query = g.add("Mul", by_head(query, (0, 2, 1, 3)), g.constant((width // heads) ** -0.5, "float32"))
        scores = g.add("MatMul", query, by_head(key, (0, 2, 3, 1)))  # (batch, heads, queries, keys)
        probabilities = g.add("Softmax", g.add("Add", scores, self.cost), axis=-1)
        self.attention.append(probabilities)
        context = g.add("MatMul", probabilities, by_head(value, (0, 2, 1, 3)))  # (batch, heads, queries, head_dim)
        context = g.add("Reshape", g.add("Transpose", context, perm=(0, 2, 1, 3)), g.constant([0, 0, width]))
        return g.dense(context, f"{block}/attention/output")

    def _turned(self, x: str) -> str:
        """Queries or keys `(batch, length, hidden_dim)`, turned by their positions, as `rotate` does it."""
        g, heads, width = self.graph, self.config.num_heads, self.config.hidden_dim
        cosine, sine = self.turns  # type: ignore[misc]
        half = width // heads // 2
        x = g.add("Reshape", x, g.constant([0, 0, heads, width // heads]))

        def part(begin: int, end: int) -> str:
            return g.add("Slice", x, g.constant([begin]), g.constant([end]), g.constant([3]))

        first, second = part(0, half), part(half, 2 * half)
        turned = [
            g.add("Sub", g.add("Mul", first, cosine), g.add("Mul", second, sine)),
            g.add("Add", g.add("Mul", first, sine), g.add("Mul", second, cosine)),
        ]
        if width // heads % 2:
            turned.append(part(2 * half, width // heads))
        return g.add("Reshape", g.add("Concat", *turned, axis=3), g.constant([0, 0, width]))

    def first(self, x: str) -> str:
        """The first position, `(batch, 1, hidden_dim)`."""
        g = self.graph
        return g.add("Slice", x, g.constant([0]), g.constant([1]), g.constant([1]))

    def at_mask_positions(self, x: str) -> str:
        """The masked positions, `(batch, predictions, hidden_dim)`."""
        g, self.asks_for_positions = self.graph, True
        places = g.add("Cast", g.add("Unsqueeze", "mask_positions", g.constant([2])), to=TensorProto.INT64)
        return g.add("GatherND", x, places, batch_dims=1)

    def pooled(self, first: str, name: str | None = None) -> str:
        """The pooler on the first position `(batch, 1, hidden_dim)`: `(batch, hidden_dim)`."""
        g = self.graph
        vector = g.add("Squeeze", first, g.constant([1]))
        return g.add("Tanh", g.dense(vector, "backbone/pooler"), name=name)

    def masked_lm(self, x: str, name: str) -> None:
        """The logits of positions `(batch, predictions, hidden_dim)`."""
        g, config = self.graph, self.config
        x = activated(g, g.dense(x, "mlm_head/transform"), config.activation)
        x = g.layer_norm(x, "mlm_head/layer_norm", config.layer_norm_epsilon)
        table = "backbone/embeddings/token_table" if config.tie_embeddings else "mlm_head/output_table"
        rows = g.add("Reshape", x, g.constant([-1, config.hidden_dim]))
        scores = g.add("Gemm", rows, g.weight(table), g.weight("mlm_head/output_bias"), transB=1)
        shape = g.add("Concat", g.add("Shape", x, start=0, end=2), g.constant([config.vocabulary_size]), axis=0)
        g.add("Reshape", scores, shape, name=name)


Outputs = dict[str, tuple[str | int, ...]]


def _backbone(encoder: Encoder) -> Outputs:
    width = encoder.config.hidden_dim
    x = encoder.encode(name="sequence_output")
    if not encoder.options.get("with_pooler", True):
        return {"sequence_output": (*ROW, width)}
    encoder.pooled(encoder.first(x), name="pooled_output")
    return {"sequence_output": (*ROW, width), "pooled_output": ("batch", width)}


def _text_classifier(encoder: Encoder) -> Outputs:
    pooled = encoder.pooled(encoder.encode(encoder.first))
    encoder.graph.add("Identity", encoder.graph.dense(pooled, "classifier"), name="logits")
    return {"logits": ("batch", encoder.options["num_classes"])}


def _token_classifier(encoder: Encoder) -> Outputs:
    encoder.graph.add("Identity", encoder.graph.dense(encoder.encode(), "classifier"), name="logits")
    return {"logits": (*ROW, encoder.options["num_classes"])}


def _question_answerer(encoder: Encoder) -> Outputs:
    encoder.graph.add("Identity", encoder.graph.dense(encoder.encode(), "span_head"), name="logits")
    return {"logits": (*ROW, 2)}


def _masked_lm(encoder: Encoder) -> Outputs:
    encoder.masked_lm(encoder.encode(encoder.at_mask_positions), "logits")
    return {"logits": ("batch", "predictions", encoder.config.vocabulary_size)}


def _pretrainer(encoder: Encoder) -> Outputs:
    x = encoder.encode()
    encoder.masked_lm(encoder.at_mask_positions(x), "mlm_logits")
    outputs: Outputs = {"mlm_logits": ("batch", "predictions", encoder.config.vocabulary_size)}
    if "nsp_head/scores/kernel" in encoder.graph.weights:
        pooled = encoder.pooled(encoder.first(x))
        encoder.graph.add("Identity", encoder.graph.dense(pooled, "nsp_head/scores"), name="nsp_logits")
        outputs["nsp_logits"] = ("batch", 2)
    return outputs


def _text_embedder(encoder: Encoder) -> Outputs:
    g, pooling = encoder.graph, encoder.options.get("pooling", "mean")
    if pooling == "cls":
        vector = g.add("Squeeze", encoder.encode(encoder.first), g.constant([1]))
    else:
        x = encoder.encode()
        is_token = g.add("Unsqueeze", "padding_mask", g.constant([2]))
        if pooling == "max":
            vector = g.add("ReduceMax", g.add("Where", is_token, x, g.constant(-1e9, "float32")), axes=[1], keepdims=0)
        else:
            weights = g.add("Cast", is_token, to=TensorProto.FLOAT)
            total = g.add("ReduceSum", g.add("Mul", x, weights), g.constant([1]), keepdims=0)
            count = g.add("ReduceSum", weights, g.constant([1]), keepdims=0)
            vector = g.add("Div", total, g.add("Max", count, g.constant(1, "float32")))
    if encoder.options.get("normalize", True):
        length = g.add("Sqrt", g.add("ReduceSumSquare", vector, axes=[1], keepdims=1))
        vector = g.add("Div", vector, g.add("Max", length, g.constant(1e-12, "float32")))
    g.add("Identity", vector, name="embedding")
    return {"embedding": ("batch", encoder.config.hidden_dim)}


HEADS: dict[str, Callable[[Encoder], Outputs]] = {
    "BertBackbone": _backbone,
    "BertTextClassifier": _text_classifier,
    "BertTokenClassifier": _token_classifier,
    "BertQuestionAnswerer": _question_answerer,
    "BertMaskedLM": _masked_lm,
    "BertPretrainer": _pretrainer,
    "BertTextEmbedder": _text_embedder,
}


def activated(g: Graph, x: str, activation: str) -> str:
    """An activation of the configuration, by name."""

    def number(value: float) -> str:
        return g.constant(value, "float32")

    if activation == "gelu":
        curve = g.add("Erf", g.add("Mul", x, number(np.sqrt(0.5))))
    elif activation == "gelu_tanh":
        cubic = g.add("Mul", g.add("Mul", x, x), g.add("Mul", x, number(0.044715)))
        curve = g.add("Tanh", g.add("Mul", g.add("Add", x, cubic), number(np.sqrt(2 / np.pi))))
    elif activation in ("silu", "swish"):
        return g.add("Mul", x, g.add("Sigmoid", x))
    elif activation in ("relu", "tanh", "sigmoid"):
        return g.add(activation.capitalize(), x)
    else:
        raise BertKerasError(f"the activation {activation!r} has no ONNX form here; use 'gelu', 'gelu_tanh' or 'relu'")
    return g.add("Mul", g.add("Mul", x, number(0.5)), g.add("Add", curve, number(1.0)))
