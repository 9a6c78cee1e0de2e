"""Load the model that configs.py means: constants in, a `Detector` out.

This is where configs.py is read for detection: an argument that is left out means what configs.py says now.
"""

import os
from collections.abc import Collection
from dataclasses import replace

from yolov3 import configs
from yolov3.checkpoint import ModelSpec, find, is_weights, read_about, read_model
from yolov3.checks import (
    UserError,
    check_count,
    check_input_size,
    check_threshold,
    choose,
    class_names,
    project_path,
)
from yolov3.detector import Detector, Timings
from yolov3.fitting import RESIZES, check_fixed
from yolov3.heads import configured_network, default_weights, heads_of_file, network_of_file
from yolov3.networks import NETWORKS, network_name
from yolov3.runtimes import RUNTIMES, RunOptions
from yolov3.runtimes.onnx_parts.providers import PROVIDERS
from yolov3.runtimes.tf import allow_memory_growth

import numpy as np
import tensorflow as tf

PRECISIONS = ("FP32", "BF16")
HINTS = ("LATENCY", "THROUGHPUT")
HEADERS = (16, 20)  # bytes of the two headers that a .weights file may have
SHIPPED = "model_data/yolov4-tiny-digits"  # trained on drawn digits: the worked example of training


def Load_Yolo_model(
    weights: str | os.PathLike | None = None,
    CLASSES: str | os.PathLike | Collection[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    yolo_type: str | None = None,
    tiny: bool | None = None,
    framework: str | None = None,
    precision: str | None = None,
    resize: str | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    features: bool | None = None,
    class_agnostic: bool | None = None,
) -> Detector:
    """Return the configured model as a `Detector`, ready for its first frame.

    An argument that is left out means what configs.py says now; what a checkpoint folder says of itself wins over both.

    weights         a checkpoint folder, its name, or a .weights file; YOLO_CUSTOM_WEIGHTS, or else the Darknet weights
                    of the type, which are downloaded if they are missing
    CLASSES         a names file or names
    yolo_type, tiny, input_size, framework    YOLO_TYPE, TRAIN_YOLO_TINY, YOLO_INPUT_SIZE (or that of the weights' cfg),
                    YOLO_FRAMEWORK (or that of the weights, if they are given)
    precision       YOLO_PRECISION, of the framework "tf" only
    resize          YOLO_RESIZE
    score_threshold, iou_threshold, class_agnostic    of suppression: YOLO_SCORE_THRESHOLD and its like
    features        whether the detector also gives embeddings: YOLO_FEATURES
    Raises UserError.

    >>> yolo = Load_Yolo_model("checkpoints/yolov3-tiny-openvino-INT8-416", score_threshold=0.5)
    """
    options = RunOptions(
        choose("YOLO_PRECISION", _configured(precision, "YOLO_PRECISION"), PRECISIONS),
        choose("YOLO_OPENVINO_HINT", configs.YOLO_OPENVINO_HINT, HINTS),
        check_count("YOLO_OPENVINO_THREADS", configs.YOLO_OPENVINO_THREADS, 0),
        check_count("YOLO_TFLITE_THREADS", configs.YOLO_TFLITE_THREADS, 0),
        check_count("YOLO_ONNX_THREADS", configs.YOLO_ONNX_THREADS, 0),
        configured_providers(),
    )
    score_threshold = check_threshold("YOLO_SCORE_THRESHOLD", _configured(score_threshold, "YOLO_SCORE_THRESHOLD"))
    iou_threshold = check_threshold("YOLO_IOU_THRESHOLD", _configured(iou_threshold, "YOLO_IOU_THRESHOLD"))
    class_agnostic = choose("YOLO_CLASS_AGNOSTIC", _configured(class_agnostic, "YOLO_CLASS_AGNOSTIC"), (True, False))
    spec, source = configured_model(weights, CLASSES, input_size, yolo_type, tiny, resize, framework, features)
    if spec.framework == "tf":
        spec = replace(spec, precision=options.precision)

    allow_memory_growth()
    network = RUNTIMES[spec.framework].module.load(spec, source, options)
    answered = network(tf.zeros((1, *spec.input_size, 3)))["predictions"].shape[-1] - 4
    if answered != len(spec.classes):
        raise UserError(f"{source} answers {answered} classes, but its model.json names {len(spec.classes)}")
    spec = replace(spec, features=spec.features and features is not False)  # a folder may answer more than is asked for
    detector = Detector(network, spec, score_threshold, iou_threshold, source.name, class_agnostic)
    detector([np.zeros((*spec.input_size, 3), np.uint8)])  # compiled here, not at the first frame
    detector.timings = Timings()
    return detector


def configured_providers() -> tuple[str, ...]:
    """Return YOLO_ONNX_PROVIDERS. Raises UserError if it is wrong."""
    providers = configs.YOLO_ONNX_PROVIDERS
    if not isinstance(providers, (tuple, list)):
        raise UserError(f"YOLO_ONNX_PROVIDERS = {providers!r} must be names in brackets: ({PROVIDERS[-1]!r},)")
    return tuple(choose("YOLO_ONNX_PROVIDERS", provider, PROVIDERS) for provider in providers)


def custom_weights():
    """Return the weights that scripts for a model of one's own take: YOLO_CUSTOM_WEIGHTS; while that is None or what we
    ship, the trained ones, checkpoints/{TRAIN_MODEL_NAME}, or else what we ship."""
    if configs.YOLO_CUSTOM_WEIGHTS not in (None, "", SHIPPED):
        return configs.YOLO_CUSTOM_WEIGHTS
    try:
        return find(configs.TRAIN_MODEL_NAME, configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
    except UserError:
        return SHIPPED


def _configured(value, constant):
    return getattr(configs, constant) if value is None else value


def configured_model(
    weights=None,
    classes=None,
    input_size=None,
    yolo_type=None,
    tiny=None,
    resize=None,
    framework=None,
    features=None,
):
    """Return the ModelSpec that the arguments of `Load_Yolo_model` mean and the Path of its weights or folder, without
    loading them."""
    if framework is not None or not weights:
        framework = choose("YOLO_FRAMEWORK", _configured(framework, "YOLO_FRAMEWORK"), RUNTIMES)
    network = configured_network()
    if not (yolo_type is None and tiny is None):
        names = _configured(yolo_type, "YOLO_TYPE"), _configured(tiny, "TRAIN_YOLO_TINY")
        network = NETWORKS[network_name(*names)]
    resize = choose("YOLO_RESIZE", _configured(resize, "YOLO_RESIZE"), RESIZES)
    wanted = choose("YOLO_FEATURES", _configured(features, "YOLO_FEATURES"), (True, False))
    custom = weights or configs.YOLO_CUSTOM_WEIGHTS
    weights = default_weights(network)
    if custom:
        weights = find(custom, _configured(tiny, "TRAIN_YOLO_TINY"), configs.TRAIN_CHECKPOINTS_FOLDER)
    elif weights.is_dir():
        raise UserError(f"{network.weights} = {str(weights)!r} is a folder: name a Darknet .weights file")
    elif network.cfg and weights.exists() and weights.stat().st_size - 4 * network.cfg.parameters not in HEADERS:
        there = f"put its weights beside it as {network.cfg.file.with_suffix('.weights').name}"
        raise UserError(f"{weights} does not fit {network.cfg.file}: {there}, or name them in YOLO_CUSTOM_WEIGHTS")

    if not weights.is_dir():
        _check_framework(f"{weights} is a file of weights, which", "tf", framework)
        network, classes_constant = _kind(weights, network)
        classes = class_names(_configured(classes, classes_constant))
        if network.cfg and network.cfg.classes != len(classes):
            named = f"{network.cfg.classes} classes, but {len(classes)} are named: name a file in {classes_constant}"
            raise UserError(f"{network.cfg.file} has {named}")
        heads, size = heads_of_file(weights, network, input_size)
        size = check_input_size(_configured(size, "YOLO_INPUT_SIZE"), multiple=network.multiple)
        spec = ModelSpec(network.type, network.tiny, classes, size, resize, heads, features=wanted, cfg=network.text)
        return spec, weights

    made = read_model(weights)
    _check_framework(weights, made.framework, framework)
    size = check_input_size(_configured(input_size, "YOLO_INPUT_SIZE"), multiple=made.network.multiple)
    if made.input_size != size and not is_weights(weights):
        raise UserError(
            f"{weights} takes {' x '.join(map(str, made.input_size))} pixels, but YOLO_INPUT_SIZE or TEST_INPUT_SIZE "
            f"in yolov3/configs.py is {_configured(input_size, 'YOLO_INPUT_SIZE')}: change it, or convert for that "
            f"size: python {RUNTIMES[made.framework].converter}"
        )
    if is_weights(weights):
        return replace(made, input_size=size, resize=resize, features=wanted), weights
    check_fixed(resize, f"{weights} takes {made.input_size[0]} x {made.input_size[1]} pixels")
    if features and not made.features:
        steps = " && ".join(
            f"python {step}" for step in dict.fromkeys((RUNTIMES["tf"].converter, RUNTIMES[made.framework].converter))
        )
        raise UserError(
            f'{weights} answers no features, which TRACKER_EMBEDDER = "detector" needs: set it to "none" in '
            "yolov3/configs.py; or set YOLO_FEATURES = True, name in YOLO_CUSTOM_WEIGHTS what the folder was made from "
            f"({read_about(weights).get('made_from')}) and convert again: {steps}"
        )
    return replace(made, resize=resize), weights


def _kind(weights, network):
    """Return the network of a .weights file, the given one unless its cfg or its place tells, and the constant that
    names its classes."""
    of_place = [row for row in NETWORKS.values() if weights == project_path(getattr(configs, row.weights))]
    of_place.sort(key=lambda row: row is not network)  # of several
    network = network_of_file(weights, of_place[0] if of_place else network)
    if of_place:
        return network, "YOLO_COCO_CLASSES"
    if network.cfg:
        count, has_cocos = network.cfg.classes, network.cfg.classes == len(class_names(configs.YOLO_COCO_CLASSES))
    else:
        count, has_cocos = 80, weights.stat().st_size == network.official.size
    is_darknets = has_cocos and len(class_names(configs.TRAIN_CLASSES)) != count
    return network, "YOLO_COCO_CLASSES" if is_darknets else "TRAIN_CLASSES"


def _check_framework(weights, theirs, ours):
    """Raise UserError if weights need another framework than ours; None means that any will do."""
    choose(f"the framework of {weights}", theirs, RUNTIMES)
    if ours not in (None, theirs):
        raise UserError(
            f'{weights} runs by YOLO_FRAMEWORK = "{theirs}", but it is "{ours}" in yolov3/configs.py: change it, or '
            f"name in YOLO_CUSTOM_WEIGHTS a folder that {RUNTIMES[ours].converter} has written"
        )
