"""The nodes of an ONNX graph, written down one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# What weights are stored as; all but float32 are widened when the model is loaded, and computed with in float32
WEIGHT_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
OPSET, IR_VERSION = 17, 8  # the first with a layer norm: what many runtimes read


class Graph:
    """Collects nodes and weights; every method gives the name of what it computes.

    Args:
        weights: The arrays, by name.
        weight_type: One of `WEIGHT_TYPES`.
    """

    def __init__(self, weights: dict[str, np.ndarray], weight_type: str = "float32") -> None:
        self.weights, self.weight_type = weights, weight_type
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._stored: dict[Any, str] = {}
        self._numbers = itertools.count()

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node with one output, which gets a name of its own if it is given none."""
        (output,) = self.split(operator, *inputs, count=1, names=None if name is None else [name], **attributes)
        return output

    def split(
        self, operator: str, *inputs: str, count: int, names: Sequence[str] | None = None, **attributes: Any
    ) -> list[str]:
        """A node with several outputs."""
        number = next(self._numbers)
        outputs = list(names or (f"{operator.lower()}_{number}_{index}" for index in range(count)))
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, name=f"{operator}_{number}", **attributes))
        return outputs

    def constant(self, values: Any, dtype: str = "int64") -> str:
        """A small array that is part of the graph."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._stored:
            self._stored[key] = f"constant_{len(self._stored)}"
            self.initializers.append(numpy_helper.from_array(array, self._stored[key]))
        return self._stored[key]

    def weight(self, name: str, columns: slice = slice(None)) -> str:
        """One of the weights, or some of its columns."""
        part = "" if columns == slice(None) else f"[{columns.start or 0}:{columns.stop or ''}]"
        if name + part not in self._stored:
            values = np.ascontiguousarray(self.weights[name][..., columns], "float32")
            stored_as = WEIGHT_TYPES[self.weight_type]
            if stored_as == TensorProto.FLOAT:
                self.initializers.append(numpy_helper.from_array(values, name + part))
                self._stored[name + part] = name + part
            else:
                narrow = values.astype(helper.tensor_dtype_to_np_dtype(stored_as))
                self.initializers.append(numpy_helper.from_array(narrow, name + part))
                self._stored[name + part] = self.add("Cast", name + part, to=TensorProto.FLOAT)
        return self._stored[name + part]

    def dense(self, x: str, name: str, columns: slice = slice(None)) -> str:
        """`x W + b`, or some of its columns."""
        product = self.add("MatMul", x, self.weight(f"{name}/kernel", columns))
        return self.add("Add", product, self.weight(f"{name}/bias", columns))

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        return self.add(
            "LayerNormalization",
            x, self.weight(f"{name}/gamma"), self.weight(f"{name}/beta"), axis=-1, epsilon=epsilon,
        )  # fmt: skip

    def model(
        self, name: str, inputs: dict[str, tuple[int, tuple[str | int, ...]]], outputs: dict[str, tuple[str | int, ...]]
    ) -> onnx.ModelProto:
        """The whole, checked.

        Args:
            name: The graph's name.
            inputs: For each its type, one of `TensorProto`'s, and its shape, in which a string is any size.
            outputs: The shape of each; they are float32.
        """
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(input, *about) for input, about in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape) for output, shape in outputs.items()],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=model.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF)
        return model
