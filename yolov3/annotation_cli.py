"""What scripts on annotated pictures share: reading them with what is wrong told, and, of the converters, the command
line, checking and writing what they found."""

import argparse
import itertools
import sys
from collections import Counter
from pathlib import Path

from yolov3 import configs
from yolov3.annotations import Checked, check_annotations, picture_size, write_annotations
from yolov3.checks import UserError, project_path
from yolov3.files import check_writable, told_in_one_line

from tqdm import tqdm


def make_parser(description):
    """An ArgumentParser with the options that every converter has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="what to convert")
    parser.add_argument("--output", type=Path, metavar="PATH", help="annotation file to write (model_data/SOURCE.txt)")
    parser.add_argument("--names", type=Path, metavar="PATH", help="names file to write (beside it, .names)")
    return parser


def parse(parser):
    """The command line, its outputs filled in and sure to be writable."""
    arguments = parser.parse_args()
    if not arguments.source.exists():
        raise UserError(f"{arguments.source} is missing: name what is to be converted")
    default = project_path("model_data") / f"{arguments.source.resolve().stem}.txt"
    arguments.output = (arguments.output or default).absolute()
    arguments.names = (arguments.names or arguments.output.with_suffix(".names")).absolute()
    for path in (arguments.output, arguments.names):
        check_writable(path.parent)
    return arguments


def finish(records, names, problems, arguments, fractions=False):
    """Checks the records against their pictures, writes annotations and names, tells what was done -> exit code.

    fractions  boxes are in fractions of their pictures instead of pixels.
    """
    checked = Checked(problems=problems)
    for record in tqdm(records, unit=" pictures", disable=None, delay=1):
        if fractions:
            record = _in_pixels(record)
        checked.add(record, len(names), configs.YOLO_MAX_PIXELS, record.picture.name)
    for problem in checked.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not checked.records:
        raise UserError(f"{arguments.source} holds no picture that can be used: nothing is written")
    write_annotations(arguments.output, checked.records)
    with told_in_one_line(arguments.names):
        arguments.names.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(describe(checked, names))
    print(f"written: {arguments.output}\nwritten: {arguments.names}")
    return 1 if checked.problems else 0


def describe(checked, names):
    """Checked -> str: how much there is of what."""
    per_class = Counter(names[i] for record in checked.records for i in record.classes)
    lines = [f"  {name}: {per_class[name]}" for name in names]
    background = sum(not len(record.classes) for record in checked.records)
    return "\n".join(
        [
            f"{len(checked.records)} pictures, {background} of them background, {per_class.total()} boxes",
            *lines,
            f"{checked.clipped} boxes clipped to their picture, {len(checked.problems)} problems",
        ]
    )


def _in_pixels(record):
    """Fractions -> pixels; a picture that cannot be read is left for the check to report."""
    try:
        size = picture_size(record.picture, configs.YOLO_MAX_PIXELS)
    except UserError:
        return record
    return record._replace(boxes=record.boxes * [*size, *size])


def read_pictures(path, class_count):
    """An annotation file -> annotations.Checked with boxes in it; what is wrong is told and left out."""
    checked = check_annotations(path, class_count, configs.YOLO_MAX_PIXELS)
    tell_left_out(checked.problems)
    if not any(len(record.classes) for record in checked.records):
        raise UserError(f"{path} has no box that can be used: python tools/Check_annotations.py says why")
    return checked


def tell_left_out(problems):
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


def check_names(of_model, annotated, place=None):
    """Raise UserError if the classes of a model are not those that the annotations number.

    place  the names file of the annotations; None: TRAIN_CLASSES
    """
    place = place or f"TRAIN_CLASSES = {configs.TRAIN_CLASSES!r}"
    pairs = enumerate(itertools.zip_longest(of_model, annotated, fillvalue="nothing"))
    for number, (ours, theirs) in pairs:
        if ours != theirs:
            raise UserError(
                f"class {number} of the model is {ours}, but {theirs} in {place}, which the annotations number "
                f"({len(of_model)} and {len(annotated)} classes): measure a model of these classes, or in "
                "yolov3/configs.py name the model's own, and pictures annotated with them"
            )
