"""Choose the models that tools/benchmarks/speed.py measures, and what their INT8 is calibrated on."""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from yolov3 import configs
from yolov3.calibration import CalibrationInputs, choose_pictures
from yolov3.checkpoint import ModelSpec, find, is_weights, read_model
from yolov3.checks import UserError, as_given, check_input_size, class_names, project_path
from yolov3.fitting import fit
from yolov3.heads import configured_network, default_weights
from yolov3.loading import configured_model
from yolov3.networks import NETWORKS

import numpy as np


class Calibration(NamedTuple):
    """Hold what INT8 is calibrated on."""

    source: str  # as the report names it
    paths: tuple  # of pictures; if it is empty, the frame itself is taken
    count: int  # of pictures, and of inputs of noise if INT8 is calibrated on noise, too


@dataclass(frozen=True, eq=False)
class Material:
    """Hold a model at one size and all that its conversions need."""

    spec: ModelSpec  # of "tf", in FP32
    weights: Path | None  # a .weights file or a checkpoint folder of weights; None for random weights
    calibration: Calibration | str  # a str says why it is missing
    cfg_folder: Path  # with Darknet's cfg files, for OpenCV; it may be missing
    frame: np.ndarray  # uint8 (H, W, 3), RGB

    def __str__(self) -> str:
        pictures = "no INT8" if isinstance(self.calibration, str) else f"INT8 calibrated on {self.calibration.source}"
        return f"{self.spec.name}: {self.weights or 'random weights'}, {pictures}"

    def calibration_inputs(self, on_noise: bool) -> Iterable[np.ndarray]:
        """Return network inputs, float32 (1, h, w, 3), that can be iterated over several times."""
        size, resize = self.spec.input_size, self.spec.resize
        if on_noise:
            return Noise(size, self.calibration.count)
        if not self.calibration.paths:
            return [fit(self.frame, size, resize).numpy()[np.newaxis]]
        return CalibrationInputs(self.calibration.paths, size, resize, configs.YOLO_MAX_PIXELS)


class Noise:
    """Iterate over network inputs of uniform noise, the same each time."""

    def __init__(self, size: tuple[int, int], count: int):
        self.size, self.count = size, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        numbers = np.random.default_rng(0)
        for _ in range(self.count):
            yield numbers.random((1, *self.size, 3), np.float32)


def choose_materials(arguments: argparse.Namespace, frame: np.ndarray, with_int8: bool) -> list[Material]:
    """Return a Material for each type and size that the command line asks for. Raises UserError."""
    types = arguments.types or [configured_network().name]
    weights = arguments.weights or (None if arguments.types or arguments.random else configs.YOLO_CUSTOM_WEIGHTS)
    if weights:
        weights = find(as_given(weights), configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
        if weights.is_dir():
            name = read_model(weights).name
            if arguments.types not in (None, [name]):
                raise UserError(f"{weights} is {name}: leave out --types")
            types = [name]
            if not is_weights(weights):
                raise UserError(f"{weights} is a conversion: give what it was made from as --weights")
    materials, calibrations = [], {}
    for name, size in itertools.product(types, arguments.sizes or [configs.YOLO_INPUT_SIZE]):
        model, found = choose_model(name, check_input_size(size), weights, arguments)
        if found is None and arguments.annotations:
            raise UserError("--annotations needs trained weights, which are missing: give them as --weights")
        if found not in calibrations:
            calibrations[found] = choose_calibration(arguments, found) if with_int8 else "INT8 is not asked for"
        materials.append(Material(model, found, calibrations[found], arguments.cfg.absolute(), frame))
    return materials


def choose_model(
    name: str, size: tuple[int, int], weights: Path | None, arguments: argparse.Namespace
) -> tuple[ModelSpec, Path | None]:
    """Return the ModelSpec of a network and the path of its weights, None for random weights."""
    row = NETWORKS.get(name) or configured_network()
    kind = {"input_size": size, **({"yolo_type": row.type, "tiny": row.tiny} if name in NETWORKS else {})}
    if weights:
        return configured_model(weights, arguments.classes and as_given(arguments.classes), **kind)
    classes, weights = arguments.classes or configs.YOLO_COCO_CLASSES, default_weights(row)
    if project_path(weights).exists() and not arguments.random:
        return configured_model(weights, classes, **kind)
    if not arguments.random:
        print(f"{weights} is missing: random weights are used instead")
    return ModelSpec(row.type, row.tiny, class_names(classes), size, configs.YOLO_RESIZE, row.heads, cfg=row.text), None


def choose_calibration(arguments: argparse.Namespace, weights: Path | None) -> Calibration | str:
    """Return the Calibration or, as a str, why it is missing. Raises UserError if the command line asked for it."""
    count = arguments.calibration_count or configs.YOLO_CALIBRATION_COUNT
    if weights is None and not arguments.calibration:
        return Calibration("the frame alone", (), count)
    source = as_given(arguments.calibration or configs.YOLO_CALIBRATION_IMAGES or configs.TRAIN_ANNOT_PATH)
    try:
        pictures = choose_pictures(source, count, configs.YOLO_MAX_PIXELS)
    except UserError as error:
        if arguments.calibration or arguments.calibration_count:
            raise
        return error.problem
    return Calibration(f"{len(pictures)} pictures of {source}", tuple(pictures), count)
