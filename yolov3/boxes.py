"""From raw heads to boxes, and from boxes to few boxes: decoding, IoU, suppression.

TensorFlow graph ops only, no Keras, no loop over boxes; the same code runs in training, in the detector and
inside every SavedModel. Boxes are xyxy, in fractions of the network input unless a function says otherwise.
"""

from yolov3.images import picture_scale, unfit
from yolov3.networks import ANCHORS_PER_CELL

import tensorflow as tf

MAX_BOXES = 100  # per picture, after suppression; COCO's protocol counts as many
MAX_PAIRS = 2048  # of box and class per picture that DIoU suppression compares, the best ones
DIOU_POWER = 0.6  # of the squared ratio of distances; Darknet's, the paper has 1
MAX_LOG_SIZE = 10.0  # exp() stays finite, in float16 too; a box of e^10 anchors covers any picture


def decode_head(raw, stride, anchors, scale_x_y):
    """One raw head (N, g, g, 3 * (5 + C)) -> boxes (N, g*g*3, 4) as fractions, objectness (..., 1), classes (..., C).

    Darknet's [yolo] layer (get_yolo_box): centres by sigmoid, stretched by scale_x_y about the cell's middle;
    sizes by exp of the anchor; objectness and classes by sigmoid, each on its own.
    """
    cells, channels = raw.shape[1] or tf.shape(raw)[1], raw.shape[-1] // ANCHORS_PER_CELL
    raw = tf.reshape(raw, (-1, cells * cells, ANCHORS_PER_CELL, channels))
    x = tf.range(cells * cells) % cells
    y = tf.range(cells * cells) // cells
    cell = tf.cast(tf.stack([x, y], -1), raw.dtype)[:, tf.newaxis]  # (g*g, 1, 2)
    anchor = tf.constant(anchors, raw.dtype) / tf.cast(cells * stride, raw.dtype)  # (3, 2)

    centre = (tf.sigmoid(raw[..., 0:2]) * scale_x_y - (scale_x_y - 1) / 2 + cell) / tf.cast(cells, raw.dtype)
    half = tf.exp(tf.minimum(raw[..., 2:4], MAX_LOG_SIZE)) * anchor / 2
    boxes = tf.concat([centre - half, centre + half], -1)
    probabilities = tf.sigmoid(raw[..., 4:])

    def rows(x):
        return tf.reshape(x, (-1, cells * cells * ANCHORS_PER_CELL, x.shape[-1]))

    return rows(boxes), rows(probabilities[..., :1]), rows(probabilities[..., 1:])


def decode(raw_heads, heads):
    """Raw heads -> predictions (N, boxes, 4 + C): xyxy fractions, then objectness x class probability.

    Rows: stride ascending, then y, x, anchor. Boxes are not clipped to the picture, as in Darknet, whose
    suppression sees the parts outside too.
    """
    decoded = []
    for raw, stride, anchors, scale_x_y in zip(raw_heads, heads.strides, heads.anchors, heads.scale_x_y, strict=True):
        boxes, objectness, classes = decode_head(raw, stride, anchors, scale_x_y)
        decoded.append(tf.concat([boxes, objectness * classes], -1))
    return tf.concat(decoded, 1)


def finish(predictions, sizes, score_threshold, iou_threshold, spec):
    """Predictions (N, boxes, 4 + classes) of pictures of int32 sizes (N, 2), height and width -> what `suppress` gives,
    boxes (N, 100, 4) in pixels of each picture."""
    scale = picture_scale(sizes, spec.input_size, spec.resize)
    boxes, scores, classes, valid = suppress(predictions, score_threshold, iou_threshold, spec.heads.nms, scale)
    return unfit(boxes, sizes, spec.input_size, spec.resize), scores, classes, valid


def suppress(predictions, score_threshold, iou_threshold, nms, scale=1.0, max_boxes=MAX_BOXES):
    """Greedy suppression per class -> boxes (N, k, 4), scores (N, k), classes int32 (N, k), valid int32 (N,): how many
    of the k = max_boxes rows hold a box; the rest are zero. Highest score first.

    nms  "iou": a box falls if its IoU with a better one of its class exceeds the threshold (Darknet's do_nms_sort);
         "diou": if that IoU, less a share for the distance of the centres, does (what the YOLOv4 cfgs get).
    scale  (N, 1, 4), turns the boxes' sides into fractions of their picture, where Darknet takes DIoU's distances.
    """
    boxes, scores = candidates(predictions, score_threshold)
    if nms == "diou":
        boxes, scores = suppress_by_diou(boxes, scores, score_threshold, iou_threshold, scale)
        iou_threshold = 1.0  # only losers are left to drop; what follows ranks the winners
    boxes, scores, classes, valid = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis], scores, max_boxes, max_boxes, iou_threshold, score_threshold, clip_boxes=False
    )
    return boxes, scores, tf.cast(classes, tf.int32), valid


def candidates(predictions, score_threshold):
    """The rows whose best class exceeds the threshold -> boxes (N, K, 4), scores (N, K, C): of thousands, a handful.

    K is what the picture with most of them needs, so a candidate is never lost to its neighbours in the batch.
    """
    boxes, scores = predictions[..., :4], predictions[..., 4:]
    best = tf.reduce_max(scores, -1)  # (N, boxes)
    passing = tf.reduce_sum(tf.cast(best > score_threshold, tf.int32), -1)
    _, rows = tf.math.top_k(best, tf.maximum(tf.reduce_max(passing), 1))
    return tf.gather(boxes, rows, batch_dims=1), tf.gather(scores, rows, batch_dims=1)


# Which pairs stay, step by step: before, now, and who drops whom. tf.while_loop would have TensorFlow take the loop
# apart into switches, which its executor of one thread (see detector) does not run.
_LOOP = (tf.TensorSpec((None, None), tf.bool), tf.TensorSpec((None, None), tf.bool), tf.TensorSpec([None] * 3, tf.bool))


@tf.function(input_signature=_LOOP, autograph=False)
def _moves(before, now, drops):
    return tf.reduce_any(before != now)


@tf.function(input_signature=_LOOP, autograph=False)
def _next(before, now, drops):
    return now, ~tf.reduce_any(drops & now[:, :, tf.newaxis], 1), drops


def suppress_by_diou(boxes, scores, score_threshold, iou_threshold, scale=1.0):
    """boxes (N, K, 4), scores (N, K, C) -> one row per box and class, losers' scores zero: (N, M, 4), (N, M, C).

    Darknet's diounms_sort as `nms_kind=greedynms` runs it. The greedy rule is found without a loop over boxes, as
    the fixed point of "stay unless a better box that stays overlaps you" (Cluster-NMS, Zheng et al. 2020).
    """
    # 1. Pairs of box and class over the threshold, best first
    classes = tf.shape(scores)[-1]
    flat = tf.reshape(scores, (tf.shape(scores)[0], -1))  # (N, K * C)
    passing = tf.reduce_max(tf.reduce_sum(tf.cast(flat > score_threshold, tf.int32), -1))
    score, pair = tf.math.top_k(flat, tf.clip_by_value(passing, 1, tf.minimum(MAX_PAIRS, tf.shape(flat)[-1])))
    box = tf.gather(boxes, pair // classes, batch_dims=1)  # (N, M, 4)
    label = pair % classes

    # 2. Which pair would drop which: same class, better score, too much overlap
    same_class = label[:, :, tf.newaxis] == label[:, tf.newaxis]
    scaled = box * scale
    overlaps = diou(scaled[:, :, tf.newaxis], scaled[:, tf.newaxis]) > iou_threshold  # (N, M, M)
    better = tf.linalg.band_part(tf.ones_like(same_class), 0, -1) & ~tf.eye(tf.shape(score)[1], dtype=tf.bool)
    drops = same_class & overlaps & better  # [n, i, j]: i drops j, if i stays

    # 3. Who stays
    everyone = tf.ones_like(score, tf.bool)
    loop = {"cond": _moves.get_concrete_function(), "body": _next.get_concrete_function()}
    shapes = [spec.shape for spec in _LOOP]
    _, stay, _ = tf.raw_ops.StatelessWhile(input=_next(everyone, everyone, drops), output_shapes=shapes, **loop)
    score = tf.where(stay, score, 0.0)
    return box, tf.one_hot(label, classes, dtype=score.dtype) * score[..., tf.newaxis]


def diou(a, b):
    """IoU of xyxy boxes (..., 4), less (centre distance / diagonal of the hull) ^ 1.2: Darknet's box_diou."""
    lower, upper = tf.maximum(a[..., :2], b[..., :2]), tf.minimum(a[..., 2:], b[..., 2:])
    intersection = tf.reduce_prod(tf.maximum(upper - lower, 0), -1)
    union = area(a) + area(b) - intersection
    hull = tf.maximum(a[..., 2:], b[..., 2:]) - tf.minimum(a[..., :2], b[..., :2])
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = tf.math.divide_no_nan(tf.reduce_sum(centres**2, -1), tf.reduce_sum(hull**2, -1))
    return tf.math.divide_no_nan(intersection, union) - distance**DIOU_POWER


def area(boxes):
    """xyxy (..., 4) -> (...)."""
    return tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], -1)
