"""Read, check and write annotation files: one picture a line, with its boxes in pixels of the upright picture.

    path x1,y1,x2,y2,class x1,y1,x2,y2,class ...

The path may hold spaces: it is all that stands before the first box. A picture without boxes is background. A relative
path is relative to the project's root or, where the picture is not there, to the annotation file's folder.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import UserError, check_count, project_path
from yolov3.files import whole_file

import numpy as np
import PIL.Image
from tqdm import tqdm

# Each part begins with a character that cannot occur in the part before it, so that matching takes linear time.
NUMBER = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf)", re.ASCII | re.IGNORECASE)
WORD = re.compile(r"\S+")
SOME_NUMBERS = re.compile(r"[-+.,\d]*", re.ASCII)
MOST_TEXT_BYTES = 2**31  # of an annotation, label or XML file; a larger one is of another kind
LONGEST_TOLD = 60  # characters of a wrong word that a message repeats
ORIENTATION = 0x0112  # the EXIF tag
PIL.Image.MAX_IMAGE_PIXELS = None  # YOLO_MAX_PIXELS is the limit, checked by `read_size` before anything is decoded


class Record(NamedTuple):
    """Hold one picture and what is in it."""

    picture: Path
    boxes: np.ndarray  # float32 (n, 4): x1, y1, x2, y2 in pixels
    classes: np.ndarray  # int32 (n,)


class Size(NamedTuple):
    """Hold the size of a picture file as it is seen, upright. It is stored as the camera was held."""

    height: int
    width: int
    orientation: int = 1  # by EXIF, 1 to 8; from 5 on, height and width are exchanged in the stored picture


@dataclass
class Checked:
    """Hold what can be used of a data set, and what is wrong with the rest."""

    records: list[Record] = field(default_factory=list)  # boxes clipped to their picture, without those that are wrong
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width) of each record's picture
    problems: list[str] = field(default_factory=list)  # each with its place
    clipped: int = 0  # boxes that were partly outside their picture

    def add(self, record: Record, class_count: int, max_pixels: int, place: str) -> None:
        """Check a record against its picture and keep what is right."""
        try:
            height, width, _ = read_size(record.picture, max_pixels)
        except UserError as error:
            self.problems.append(f"{place}: {error}")
            return
        boxes, classes, reasons, clipped = usable_boxes(record.boxes, record.classes, (height, width), class_count)
        self.records.append(Record(record.picture, boxes, classes))
        self.sizes.append((height, width))
        self.problems += [f"{place}: {reason}" for reason in reasons]
        self.clipped += clipped


def annotated_pictures(path: str | Path) -> list[Path]:
    """Return the pictures of an annotation file, whatever is wrong with their boxes."""
    names = (_split(line)[0] for _, line in _lines(path))
    return [find_picture(name, project_path(path).parent) for name in names if name and "\0" not in name]


def largest_class(path: str | Path) -> float:
    """Return the largest class number in an annotation file, whatever else is wrong with it; -1 if it has no box."""
    boxes = (word.split(",") for _, line in _lines(path) for word in _split(line)[1])
    return max((float(box[4]) for box in boxes if len(box) == 5 and all(map(NUMBER.fullmatch, box))), default=-1)


def check_annotations(path: str | Path, class_count: int, max_pixels: int) -> Checked:
    """Return what can be used of an annotation file, and what is wrong with the rest.

    Only the headers of the pictures are read, so a truncated picture is not noticed.
    Raises UserError if the file is missing or empty, or has no picture that can be used.
    """
    check_count("YOLO_MAX_PIXELS", max_pixels, 1)
    checked = Checked()
    seen: dict[Path, int] = {}
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


def draw_share(records: Sequence[Record], share: float, seed: int) -> list[int]:
    """Return which of the records are in a random share of them, which has as large a share of the background.

    At least one record with boxes is in it, and one is not.
    """
    chosen, rng = [], np.random.default_rng(seed)
    for has_boxes in (True, False):
        rows = [i for i, record in enumerate(records) if bool(len(record.classes)) == has_boxes]
        count = round(share * len(rows))
        if has_boxes and len(rows) > 1:
            count = min(max(count, 1), len(rows) - 1)
        chosen += rng.permutation(rows)[:count].astype(int).tolist()
    return sorted(chosen)


def write_annotations(path: str | Path, records: Iterable[Record]) -> None:
    """Write an annotation file, whole or not at all.

    Pictures under its folder get relative paths, so that the two can be moved together; those elsewhere in the project
    get paths relative to the project.
    """
    file = project_path(path)
    with whole_file(file) as part:
        part.write_text(annotation_text(records, file.parent), encoding="utf-8")


def annotation_text(records: Iterable[Record], folder: Path) -> str:
    """Return the text of an annotation file in a folder."""
    return "".join(f"{format_record(record, folder)}\n" for record in records)


def parse_line(line: str, folder: Path) -> Record:
    """Return the record of one line of an annotation file in `folder`. Raises ValueError that says what is wrong."""
    picture, words = _split(line)
    rows = [word.split(",") for word in words]
    for word, row in zip(words, rows, strict=True):
        if len(row) != 5 or not all(map(NUMBER.fullmatch, row)):
            raise ValueError(f"{shortened(word)!r} is not a box: it must be x1,y1,x2,y2,class")
    if not picture:
        raise ValueError("the path of the picture is missing before the first box")
    if "\0" in picture:
        raise ValueError("the path holds a NUL character: save the file as UTF-8 text")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, which `usable_boxes` reports
        numbers = np.array([[float(x) for x in row] for row in rows], np.float64).reshape(-1, 5)
        boxes = numbers[:, :4].astype(np.float32)
    whole = (np.abs(numbers[:, 4]) < 2**31) & (numbers[:, 4] == np.round(numbers[:, 4]))
    if not whole.all():
        raise ValueError(f"the class of {shortened(words[int(whole.argmin())])!r} is not a whole number")
    return Record(find_picture(picture, folder), boxes, numbers[:, 4].astype(np.int32))


def _split(line):
    """Return the path of a line and the words behind it, from the first box or what was meant to be one."""
    for found in WORD.finditer(line):
        word = found[0]
        numbers = word.split(",")
        is_box = len(numbers) == 5 and all(map(NUMBER.fullmatch, numbers))
        is_meant = found.start() and re.search(r"\d,", word) and SOME_NUMBERS.fullmatch(word)
        if is_box or is_meant:
            return line[: found.start()].strip(), line[found.start() :].split()
    return line.strip(), []


def shortened(text: str) -> str:
    """Return a text, shortened to fit into a message."""
    return text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]}..."


def find_picture(path: str | Path, folder: Path) -> Path:
    """Return the absolute path of a picture that an annotation file in `folder` names, whether it exists or not."""
    in_project, beside = project_path(path), folder / path
    try:
        return (beside if not in_project.exists() and beside.exists() else in_project).absolute()
    except OSError:  # a path that is too long
        return in_project.absolute()


def format_record(record: Record, folder: Path) -> str:
    """Return the line of a record in an annotation file in `folder`."""
    picture = record.picture.absolute()
    name = picture.as_posix()
    for root in (folder, project_path("")):
        if picture.is_relative_to(root) and find_picture(picture.relative_to(root), folder) == picture:
            name = picture.relative_to(root).as_posix()
            break
    boxes = zip(record.boxes.tolist(), record.classes, strict=True)
    return " ".join([name, *(",".join(f"{round(x, 2):.12g}" for x in box) + f",{i}" for box, i in boxes)])


def usable_boxes(
    boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int], class_count: int
) -> tuple[np.ndarray, np.ndarray, list[str], int]:
    """Check the boxes (n, 4) xyxy of a picture of size (height, width), in pixels.

    Return the right ones, clipped to the picture, their classes, what is wrong with the others, and how many were
    clipped. A box whose centre is outside the picture is wrong. One that is only partly outside is clipped, since its
    object would be trained as background if the box were left out.
    """
    height, width = size
    limit = np.array([width, height, width, height], np.float64)
    wide = np.asarray(boxes, np.float64).reshape(-1, 4)
    inside = np.clip(wide, 0, limit)
    centre = (wide[:, :2] + wide[:, 2:]) / 2
    faults = [  # the first that applies is reported
        (~np.isfinite(wide).all(1), "has a side that is not a number"),
        ((wide[:, 2:] < wide[:, :2]).any(1), "has x2 < x1 or y2 < y1"),
        (((centre < 0) | (centre > limit[:2])).any(1), f"is outside the picture of {width} x {height} pixels"),
        ((inside[:, 2:] <= inside[:, :2]).any(1), "has no area"),
        (_repeated(wide, classes), "appears twice"),
        ((classes < 0) | (classes >= class_count), f"has an unknown class: there are {class_count}, from 0"),
    ]
    wrong = np.stack([mask for mask, _ in faults], 1)  # (n, faults)
    reasons = [
        f"box {','.join(f'{x:g}' for x in wide[i])},{classes[i]} {faults[int(wrong[i].argmax())][1]}"
        for i in np.flatnonzero(wrong.any(1))
    ]
    good = ~wrong.any(1)
    clipped = int((wide != inside)[good].any(1).sum())
    return inside[good].astype(np.float32), classes[good], reasons, clipped


def _repeated(boxes, classes):
    """Return for each box whether an equal one of the same class comes before it."""
    seen = set()
    rows = [(*box, label) for box, label in zip(boxes.tolist(), classes.tolist(), strict=True)]
    return np.array([row in seen or seen.add(row) is not None for row in rows], bool)


def read_size(path: str | Path, max_pixels: int) -> Size:
    """Return the Size of a picture file from its header. Raises UserError."""
    try:
        if not Path(path).is_file():
            raise UserError(f"picture {path} is {'not a file' if Path(path).exists() else 'missing'}")
        with PIL.Image.open(path) as picture:
            width, height = picture.size
            if picture.format == "GIF" and picture.tile and picture.tile[0][1]:
                left, top, right, bottom = picture.tile[0][1]  # the first frame, which may be smaller than the canvas
                width, height = right - left, bottom - top
            is_jpeg = picture.format in ("JPEG", "MPO")
            orientation = picture.getexif().get(ORIENTATION, 1) if is_jpeg else 1
    except UserError:
        raise
    except OSError as error:
        reason = f"cannot be read: {error.strerror}" if error.strerror else "is not a picture that can be read"
        raise UserError(f"picture {shortened_path(path)} {reason}") from None
    except Exception:  # noqa: BLE001  Pillow raises errors of many kinds for damaged headers
        raise UserError(f"picture {path} is not a picture that can be read") from None
    orientation = orientation if orientation in range(1, 9) else 1
    if orientation >= 5:
        width, height = height, width
    if width * height > max_pixels:
        raise UserError(f"picture {path} is {width} x {height}, more than YOLO_MAX_PIXELS = {max_pixels:_} allows")
    if not width or not height:
        raise UserError(f"picture {path} is not a picture that can be read")
    return Size(height, width, orientation)


def shortened_path(path: str | Path) -> str:
    """Return a path, shortened to fit into a message. Its end is kept, which tells it from others."""
    text = str(path)
    return text if len(text) <= 255 else f"...{text[-LONGEST_TOLD:]}"


def read_text(path: Path, what: str) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark. Raises UserError about `what`."""
    try:
        if not path.is_file():
            raise UserError(f"{what} {path} {'cannot be read: it is not a file' if path.exists() else 'is missing'}")
        if path.stat().st_size > MOST_TEXT_BYTES:
            raise UserError(f"{what} {path} cannot be read: it has more than {MOST_TEXT_BYTES:_} bytes")
        data = path.read_bytes()
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if is_utf16 else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise UserError(f"{what} {path} cannot be read: save it as UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{what} {shortened_path(path)} cannot be read: {error.strerror}") from None


def numbered_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, with their numbers from 1."""
    return [(i, line) for i, line in enumerate(read_text(path, what).split("\n"), 1) if line.strip()]


def _lines(path):
    numbered = numbered_lines(project_path(path), "annotation file")
    if not numbered:
        raise UserError(f"annotation file {path} is empty: write a line for each picture, path x1,y1,x2,y2,class ...")
    return numbered
