"""What annotation converters find, and how its boxes come to lie on the picture as it is now, and upright."""

from pathlib import Path
from typing import Any, NamedTuple

from yolov3.annotations.format import Record, Size

import numpy as np

# What `fitted` did, for how many pictures.
TURNED = "{} pictures are turned by their EXIF and were annotated as they are stored: their boxes are turned, too"
SCALED = "{} pictures were resized since they were annotated: their boxes are scaled by the two sizes"
SCALED_AND_TURNED = "{} pictures were resized since they were annotated, as stored: their boxes are scaled and turned"
NOT_KNOWN = "{} pictures are turned by their EXIF; nothing says for which side up their boxes are: taken as upright"


class Labelled(NamedTuple):
    """Hold one picture and its boxes as a data set has them."""

    picture: Path
    boxes: np.ndarray  # float (n, 4): x1, y1, x2, y2 in pixels, or in fractions of the picture
    classes: np.ndarray  # int32 (n,)
    place: str  # what the user knows it by
    declared: Size | None = None  # the size that the data set says the picture has
    in_fractions: bool = False


def declared_size(width: Any, height: Any) -> Size | None:
    """Return the size that a data set declares, None if it does not: 0 and words are not a size."""
    try:
        width, height = float(width), float(height)
    except (TypeError, ValueError, OverflowError):
        return None
    inside = 1 <= width < 2**31 and 1 <= height < 2**31  # False for NaN
    return Size(int(height), int(width)) if inside else None


def fitted(one: Labelled, size: Size) -> tuple[Record, str]:
    """Return the record of a picture of some size, boxes in pixels of the upright picture, and what was done (or "").

    Raises ValueError if the declared size is that of another picture.
    """
    stored = Size(size.width, size.height) if size.orientation >= 5 else size
    boxes, change = np.asarray(one.boxes, np.float64).reshape(-1, 4), ""
    if one.in_fractions or one.declared is None:
        boxes = boxes * _sides(size) if one.in_fractions else boxes
        change = NOT_KNOWN if size.orientation != 1 and len(boxes) else ""
    elif one.declared[:2] == size[:2]:
        change = NOT_KNOWN if size.orientation != 1 and (size.orientation < 5 or size.height == size.width) else ""
    elif one.declared[:2] == stored[:2]:
        boxes, change = turned(boxes, stored, size.orientation), TURNED
    elif _is_scaled(one.declared, size):
        boxes, change = boxes * (_sides(size) / _sides(one.declared)), SCALED
    elif _is_scaled(one.declared, stored):
        boxes = turned(boxes * (_sides(stored) / _sides(one.declared)), stored, size.orientation)
        change = SCALED_AND_TURNED
    else:
        raise ValueError(
            f"picture {one.picture} is {size.width} x {size.height}, but its boxes are for one of "
            f"{one.declared.width} x {one.declared.height}: annotate it anew"
        )
    with np.errstate(over="ignore"):  # too large for float32 is infinite, which `usable_boxes` tells
        return Record(one.picture, boxes.astype(np.float32), np.asarray(one.classes, np.int32)), change


def turned(boxes: np.ndarray, stored: Size, orientation: int) -> np.ndarray:
    """Return boxes (n, 4) xyxy of a picture as stored as they lie on the upright one, by EXIF's orientation 1 to 8."""
    x, y = boxes[:, 0::2], boxes[:, 1::2]  # (n, 2) each, both ends
    if orientation in (2, 3, 7, 8):
        x = stored.width - x[:, ::-1]
    if orientation in (3, 4, 6, 7):
        y = stored.height - y[:, ::-1]
    if orientation >= 5:
        x, y = y, x
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def _sides(size):
    return np.array([size.width, size.height] * 2, np.float64)


def _is_scaled(one, other):
    """Return whether two sizes are of one picture: each side of the smaller is rounded to a whole pixel."""
    larger = max(one, other, key=lambda size: size.height * size.width)
    return abs(one.width * other.height - other.width * one.height) <= max(larger.height, larger.width)
