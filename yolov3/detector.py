"""The one detector: pictures in, boxes out, whatever the framework. Image, video, tracker, evaluation and batch
scripts all call it and nothing else.

    frames -> fit (images) -> network -> suppress (boxes) -> unfit (images), pool (appearance) -> Detections

Only the network differs between frameworks (`frameworks.FRAMEWORKS`); all else is here, once.
"""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from yolov3 import configs
from yolov3.appearance import pool
from yolov3.checkpoint import Model, find, is_weights, read_about, read_model
from yolov3.frameworks import CONVERTERS, FRAMEWORKS, Runtime, allow_memory_growth
from yolov3.heads import heads_of_file
from yolov3.images import RESIZES, fit, refit
from yolov3.savedmodel import finish
from yolov3.settings import (
    UserError,
    architecture,
    check_count,
    check_input_size,
    check_threshold,
    choose,
    class_names,
    project_path,
)

PRECISIONS = ("FP32", "BF16")
HINTS = ("LATENCY", "THROUGHPUT")
SHIPPED = "model_data/yolov4-tiny-digits"  # the model of our own, which needs no download
DARKNET_WEIGHTS = {  # the constant that names each network's weights
    "yolov3": "YOLO_V3_WEIGHTS",
    "yolov3-tiny": "YOLO_V3_TINY_WEIGHTS",
    "yolov4": "YOLO_V4_WEIGHTS",
    "yolov4-tiny": "YOLO_V4_TINY_WEIGHTS",
}


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first."""

    boxes: np.ndarray  # float32 (n, 4): x1, y1, x2, y2 in pixels of the picture, clipped to it
    scores: np.ndarray  # float32 (n,), 0..1
    classes: np.ndarray  # int32 (n,), indices into names
    names: tuple  # of str: the names of all classes of the model
    features: np.ndarray = None  # float32 (n, C): what each box looks like, of a model with features; else None

    def __len__(self):
        return len(self.scores)

    @property
    def labels(self):
        """The class name of each box."""
        return [self.names[i] for i in self.classes]

    def only(self, wanted):
        """The detections of some classes, given by name; None means all."""
        if wanted is None:
            return self
        rows = np.isin(self.classes, [self.names.index(name) for name in wanted])
        features = None if self.features is None else self.features[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.classes[rows], self.names, features)


class Detector:
    """detector(frames) -> one Detections per frame. Made by `Load_Yolo_model`."""

    def __init__(self, network, model, score_threshold, iou_threshold):
        self.model = model
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.network = network  # see frameworks

        def fit_frame(frame):
            return fit(frame, model.input_size, model.resize)[tf.newaxis]

        def finish_batch(predictions, sizes, score_threshold, iou_threshold):
            return finish(predictions, sizes, score_threshold, iou_threshold, model)

        @tf.function(autograph=False, reduce_retracing=True)
        def look(features, boxes, sizes, pictures):  # boxes (n, 4) in pixels of `pictures` (n,), rows of sizes
            boxes = refit(boxes[:, tf.newaxis], tf.gather(sizes, pictures), model.input_size, model.resize)
            return pool(features, boxes[:, 0], pictures)

        threshold = tf.TensorSpec((), tf.float32)
        predictions = tf.TensorSpec((None, None, 4 + len(model.classes)), tf.float32)
        self._fit_frame = _small_steps(fit_frame, tf.TensorSpec((None, None, 3), tf.uint8))
        self._finish = _small_steps(finish_batch, predictions, tf.TensorSpec((None, 2), tf.int32), threshold, threshold)
        self._look = look

    @property
    def names(self):
        return self.model.classes

    def fit(self, frames):
        """Frames, uint8 (H, W, 3), RGB, of any sizes -> network inputs, float32 (N, S, S, 3)."""
        for frame in frames:
            is_picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
            if not (is_picture and frame.shape[2] == 3 and frame.size):
                raise UserError("the detector takes a list of frames, each a NumPy uint8 (H, W, 3) in RGB")
        fitted = [self._fit_frame(tf.constant(frame)) for frame in frames]
        return fitted[0] if len(fitted) == 1 else tf.concat(fitted, 0)

    def embed(self, frame, boxes):
        """What any boxes (n, 4), xyxy in pixels, of a frame look like -> float32 (n, C): an embedder, see `appearance`.
        Raises UserError if the model has no features."""
        if not self.model.features:
            raise UserError("this detector has no features: Load_Yolo_model(features=True) makes one that has")
        features = self.network(self.fit([frame]))["features"]
        boxes, size = tf.constant(boxes, tf.float32), tf.constant([frame.shape[:2]])
        return self._look(features, boxes, size, tf.zeros(len(boxes), tf.int32)).numpy()

    def __call__(self, frames, score_threshold=None, iou_threshold=None):
        """A list of frames, uint8 (H, W, 3), RGB, of any sizes -> a list of Detections, at most 100 boxes each.

        None means the thresholds the detector was made with. Suppression is per class.
        """
        if not len(frames):
            return []
        thresholds = (
            check_threshold("score_threshold", self.score_threshold if score_threshold is None else score_threshold),
            check_threshold("iou_threshold", self.iou_threshold if iou_threshold is None else iou_threshold),
        )
        outputs = self.network(self.fit(frames))
        sizes = tf.constant([frame.shape[:2] for frame in frames])
        found = self._finish(outputs["predictions"], sizes, *(tf.constant(x) for x in thresholds))
        boxes, scores, classes, valid = (x.numpy() for x in found)
        features = [None] * len(frames)
        if self.model.features:
            features = self._features(outputs["features"], boxes, sizes, valid)
        return [
            Detections(boxes[:n], scores[:n], classes[:n], self.names, features)
            for boxes, scores, classes, n, features in zip(boxes, scores, classes, valid, features, strict=True)
        ]

    def _features(self, maps, boxes, sizes, valid):
        """Those of the first `valid` (N,) of boxes (N, 100, 4) in each picture -> N of (n, C)."""
        pictures = np.repeat(np.arange(len(valid), dtype=np.int32), valid)
        shown = np.concatenate([rows[:n] for rows, n in zip(boxes, valid, strict=True)])
        pooled = self._look(maps, tf.constant(shown), sizes, tf.constant(pictures)).numpy()
        return np.split(pooled, np.cumsum(valid)[:-1])


def _small_steps(function, *specs):
    """A function of tensors as a graph, traced once, for all sizes that the specs allow. One thread goes from step to
    step: to have another take over costs more than a step. Beside other devices than CPUs, TensorFlow decides."""
    graph = tf.function(function, autograph=False).get_concrete_function(*specs)
    types = [output.dtype for output in graph.outputs]
    only_cpus = all(device.device_type == "CPU" for device in tf.config.list_physical_devices())
    executor = "SINGLE_THREADED_EXECUTOR" if only_cpus else ""

    def run(*tensors):
        arguments = [*tensors, *graph.captured_inputs]
        outputs = tf.raw_ops.PartitionedCall(args=arguments, Tout=types, f=graph, executor_type=executor)
        return tf.nest.pack_sequence_as(graph.structured_outputs, outputs)

    return run


def Load_Yolo_model(
    weights=None,
    CLASSES=None,
    input_size=None,
    yolo_type=None,
    tiny=None,
    framework=None,
    precision=None,
    resize=None,
    score_threshold=None,
    iou_threshold=None,
    features=None,
):
    """The configured model as a `Detector`, ready for its first frame.

    Every argument left out means what configs.py says now: weights (YOLO_CUSTOM_WEIGHTS, or else the Darknet weights
    of the type, downloaded if they are missing), CLASSES (a names file or names; a checkpoint brings its own),
    input_size (that of its cfg, if a .weights file has one) and resize (a checkpoint of weights runs at any),
    yolo_type, tiny, framework (that of the folder, if weights are given), precision (of "tf"), the two thresholds, and
    features (YOLO_FEATURES; a conversion has them or has not, and True refuses one without). Raises UserError.
    """
    runtime = Runtime(
        choose("YOLO_PRECISION", _configured(precision, "YOLO_PRECISION"), PRECISIONS),
        choose("YOLO_OPENVINO_HINT", configs.YOLO_OPENVINO_HINT, HINTS),
        check_count("YOLO_OPENVINO_THREADS", configs.YOLO_OPENVINO_THREADS, 0),
    )
    score_threshold = check_threshold("YOLO_SCORE_THRESHOLD", _configured(score_threshold, "YOLO_SCORE_THRESHOLD"))
    iou_threshold = check_threshold("YOLO_IOU_THRESHOLD", _configured(iou_threshold, "YOLO_IOU_THRESHOLD"))
    model, weights = configured_model(weights, CLASSES, input_size, yolo_type, tiny, resize, framework, features)
    if model.framework == "tf":
        model = replace(model, precision=runtime.precision)

    allow_memory_growth()
    network = FRAMEWORKS[model.framework](model, weights, runtime)
    answered = network(tf.zeros((1, model.input_size, model.input_size, 3)))["predictions"].shape[-1] - 4
    if answered != len(model.classes):
        raise UserError(f"{weights} answers {answered} classes, but its model.json names {len(model.classes)}")
    detector = Detector(network, model, score_threshold, iou_threshold)
    detector([np.zeros((model.input_size, model.input_size, 3), np.uint8)])  # compiled here, not at the first frame
    return detector


def custom_weights():
    """Which model scripts for a model of one's own take: YOLO_CUSTOM_WEIGHTS, unless that is what we ship; then the
    trained one, checkpoints/{TRAIN_MODEL_NAME}, goes before it."""
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
    """(Model, Path of its weights or folder) from the arguments of `Load_Yolo_model`, nothing loaded yet."""
    if framework is not None or not weights:
        framework = choose("YOLO_FRAMEWORK", _configured(framework, "YOLO_FRAMEWORK"), FRAMEWORKS)
    yolo_type, tiny = _configured(yolo_type, "YOLO_TYPE"), _configured(tiny, "TRAIN_YOLO_TINY")
    name = architecture(yolo_type, tiny)
    size = check_input_size(_configured(input_size, "YOLO_INPUT_SIZE"))
    resize = choose("YOLO_RESIZE", _configured(resize, "YOLO_RESIZE"), RESIZES)
    wanted = choose("YOLO_FEATURES", _configured(features, "YOLO_FEATURES"), (True, False))
    weights = weights or configs.YOLO_CUSTOM_WEIGHTS
    classes_constant = "TRAIN_CLASSES"
    if weights:
        weights = find(weights, tiny, configs.TRAIN_CHECKPOINTS_FOLDER)
    else:
        weights, classes_constant = project_path(getattr(configs, DARKNET_WEIGHTS[name])), "YOLO_COCO_CLASSES"
        if weights.is_dir():
            raise UserError(f"{DARKNET_WEIGHTS[name]} = {str(weights)!r} is a folder: name a Darknet .weights file")

    if not weights.is_dir():
        _check_framework(f"{weights} is a file of weights, which", "tf", framework)
        classes = class_names(_configured(classes, classes_constant))
        heads, cfg_size = heads_of_file(weights, name, len(classes), classes_constant, input_size)
        return Model(yolo_type, tiny, classes, cfg_size or size, resize, heads, features=wanted), weights

    made = read_model(weights)
    if made.name != name:
        raise UserError(
            f"{weights} is {made.name}, but YOLO_TYPE and TRAIN_YOLO_TINY in yolov3/configs.py say {name}: change "
            "them, or set YOLO_CUSTOM_WEIGHTS = None for Darknet's weights"
        )
    _check_framework(weights, made.framework, framework)
    if made.input_size != size and not is_weights(weights):
        raise UserError(
            f"{weights} takes {made.input_size} x {made.input_size} pixels, but YOLO_INPUT_SIZE or TEST_INPUT_SIZE in "
            f"yolov3/configs.py is {size}: change it, or convert for that size: python {CONVERTERS[made.framework]}"
        )
    if is_weights(weights):
        return replace(made, input_size=size, resize=resize, features=wanted), weights
    if features and not made.features:
        steps = " && ".join(f"python {step}" for step in dict.fromkeys((CONVERTERS["tf"], CONVERTERS[made.framework])))
        raise UserError(
            f'{weights} answers no features, which TRACKER_EMBEDDER = "detector" needs: set it to "none" in '
            "yolov3/configs.py; or set YOLO_FEATURES = True, name in YOLO_CUSTOM_WEIGHTS what the folder was made from "
            f"({read_about(weights).get('made_from')}) and convert again: {steps}"
        )
    return replace(made, resize=resize), weights


def _check_framework(weights, theirs, ours):
    """Refuses what another framework than ours, if we have one in mind, is to run."""
    choose(f"the framework of {weights}", theirs, FRAMEWORKS)
    if ours not in (None, theirs):
        raise UserError(
            f'{weights} runs by YOLO_FRAMEWORK = "{theirs}", but it is "{ours}" in yolov3/configs.py: change it, or '
            f"name in YOLO_CUSTOM_WEIGHTS a folder that {CONVERTERS[ours]} has written"
        )
