"""The detector: pictures in, boxes out, whatever the framework. Image, video, tracker, evaluation and batch scripts
all call it and nothing else.

    frames -> fit (fitting) -> network (runtimes) -> finish (boxes), pool (embedding) -> Detections

Runtimes differ in the network only. `loading.Load_Yolo_model` makes the detector that configs.py means.
"""

import difflib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from yolov3.boxes import finish
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError, check_threshold
from yolov3.embedding import pool
from yolov3.fitting import fit, refit

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first, or the tracks of one frame: a row for each box."""

    boxes: np.ndarray  # float32 (n, 4): x1, y1, x2, y2 in pixels of the picture; detections are clipped to it
    scores: np.ndarray  # float32 (n,), 0..1
    classes: np.ndarray  # int32 (n,), indices into names
    names: tuple  # of str: the names of all classes of the model
    embeddings: np.ndarray | None = None  # float32 (n, C): what tells objects apart; None of a model without features
    numbers: np.ndarray | None = None  # int32 (n,): identities of tracks, from 1, never used twice; None of detections
    trails: list | None = None  # of tracks: points (k, 2) of each where it stood lately, oldest first, in pixels
    counts: dict | None = None  # of tracks: class name -> how many objects were seen up to this frame

    def __len__(self):
        return len(self.scores)

    @property
    def labels(self) -> list[str]:
        """Return the class name of each box."""
        return [self.names[i] for i in self.classes]

    def only(self, wanted: Collection[str] | None) -> "Detections":
        """Return the detections of some classes, given by name; None means all."""
        if wanted is None:
            return self
        rows = np.isin(self.classes, [self.names.index(name) for name in wanted])
        changes: dict[str, Any] = {"trails": self.trails and [self.trails[i] for i in np.flatnonzero(rows)]}
        for name in ("boxes", "scores", "classes", "embeddings", "numbers"):
            column = getattr(self, name)
            changes[name] = None if column is None else column[rows]
        return replace(self, **changes)

    def seen(self) -> str:
        """Return the counts of tracks in words."""
        counts = ", ".join(f"{count} x {name}" for name, count in sorted((self.counts or {}).items()))
        return f"seen: {counts or 'nothing'}"


@dataclass
class Timings:
    """Where the time of a detector goes: seconds, of all its pictures together."""

    pictures: int = 0
    preparing: float = 0.0  # from frames to network inputs
    network: float = 0.0
    suppression: float = 0.0  # from predictions to boxes, and their embeddings

    def __str__(self):
        """a picture: 1.2 ms preparing, 30.4 ms network, 0.6 ms suppression"""
        per_picture = 1000 / max(self.pictures, 1)
        parts = (f"{getattr(self, x) * per_picture:.1f} ms {x}" for x in ("preparing", "network", "suppression"))
        return f"a picture: {', '.join(parts)}"


def check_wanted(wanted: Collection[str] | None, names: Sequence[str]) -> None:
    """Raise UserError if a class that is wanted is not one of `names`; it says which name is the nearest."""
    known = set(names)
    for name in wanted or ():
        if name not in known:
            near = difflib.get_close_matches(name, names, 1) or names[:1]
            raise UserError(f"class {name[:60]} is not known: is it {near[0]}? The model has {len(names)} classes")


class Detector:
    """Detect on frames: `detector(frames)` returns one Detections for each. `Load_Yolo_model` makes it.

    >>> yolo = Load_Yolo_model()
    >>> (found,) = yolo([frame])  # uint8 (H, W, 3), RGB
    """

    def __init__(
        self,
        network: Callable,
        spec: ModelSpec,
        score_threshold: float,
        iou_threshold: float,
        name: str | None = None,
        class_agnostic: bool = False,
    ):
        self._made_from = network, spec, score_threshold, iou_threshold, name
        self.spec = spec
        self.name = name or spec.name  # of the file or folder it comes from
        self.class_agnostic = class_agnostic
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.network = network  # see `runtimes`
        self.timings = Timings()
        self._timing = threading.Lock()
        self._on_gpu = bool(tf.config.list_physical_devices("GPU"))

        def fit_frame(frame):
            return fit(frame, spec.input_size, spec.resize, multiple=spec.network.multiple)[tf.newaxis]

        def finish_batch(predictions, sizes, score_threshold, iou_threshold):
            found = finish(predictions, sizes, score_threshold, iou_threshold, spec, class_agnostic)
            return *found, _are_finite(predictions)

        @tf.function(autograph=False, reduce_retracing=True)
        def pool_at(features, boxes, sizes, pictures):  # boxes (n, 4) in pixels of `pictures` (n,), rows of sizes
            fitted = tf.gather(sizes, pictures), spec.input_size, spec.resize, spec.network.multiple
            boxes = refit(boxes[:, tf.newaxis], *fitted)
            return pool(features, boxes[:, 0], pictures)

        threshold = tf.TensorSpec((), tf.float32)
        predictions = tf.TensorSpec((None, None, 4 + len(spec.classes)), tf.float32)
        self._fit_frame = _small_steps(fit_frame, tf.TensorSpec((None, None, 3), tf.uint8))
        self._finish = _small_steps(finish_batch, predictions, tf.TensorSpec((None, 2), tf.int32), threshold, threshold)
        self._pool_at = pool_at

    @property
    def names(self) -> tuple[str, ...]:
        return self.spec.classes

    def across_classes(self) -> "Detector":
        """Return a detector like this one whose suppression is class-agnostic."""
        return self if self.class_agnostic else Detector(*self._made_from, class_agnostic=True)

    def fit(self, frames: Sequence[np.ndarray]) -> tf.Tensor:
        """Return frames, uint8 (H, W, 3), RGB, of any sizes as network inputs, float32 (N, h, w, 3); with "rectangle",
        frames whose inputs have one size."""
        return _joined(self._fit_each(frames))

    def _fit_each(self, frames):
        """Return the network input, float32 (1, h, w, 3), of each frame."""
        for frame in frames:
            is_picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
            if not (is_picture and frame.shape[2] == 3 and frame.size):
                raise UserError("the detector takes a list of frames, each a NumPy uint8 (H, W, 3) in RGB")
        return [self._fit_frame(frame) for frame in frames]

    def embed(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return the embeddings, float32 (n, C), of any boxes (n, 4), xyxy in pixels, of a frame: an embedder, see
        `tracking.embedders`. Raises UserError if the model has no features."""
        if not self.spec.features:
            raise UserError("this detector has no features: Load_Yolo_model(features=True) makes one that has")
        features = self.network(self.fit([frame]))["features"]
        boxes, size = tf.constant(boxes, tf.float32), tf.constant([frame.shape[:2]])
        return self._pool_at(features, boxes, size, tf.zeros(len(boxes), tf.int32)).numpy()

    def __call__(
        self, frames: Sequence[np.ndarray], score_threshold: float | None = None, iou_threshold: float | None = None
    ) -> list[Detections]:
        """Return one Detections, at most 100 boxes, for each of a list of frames, uint8 (H, W, 3), RGB, of any sizes.

        A threshold that is None is the one the detector was made with. Boxes are suppressed per class, unless the
        detector is class-agnostic. Raises UserError if the outputs of the network are not finite: such a frame would
        look like one without objects.
        """
        if not len(frames):
            return []
        thresholds = (
            check_threshold("score_threshold", self.score_threshold if score_threshold is None else score_threshold),
            check_threshold("iou_threshold", self.iou_threshold if iou_threshold is None else iou_threshold),
        )
        started = time.perf_counter()
        fitted = self._fit_each(frames)
        batches: dict[tuple, list[int]] = {}
        for i, images in enumerate(fitted):
            batches.setdefault(tuple(images.shape), []).append(i)  # inputs of one size
        self._count(len(frames), time.perf_counter() - started, 0.0, 0.0)
        found: dict[int, Detections] = {}
        for rows in batches.values():
            sizes = np.array([frames[i].shape[:2] for i in rows], np.int32)
            found.update(zip(rows, self._detect(_joined([fitted[i] for i in rows]), sizes, thresholds), strict=True))
        return [found[i] for i in range(len(frames))]

    def _detect(self, images, sizes, thresholds):
        """Return the Detections of network inputs (N, h, w, 3), of pictures of `sizes` (N, 2)."""
        started = time.perf_counter()
        outputs = self.network(images)
        if self._on_gpu:  # which goes on by itself
            tf.test.experimental.sync_devices()
        answered = time.perf_counter()
        found = self._finish(outputs["predictions"], sizes, *thresholds)
        boxes, scores, classes, valid, finite = (x.numpy() for x in found)
        if not finite:
            raise UserError(f"the network of {self.name} gives outputs that are not finite: its weights are damaged")
        embeddings = [None] * len(valid)
        if self.spec.features:
            embeddings = self._embeddings(outputs["features"], boxes, sizes, valid)
        self._count(0, 0.0, answered - started, time.perf_counter() - answered)
        return [
            Detections(boxes[:n], scores[:n], classes[:n], self.names, embeddings)
            for boxes, scores, classes, n, embeddings in zip(boxes, scores, classes, valid, embeddings, strict=True)
        ]

    def _count(self, pictures, preparing, network, suppression):
        with self._timing:
            self.timings.pictures += pictures
            self.timings.preparing += preparing
            self.timings.network += network
            self.timings.suppression += suppression

    def _embeddings(self, maps, boxes, sizes, valid):
        """Return the embeddings (n, C) of each picture: those of its first `valid` (N,) boxes (N, 100, 4)."""
        pictures = np.repeat(np.arange(len(valid), dtype=np.int32), valid)
        shown = np.concatenate([rows[:n] for rows, n in zip(boxes, valid, strict=True)])
        pooled = self._pool_at(maps, tf.constant(shown), sizes, tf.constant(pictures)).numpy()
        return np.split(pooled, np.cumsum(valid)[:-1])


def _joined(images):
    """Return network inputs (1, h, w, 3) of one size as a batch."""
    return images[0] if len(images) == 1 else tf.concat(images, 0)


def _are_finite(predictions):
    """Return whether predictions (N, boxes, 4 + classes) are all finite: their sum is not, if one of them is not."""
    return tf.reduce_all(tf.math.is_finite(tf.reduce_sum(predictions, (0, 1))))


def _small_steps(function, *specs):
    """Return a function of tensors as a graph, traced once for all sizes that the specs allow, which one thread runs.

    Handing small steps from thread to thread costs more than the steps: on 2 cores, fitting a 720p frame takes 0.9 ms
    instead of 1.2, suppression of YOLOv3-tiny's boxes 0.4 ms instead of 0.8 (against `tf.function`, in one run).
    Where there are devices other than CPUs, TensorFlow decides. It takes arrays and numbers as well: `tf.constant`
    would copy a frame twice, and the frame is copied once at most here.
    """
    graph = tf.function(function, autograph=False).get_concrete_function(*specs)
    types = [output.dtype for output in graph.outputs]
    only_cpus = all(device.device_type == "CPU" for device in tf.config.list_physical_devices())
    executor = "SINGLE_THREADED_EXECUTOR" if only_cpus else ""

    def run(*tensors):
        arguments = [*tensors, *graph.captured_inputs]
        outputs = tf.raw_ops.PartitionedCall(args=arguments, Tout=types, f=graph, executor_type=executor)
        return tf.nest.pack_sequence_as(graph.structured_outputs, outputs)

    return run
