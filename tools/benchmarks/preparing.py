"""Make what the contenders of tools/benchmarks/speed.py load, by the functions of the converters.

This runs in a process of its own, so that the memory that converting takes is not measured.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.benchmarks.contenders import Contender, Setup
from tools.benchmarks.materials import Material
from tools.benchmarks.measuring import NotAvailable, not_available
from yolov3 import configs
from yolov3.cfg.network import read_network
from yolov3.cfg.write import rewrite
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError
from yolov3.conversion import configured_trt_options
from yolov3.darknet import convolutions, heads_of, save_yolo_weights
from yolov3.fitting import fit
from yolov3.runtimes import RUNTIMES, tf
from yolov3.runtimes.common import folder_name
from yolov3.runtimes.openvino import ANY_DROP
from yolov3.yolov4 import make_model

import keras
import numpy as np

Made = list[Path | str]  # for each contender the path of what it loads, or a note that says why it cannot run


def prepare_all(materials: list[Material], contenders: list[Contender], folder: Path) -> list[tuple[Setup, Made]]:
    """Return for each Material its Setup and, for each contender, the path of what it loads or why it cannot run."""
    return [prepare_one(material, contenders, folder) for material in materials]


def prepare_one(material: Material, contenders: list[Contender], folder: Path) -> tuple[Setup, Made]:
    """Return what `prepare_all` returns for one Material."""
    spec = material.spec
    if material.weights is None:
        material = replace(material, weights=folder / f"{folder_name(spec)}.weights")
        write_random_weights(spec, material.weights, material.frame)
    setup = Setup(spec.name, spec.input_size, folder / folder_name(spec), material.frame)
    options = {"score_threshold": configs.YOLO_SCORE_THRESHOLD, "iou_threshold": configs.YOLO_IOU_THRESHOLD}
    tf.write(setup.saved_model, material.weights, spec, {**options, "max_pixels": configs.YOLO_MAX_PIXELS})
    made = []
    for contender in contenders:
        try:
            made.append(MAKERS[contender.framework](material, setup, contender))
        except UserError as error:
            made.append(not_available(error))
    return setup, made


# --- Makers of what a contender loads ------------------------------------------------------------------------------


def make_openvino(material: Material, setup: Setup, contender: Contender) -> Path:
    """Make a folder for OpenVINO."""
    return converted(material, setup, contender, ANY_DROP)


def make_tensorrt(material: Material, setup: Setup, contender: Contender) -> Path:
    """Make a folder for TensorRT."""
    return converted(material, setup, contender, configured_trt_options())


def converted(material: Material, setup: Setup, contender: Contender, options: Any) -> Path:
    """Convert the SavedModel for the runtime of the contender. Raises UserError."""
    target = replace(material.spec, framework=contender.framework, precision=contender.precision)
    folder = setup.saved_model.with_name(folder_name(target) + ("-noise" if contender.on_noise else ""))
    runtime, inputs = RUNTIMES[contender.framework].module, None
    runtime.check(target.precision, options)
    if target.precision == "INT8":
        if isinstance(material.calibration, str):
            raise NotAvailable(material.calibration)
        inputs = material.calibration_inputs(contender.on_noise)
    runtime.write(folder, setup.saved_model, target, options, inputs)
    return folder


def make_darknet(material: Material, setup: Setup, _: Contender) -> Path:
    """Make a folder with a cfg and a .weights file for OpenCV."""
    cfg = fitting_cfg(material.spec, material.cfg_folder)
    folder = setup.saved_model.with_name(f"{setup.saved_model.name}-darknet")
    folder.mkdir()
    (folder / "network.cfg").write_text(cfg)
    save_yolo_weights(tf.keras_network(material.spec, material.weights), folder / "network.weights")
    return folder


def fitting_cfg(spec: ModelSpec, cfg_folder: Path) -> str:
    """Return Darknet's cfg of the network with input size, classes and anchors of the model. Raises NotAvailable."""
    cfg = spec.network.cfg
    if cfg is None:
        file = cfg_folder / f"{spec.name}.cfg"
        if not file.exists():
            raise NotAvailable(f"{file.name} is missing in the folder of cfg files {cfg_folder}")
        cfg = read_network(file).cfg
    return rewrite(cfg, spec.heads, len(spec.classes), (spec.input_size, spec.input_size))


MAKERS = {
    "tf": lambda material, setup, contender: setup.saved_model,
    "openvino": make_openvino,
    "trt": make_tensorrt,
    "keras": lambda material, setup, contender: material.weights,
    "opencv": make_darknet,
}


def write_random_weights(spec: ModelSpec, path: Path, frame: np.ndarray) -> None:
    """Write random weights from a fixed seed.

    They are scaled so that about a hundred boxes of the frame, not thousands, reach the suppression.
    """
    keras.utils.set_random_seed(0)
    network = make_model(spec.network, spec.input_size, len(spec.classes))
    for _, norm in convolutions(network):
        if norm:
            norm.beta.assign(np.random.normal(0, 0.5, norm.beta.shape))
            norm.moving_variance.assign(np.random.uniform(0.5, 1.5, norm.beta.shape))

    heads = heads_of(network)
    images = fit(frame, spec.input_size, spec.resize)[np.newaxis]
    of_anchor = [0] * 4 + [-6, 3] + [-6] * (len(spec.classes) - 1)  # x, y, w, h, objectness, classes
    raw_heads = keras.tree.flatten(keras.Model(network.inputs, [head.output for head in heads])(images))
    for head, raw in zip(heads, raw_heads, strict=True):
        bias = np.tile(of_anchor, head.anchors)
        is_objectness = np.arange(len(bias)) % len(of_anchor) == 4
        usual, rare = np.quantile(raw, [0.5, 0.997], (0, 1, 2))  # three cells of 1000 become objects
        scale = np.where(is_objectness, 5.3 / np.maximum(rare - usual, 1e-3), 0)  # sigmoid(5.3 - 6) > 0.3
        head.kernel.assign(head.kernel * scale)
        head.bias.assign(bias - usual * scale)
    save_yolo_weights(network, path)
