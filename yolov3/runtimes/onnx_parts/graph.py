"""Build an ONNX graph, one operation a call.

    graph = Graph()
    y = graph("Reshape", graph("Add", "x", 1.0), [0, -1])  # numbers become constants, float32 or int64
    a, b = graph("Split", y, axis=1, outputs=2)

A tensor is known by its name.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from yolov3.checks import UserError

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 17  # the version of the operations, which TensorRT knows since 8.6
IR_VERSION = 10  # the version of the file's format, which ONNX Runtime knows since 1.20, the oldest that is allowed
INSTALL = "pip install -r requirements/onnx.txt"


def import_onnx() -> ModuleType:
    """Return the package `onnx`. Raises UserError if it is missing or does not fit the other packages."""
    try:
        onnx = importlib.import_module("onnx")
        importlib.import_module("onnx.helper")
        importlib.import_module("onnx.numpy_helper")
    except ModuleNotFoundError as error:
        raise UserError(f"the package {error.name} is not installed", INSTALL) from None
    except Exception as error:  # raised by ml_dtypes or protobuf, whose versions TensorFlow limits
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the package onnx does not work with this TensorFlow ({reason})", INSTALL) from None
    return onnx


class Graph:
    """Hold the nodes and constants of a graph that is being built."""

    def __init__(self, prefix: str = ""):
        self.onnx, self.prefix = import_onnx(), prefix
        self.nodes: list = []
        self.constants: list = []
        self._known: dict = {}

    def __call__(self, kind: str, *inputs: Any, outputs: int = 1, name: str | None = None, **attributes: Any) -> Any:
        """Add a node. Return the name of its output, or a list of names if it has several.

        inputs  names; numbers, lists of them and NumPy values; or None for an optional input that is left out
        """
        name = name or f"{self.prefix}{kind.lower()}_{len(self.nodes):03d}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        given = ["" if x is None else x if isinstance(x, str) else self.constant(x) for x in inputs]
        self.nodes.append(self.onnx.helper.make_node(kind, given, names, name, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, name: str | None = None) -> str:
        """Add a value. Return its name. Small values that are equal share one."""
        given, value = value, np.asarray(value)
        if not isinstance(given, (np.ndarray, np.generic)) and value.dtype == np.float64:
            value = value.astype(np.float32)
        key = (value.dtype.str, value.shape, value.tobytes()) if value.size <= 16 and not name else None
        if key in self._known:
            return self._known[key]
        name = name or f"{self.prefix}constant_{len(self.constants):03d}"
        self.constants.append(self.onnx.numpy_helper.from_array(value, name))
        if key:
            self._known[key] = name
        return name

    def type(self, dtype: Any) -> int:
        """Return ONNX's number for a NumPy dtype."""
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def rename(self, tensor: str, name: str) -> None:
        """Give a tensor another name, wherever it is made and read."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, before in enumerate(names):
                    if before == tensor:
                        names[i] = name

    def body(self) -> "Graph":
        """Return an empty graph for the body of a loop. It can read the tensors of this graph."""
        return Graph(f"{self.prefix}body_")

    def to_graph(self, inputs: Mapping, outputs: Mapping, title: str) -> "onnx.GraphProto":
        """Return the graph as protobuf.

        inputs, outputs  {name: (NumPy dtype, shape)}; a str in a shape is a size that is not fixed
        """
        helper = self.onnx.helper

        def values(tensors):
            return [
                helper.make_tensor_value_info(name, self.type(dtype), shape) for name, (dtype, shape) in tensors.items()
            ]

        return helper.make_graph(self.nodes, title, values(inputs), values(outputs), self.constants)

    def to_model(self, inputs: Mapping, outputs: Mapping, title: str, metadata: Mapping) -> "onnx.ModelProto":
        """Return the graph as an ONNX model, checked.

        metadata  what the file is to say of itself, by name
        """
        helper = self.onnx.helper
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            self.to_graph(inputs, outputs, title), opset_imports=opsets, producer_name="yolov3", ir_version=IR_VERSION
        )
        helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
        self.onnx.checker.check_model(model, full_check=True)
        return model
