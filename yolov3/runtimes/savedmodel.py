"""A network with all that goes before and behind it as one graph: a SavedModel that TensorFlow 2.10 and newer load.

    serving_default  images float32 (N, S, S, 3) -> predictions float32 (N, boxes, 4 + classes) and, of a model with
                     features, features float32 (N, S/16, S/16, C), the backbone's
    detect_bytes     image_bytes string (N,), whole JPEG, PNG, BMP (8, 24 or 32 bits a pixel) or GIF files, of which the
                     first frame counts, of any sizes and no other format -> boxes float32 (N, 100, 4), xyxy in
                     pixels of each picture, scores (N, 100), classes int32 (N, 100), valid_detections int32 (N,): how
                     many of the 100 rows hold a box, -1 for a file that cannot be decoded

Graph ops only, no Keras: the converters rebuild `detect_bytes` around a network of another runtime, under TensorFlow
2.10 too.
"""

from pathlib import Path

from yolov3.boxes import finish
from yolov3.checks import UserError
from yolov3.fitting import fit
from yolov3.images import decode_large_picture

import tensorflow as tf

ENOUGH = 3  # times the network's input: a JPEG need not be decoded larger


def read_files(files, size, resize, max_pixels):
    """Picture files' bytes, string (N,) -> images float32 (N, S, S, 3), int32 sizes (N, 2), height and width, and
    readable bool (N,). Decoded side by side; a file that cannot be decoded gives zeros and spoils no other.

    No files give one row of zeros: oneDNN's kernels fail on an empty batch.
    """
    count = tf.maximum(tf.size(files), 1)

    def prepare(index, data):
        picture, whole = decode_large_picture(data, tf.constant(max_pixels, tf.int64), ENOUGH * size)
        return index, fit(picture, size, resize, whole), whole

    pictures = tf.data.Dataset.from_tensor_slices((tf.range(tf.size(files)), files))
    pictures = pictures.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    if hasattr(pictures, "ignore_errors"):
        pictures = pictures.ignore_errors()
    else:  # TensorFlow 2.10
        pictures = pictures.apply(tf.data.experimental.ignore_errors())
    end = tf.constant([-1]), tf.zeros((1, size, size, 3)), tf.ones((1, 2), tf.int32)  # so that there is one to batch
    pictures = pictures.concatenate(tf.data.Dataset.from_tensor_slices(end))
    batch = pictures.batch(tf.cast(count, tf.int64) + 1).get_single_element()

    index, images, sizes = (x[:-1] for x in batch)  # in the order in which they were ready
    rows = index[:, tf.newaxis]
    readable = tf.scatter_nd(rows, tf.ones_like(index), [count]) > 0
    images = tf.scatter_nd(rows, images, [count, size, size, 3])
    sizes = tf.tensor_scatter_nd_update(tf.ones([count, 2], tf.int32), rows, sizes)
    return images, sizes, readable


def with_signatures(network, spec, score_threshold, iou_threshold, max_pixels, class_agnostic=False):
    """A network with both signatures -> tf.Module and the signatures, to save."""
    module = tf.Module()
    module.network = network  # so that what it holds, engines for example, is saved along

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


def image_spec(spec):
    """The input of `serving_default`."""
    return tf.TensorSpec((None, spec.input_size, spec.input_size, 3), tf.float32, "images")


def save(folder, network, spec, score_threshold, iou_threshold, max_pixels, class_agnostic=False):
    """Writes saved_model.pb and what belongs to it into a folder."""
    module, signatures = with_signatures(network, spec, score_threshold, iou_threshold, max_pixels, class_agnostic)
    try:
        tf.saved_model.save(module, str(folder), signatures)
    except tf.errors.OpError as error:  # a full disk, in TensorFlow's words
        raise OSError(None, error.message.splitlines()[0]) from None


def place(folder):
    """Where a folder's saved_model.pb lies: in it, or in the subfolder of its newest version."""
    versions = [x for x in Path(folder).glob("*/saved_model.pb") if x.parent.name.isdecimal()]
    if (Path(folder) / "saved_model.pb").exists() or not versions:
        return Path(folder)
    return max((x.parent for x in versions), key=lambda x: int(x.name))


def load(folder, signature="serving_default"):
    """One signature of a SavedModel folder, a function of one tensor by name -> dict of tensors. Raises UserError."""
    try:
        loaded = tf.saved_model.load(str(place(folder)))
        function = loaded.signatures[signature]
    except (OSError, tf.errors.OpError, KeyError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} holds no SavedModel that can be loaded ({reason}): convert again") from None
    function.held = loaded  # what the function reads lives as long as it does
    return function


def load_network(folder, spec):
    """The `serving_default` of a SavedModel folder as a network. Raises UserError if it is not that of the spec."""
    function = load(folder)
    takes, wanted = function.structured_input_signature[1].get("images"), image_spec(spec)
    if takes is None or not wanted.is_compatible_with(tf.TensorSpec(takes.shape, takes.dtype)):
        raise UserError(f"{folder} holds a SavedModel of other inputs than its model.json says: convert again")
    if set(function.structured_outputs) != {"predictions", *(["features"] * spec.features)}:
        raise UserError(f"{folder} holds a SavedModel of other outputs than its model.json says: convert again")

    def network(images):
        return function(images=images)

    network.function = function
    return network
