"""Define what tools/benchmarks/speed.py measures. A contender loads what preparing.py has made for it.

TensorFlow is imported inside functions, so that it is not in the process that measures OpenCV's memory.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from yolov3 import configs
from yolov3.networks import Heads

import cv2
import numpy as np

WARM_UP = 3  # untimed calls of each contender; its peak memory is measured after as many
FRAMEWORKS = ("tf", "openvino", "onnx", "tflite", "trt", "keras", "opencv")


@dataclass(frozen=True, eq=False)
class Setup:
    """Describe one network at one size without objects of TensorFlow, which would have to be imported."""

    type: str  # yolov3, yolov3-tiny, yolov4, yolov4-tiny
    size: tuple[int, int]  # height and width of the input, pixels
    saved_model: Path  # a folder that this run has made
    frame: np.ndarray  # uint8 (H, W, 3), RGB


class Calls(NamedTuple):
    """Hold the calls of a contender that are timed."""

    end_to_end: Callable  # from the frame of the setup to its boxes
    network: Callable  # from a prepared batch to raw outputs
    detector: Any = None  # to measure accuracy with, None for contenders that are not ours
    bare: Callable | None = None  # OpenVINO's request on the same batch, of its INT8


class Contender(NamedTuple):
    """Hold one row of the comparison."""

    name: str
    framework: str
    precision: str | None  # None is measured whatever precisions are chosen
    load: Callable  # makes its Calls from a Setup, the path of what was made for it, and the precision
    on_noise: bool = False  # INT8 calibrated on noise instead of pictures


def warm_up(setup: Setup, path: Path, load: Callable, precision: str | None) -> Calls:
    """Load a contender and call it a few times."""
    calls = load(setup, path, precision)
    for _ in range(WARM_UP):
        calls.end_to_end()
        calls.network()
    return calls


# --- What contenders load --------------------------------------------------------------------------------------------


def our_detector(setup: Setup, folder: Path, precision: str) -> Calls:
    """Load the detector of this project, by any runtime."""
    from yolov3.loading import PRECISIONS, Load_Yolo_model

    import tensorflow as tf

    precision = precision if precision in PRECISIONS else None  # any other precision is fixed in the folder
    detector = Load_Yolo_model(folder, input_size=setup.size, precision=precision)
    images = detector.fit([setup.frame])  # (1, h, w, 3)
    on_gpu = tf.config.list_physical_devices("GPU")

    def network():
        detector.network(images)
        if on_gpu:  # whose work may still be running
            tf.test.experimental.sync_devices()

    is_int8 = (detector.spec.framework, detector.spec.precision) == ("openvino", "INT8")
    bare = bare_request(setup, folder, np.array(images)) if is_int8 else None
    return Calls(lambda: detector([setup.frame]), network, detector, bare)


def bare_request(setup: Setup, folder: Path, images: np.ndarray) -> Callable:
    """Return a call of OpenVINO with the IR of a folder and nothing around it. The first call loads it, so that a
    process that does not call it does not hold the network twice."""
    from yolov3.runtimes.openvino import compile_for_cpu, import_openvino

    @functools.cache
    def request():
        core = import_openvino().Core()
        graph = core.read_model(folder / "model.xml")
        graph.reshape([1, *setup.size, 3])
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": configs.YOLO_OPENVINO_HINT}
        return compile_for_cpu(core, graph, options).create_infer_request()

    return lambda: request().infer([images], share_inputs=True, share_outputs=True)


def keras_predict(setup: Setup, weights: Path, _: str | None) -> Calls:
    """Load Keras' `predict` between a letterbox and a suppression in NumPy, as in the widespread ports."""
    from yolov3.checkpoint import read_model
    from yolov3.runtimes.tf import keras_network

    import keras

    about, frame = read_model(setup.saved_model), setup.frame
    size = np.array(setup.size[::-1])  # width, height
    model = keras_network(replace(about, features=False), weights)
    sides = np.array(frame.shape[1::-1])  # width, height

    def letterboxed():
        width, height = fitted = np.minimum(size, sides * size[::-1] // sides[::-1])
        left, top = (size - fitted) // 2
        images = np.full((1, *setup.size, 3), 0.5, np.float32)
        images[0, top : top + height, left : left + width] = cv2.resize(frame, (width, height)) / np.float32(255)
        return images

    def end_to_end():
        raw_heads = keras.tree.flatten(model.predict(letterboxed(), verbose=0))
        boxes, scores, classes = decode_heads(raw_heads, about.heads, configs.YOLO_SCORE_THRESHOLD)
        keep = greedy_nms(boxes + classes[:, np.newaxis] * 100, scores, configs.YOLO_IOU_THRESHOLD)  # per class
        whole = size * max(sides / size)  # the input in pixels of the frame
        boxes = boxes[keep] * np.tile(whole, 2) - np.tile((whole - sides) / 2, 2)
        return boxes.clip(0, np.tile(sides, 2)), scores[keep], classes[keep]

    images = letterboxed()
    return Calls(end_to_end, lambda: model.predict(images, verbose=0))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of x, without overflow."""
    return np.tanh(x / 2) / 2 + 0.5


def decode_heads(
    raw_heads: list[np.ndarray], heads: Heads, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the boxes (n, 4), xyxy in fractions, scores (n,) and classes (n,) of raw heads (1, h, w, A * (5 + C))."""
    boxes, scores = [], []
    for raw, stride, anchors, scale_x_y in zip(raw_heads, heads.strides, heads.anchors, heads.scale_x_y, strict=True):
        cells = np.array(raw.shape[2:0:-1])  # across, down
        raw = raw.reshape(*raw.shape[1:3], len(anchors), -1)
        y, x, anchor = np.nonzero(sigmoid(raw[..., 4]) >= threshold)  # the others cannot exceed the threshold
        raw = raw[y, x, anchor]  # (k, 5 + C)
        centre = (sigmoid(raw[:, :2]) * scale_x_y - (scale_x_y - 1) / 2 + np.stack([x, y], -1)) / cells
        sides = (2 * sigmoid(raw[:, 2:4])) ** 2 if heads.new_coords else np.exp(raw[:, 2:4])
        half = sides * np.array(anchors)[anchor] / (cells * stride) / 2
        boxes.append(np.concatenate([centre - half, centre + half], -1))
        scores.append(sigmoid(raw[:, 4:5]) * sigmoid(raw[:, 5:]))
    boxes, scores = np.concatenate(boxes), np.concatenate(scores)
    rows, classes = np.nonzero(scores >= threshold)
    return boxes[rows], scores[rows, classes], classes


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> list[int]:
    """Return the indices of the boxes (n, 4), xyxy, to keep, best first."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    order, keep = np.argsort(-scores), []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(best)
        overlap = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        intersection = np.prod(overlap.clip(0), -1)
        order = rest[intersection <= iou_threshold * (area[best] + area[rest] - intersection)]
    return keep


def opencv_dnn(setup: Setup, folder: Path, _: str | None) -> Calls:
    """Load OpenCV's Darknet importer with OpenCV's suppression."""
    net = cv2.dnn.readNetFromDarknet(str(folder / "network.cfg"), str(folder / "network.weights"))
    outputs, frame = net.getUnconnectedOutLayersNames(), setup.frame

    def blob():
        return cv2.dnn.blobFromImage(frame, 1 / 255, setup.size[::-1])

    def network(images):
        net.setInput(images)
        return np.concatenate(net.forward(outputs))  # (boxes, 5 + C): centre, size, objectness, scores

    def end_to_end():
        found = network(blob())
        rows, classes = np.nonzero(found[:, 5:] >= configs.YOLO_SCORE_THRESHOLD)
        scores, boxes = found[rows, 5 + classes], found[rows, :4] * np.tile(frame.shape[1::-1], 2)
        boxes[:, :2] -= boxes[:, 2:] / 2  # (n, 4) xywh, pixels
        thresholds = configs.YOLO_SCORE_THRESHOLD, configs.YOLO_IOU_THRESHOLD
        keep = list(cv2.dnn.NMSBoxesBatched(boxes, scores, classes, *thresholds))
        return boxes[keep], scores[keep], classes[keep]

    images = blob()
    return Calls(end_to_end, lambda: network(images))


CONTENDERS = (
    Contender("tf FP32", "tf", "FP32", our_detector),
    Contender("tf BF16", "tf", "BF16", our_detector),
    Contender("openvino FP32", "openvino", "FP32", our_detector),
    Contender("openvino BF16", "openvino", "BF16", our_detector),
    Contender("openvino INT8", "openvino", "INT8", our_detector),
    Contender("openvino INT8, calibrated on noise", "openvino", "INT8", our_detector, on_noise=True),
    Contender("onnx FP32", "onnx", "FP32", our_detector),
    Contender("onnx FP16", "onnx", "FP16", our_detector),
    Contender("tflite FP32", "tflite", "FP32", our_detector),
    Contender("tflite FP16", "tflite", "FP16", our_detector),
    Contender("tflite INT8", "tflite", "INT8", our_detector),
    Contender("trt FP32", "trt", "FP32", our_detector),
    Contender("trt FP16", "trt", "FP16", our_detector),
    Contender("trt INT8", "trt", "INT8", our_detector),
    Contender("Keras predict + NumPy NMS", "keras", None, keras_predict),
    Contender("OpenCV DNN", "opencv", None, opencv_dnn),
)
PRECISIONS = tuple(dict.fromkeys(contender.precision for contender in CONTENDERS if contender.precision))
