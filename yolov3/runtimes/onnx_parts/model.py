"""Build an ONNX model of a Keras network and of what goes before and after it.

    outputs        input                        what the file answers
    "predictions"  images float32 (N, H, W, 3)  predictions float32 (N, boxes, 4 + classes), as `serving_default`
    "raw_heads"    images float32 (N, H, W, 3)  raw_head_0, raw_head_1 ... float32 (N, H/stride, W/stride, channels)
    "boxes"        images uint8 (N, H, W, 3)    boxes float32 (N, 100, 4), x1, y1, x2, y2 in pixels of the input, scores
                                                (N, 100), classes int32 (N, 100), valid_detections int32 (N,)

The first two also answer the features, float32 (N, H/16, W/16, C), of a model that has them. Pictures are RGB, 0..1 or
0..255, and fill the input as YOLO_RESIZE has it.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from yolov3.boxes import MAX_BOXES
from yolov3.checkpoint import ModelSpec
from yolov3.runtimes.onnx_parts.boxes import write_decoding, write_suppression
from yolov3.runtimes.onnx_parts.graph import Graph
from yolov3.runtimes.onnx_parts.network import write_layers
from yolov3.runtimes.savedmodel import RAW_HEAD

import numpy as np

if TYPE_CHECKING:
    import keras
    import onnx

OUTPUTS = ("predictions", "raw_heads", "boxes")


def build_model(
    network: "keras.Model",
    spec: ModelSpec,
    outputs: str = "predictions",
    thresholds: Mapping[str, Any] = MappingProxyType({}),
    precision: str = "FP32",
    scales: Mapping[str, float] | None = None,
) -> "onnx.ModelProto":
    """Return the ONNX model of a Keras network.

    thresholds  {"score_threshold", "iou_threshold", "class_agnostic"} of "boxes"
    precision   "FP16": the network computes in float16, and boxes are decoded in float32
    scales      {convolution: the scale of its input}; with it, convolutions multiply 8-bit integers
    """
    graph, size = Graph(), network.input_shape[1:3]  # height, width
    shapes = [output.shape[1:] for output in network.outputs]  # (H/stride, W/stride, channels)
    tensors = _write_network(graph, network, outputs == "boxes", precision, scales)
    heads, features = tensors[: len(spec.heads.strides)], tensors[len(spec.heads.strides) :]

    answers: dict[str, tuple] = {}  # name -> tensor, dtype, shape less the batch
    if outputs == "raw_heads":
        for i, (head, shape) in enumerate(zip(heads, shapes, strict=False)):
            answers[RAW_HEAD.format(i)] = head, np.float32, shape
    else:
        kinds = zip(spec.heads.strides, spec.heads.anchors, spec.heads.scale_x_y, strict=True)
        rows = [
            write_decoding(graph, head, shape, *kind, spec.heads.new_coords)
            for head, shape, kind in zip(heads, shapes, kinds, strict=False)
        ]
        predictions = graph("Concat", *rows, axis=1)
        count = sum(h * w * len(a) for (h, w, _), a in zip(shapes, spec.heads.anchors, strict=False))
        answers["predictions"] = predictions, np.float32, (count, 4 + len(spec.classes))
    if outputs == "boxes":
        found = write_suppression(graph, predictions, (count, len(spec.classes)), size, spec.heads, **thresholds)
        names = "boxes", "scores", "classes", "valid_detections"
        types = np.float32, np.float32, np.int32, np.int32
        rows_of = (MAX_BOXES, 4), (MAX_BOXES,), (MAX_BOXES,), ()
        answers = dict(zip(names, zip(found, types, rows_of, strict=True), strict=True))
    elif spec.features:
        answers["features"] = features[0], np.float32, shapes[-1]

    described = {}
    for name, (tensor, dtype, shape) in answers.items():
        graph.rename(tensor, name)
        described[name] = (dtype, ("N", *shape))
    images = {"images": (np.uint8 if outputs == "boxes" else np.float32, ("N", *size, 3))}
    return graph.to_model(images, described, spec.name, _metadata(spec, size, outputs, thresholds))


def _write_network(
    graph: Graph, network: "keras.Model", takes_bytes: bool, precision: str, scales: Mapping[str, float] | None
) -> list[str]:
    """Write a Keras network, with input and outputs in Keras' layout. Return the names of its outputs."""
    x, dtype = "images", np.float16 if precision == "FP16" else np.float32
    if takes_bytes:  # TensorRT takes an 8-bit input only if it is cast at once
        x = graph("Mul", graph("Cast", x, to=graph.type(np.float32)), 1 / 255)
    if dtype == np.float16:
        x = graph("Cast", x, to=graph.type(dtype))
    outputs = write_layers(graph, network, graph("Transpose", x, perm=[0, 3, 1, 2]), dtype, scales)
    if dtype == np.float16:
        outputs = [graph("Cast", x, to=graph.type(np.float32)) for x in outputs]
    return [graph("Transpose", x, perm=[0, 2, 3, 1]) for x in outputs]


def _metadata(spec: ModelSpec, size: tuple[int, int], outputs: str, thresholds: Mapping) -> dict[str, Any]:
    """Return what the file says of itself, by name."""
    facts = {
        "type": spec.name,
        "classes": json.dumps(spec.classes, ensure_ascii=False),
        "input_height": size[0],
        "input_width": size[1],
        "resize": spec.resize,
        "outputs": outputs,
    }
    return {**facts, **thresholds} if outputs == "boxes" else facts
