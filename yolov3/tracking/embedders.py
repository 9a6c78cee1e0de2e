"""Load re-identification networks, whose embeddings tell objects apart, without Keras.

An embedder is a function of a frame, uint8 (H, W, 3) in RGB, and boxes (n, 4), xyxy in its pixels, that returns their
embeddings, float32 (n, d). Two embeddings are compared by the angle between them. `Detector.embed` is an embedder, too.
"""

import os
from collections.abc import Callable
from pathlib import Path

from yolov3.checks import UserError, project_path
from yolov3.runtimes.openvino import compile_for_cpu, import_openvino

import cv2
import numpy as np
import tensorflow as tf

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green, blue, 0..1
MOST_BYTES = 2**29  # of a re-identification network
Embedder = Callable[[np.ndarray, np.ndarray], np.ndarray]


def load_embedder(path: str | os.PathLike) -> Embedder:
    """Return the embedder of a re-identification network in a .pb or .onnx file. Raises UserError."""
    if not isinstance(path, (str, os.PathLike)) or Path(path).suffix.lower() not in NETWORK_FILES:
        raise UserError(f"TRACKER_EMBEDDER = {path!r} is not known: {CHOICES}")
    file = project_path(path)
    if not file.is_file():
        raise UserError(f"TRACKER_EMBEDDER: {file} is {'not a file' if file.exists() else 'missing'}; {CHOICES}")
    if file.stat().st_size > MOST_BYTES:
        raise UserError(f"TRACKER_EMBEDDER: {file} is larger than the {MOST_BYTES:_} bytes that it may have; {CHOICES}")
    probe = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    two = np.array([[0, 0, 32, 64], [8, 0, 64, 64]], np.float32)
    try:
        embed = NETWORK_FILES[file.suffix.lower()](file)
        answer = embed(probe, two)
    except (RuntimeError, tf.errors.OpError) as error:  # the exceptions of OpenVINO and TensorFlow
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"TRACKER_EMBEDDER: {file} does not take two crops at once ({reason})") from None
    if answer.ndim != 2 or len(answer) != 2 or not answer.shape[1]:
        raise UserError(f"TRACKER_EMBEDDER: {file} answers {answer.shape} for two crops, not a row of numbers for each")

    def checked(frame, boxes):
        if not len(boxes):
            return answer[:0]
        embeddings = embed(frame, boxes)
        if not np.isfinite(embeddings).all():
            raise UserError(f"TRACKER_EMBEDDER: {file} answers numbers that are not finite")
        return embeddings

    checked(probe, two)
    return checked


def frozen_graph(file: Path) -> Embedder:
    """Return the embedder of a frozen TensorFlow graph like Deep SORT's mars-small128.pb.

    The graph takes "images", uint8 (n, h, w, 3) in BGR, and answers "features" (n, d). The width of a crop, about the
    middle of its box, follows from its height by the aspect of the input, as in the training of that network.
    """
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(file.read_bytes())
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
        images, features = (wrapped.graph.get_tensor_by_name(f"{name}:0") for name in ("images", "features"))
    except Exception as error:  # an error of protobuf, ValueError or KeyError
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"TRACKER_EMBEDDER: {file} is not a frozen graph from images to features ({reason})") from None
    shape = images.shape.as_list()
    if images.dtype != tf.uint8 or not _is_picture_batch(shape, 3) or features.shape.rank != 2:
        raise UserError(
            f"TRACKER_EMBEDDER: {file} takes {images.dtype.name} {shape} and answers {features.shape}: it must take "
            "uint8 (n, height, width, 3) and answer (n, numbers)"
        )
    network = wrapped.prune(images, features)

    def embed(frame, boxes):
        crops = cut_crops(frame, boxes, shape[1], shape[2], keep_aspect=True)
        return network(tf.constant(crops[..., ::-1])).numpy()

    return embed


def onnx_network(file: Path) -> Embedder:
    """Return the embedder of an ONNX network like those of torchreid.

    The network takes float32 (n, 3, h, w), RGB normalised by ImageNet's mean and deviation, and answers (n, d).
    """
    openvino = import_openvino()
    core = openvino.Core()
    try:
        graph = core.read_model(file)
    except RuntimeError:
        raise UserError(f"TRACKER_EMBEDDER: {file} is not an ONNX file that OpenVINO can read") from None
    shapes = [[x if isinstance(x, int) else None for x in _lengths(port)] for port in (*graph.inputs, *graph.outputs)]
    if len(shapes) != 2 or not _is_picture_batch(shapes[0], 1) or len(shapes[1]) != 2:
        raise UserError(
            f"TRACKER_EMBEDDER: {file} takes and answers {shapes}: it must take (n, 3, height, width) and answer "
            "(n, numbers)"
        )
    _, channels, height, width = shapes[0]
    graph.reshape([-1, channels, height, width])  # all crops of a frame at once
    request = compile_for_cpu(core, graph, {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
    scale = 1 / (255 * np.array(IMAGENET_DEVIATION, np.float32))
    shift = -np.array(IMAGENET_MEAN, np.float32) / np.array(IMAGENET_DEVIATION, np.float32)

    def embed(frame, boxes):
        crops = cut_crops(frame, boxes, height, width)
        request.infer([np.ascontiguousarray((crops * scale + shift).transpose(0, 3, 1, 2))])
        return request.get_output_tensor().data.copy()

    return embed


NETWORK_FILES = {".pb": frozen_graph, ".onnx": onnx_network}
CHOICES = f'"detector", "none", or a re-identification network in a file: {", ".join(NETWORK_FILES)}'


def _is_picture_batch(shape, channels_at):
    """Return whether a shape is that of pictures: four axes, three channels at axis `channels_at`, known sides."""
    return shape is not None and len(shape) == 4 and shape[channels_at] == 3 and None not in shape[1:]


def _lengths(port):
    return [side.get_length() if side.is_static else None for side in port.partial_shape]


def cut_crops(frame: np.ndarray, boxes: np.ndarray, height: int, width: int, keep_aspect: bool = False) -> np.ndarray:
    """Return the crops of a frame at boxes (n, 4), xyxy in pixels, resized: uint8 (n, height, width, 3).

    keep_aspect  change the width of each box to give it the aspect of the crop
    """
    crops = np.empty((len(boxes), height, width, 3), np.uint8)
    frame_height, frame_width = frame.shape[:2]
    for crop, (x1, y1, x2, y2) in zip(crops, boxes, strict=True):
        if keep_aspect:
            middle, half = (x1 + x2) / 2, (y2 - y1) * width / height / 2
            x1, x2 = middle - half, middle + half
        left, top = int(np.clip(x1, 0, frame_width - 1)), int(np.clip(y1, 0, frame_height - 1))
        right, bottom = int(np.clip(x2, left + 1, frame_width)), int(np.clip(y2, top + 1, frame_height))
        cv2.resize(frame[top:bottom, left:right], (width, height), dst=crop)
    return crops
