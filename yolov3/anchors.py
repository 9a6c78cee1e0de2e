"""Fit anchors to the sizes of boxes, by k-means with 1 - IoU as the distance."""

from collections.abc import Sequence
from itertools import accumulate

from yolov3.annotations.format import Record
from yolov3.checks import UserError
from yolov3.fitting import placement

import numpy as np

RESTARTS = 10  # k-means finds a local optimum, so the best of several runs is taken
ROUNDS = 100  # most iterations of a run
MAX_BOXES = 20_000  # a larger data set is sampled down to this many


def box_sizes(records: list[Record], sizes: list[tuple[int, int]], input_size: int, resize: str) -> np.ndarray:
    """Return the width and height of every box in pixels of the network input, float (n, 2).

    sizes  (height, width) of each picture
    """
    height, width = np.array(sizes).T
    fitted_height, fitted_width, _, _ = (x.numpy() for x in placement(height, width, input_size, resize))
    scale = np.stack([fitted_width / width, fitted_height / height], 1)  # (pictures, 2)
    return np.concatenate([(r.boxes[:, 2:] - r.boxes[:, :2]) * s for r, s in zip(records, scale, strict=True)])


def iou_of_sizes(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the IoU (n, k) of boxes that share a centre, from their widths and heights (n, 2) and (k, 2)."""
    intersection = np.minimum(sizes[:, np.newaxis], anchors).prod(-1)
    return intersection / (sizes.prod(-1)[:, np.newaxis] + anchors.prod(-1) - intersection)


def mean_iou(sizes: np.ndarray, anchors: Sequence) -> float:
    """Return the mean IoU of the boxes (n, 2) with the anchor that fits each of them best."""
    return iou_of_sizes(sizes, np.asarray(anchors, float)).max(1).mean()


def fit_anchors(sizes: np.ndarray, count: int, seed: int) -> tuple[tuple[int, int], ...]:
    """Return `count` anchors (width, height) for box sizes (n, 2): whole pixels, ascending by area.

    Raises UserError if there are fewer different sizes than anchors.
    """
    distinct = len(np.unique(sizes.round(), axis=0))
    if distinct < count:
        raise UserError(f"{count} anchors need boxes of at least {count} different sizes, but there are {distinct}")
    rng = np.random.default_rng(seed)
    if len(sizes) > MAX_BOXES:
        sizes = rng.choice(sizes, MAX_BOXES, replace=False)
    fits = [_k_means(sizes, count, rng) for _ in range(RESTARTS)]
    anchors = np.maximum(max(fits, key=lambda x: mean_iou(sizes, x)).round().astype(int), 1)
    return tuple(sorted(map(tuple, anchors.tolist()), key=lambda x: (x[0] * x[1], x)))


def fit_heads(sizes: np.ndarray, counts: list[int], seed: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return so many anchors for each head, as TRAIN_ANCHORS has them. Raises UserError, as `fit_anchors` does."""
    anchors = fit_anchors(sizes, sum(counts), seed)
    return tuple(anchors[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True))


def _k_means(sizes, count, rng):
    """Return anchors by Lloyd's algorithm from a k-means++ start. A cluster's new anchor is the median of its boxes."""
    anchors = sizes[rng.integers(len(sizes), size=1)]
    while len(anchors) < count:
        distance = 1 - iou_of_sizes(sizes, anchors).max(1)
        anchors = np.concatenate([anchors, sizes[rng.choice(len(sizes), size=1, p=distance / distance.sum())]])
    nearest = None
    for _ in range(ROUNDS):
        before, nearest = nearest, iou_of_sizes(sizes, anchors).argmax(1)
        if before is not None and (before == nearest).all():
            break
        members = [sizes[nearest == i] for i in range(count)]
        anchors = np.array([np.median(x, 0) if len(x) else old for x, old in zip(members, anchors, strict=True)])
    return anchors
