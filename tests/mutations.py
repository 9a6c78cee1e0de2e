"""Files with random damage, through the very readers that a script uses: no traceback, no hang, no memory.

python tests/mutations.py --count 4000 weights    one kind; all of them if left out

Seeded. What is read may be refused by UserError or be taken, and nothing else.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from yolov3.annotations import check_annotations
from yolov3.cfg_network import read_network
from yolov3.cfg_write import cfg_text
from yolov3.checkpoint import read_model, read_weights
from yolov3.checks import PROJECT, UserError
from yolov3.darknet import array_shapes, get_arrays
from yolov3.images import read_picture
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import numpy as np

CHECKPOINT = PROJECT / "model_data" / "yolov4-tiny-digits"
PICTURE = PROJECT / "IMAGES" / "digits" / "00000.jpg"
TOKENS = (b"0", b"-1", b"1e308", b"NaN", b"null", b"[]", b"{}", b'"', b"\0", b"\xff", b",", b"[" * 5000, b"9" * 400)


class Kind:
    """A file of a kind, whole, and what reads it."""

    def __init__(self, folder):
        self.folder = folder


class Weights(Kind):
    def __init__(self, folder):
        super().__init__(folder)
        network = Create_Yolo(32, "yolov3", True, 1)
        self.shapes = array_shapes(network)[:6]  # of a small file: its headers are what matters
        self.file = folder / "weights.npz"
        np.savez_compressed(self.file, *list(get_arrays(network))[:6])

    def read(self):
        read_weights(self.folder, self.shapes)


class ModelJson(Kind):
    def __init__(self, folder):
        super().__init__(folder)
        self.file = folder / "model.json"
        shutil.copy(CHECKPOINT / "model.json", self.file)

    def read(self):
        read_model(self.folder)


class Cfg(Kind):
    def __init__(self, folder):
        super().__init__(folder)
        self.file = folder / "network.cfg"
        network = Create_Yolo(64, "yolov4", True, 2)
        self.file.write_text(cfg_text(network, NETWORKS["yolov4-tiny"].heads, 2, 64))

    def read(self):
        read_network(self.file)


class Picture(Kind):
    def __init__(self, folder):
        super().__init__(folder)
        self.file = folder / "picture.jpg"
        shutil.copy(PICTURE, self.file)

    def read(self):
        read_picture(self.file, 10**8)


class Annotations(Kind):
    def __init__(self, folder):
        super().__init__(folder)
        self.file = folder / "annotations.txt"
        shutil.copy(PICTURE, folder / "a.jpg")
        self.file.write_text("a.jpg 1,2,30,40,0 5,6,70,80,1\n")

    def read(self):
        check_annotations(self.file, 2, 10**8)


KINDS = {"weights": Weights, "model.json": ModelJson, "cfg": Cfg, "picture": Picture, "annotations": Annotations}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with one to eight of them changed, cut off, doubled or replaced by a token that often hurts."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        at, how = int(rng.integers(len(data) + 1)), rng.integers(5)
        end = min(len(data), at + int(rng.integers(1, 40)))
        if how == 0 and at < len(data):
            data[at] = int(rng.integers(256))
        elif how == 1:
            del data[at:end]
        elif how == 2:
            data[at:at] = data[at:end]
        elif how == 3:
            data[at:end] = TOKENS[rng.integers(len(TOKENS))]
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


def run(name: str, count: int, seed: int = 0) -> tuple[int, float]:
    """Read `count` damaged files of a kind -> how many were refused, and the longest time, seconds."""
    rng, refused, longest = np.random.default_rng([seed, list(KINDS).index(name)]), 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        kind = KINDS[name](Path(folder))
        whole = kind.file.read_bytes()
        kind.read()
        for _ in range(count):
            kind.file.write_bytes(mutated(whole, rng))
            started = time.monotonic()
            try:
                kind.read()
            except UserError as error:
                assert "\n" not in str(error), error
                refused += 1
            longest = max(longest, time.monotonic() - started)
    return refused, longest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all if left out")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.kinds or KINDS:
        refused, longest = run(name, arguments.count, arguments.seed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {refused} of {arguments.count} refused, {longest:.2f} s at most, {peak:.0f} MB at the peak")


if __name__ == "__main__":
    main()
