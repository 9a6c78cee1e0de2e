"""Save a network, with all that goes before and behind it, as a SavedModel that TensorFlow 2.10 and newer load.

It has two signatures:

    serving_default  takes images, float32 (N, h, w, 3); returns predictions, float32 (N, boxes, 4 + classes), and, of a
                     model with features, features, float32 (N, h/16, w/16, C)
    detect_bytes     takes image_bytes, string (N,): whole JPEG, PNG, BMP (8, 24 or 32 bits a pixel) or GIF (the first
                     frame) files of any sizes; returns boxes, float32 (N, 100, 4), xyxy in pixels of each picture,
                     scores (N, 100), classes, int32 (N, 100), and valid_detections, int32 (N,): how many of the 100
                     rows hold a box, -1 for a file that cannot be decoded

These are TensorFlow graph ops without Keras: the converters build `detect_bytes` around the networks of other runtimes,
under TensorFlow 2.10 too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolov3.boxes import finish
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError
from yolov3.fitting import fit
from yolov3.images import decode_large_picture

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

RAW_HEAD = "raw_head_{}"  # what the raw heads are called in a frozen graph, after a prefix; converters search for them
ENOUGH = 3  # JPEGs are not decoded larger than so many times the network input, where that saves time


def read_files(
    files: tf.Tensor, size: tuple[int, int], resize: str, max_pixels: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return images, float32 (N, h, w, 3), sizes, int32 (N, 2), height and width, and readable, bool (N,), of files.

    files  string (N,), the bytes of picture files, which are decoded in parallel
    A file that cannot be decoded gives zeros and does not affect the others. An empty batch gives one row of zeros,
    since oneDNN's kernels fail on empty batches.
    """
    count = tf.maximum(tf.size(files), 1)

    def prepare(index, data):
        return index, *prepare_file(data, size, resize, max_pixels)

    pictures = tf.data.Dataset.from_tensor_slices((tf.range(tf.size(files)), files))
    pictures = pictures.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    if hasattr(pictures, "ignore_errors"):
        pictures = pictures.ignore_errors()
    else:  # TensorFlow 2.10
        pictures = pictures.apply(tf.data.experimental.ignore_errors())
    end = tf.constant([-1]), tf.zeros((1, *size, 3)), tf.ones((1, 2), tf.int32)  # so that the batch is never empty
    pictures = pictures.concatenate(tf.data.Dataset.from_tensor_slices(end))
    batch = pictures.batch(tf.cast(count, tf.int64) + 1).get_single_element()

    index, images, sizes = (x[:-1] for x in batch)  # in the order in which they were decoded
    rows = index[:, tf.newaxis]
    readable = tf.scatter_nd(rows, tf.ones_like(index), [count]) > 0
    images = tf.scatter_nd(rows, images, [count, *size, 3])
    sizes = tf.tensor_scatter_nd_update(tf.ones([count, 2], tf.int32), rows, sizes)
    return images, sizes, readable


def prepare_file(data: tf.Tensor, size: tuple[int, int], resize: str, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the image, float32 (h, w, 3), and the height and width, int32 (2,), of a picture file's bytes.

    Raises tf.errors.InvalidArgumentError if they cannot be decoded or are of more than max_pixels.
    """
    picture, whole = decode_large_picture(data, tf.constant(max_pixels, tf.int64), ENOUGH * max(size))
    return fit(picture, size, resize, whole), whole


def with_signatures(
    network: Callable,
    spec: ModelSpec,
    score_threshold: float,
    iou_threshold: float,
    max_pixels: int,
    class_agnostic: bool = False,
) -> tuple[tf.Module, dict[str, Callable]]:
    """Return a module that holds a network, and its two signatures."""
    module = tf.Module()
    module.network = network  # so that what the network holds, its engines for example, is saved too

    @tf.function(input_signature=[image_spec(spec)], autograph=False)
    def serving_default(images):
        return network(images)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")], autograph=False)
    def detect_bytes(image_bytes):
        images, sizes, readable = read_files(image_bytes, spec.input_size, spec.resize, max_pixels)
        predictions = network(images)["predictions"]
        boxes, scores, classes, valid = finish(predictions, sizes, score_threshold, iou_threshold, spec, class_agnostic)
        row = readable[:, tf.newaxis]
        answers = {
            "boxes": tf.where(row[..., tf.newaxis], boxes, 0.0),
            "scores": tf.where(row, scores, 0.0),
            "classes": tf.where(row, classes, 0),
            "valid_detections": tf.where(readable, valid, -1),
        }
        return {name: answer[: tf.size(image_bytes)] for name, answer in answers.items()}

    return module, {"serving_default": serving_default, "detect_bytes": detect_bytes}


def image_spec(spec: ModelSpec) -> tf.TensorSpec:
    """Return the input of `serving_default`."""
    return tf.TensorSpec((None, *spec.input_size, 3), tf.float32, "images")


def save(
    folder: Path,
    network: Callable,
    spec: ModelSpec,
    score_threshold: float,
    iou_threshold: float,
    max_pixels: int,
    class_agnostic: bool = False,
) -> None:
    """Write saved_model.pb and what belongs to it into a folder."""
    module, signatures = with_signatures(network, spec, score_threshold, iou_threshold, max_pixels, class_agnostic)
    try:
        tf.saved_model.save(module, str(folder), signatures)
    except tf.errors.OpError as error:  # what TensorFlow raises when the disk is full
        raise OSError(None, error.message.splitlines()[0]) from None


def place(folder: str | Path) -> Path:
    """Return the folder of saved_model.pb: this one, or the subfolder with the highest version number."""
    versions = [x for x in Path(folder).glob("*/saved_model.pb") if x.parent.name.isdecimal()]
    if (Path(folder) / "saved_model.pb").exists() or not versions:
        return Path(folder)
    return max((x.parent for x in versions), key=lambda x: int(x.name))


def load(folder: str | Path, signature: str = "serving_default") -> Any:
    """Return a signature of a SavedModel folder: a function of a named tensor that returns a dict of tensors.

    Raises UserError if the folder cannot be loaded.
    """
    try:
        loaded = tf.saved_model.load(str(place(folder)))
        function = loaded.signatures[signature]
    except (OSError, tf.errors.OpError, KeyError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} holds no SavedModel that can be loaded ({reason}): convert again") from None
    function.held = loaded  # the variables must live as long as the function
    return function


def read_constants(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays that the graph of a SavedModel folder holds, by name. Scalars are left out."""
    saved = SavedModel()
    try:
        saved.ParseFromString((place(folder) / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} holds no SavedModel that can be read ({reason})", "convert again") from None
    return {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for graph in saved.meta_graphs
        for function in graph.graph_def.library.function
        for node in function.node_def
        if node.op == "Const" and node.attr["value"].tensor.tensor_shape.dim
    }


def cut_at_raw_heads(folder: Path, spec: ModelSpec) -> Callable:
    """Return the part of a SavedModel folder that has the weights.

    It is a function of images that returns a list of the raw heads and, of a model that has them, the features.
    """
    flat = convert_variables_to_constants_v2(load(folder))
    outputs = {operation.name.rpartition("/")[2]: operation.outputs for operation in flat.graph.get_operations()}
    try:
        heads = [outputs[RAW_HEAD.format(i)][0].name for i in range(len(spec.heads.strides))]
    except KeyError as name:
        raise UserError(f"{folder} has no operation {name}", "python tools/Convert_to_pb.py writes it anew") from None
    features = [x.name for x in flat.outputs if x.shape.rank == 4]
    return flat.prune([x.name for x in flat.inputs], heads + features)


def load_network(folder: Path, spec: ModelSpec) -> Any:
    """Return the `serving_default` of a SavedModel folder as a network. Raises UserError if it is not as in `spec`."""
    function = load(folder)
    takes, wanted = function.structured_input_signature[1].get("images"), image_spec(spec)
    if takes is None or not wanted.is_compatible_with(tf.TensorSpec(takes.shape, takes.dtype)):
        raise UserError(f"{folder} holds a SavedModel of other inputs than its model.json says: convert again")
    if set(function.structured_outputs) != {"predictions", *(["features"] * spec.features)}:
        raise UserError(f"{folder} holds a SavedModel of other outputs than its model.json says: convert again")

    def network(images):
        return function(images=images)

    network.function = function  # type: ignore[attr-defined]
    return network
