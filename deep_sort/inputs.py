"""Check the detections that a caller passes to the tracker. Wrong ones raise a ValueError with a one-line message."""

from typing import Any

import numpy as np


def check_boxes(boxes: Any) -> np.ndarray:
    """Return boxes, xyxy in pixels, as float64 (n, 4). An empty array of any shape becomes (0, 4)."""
    boxes = _numbers("boxes", boxes)
    if boxes.size == 0:
        return np.empty((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are of shape {boxes.shape}: they must be (n, 4), x1, y1, x2, y2 in pixels")
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(boxes) < 1e7).all(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"box {i} is {boxes[i].tolist()}: x1 <= x2 and y1 <= y2 must be finite numbers of pixels")
    return boxes


def check_column(name: str, values: Any, count: int) -> np.ndarray:
    """Return values, one finite number for each box, as float64 (n,). `name` is what messages call them."""
    values = _numbers(name, values)
    if values.shape != (count,) and not (values.size == 0 and count == 0):
        raise ValueError(f"{name} are of shape {values.shape}, but there are {count} boxes: one number for each")
    values = values.reshape(count)
    if not np.isfinite(values).all():
        i = int((~np.isfinite(values)).argmax())
        raise ValueError(f"{name}: number {i} is {values[i]}, which is not finite")
    return values


def check_embeddings(embeddings: Any, count: int, length: int | None) -> np.ndarray:
    """Return embeddings as float64 (n, d). `length` is the d of earlier frames, None in the first."""
    embeddings = _numbers("embeddings", embeddings)
    if embeddings.size == 0 and count == 0:
        return np.empty((0, length or 0))
    if embeddings.ndim != 2 or len(embeddings) != count:
        raise ValueError(f"embeddings are of shape {embeddings.shape}, but there are {count} boxes: one row for each")
    if embeddings.shape[1] == 0 or length not in (None, embeddings.shape[1]):
        earlier = "at least 1" if length is None else f"{length} as in earlier frames"
        raise ValueError(f"embeddings have {embeddings.shape[1]} numbers a box: there must be {earlier}")
    if not np.isfinite(embeddings).all():
        i = int((~np.isfinite(embeddings)).any(1).argmax())
        raise ValueError(f"embeddings of box {i} are not finite")
    return embeddings


def _numbers(name, values):
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} are not an array of numbers") from None
