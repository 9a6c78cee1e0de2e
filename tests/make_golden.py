"""Writes golden/*.npz: what OpenCV's Darknet importer computes for the four networks with seeded random weights.

python tests/make_golden.py

Needs OpenCV 4 and the cfgs in ../shared/data/darknet; the committed files are of OpenCV 4.14.0. Each file holds,
per input size, some numbers of every raw head and of the decoded boxes and scores (`golden_numbers`).
test_networks.py makes the same weights again and compares.
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
    for name in NETWORKS:
        golden = {}
        with tempfile.TemporaryDirectory() as folder:
            model = Create_Yolo(SIZES[0], name.removesuffix("-tiny"), name.endswith("-tiny"), 80)
            weights = random_weights(model, Path(folder) / "random.weights")
            for size in SIZES:
                raw, rows = importer_answers(importer(cfgs / f"{name}.cfg", weights, size), random_picture(size))
                golden |= golden_numbers(size, raw, rows[:, :4], rows[:, 5:])
        file = HERE / "golden" / f"{name}.npz"
        np.savez_compressed(file, **golden)
        print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
