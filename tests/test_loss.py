"""The loss against cases worked by hand and against the same rules as plain loops."""

import math

from yolov3.networks import Heads
from yolov3.training.loss import DEFAULTS, REFERENCE_SIZE, ciou, responsible_anchors, yolo_loss

import numpy as np
import pytest
import tensorflow as tf
from oracle import iou

HEADS = Heads((16, 32), (((20, 20), (40, 40), (80, 30)), ((80, 80), (160, 160), (300, 300))), (1.05, 1.05), "diou")
CLASSES = 3
EMPTY = -1.0


def raw_heads(size, pictures=1, fill=0.0):
    return [np.full((pictures, size // s, size // s, 3 * (5 + CLASSES)), fill, np.float32) for s in HEADS.strides]


def truth_of(*boxes):
    """Rows of x1, y1, x2, y2, class in fractions; one of padding behind them."""
    return np.array([[*boxes, (0, 0, 0, 0, EMPTY)]], np.float32)


def loss_of(raw, truth, options=DEFAULTS):
    return {name: value.numpy() for name, value in yolo_loss(raw, truth, HEADS, options).items()}


def softplus(x):
    return np.logaddexp(0, x)


# --- Where: CIoU -----------------------------------------------------------------------------------------------------


def test_ciou_of_equal_boxes_is_one():
    assert ciou(tf.constant([0.1, 0.2, 0.5, 0.4]), tf.constant([0.1, 0.2, 0.5, 0.4])).numpy() == pytest.approx(
        1, abs=1e-5
    )


def test_ciou_of_moved_boxes_of_one_shape_loses_the_distance_of_their_centres():
    value = ciou(tf.constant([0.0, 0, 2, 2]), tf.constant([1.0, 0, 3, 2])).numpy()
    assert value == pytest.approx(2 / 6 - 1 / (3**2 + 2**2), abs=1e-5)


def test_ciou_of_concentric_boxes_loses_the_difference_in_shape():
    value = ciou(tf.constant([0.0, 0, 2, 2]), tf.constant([-1.0, 0, 3, 2])).numpy()  # 2 x 2 in 4 x 2
    shape = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    assert value == pytest.approx(1 / 2 - shape**2 / (1 - 1 / 2 + shape), abs=1e-5)


def test_ciou_of_boxes_apart_still_tells_near_from_far():
    box = tf.constant([0.0, 0, 1, 1])
    near, far = (ciou(box, tf.constant([x, 0, x + 1, 1])).numpy() for x in (2.0, 5.0))
    assert far < near < 0
    assert near == pytest.approx(-(2**2) / (3**2 + 1), abs=1e-5)


# --- Who answers -----------------------------------------------------------------------------------------------------


def owners_of(width, height, iou_thresh, size=320):
    box = tf.constant([[[0.0, 0.0, width / size, height / size]]])
    found = responsible_anchors(box, tf.constant([[True]]), HEADS.anchors, tf.constant(float(size)), iou_thresh)
    found = [(anchors, owners.numpy()) for anchors, owners in zip(HEADS.anchors, found, strict=True)]
    return {anchors[anchor] for anchors, owners in found for _, _, anchor in np.argwhere(owners)}


def test_the_anchor_of_the_most_similar_size_answers():
    assert owners_of(38, 45, iou_thresh=1.0) == {(40, 40)}
    assert owners_of(200, 190, iou_thresh=1.0) == {(160, 160)}


def test_others_answer_too_if_similar_enough():
    # 60 x 60: with 40 x 40 IoU 1600/3600 = 0.44, with 80 x 80 3600/6400 = 0.56, with 80 x 30 1800/4200 = 0.43
    assert owners_of(60, 60, iou_thresh=0.435) == {(80, 80), (40, 40)}
    assert owners_of(60, 60, iou_thresh=0.42) == {(80, 80), (40, 40), (80, 30)}


def test_the_best_answers_however_bad_it_is():
    assert owners_of(2, 300, iou_thresh=0.213) == {(20, 20)}


def test_nobody_answers_for_padding():
    found = responsible_anchors(tf.zeros((1, 2, 4)), tf.zeros((1, 2), tf.bool), HEADS.anchors, tf.constant(320.0), 0.2)
    assert not any(owners.numpy().any() for owners in found)


# --- The terms -------------------------------------------------------------------------------------------------------


def test_an_empty_picture_costs_its_false_objects_only():
    raw = raw_heads(REFERENCE_SIZE)
    for head in raw:
        head[..., 4::8] = 2.0  # the objectness of each anchor
    loss = loss_of(raw, truth_of())
    cells = 3 * ((REFERENCE_SIZE // 16) ** 2 + (REFERENCE_SIZE // 32) ** 2)
    assert loss["objectness"] == pytest.approx([cells * softplus(2.0)], rel=1e-5)
    assert (loss["box"], loss["class"]) == (0, 0)


@pytest.mark.parametrize("size", [320, 608])
def test_an_empty_picture_costs_the_same_at_any_size(size):
    assert loss_of(raw_heads(size), truth_of())["objectness"] == pytest.approx(
        loss_of(raw_heads(REFERENCE_SIZE), truth_of())["objectness"], rel=1e-5
    )


def test_a_box_costs_the_same_at_any_size_and_in_any_batch():
    # The same pixels of network input, once in a smaller input: only its cell counts, and the empty ones alike
    box = np.array([32, 32, 72, 72])
    alone = [loss_of(raw_heads(size), truth_of((*(box / size), 1))) for size in (320, 416)]
    assert alone[0]["class"] == pytest.approx(alone[1]["class"], rel=1e-5)
    assert alone[0]["box"] == pytest.approx(alone[1]["box"], rel=1e-3)

    truth = truth_of((*(box / 320), 1))
    four = loss_of(raw_heads(320, pictures=4), np.concatenate([truth] * 4))
    for name, value in four.items():
        assert value == pytest.approx(np.repeat(alone[0][name], 4), rel=1e-5)


def test_a_class_is_asked_for_with_label_smoothing():
    options = DEFAULTS._replace(iou_thresh=1.0, label_smoothing=0.2, weights=(1.0, 1.0, 1.0))
    raw = raw_heads(320)
    cell = raw[0][0, 10, 10]  # of a box 40 x 40 around pixel (168, 168): the second anchor of the first head
    cell[8 + 5 : 8 + 8] = 1.0, -2.0, 0.5
    loss = loss_of(raw, truth_of((*(np.array([148, 148, 188, 188]) / 320), 1)), options)
    asked = np.array([0.1, 0.9, 0.1])
    logits = np.array([1.0, -2.0, 0.5])
    assert loss["class"] == pytest.approx([np.sum(softplus(logits) - asked * logits)], rel=1e-5)


def test_an_empty_cell_with_a_good_box_is_not_told_off():
    options = DEFAULTS._replace(iou_thresh=1.0)
    truth = truth_of((*(np.array([148, 148, 188, 188]) / 320), 1))
    raw = raw_heads(320, fill=0.0)
    for head in raw:
        head[..., 4::8] = -30.0  # nothing anywhere ...
    raw[0][0, 10, 10, 8 + 4] = 30.0  # ... but where it should be
    right = loss_of(raw, truth, options)["objectness"]
    assert right == pytest.approx([0], abs=1e-6)

    raw[0][0, 10, 11, 8 + 4] = 5.0  # the cell beside it: a box of the right size, 16 pixels off, IoU 0.43
    assert loss_of(raw, truth, options)["objectness"] > 4
    raw[0][0, 10, 11, 8] = -8.0  # now 9 pixels off, IoU 0.63; and 2 pixels wider each side
    raw[0][0, 10, 11, 8 + 2] = math.log(1.4)
    assert iou((148, 148, 188, 188), (148, 148, 204, 188)) > DEFAULTS.ignore_thresh
    assert loss_of(raw, truth, options)["objectness"] == pytest.approx([0], abs=1e-6)


def test_the_whole_loss_is_that_of_plain_loops():
    random = np.random.default_rng(0)
    raw = [random.normal(0, 1, head.shape).astype(np.float32) for head in raw_heads(96, pictures=2)]
    corners = random.uniform(0.02, 0.9, (2, 6, 2))
    sides = random.uniform(0.05, 0.8, (2, 6, 2))
    truth = np.concatenate([corners, np.minimum(corners + sides, 1), random.integers(0, CLASSES, (2, 6, 1))], -1)
    truth[1, 4:] = 0, 0, 0, 0, EMPTY
    loss = loss_of(raw, truth.astype(np.float32))
    for picture in range(2):
        expected = loss_in_loops([head[picture] for head in raw], truth[picture], 96)
        for name, value in expected.items():
            assert loss[name][picture] == pytest.approx(value, rel=1e-4), name


def loss_in_loops(raw, truth, size):
    """One picture."""
    rows, at = [], {}  # each row: box, logits of objectness and classes
    for i, (head, stride) in enumerate(zip(raw, HEADS.strides, strict=True)):
        cells = size // stride
        for y, x, a in np.ndindex(cells, cells, 3):
            t = head[y, x, a * 8 : a * 8 + 8].astype(float)
            centre = [(c + 1.05 / (1 + math.exp(-v)) - 0.025) / cells for c, v in ((x, t[0]), (y, t[1]))]
            half = [math.exp(v) * side / size / 2 for v, side in zip(t[2:4], HEADS.anchors[i][a], strict=True)]
            at[i, y, x, a] = len(rows)
            rows.append((centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1], *t[4:]))

    boxes = [box for box in truth if box[4] >= 0]
    terms, owned = {"box": 0.0, "objectness": 0.0, "class": 0.0}, set()
    for box in boxes:
        shape = (0, 0, (box[2] - box[0]) * size, (box[3] - box[1]) * size)
        overlaps = {(i, a): iou(shape, (0, 0, *HEADS.anchors[i][a])) for i in range(2) for a in range(3)}
        best = max(overlaps.values())
        for (i, a), overlap in overlaps.items():
            if overlap == best or overlap > DEFAULTS.iou_thresh:
                cells = size // HEADS.strides[i]
                row = at[i, int((box[1] + box[3]) / 2 * cells), int((box[0] + box[2]) / 2 * cells), a]
                owned.add(row)
                terms["box"] += 1 - ciou_in_loops(rows[row][:4], box)
                for c, logit in enumerate(rows[row][5:]):
                    asked = 1 - DEFAULTS.label_smoothing / 2 if c == box[4] else DEFAULTS.label_smoothing / 2
                    terms["class"] += softplus(logit) - asked * logit
    for i, row in enumerate(rows):
        if i in owned:
            terms["objectness"] += softplus(row[4]) - row[4]
        elif max(iou(row[:4], box) for box in boxes) <= DEFAULTS.ignore_thresh:
            terms["objectness"] += softplus(row[4]) * (REFERENCE_SIZE / size) ** 2
    return {name: weight * terms[name] for name, weight in zip(terms, DEFAULTS.weights, strict=True)}


def ciou_in_loops(a, b):
    hull = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    centres = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    angles = math.atan((a[2] - a[0]) / (a[3] - a[1])) - math.atan((b[2] - b[0]) / (b[3] - b[1]))
    shape = 4 / math.pi**2 * angles**2
    return iou(a, b) - centres / hull - shape**2 / (1 - iou(a, b) + shape)


# --- No NaN ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1e4, -80.0, 0.0, 80.0, 1e4])
@pytest.mark.parametrize("box", [(0, 0, 1, 1, 0), (0.5, 0.5, 0.5, 0.5, 1), (1, 1, 1, 1, 2)])
def test_loss_and_gradients_are_numbers_for_any_output_and_box(value, box):
    raw = [tf.constant(head) for head in raw_heads(64, fill=value)]
    with tf.GradientTape() as tape:
        tape.watch(raw)
        loss = sum(yolo_loss(raw, truth_of(box), HEADS).values())
    assert np.isfinite(loss.numpy()).all()
    assert all(np.isfinite(gradient.numpy()).all() for gradient in tape.gradient(loss, raw))
