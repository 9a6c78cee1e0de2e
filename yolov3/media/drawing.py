"""Boxes and labels on pictures. Pictures are uint8 (H, W, 3), RGB; colours are (red, green, blue), 0..255."""

import colorsys
import itertools
import unicodedata

from yolov3.checks import UserError

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_PIXELS = 22  # height of its capitals at scale 1
GOLDEN_RATIO = 0.618034  # steps of it around the colour circle keep neighbouring classes apart


def class_colour(index):
    """A class index -> its colour, bright, the same in every run."""
    shade = (index // 12) % 3  # after a dozen hues, other depths of them
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, 0.9 - 0.25 * shade, 1 - 0.2 * shade)
    return round(red * 255), round(green * 255), round(blue * 255)


def check_colour(colour):
    """A (red, green, blue), 0..255, as a tuple of int."""
    try:
        red, green, blue = (int(x) for x in colour)
    except (TypeError, ValueError):
        raise UserError(f"colour {colour!r} must be (red, green, blue), each 0 to 255") from None
    return red, green, blue


def draw_detections(picture, detections, colour=None):
    """Draws boxes with class and score onto the picture, in place, the best on top, and returns it.

    colour  one for all boxes; None: one per class.
    """
    colours = [colour or class_colour(int(index)) for index in detections.classes]
    corners = [[int(round(float(x))) for x in box] for box in detections.boxes]
    thickness = line_thickness(picture)
    for (x1, y1, x2, y2), ink in reversed(list(zip(corners, colours, strict=True))):
        cv2.rectangle(picture, (x1, y1), (x2, y2), ink, thickness)
    tabs = []  # labels come last and out of each other's way, the best choosing first
    for corner, ink, label, score in zip(corners, colours, detections.labels, detections.scores, strict=True):
        tabs.append(draw_label(picture, corner, f"{label} {score:.2f}", ink, tabs))
    return picture


def draw_tracks(picture, tracks, colour=None):
    """Draw tracks onto the picture, in place, and return it: their boxes with class and number, the trails they left,
    which fade with age, and how many objects of each class were seen.

    tracks  `Detections` as `tracking.follower.Follower` returns them
    colour  one for all; None: one for each track
    """
    colours = [colour or class_colour(int(number)) for number in tracks.numbers]
    thickness = line_thickness(picture)
    for trail, ink in zip(tracks.trails, colours, strict=True):
        points = np.round(trail).astype(int)
        for i, (begin, end) in enumerate(itertools.pairwise(points.tolist()), 1):
            age = i / len(points)  # 1: now
            faded = tuple(round(x * (0.3 + 0.7 * age)) for x in ink)
            cv2.line(picture, begin, end, faded, max(1, round(thickness * age)), cv2.LINE_AA)
    corners = np.round(tracks.boxes).astype(int).tolist()
    for (x1, y1, x2, y2), ink in zip(corners, colours, strict=True):
        cv2.rectangle(picture, (x1, y1), (x2, y2), ink, thickness)
    tabs = [draw_label(picture, (0, 0, 0, 0), tracks.seen(), (32, 32, 32))]
    for corner, ink, label, number in zip(corners, colours, tracks.labels, tracks.numbers, strict=True):
        tabs.append(draw_label(picture, corner, f"{label} #{number}", ink, tabs))
    return picture


def draw_label(picture, corners, label, colour, taken=()):
    """A label on a filled tab: above its box if that is inside the picture and free of the tabs already `taken`, else
    inside the box, below it, or at its lower edge. Corners and tabs are xyxy in whole pixels; returns its tab."""
    label = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()  # all that OpenCV's fonts have
    height, width = picture.shape[:2]
    thickness = line_thickness(picture)
    x1, y1, _, y2 = corners

    text_pixels = max(10, 5 * thickness + 4)
    scale, pen = text_pixels / FONT_PIXELS, max(1, thickness // 2)
    (text_width, text_height), below = cv2.getTextSize(label, FONT, scale, pen)
    margin = max(2, text_pixels // 4)
    tab_width, tab_height = text_width + 2 * margin, text_height + below + margin

    left = max(0, min(x1 - thickness // 2, width - tab_width))
    inside = max(0, min(y1, height - tab_height))
    tops = [top for top in (y1 - tab_height, inside, y2, y2 - tab_height) if 0 <= top <= height - tab_height]
    places = [(left, top, left + tab_width, top + tab_height) for top in tops or [inside]]
    tab = next((x for x in places if not any(_overlap(x, other) for other in taken)), places[0])
    left, top, right, bottom = tab
    cv2.rectangle(picture, (left, top), (right, bottom), colour, cv2.FILLED)
    at = (left + margin, top + text_height + margin // 2)
    cv2.putText(picture, label, at, FONT, scale, ink_on(colour), pen, cv2.LINE_AA)
    return tab


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def line_thickness(picture):
    """Pixels; grows with the root of the picture's size: 2 at 640 x 480, 3 at 1280 x 720, 4 at 1920 x 1080."""
    return max(1, round(((picture.shape[0] + picture.shape[1]) / 2) ** 0.5 / 11))


def ink_on(colour):
    """Black or white, whichever has more contrast with the colour (WCAG 2: even at a luminance of 0.179)."""
    red, green, blue = ((x / 255) ** 2.2 for x in colour)
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else (255, 255, 255)
