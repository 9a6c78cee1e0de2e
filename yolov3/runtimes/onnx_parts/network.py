"""Write a Keras model as ONNX operations, one layer after the other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from yolov3.runtimes.onnx_parts.graph import Graph
from yolov3.runtimes.onnx_parts.layers import LAYERS, listed, unknown

import numpy as np

if TYPE_CHECKING:
    import keras


def write_layers(
    graph: Graph,
    model: "keras.Model",
    pictures: str,
    dtype: type = np.float32,
    scales: Mapping[str, float] | None = None,
) -> list[str]:
    """Write a Keras model of one input. Return the names of its outputs, (N, C, H, W) each.

    pictures  the name of its input, (N, C, H, W)
    dtype     of that input, the weights and the outputs: float32 or float16
    scales    {convolution: the scale of its 8-bit input}; None: nothing is quantised

    Raises UserError that names the first layer that cannot be written.
    """
    return _Writer(graph, model, pictures, dtype, scales).write()


class _Writer:
    """Hold what has been written of a Keras model so far."""

    def __init__(
        self, graph: Graph, model: "keras.Model", pictures: str, dtype: type, scales: Mapping[str, float] | None
    ):
        self.graph, self.model, self.dtype, self.scales = graph, model, dtype, scales
        self.names: dict = {id(model.inputs[0]): pictures}  # the ONNX tensor of each Keras tensor
        self.pads: dict = {}  # Keras tensor: the zeros that the convolution after it adds, top, left, bottom, right
        self.quantised: dict = {}  # ONNX tensor and scale: the tensor that has gone through eight bits
        self.readers: dict = {}  # Keras tensor: the operations that read it
        for operation in model.operations:
            for tensor in listed(operation.input):
                self.readers.setdefault(id(tensor), []).append(operation)

    def write(self) -> list[str]:
        """Write all operations. Return the names of the model's outputs."""
        for operation in self.model.operations:
            if all(id(tensor) in self.names for tensor in listed(operation.output)):
                continue  # the input, or part of an operation that is written already
            inputs = [self.names[id(tensor)] for tensor in listed(operation.input)]
            outputs = self.writer_of(operation)(self, operation, *inputs)
            for tensor, name in zip(listed(operation.output), listed(outputs), strict=True):
                self.names[id(tensor)] = name
        return [self.names[id(tensor)] for tensor in self.model.outputs]

    def number(self, array: Any) -> np.ndarray:
        """Return an array as the graph computes with it. Values that float16 cannot hold are clipped."""
        largest = np.finfo(self.dtype).max
        return np.asarray(array).clip(-largest, largest).astype(self.dtype)

    def through_int8(self, x: str, scale: Any, axis: int | None = None) -> str:
        """Write a tensor's way to eight bits and back. Return the name of the result."""
        key = x, np.asarray(scale).tobytes()
        if key not in self.quantised:
            scale = np.float32(scale)
            zero = np.zeros(scale.shape, np.int8)
            along: dict[str, Any] = {} if axis is None else {"axis": axis}
            steps = self.graph("QuantizeLinear", x, scale, zero, **along)
            self.quantised[key] = self.graph("DequantizeLinear", steps, scale, zero, **along)
        return self.quantised[key]

    def writer_of(self, operation: Any) -> Any:
        """Return the function that writes an operation. Raises UserError if there is none."""
        for kind in type(operation).__mro__:
            if kind.__name__ in LAYERS:
                return LAYERS[kind.__name__]
        raise unknown(operation, "is of a kind that is not known")

    def only_reader(self, tensor: Any, kind: str) -> Any:
        """Return the only operation that reads a tensor if its class has that name; otherwise None."""
        readers = self.readers.get(id(tensor), [])
        is_output = any(tensor is output for output in self.model.outputs)
        fits = len(readers) == 1 and not is_output and any(x.__name__ == kind for x in type(readers[0]).__mro__)
        return readers[0] if fits else None
