"""What is in the pictures: annotation files, one picture a line, with its boxes in pixels of the upright picture.

    path x1,y1,x2,y2,class x1,y1,x2,y2,class ...

The path may hold spaces: it is all that stands before the first box. A picture without boxes is background. Relative
paths are relative to the project's root or, where the picture is not there, to the annotation file's folder.
"""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import UserError, project_path
from yolov3.files import whole_file

import numpy as np
from tqdm import tqdm

NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf)"
BOX = re.compile(rf"(?<!\S){NUMBER}(?:,{NUMBER}){{4}}(?!\S)", re.IGNORECASE)
ALMOST_A_BOX = re.compile(r"\s([-+.\d]*\d,[-+.,\d]*)(?!\S)")  # some, but not five numbers
CLIP_PIXELS = 3  # a box that sticks out of its picture no further is clipped, not reported: rounding, counting from 1
CLIP_FRACTION = 0.02  # of the picture's side, likewise, whichever is more
HEADER_BYTES = 2**17  # read first; a JPEG whose size stands behind more than that is read whole


class Record(NamedTuple):
    """One picture and what is in it."""

    picture: Path
    boxes: np.ndarray  # float32 (n, 4): x1, y1, x2, y2 in pixels
    classes: np.ndarray  # int32 (n,)


@dataclass
class Checked:
    """A data set as far as it can be used, and what is wrong with the rest."""

    records: list = field(default_factory=list)  # of Record; wrong boxes left out, others clipped to their picture
    sizes: list = field(default_factory=list)  # of (width, height), one per record
    problems: list = field(default_factory=list)  # of str, each with its place
    clipped: int = 0  # boxes that stuck out a little

    def add(self, record, class_count, max_pixels, place):
        """Checks a record against its picture and takes what is right with it."""
        try:
            size = picture_size(record.picture, max_pixels)
        except UserError as error:
            self.problems.append(f"{place}: {error}")
            return
        boxes, classes, reasons, clipped = check_boxes(record.boxes, record.classes, size, class_count)
        self.records.append(Record(record.picture, boxes, classes))
        self.sizes.append(size)
        self.problems += [f"{place}: {reason}" for reason in reasons]
        self.clipped += clipped


def read_annotations(path, class_count):
    """An annotation file -> list of Record. Raises UserError at the first line that is wrong in itself; whether the
    pictures are there and the boxes inside is for `check_annotations` to find."""
    records = []
    for number, line in _lines(path):
        try:
            record = parse_line(line, project_path(path).parent)
        except ValueError as error:
            raise UserError(f"{path} line {number}: {error}") from None
        if reasons := check_boxes(record.boxes, record.classes, (np.inf, np.inf), class_count)[2]:
            raise UserError(f"{path} line {number}: {reasons[0]}")
        records.append(record)
    return records


def annotated_pictures(path):
    """The pictures of an annotation file -> list of Path, whatever is wrong with their boxes."""
    lines = ((BOX.search(line), line) for _, line in _lines(path))
    names = (line[: box.start() if box else None].strip() for box, line in lines)
    return [find_picture(name, project_path(path).parent) for name in names if name]


def largest_class(path):
    """The largest class number in an annotation file, whatever else is wrong with it; -1 if it has no box."""
    boxes = (box for _, line in _lines(path) for box in BOX.findall(line))
    return max((float(box.rpartition(",")[2]) for box in boxes), default=-1)


def check_annotations(path, class_count, max_pixels):
    """An annotation file -> Checked. Pictures are opened as far as their headers: right ones may still end early.

    Raises UserError if there is no such file, nothing in it, or no picture that can be used.
    """
    checked, seen = Checked(), {}
    for number, line in tqdm(_lines(path), unit=" pictures", disable=None, delay=1):
        place = f"{path} line {number}"
        try:
            record = parse_line(line, project_path(path).parent)
        except ValueError as error:
            checked.problems.append(f"{place}: {error}")
            continue
        first = seen.setdefault(record.picture, number)
        if first == number:
            checked.add(record, class_count, max_pixels, place)
        else:
            checked.problems.append(f"{place}: picture {record.picture} is already on line {first}")
    if not checked.records:
        raise UserError(f"{path} has no picture that can be used; {checked.problems[0]}")
    return checked


def write_annotations(path, records):
    """Writes an annotation file, whole or not at all. Pictures under its folder get relative paths, so that the two
    can be moved together; those elsewhere in the project get paths relative to the project."""
    file = project_path(path)
    with whole_file(file) as part, part.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{format_record(record, file.parent)}\n" for record in records)


def parse_line(line, folder):
    """A line of an annotation file in `folder` -> Record; ValueError says what is wrong with it."""
    first = BOX.search(line)
    picture = line[: first.start() if first else None].strip()
    words = line[first.start() :].split() if first else []
    if wrong := ALMOST_A_BOX.search(picture):
        words.insert(0, wrong[1])
    for word in words:
        if not BOX.fullmatch(word):
            raise ValueError(f"{word!r} is no box: it must be x1,y1,x2,y2,class")
    if not picture:
        raise ValueError("there is no picture before the first box")
    numbers = np.array([word.split(",") for word in words], np.float64).reshape(-1, 5)
    for word, class_id in zip(words, numbers[:, 4], strict=True):
        if not (abs(class_id) < 2**31 and class_id == int(class_id)):
            raise ValueError(f"the class of {word!r} is no whole number")
    return Record(find_picture(picture, folder), numbers[:, :4].astype(np.float32), numbers[:, 4].astype(np.int32))


def find_picture(path, folder):
    """A picture's path as an annotation file in `folder` has it -> absolute Path, whether it is there or not."""
    in_project, beside = project_path(path), folder / path
    return (beside if not in_project.exists() and beside.exists() else in_project).absolute()


def format_record(record, folder):
    """Record -> its line in an annotation file in `folder`."""
    picture = record.picture.absolute()
    name = picture.as_posix()
    for root in (folder, project_path("")):
        if picture.is_relative_to(root) and find_picture(picture.relative_to(root), folder) == picture:
            name = picture.relative_to(root).as_posix()
            break
    boxes = zip(record.boxes, record.classes, strict=True)
    return " ".join([name, *(",".join(f"{round(float(x), 2):.12g}" for x in box) + f",{i}" for box, i in boxes)])


def check_boxes(boxes, classes, size, class_count):
    """The boxes of a picture of size (width, height) -> those that are right, clipped to it, their classes, what is
    wrong with the others (list of str), and how many were clipped."""
    limit = np.array([*size, *size], np.float32)
    slack = np.maximum(CLIP_PIXELS, CLIP_FRACTION * limit)
    good, reasons, clipped, seen = [], [], 0, set()
    for i, (box, class_id) in enumerate(zip(boxes, classes, strict=True)):
        inside = np.clip(box, 0, limit)
        reason = None
        if not np.isfinite(box).all():
            reason = "has a side that is not a number"
        elif box[2] < box[0] or box[3] < box[1]:
            reason = "has x2 < x1 or y2 < y1"
        elif (np.abs(box - inside) > slack).any():
            reason = f"is outside the picture of {size[0]} x {size[1]} pixels"
        elif inside[2] <= inside[0] or inside[3] <= inside[1]:
            reason = "has no area"
        elif (*box, class_id) in seen:
            reason = "is there twice"
        elif not 0 <= class_id < class_count:
            reason = f"is of no class: there are {class_count}, 0 to {class_count - 1}"
        if reason:
            reasons.append(f"box {','.join(f'{x:g}' for x in box)},{class_id} {reason}")
            continue
        seen.add((*box, class_id))
        good.append(i)
        clipped += int((box != inside).any())
    return np.clip(boxes[good], 0, limit), classes[good], reasons, clipped


def picture_size(path, max_pixels):
    """(width, height) of the upright picture, from the file's header alone. Raises UserError with the reason."""
    try:
        with Path(path).open("rb") as file:
            header = file.read(HEADER_BYTES)
            size = _size_of(header)
            if size is None and header.startswith(b"\xff\xd8"):
                size = _size_of(header + file.read())
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise UserError(f"picture {path} {reason}") from None
    width, height = size or (0, 0)
    if not width or not height:
        raise UserError(f"{path} is not a picture that can be read")
    if width * height > max_pixels:
        raise UserError(f"picture {path} is {width} x {height}, more than YOLO_MAX_PIXELS = {max_pixels:_} allows")
    return width, height


def _size_of(data):
    """The first bytes of a picture file -> (width, height), None if they do not tell."""
    import tensorflow as tf  # only here: drawing data needs none of it, and starts six times as fast

    try:
        height, width = _graph_of_size()(tf.constant(data)).numpy().tolist()
    except tf.errors.OpError:
        return None
    return width, height


@functools.cache
def _graph_of_size():
    """One graph for all pictures, 0.5 ms each; op by op it would be 30."""
    from yolov3.images import SIGNATURES, exif_orientation, header_size

    import tensorflow as tf

    def upright_size(data):
        is_jpeg = tf.strings.substr(data, 0, 3) == SIGNATURES["JPEG"]
        orientation = tf.cond(is_jpeg, lambda: exif_orientation(data), lambda: tf.constant(1))
        size = header_size(data)
        return tf.where(orientation >= 5, size[::-1], size)

    return tf.function(upright_size, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def _lines(path):
    """The lines of an annotation file that are not blank, with their numbers from 1."""
    try:
        lines = project_path(path).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"annotation file {path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"annotation file {path} cannot be read: {error}") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f"annotation file {path} is empty: write a line for each picture, path x1,y1,x2,y2,class ...")
    return numbered
