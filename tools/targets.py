"""What the converters share: the SavedModel to begin with, and whether what came out answers alike.

A converter reads yolov3/configs.py, begins with the folder that tools/Convert_to_pb.py has written, and writes another
one beside it, whole or not at all.
"""

import argparse
import contextlib
from dataclasses import replace

import yolov3  # noqa: F401  before TensorFlow, which it keeps quiet

# isort: split
import numpy as np
import tensorflow as tf

from yolov3 import configs, savedmodel
from yolov3.calibration import CalibrationInputs, choose_pictures
from yolov3.cfg import input_size, read_sections
from yolov3.checkpoint import check_replaceable, find, is_weights, read_about, read_model
from yolov3.detector import DARKNET_WEIGHTS
from yolov3.frameworks import FRAMEWORKS
from yolov3.heads import cfg_file
from yolov3.images import fit, read_picture
from yolov3.settings import PROJECT, UserError, architecture, as_given, check_input_size, project_path, read_class_names

PICTURE = "IMAGES/digits/00000.jpg"  # what a conversion is tried on
BAKED = ("score_threshold", "iou_threshold", "max_pixels")
FAR_OFF = 0.1  # of boxes on average, in fractions of the input: no rounding explains it, whatever the precision
TOLERANCE = 1e-3  # of boxes, in fractions of the input, and of scores, where both sides calculate in float32


def parse_arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was made from something else")
    return parser.parse_args()


def destination(source, model, framework, precision, overwrite):
    """-> the Model and the folder of a conversion. Raises UserError if a folder made from something else is there."""
    target = replace(model, framework=framework, precision=precision)
    folder = project_path(configs.TRAIN_CHECKPOINTS_FOLDER) / target.folder_name
    check_replaceable(folder, None if overwrite else made_from(source))
    return target, folder


def made_from(source):
    """What model.json says of a conversion of a SavedModel folder."""
    return f"{in_project(source)}, made from {read_about(source).get('made_from')}"


def baked(source):
    """What detect_bytes of a SavedModel folder was made with: the named arguments of `savedmodel.save`."""
    about = read_about(source)
    try:
        return {name: about[name] for name in BAKED}
    except KeyError as name:
        raise UserError(f"{source}/model.json has no {name}: python tools/Convert_to_pb.py writes it anew") from None


def read_source():
    """The SavedModel that configs.py means -> its Path and Model. Raises UserError if it is missing, half-written, or
    of another type, size or classes than configs.py says."""
    name = architecture(configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY)
    size = configured_size()
    folder = project_path(configs.TRAIN_CHECKPOINTS_FOLDER) / f"{name}-{size}"
    convert = "python tools/Convert_to_pb.py writes it"
    if not folder.exists():
        raise UserError(f"{folder} is missing: {convert}")
    model = read_model(folder)
    if (model.framework, model.name, model.input_size) != ("tf", name, size):
        there = f"{model.framework}, {model.name} at {model.input_size}"
        raise UserError(f"{folder} is {there}, but yolov3/configs.py says {name} at {size}: {convert} anew")
    if not (savedmodel.place(folder) / "saved_model.pb").exists():
        raise UserError(f"{folder} holds no saved_model.pb: {convert} anew")
    if (configured := configured_classes(model.classes)) != model.classes:
        raise UserError(
            f"{folder}, made from {read_about(folder).get('made_from')}, has {len(model.classes)} classes "
            f"({', '.join(model.classes[:3])} ...), but those of yolov3/configs.py are {len(configured)} "
            f"({', '.join(configured[:3])} ...): {convert} anew with --overwrite"
        )
    if configs.YOLO_FEATURES and not model.features:
        raise UserError(f"{folder} answers no features, but YOLO_FEATURES = True in yolov3/configs.py: {convert} anew")
    return folder, model


def configured_size():
    """The input size of what tools/Convert_to_pb.py makes: that of a .weights file's cfg, or YOLO_INPUT_SIZE."""
    name = architecture(configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY)
    weights = configs.YOLO_CUSTOM_WEIGHTS or getattr(configs, DARKNET_WEIGHTS[name])
    with contextlib.suppress(UserError):  # it may be a conversion that is not there yet
        weights = find(weights, configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
        if not weights.is_dir() and (cfg := cfg_file(weights)):
            return input_size(read_sections(cfg)[0])
    return check_input_size(configs.YOLO_INPUT_SIZE)


def read_served(word):
    """A folder, or its name under checkpoints/, that answers `detect_bytes` -> its Path, Model and model.json."""
    folder = find(as_given(word), configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
    model, about = read_model(folder), read_about(folder)
    if is_weights(folder) or model.framework == "openvino":
        raise UserError(f"{folder} holds no SavedModel: python tools/Convert_to_pb.py writes one")
    return folder, model, about


def configured_classes(of_source):
    """The class names of the model that YOLO_CUSTOM_WEIGHTS or, without it, the Darknet weights mean. If it names a
    conversion that is not there yet, those of the source."""
    name = configs.YOLO_CUSTOM_WEIGHTS
    if not name:
        return read_class_names(configs.YOLO_COCO_CLASSES)
    try:
        weights = find(name, configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
    except UserError:
        if any(f"-{framework}-" in str(name) for framework in FRAMEWORKS):
            return of_source
        raise
    return read_model(weights).classes if weights.is_dir() else read_class_names(configs.TRAIN_CLASSES)


def in_project(path):
    """A path as configs.py would name it."""
    path = path.resolve()
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def sample_images(model):
    """The picture that conversions are tried on -> network input, float32 (1, S, S, 3)."""
    return fit(read_picture(PICTURE, max_pixels=10**6), model.input_size, model.resize)[tf.newaxis]


def check_same(answers, expected, folder, tolerance=TOLERANCE):
    """Refuses a conversion whose predictions are not those expected -> how far they are off, at worst."""
    answers, expected = np.asarray(answers), np.asarray(expected)
    if answers.shape != expected.shape:
        raise UserError(f"{folder} would answer {answers.shape}, not {expected.shape}: it is not written")
    if not np.isfinite(answers).all():
        raise UserError(f"{folder} would answer numbers that are not finite: it is not written")
    off = np.abs(answers - expected) / (1 + np.abs(expected))
    if off.max() > tolerance or off[..., :4].mean() > FAR_OFF:
        raise UserError(f"{folder} would answer otherwise, by {off.max():.2g} on {PICTURE}: it is not written")
    return off.max()


def calibration_inputs(model):
    """What configs.py says to calibrate INT8 on -> CalibrationInputs, and what model.json is to say of it."""
    source = configs.YOLO_CALIBRATION_IMAGES or configs.TEST_ANNOT_PATH
    paths = choose_pictures(source, configs.YOLO_CALIBRATION_COUNT, configs.YOLO_MAX_PIXELS)
    inputs = CalibrationInputs(paths, model.input_size, model.resize, configs.YOLO_MAX_PIXELS)
    return inputs, {"calibrated_on": str(source), "calibration_count": len(paths)}


def folder_size(folder):
    """MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
