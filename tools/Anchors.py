"""Fit anchors to the boxes of an annotation file, by k-means with 1 - IoU as the distance, for TRAIN_ANCHORS.

python tools/Anchors.py                                    TRAIN_ANNOT_PATH, at TRAIN_INPUT_SIZE
python tools/Anchors.py mine.txt --classes mine.names --size 608 --heads 3
"""

from collections.abc import Sequence
from itertools import accumulate

import _path
from yolov3 import configs
from yolov3.annotations import Record, check_annotations
from yolov3.checks import UserError, as_given, check_input_size, say_it_in_one_line
from yolov3.dataset_files import read_names
from yolov3.fitting import placement
from yolov3.heads import configured_network
from yolov3.networks import NETWORKS, network_name
from yolov3.settings import ScriptParser

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


@say_it_in_one_line
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("annotations", nargs="?", default=configs.TRAIN_ANNOT_PATH, help="file (%(default)s)")
    parser.add_argument("--classes", metavar="NAMES", default=configs.TRAIN_CLASSES, help="names file (%(default)s)")
    parser.add_argument("--size", type=int, help="size of the network input, pixels (TRAIN_INPUT_SIZE)")
    parser.add_argument("--heads", type=int, choices=(2, 3), help="2 for tiny networks, else 3 (TRAIN_YOLO_TINY)")
    parser.add_argument("--seed", type=int, default=0, help="another may fit a little better (%(default)s)")
    arguments = parser.parse_args()
    network = configured_network()
    if arguments.heads is not None:
        network = NETWORKS[network_name(configs.YOLO_TYPE, arguments.heads == 2)]
    given = (configs.TRAIN_INPUT_SIZE, "TRAIN_INPUT_SIZE") if arguments.size is None else (arguments.size, "--size")
    size, published = check_input_size(*given, network.multiple), network.heads.anchors

    class_count = len(read_names(arguments.classes))
    checked = check_annotations(as_given(arguments.annotations), class_count, configs.YOLO_MAX_PIXELS)
    sizes = box_sizes(checked.records, checked.sizes, size, configs.YOLO_RESIZE)
    counts = [len(head) for head in published]
    anchors = fit_anchors(sizes, sum(counts), arguments.seed)
    heads = tuple(anchors[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True))

    left_out = f", {len(checked.problems)} problems left out: see tools/Check_annotations.py" * bool(checked.problems)
    print(f"{len(sizes)} boxes of {len(checked.records)} pictures at {size}{left_out}")
    print(
        f"best IoU, on average: {mean_iou(sizes, sum(published, ())):.3f} with the published anchors of {network.name}"
    )
    print(f"                      {mean_iou(sizes, anchors):.3f} with\nTRAIN_ANCHORS = {heads}")


if __name__ == "__main__":
    main()
