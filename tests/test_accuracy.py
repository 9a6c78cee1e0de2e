"""Trained weights on photographs: the same boxes as OpenCV's importer and as Darknet itself."""

import gzip
import json
import re
import subprocess
import sys

from yolov3 import configs
from yolov3.boxes import suppress
from yolov3.checks import read_class_names
from yolov3.evaluation import evaluate
from yolov3.fitting import FIXED_RESIZES
from yolov3.images import read_picture
from yolov3.loading import Load_Yolo_model

import numpy as np
import pytest
from oracle import coco64, corner_form, darknet_placement, diou, greedy, importer, importer_answers, iou

SIZE = 416
DARKNET_AP50 = {"letterbox": 56.75, "stretch": 58.66}  # Darknet on the same pictures, by the same protocol
# Stretched, two of three sofas whose scores differ by 0.001 change places: 16.8 of that class, 0.84 of the mean of 20.
# Every box at IoU 0.95 and score 0.01 is Darknet's all the same, see the test of its answers.
AP50_WITHIN = {"letterbox": 0.3, "stretch": 1.0}


@pytest.fixture(scope="module", params=FIXED_RESIZES)
def detector(request, shared):
    """YOLOv4-tiny trained on VOC."""
    weights, names = shared / "weights" / "yolov4-tiny-voc.weights", shared / "darknet" / "voc.names"
    return Load_Yolo_model(weights, names, SIZE, "yolov4", True, "tf", "FP32", request.param, 0.3, 0.45)


@pytest.fixture(scope="module")
def photographs(shared):
    """{name: frame}: 64 of COCO's."""
    return {x.name: read_picture(x, 10**9) for x in sorted((shared / "coco64" / "images").glob("*.jpg"))}


def nearest(label, box, found):
    """Of (score, class, box) those of a class; -> (IoU, score) of the one that overlaps a box most."""
    return max(((iou(box, other), score) for score, kind, other in found if kind == label), default=(0, 0))


def as_list(found):
    """Detections -> [(score, class, box)]."""
    return list(zip(found.scores.tolist(), found.classes.tolist(), found.boxes.tolist(), strict=True))


def test_dog_bicycle_and_car(detector, shared):
    (found,) = detector([read_picture(shared / "images" / "dog.jpg", 10**9)])
    assert {"dog", "bicycle", "car"} <= set(found.labels)


def test_a_batch_of_photographs_equals_one_by_one(detector, photographs):
    frames = list(photographs.values())[:8]
    for frame, together in zip(frames, detector(frames), strict=True):
        (alone,) = detector([frame])
        assert len(together) == len(alone)
        for score, label, box in as_list(together):
            overlap, other = nearest(label, box, as_list(alone))
            assert overlap > 0.999 and abs(score - other) < 1e-4


def test_boxes_are_those_of_opencvs_importer(detector, photographs, shared):
    net = importer(
        shared / "weights" / "yolov4-tiny-voc.cfg", shared / "weights" / "yolov4-tiny-voc.weights", SIZE, 0.001
    )
    pictures = [read_picture(x, 10**9) for x in sorted((shared / "images").glob("*.jpg"))]
    compared = 0
    for frame in [*pictures, *list(photographs.values())[::4]]:
        _, rows = importer_answers(net, detector.fit([frame]).numpy())
        height, width, top, left = darknet_placement(*frame.shape[:2], (SIZE, SIZE), detector.spec.resize)
        boxes = in_fractions_of_the_picture(corner_form(rows[:, :4]), height, width, top, left)
        pixels = np.array([frame.shape[1], frame.shape[0]] * 2)
        theirs = [
            (score, label, (np.clip(box, 0, 1) * pixels).tolist())
            for score, label, box in greedy(boxes, rows[:, 5:], 0.24, 0.45, "diou")
        ]
        ours = as_list(detector([frame], 0.24)[0])
        for these, those in ((ours, theirs), (theirs, ours)):
            for score, label, box in these:
                if score >= 0.25:
                    overlap, other = nearest(label, box, those)
                    assert overlap >= 0.99
                    assert abs(score - other) <= 1e-3
                    compared += 1
    assert compared > 100


def in_fractions_of_the_picture(boxes, height, width, top, left):
    """Boxes (..., 4) in fractions of the network input, the picture's place there -> in fractions of the picture."""
    return (boxes * SIZE - np.float32([left, top] * 2)) / np.float32([width, height] * 2)


def matches(label, score, box, found):
    overlap, other = nearest(label, box, found)
    return overlap >= 0.97 and abs(score - other) <= 0.02


@pytest.mark.slow
def test_every_answer_of_darknet_is_found(detector, photographs, shared):
    """Darknet's way back from the letterbox (correct_yolo_boxes) takes half the margin unrounded, half a pixel off
    where the margin is odd. Measured: IoU at least 0.995, scores within 0.011, but for two letterboxed answers: there
    another box scores the same to 0.001 and is the one that wins here."""
    resize = detector.spec.resize
    answers = json.loads((shared / "coco64" / f"darknet-{resize}.json").read_text())
    assert answers.keys() == photographs.keys()
    found, near_ties = 0, 0
    for name, frame in photographs.items():
        height, width, top, left = darknet_placement(*frame.shape[:2], (SIZE, SIZE), resize)
        predictions = detector.network(detector.fit([frame]))["predictions"].numpy()
        half_margins = (SIZE - height) / 2, (SIZE - width) / 2
        boxes = in_fractions_of_the_picture(predictions[..., :4], height, width, *half_margins)
        predictions = np.concatenate([boxes, predictions[..., 4:]], -1)
        boxes, scores, classes, valid = (x[0].numpy() for x in suppress(predictions, 0.005, 0.45, "diou"))
        ours = list(zip(scores.tolist(), classes.tolist(), boxes.tolist(), strict=True))[:valid]
        for label, score, *box in answers[name]:
            box = corner_form(np.array(box)).tolist()
            if score < 0.25:
                continue
            if matches(label, score, box, ours):
                found += 1
                continue
            rows = predictions[0][predictions[0, :, 4 + label] > 0.2]
            before = [(row[4 + label], label, row[:4].tolist()) for row in rows]
            assert matches(label, score, box, before), (name, label, score, box)
            _, own_score = nearest(label, box, before)
            assert any(
                kind == label and 0 < rival_score - own_score < 0.001 and diou(rival, box) > 0.45
                for rival_score, kind, rival in ours
            ), (name, label, score, box)
            near_ties += 1
    assert found > 150
    assert near_ties <= 2


@pytest.mark.slow
def test_ap50_on_photographs_is_darknets(detector, photographs, shared, tmp_path):
    """And equal to that of the script that measured Darknet, but for what rounding to thousandths of a pixel does."""
    coco, voc = (read_class_names(shared / "darknet" / f"{name}.names") for name in ("coco", "voc"))
    records = coco64(shared / "coco64", lambda name: photographs[name].shape[:2], coco, voc)
    sizes = [photographs[record.picture.name].shape[:2] for record in records]
    scores = evaluate(detector, records, sizes, voc, 0.001, 0.45, batch_size=4)
    assert sum(row.boxes for row in scores.classes) == 287
    assert abs(100 * scores.AP50 - DARKNET_AP50[detector.spec.resize]) <= AP50_WITHIN[detector.spec.resize]

    answers = {record.picture.name: [] for record in records}
    for row in scores.detections:
        left, top, width, height = row["bbox"]
        box = [left, top, left + width, top + height]
        answers[records[row["image_id"] - 1].picture.name].append([row["category_id"], row["score"], *box])
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    script = shared.parent / "tools" / "coco64_ap.py"
    run = subprocess.run(
        [sys.executable, script, tmp_path / "answers.json"], capture_output=True, text=True, check=True
    )
    theirs = [float(re.search(rf"{name} ([\d.]+)", run.stdout)[1]) for name in ("AP", "AP50")]
    ours = [scores.AP, scores.AP50]
    assert ours == pytest.approx(theirs, abs=2e-4)


def test_weights_with_anchors_of_their_own(shared, tmp_path, monkeypatch):
    """YOLOv3-tiny trained on seven toys, its fine head with the anchors mask = 1,2,3."""
    weights = tmp_path / "toys.weights"
    weights.write_bytes(gzip.decompress((shared / "weights" / "yolov3-tiny-zynq7.weights.gz").read_bytes()))
    cfg = (shared / "weights" / "yolov3-tiny-zynq7.cfg").read_text()
    numbers = [float(x) for x in re.search(r"(?m)^anchors *= *(.*)$", cfg)[1].split(",")]
    pairs = list(zip(numbers[0::2], numbers[1::2], strict=True))
    monkeypatch.setattr(configs, "YOLO_ANCHORS", [pairs[1:4], pairs[3:6]])
    names, size = shared / "weights" / "classes7.names", int(re.search(r"(?m)^width *= *(\d+)", cfg)[1])
    detector = Load_Yolo_model(weights, names, size, "yolov3", True, "tf", "FP32", "letterbox", 0.5, 0.45)
    (found,) = detector([read_picture(shared / "weights" / "t19.jpg", 10**9)])
    best = dict(zip(found.labels[::-1], found.scores[::-1].tolist(), strict=True))
    expected = {
        "cone_bar": 0.97,
        "doll": 0.90,
        "light_yellow": 0.58,
        "arrow_sign": 0.57,
    }
    assert best == pytest.approx(expected, abs=0.01)


# --- The official weights that come along ----------------------------------------------------------------------------

# AP50 of Darknet's answers at score >= 0.005, how far ours may be off, and how many of its answers at score >= 0.25
# have one of ours. The others are near ties, where another box of about the same score wins here, and one bowl 24
# pixels high, which Darknet places by half pixels where it places its picture by whole ones.
OFFICIAL = {"letterbox": (44.34, 0.3, 177, 179), "stretch": (47.75, 0.5, 185, 187)}


@pytest.mark.slow
@pytest.mark.parametrize("resize", OFFICIAL)
def test_the_official_weights_answer_as_darknet_does(resize, photographs, shared):
    names = read_class_names("model_data/coco/coco.names")
    weights = "model_data/yolov3-tiny.weights"
    detector = Load_Yolo_model(weights, names, SIZE, "yolov3", True, "tf", "FP32", resize, 0.005, 0.45)
    answers = json.loads((shared / "coco64" / f"yolov3-tiny-mask123-{resize}.json").read_text())
    AP50, within, least, count = OFFICIAL[resize]

    found, told = 0, 0
    for name, frame in photographs.items():
        ours, pixels = as_list(detector([frame])[0]), np.array([*frame.shape[1::-1]] * 2)
        for label, score, *box in answers[name]:
            if score >= 0.25:
                told += 1
                box = np.clip(corner_form(np.array(box)), 0, 1) * pixels
                found += any(
                    kind == label and abs(other - score) <= 0.01 and iou(box, near) >= 0.95
                    for other, kind, near in ours
                )
    assert told == count
    assert found >= least >= 0.985 * count

    records = coco64(shared / "coco64", lambda name: photographs[name].shape[:2], names, names)
    sizes = [photographs[record.picture.name].shape[:2] for record in records]
    scores = evaluate(detector, records, sizes, names, 0.005, 0.45, batch_size=4)
    assert sum(row.boxes for row in scores.classes) == 461
    assert abs(100 * scores.AP50 - AP50) <= within


def test_the_first_picture_of_a_newcomer():
    """As cloned and offline: three right boxes of three classes, none that is wrong."""
    detector = Load_Yolo_model("model_data/yolov3-tiny.weights", input_size=SIZE, framework="tf", resize="letterbox")
    (found,) = detector([read_picture("IMAGES/scene.jpg", 10**9)], 0.3)
    assert sorted(found.labels) == ["cat", "cup", "person"]
