"""Load and write networks for TensorFlow: weights, which become one frozen function, and SavedModels."""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3.boxes import decode, finish
from yolov3.checkpoint import ModelSpec, is_weights, read_weights, write_about
from yolov3.checks import UserError, project_path
from yolov3.downloads import fetch_weights
from yolov3.files import whole_folder
from yolov3.fitting import check_fixed
from yolov3.networks import Heads
from yolov3.runtimes import RunOptions, Written, savedmodel
from yolov3.runtimes.common import PICTURE, TOLERANCE, check_same, cpu_flags, in_project, sample_images

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

if TYPE_CHECKING:
    import keras

TRAINED, MOVING = "trained_{}", "moving_{}"  # what the weights are called in a frozen graph, in Keras' order


def load(spec: ModelSpec, weights: Path, options: RunOptions) -> Callable:
    """Return the network of a .weights file, a checkpoint folder of weights or a SavedModel: one frozen function."""
    if options.precision == "BF16":
        check_bfloat16()
    if weights.is_dir() and not is_weights(weights):
        network = savedmodel.load_network(weights, spec)
        frozen = network.function
    else:
        network = frozen = freeze(keras_network(spec, weights), spec.heads)
    return in_mixed_precision(frozen) if options.precision == "BF16" else network


def keras_network(spec: ModelSpec, weights: Path) -> "keras.Model":
    """Return the Keras model with the weights of a checkpoint folder, a SavedModel folder or a .weights file.

    A missing official file is downloaded.
    """
    from yolov3.darknet import (  # imported here, since only this function needs Keras 3
        array_shapes,
        load_arrays,
        load_yolo_weights,
    )
    from yolov3.yolov4 import make_model

    size = None if spec.resize == "rectangle" else spec.input_size
    network = make_model(spec.network, size, len(spec.classes), spec.features)
    if weights.is_dir() and not is_weights(weights):
        load_constants(network, weights)
    elif weights.is_dir():
        load_arrays(network, read_weights(weights, array_shapes(network)), weights)
    else:
        fetch_weights(weights)
        load_yolo_weights(network, weights)
    return network


def load_constants(network: "keras.Model", folder: Path) -> None:
    """Give a Keras model the weights that `freeze` has put into a SavedModel folder. Raises UserError."""
    constants = savedmodel.read_constants(folder)
    for name, variables in ((TRAINED, network.trainable_variables), (MOVING, network.non_trainable_variables)):
        for i, variable in enumerate(variables):
            array = constants.get(name.format(i))
            if array is None or array.shape != tuple(variable.shape):
                raise UserError(f"{folder} holds no weights by name", "python tools/Convert_to_pb.py writes it anew")
            variable.assign(array)


def freeze(keras_model: "keras.Model", heads: Heads) -> Callable:
    """Return a Keras model of raw heads, and features if it has them, as a network.

    The weights become constants, so that TensorFlow fuses convolution, normalisation and activation into one kernel.
    """
    trained = [variable.numpy() for variable in keras_model.trainable_variables]
    moving = [variable.numpy() for variable in keras_model.non_trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((None, *keras_model.input_shape[1:]))], autograph=False)
    def predict(images):
        constants = [
            [tf.constant(array, name=name.format(i)) for i, array in enumerate(arrays)]
            for name, arrays in ((TRAINED, trained), (MOVING, moving))
        ]
        outputs, _ = keras_model.stateless_call(*constants, images, training=False)
        outputs = tf.nest.flatten(outputs)  # Keras gives a single one without a list
        raw_heads, features = outputs[: len(heads.strides)], outputs[len(heads.strides) :]
        raw_heads = [tf.identity(x, name=savedmodel.RAW_HEAD.format(i)) for i, x in enumerate(raw_heads)]
        return dict(zip(("predictions", "features"), (decode(raw_heads, heads), *features), strict=False))

    return predict.get_concrete_function()


# --- Where it runs ---------------------------------------------------------------------------------------------------


def check_bfloat16() -> None:
    """Raise UserError if oneDNN cannot compute in BF16: on an x86 CPU without AVX512, unless there is a GPU."""
    flags = cpu_flags()
    if "avx2" in flags and "avx512f" not in flags and not tf.config.list_physical_devices("GPU"):
        problem = 'YOLO_PRECISION = "BF16" needs a CPU with AVX512, which this one does not have'
        raise UserError(problem, 'use "FP32"')


def in_mixed_precision(frozen: Callable) -> Callable:
    """Return a frozen network with its convolutions in bfloat16 (CPU, oneDNN) or float16 (GPU).

    TensorFlow rewrites the graph of this network only, not those of other functions of the process.
    """
    on_gpu = tf.config.list_physical_devices("GPU")
    rewrite = "auto_mixed_precision" if on_gpu else "auto_mixed_precision_onednn_bfloat16"
    config = tf.compat.v1.ConfigProto()
    setattr(config.graph_options.rewrite_options, rewrite, RewriterConfig.ON)
    config = config.SerializeToString()

    def network(images):
        types = [tf.float32] * len(frozen.outputs)
        outputs = tf.raw_ops.PartitionedCall(args=[images], Tout=types, f=frozen, config_proto=config)
        return tf.nest.pack_sequence_as(frozen.structured_outputs, outputs)

    return network


def allow_memory_growth() -> None:
    """Let TensorFlow take GPU memory as it needs it, rather than all of it at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # TensorFlow has started: too late to change, but harmless
            tf.config.experimental.set_memory_growth(gpu, True)


# --- Writing ---------------------------------------------------------------------------------------------------------


def check(precision: str, options: Mapping) -> None:
    """Do nothing: to write a SavedModel takes TensorFlow only."""


def write(
    folder: Path,
    source: Path,
    spec: ModelSpec,
    options: Mapping[str, Any],
    inputs: Any = None,
    facts: Iterable = (),
) -> Written:
    """Write weights as a SavedModel folder, checked against the Keras model on a picture.

    source   a .weights file or a checkpoint folder of weights
    options  "score_threshold", "iou_threshold", "max_pixels" and, if wanted, "class_agnostic" (False) and "version",
             the number of the subfolder
    """
    check_fixed(spec.resize, "a conversion takes inputs of one size")
    network = keras_network(spec, source)
    baked = {"class_agnostic": False, **options}
    version = baked.pop("version", None)
    with whole_folder(folder) as part:
        place = part / str(version) if version else part
        for other in folder.glob("*/saved_model.pb") if version else ():  # so that a server can switch versions
            if other.parent.name not in (place.name, "variables"):
                shutil.copytree(other.parent, part / other.parent.name)
        savedmodel.save(place, freeze(network, spec.heads), spec, **baked)
        write_about(part, spec, in_project(source), **baked, **dict(facts))

        def predict(images):
            return decode(tf.nest.flatten(network(images))[: len(spec.heads.strides)], spec.heads)

        images, made = sample_images(spec), savedmodel.load_network(part, spec)
        worst = check_same(made(images)["predictions"], predict(images), folder)
        check_bytes(made.function.held.signatures["detect_bytes"], spec, predict, folder, **baked)
        return Written(worst)


def check_bytes(
    detect_bytes: Callable,
    spec: ModelSpec,
    predict: Callable,
    folder: Path,
    score_threshold: float,
    iou_threshold: float,
    max_pixels: int,
    class_agnostic: bool,
) -> None:
    """Raise UserError if the `detect_bytes` of a SavedModel does not find in the sample file what `predict` does."""
    data = tf.constant(project_path(PICTURE).read_bytes())
    found = detect_bytes(image_bytes=data[tf.newaxis])
    try:
        image, size = savedmodel.prepare_file(data, spec.input_size, spec.resize, max_pixels)
    except tf.errors.InvalidArgumentError:  # YOLO_MAX_PIXELS is smaller than the sample
        return
    predictions = predict(image[tf.newaxis])
    _, scores, _, valid = finish(predictions, size[tf.newaxis], score_threshold, iou_threshold, spec, class_agnostic)
    if found["valid_detections"] != valid or not np.allclose(found["scores"], scores, atol=TOLERANCE):
        raise UserError(f"{folder} finds other boxes in the file {PICTURE} than expected: it is not written")
