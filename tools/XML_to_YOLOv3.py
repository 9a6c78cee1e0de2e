"""Convert Pascal VOC XML to an annotation file and a names file.

python tools/XML_to_YOLOv3.py photos/ --output model_data/mine.txt      XML files of a folder, e.g. of labelImg
python tools/XML_to_YOLOv3.py VOCdevkit/VOC2012 --set train --classes voc.names --skip-difficult

Pictures are looked for beside the XML files and in the folders JPEGImages and images next to theirs. Where <size> says
that the boxes were drawn on the picture as it is stored, or before it was resized, they are turned and scaled.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import _path
from yolov3.annotations.cli import annotation_parser, parse, write_converted
from yolov3.annotations.datasets import first_that, read_names
from yolov3.annotations.format import MOST_TEXT_BYTES, Size, numbered_lines, shortened
from yolov3.annotations.picture_sizes import Labelled, declared_size
from yolov3.checks import UserError, say_it_in_one_line
from yolov3.media.sources import PICTURE_SUFFIXES

import numpy as np

NEIGHBOURS = (".", "../JPEGImages", "../images")  # where a picture may be, from the folder of its XML file
SIDES = ("xmin", "ymin", "xmax", "ymax")
DECLARATION = re.compile(rb"<\?xml[^>]{0,200}\bencoding\s{0,9}=\s{0,9}[\"']([\w.:-]{1,40})[\"'][^>]{0,200}\?>")


class Annotated(NamedTuple):
    """Hold the content of one XML file."""

    file: Path
    picture: Path
    declared: Size | None
    boxes: list[list[float]]  # x1, y1, x2, y2 in pixels
    names: list[str]  # one for each box
    problems: list[str]  # objects that are left out


def find_xml(source: Path, subset: str | None) -> tuple[list[Path], list[Path]]:
    """Return the XML files under a folder, sorted, and the lists that were read.

    With a subset, return only those that a VOCdevkit lists in ImageSets/Main/{subset}.txt.
    """
    files, lists = sorted(source.rglob("*.[xX][mM][lL]")), []
    if subset:
        lists = list(source.rglob(f"ImageSets/Main/{subset}.txt"))
        if not lists:
            raise UserError(f"--set {subset}: {source} has no ImageSets/Main/{subset}.txt")
        wanted = {
            (file.parents[2].resolve(), line.split()[0]) for file in lists for _, line in numbered_lines(file, "list")
        }
        files = [file for file in files if (file.parent.parent.resolve(), file.stem) in wanted]
    if not files:
        raise UserError(f"{source} holds no XML files{f' of the set {subset}' if subset else ''}")
    return files, lists


def parse_xml(file: Path) -> ElementTree.Element:
    """Return the root element of an XML file in any encoding that Python knows. Raises ValueError."""
    if not file.is_file() or file.stat().st_size > MOST_TEXT_BYTES:
        raise ValueError("is not an XML file")
    data = file.read_bytes()
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # Expat knows only a few encodings
        fault = error
    declared = DECLARATION.search(data[:1000])
    encoding = declared[1].decode() if declared else "utf-8"
    if encoding.lower() in ("utf-8", "utf8"):  # but the file is not UTF-8: accepted where names are ASCII
        encoding = "latin-1"
    try:
        root = ElementTree.fromstring(
            (data[: declared.start()] + data[declared.end() :] if declared else data).decode(encoding)
        )
    except (ElementTree.ParseError, LookupError, ValueError):
        raise ValueError(f"is not XML that can be read: {fault}") from None
    used = [root.findtext("filename") or "", *(thing.findtext("name") or "" for thing in root.iter("object"))]
    if encoding == "latin-1" and not all(map(str.isascii, used)):
        raise ValueError("is not XML that can be read: it is not in UTF-8 and does not declare its encoding")
    return root


def read_xml(file: Path, skip_difficult: bool) -> Annotated:
    """Return the content of an XML file. Raises ValueError if it is not XML, or its picture is missing or ambiguous."""
    root = parse_xml(file)
    boxes, names, problems = [], [], []
    for number, thing in enumerate(root.iter("object"), 1):
        if skip_difficult and (thing.findtext("difficult") or "0").strip() == "1":
            continue
        name = " ".join((thing.findtext("name") or "").split())
        sides = [thing.findtext(f"bndbox/{side}") for side in SIDES]
        if not name or None in sides:
            problems.append(f"{file} object {number} is without name or bndbox")
            continue
        try:
            boxes.append([float(side) for side in sides])
        except ValueError:
            told = shortened(", ".join(sides))
            problems.append(f"{file} object {number} has a bndbox that is not four numbers: {told}")
            continue
        names.append(name)
    picture = picture_of_xml(file, (root.findtext("filename") or "").strip())
    declared = declared_size(root.findtext("size/width"), root.findtext("size/height"))
    return Annotated(file, picture, declared, boxes, names, problems)


def picture_of_xml(file: Path, filename: str) -> Path:
    """Return the picture of an XML file, by its <filename>, with or without suffix, or by the name of the file itself.

    Raises ValueError if the picture is missing, or if the two names lead to two pictures.
    """
    named = Path(filename.replace("\\", "/")).name
    suffixes = [suffix for end in PICTURE_SUFFIXES for suffix in (end, end.upper())]
    ours = [file.stem + suffix for suffix in suffixes]
    theirs = [named, *(named + suffix for suffix in suffixes)] if named else []
    by_name, by_stem = (
        first_that(Path.is_file, (file.parent / folder / name for name in names for folder in NEIGHBOURS))
        for names in (theirs, ours)
    )
    if by_name and by_stem and Path(named).stem != file.stem and by_name.resolve() != by_stem.resolve():
        raise ValueError(f"names picture {named}, but {by_stem.name} is there, too: correct its <filename>")
    if not (by_name or by_stem):
        raise ValueError(f"has no picture {shortened(named or ours[0])}")
    return (by_name or by_stem).resolve()


def to_labelled(one: Annotated, numbers: dict[str, int]) -> Labelled:
    """Return the boxes of an XML file whose class is among those of `numbers`."""
    wanted = [i for i, name in enumerate(one.names) if name in numbers]
    boxes = np.array(one.boxes, np.float64).reshape(-1, 4)[wanted]
    classes = np.array([numbers[one.names[i]] for i in wanted], np.int32)
    return Labelled(one.picture, boxes, classes, str(one.file), one.declared)


@say_it_in_one_line
def main() -> int:
    subsets = "part of a VOCdevkit: train, val, trainval or test (all)"
    parser = annotation_parser(__doc__, "all names found, sorted", subsets)
    parser.add_argument("--skip-difficult", action="store_true", help="leave out objects that are marked as difficult")
    arguments = parse(parser)

    found, problems = [], []
    files, lists = find_xml(arguments.source, arguments.subset)
    for file in files:
        try:
            found.append(read_xml(file, arguments.skip_difficult))
            problems += found[-1].problems
        except (ValueError, OSError) as error:
            problems.append(f"{file} {error}")
    per_name = Counter(name for one in found for name in one.names)
    classes = read_names(arguments.classes) if arguments.classes else tuple(sorted(per_name))
    numbers = {name: i for i, name in enumerate(classes)}
    problems += [f"{per_name[x]} boxes of {x}: not in {arguments.classes}" for x in sorted(per_name.keys() - numbers)]
    inputs = [*files, *lists, *([arguments.classes] if arguments.classes else [])]
    return write_converted([to_labelled(one, numbers) for one in found], classes, problems, [], arguments, inputs)


if __name__ == "__main__":
    sys.exit(main())
