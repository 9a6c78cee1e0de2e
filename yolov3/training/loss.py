"""Compute YOLOv4's loss, which a training minimises, from raw heads and annotated boxes.

These are TensorFlow graph ops without Keras. Sources: Darknet's yolo_layer.c (which anchors are responsible for a box,
what is ignored, label smoothing) and Zheng et al. 2020, "Distance-IoU Loss" (CIoU).
"""

import math
from typing import NamedTuple

from yolov3.boxes import area, decode_head
from yolov3.networks import Heads

import tensorflow as tf

REFERENCE_SIZE = 416  # pixels; at any input size the cells without a box have together the weight they have at this one
TINY = 1e-7  # keeps divisors above zero
TERMS = ("box", "objectness", "class")


class LossOptions(NamedTuple):
    """Hold the options of the loss, with Darknet's names and the values of yolov4.cfg. Only the weights of the terms
    are our own: Darknet's belong to gradients that it approximates."""

    ignore_thresh: float = 0.7  # a cell without a box has no loss if it predicts a box with a higher IoU than this
    iou_thresh: float = 0.213  # anchors with a higher IoU with a box's size are responsible for it, as is the best one
    label_smoothing: float = 0.01  # the target is 1 less half of this for the class of a box, half of this for others
    weights: tuple[float, float, float] = (2.0, 1.0, 1.0)  # of TERMS


DEFAULTS = LossOptions()


def yolo_loss(
    raw_heads: list[tf.Tensor], truth: tf.Tensor, heads: Heads, options: LossOptions = DEFAULTS
) -> dict[str, tf.Tensor]:
    """Return the loss of each picture, {term: float32 (N,)}.

    raw_heads  (N, h, w, A * (5 + C)) each, smallest stride first
    truth      (N, K, 5): x1, y1, x2, y2 in fractions of the network input, then the class; rows of class -1 are padding
    Each term is a weighted sum over a picture's boxes, and for objectness over its empty cells too: its mean over a
    batch does not depend on the batch size.
    """
    # 1. The boxes, and which anchors of which head are responsible for them
    boxes, classes = truth[..., :4], tf.cast(truth[..., 4], tf.int32)
    size = heads.strides[0] * tf.shape(raw_heads[0])[1:3]  # height and width of the network input
    responsible = responsible_anchors(boxes, classes >= 0, heads.anchors, tf.cast(size, tf.float32), options.iou_thresh)

    # 2. The terms of each head, added up
    totals = [0.0] * len(TERMS)
    for i, raw in enumerate(raw_heads):
        terms = head_loss(raw, boxes, classes, responsible[i], size, heads, i, options)
        totals = [total + term for total, term in zip(totals, terms, strict=True)]
    return {name: weight * total for name, weight, total in zip(TERMS, options.weights, totals, strict=True)}


def count_objects(truth: tf.Tensor) -> tf.Tensor:
    """Return how many boxes a batch has, float32, without padding."""
    return tf.reduce_sum(tf.cast(truth[..., 4] >= 0, tf.float32))


def responsible_anchors(
    boxes: tf.Tensor, present: tf.Tensor, anchors: tuple, size: tf.Tensor, iou_thresh: float
) -> list[tf.Tensor]:
    """Return for each head which of its A anchors are responsible for each box, bool (N, K, A): of all heads' anchors
    the one with the highest IoU, and those whose IoU exceeds the threshold, when both are centred on one point
    (Darknet: `best_n` and `iou_thresh`).

    boxes (N, K, 4); present bool (N, K), False for padding; size  height and width of the network input
    """
    counts = [len(head) for head in anchors]
    anchors = tf.constant([anchor for head in anchors for anchor in head], tf.float32)  # (all anchors, 2), pixels
    sides = (boxes[..., 2:] - boxes[..., :2])[..., tf.newaxis, :] * size[::-1]  # (N, K, 1, 2)
    both = tf.reduce_prod(tf.minimum(sides, anchors), -1)
    iou = both / (tf.reduce_prod(sides, -1) + tf.reduce_prod(anchors, -1) - both)  # (N, K, all anchors)
    best = tf.reduce_max(iou, -1, keepdims=True)
    return tf.split(((iou == best) | (iou > iou_thresh)) & present[..., tf.newaxis], counts, -1)


def head_loss(
    raw: tf.Tensor,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    responsible: tf.Tensor,
    size: tf.Tensor,
    heads: Heads,
    i: int,
    options: LossOptions,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the three TERMS, each (N,), of raw head number i.

    responsible  bool (N, K, A): which of its anchors are responsible for each box
    """
    # 1. Logits and boxes of every cell and anchor, in rows
    cells, count = tf.shape(raw)[1:3], len(heads.anchors[i])  # cells: down, across
    channels = raw.shape[-1] // count
    logits = tf.reshape(raw, (-1, cells[0] * cells[1] * count, channels))[..., 4:]
    predicted = decode_head(raw, heads.strides[i], heads.anchors[i], heads.scale_x_y[i], heads.new_coords)[0]

    # 2. The rows of the cell that holds a box's centre
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    across_down = cells[::-1]
    cell = tf.clip_by_value(tf.cast(centre * tf.cast(across_down, tf.float32), tf.int32), 0, across_down - 1)  # x, y
    row = (cell[..., 1] * cells[1] + cell[..., 0])[..., tf.newaxis] * count + tf.range(count)
    weight_of_row = tf.cast(responsible, tf.float32)  # (N, K, A), 0 or 1

    # 3. The box: 1 - CIoU
    box_loss = 1 - ciou(tf.gather(predicted, row, batch_dims=1), boxes[:, :, tf.newaxis])

    # 4. The class: cross entropy of each class on its own, smoothed as by Darknet's label_smooth_eps
    target = tf.one_hot(classes, channels - 5)[:, :, tf.newaxis]
    target = target * (1 - options.label_smoothing) + options.label_smoothing / 2
    class_logits = tf.gather(logits[..., 1:], row, batch_dims=1)  # (N, K, A, C)
    class_loss = tf.reduce_sum(cross_entropy(class_logits, tf.broadcast_to(target, tf.shape(class_logits))), -1)

    # 5. Objectness: 1 for a responsible row, 0 for all others, which are ignored if they predict a good box
    is_object = scatter_rows(row, weight_of_row, tf.shape(logits)[1])  # (N, rows)
    overlap = tf.stop_gradient(best_iou(predicted, boxes))
    is_empty = (1 - is_object) * tf.cast(overlap <= options.ignore_thresh, tf.float32)
    weight = is_object + is_empty * tf.reduce_prod(tf.cast(REFERENCE_SIZE / size, tf.float32))
    objectness_loss = weight * cross_entropy(logits[..., 0], is_object)

    return (
        tf.reduce_sum(weight_of_row * box_loss, (1, 2)),
        tf.reduce_sum(objectness_loss, 1),
        tf.reduce_sum(weight_of_row * class_loss, (1, 2)),
    )


def scatter_rows(row: tf.Tensor, values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return the largest of the values (N, K, A) at each of so many rows, float32 (N, rows); 0 at rows without any.

    row  int32 (N, K, A): the row of each value
    """
    batch = tf.broadcast_to(tf.range(tf.shape(row)[0])[:, tf.newaxis, tf.newaxis], tf.shape(row))
    shape = tf.stack([tf.shape(row)[0], rows])
    return tf.tensor_scatter_nd_max(tf.zeros(shape), tf.stack([batch, row], -1), values)


def cross_entropy(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the binary cross entropy of each logit."""
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits)


def best_iou(predicted: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Return the highest IoU (N, rows) of each predicted box (N, rows, 4) with any box (N, K, 4); 0 without boxes."""
    x1, y1, x2, y2 = (predicted[:, :, tf.newaxis, i] for i in range(4))  # each (N, rows, 1)
    left, top, right, bottom = (boxes[:, tf.newaxis, :, i] for i in range(4))  # each (N, 1, K)
    width = tf.maximum(tf.minimum(x2, right) - tf.maximum(x1, left), 0)
    both = width * tf.maximum(tf.minimum(y2, bottom) - tf.maximum(y1, top), 0)
    either = ((x2 - x1) * (y2 - y1) + TINY) + (right - left) * (bottom - top) - both
    return tf.reduce_max(both / either, -1)


def ciou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the complete IoU (...) of xyxy boxes (..., 4): IoU less penalties for the distance of the centres and for
    the difference of the aspect ratios."""
    lower, upper = tf.maximum(a[..., :2], b[..., :2]), tf.minimum(a[..., 2:], b[..., 2:])
    both = tf.reduce_prod(tf.maximum(upper - lower, 0), -1)
    iou = both / (area(a) + area(b) - both + TINY)

    hull = tf.maximum(a[..., 2:], b[..., 2:]) - tf.minimum(a[..., :2], b[..., :2])
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = tf.reduce_sum(centres**2, -1) / (tf.reduce_sum(hull**2, -1) + TINY)

    angle_a, angle_b = (tf.atan2(x[..., 2] - x[..., 0] + TINY, x[..., 3] - x[..., 1] + TINY) for x in (a, b))
    shape = 4 / math.pi**2 * (angle_a - angle_b) ** 2
    trade = tf.stop_gradient(shape / (1 - iou + shape + TINY))  # the paper's alpha, constant there too
    return iou - distance - trade * shape
