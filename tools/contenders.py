"""What tools/Benchmark.py measures: each contender makes a callable that takes a frame, uint8 (H, W, 3), RGB.

TensorFlow is imported where it is needed: the process that measures OpenCV's memory does without.
"""

import functools
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from measuring import NotAvailable

from yolov3 import configs


@dataclass(frozen=True, eq=False)
class Setup:
    """One type and size, with all that its contenders need."""

    type: str  # yolov3, yolov3-tiny, yolov4, yolov4-tiny
    size: int  # pixels
    classes: tuple  # their names
    weights: Path  # a Darknet .weights file
    cfg_folder: Path  # may be missing
    frame: np.ndarray  # uint8 (H, W, 3), RGB

    @property
    def network(self):
        """The arguments of `Create_Yolo`."""
        yolo_type, _, tiny = self.type.partition("-")
        return {"input_size": self.size, "yolo_type": yolo_type, "tiny": bool(tiny), "CLASSES": self.classes}


# --- Contenders: (setup, precision) -> callable that takes a frame --------------------------------------------------


@functools.cache
def load_detector(setup, precision):
    from yolov3.detector import Load_Yolo_model

    return Load_Yolo_model(setup.weights, **setup.network, framework="tf", precision=precision)


def tf_end_to_end(setup, precision):
    detector = load_detector(setup, precision)
    return lambda frame: detector([frame])


def tf_network_alone(setup, precision):
    import tensorflow as tf

    detector = load_detector(setup, precision)
    images = detector.fit([setup.frame])  # (1, S, S, 3)

    def call(_):
        detector.network(images)
        tf.test.experimental.sync_devices()  # waits for a GPU; 0.03 ms without

    return call


def keras_predict(setup, _):
    """`predict` between a NumPy letterbox and a NumPy suppression per class, as the widespread ports do."""
    from yolov3.boxes import PUBLISHED_HEADS
    from yolov3.darknet import load_yolo_weights
    from yolov3.yolov4 import Create_Yolo

    model = Create_Yolo(**setup.network)
    load_yolo_weights(model, setup.weights)
    heads = PUBLISHED_HEADS[setup.type]

    def call(frame):
        sides = np.array(frame.shape[1::-1])  # width, height
        width, height = sides * setup.size // sides.max()
        left, top = (setup.size - width) // 2, (setup.size - height) // 2
        images = np.full((1, setup.size, setup.size, 3), 0.5, np.float32)
        images[0, top : top + height, left : left + width] = cv2.resize(frame, (width, height)) / np.float32(255)
        boxes, scores, classes = decode(model.predict(images, verbose=0), heads, configs.YOLO_SCORE_THRESHOLD)
        keep = greedy_nms(boxes + classes[:, np.newaxis] * 100, scores, configs.YOLO_IOU_THRESHOLD)  # per class
        boxes = boxes[keep] * sides.max() - np.tile((sides.max() - sides) / 2, 2)
        return boxes.clip(0, np.tile(sides, 2)), scores[keep], classes[keep]

    return call


def sigmoid(x):
    return np.tanh(x / 2) / 2 + 0.5  # without overflow


def decode(raw_heads, heads, threshold):
    """Raw heads (1, g, g, 3 * (5 + C)) -> boxes (n, 4) xyxy fractions, scores (n,), classes (n,)."""
    boxes, scores = [], []
    for raw, stride, anchors, scale_x_y in zip(raw_heads, heads.strides, heads.anchors, heads.scale_x_y, strict=True):
        cells = raw.shape[1]
        raw = raw.reshape(cells, cells, 3, -1)
        y, x, anchor = np.nonzero(sigmoid(raw[..., 4]) >= threshold)  # only these can pass
        raw = raw[y, x, anchor]  # (k, 5 + C)
        centre = (sigmoid(raw[:, :2]) * scale_x_y - (scale_x_y - 1) / 2 + np.stack([x, y], -1)) / cells
        half = np.exp(raw[:, 2:4]) * np.array(anchors)[anchor] / (cells * stride) / 2
        boxes.append(np.concatenate([centre - half, centre + half], -1))
        scores.append(sigmoid(raw[:, 4:5]) * sigmoid(raw[:, 5:]))
    boxes, scores = np.concatenate(boxes), np.concatenate(scores)
    rows, classes = np.nonzero(scores >= threshold)
    return boxes[rows], scores[rows, classes], classes


def greedy_nms(boxes, scores, iou_threshold):
    """Boxes (n, 4) xyxy -> indices of those to keep, best first."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    order, keep = np.argsort(-scores), []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(best)
        overlap = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        intersection = np.prod(overlap.clip(0), -1)
        order = rest[intersection <= iou_threshold * (area[best] + area[rest] - intersection)]
    return keep


def opencv_dnn(setup, _):
    with tempfile.TemporaryDirectory() as folder:
        cfg = Path(folder) / "network.cfg"
        cfg.write_text(fitting_cfg(setup))
        net = cv2.dnn.readNetFromDarknet(str(cfg), str(setup.weights))
    outputs = net.getUnconnectedOutLayersNames()

    def call(frame):
        net.setInput(cv2.dnn.blobFromImage(frame, 1 / 255, (setup.size, setup.size)))
        found = np.concatenate(net.forward(outputs))  # (boxes, 5 + C): centre, size, objectness, scores
        rows, classes = np.nonzero(found[:, 5:] >= configs.YOLO_SCORE_THRESHOLD)
        scores, boxes = found[rows, 5 + classes], found[rows, :4] * np.tile(frame.shape[1::-1], 2)
        boxes[:, :2] -= boxes[:, 2:] / 2  # (n, 4) xywh, pixels
        thresholds = configs.YOLO_SCORE_THRESHOLD, configs.YOLO_IOU_THRESHOLD
        keep = list(cv2.dnn.NMSBoxesBatched(boxes, scores, classes, *thresholds))
        return boxes[keep], scores[keep], classes[keep]

    return call


def fitting_cfg(setup):
    """Darknet's cfg of the type, with our input size and class count."""
    if not setup.cfg_folder.is_dir():
        raise NotAvailable("no cfg folder")
    file, count = setup.cfg_folder / f"{setup.type}.cfg", len(setup.classes)
    if not file.exists():
        raise NotAvailable(f"no {file.name} in the cfg folder")
    text = re.sub(r"(?m)^(width|height) *=.*", rf"\1={setup.size}", file.read_text())
    text = re.sub(r"(?m)^classes *=.*", f"classes={count}", text)
    return re.sub(r"filters *=.*(?=[^\[]*\[yolo\])", f"filters={3 * (5 + count)}", text)


CONTENDERS = (  # name, its precision (None: whichever are chosen), what makes it
    ("tf FP32", "FP32", tf_end_to_end),
    ("tf FP32 network alone", "FP32", tf_network_alone),
    ("tf BF16", "BF16", tf_end_to_end),
    ("tf BF16 network alone", "BF16", tf_network_alone),
    ("Keras predict + NumPy NMS", None, keras_predict),
    ("OpenCV DNN", None, opencv_dnn),
)


def write_random_weights(setup):
    """Seeded weights, scaled on the frame so that up to a hundred or two boxes reach the suppression, not thousands."""
    import keras

    from yolov3.darknet import convolutions, save_yolo_weights
    from yolov3.images import fit
    from yolov3.yolov4 import Create_Yolo

    keras.utils.set_random_seed(0)
    model = Create_Yolo(**setup.network)
    for _, norm in convolutions(model):
        if norm:
            norm.beta.assign(np.random.normal(0, 0.5, norm.beta.shape))
            norm.moving_variance.assign(np.random.uniform(0.5, 1.5, norm.beta.shape))

    heads = [conv for conv, norm in convolutions(model) if not norm]
    images = fit(setup.frame, setup.size, "letterbox")[np.newaxis]
    bias = np.tile([0] * 4 + [-6, 3] + [-6] * (len(setup.classes) - 1), 3)  # x, y, w, h, objectness, classes
    is_objectness = np.arange(len(bias)) % (5 + len(setup.classes)) == 4
    for head, raw in zip(heads, keras.Model(model.inputs, [head.output for head in heads])(images), strict=True):
        usual, rare = np.quantile(raw, [0.5, 0.997], (0, 1, 2))  # three cells of 1000 are to be objects
        scale = np.where(is_objectness, 5.3 / np.maximum(rare - usual, 1e-3), 0)  # sigmoid(5.3 - 6) > 0.3
        head.kernel.assign(head.kernel * scale)
        head.bias.assign(bias - usual * scale)
    save_yolo_weights(model, setup.weights)
