"""Decode raw heads to boxes, measure their overlap, and suppress all but the best of those that overlap.

These are TensorFlow graph ops without Keras and without a loop over boxes. The same code runs in training, in the
detector and inside every SavedModel. Boxes are xyxy, in fractions of the network input unless a function says
otherwise.
"""

import functools
from collections.abc import Callable, Sequence

from yolov3.checkpoint import ModelSpec
from yolov3.fitting import picture_scale, unfit
from yolov3.networks import BETA_NMS, Heads

import tensorflow as tf

MAX_BOXES = 100  # per picture, after suppression; COCO's protocol counts as many
MAX_PAIRS = 2048  # pairs of box and class per picture that `suppress_pairs` compares: those with the highest scores
MAX_LOG_SIZE = 10.0  # keeps exp() finite, in float16 too; a box of e^10 anchors covers any picture


def decode_head(
    raw: tf.Tensor, stride: int, anchors: Sequence, scale_x_y: float, new_coords: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return boxes (N, h*w*A, 4) as fractions, objectness (..., 1) and class probabilities (..., C) of one raw head
    (N, h, w, A * (5 + C)) with A anchors.

    As in Darknet's [yolo] layer (get_yolo_box), the sigmoid gives a centre, stretched by scale_x_y about the middle of
    its cell; exp gives a size in anchors; the sigmoid gives objectness and each class on its own. With new_coords, a
    size is (2 sigmoid)^2 anchors.
    """
    height, width = (raw.shape[axis] or tf.shape(raw)[axis] for axis in (1, 2))
    cells, count = height * width, len(anchors)
    raw = tf.reshape(raw, (-1, cells, count, raw.shape[-1] // count))
    x = tf.range(cells) % width
    y = tf.range(cells) // width
    cell = tf.cast(tf.stack([x, y], -1), raw.dtype)[:, tf.newaxis]  # (h*w, 1, 2)
    grid = tf.cast(tf.stack([width, height]), raw.dtype)
    anchor = tf.constant(anchors, raw.dtype) / (grid * stride)  # (A, 2)

    centre = (tf.sigmoid(raw[..., 0:2]) * scale_x_y - (scale_x_y - 1) / 2 + cell) / grid
    size = raw[..., 2:4]
    size = (2 * tf.sigmoid(size)) ** 2 if new_coords else tf.exp(tf.minimum(size, MAX_LOG_SIZE))
    half = size * anchor / 2
    boxes = tf.concat([centre - half, centre + half], -1)
    probabilities = tf.sigmoid(raw[..., 4:])

    def rows(x):
        return tf.reshape(x, (-1, cells * count, x.shape[-1]))

    return rows(boxes), rows(probabilities[..., :1]), rows(probabilities[..., 1:])


def decode(raw_heads: Sequence[tf.Tensor], heads: Heads) -> tf.Tensor:
    """Return the predictions (N, boxes, 4 + C) of raw heads: xyxy fractions, then objectness x class probability.

    Rows are sorted by stride, then y, x and anchor. Boxes are not clipped to the picture, since Darknet's suppression
    sees their parts outside, too.
    """
    decoded = []
    for raw, stride, anchors, scale_x_y in zip(raw_heads, heads.strides, heads.anchors, heads.scale_x_y, strict=True):
        boxes, objectness, classes = decode_head(raw, stride, anchors, scale_x_y, heads.new_coords)
        decoded.append(tf.concat([boxes, objectness * classes], -1))
    return tf.concat(decoded, 1)


def finish(
    predictions: tf.Tensor,
    sizes: tf.Tensor,
    score_threshold: float | tf.Tensor,
    iou_threshold: float | tf.Tensor,
    spec: ModelSpec,
    class_agnostic: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return what `suppress` returns, with boxes (N, 100, 4) in pixels of each picture, clipped to it.

    predictions  float32 (N, boxes, 4 + classes), as `decode` returns them
    sizes  int32 (N, 2): height and width of each picture
    spec  the ModelSpec: its input size, how pictures are resized, and the kind of suppression
    """
    scale, heads = picture_scale(sizes, spec.input_size, spec.resize), spec.heads
    boxes, scores, classes, valid = suppress(
        predictions,
        score_threshold,
        iou_threshold,
        heads.nms,
        scale,
        class_agnostic=class_agnostic,
        beta=heads.beta_nms,
    )
    return unfit(boxes, sizes, spec.input_size, spec.resize), scores, classes, valid


def suppress(
    predictions: tf.Tensor,
    score_threshold: float | tf.Tensor,
    iou_threshold: float | tf.Tensor,
    nms: str,
    scale: float | tf.Tensor = 1.0,
    class_agnostic: bool = False,
    beta: float = BETA_NMS,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return boxes (N, k, 4), scores (N, k), classes int32 (N, k) and valid int32 (N,): how many of the k = MAX_BOXES
    rows of each picture hold a box. The other rows are zero. The highest score comes first.

    Suppression is greedy: a box is suppressed if it overlaps a better one that is kept by more than iou_threshold.
    nms  how overlap is measured. "iou": IoU, as in Darknet's do_nms_sort; "diou": IoU less a penalty for the distance
         of the centres, which the YOLOv4 cfgs ask for.
    scale  (N, 1, 4): what turns box sides into fractions of their picture, in which Darknet measures DIoU's distances
    class_agnostic  False: boxes of different classes never suppress each other, and a box may be kept once for each
         of its classes, as in Darknet. True: they do, and a box has only its best class.
    beta  with "diou": the power of the penalty, of the squared ratio of distances
    """
    boxes, scores = candidates(predictions, score_threshold)
    if class_agnostic:
        best = tf.one_hot(tf.argmax(scores, -1), tf.shape(scores)[-1], dtype=scores.dtype)
        scores *= best  # of several equal scores the first class keeps its own
    if class_agnostic or nms == "diou":
        overlap = functools.partial(diou, beta=beta) if nms == "diou" else iou
        boxes, scores = suppress_pairs(
            boxes, scores, score_threshold, iou_threshold, overlap, scale, class_agnostic=class_agnostic
        )
        iou_threshold = 1.0  # the suppressed ones have a score of zero already; what follows only sorts the others
    boxes, scores, classes, valid = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis], scores, MAX_BOXES, MAX_BOXES, iou_threshold, score_threshold, clip_boxes=False
    )
    return boxes, scores, tf.cast(classes, tf.int32), valid


def candidates(predictions: tf.Tensor, score_threshold: float | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the boxes (N, K, 4) whose best class exceeds the threshold, and their scores (N, K, C), best first.

    K is their number in the picture that has most, so that the other pictures of a batch make no difference.
    """
    boxes, scores = predictions[..., :4], predictions[..., 4:]
    best = tf.reduce_max(scores, -1)  # (N, boxes)
    passing = tf.reduce_sum(tf.cast(best > score_threshold, tf.int32), -1)
    _, rows = tf.math.top_k(best, tf.maximum(tf.reduce_max(passing), 1))
    return tf.gather(boxes, rows, batch_dims=1), tf.gather(scores, rows, batch_dims=1)


# The state of the search for the pairs that are kept: those kept before the last step and after it, and which pair
# drops which. tf.while_loop would be split into switches, which the executor of one thread (detector._small_steps)
# cannot run.
_LOOP = (tf.TensorSpec((None, None), tf.bool), tf.TensorSpec((None, None), tf.bool), tf.TensorSpec([None] * 3, tf.bool))


@tf.function(input_signature=_LOOP, autograph=False)
def _has_changed(before, now, drops):
    return tf.reduce_any(before != now)


@tf.function(input_signature=_LOOP, autograph=False)
def _next(before, now, drops):
    return now, ~tf.reduce_any(drops & now[:, :, tf.newaxis], 1), drops


def suppress_pairs(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    score_threshold: float | tf.Tensor,
    iou_threshold: float | tf.Tensor,
    overlap: Callable,
    scale: float | tf.Tensor = 1.0,
    class_agnostic: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return one row for each pair of a box and a class, those suppressed with scores of zero: (N, M, 4), (N, M, C).

    boxes (N, K, 4), scores (N, K, C); overlap is `iou` or `diou`; scale and class_agnostic as in `suppress`.
    With DIoU this is Darknet's diounms_sort. The greedy result is found without a loop
    over boxes, as the fixed point of "a pair is kept unless a better pair that is kept overlaps it" (Cluster-NMS,
    Zheng et al. 2020).
    """
    # 1. Pairs of box and class over the threshold, best first
    classes = tf.shape(scores)[-1]
    flat = tf.reshape(scores, (tf.shape(scores)[0], -1))  # (N, K * C)
    passing = tf.reduce_max(tf.reduce_sum(tf.cast(flat > score_threshold, tf.int32), -1))
    score, pair = tf.math.top_k(flat, tf.clip_by_value(passing, 1, tf.minimum(MAX_PAIRS, tf.shape(flat)[-1])))
    box = tf.gather(boxes, pair // classes, batch_dims=1)  # (N, M, 4)
    label = pair % classes

    # 2. Which pair would drop which: better score, too much overlap, and the same class unless classes do not count
    scaled = box * scale
    overlaps = overlap(scaled[:, :, tf.newaxis], scaled[:, tf.newaxis]) > iou_threshold  # (N, M, M)
    better = tf.linalg.band_part(tf.ones_like(overlaps), 0, -1) & ~tf.eye(tf.shape(score)[1], dtype=tf.bool)
    drops = overlaps & better  # [n, i, j]: i drops j, if i is kept
    if not class_agnostic:
        drops &= label[:, :, tf.newaxis] == label[:, tf.newaxis]

    # 3. Which are kept
    every_pair = tf.ones_like(score, tf.bool)
    loop = {"cond": _has_changed.get_concrete_function(), "body": _next.get_concrete_function()}
    shapes = [spec.shape for spec in _LOOP]
    _, kept, _ = tf.raw_ops.StatelessWhile(input=_next(every_pair, every_pair, drops), output_shapes=shapes, **loop)
    score = tf.where(kept, score, 0.0)
    return box, tf.one_hot(label, classes, dtype=score.dtype) * score[..., tf.newaxis]


def iou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the IoU (...) of xyxy boxes (..., 4); 0 for two boxes without area."""
    lower, upper = tf.maximum(a[..., :2], b[..., :2]), tf.minimum(a[..., 2:], b[..., 2:])
    intersection = tf.reduce_prod(tf.maximum(upper - lower, 0), -1)
    return tf.math.divide_no_nan(intersection, area(a) + area(b) - intersection)


def diou(a: tf.Tensor, b: tf.Tensor, beta: float = BETA_NMS) -> tf.Tensor:
    """Return the IoU of xyxy boxes (..., 4) less (distance of the centres / diagonal of the hull) ^ (2 * beta):
    Darknet's box_diounms and, with the default, its box_diou."""
    hull = tf.maximum(a[..., 2:], b[..., 2:]) - tf.minimum(a[..., :2], b[..., :2])
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = tf.math.divide_no_nan(tf.reduce_sum(centres**2, -1), tf.reduce_sum(hull**2, -1))
    return iou(a, b) - distance**beta


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Return the area (...) of xyxy boxes (..., 4)."""
    return tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], -1)
