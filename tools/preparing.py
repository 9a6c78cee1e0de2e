"""What the contenders of tools/Benchmark.py load, made in this run by the very functions of the converters.

It runs in a process of its own: what converting takes and leaves behind is no part of what is measured.
"""

import re
from dataclasses import replace

import keras
import numpy as np
from contenders import Setup
from Convert_to_OpenVINO import write_openvino
from Convert_to_pb import write_saved_model
from measuring import NotAvailable, not_available

from yolov3 import configs
from yolov3.darknet import convolutions, save_yolo_weights
from yolov3.frameworks import import_openvino, keras_network
from yolov3.images import fit
from yolov3.quantisation import import_nncf
from yolov3.settings import UserError
from yolov3.tftrt import check_tensorrt
from yolov3.yolov4 import Create_Yolo


def prepare(materials, contenders, folder):
    """-> for each Material its Setup and, for each contender, the Path of what it loads or, a str, why it cannot."""
    return [prepare_one(material, contenders, folder) for material in materials]


def prepare_one(material, contenders, folder):
    model = material.model
    if material.weights is None:
        material = replace(material, weights=folder / f"{model.folder_name}.weights")
        write_random_weights(model, material.weights, material.frame)
    setup = Setup(model.name, model.input_size, folder / model.folder_name, material.frame)
    thresholds = configs.YOLO_SCORE_THRESHOLD, configs.YOLO_IOU_THRESHOLD
    write_saved_model(setup.saved_model, model, material.weights, *thresholds)
    made = []
    for contender in contenders:
        try:
            made.append(MAKERS[contender.framework](material, setup, contender))
        except (UserError, NotAvailable) as error:
            made.append(not_available(error))
    return setup, made


# --- Makers: (material, setup, contender) -> Path --------------------------------------------------------------------


def make_openvino(material, setup, contender):
    import_openvino()
    return converted(write_openvino, import_nncf, material, setup, contender)


def make_tensorrt(material, setup, contender):
    from Convert_to_TRT import read_options, write_trt

    options = read_options()
    check_tensorrt(options.workspace)

    def write(folder, source, target, inputs):
        write_trt(folder, source, target, options, inputs)

    return converted(write, lambda: None, material, setup, contender)


def converted(write, check_int8, material, setup, contender):
    """A SavedModel, converted further by `write`: (folder, source, target, inputs, facts)."""
    target = replace(material.model, framework=contender.framework, precision=contender.precision)
    folder = setup.saved_model.with_name(target.folder_name + ("-noise" if contender.on_noise else ""))
    inputs = None
    if target.precision == "INT8":
        check_int8()
        if isinstance(material.calibration, str):
            raise NotAvailable(material.calibration)
        inputs = material.calibration_inputs(contender.on_noise)
    write(folder, setup.saved_model, target, inputs)
    return folder


def make_darknet(material, setup, _):
    """A cfg and a .weights file, for OpenCV."""
    cfg = fitting_cfg(material.model, material.cfg_folder)
    folder = setup.saved_model.with_name(f"{setup.saved_model.name}-darknet")
    folder.mkdir()
    (folder / "network.cfg").write_text(cfg)
    save_yolo_weights(keras_network(material.model, material.weights), folder / "network.weights")
    return folder


def fitting_cfg(model, cfg_folder):
    """Darknet's cfg of the type, with our input size, class count and anchors."""
    if not cfg_folder.is_dir():
        raise NotAvailable("no cfg folder")
    file, count = cfg_folder / f"{model.name}.cfg", len(model.classes)
    if not file.exists():
        raise NotAvailable(f"no {file.name} in the cfg folder")
    text = re.sub(r"(?m)^(width|height) *=.*", rf"\1={model.input_size}", file.read_text())
    text = re.sub(r"(?m)^classes *=.*", f"classes={count}", text)
    text = re.sub(r"filters *=.*(?=[^\[]*\[yolo\])", f"filters={3 * (5 + count)}", text)
    anchors = ",".join(f"{width:g},{height:g}" for head in model.heads.anchors for width, height in head)
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


def write_random_weights(model, path, frame):
    """Seeded weights, scaled on the frame so that up to a hundred or two boxes reach the suppression, not thousands."""
    keras.utils.set_random_seed(0)
    network = Create_Yolo(model.input_size, model.type, model.tiny, model.classes)
    for _, norm in convolutions(network):
        if norm:
            norm.beta.assign(np.random.normal(0, 0.5, norm.beta.shape))
            norm.moving_variance.assign(np.random.uniform(0.5, 1.5, norm.beta.shape))

    heads = [conv for conv, norm in convolutions(network) if not norm]
    images = fit(frame, model.input_size, model.resize)[np.newaxis]
    bias = np.tile([0] * 4 + [-6, 3] + [-6] * (len(model.classes) - 1), 3)  # x, y, w, h, objectness, classes
    is_objectness = np.arange(len(bias)) % (5 + len(model.classes)) == 4
    raw_heads = keras.Model(network.inputs, [head.output for head in heads])(images)
    for head, raw in zip(heads, raw_heads, strict=True):
        usual, rare = np.quantile(raw, [0.5, 0.997], (0, 1, 2))  # three cells of 1000 are to be objects
        scale = np.where(is_objectness, 5.3 / np.maximum(rare - usual, 1e-3), 0)  # sigmoid(5.3 - 6) > 0.3
        head.kernel.assign(head.kernel * scale)
        head.bias.assign(bias - usual * scale)
    save_yolo_weights(network, path)
