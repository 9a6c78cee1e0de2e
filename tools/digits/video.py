"""Draw a sample video: digits that drift, turn and cross over a moving, cluttered background."""

import colorsys
from collections.abc import Iterator

from tools.digits.glyphs import DIGITS, random_lettering, write_row
from tools.digits.scenes import MAX_ANGLE, Style, paint
from tools.digits.surfaces import random_colour, random_surface

import cv2
import numpy as np

HEIGHT, WIDTH = 360, 640  # pixels
FPS = 25
SECONDS = 8
DIGIT_COUNT = 6
BLOB_COUNT = 5
DIGIT_HEIGHTS = 55, 110  # pixels, from and to
PAN = 160, 100  # pixels that the background moves in all, to the right and down


def draw_frames(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the frames of the video, uint8 (H, W, 3), RGB."""
    surface = random_surface(rng, HEIGHT + PAN[1], WIDTH + PAN[0])
    blobs = [(Drift(rng), rng.uniform(15, 60, 2).astype(int).tolist(), random_colour(rng)) for _ in range(BLOB_COUNT)]
    digits = [Digit(rng, text) for text in rng.choice(list(DIGITS), DIGIT_COUNT, replace=False)]
    for seconds in np.arange(SECONDS * FPS) / FPS:
        x, y = (PAN * np.array([1 + np.sin(0.7 * seconds), 1 + np.cos(0.9 * seconds)]) / 2).astype(int)
        frame = surface[y : y + HEIGHT, x : x + WIDTH].copy()
        for drift, axes, colour in blobs:
            centre = drift.at(seconds).astype(int).tolist()
            cv2.ellipse(frame, centre, axes, 20 * seconds, 0, 360, colour.tolist(), cv2.FILLED, cv2.LINE_AA)
        for digit in digits:
            digit.draw(frame, seconds)
        yield frame


class Drift:
    """Move a point straight on, until a side of the frame throws it back."""

    def __init__(self, rng: np.random.Generator, margin: float = 0):
        self.margin = margin  # distance that it keeps from the sides, pixels
        self.start = rng.uniform(0, 1, 2) * (WIDTH, HEIGHT)
        self.speed = rng.uniform(40, 110, 2) * rng.choice([-1, 1], 2)  # pixels a second

    def at(self, seconds: float) -> np.ndarray:
        """Return where the point is at a time: float (2,), x and y."""
        room = np.array((WIDTH, HEIGHT)) - 2 * self.margin
        return self.margin + np.abs((self.start + self.speed * seconds + room) % (2 * room) - room)


class Digit:
    """Draw a digit on its way. Its ink is bright and its rim dark, so that it can be read on any background."""

    def __init__(self, rng: np.random.Generator, text: str):
        self.height = rng.uniform(*DIGIT_HEIGHTS)
        self.drift = Drift(rng, 0.6 * self.height)
        self.lettering = random_lettering(rng, text)
        self.pace, self.phase = rng.uniform(0.8, 2), rng.uniform(0, 6)
        hue = rng.random()
        ink, dark = (np.array(colorsys.hsv_to_rgb(hue, *x)) * 255 for x in ((rng.uniform(0, 0.7), 1), (0.8, 0.12)))
        sheet = dark if rng.random() < 0.3 else None
        self.style = Style(ink, ink, cover=1, edge=dark, shadow=0.5, sheet=sheet, disc=True)

    def draw(self, frame: np.ndarray, seconds: float) -> None:
        """Draw the digit into the frame as it is at a time."""
        row = write_row(self.lettering, self.height, MAX_ANGLE * np.sin(self.pace * seconds + self.phase))
        height, width = row.masks.shape[1:]
        left, top = (self.drift.at(seconds) - [width / 2, height / 2]).round().astype(int)
        x, y = max(-left, 0), max(-top, 0)
        row = row.cut(x, y, WIDTH - left, HEIGHT - top)
        region = frame[top + y : top + height, left + x : left + width]
        region[:] = paint(region, row, self.style)
