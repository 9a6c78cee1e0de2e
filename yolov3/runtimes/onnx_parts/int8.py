"""Find the scales of INT8 for an ONNX model: one for the input of each convolution, from its values on real pictures.

TensorRT takes 8-bit integers from -127 to 127, times a scale, without a zero point. A scale is chosen so that all but
the largest of a tensor's values, one of 100,000, lie within that range. The others saturate.
"""

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from yolov3.checkpoint import ModelSpec
from yolov3.runtimes.onnx_parts.graph import import_onnx
from yolov3.runtimes.onnx_parts.layers import INT8_STEPS, LEAST_SCALE
from yolov3.runtimes.onnx_parts.model import build_model
from yolov3.runtimes.onnx_parts.providers import CPU, import_onnxruntime

import numpy as np

if TYPE_CHECKING:
    import keras

SATURATING = 1e-5  # share of the values of a tensor that saturate


def find_scales(network: "keras.Model", spec: ModelSpec, inputs: Collection[np.ndarray]) -> dict[str, float]:
    """Return the scale of the input of each convolution of a Keras network, by the name of the convolution.

    inputs  network inputs, float32 (1, H, W, 3) each
    """
    largest: dict[str, np.ndarray] = {}  # of each tensor the largest magnitudes: those that saturate, and one more
    model = build_model(network, spec, "raw_heads")
    inputs_of = {node.name: node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    tensors = list(dict.fromkeys(inputs_of.values()))
    del model.graph.output[:]
    model.graph.output.extend(import_onnx().ValueInfoProto(name=tensor) for tensor in tensors)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=[CPU])
    for images in inputs:
        for tensor, values in zip(tensors, session.run(tensors, {"images": images}), strict=True):
            count = math.ceil(SATURATING * values.size * len(inputs)) + 1
            values = np.append(largest.get(tensor, np.empty(0, np.float32)), np.abs(values))
            largest[tensor] = -np.partition(-values, count)[:count] if values.size > count else values
    return {name: max(float(largest[tensor].min()), LEAST_SCALE) / INT8_STEPS for name, tensor in inputs_of.items()}
