"""Provide what the runtimes share: the check of what they have written, and what its model.json says of its origin."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolov3.boxes import decode
from yolov3.checkpoint import ModelSpec, is_weights, read_about
from yolov3.checks import PROJECT, UserError, choose
from yolov3.fitting import fit
from yolov3.images import read_picture
from yolov3.runtimes import RUNTIMES
from yolov3.sizes import size_name

import numpy as np
import tensorflow as tf

PICTURE = "IMAGES/digits/00000.jpg"  # the picture that conversions are tried on
BAKED = ("score_threshold", "iou_threshold", "max_pixels", "class_agnostic")
FAR_OFF = 0.1  # mean difference of boxes, in fractions of the input, that rounding cannot explain in any precision
_TARGETS = "|".join(f"-{name}{'-[A-Z0-9]+' if row.modes else ''}" for name, row in RUNTIMES.items() if name != "tf")
CONVERSION = re.compile(rf"({_TARGETS})?-\d+(x\d+)?$")  # what folder_name appends
TOLERANCE = 1e-3  # largest difference of boxes, in fractions of the input, and of scores, between two float32 networks


def sample_images(spec: ModelSpec) -> tf.Tensor:
    """Return the picture that conversions are tried on as network input, float32 (1, h, w, 3)."""
    return fit(read_picture(PICTURE, max_pixels=10**6), spec.input_size, spec.resize)[tf.newaxis]


def check_same(
    answers: tf.Tensor | np.ndarray, expected: tf.Tensor | np.ndarray, folder: Path, tolerance: float = TOLERANCE
) -> float:
    """Return the largest difference of predictions from those expected. Raise UserError if they are not the same."""
    answers, expected = np.asarray(answers), np.asarray(expected)
    if answers.shape != expected.shape:
        raise UserError(f"{folder} gives predictions of shape {answers.shape}, not {expected.shape}: it is not written")
    if not np.isfinite(answers).all():
        raise UserError(f"{folder} gives predictions that are not finite: it is not written")
    off = np.abs(answers - expected) / (1 + np.abs(expected))
    if off.max() > tolerance or off[..., :4].mean() > FAR_OFF:
        raise UserError(f"{folder} is {off.max():.2g} off the predictions expected for {PICTURE}: it is not written")
    return off.max()


def decoder(spec: ModelSpec) -> Callable[[list], tf.Tensor]:
    """Return a function that decodes a list of raw heads to predictions, float32 (N, boxes, 4 + C)."""
    channels = [len(anchors) * (5 + len(spec.classes)) for anchors in spec.heads.anchors]
    cells = [[side // stride for side in spec.input_size] for stride in spec.heads.strides]
    signature = [tf.TensorSpec((None, *sides, count)) for sides, count in zip(cells, channels, strict=True)]
    return tf.function(lambda raw_heads: decode(raw_heads, spec.heads), [signature], autograph=False)


def made_from(source: Path) -> str:
    """Return what model.json says of a conversion of a SavedModel folder."""
    return f"{in_project(source)}, made from {read_about(source).get('made_from')}"


def baked(source: Path) -> dict[str, Any]:
    """Return what detect_bytes of a SavedModel folder was made with: the named arguments of `savedmodel.save`."""
    about = {"class_agnostic": False, **read_about(source)}  # folders of older versions do not say
    choose(f"class_agnostic in {source}/model.json", about["class_agnostic"], (True, False))
    try:
        return {name: about[name] for name in BAKED}
    except KeyError as name:
        raise UserError(f"{source}/model.json has no {name}: python tools/Convert_to_pb.py writes it anew") from None


def in_project(path: Path) -> str:
    """Return a path as configs.py would name it."""
    path = path.resolve()
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def cpu_info() -> dict[str, str]:
    """Return what Linux says of the first CPU, by name ("model name", "flags" ...). It is empty on other systems."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().partition("\n\n")[0].splitlines() if cpu.exists() else ()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def cpu_flags() -> set[str]:
    """Return the instruction sets of the CPU as Linux names them. The set is empty on other systems."""
    info = cpu_info()
    return set(info.get("flags", info.get("Features", "")).split())  # x86 and ARM name them differently


def name_of(weights: Path, spec: ModelSpec) -> str:
    """Return the name with which the folders of a model's conversions begin.

    It is the name of the folder that the model was trained into or, for a .weights file, of the network. A conversion
    passes on the name that its own folder begins with.
    """
    if not weights.is_dir():
        return spec.name
    return weights.name if is_weights(weights) else CONVERSION.sub("", weights.name)


def folder_name(spec: ModelSpec, name: str | None = None) -> str:
    """Return the name of a conversion: yolov4-tiny-416, yolov4-tiny-trt-INT8-416, yolov4-tiny-neuron-256x416.

    name  what `name_of` says, in place of that of the network
    """
    target = () if spec.framework == "tf" else (spec.framework,)
    mode = (spec.precision,) if RUNTIMES[spec.framework].modes else ()
    return "-".join((name or spec.name, *target, *mode, size_name(spec.input_size)))


def folder_size(folder: Path) -> float:
    """Return the size of all files in a folder in MB. A file that has several names in it counts once."""
    found = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum({(file.st_dev, file.st_ino): file.st_size for file in found}.values()) / 1e6
