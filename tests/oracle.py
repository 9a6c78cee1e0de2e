"""Independent answers to compare with: OpenCV's Darknet importer, and Darknet's rules in plain Python."""

import re
from pathlib import Path

from yolov3.annotations.format import Record, parse_line
from yolov3.darknet import convolutions

import cv2
import numpy as np

# --- Random weights ------------------------------------------------------------------------------------------------


def random_weights(model, path, seed=1):
    """Writes a Darknet .weights file for a model of `Create_Yolo`, the same bytes for the same seed on any machine.

    Its numbers keep activations near 1, so that a wrong layer shows in the heads.
    """
    random = np.random.RandomState(seed)  # the one generator whose numbers NumPy never changes
    with Path(path).open("wb") as file:
        file.write(np.array([0, 2, 5, 0, 0], "<i4"))
        for conv, norm in convolutions(model):
            height, width, channels, filters = conv.kernel.shape
            inputs = height * width * channels
            # beta, gamma, mean, variance; or bias
            for low, high in ((-0.2, 0.2), (0.6, 1.0), (-0.2, 0.2), (0.5, 1.5))[: 4 if norm else 1]:
                file.write(random.uniform(low, high, filters).astype("<f4"))
            limit = np.sqrt(3 / inputs)
            file.write(random.uniform(-limit, limit, filters * inputs).astype("<f4"))
    return path


def random_picture(size):
    """A network input, float32 (1, S, S, 3), the same on any machine."""
    return np.random.RandomState(size).rand(1, size, size, 3).astype(np.float32)


# --- OpenCV's Darknet importer -------------------------------------------------------------------------------------


def importer(cfg, weights, size, threshold=0.000001):
    """A cfg and a .weights file in OpenCV, at any input size; class scores under the threshold become 0."""
    text = re.sub(r"(?m)^(width|height)=.*", rf"\1={size}", Path(cfg).read_text())
    text = text.replace("[yolo]", f"[yolo]\nthresh={threshold:.6f}")
    return cv2.dnn.readNetFromDarknet(np.frombuffer(text.encode(), np.uint8), np.fromfile(weights, np.uint8))


def importer_answers(net, picture):
    """A network input (1, S, S, 3) -> raw heads [(1, S/stride, S/stride, channels)] and rows (boxes, 5 + C): centre x,
    centre y, width, height in fractions, objectness, objectness x class probability. Smallest stride first."""
    yolo = [name for name in net.getLayerNames() if name.startswith("yolo_")]
    before = [f"conv_{int(name.removeprefix('yolo_')) - 1}" for name in yolo]
    net.setInput(np.ascontiguousarray(picture.transpose(0, 3, 1, 2)))
    answers = net.forward(yolo + before)
    rows = sorted(answers[: len(yolo)], key=len, reverse=True)
    raw = sorted((x.transpose(0, 2, 3, 1) for x in answers[len(yolo) :]), key=lambda x: x.shape[1], reverse=True)
    return raw, np.concatenate(rows)


def centre_form(boxes):
    """xyxy (..., 4) -> centre x, centre y, width, height."""
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def corner_form(boxes):
    """The reverse of `centre_form`."""
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


# --- Darknet's rules -----------------------------------------------------------------------------------------------


def darknet_placement(height, width, size, resize):
    """Darknet's letterbox_image: (height, width, top, left) of the picture within the network input."""
    if resize == "stretch":
        return size, size, 0, 0
    if size / width < size / height:
        new_width, new_height = size, (height * size) // width
    else:
        new_width, new_height = (width * size) // height, size
    new_width, new_height = max(new_width, 1), max(new_height, 1)  # Darknet stops at 0
    return new_height, new_width, (size - new_height) // 2, (size - new_width) // 2


def iou(a, b):
    """Of two xyxy boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either if either else 0.0


def diou(a, b, beta=0.6):
    """Darknet's box_diounms: the centres' distance over the diagonal of the hull, squared, to the power of beta."""
    hull = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    if hull == 0:
        return iou(a, b)
    centres = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    return iou(a, b) - (centres / hull) ** beta


def greedy(boxes, scores, score_threshold, iou_threshold, nms, class_agnostic=False, beta=0.6):
    """boxes (n, 4) xyxy, scores (n, C) -> [(score, class, box)], best first: one loop, one class after the other; or,
    class-agnostic, one loop over all boxes, each with its best class."""
    if class_agnostic:
        labels = scores.argmax(1)
        best = greedy(boxes, scores.max(1)[:, np.newaxis], score_threshold, iou_threshold, nms, beta=beta)
        return [(score, int(labels[boxes.tolist().index(box)]), box) for score, _, box in best]
    overlap = {"iou": iou, "diou": lambda a, b: diou(a, b, beta)}[nms]
    kept = []
    for label in range(scores.shape[1]):
        winners = []
        for i in sorted(np.flatnonzero(scores[:, label] > score_threshold), key=lambda i: -scores[i, label]):
            box = boxes[i].tolist()
            if all(overlap(box, winner) <= iou_threshold for winner in winners):
                winners.append(box)
                kept.append((float(scores[i, label]), label, box))
    return sorted(kept, reverse=True)


# --- Photographs with boxes ----------------------------------------------------------------------------------------


def coco64(folder, shape_of, coco, voc):
    """Darknet's labels of COCO's 80 classes -> list of Record of those that VOC has too, numbered as VOC's.

    shape_of  a picture's name -> its height and width; coco, voc  class names in their orders
    """
    records = []
    for picture in sorted((folder / "images").glob("*.jpg")):
        height, width = shape_of(picture.name)
        label = folder / "labels" / f"{picture.stem}.txt"
        rows = [line.split() for line in label.read_text().splitlines()] if label.exists() else []
        rows = np.array([[voc.index(coco[int(c)]), *box] for c, *box in rows if coco[int(c)] in voc], float)
        boxes = corner_form(rows.reshape(-1, 5)[:, 1:]) * [width, height, width, height]
        records.append(Record(picture, boxes.astype(np.float32), rows.reshape(-1, 5)[:, 0].astype(np.int32)))
    return records


def resize_image(picture, height, width):
    """Darknet's resize_image: bilinear, first along x, then along y, the corners of both pictures on each other."""

    def along(axis, size, values):
        last = values.shape[axis] - 1
        place = np.arange(size) * (last / (size - 1)) if size > 1 else np.zeros(1)
        first = np.minimum(place.astype(int), last)
        share = (place - first).reshape([-1 if i == axis else 1 for i in range(3)])
        second = np.minimum(first + 1, last)
        return np.take(values, first, axis) * (1 - share) + np.take(values, second, axis) * share

    return along(0, height, along(1, width, picture.astype(np.float64)))


def read_annotations(path):
    """The records of an annotation file without a mistake in it; its pictures need not be there."""
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    return [parse_line(line, Path(path).parent) for line in lines if line.strip()]


def stored_arrays(folder):
    """The arrays in the weights.npz of a checkpoint folder, in their order."""
    with np.load(Path(folder) / "weights.npz") as arrays:
        return [arrays[f"arr_{i}"].astype(np.float32) for i in range(len(arrays))]
