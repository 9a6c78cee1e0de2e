"""Writes golden/*.npz: what OpenCV's Darknet importer computes with seeded random weights, for the four networks and
for four by their public cfgs.

python tests/make_golden.py [NAME ...]

Needs OpenCV 4 and the cfgs in ../shared/data/darknet; the committed files are of OpenCV 4.14.0. Each file holds,
per input size, some numbers of every raw head and of the decoded boxes and scores (`golden_numbers`).
test_networks.py and test_cfg_networks.py make the same weights again and compare.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
SIZES = (64, 96)  # pixels: the networks are whole, only the pictures are small
SAMPLES = {"raw": 400, "boxes": 1000, "scores": 600}
NETWORKS = ("yolov3", "yolov3-tiny", "yolov4", "yolov4-tiny")
CFGS = ("yolov3-tiny-prn", "yolov4-tiny-3l", "enet-coco", "yolov4-csp")


def golden_numbers(size, raw_heads, boxes, scores):
    """Raw heads, boxes (n, 4) as centre x, y, width, height, and scores (n, C) -> {name: a sample of them}."""
    arrays = {f"{size}_raw_{i}": np.asarray(head) for i, head in enumerate(raw_heads)}
    arrays |= {f"{size}_boxes": np.asarray(boxes), f"{size}_scores": np.asarray(scores)}
    return {name: sample(array.ravel(), SAMPLES[name.split("_")[1]]) for name, array in arrays.items()}


def sample(numbers, count):
    """The same `count` of them every time."""
    return numbers[np.random.RandomState(0).randint(0, len(numbers), count)]


def main():
    sys.path.insert(0, str(HERE.parent))
    from yolov3.yolov4 import Create_Yolo

    from oracle import importer, importer_answers, random_picture, random_weights

    print(f"OpenCV {cv2.__version__}")
    cfgs = HERE.parent.parent / "shared" / "data" / "darknet"
    for name in sys.argv[1:] or (*NETWORKS, *CFGS):
        golden, cfg = {}, cfgs / f"{name}.cfg" if name in NETWORKS else cfgs / "more" / f"{name}.cfg"
        with tempfile.TemporaryDirectory() as folder:
            of_table = {"yolo_type": name.removesuffix("-tiny"), "tiny": name.endswith("-tiny")}
            model = Create_Yolo(SIZES[0], CLASSES=80, **(of_table if name in NETWORKS else {"cfg": cfg}))
            weights = random_weights(model, Path(folder) / "random.weights")
            for size in SIZES:
                raw, rows = importer_answers(importer(cfg, weights, size), random_picture(size))
                golden |= golden_numbers(size, raw, rows[:, :4], rows[:, 5:])
        file = HERE / "golden" / f"{name}.npz"
        np.savez_compressed(file, **golden)
        print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
