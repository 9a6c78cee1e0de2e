"""Choose and read the pictures that INT8 is calibrated on: real pictures, preprocessed as for detection."""

import sys
from collections.abc import Iterator
from pathlib import Path

from yolov3.annotations.format import annotated_pictures
from yolov3.checks import UserError, check_count, project_path
from yolov3.fitting import fit
from yolov3.images import read_picture
from yolov3.media.sources import Pictures, open_source

import numpy as np

MOST_TOLD = 5  # pictures that cannot be read are named up to this number


class CalibrationInputs:
    """Iterate over the network inputs, float32 (1, h, w, 3), of pictures, which are decoded anew at each iteration."""

    def __init__(self, paths: list[Path], size: tuple[int, int], resize: str, max_pixels: int):
        self.paths, self.size, self.resize, self.max_pixels = paths, size, resize, max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            picture = read_picture(path, self.max_pixels)
            yield fit(picture, self.size, self.resize).numpy()[np.newaxis]


def choose_pictures(source: str | Path, count: int, max_pixels: int) -> list[Path]:
    """Return `count` pictures of a folder, glob or annotation file, or as many as there are, chosen at random, but the
    same ones at each call.

    Pictures that cannot be read are named and replaced by others. Raises UserError if none can be read.
    """
    check_count("YOLO_CALIBRATION_COUNT", count, 1)
    paths = _listed(source, max_pixels)
    chosen: list[Path] = []
    problems: list[UserError] = []
    for i in np.random.default_rng(0).permutation(len(paths)):
        if len(chosen) == count:
            break
        try:
            read_picture(paths[i], max_pixels)
            chosen.append(paths[i])
        except UserError as error:
            problems.append(error)
    for problem in problems[:MOST_TOLD]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(problems) > MOST_TOLD:
        print(f"left out: {len(problems) - MOST_TOLD} more", file=sys.stderr)
    if not chosen:
        raise UserError(f"{source} has no picture that can be read: name others in YOLO_CALIBRATION_IMAGES")
    return chosen


def _listed(source, max_pixels):
    path = project_path(source)
    if path.is_file() and path.suffix.lower() == ".txt":
        return list(dict.fromkeys(annotated_pictures(source)))
    try:
        found = open_source(path, max_pixels)
    except UserError as error:
        problem = error.problem
    else:
        if isinstance(found, Pictures):
            return found.paths
        problem = f"{source} is not a picture"
    raise UserError(
        problem,
        "name a folder, glob or annotation file (.txt) of real pictures in YOLO_CALIBRATION_IMAGES (the digits of the "
        "default are drawn by python tools/Make_digits.py)",
    )
