"""Boxes and labels on pictures. Pictures are uint8 (H, W, 3), RGB; colours are (red, green, blue), 0..255."""

import colorsys
import itertools
import unicodedata
from collections.abc import Iterable

from yolov3.checks import UserError

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_PIXELS = 22  # height of its capitals at scale 1
SMALLEST_TEXT = 10  # pixels: capitals below that are hard to read
SMALL_OBJECT = 0.25  # of an object's height: where a label would be taller, its letters are small
LITTLE_HIDDEN = 0.12  # objects that a label may hide, each counting by the share of it that is hidden
MOST_HIDDEN = 0.5  # from so many on it is left out
COUNTS_COLOUR = (32, 32, 32)
GOLDEN_RATIO = 0.618034  # steps of it around the colour circle keep neighbouring classes apart


def class_colour(index: int) -> tuple:
    """Return the colour of a class, bright, the same in every run."""
    shade = (index // 12) % 3  # after a dozen hues, other depths of them
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, 0.9 - 0.25 * shade, 1 - 0.2 * shade)
    return round(red * 255), round(green * 255), round(blue * 255)


def check_colour(colour: Iterable) -> tuple:
    """Return a (red, green, blue), 0..255, as a tuple of int. Raises UserError."""
    try:
        red, green, blue = (int(x) for x in colour)
    except (TypeError, ValueError):
        raise UserError(f"colour {colour!r} must be (red, green, blue), each 0 to 255") from None
    return red, green, blue


def draw_detections(picture: np.ndarray, detections, colour: tuple | None = None, labels: bool = True) -> np.ndarray:
    """Draw boxes with class and score onto the picture, in place, the best on top, and return it.

    detections  a `Detections`, best first
    colour      one for all boxes; None: one per class
    labels      False: boxes only
    """
    inks = [colour or class_colour(int(index)) for index in detections.classes]
    corners = np.round(detections.boxes).astype(int).reshape(-1, 4)
    draw_boxes(picture, corners[::-1], inks[::-1])
    if labels:
        texts = [
            (f"{label} {score:.2f}", label) for label, score in zip(detections.labels, detections.scores, strict=True)
        ]
        draw_labels(picture, corners, texts, inks)
    return picture


def draw_tracks(picture: np.ndarray, tracks, colour: tuple | None = None, labels: bool = True) -> np.ndarray:
    """Draw tracks onto the picture, in place, and return it: their boxes with class and number, the trails they left,
    which fade with age, and how many objects of each class were seen.

    tracks  `Detections` as `tracking.follower.Follower` returns them
    colour  one for all; None: one for each track
    labels  False: boxes, trails and counts only
    """
    inks = [colour or class_colour(int(number)) for number in tracks.numbers]
    thickness = line_thickness(picture)
    for trail, ink in zip(tracks.trails, inks, strict=True):
        points = np.round(trail).astype(int)
        for i, (begin, end) in enumerate(itertools.pairwise(points.tolist()), 1):
            age = i / len(points)  # 1: now
            faded = tuple(round(x * (0.3 + 0.7 * age)) for x in ink)
            cv2.line(picture, begin, end, faded, max(1, round(thickness * age)), cv2.LINE_AA)
    corners = np.round(tracks.boxes).astype(int).reshape(-1, 4)
    draw_boxes(picture, corners, inks)
    counts = Tab(tracks.seen(), text_pixels(picture))
    counts.draw(picture, (0, 0), COUNTS_COLOUR)
    if labels:
        pairs = zip(tracks.labels, tracks.numbers, strict=True)
        texts = [(f"{label} #{number}", f"#{number}") for label, number in pairs]
        draw_labels(picture, corners, texts, inks, [(0, 0, counts.width, counts.height)])
    return picture


def draw_boxes(picture: np.ndarray, corners: np.ndarray, inks: list) -> None:
    """Draw boxes, int (n, 4), xyxy, each in its colour, the last on top. Small ones get thin lines."""
    for (x1, y1, x2, y2), ink in zip(corners.tolist(), inks, strict=True):
        thickness = min(line_thickness(picture), max(1, min(x2 - x1, y2 - y1) // 16))
        cv2.rectangle(picture, (x1, y1), (x2, y2), ink, thickness)


class Tab:
    """A label on a filled rectangle. pixels: height of its capitals."""

    def __init__(self, text, pixels):
        self.text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()  # all that the fonts have
        self.scale, self.pen = pixels / FONT_PIXELS, max(1, round(pixels / 12))
        (text_width, self.text_height), below = cv2.getTextSize(self.text, FONT, self.scale, self.pen)
        self.margin = max(2, pixels // 4)
        self.width, self.height = text_width + 2 * self.margin, self.text_height + below + self.margin

    def draw(self, picture, corner, colour):
        left, top = corner
        cv2.rectangle(picture, (left, top), (left + self.width - 1, top + self.height - 1), colour, cv2.FILLED)
        at = (left + self.margin, top + self.text_height + self.margin // 2)
        cv2.putText(picture, self.text, at, FONT, self.scale, ink_on(colour), self.pen, cv2.LINE_AA)


def draw_labels(picture: np.ndarray, corners: np.ndarray, texts: list, inks: list, taken: Iterable = ()) -> list:
    """Draw the labels of boxes, the best choosing first, where they hide neither objects nor each other.

    A label gives way: to another side of its box, then in small letters, then by its short text. One that would still
    lie on another label, or on half of the objects beneath it, is left out: its box has the colour of the class.
    corners  int (n, 4), xyxy, best first
    texts    for each box two str, the whole label and a short one
    taken    tabs (left, top, right, bottom) that are there already
    Returns the tabs drawn, None for those left out.
    """
    height, width = picture.shape[:2]
    objects = np.clip(corners, 0, (width, height, width, height))
    areas = np.maximum(1, np.prod(objects[:, 2:] - objects[:, :2], 1))
    taken, drawn = np.array([*taken], int).reshape(-1, 4), []
    large, small = text_pixels(picture), max(SMALLEST_TEXT, text_pixels(picture) * 2 // 3)
    for box, (text, short), ink in zip(objects, texts, inks, strict=True):
        least, best = MOST_HIDDEN, None
        for words, pixels in ((text, large), (text, small), (short, small)):
            tab = Tab(words, pixels)
            if pixels > small and tab.height > SMALL_OBJECT * (box[3] - box[1]):
                continue  # it would dwarf its object
            places = _places(box, tab, width, height)
            hidden = (_overlap(places, objects) / areas).sum(1)
            hidden[_overlap(places, taken).any(1)] = np.inf
            usual = np.argmax(hidden <= LITTLE_HIDDEN)  # the first such, 0 if there is none
            chosen = usual if hidden[usual] <= LITTLE_HIDDEN else np.argmin(hidden)
            if hidden[chosen] < least:
                least, best = hidden[chosen], (tab, places[chosen])
            if least <= LITTLE_HIDDEN:
                break
        if best:
            tab, place = best
            tab.draw(picture, place[:2].tolist(), ink)
            taken = np.vstack([taken, place])
        drawn.append(tuple(place.tolist()) if best else None)
    return drawn


def _places(box, tab, width, height):
    """Return where a tab can go at its box, the usual place first: (k, 4), xyxy, moved into the picture."""
    x1, y1, x2, y2 = box.tolist()
    lefts, tops = (x1, x2 - tab.width), (y1, y2 - tab.height)
    outside = [(x, y) for x in lefts for y in (y1 - tab.height, y2)] + [
        (x, y) for x in (x2, x1 - tab.width) for y in tops
    ]
    corners = np.array(outside + [(x, y) for y in tops for x in lefts])
    corners = np.clip(corners, 0, np.maximum(0, (width - tab.width, height - tab.height)))
    return np.hstack([corners, corners + (tab.width, tab.height)])


def _overlap(a, b):
    """Return the pixels that boxes (m, 4) and (n, 4), xyxy, share -> (m, n)."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    return np.maximum(0, sides[..., 0]) * np.maximum(0, sides[..., 1])


def text_pixels(picture: np.ndarray) -> int:
    """Return the height of a label's capitals in pixels: 14 at 640 x 480, 24 at 1920 x 1080."""
    return max(SMALLEST_TEXT, 5 * line_thickness(picture) + 4)


def line_thickness(picture: np.ndarray) -> int:
    """Return the pixels of a line, which grow with the root of the picture's size: 2 at 640 x 480, 4 at 1920 x 1080."""
    return max(1, round(((picture.shape[0] + picture.shape[1]) / 2) ** 0.5 / 11))


def ink_on(colour: tuple) -> tuple:
    """Return black or white, whichever has more contrast with the colour (WCAG 2: even at a luminance of 0.179)."""
    red, green, blue = ((x / 255) ** 2.2 for x in colour)
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else (255, 255, 255)
