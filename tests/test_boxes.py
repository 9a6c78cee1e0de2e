"""Decoding and suppression against hand-worked cases and plain loops."""

import math
from dataclasses import replace

from yolov3.boxes import MAX_BOXES, decode, diou, finish, suppress
from yolov3.checkpoint import ModelSpec
from yolov3.networks import NETWORKS, Heads

import numpy as np
import pytest
import tensorflow as tf
from oracle import centre_form, greedy
from oracle import diou as plain_diou
from oracle import iou as plain_iou

LN3 = math.log(3)  # sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4

# --- Decoding ------------------------------------------------------------------------------------------------------


def test_one_cell_worked_by_hand():
    raw = np.full((1, 2, 2, 3 * 7), -50, np.float32)
    raw[0, 1, 0, 14:] = (LN3, -LN3, math.log(2), 0, 0, LN3, -50)  # cell x 0, y 1, its last anchor
    heads = Heads((16,), (((1, 1), (2, 2), (4, 8)),), (1.2,), "iou")
    predictions = decode([raw], heads).numpy()
    assert predictions.shape == (1, 12, 6)
    row = (1 * 2 + 0) * 3 + 2
    # x: (0.75 * 1.2 - 0.1 + 0) / 2 = 0.4; y: (0.25 * 1.2 - 0.1 + 1) / 2 = 0.6; w: 2 * 4 / 32; h: 1 * 8 / 32
    np.testing.assert_allclose(centre_form(predictions[0, row, :4]), (0.4, 0.6, 0.25, 0.25), atol=1e-6)
    np.testing.assert_allclose(predictions[0, row, 4:], (0.5 * 0.75, 0), atol=1e-6)
    assert np.delete(predictions[0, :, 4:], row, 0).max() < 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_decode_equals_a_plain_loop(name):
    heads, classes, size = NETWORKS[name].heads, 2, 64
    random = np.random.RandomState(3)
    raw = [random.randn(2, size // s, size // s, 3 * (5 + classes)).astype(np.float32) for s in heads.strides]

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    expected = [[], []]
    for n in range(2):
        for head, stride, anchors, scale in zip(raw, heads.strides, heads.anchors, heads.scale_x_y, strict=True):
            for y in range(size // stride):
                for x in range(size // stride):
                    for k, (width, height) in enumerate(anchors):
                        t = head[n, y, x, k * (5 + classes) :][: 5 + classes].astype(float)
                        centre_x = (x + sigmoid(t[0]) * scale - (scale - 1) / 2) * stride / size
                        centre_y = (y + sigmoid(t[1]) * scale - (scale - 1) / 2) * stride / size
                        box = (centre_x, centre_y, math.exp(t[2]) * width / size, math.exp(t[3]) * height / size)
                        expected[n].append([*box, *(sigmoid(t[4]) * sigmoid(c) for c in t[5:])])
    predictions = decode(raw, heads).numpy()
    ours = np.concatenate([centre_form(predictions[..., :4]), predictions[..., 4:]], -1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_a_wild_size_stays_finite():
    raw = np.full((1, 1, 1, 18), 1000, np.float32)
    heads = Heads((32,), (((459, 401),) * 3,), (1.05,), "diou")
    predictions = decode([raw], heads).numpy()
    assert np.isfinite(predictions).all()
    x1, y1, x2, y2 = predictions[0, 0, :4]
    assert x1 < -1 and y1 < -1 and x2 > 2 and y2 > 2


# --- Overlap -------------------------------------------------------------------------------------------------------

UNIT = (0.0, 0.0, 1.0, 1.0)
OVERLAPS = {  # box, IoU with UNIT, DIoU with UNIT
    "identical": (UNIT, 1, 1),
    "nested, one centre": ((0.25, 0.25, 0.75, 0.75), 1 / 4, 1 / 4),
    "disjoint": ((2, 0, 3, 1), 0, -((4 / 10) ** 0.6)),
    "touching": ((1, 0, 2, 1), 0, -((1 / 5) ** 0.6)),
    "shifted by half": ((0.5, 0, 1.5, 1), 1 / 3, 1 / 3 - (0.25 / 3.25) ** 0.6),
    "no area, inside": ((0.5, 0.5, 0.5, 0.5), 0, 0),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_diou_worked_by_hand(name):
    box, _, expected = OVERLAPS[name]
    assert diou(tf.constant(UNIT), tf.constant(box, tf.float32)).numpy() == pytest.approx(expected, abs=1e-6)
    assert diou(tf.constant(box, tf.float32), tf.constant(UNIT)).numpy() == pytest.approx(expected, abs=1e-6)
    assert plain_diou(UNIT, box) == pytest.approx(expected)


def test_diou_of_two_points_at_one_place_is_a_number():
    point = tf.constant((0.3, 0.3, 0.3, 0.3))
    assert diou(point, point).numpy() == 0


@pytest.mark.parametrize("name", [name for name in OVERLAPS if "disjoint" not in name and "touching" not in name])
@pytest.mark.parametrize("nms", ["iou", "diou"])
def test_a_box_falls_just_below_its_overlap_and_stays_just_above(name, nms):
    box, iou, diou_ = OVERLAPS[name]
    overlap = {"iou": iou, "diou": diou_}[nms]
    assert plain_iou(UNIT, box) == pytest.approx(iou)
    predictions = np.array([[[*UNIT, 0.9], [*box, 0.8]]], np.float32)
    if overlap > 0:
        assert suppress(predictions, 0.5, overlap - 1e-3, nms)[3].numpy() == [1]
    if overlap < 1:
        assert suppress(predictions, 0.5, overlap + 1e-3, nms)[3].numpy() == [2]


# --- Suppression ---------------------------------------------------------------------------------------------------


def crowd(pictures, boxes, classes, seed, low=0.0):
    """Random predictions whose boxes overlap much; a share of the scores beyond 0.5 differs by picture."""
    random = np.random.RandomState(seed)
    centres = random.uniform(0.2, 0.8, (pictures, boxes, 2))
    sizes = random.uniform(0.05, 0.5, (pictures, boxes, 2))
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1)
    scores = random.uniform(low, 1, (pictures, boxes, classes))
    return np.concatenate([corners, scores], -1).astype(np.float32)


def assert_equal_to_the_plain_loop(predictions, score_threshold, iou_threshold, nms, class_agnostic=False, beta=0.6):
    answers = suppress(predictions, score_threshold, iou_threshold, nms, class_agnostic=class_agnostic, beta=beta)
    found = [x.numpy() for x in answers]
    assert [x.shape[:2] for x in found[:3]] == [(len(predictions), MAX_BOXES)] * 3
    assert [x.dtype for x in found] == [np.float32, np.float32, np.int32, np.int32]
    for picture, boxes, scores, classes, valid in zip(predictions, *found, strict=True):
        expected = greedy(picture[:, :4], picture[:, 4:], score_threshold, iou_threshold, nms, class_agnostic, beta)
        expected = expected[:MAX_BOXES]
        assert valid == len(expected)
        np.testing.assert_array_equal(scores[:valid], np.float32([score for score, _, _ in expected]))
        np.testing.assert_array_equal(classes[:valid], [label for _, label, _ in expected])
        np.testing.assert_array_equal(boxes[:valid], np.float32([box for _, _, box in expected]).reshape(-1, 4))
        assert not boxes[valid:].any() and not scores[valid:].any() and not classes[valid:].any()
    return found[3]


@pytest.mark.parametrize("nms", ["iou", "diou"])
@pytest.mark.parametrize(("boxes", "classes", "seed"), [(1, 1, 0), (40, 1, 1), (200, 3, 2), (90, 20, 3)])
@pytest.mark.parametrize("iou_threshold", [0.2, 0.45, 0.7])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_suppression_equals_the_greedy_loop(nms, boxes, classes, seed, iou_threshold, class_agnostic):
    valid = assert_equal_to_the_plain_loop(crowd(2, boxes, classes, seed), 0.6, iou_threshold, nms, class_agnostic)
    assert boxes == 1 or valid.min() > 3


def test_the_power_of_dious_penalty_is_the_cfgs():
    """beta_nms of nms_kind=diounms: the smaller, the larger is the penalty, which spares boxes."""
    predictions, spared = crowd(2, 60, 3, 2), []
    for beta in (0, 0.2, 0.6, 1, 3):
        spared.append(assert_equal_to_the_plain_loop(predictions, 0.6, 0.45, "diou", beta=beta).sum())
    assert spared == sorted(spared, reverse=True) and len(set(spared)) > 3
    spec = ModelSpec("yolov4", True, ("a", "b", "c"), (64, 64), "stretch", NETWORKS["yolov4-tiny"].heads)
    for beta, expected in ((0.2, spared[1]), (0.6, spared[2])):
        own = replace(spec, heads=spec.heads._replace(beta_nms=beta))
        assert finish(predictions, np.full((2, 2), 64), 0.6, 0.45, own)[3].numpy().sum() == expected


@pytest.mark.parametrize("nms", ["iou", "diou"])
def test_pictures_of_one_batch_do_not_disturb_each_other(nms):
    predictions = crowd(5, 300, 2, 7)
    for picture, share in enumerate((1.0, 0.0, 0.01, 0.3, 0.001)):  # of the boxes: hundreds beside none
        predictions[picture, int(share * 300) :, 4:] *= 0.1
    valid = assert_equal_to_the_plain_loop(predictions, 0.3, 0.5, nms)
    assert valid[0] > 20 and valid[1] == 0 and 1 <= valid[2] <= 6
    for picture in range(5):
        assert_equal_to_the_plain_loop(predictions[picture : picture + 1], 0.3, 0.5, nms)


def test_diou_is_measured_in_fractions_of_the_picture():
    """`scale` turns fractions of the network input into those of each picture, which changes DIoU but not IoU."""
    predictions = crowd(3, 200, 2, 11)
    scale = np.float32([(1, 1, 1, 1), (1, 4, 1, 4), (3, 1, 3, 1)])
    found = [x.numpy() for x in suppress(predictions, 0.6, 0.3, "diou", scale[:, np.newaxis])]
    for picture, factors, boxes, scores, classes, valid in zip(predictions, scale, *found, strict=True):
        expected = greedy(picture[:, :4] * factors, picture[:, 4:], 0.6, 0.3, "diou")
        assert [(s, c) for s, c, _ in expected] == list(zip(scores.tolist(), classes.tolist(), strict=True))[:valid]
        np.testing.assert_allclose(boxes[:valid] * factors, [box for _, _, box in expected], rtol=1e-6)
    unscaled = suppress(predictions, 0.6, 0.3, "diou")[3].numpy()
    assert unscaled[0] == found[3][0]
    assert (unscaled[1:] != found[3][1:]).any()


@pytest.mark.parametrize("nms", ["iou", "diou"])
def test_a_box_of_several_classes_is_one_detection_for_each(nms):
    predictions = np.array([[[*UNIT, 0.7, 0.2, 0.9], [0.01, 0, 1, 1, 0.8, 0.1, 0.3]]], np.float32)
    boxes, scores, classes, valid = (x.numpy()[0] for x in suppress(predictions, 0.25, 0.45, nms))
    assert valid == 2
    assert classes[:2].tolist() == [2, 0]
    np.testing.assert_array_equal(scores[:2], np.float32([0.9, 0.8]))
    np.testing.assert_array_equal(boxes[:2], np.float32([UNIT, (0.01, 0, 1, 1)]))


@pytest.mark.parametrize("nms", ["iou", "diou"])
def test_one_lorry_is_not_a_car_and_a_truck(nms):
    """Class-agnostic: boxes of other classes are suppressed, too, and one box has one class."""
    far = (2.0, 2.0, 3.0, 3.0)
    predictions = np.array(
        [[[*UNIT, 0.4, 0.8], [0.01, 0, 1, 1, 0.7, 0.3], [*far, 0.6, 0.6]], [[*UNIT, 0.9, 0.1]] + [[*far, 0, 0]] * 2],
        np.float32,
    )
    boxes, scores, classes, valid = (x.numpy() for x in suppress(predictions, 0.25, 0.45, nms, class_agnostic=True))
    assert valid.tolist() == [2, 1]
    assert classes[:, :2].tolist() == [[1, 0], [0, 0]]  # of equal scores the first
    np.testing.assert_array_equal(scores[:, :2], np.float32([[0.8, 0.6], [0.9, 0]]))
    np.testing.assert_array_equal(boxes[0, :2], np.float32([UNIT, far]))
    assert suppress(predictions, 0.25, 0.45, nms)[3].numpy().tolist() == [4, 1]


@pytest.mark.parametrize("nms", ["iou", "diou"])
def test_more_than_a_hundred_boxes_leave_the_hundred_best(nms):
    side = np.arange(20) / 20
    x, y = np.meshgrid(side, side)  # 400 boxes that do not touch
    scores = np.random.RandomState(0).permutation(np.linspace(0.5, 0.99, 400))
    predictions = np.stack([x, y, x + 0.04, y + 0.04, scores.reshape(20, 20)], -1).reshape(1, 400, 5)
    found = suppress(predictions.astype(np.float32), 0.3, 0.45, nms)
    assert found[3].numpy() == [MAX_BOXES]
    np.testing.assert_array_equal(found[1].numpy()[0], np.float32(np.sort(scores)[::-1][:MAX_BOXES]))


@pytest.mark.parametrize("nms", ["iou", "diou"])
def test_nothing_over_the_threshold_is_no_boxes(nms):
    boxes, scores, classes, valid = (x.numpy() for x in suppress(crowd(3, 50, 4, 5), 1.0, 0.45, nms))
    assert valid.tolist() == [0, 0, 0]
    assert not boxes.any() and not scores.any() and not classes.any()


@pytest.mark.parametrize("nms", ["iou", "diou"])
def test_the_score_threshold_is_sharp(nms):
    threshold = np.float32(0.3)
    above, below = np.nextafter(threshold, np.float32(1)), np.nextafter(threshold, np.float32(0))
    predictions = np.array([[[0, 0, 0.1, 0.1, above], [0.5, 0.5, 0.6, 0.6, below]]], np.float32)
    boxes, scores, _, valid = (x.numpy()[0] for x in suppress(predictions, 0.3, 0.45, nms))
    assert valid == 1
    assert scores[0] == above


def test_both_rules_agree_on_whether_a_score_at_the_threshold_reaches_it():
    predictions = np.array([[[0, 0, 0.1, 0.1, 0.5], [0.5, 0.5, 0.6, 0.6, 0.9]]], np.float32)
    assert len({int(suppress(predictions, 0.5, 0.45, nms)[3][0]) for nms in ("iou", "diou")}) == 1
