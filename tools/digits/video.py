"""A sample video: digits that drift, turn and cross over a moving, cluttered background."""

import colorsys

from tools.digits.glyphs import DIGITS, random_lettering, write_row
from tools.digits.scenes import MAX_ANGLE, Style, paint
from tools.digits.surfaces import random_colour, random_surface

import cv2
import numpy as np

SIZE = 640, 360  # pixels, width and height
FPS = 25
SECONDS = 8
DIGIT_COUNT = 6
BLOB_COUNT = 5
HEIGHTS = 55, 110  # pixels, of digits
PAN = 160, 100  # pixels that the background moves in all, across and down


def draw_frames(rng):
    """Yields the frames, uint8 (H, W, 3), RGB."""
    width, height = SIZE
    surface = random_surface(rng, height + PAN[1], width + PAN[0])
    blobs = [(Drift(rng), rng.uniform(15, 60, 2).astype(int).tolist(), random_colour(rng)) for _ in range(BLOB_COUNT)]
    digits = [Digit(rng, text) for text in rng.choice(list(DIGITS), DIGIT_COUNT, replace=False)]
    for seconds in np.arange(SECONDS * FPS) / FPS:
        x, y = (PAN * np.array([1 + np.sin(0.7 * seconds), 1 + np.cos(0.9 * seconds)]) / 2).astype(int)
        frame = surface[y : y + height, x : x + width].copy()
        for drift, axes, colour in blobs:
            centre = drift.at(seconds).astype(int).tolist()
            cv2.ellipse(frame, centre, axes, 20 * seconds, 0, 360, colour.tolist(), cv2.FILLED, cv2.LINE_AA)
        for digit in digits:
            digit.draw(frame, seconds)
        yield frame


class Drift:
    """A point that moves straight and is thrown back by the frame's sides."""

    def __init__(self, rng, margin=0):
        self.margin = margin  # pixels that it keeps from the sides
        self.start = rng.uniform(0, 1, 2) * SIZE
        self.speed = rng.uniform(40, 110, 2) * rng.choice([-1, 1], 2)  # pixels a second

    def at(self, seconds):
        """-> float (2,), x and y."""
        room = np.array(SIZE) - 2 * self.margin
        return self.margin + np.abs((self.start + self.speed * seconds + room) % (2 * room) - room)


class Digit:
    """A digit on its way. Its rim is dark where its ink is bright, so it can be read before anything."""

    def __init__(self, rng, text):
        self.height = rng.uniform(*HEIGHTS)
        self.drift = Drift(rng, 0.6 * self.height)
        self.lettering = random_lettering(rng, text)
        self.pace, self.phase = rng.uniform(0.8, 2), rng.uniform(0, 6)
        hue = rng.random()
        ink, dark = (np.array(colorsys.hsv_to_rgb(hue, *x)) * 255 for x in ((rng.uniform(0, 0.7), 1), (0.8, 0.12)))
        sheet = dark if rng.random() < 0.3 else None
        self.style = Style(ink, ink, cover=1, edge=dark, shadow=0.5, sheet=sheet, disc=True)

    def draw(self, frame, seconds):
        """Draws it into the frame as it is at that time."""
        row = write_row(self.lettering, self.height, MAX_ANGLE * np.sin(self.pace * seconds + self.phase))
        height, width = row.masks.shape[1:]
        left, top = (self.drift.at(seconds) - [width / 2, height / 2]).round().astype(int)
        x, y = max(-left, 0), max(-top, 0)
        row = row.cut(x, y, SIZE[0] - left, SIZE[1] - top)
        region = frame[top + y : top + height, left + x : left + width]
        region[:] = paint(region, row, self.style)
