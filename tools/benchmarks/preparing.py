"""What the contenders of tools/benchmarks/speed.py load, made in this run by the very functions of the converters.

It runs in a process of its own: what converting takes and leaves behind is no part of what is measured.
"""

import re
from dataclasses import replace

from tools.benchmarks.contenders import Setup
from tools.benchmarks.measuring import NotAvailable, not_available
from yolov3 import configs
from yolov3.checks import UserError
from yolov3.conversion import configured_trt_options
from yolov3.darknet import convolutions, heads_of, save_yolo_weights
from yolov3.images import fit
from yolov3.runtimes import RUNTIMES, tf
from yolov3.runtimes.common import folder_name
from yolov3.runtimes.openvino import ANY_DROP
from yolov3.yolov4 import Create_Yolo

import keras
import numpy as np


def prepare(materials, contenders, folder):
    """-> for each Material its Setup and, for each contender, the Path of what it loads or, a str, why it cannot."""
    return [prepare_one(material, contenders, folder) for material in materials]


def prepare_one(material, contenders, folder):
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
        except (UserError, NotAvailable) as error:
            made.append(not_available(error))
    return setup, made


# --- Makers: (material, setup, contender) -> Path --------------------------------------------------------------------


def make_openvino(material, setup, contender):
    return converted(material, setup, contender, ANY_DROP)


def make_tensorrt(material, setup, contender):
    return converted(material, setup, contender, configured_trt_options())


def converted(material, setup, contender, options):
    """A SavedModel, converted further by the runtime of the contender."""
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


def make_darknet(material, setup, _):
    """A cfg and a .weights file, for OpenCV."""
    cfg = fitting_cfg(material.spec, material.cfg_folder)
    folder = setup.saved_model.with_name(f"{setup.saved_model.name}-darknet")
    folder.mkdir()
    (folder / "network.cfg").write_text(cfg)
    save_yolo_weights(tf.keras_network(material.spec, material.weights), folder / "network.weights")
    return folder


def fitting_cfg(spec, cfg_folder):
    """Darknet's cfg of the type, with our input size, class count and anchors."""
    if not cfg_folder.is_dir():
        raise NotAvailable("no cfg folder")
    file, count = cfg_folder / f"{spec.name}.cfg", len(spec.classes)
    if not file.exists():
        raise NotAvailable(f"no {file.name} in the cfg folder")
    text = re.sub(r"(?m)^(width|height) *=.*", rf"\1={spec.input_size}", file.read_text())
    text = re.sub(r"(?m)^classes *=.*", f"classes={count}", text)
    text = re.sub(r"filters *=.*(?=[^\[]*\[yolo\])", f"filters={3 * (5 + count)}", text)
    anchors = ",".join(f"{width:g},{height:g}" for head in spec.heads.anchors for width, height in head)
    text = re.sub(r"(?m)^anchors *=.*", f"anchors={anchors}", text)
    first = [int(mask) for mask in re.findall(r"(?m)^mask *= *(\d+)", text)]  # of each [yolo]; ascends with the stride
    heads = iter(np.argsort(np.argsort(first)).tolist())
    return re.sub(r"(?m)^mask *=.*", lambda _: "mask={},{},{}".format(*(np.arange(3) + 3 * next(heads))), text)


MAKERS = {
    "tf": lambda material, setup, contender: setup.saved_model,
    "openvino": make_openvino,
    "trt": make_tensorrt,
    "keras": lambda material, setup, contender: material.weights,
    "opencv": make_darknet,
}


def write_random_weights(spec, path, frame):
    """Seeded weights, scaled on the frame so that up to a hundred or two boxes reach the suppression, not thousands."""
    keras.utils.set_random_seed(0)
    network = Create_Yolo(spec.input_size, spec.type, spec.tiny, spec.classes)
    for _, norm in convolutions(network):
        if norm:
            norm.beta.assign(np.random.normal(0, 0.5, norm.beta.shape))
            norm.moving_variance.assign(np.random.uniform(0.5, 1.5, norm.beta.shape))

    heads = heads_of(network)
    images = fit(frame, spec.input_size, spec.resize)[np.newaxis]
    bias = np.tile([0] * 4 + [-6, 3] + [-6] * (len(spec.classes) - 1), 3)  # x, y, w, h, objectness, classes
    is_objectness = np.arange(len(bias)) % (5 + len(spec.classes)) == 4
    raw_heads = keras.Model(network.inputs, [head.output for head in heads])(images)
    for head, raw in zip(heads, raw_heads, strict=True):
        usual, rare = np.quantile(raw, [0.5, 0.997], (0, 1, 2))  # three cells of 1000 are to be objects
        scale = np.where(is_objectness, 5.3 / np.maximum(rare - usual, 1e-3), 0)  # sigmoid(5.3 - 6) > 0.3
        head.kernel.assign(head.kernel * scale)
        head.bias.assign(bias - usual * scale)
    save_yolo_weights(network, path)
