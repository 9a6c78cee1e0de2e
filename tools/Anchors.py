"""Fit anchors to the boxes of an annotation file, by k-means with 1 - IoU as the distance, for TRAIN_ANCHORS.

python tools/Anchors.py                                    TRAIN_ANNOT_PATH, at TRAIN_INPUT_SIZE
python tools/Anchors.py mine.txt --classes mine.names --size 608 --heads 3
"""

import argparse
from collections.abc import Sequence
from itertools import accumulate

import _path
from yolov3 import configs
from yolov3.annotations import Record, check_annotations
from yolov3.checks import UserError, as_given, check_input_size, say_it_in_one_line
from yolov3.dataset_files import read_names
from yolov3.images import placement
from yolov3.networks import NETWORKS, network_name

import numpy as np

RESTARTS = 10  # k-means finds a local optimum; the best of so many counts
ROUNDS = 100  # at most, of each
MAX_BOXES = 20_000  # of a larger data set a sample is fitted


def box_sizes(records: list[Record], sizes: list[tuple[int, int]], input_size: int, resize: str) -> np.ndarray:
    """Return width and height of every box as it appears in the network input: float (n, 2), pixels of the input.

    sizes  (width, height) of each picture
    """
    width, height = np.array(sizes).T
    fitted_height, fitted_width, _, _ = (x.numpy() for x in placement(height, width, input_size, resize))
    scale = np.stack([fitted_width / width, fitted_height / height], 1)  # (pictures, 2)
    return np.concatenate([(r.boxes[:, 2:] - r.boxes[:, :2]) * s for r, s in zip(records, scale, strict=True)])


def iou_of_sizes(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the IoU (n, k) of boxes with one centre, of widths and heights (n, 2) and (k, 2)."""
    intersection = np.minimum(sizes[:, np.newaxis], anchors).prod(-1)
    return intersection / (sizes.prod(-1)[:, np.newaxis] + anchors.prod(-1) - intersection)


def best_iou(sizes: np.ndarray, anchors: Sequence) -> float:
    """Return the IoU of each box (n, 2) with the anchor that fits it best, on average."""
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
    anchors = np.maximum(max(fits, key=lambda x: best_iou(sizes, x)).round().astype(int), 1)
    return tuple(sorted(map(tuple, anchors.tolist()), key=lambda x: (x[0] * x[1], x)))


def _k_means(sizes, count, rng):
    """Return anchors by Lloyd's rounds from a k-means++ start; the median of a cluster's boxes is its new anchor."""
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


@say_it_in_one_line
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", nargs="?", default=configs.TRAIN_ANNOT_PATH, help="(%(default)s)")
    parser.add_argument("--classes", metavar="NAMES", default=configs.TRAIN_CLASSES, help="names file (%(default)s)")
    parser.add_argument("--size", type=int, help="network input, pixels (TRAIN_INPUT_SIZE)")
    parser.add_argument("--heads", type=int, choices=(2, 3), help="2: tiny networks, 3: full ones (what configs says)")
    parser.add_argument("--seed", type=int, default=0, help="another one may fit a little better (%(default)s)")
    arguments = parser.parse_args()
    constant = "TRAIN_INPUT_SIZE" if arguments.size is None else "--size"
    size = check_input_size(configs.TRAIN_INPUT_SIZE if arguments.size is None else arguments.size, constant)
    tiny = configs.TRAIN_YOLO_TINY if arguments.heads is None else arguments.heads == 2
    name = network_name(configs.YOLO_TYPE, tiny)
    published = NETWORKS[name].heads.anchors

    class_count = len(read_names(arguments.classes))
    checked = check_annotations(as_given(arguments.annotations), class_count, configs.YOLO_MAX_PIXELS)
    sizes = box_sizes(checked.records, checked.sizes, size, configs.YOLO_RESIZE)
    counts = [len(head) for head in published]
    anchors = fit_anchors(sizes, sum(counts), arguments.seed)
    heads = tuple(anchors[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True))

    left_out = f", {len(checked.problems)} problems left out: see tools/Check_annotations.py" * bool(checked.problems)
    print(f"{len(sizes)} boxes of {len(checked.records)} pictures at {size}{left_out}")
    print(f"best IoU, on average: {best_iou(sizes, sum(published, ())):.3f} with the published anchors of {name}")
    print(f"                      {best_iou(sizes, anchors):.3f} with\nTRAIN_ANCHORS = {heads}")


if __name__ == "__main__":
    main()
