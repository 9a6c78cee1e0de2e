"""Darknet's labels, a text file per picture with `class x y width height` a line, to an annotation file.

python tools/Darknet_to_YOLOv3.py coco64/ --classes coco.names      a folder with images/ and labels/, or both in one
python tools/Darknet_to_YOLOv3.py data/train.txt --classes data/obj.names           Darknet's own list of pictures

Without --classes the folder's classes.txt or its one .names file is taken. Numbers are fractions of the picture.
"""

import sys
from pathlib import Path

import _path
from yolov3.annotation_cli import finish, make_parser, parse
from yolov3.annotations import Record
from yolov3.checks import UserError, as_given, read_class_names, say_it_in_one_line
from yolov3.media.sources import PICTURE_SUFFIXES

import numpy as np

PICTURE_FOLDERS = ("images", "JPEGImages")  # Darknet reads the labels of such a folder from labels/ beside it


def find_pictures(source):
    """The pictures of a folder, or of a list, whose paths are relative to where Darknet ran: here, or above it."""
    if source.is_dir():
        pictures = sorted(x for x in source.rglob("*") if x.suffix.lower() in PICTURE_SUFFIXES)
    else:
        words = [line.strip() for line in source.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        roots = [Path.cwd(), *source.resolve().parents]
        pictures = [next((r / word for r in roots if (r / word).is_file()), Path(word).absolute()) for word in words]
    if not pictures:
        raise UserError(f"{source} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    return [picture.absolute() for picture in pictures]


def label_file(picture):
    """Where Darknet looks for a picture's labels: images/a/1.jpg -> labels/a/1.txt, else beside the picture."""
    parts = list(picture.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] in PICTURE_FOLDERS:
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(picture):
    """A picture's labels -> Record, boxes xyxy in fractions. ValueError says what is wrong."""
    file = label_file(picture)
    try:
        rows = [line.split() for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except FileNotFoundError:
        raise ValueError(f"labels {file} are missing (background has an empty file)") from None
    try:
        numbers = np.array([[float(word) for word in row] for row in rows]).reshape(-1, 5)
        classes = numbers[:, 0].astype(np.int32)
    except ValueError:
        numbers = None
    if numbers is None or any(len(row) != 5 for row in rows) or (numbers[:, 0] != classes).any():
        raise ValueError(f"labels {file} have a line that is not `class x y width height`")
    centre, half = numbers[:, 1:3], numbers[:, 3:5] / 2
    return Record(picture, np.concatenate([centre - half, centre + half], 1), classes)


def find_names(source):
    """The names file that came with the labels."""
    folder = source if source.is_dir() else source.parent
    files = [x for x in (folder / "classes.txt", folder / "labels" / "classes.txt") if x.exists()]
    files = files or sorted(folder.glob("*.names"))
    if len(files) != 1:
        raise UserError(f"{folder} has no classes.txt and not one .names file: name the classes' file with --classes")
    return files[0]


@say_it_in_one_line
def main():
    parser = make_parser(__doc__)
    parser.add_argument("--classes", metavar="NAMES", type=Path, help="names file (the one found with the labels)")
    arguments = parse(parser)
    names = read_class_names(as_given(arguments.classes or find_names(arguments.source)))

    records, problems = [], []
    for picture in find_pictures(arguments.source):
        try:
            records.append(read_labels(picture))
        except (ValueError, OSError) as error:
            problems.append(f"{picture}: {error}")
    return finish(records, names, problems, arguments, fractions=True)


if __name__ == "__main__":
    sys.exit(main())
