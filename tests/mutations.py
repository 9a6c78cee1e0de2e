"""Files with random damage, through the very readers that a script uses: no traceback, no hang, no memory, no words of
C libraries.

python tests/mutations.py --count 4000 weights    one kind; all of them if left out

Seeded. What is read may be refused by UserError or be taken, and nothing else.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from yolov3.annotations.format import check_annotations
from yolov3.cfg.network import read_network
from yolov3.cfg.write import cfg_text
from yolov3.checkpoint import read_model, read_weights
from yolov3.checks import PROJECT, UserError, printable
from yolov3.darknet import array_shapes, get_arrays
from yolov3.images import read_picture
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import numpy as np
from PIL import Image

CHECKPOINT = PROJECT / "model_data" / "yolov4-tiny-digits"
PICTURE = PROJECT / "IMAGES" / "digits" / "00000.jpg"
WORD = re.compile(rb'"[^"\n]*"|[\w.+-]+')
NUMBERS = (b"0", b"-1", b"1e308", b"1e400", b"NaN", b"9" * 400)
WORDS = (b"null", b"true", b'""', b'" "', b'"1"', rb'"\ud800"', rb'"a\nb"', b"a" * 300, b"/dev/zero")
PIECES = (b"[]", b"{}", b'"', b"\0", b"\xff", b",", b"[" * 5000, b"<a>" * 2000, b"&amp;")
TOKENS = NUMBERS + WORDS + PIECES


class Kind:
    """A file of a kind, whole, and what reads it. `wholes`: the bytes of one or more such files."""

    def __init__(self, folder, name, *wholes):
        self.folder, self.file, self.wholes = folder, folder / name, wholes


class Weights(Kind):
    def __init__(self, folder):
        network, file = Create_Yolo(32, "yolov3", True, 1), io.BytesIO()
        self.shapes = array_shapes(network)[:6]  # of a small file: its headers are what matters
        np.savez_compressed(file, *list(get_arrays(network))[:6])
        super().__init__(folder, "weights.npz", file.getvalue())

    def read(self):
        read_weights(self.folder, self.shapes)


class ModelJson(Kind):
    def __init__(self, folder):
        super().__init__(folder, "model.json", (CHECKPOINT / "model.json").read_bytes())

    def read(self):
        read_model(self.folder)


class Cfg(Kind):
    def __init__(self, folder):
        network = Create_Yolo(64, "yolov4", True, 2)
        text = cfg_text(network, NETWORKS["yolov4-tiny"].heads, 2, 64)
        super().__init__(folder, "network.cfg", text.encode())

    def read(self):
        read_network(self.file)


class Picture(Kind):
    FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")

    def __init__(self, folder):
        exif = Image.Exif()
        exif[0x0112] = 6  # turned
        wholes = []
        for name in self.FORMATS:
            file = io.BytesIO()
            options = {"exif": exif} if name == "JPEG" else {"comment": b"x" * 600} if name == "GIF" else {}
            Image.open(PICTURE).resize((120, 90)).save(file, name, **options)
            wholes.append(file.getvalue())
        super().__init__(folder, "picture.jpg", *wholes)

    def read(self):
        read_picture(self.file, 10**8)


class Annotations(Kind):
    def __init__(self, folder):
        shutil.copy(PICTURE, folder / "a.jpg")
        super().__init__(folder, "annotations.txt", b"a.jpg 1,2,30,40,0 5,6,70,80,1\n")

    def read(self):
        check_annotations(self.file, 2, 10**8)


class Converted(Kind):
    """What a converter of tools/ makes an annotation file of, by its own command line."""

    def convert(self, script, *arguments):
        before, sys.argv = sys.argv, [script, *map(str, arguments), "--output", str(self.folder / "out" / "out.txt")]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                importlib.import_module(script).main.__wrapped__()
        finally:
            sys.argv = before


class Coco(Converted):
    def __init__(self, folder):
        shutil.copy(PICTURE, folder / "a.jpg")
        width, height = Image.open(PICTURE).size
        images = [{"id": 7, "file_name": "a.jpg", "width": width, "height": height}]
        categories = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog", "supercategory": "animal"}]
        polygon = [[10, 10, 50, 10, 50, 60]]
        boxes = [{"bbox": [1, 2, 30, 40]}, {"bbox": [], "segmentation": polygon}, {"bbox": [9, 9, 9, 9], "iscrowd": 1}]
        things = [{"id": i, "image_id": 7, "category_id": 1 + 2 * (i % 2), **box} for i, box in enumerate(boxes)]
        content = {"images": images, "annotations": things, "categories": categories}
        super().__init__(folder, "coco.json", json.dumps(content).encode())

    def read(self):
        self.convert("COCO_to_YOLOv3", self.file, self.folder)


class Xml(Converted):
    def __init__(self, folder):
        shutil.copy(PICTURE, folder / "a.jpg")
        width, height = Image.open(PICTURE).size
        box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
        things = [("cat", box.format(1, 2, 30, 40)), ("dog", box.format(5.5, 6.5, 70, 80))]
        text = (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotation><filename>a.jpg</filename>\n'
            f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
            + "".join(f"<object><name>{name}</name><difficult>0</difficult>{box}</object>\n" for name, box in things)
            + "</annotation>\n"
        )
        super().__init__(folder, "a.xml", text.encode())

    def read(self):
        self.convert("XML_to_YOLOv3", self.folder)


KINDS = {
    "weights": Weights,
    "model": ModelJson,
    "cfg": Cfg,
    "picture": Picture,
    "annotations": Annotations,
    "coco": Coco,
    "xml": Xml,
}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with one to eight of them or of their words changed, cut off, doubled or replaced by a token
    that often hurts."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 9) if rng.integers(2) else 1):
        at, how = int(rng.integers(len(data) + 1)), rng.integers(6)
        end = min(len(data), at + int(rng.integers(1, 40)))
        if how == 0 and at < len(data):
            data[at] = int(rng.integers(256))
        elif how == 1:
            del data[at:end]
        elif how == 2:
            data[at:at] = data[at:end]
        elif how == 3:
            data[at:end] = TOKENS[rng.integers(len(TOKENS))]
        elif how == 4 and (word := WORD.search(data, at)):
            data[slice(*word.span())] = TOKENS[rng.integers(len(TOKENS))]
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


@contextlib.contextmanager
def written_past_python():
    """Give a list which, behind the `with`, holds the lines that C libraries have written to standard error."""
    lines, kept = [], os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


class Result(NamedTuple):
    refused: int
    longest: float  # seconds
    failures: list  # (what was raised, or written to standard error; the bytes of the file)


def run(name: str, count: int, seed: int = 0) -> Result:
    """Read `count` damaged files of a kind."""
    rng, refused, longest, failures = np.random.default_rng([seed, list(KINDS).index(name)]), 0, 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        kind = KINDS[name](Path(folder))
        for whole in kind.wholes:
            kind.file.write_bytes(whole)
            kind.read()
        for i in range(count):
            data = mutated(kind.wholes[i % len(kind.wholes)], rng)
            kind.file.write_bytes(data)
            started = time.monotonic()
            with written_past_python() as lines:
                try:
                    kind.read()
                except UserError as error:
                    refused += 1
                    if len(printable(str(error)).splitlines()) != 1:
                        failures.append((error, data))
                except Exception as error:
                    failures.append((error, data))
            failures += [(line, data) for line in lines]
            longest = max(longest, time.monotonic() - started)
    return Result(refused, longest, failures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all if left out")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that end in a traceback")
    arguments = parser.parse_args()
    failed = 0
    for name in arguments.kinds or KINDS:
        refused, longest, failures = run(name, arguments.count, arguments.seed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {refused} of {arguments.count} refused, {longest:.2f} s at most, {peak:.0f} MB at the peak")
        failed += len(failures)
        for i, (error, data) in enumerate(failures):
            print(f"{name}: {error!r}"[:500])
            if arguments.keep:
                (arguments.keep / f"{name}-{i}").write_bytes(data)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
