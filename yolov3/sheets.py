"""Draw sheets of pictures with boxes: batches as they are trained on, and truth and detections side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from yolov3.annotations.format import Record
from yolov3.detector import Detections
from yolov3.images import read_picture
from yolov3.media.drawing import class_colour, draw_boxes, draw_detections, draw_labels
from yolov3.media.outputs import write_picture

import cv2
import numpy as np

TILE = 480  # pixels, the longer side of a picture on a sheet
GAP, WHITE = 8, 255
COLUMNS = 4
MOST_PAIRS = 8  # pictures with truth and detections side by side
CAPTION = 26  # pixels, the height of the line above a picture
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_batch(path: Path, images: np.ndarray, truth: np.ndarray, names: Sequence[str], count: int = 16) -> None:
    """Draw the first pictures of a batch as the network sees them, with their boxes.

    images  float (B, h, w, 3), RGB, 0..1;  truth  float (B, K, 5), as `dataset.training_batches` yields them
    """
    tiles = []
    for image, rows in zip(images[:count], truth[:count], strict=True):
        picture = np.round(255 * image).astype(np.uint8)
        rows = rows[rows[:, 4] >= 0]
        height, width = image.shape[:2]
        boxes = rows[:, :4] * (width, height, width, height)
        tiles.append(draw_truth(*fitted(picture, boxes), rows[:, 4].astype(int), names))
    write_picture(path, sheet(tiles, COLUMNS))


def draw_truth_beside_found(
    path: Path,
    records: Sequence[Record],
    found: Mapping[int, Detections],
    names: Sequence[str],
    score_threshold: float,
    max_pixels: int,
) -> None:
    """Draw some pictures twice, side by side: with the boxes that are annotated, and with those that were found."""
    tiles = []
    with_boxes = sorted(found, key=lambda i: (not len(records[i].classes), i))
    step = max(1, len(with_boxes) // MOST_PAIRS)
    for i in with_boxes[::step][:MOST_PAIRS]:
        record, detections = records[i], found[i]
        picture = read_picture(record.picture, max_pixels)
        shown = detections.scores > score_threshold
        tile, boxes = fitted(picture, record.boxes)
        truth = draw_truth(tile, boxes, record.classes, names)
        tile, boxes = fitted(picture, detections.boxes[shown])
        seen = Detections(boxes, detections.scores[shown], detections.classes[shown], tuple(names))
        name = record.picture.name
        tiles += [
            captioned(truth, f"{name}: {len(record.classes)} annotated"),
            captioned(draw_detections(tile, seen), f"{len(seen)} found, scores over {score_threshold:g}"),
        ]
    write_picture(path, sheet(tiles, COLUMNS))


def draw_truth(picture: np.ndarray, boxes: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw annotated boxes with their class names onto the picture, in place, and return it."""
    inks, corners = [class_colour(int(label)) for label in classes], np.round(boxes).astype(int).reshape(-1, 4)
    draw_boxes(picture, corners, inks)
    draw_labels(picture, corners, [(names[int(label)],) * 2 for label in classes], inks)
    return picture


def fitted(picture: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a copy of a picture whose longer side is TILE, and boxes (n, 4) in pixels as they lie on it."""
    height, width = picture.shape[:2]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(picture, size, interpolation=method), np.asarray(boxes, np.float32).reshape(-1, 4) * scale


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """Return the picture under a line of text, which is cut to its width."""
    text = text.encode("ascii", "replace").decode()  # all that the font has
    while text and cv2.getTextSize(text, FONT, 0.5, 1)[0][0] > picture.shape[1] - 4:
        text = text[1:]
    above = np.full((CAPTION, picture.shape[1], 3), WHITE, np.uint8)
    cv2.putText(above, text, (2, CAPTION - 8), FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([above, picture])


def sheet(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return pictures in rows on white, each row as high as its highest picture."""
    columns = min(columns, len(tiles))
    width = max(tile.shape[1] for tile in tiles)
    rows = []
    for first in range(0, len(tiles), columns):
        row = tiles[first : first + columns]
        strip = np.full((max(tile.shape[0] for tile in row) + GAP, columns * (width + GAP), 3), WHITE, np.uint8)
        for i, tile in enumerate(row):
            left = i * (width + GAP)
            strip[: tile.shape[0], left : left + tile.shape[1]] = tile
        rows.append(strip)
    return np.concatenate(rows)
