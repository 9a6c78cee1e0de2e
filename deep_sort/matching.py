"""Measure the overlap and the distance of embeddings of tracks and detections, and find the best assignment."""

import numpy as np
from scipy.optimize import linear_sum_assignment

NEVER = 1e6  # the cost of a pair that must not be matched
DUPLICATE_IOU = 0.7  # detections of different classes with at least this IoU are one object


def iou_matrix(boxes: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Return the IoU (n, m) of every box in `boxes` (n, 4) with every box in `to` (m, 4), xyxy."""
    return _overlaps(boxes, to)[0]


def height_iou_matrix(boxes: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Return the IoU times the IoU of the vertical extents, (n, m).

    The positions of heads and feet tell people apart by their distance, while widths change with every step.
    """
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


def without_duplicates(boxes: np.ndarray, scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the candidates, indices of boxes (n, 4) and scores (n,), except duplicates of one with a higher score."""
    same = iou_matrix(boxes[candidates], boxes[candidates]) >= DUPLICATE_IOU
    kept = np.ones(len(candidates), bool)
    for i in np.argsort(-scores[candidates], kind="stable"):  # the best first
        if kept[i]:
            kept &= ~same[i]
            kept[i] = True
    return candidates[kept]


def normalise(embeddings: np.ndarray) -> np.ndarray:
    """Return embeddings (n, d) scaled to length 1, float32. Those of length 0 stay so and are similar to no other."""
    embeddings = embeddings / np.maximum(np.abs(embeddings).max(1, keepdims=True, initial=0), 1e-30)  # squares overflow
    return (embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def cosine_distances(galleries: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Return the distance (n, m) of each embedding (m, d) from the nearest one in each of n galleries (k, d); 1 for an
    empty gallery. Rows are of length 1 or 0."""
    sizes = np.array([len(x) for x in galleries], int)
    distances = np.ones((len(galleries), len(embeddings)), np.float32)
    filled = np.flatnonzero(sizes)
    if len(filled) and len(embeddings):
        similar = np.concatenate([galleries[i] for i in filled]) @ embeddings.T  # (embeddings of all tracks, m)
        starts = np.cumsum(sizes[filled]) - sizes[filled]
        distances[filled] = 1 - np.maximum.reduceat(similar, starts, axis=0)
    return distances


def assign(cost: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (rows, columns), none of which costs more than the limit: as many as possible and, among those
    choices, the one with the least total cost."""
    if not cost.size:
        return np.empty(0, int), np.empty(0, int)
    possible = cost <= limit
    rows, columns = linear_sum_assignment(np.where(possible, cost, NEVER))
    kept = possible[rows, columns]
    return rows[kept], columns[kept]


def others(indices: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return an array without the elements at the positions `taken`."""
    left = np.ones(len(indices), bool)
    left[taken] = False
    return indices[left]


def cascade(cost: np.ndarray, limit: float, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs as `assign` does, but level by level, the lowest first.

    levels  (n,), of the rows: tracks that were unseen for longer get only the detections that the others leave
    """
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
