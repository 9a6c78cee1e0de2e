"""Which models tools/benchmarks/speed.py measures, and what their INT8 is calibrated on."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from yolov3 import configs
from yolov3.calibration import CalibrationInputs, choose_pictures
from yolov3.checkpoint import ModelSpec, find, is_weights, read_model
from yolov3.checks import UserError, as_given, check_input_size, class_names, project_path
from yolov3.images import fit
from yolov3.loading import configured_model
from yolov3.networks import NETWORKS, network_name

import numpy as np


class Calibration(NamedTuple):
    source: str
    paths: tuple  # of pictures; none: the frame itself
    count: int  # of noise too, where that is asked for


@dataclass(frozen=True, eq=False)
class Material:
    """A model at one size, and all that its conversions take."""

    spec: ModelSpec  # of "tf", in FP32
    weights: Path  # a .weights file or a checkpoint folder of weights; None: random ones
    calibration: Calibration | str  # str: why there is none
    cfg_folder: Path  # Darknet's cfg files, for OpenCV; may be missing
    frame: np.ndarray  # uint8 (H, W, 3), RGB

    def __str__(self):
        pictures = "no INT8" if isinstance(self.calibration, str) else f"INT8 calibrated on {self.calibration.source}"
        return f"{self.spec.name}: {self.weights or 'random weights'}, {pictures}"

    def calibration_inputs(self, on_noise):
        """-> what can be iterated over, again and again: float32 (1, S, S, 3)."""
        size, resize = self.spec.input_size, self.spec.resize
        if on_noise:
            return Noise(size, self.calibration.count)
        if not self.calibration.paths:
            return [fit(self.frame, size, resize).numpy()[np.newaxis]]
        return CalibrationInputs(self.calibration.paths, size, resize, configs.YOLO_MAX_PIXELS)


class Noise:
    """Network inputs of uniform noise, the same each time."""

    def __init__(self, size, count):
        self.size, self.count = size, count

    def __len__(self):
        return self.count

    def __iter__(self):
        numbers = np.random.default_rng(0)
        for _ in range(self.count):
            yield numbers.random((1, self.size, self.size, 3), np.float32)


def choose_materials(arguments, frame, with_int8):
    """The command line -> a Material for each type and size."""
    types = arguments.types or [network_name(configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY)]
    weights = arguments.weights or (None if arguments.types or arguments.random else configs.YOLO_CUSTOM_WEIGHTS)
    if weights:
        weights = find(as_given(weights), configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
        if weights.is_dir():
            name = read_model(weights).name
            if arguments.types not in (None, [name]):
                raise UserError(f"{weights} is {name}: leave out --types")
            types = [name]
            if not is_weights(weights):
                raise UserError(f"{weights} is a conversion: name by --weights what it was made from")
    materials, calibrations = [], {}
    for name, size in itertools.product(types, arguments.sizes or [configs.YOLO_INPUT_SIZE]):
        model, found = choose_model(name, check_input_size(size), weights, arguments)
        if found is None and arguments.annotations:
            raise UserError("--annotations measures trained weights, and these are missing")
        if found not in calibrations:
            calibrations[found] = choose_calibration(arguments, found) if with_int8 else "no INT8 is asked for"
        materials.append(Material(model, found, calibrations[found], arguments.cfg.absolute(), frame))
    return materials


def choose_model(name, size, weights, arguments):
    """-> ModelSpec and Path of its weights; None: random ones."""
    row = NETWORKS[name]
    kind = {"input_size": size, "yolo_type": row.type, "tiny": row.tiny}
    if weights:
        return configured_model(weights, arguments.classes and as_given(arguments.classes), **kind)
    classes, weights = arguments.classes or configs.YOLO_COCO_CLASSES, getattr(configs, row.weights)
    if project_path(weights).exists() and not arguments.random:
        return configured_model(weights, classes, **kind)
    if not arguments.random:
        print(f"{weights} is missing: random weights in its place")
    return ModelSpec(row.type, row.tiny, class_names(classes), size, configs.YOLO_RESIZE, row.heads), None


def choose_calibration(arguments, weights):
    """-> Calibration or, str, why there is none."""
    count = arguments.calibration_count or configs.YOLO_CALIBRATION_COUNT
    if weights is None and not arguments.calibration:
        return Calibration("the frame alone", (), count)
    source = as_given(arguments.calibration or configs.YOLO_CALIBRATION_IMAGES or configs.TEST_ANNOT_PATH)
    try:
        pictures = choose_pictures(source, count, configs.YOLO_MAX_PIXELS)
    except UserError as error:
        if arguments.calibration or arguments.calibration_count:
            raise
        return error.problem
    return Calibration(f"{count} pictures of {source}", tuple(pictures), count)
