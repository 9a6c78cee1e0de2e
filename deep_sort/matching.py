"""Which detection belongs to which track: overlaps, appearance, and the best assignment."""

import numpy as np
from scipy.optimize import linear_sum_assignment

NEVER = 1e6  # the cost of a pair that must not be
DUPLICATE_IOU = 0.7  # detections of several classes that overlap by at least so much are one object


def iou_matrix(boxes, to):
    """IoU of every box with every other, xyxy (n, 4), (m, 4) -> (n, m)."""
    return _overlaps(boxes, to)[0]


def height_iou_matrix(boxes, to):
    """IoU times the IoU of the vertical extents alone: feet and heads tell who is nearer, legs swing the widths."""
    iou, height, lower, upper = _overlaps(boxes, to)
    span = np.maximum(lower[0], lower[1]) - np.minimum(upper[0], upper[1])
    return iou * np.maximum(height, 0) / np.maximum(span, 1e-12)


def _overlaps(boxes, to):
    x1, y1, x2, y2 = boxes.T[:, :, np.newaxis]
    u1, v1, u2, v2 = to.T
    width = np.minimum(x2, u2) - np.maximum(x1, u1)
    height = np.minimum(y2, v2) - np.maximum(y1, v1)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    return shared / np.maximum(union, 1e-12), height, (y2, v2), (y1, v1)


def without_duplicates(boxes, scores, candidates):
    """Return those candidates, indices of boxes (n, 4) and scores (n,), that no better one covers, in their order."""
    same = iou_matrix(boxes[candidates], boxes[candidates]) >= DUPLICATE_IOU
    kept = np.ones(len(candidates), bool)
    for i in np.argsort(-scores[candidates], kind="stable"):  # the best first
        if kept[i]:
            kept &= ~same[i]
            kept[i] = True
    return candidates[kept]


def normalise(features):
    """Rows of length 1, float32; those of length 0 stay so: they resemble nothing."""
    features = features / np.maximum(np.abs(features).max(1, keepdims=True, initial=0), 1e-30)  # squares overflow
    return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def cosine_distances(galleries, features):
    """Distance of each feature from the nearest in each gallery: a list of n (k, d), (m, d), rows of length 1 or 0
    -> (n, m), 1 for an empty gallery."""
    sizes = np.array([len(x) for x in galleries], int)
    distances = np.ones((len(galleries), len(features)), np.float32)
    filled = np.flatnonzero(sizes)
    if len(filled) and len(features):
        similar = np.concatenate([galleries[i] for i in filled]) @ features.T  # (features of all tracks, m)
        starts = np.cumsum(sizes[filled]) - sizes[filled]
        distances[filled] = 1 - np.maximum.reduceat(similar, starts, axis=0)
    return distances


def assign(cost, limit):
    """Pairs (rows, columns) that cost the least in all, none above the limit; as many pairs as possible first."""
    if not cost.size:
        return np.empty(0, int), np.empty(0, int)
    possible = cost <= limit
    rows, columns = linear_sum_assignment(np.where(possible, cost, NEVER))
    kept = possible[rows, columns]
    return rows[kept], columns[kept]


def others(indices, taken):
    """What is left of an array without the places taken."""
    left = np.ones(len(indices), bool)
    left[taken] = False
    return indices[left]


def cascade(cost, limit, levels):
    """`assign`, the tracks of the lowest level first: those long hidden take only what the others leave."""
    if (levels == levels[0]).all():
        return assign(cost, limit)
    rows, columns = [], []
    free = np.arange(cost.shape[1])
    for level in np.unique(levels):
        tracks = np.flatnonzero(levels == level)
        r, c = assign(cost[np.ix_(tracks, free)], limit)
        rows.append(tracks[r])
        columns.append(free[c])
        free = others(free, c)
    return np.concatenate(rows), np.concatenate(columns)
