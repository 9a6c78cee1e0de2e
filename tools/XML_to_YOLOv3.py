"""Pascal VOC XML to an annotation file and a names file.

python tools/XML_to_YOLOv3.py photos/ --output model_data/mine.txt      XML files of a folder, e.g. of labelImg
python tools/XML_to_YOLOv3.py VOCdevkit/VOC2012 --set train --classes voc.names --skip-difficult

Pictures are looked for beside the XML and in its neighbours JPEGImages and images. Boxes are taken as they stand.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import _path
from yolov3.annotation_cli import finish, make_parser, parse
from yolov3.annotations import Record
from yolov3.checks import UserError, as_given, read_class_names, say_it_in_one_line
from yolov3.media.sources import PICTURE_SUFFIXES

import numpy as np

NEIGHBOURS = (".", "../JPEGImages", "../images")  # of an XML's folder: where its picture may be


def find_xml(source, subset):
    """The XML files under a folder, sorted; of a VOCdevkit those that ImageSets/Main/{subset}.txt lists."""
    files = sorted(source.rglob("*.xml"))
    if subset:
        lists = list(source.rglob(f"ImageSets/Main/{subset}.txt"))
        if not lists:
            raise UserError(f"--set {subset}: {source} has no ImageSets/Main/{subset}.txt")
        wanted = {
            (file.parents[2].resolve(), line.split()[0])
            for file in lists
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.strip()
        }
        files = [file for file in files if (file.parent.parent.resolve(), file.stem) in wanted]
    if not files:
        raise UserError(f"{source} holds no XML files{f' of the set {subset}' if subset else ''}")
    return files


def read_xml(file, skip_difficult):
    """One XML -> path of its picture, boxes as a list of [x1, y1, x2, y2], class names. ValueError tells the fault."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"is no XML: {error}") from None
    boxes, names = [], []
    for thing in root.iter("object"):
        if skip_difficult and (thing.findtext("difficult") or "0").strip() == "1":
            continue
        name = (thing.findtext("name") or "").strip()
        sides = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if not name or None in sides:
            raise ValueError("has an object without name or bndbox")
        try:
            boxes.append([float(side) for side in sides])
        except ValueError:
            raise ValueError(f"has a bndbox that is no four numbers: {', '.join(sides)}") from None
        names.append(name)
    return find_picture(file, (root.findtext("filename") or "").strip()), boxes, names


def find_picture(file, filename):
    """An XML and the file name in it (some have none, or one without suffix) -> Path; ValueError if it is missing."""
    candidates = [Path(filename.replace("\\", "/")).name] if filename else []
    candidates += [file.stem + suffix for end in PICTURE_SUFFIXES for suffix in (end, end.upper())]
    for candidate in candidates:
        for folder in NEIGHBOURS:
            picture = file.parent / folder / candidate
            if picture.is_file():
                return picture.resolve()
    raise ValueError(f"has no picture {candidates[0]}")


def to_record(picture, boxes, names, classes):
    """-> Record of the boxes whose name is among the classes."""
    known = [i for i, name in enumerate(names) if name in classes]
    kept = np.array(boxes, np.float32).reshape(-1, 4)[known]
    return Record(picture, kept, np.array([classes.index(names[i]) for i in known], np.int32))


@say_it_in_one_line
def main():
    parser = make_parser(__doc__)
    parser.add_argument("--classes", metavar="NAMES", help="names file, for its order (all names found, sorted)")
    parser.add_argument("--set", help="of a VOCdevkit: train, val, trainval, test (all)")
    parser.add_argument("--skip-difficult", action="store_true", help="leave out objects marked difficult")
    arguments = parse(parser)

    found, problems = [], []
    for file in find_xml(arguments.source, arguments.set):
        try:
            found.append(read_xml(file, arguments.skip_difficult))
        except (ValueError, OSError) as error:
            problems.append(f"{file} {error}")
    names = sorted({name for *_, names in found for name in names})
    classes = read_class_names(as_given(arguments.classes)) if arguments.classes else tuple(names)
    for name in names:
        if name not in classes:
            problems.append(f"{sum(x.count(name) for *_, x in found)} boxes of {name}: not in {arguments.classes}")
    return finish([to_record(*one, classes) for one in found], classes, problems, arguments)


if __name__ == "__main__":
    sys.exit(main())
