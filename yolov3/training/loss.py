"""What training minimises: YOLOv4's loss, from raw heads and the boxes that are really there.

TensorFlow graph ops only, no Keras. Sources: Darknet's yolo_layer.c (who answers for a box, what is ignored, label
smoothing) and Zheng et al. 2020, "Distance-IoU Loss" (CIoU).
"""

import math
from typing import NamedTuple

from yolov3.boxes import area, decode_head

import tensorflow as tf

REFERENCE_SIZE = 416  # pixels; at any input size all the cells without a box weigh together what they weigh at this one
TINY = 1e-7  # keeps divisions and square roots from zero
TERMS = ("box", "objectness", "class")


class LossOptions(NamedTuple):
    """Darknet's names and yolov4.cfg's values, but for the weights of the terms, which hold for true gradients."""

    ignore_thresh: float = 0.7  # no loss where a cell without a box predicts one with more IoU than this
    iou_thresh: float = 0.213  # beside the best anchor, those with more IoU with the box's size answer for it too
    label_smoothing: float = 0.01  # a class is asked for 1 - half of it, the others for half of it
    weights: tuple = (2.0, 1.0, 1.0)  # of TERMS


DEFAULTS = LossOptions()


def yolo_loss(raw_heads, truth, heads, options=DEFAULTS):
    """Raw heads (N, g, g, A * (5 + C)) and truth (N, K, 5) -> {term: float32 (N,)}, the loss of each picture.

    truth: x1, y1, x2, y2 in fractions of the network input, then the class; rows of class -1 are padding.
    Each term is the sum over a picture's boxes (and for objectness over its empty cells), weighted: its mean over a
    batch means the same at any batch size.
    """
    # 1. The boxes, and which anchors of which head answer for them
    boxes, classes = truth[..., :4], tf.cast(truth[..., 4], tf.int32)
    size = heads.strides[0] * tf.shape(raw_heads[0])[1]  # pixels of network input
    owners = responsible_anchors(boxes, classes >= 0, heads.anchors, tf.cast(size, tf.float32), options.iou_thresh)

    # 2. The terms of each head, added up
    totals = [0.0] * len(TERMS)
    for i, (raw, theirs) in enumerate(zip(raw_heads, owners, strict=True)):
        terms = head_loss(raw, boxes, classes, theirs, size, heads, i, options)
        totals = [total + term for total, term in zip(totals, terms, strict=True)]
    return {name: weight * total for name, weight, total in zip(TERMS, options.weights, totals, strict=True)}


def responsible_anchors(boxes, present, anchors, size, iou_thresh):
    """boxes (N, K, 4), present bool (N, K) -> bool (N, K, A) for each head: the anchor whose shape is most like the
    box's, and others with an IoU over the threshold, both centred on one point (Darknet: `best_n` and `iou_thresh`)."""
    counts = [len(head) for head in anchors]
    anchors = tf.constant([anchor for head in anchors for anchor in head], tf.float32)  # (all anchors, 2), pixels
    sides = (boxes[..., 2:] - boxes[..., :2])[..., tf.newaxis, :] * size  # (N, K, 1, 2)
    both = tf.reduce_prod(tf.minimum(sides, anchors), -1)
    iou = both / (tf.reduce_prod(sides, -1) + tf.reduce_prod(anchors, -1) - both)  # (N, K, all anchors)
    best = tf.reduce_max(iou, -1, keepdims=True)
    return tf.split(((iou == best) | (iou > iou_thresh)) & present[..., tf.newaxis], counts, -1)


def head_loss(raw, boxes, classes, owners, size, heads, i, options):
    """One raw head -> its three terms, each (N,). owners: bool (N, K, A), which of its anchors answer for each box."""
    # 1. Logits and boxes of every cell and anchor, in rows
    cells, count = tf.shape(raw)[1], len(heads.anchors[i])
    channels = raw.shape[-1] // count
    logits = tf.reshape(raw, (-1, cells * cells * count, channels))[..., 4:]
    predicted = decode_head(raw, heads.strides[i], heads.anchors[i], heads.scale_x_y[i], heads.new_coords)[0]

    # 2. The rows that answer: those of the cell that holds a box's centre
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    cell = tf.clip_by_value(tf.cast(centre * tf.cast(cells, tf.float32), tf.int32), 0, cells - 1)  # x, y
    row = (cell[..., 1] * cells + cell[..., 0])[..., tf.newaxis] * count + tf.range(count)
    answering = tf.cast(owners, tf.float32)  # (N, K, A), as row

    # 3. Where they are: 1 - CIoU
    misplaced = 1 - ciou(tf.gather(predicted, row, batch_dims=1), boxes[:, :, tf.newaxis])

    # 4. What they are: cross entropy of each class on its own, smoothed as Darknet's label_smooth_eps
    asked = tf.one_hot(classes, channels - 5)[:, :, tf.newaxis]
    asked = asked * (1 - options.label_smoothing) + options.label_smoothing / 2
    named = tf.gather(logits[..., 1:], row, batch_dims=1)  # (N, K, A, C)
    misnamed = tf.reduce_sum(cross_entropy(named, tf.broadcast_to(asked, tf.shape(named))), -1)

    # 5. Whether they are there: 1 where a row answers, 0 elsewhere but where a good box was predicted all the same
    is_object = scatter_rows(row, answering, tf.shape(logits)[1])  # (N, rows)
    overlap = tf.stop_gradient(best_iou(predicted, boxes))
    is_empty = (1 - is_object) * tf.cast(overlap <= options.ignore_thresh, tf.float32)
    weight = is_object + is_empty * tf.cast(REFERENCE_SIZE / size, tf.float32) ** 2
    missed = weight * cross_entropy(logits[..., 0], is_object)

    return (
        tf.reduce_sum(answering * misplaced, (1, 2)),
        tf.reduce_sum(missed, 1),
        tf.reduce_sum(answering * misnamed, (1, 2)),
    )


def scatter_rows(row, answering, rows):
    """row int32 (N, K, A), answering 0 or 1 (N, K, A) -> float32 (N, rows): 1 where any box has its row."""
    batch = tf.broadcast_to(tf.range(tf.shape(row)[0])[:, tf.newaxis, tf.newaxis], tf.shape(row))
    shape = tf.stack([tf.shape(row)[0], rows])
    return tf.tensor_scatter_nd_max(tf.zeros(shape), tf.stack([batch, row], -1), answering)


def cross_entropy(logits, asked):
    """Binary, of each logit on its own."""
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=asked, logits=logits)


def best_iou(predicted, boxes):
    """predicted (N, rows, 4), boxes (N, K, 4) -> (N, rows): the IoU with the box that fits best; 0 without any."""
    x1, y1, x2, y2 = (predicted[:, :, tf.newaxis, i] for i in range(4))  # each (N, rows, 1)
    left, top, right, bottom = (boxes[:, tf.newaxis, :, i] for i in range(4))  # each (N, 1, K)
    width = tf.maximum(tf.minimum(x2, right) - tf.maximum(x1, left), 0)
    both = width * tf.maximum(tf.minimum(y2, bottom) - tf.maximum(y1, top), 0)
    either = ((x2 - x1) * (y2 - y1) + TINY) + (right - left) * (bottom - top) - both
    return tf.reduce_max(both / either, -1)


def ciou(a, b):
    """Complete IoU of xyxy boxes (..., 4): IoU, less the distance of the centres, less the difference in shape."""
    lower, upper = tf.maximum(a[..., :2], b[..., :2]), tf.minimum(a[..., 2:], b[..., 2:])
    both = tf.reduce_prod(tf.maximum(upper - lower, 0), -1)
    iou = both / (area(a) + area(b) - both + TINY)

    hull = tf.maximum(a[..., 2:], b[..., 2:]) - tf.minimum(a[..., :2], b[..., :2])
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = tf.reduce_sum(centres**2, -1) / (tf.reduce_sum(hull**2, -1) + TINY)

    angle_a, angle_b = (tf.atan2(x[..., 2] - x[..., 0] + TINY, x[..., 3] - x[..., 1] + TINY) for x in (a, b))
    shape = 4 / math.pi**2 * (angle_a - angle_b) ** 2
    trade = tf.stop_gradient(shape / (1 - iou + shape + TINY))  # alpha of the paper, a constant there too
    return iou - distance - trade * shape
