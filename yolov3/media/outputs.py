"""The files that results go to: annotated pictures, and the table of result files and folders, `RESULT_FILES`.

Pictures are uint8 (H, W, 3), RGB. Files take their final name when they are whole; until then what lay there stays.
"""

import abc
import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import LONGEST_NAME, UserError, tell
from yolov3.files import OneFileRefused, new_part, told_in_one_line, whole_file

import cv2
import numpy as np

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
SCORED_LABELS = re.compile(rb"(\S+( \S+){5}\n)*")  # what `Labels` writes; labels of a person have five columns
NOT_IN_NAMES = re.compile(r'[\x00-\x1f\\/:*?"<>|]')  # of files, by the rules of Linux or Windows


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture in the format that its name ends in. Raises UserError."""
    try:
        encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error:
        encoded = False
    if not encoded:
        size = f"{picture.shape[1]} x {picture.shape[0]}"
        raise OneFileRefused(f"output {path} cannot be written: {size} is too large for its format")
    with whole_file(path) as part:
        part.write_bytes(data.tobytes())


def name_pictures(paths: Iterable[Path], name_of: Callable[[Path], Path]) -> dict[str, Path]:
    """Return for each picture, as str, its name in the output folder: what `name_of` says, unless another picture has
    that name or the file system does not take it."""
    names: dict[str, Path] = {}
    taken: set[Path] = set()
    wanted = {str(path): name_of(path) for path in paths}
    for path in sorted(wanted, key=lambda path: wanted[path].name != Path(path).name):  # own names come first
        name, number = shorten(wanted[path]), 1
        while name in taken:  # also by the folder of another
            number += 1
            name = shorten(wanted[path], f"-{number}")
        taken.update((name, *name.parents))
        names[path] = name
    return names


def shorten(name: Path, end: str = "") -> Path:
    """Return a path with an end to its stem, and the stem cut to what file systems take."""
    stem = os.fsencode(name.stem)[: LONGEST_NAME - len(os.fsencode(end + name.suffix))]
    whole = len(stem) == len(os.fsencode(name.stem))
    return name.with_name((os.fsdecode(stem) if whole else stem.decode(errors="ignore")) + end + name.suffix)


class Lines(abc.ABC):
    """A text file that grows with every frame. A subclass gives the `text` of a frame.

    However it ends, it holds the whole lines that were written; without any, what lay there stays.
    """

    def __init__(self, path: Path):
        self.path = path
        with told_in_one_line(path):
            self._part = new_part(path)
            self._file = self._part.open("wb", buffering=0)
        self._whole: int | None = None  # bytes of whole frames

    @abc.abstractmethod
    def text(self, frame, found) -> str:
        """Return what a `sources.Frame` and its `Detections` add to the file."""

    def write(self, frame, found) -> None:
        """Write what was found in a `sources.Frame`, a `Detections`. Raises UserError."""
        data = self.text(frame, found).encode("utf-8", "backslashreplace")  # file names need not be Unicode
        with told_in_one_line(self.path):
            try:
                while data:
                    data = data[self._file.write(data) :]  # a full disk takes a piece of it, then nothing
            except OSError:
                self._file.truncate(self._whole or 0)
                raise
        self._whole = self._file.tell()

    def close(self) -> None:
        """Finish the file. Raises UserError."""
        with told_in_one_line(self.path):
            try:
                self._file.close()
                if self._whole is not None:
                    self._part.replace(self.path)
            finally:
                self._part.unlink(missing_ok=True)


class JsonLines(Lines):
    """One JSON line per frame: source, frame number, boxes xyxy in pixels, scores, class names; of tracks, numbers."""

    def text(self, frame, found):
        line = {
            "source": frame.source,
            "frame": frame.index,
            "boxes": [[round(float(x), 2) for x in box] for box in found.boxes],
            "scores": [round(float(score), 5) for score in found.scores],
            "classes": found.labels,
        }
        if found.numbers is not None:
            line["numbers"] = found.numbers.tolist()
        return json.dumps(line, ensure_ascii=False) + "\n"


class MotLines(Lines):
    """Tracks as in MOTChallenge, one a line: frame (from 1), number, left, top, width, height, score, -1, -1, -1."""

    def text(self, frame, found):
        rows = zip(found.numbers, found.boxes, found.scores, strict=True)
        return "".join(
            f"{frame.place + 1},{number},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n"
            for number, (x1, y1, x2, y2), score in rows
        )


class CsvLines(Lines):
    """A table with a row for each box: source, frame number, class, score, corners in pixels; of tracks, the number."""

    def text(self, frame, found):
        lines = io.StringIO()
        table = csv.writer(lines, lineterminator="\n")
        numbers = [] if found.numbers is None else [found.numbers.tolist()]
        if self._whole is None:
            table.writerow(["source", "frame", "class", "score", "x1", "y1", "x2", "y2", *["number"] * len(numbers)])
        boxes = ([f"{x:.2f}" for x in box] for box in found.boxes)
        for label, score, box, *number in zip(found.labels, found.scores, boxes, *numbers, strict=True):
            table.writerow([frame.source, frame.index, label, f"{score:.5f}", *box, *number])
        return lines.getvalue()


class Folder(abc.ABC):
    """A folder of files, of each frame one or more that are named after it. A subclass writes them."""

    def __init__(self, path: Path):
        self.path = path
        self.kept = 0  # files that were there and are not to be replaced

    @abc.abstractmethod
    def write(self, frame, found) -> None:
        """Write what was found in a `sources.Frame`, a `Detections`. Raises UserError."""

    def close(self) -> None:
        """Tell what was left as it was. All files are whole already."""
        if self.kept:
            tell(f"{self.path}: {self.kept} files that were there, made by a person, are left as they are")

    def file_of(self, frame, suffix: str, end: str = "", folder: str = "") -> Path:
        """Return the path of a file of a frame: of a/1.jpg, FOLDER/a/1.txt."""
        return shorten(self.path / folder / frame.name.with_name(frame.name.name + suffix), end)


class Labels(Folder):
    """Darknet's labels, a text file for each frame: class, centre and size in fractions of the picture, and the score.

    classes.txt names the classes, where Darknet_to_YOLOv3.py looks for it. Labels without a score are of a person and
    stay.
    """

    def __init__(self, path):
        super().__init__(path)
        self.named = False

    def write(self, frame, found):
        if not self.named:
            self._write_names(found.names)
        file = self.file_of(frame, ".txt")
        if file.exists() and not SCORED_LABELS.fullmatch(file.read_bytes()):
            self.kept += 1
            return
        height, width = frame.picture.shape[:2]
        x1, y1, x2, y2 = (np.asarray(found.boxes, float).reshape(-1, 4) / (width, height, width, height)).T
        rows = zip(found.classes, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, found.scores, strict=True)
        lines = (f"{label} {' '.join(f'{number:.6f}' for number in numbers)}\n" for label, *numbers in rows)
        with whole_file(file) as part:
            part.write_text("".join(lines), encoding="ascii")

    def _write_names(self, names):
        file, text = self.path / "classes.txt", "".join(f"{name}\n" for name in names)
        if not file.exists():
            with whole_file(file) as part:
                part.write_text(text, encoding="utf-8")
        elif file.read_text(encoding="utf-8", errors="replace").split() != text.split():
            raise UserError(f"{file} names other classes than the model: name another folder, or remove that file")
        self.named = True


class Crops(Folder):
    """What is inside each box, as a JPEG in a folder of its class: of box 2 of a/1.jpg, a dog, FOLDER/dog/a/1-2.jpg."""

    def write(self, frame, found):
        height, width = frame.picture.shape[:2]
        for number, (label, (x1, y1, x2, y2)) in enumerate(zip(found.labels, found.boxes, strict=True), 1):
            left, top = min(int(x1), width - 1), min(int(y1), height - 1)
            right, bottom = max(math.ceil(x2), left + 1), max(math.ceil(y2), top + 1)
            crop = np.ascontiguousarray(frame.picture[top:bottom, left:right])
            write_picture(self.file_of(frame, ".jpg", f"-{number}", as_folder(label)), crop)


def as_folder(name: str) -> str:
    """Return a class name as the name of a folder, which takes neither slashes nor dots alone."""
    return shorten(Path(NOT_IN_NAMES.sub("_", name).strip(". ") or "_")).name


class ResultFile(NamedTuple):
    """A format of results: the option of the command line and the argument of `Job` are named as its row is."""

    writer: type  # made with the path; write(frame, found) for each frame, whose picture is not drawn on yet; close()
    suffixes: tuple  # of str, what its names end in; (): it is a folder
    help: str
    of_tracks: bool = False  # it needs what object_tracker.py finds
    of_pictures: bool = False  # it holds pictures, which must not come among those to read


RESULT_FILES = {
    "json": ResultFile(JsonLines, (".json", ".jsonl"), "file for one JSON line per frame"),
    "csv": ResultFile(CsvLines, (".csv",), "file for a table with a row per box"),
    "txt": ResultFile(Labels, (), "folder for Darknet's label files, with scores"),
    "crops": ResultFile(Crops, (), "folder for what is inside each box, by class", of_pictures=True),
    "mot": ResultFile(MotLines, (".txt",), "file for tracks as MOTChallenge has them", of_tracks=True),
}
