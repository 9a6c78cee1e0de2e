"""Convert Darknet's labels, a text file for each picture with `class x y width height` a line, to an annotation file.

python tools/Darknet_to_YOLOv3.py coco64/ --classes coco.names      a folder of images/ and labels/, or both in one
python tools/Darknet_to_YOLOv3.py data/train.txt --classes data/obj.names           Darknet's own list of pictures
python tools/Darknet_to_YOLOv3.py data.yaml --set val          YOLOv5's or Roboflow's data.yaml, or Darknet's obj.data

Without --classes the names come from data.yaml or obj.data, or from the names file of the folder or the one above.
Numbers are fractions of the picture. A polygon (class x y x y x y ...) becomes the box around it. A sixth number, the
score that --txt of detection_demo.py writes, is passed over.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import _path
from yolov3.annotations.cli import annotation_parser, parse, write_converted
from yolov3.annotations.datasets import (
    DATA,
    SUBSETS,
    YAML,
    around,
    first_that,
    read_dataset,
    read_names,
    subset_words,
    tails,
)
from yolov3.annotations.format import numbered_lines, shortened
from yolov3.annotations.picture_sizes import Labelled
from yolov3.checks import UserError, choose, say_it_in_one_line
from yolov3.media.sources import PICTURE_SUFFIXES

import numpy as np

PICTURE_FOLDERS = ("images", "JPEGImages")  # the labels of such a folder lie in labels/ beside it
NAMES = ("classes.txt", "labels/classes.txt", "*.names", "_darknet.labels", "*.yaml", "*.yml", "*.data")


class Listed(NamedTuple):
    """Hold the pictures of a source, each with the place that names it, and the problems of the others."""

    pictures: list[tuple[Path, str]]
    problems: list[str]
    files: list[Path]  # lists that were read to find the pictures


def find_pictures(source: Path, subset: str | None) -> Listed:
    """Return the pictures of a folder, of Darknet's list, or of a subset that data.yaml or obj.data names."""
    if source.is_dir():
        paths = (x.absolute() for x in sorted(source.rglob("*")) if x.suffix.lower() in PICTURE_SUFFIXES)
        return Listed([(path, str(path)) for path in paths], [], [])
    if source.suffix.lower() not in (*YAML, *DATA):
        return _listed(source)
    words = subset_words(read_dataset(source), subset or "train")
    if not words:
        raise UserError(f"{source} does not name pictures for --set {subset or 'train'}")
    found = Listed([], [], [])
    for word in words:
        part = first_that(lambda path: path.is_dir() or path.is_file(), tails(word, _roots(source)))
        if not part or part.resolve() == source.resolve():
            raise UserError(f"{source} names {shortened(word)!r}, which is missing: give its folder or list instead")
        for ours, new in zip(found, _listed(part) if part.is_file() else find_pictures(part, None), strict=True):
            ours += new
    return found


def _roots(source):
    """Return the folders that the paths of data.yaml may begin in: its `path`, and those around the file."""
    root = read_dataset(source).get("path") if source.suffix.lower() in YAML else None
    base = first_that(Path.is_dir, tails(root, around(source))) if isinstance(root, str) and root else None
    return [*([base] if base else []), *around(source)]


def _listed(source):
    """Return the pictures of a list. Its paths are relative to where Darknet ran, on this machine or another."""
    pictures, problems, roots, ran_in = [], [], around(source), [Path.cwd(), *source.resolve().parents]
    for number, line in numbered_lines(source, "list"):
        place, word = f"{source}:{number}", line.strip()
        if picture := first_that(Path.is_file, tails(word, roots, ran_in)):
            pictures.append((picture.absolute(), place))
        else:
            problems.append(f"{place}: picture {shortened(word)} is missing: give the folder of the pictures instead")
    return Listed(pictures, problems, [source])


def label_file(picture: Path) -> Path:
    """Return the label file of a picture: labels/a/1.txt for images/a/1.jpg, or else the one beside the picture."""
    parts = list(picture.parts)
    beside = picture.with_suffix(".txt")
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] in PICTURE_FOLDERS:
            apart = Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt")
            return beside if beside.is_file() and not apart.is_file() else apart
    return beside


def read_labels(picture: Path, place: str) -> tuple[Labelled, list[str], int]:
    """Return a picture with its labels, the problems of those left out, and how many were polygons.

    Raises UserError if the labels are missing or not text.
    """
    file = label_file(picture)
    if not file.exists():
        raise UserError(f"labels {file} are missing (background has an empty file)")
    boxes, classes, problems, polygons = [], [], [], 0
    for number, line in numbered_lines(file, "labels"):
        try:
            class_id, box, is_polygon = parse_label(line)
        except ValueError as error:
            problems.append(f"{file}:{number}: {error}")
            continue
        boxes.append(box)
        classes.append(class_id)
        polygons += is_polygon
    numbers = np.array(boxes, np.float64).reshape(-1, 4)
    return Labelled(picture, numbers, np.array(classes, np.int32), place, in_fractions=True), problems, polygons


def parse_label(line: str) -> tuple[int, tuple[float, ...], bool]:
    """Return the class, the box (x1, y1, x2, y2) in fractions, and whether it was a polygon. Raises ValueError."""
    words = line.split()
    is_polygon = len(words) >= 7 and len(words) % 2 == 1
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    has_score = len(numbers) == 6 and 0 <= numbers[5] <= 1
    if not (len(numbers) == 5 or has_score or numbers and is_polygon) or not np.isfinite(numbers).all():
        raise ValueError(f"{shortened(line.strip())!r} is not `class x y width height`")
    class_id = numbers[0]
    if class_id != round(class_id) or abs(class_id) >= 2**31:
        raise ValueError(f"class {shortened(words[0])} is not a whole number")
    if is_polygon:
        x, y = numbers[1::2], numbers[2::2]
        return int(class_id), (min(x), min(y), max(x), max(y)), True
    x, y, width, height = numbers[1:5]
    return int(class_id), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), False


def find_names(source: Path) -> Path:
    """Return the file that names the classes of a source. Raises UserError if there is none, or more than one."""
    if source.suffix.lower() in (*YAML, *DATA) and source.is_file():
        return source
    folder = source.resolve() if source.is_dir() else source.resolve().parent
    for place in (folder, folder.parent):
        for pattern in NAMES:
            files = sorted(x for x in place.glob(pattern) if x.is_file())
            if len(files) == 1:
                return files[0]
            if files:
                raise UserError(f"{place} has {len(files)} files {pattern}: name the classes' file with --classes")
    raise UserError(f"{folder} has no names file (classes.txt, .names): name the classes' file with --classes")


@say_it_in_one_line
def main() -> int:
    subsets = "part of a data.yaml or obj.data: train, val or test (train)"
    parser = annotation_parser(__doc__, "the one that lies with the labels", subsets)
    arguments = parse(parser)
    choose("--set", arguments.subset or "train", SUBSETS)
    names_file = arguments.classes or find_names(arguments.source)
    names = read_names(names_file)
    pictures, problems, files = find_pictures(arguments.source, arguments.subset)
    if not pictures and not problems:
        raise UserError(f"{arguments.source} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")

    found, polygons = [], 0
    for picture, place in pictures:
        try:
            one, wrong, count = read_labels(picture, place)
        except (UserError, OSError) as error:
            problems.append(f"{place}: {error}")
            continue
        found.append(one)
        problems += wrong
        polygons += count
    notes = [f"{polygons} polygons became the boxes around them"] if polygons else []
    labels = (label_file(picture) for picture, _ in pictures)
    return write_converted(found, names, problems, notes, arguments, [names_file, *files, *labels])


if __name__ == "__main__":
    sys.exit(main())
