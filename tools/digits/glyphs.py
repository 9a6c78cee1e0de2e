"""Write rows of characters in OpenCV's Hershey fonts as masks, sheared, turned and in perspective, with tight boxes.

A mask is float32 (h, w), 0..1: the share of ink in each pixel. Boxes are xyxy; x2 and y2 are the first pixel behind the
ink.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

UPRIGHT_FONTS = tuple(range(8))  # cv2.FONT_HERSHEY_SIMPLEX = 0 to cv2.FONT_HERSHEY_SCRIPT_COMPLEX = 7
SCRIPT_FONTS = (cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
ONE_STROKE = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)  # may be thick
DIGITS = "0123456789"
LETTERS = "ACEFHKLMNPRTUVWXYadefhkmnpruvwxy#*+="  # without those that look like a digit
SMALL = 45  # pixels of height; smaller digits are drawn twice as large and averaged down, for smooth edges
MARGIN = 0.3  # around a row, in heights, for outlines and shadows
INK = 0.25  # a pixel with more of it belongs to the box


@dataclass(frozen=True)
class Lettering:
    """Describe a row of characters and how it is written."""

    text: str
    font: int
    pen: float  # thickness of the stroke in heights
    spacing: float  # between characters, in heights
    stretch: float  # of the width; 1 leaves the font as it is
    shear: float  # sideways shift of the top, in heights
    corners: np.ndarray  # (4, 2) shifts of the row's corners for perspective, in heights


@dataclass(frozen=True)
class TextRow:
    """Hold a row as it will lie on the picture, in coordinates of its masks."""

    text: str
    masks: np.ndarray  # float32 (characters, h, w)
    outline: np.ndarray  # (4, 2) corners of the sheet that it is written on
    height: float  # of a digit, pixels

    @property
    def boxes(self) -> np.ndarray:
        """Return the boxes tight around the ink, float32 (characters, 4)."""
        return np.array([ink_box(mask) for mask in self.masks], np.float32)

    def cut(self, left: int, top: int, right: int, bottom: int) -> "TextRow":
        """Return the part of the row inside a rectangle."""
        outline = self.outline - np.float32([left, top])
        return replace(self, masks=self.masks[:, top:bottom, left:right], outline=outline)


def random_lettering(rng: np.random.Generator, text: str) -> Lettering:
    """Return a random way to write the text. Thick pens are only for fonts whose strokes stay apart."""
    plain = UPRIGHT_FONTS if text.isdigit() else tuple(set(UPRIGHT_FONTS) - set(SCRIPT_FONTS))
    font = int(rng.choice(plain))
    return Lettering(
        text,
        font | (cv2.FONT_ITALIC if rng.random() < 0.35 else 0),
        pen=rng.uniform(0.06, 0.2) if font in ONE_STROKE else rng.uniform(0.05, 0.12),
        spacing=rng.uniform(0.05, 0.3),
        stretch=rng.uniform(0.75, 1.3),
        shear=rng.normal(0, 0.08),
        corners=rng.uniform(-0.1, 0.1, (4, 2)),
    )


def write_row(lettering: Lettering, height: float, angle: float) -> TextRow:
    """Return a row with digits `height` pixels tall, turned by `angle` degrees."""
    # 1. Write each character on a sheet of its own, all of one size, flat, small ones enlarged
    finer = 2 if height < SMALL else 1
    size = height * finer
    scale = size / cv2.getTextSize("0", lettering.font, 1, 1)[0][1]
    pen = max(2 * finer - 1, round(lettering.pen * size))
    margin = MARGIN * size + pen
    widths = [cv2.getTextSize(x, lettering.font, scale, pen)[0][0] + lettering.spacing * size for x in lettering.text]
    sheet = np.array([sum(widths) - lettering.spacing * size + 2 * margin, size * 1.3 + 2 * margin])  # width, height
    masks = []
    for x, character in zip(np.cumsum([margin, *widths]), lettering.text, strict=False):
        mask = np.zeros(np.ceil(sheet[::-1]).astype(int), np.uint8)
        at = round(x), round(margin + size)
        cv2.putText(mask, character, at, lettering.font, scale, 255, pen, cv2.LINE_AA)
        masks.append(mask)

    # 2. Place the corners of the sheet
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * sheet / 2
    turned = corners * [lettering.stretch, 1] + lettering.corners * size
    turned[:, 0] -= lettering.shear * turned[:, 1]
    radians = np.deg2rad(angle)
    turned = turned @ np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    turned -= turned.min(0)
    small = np.ceil(turned.max(0) / finer).astype(int)

    # 3. Warp the sheets and average them down
    warp = cv2.getPerspectiveTransform(np.float32(corners + sheet / 2), np.float32(turned))
    warped = [cv2.warpPerspective(mask, warp, (small * finer).tolist()) for mask in masks]
    masks = [cv2.resize(mask, small.tolist(), interpolation=cv2.INTER_AREA) for mask in warped]
    inner = (corners * (1 - 0.8 * (margin - pen) / sheet * 2) + sheet / 2).astype(np.float32)
    outline = (cv2.perspectiveTransform(inner[np.newaxis], warp)[0] / finer).astype(np.float32)
    return TextRow(lettering.text, np.stack(masks).astype(np.float32) / 255, outline, height)


def ink_box(mask: np.ndarray) -> list[int]:
    """Return the box [x1, y1, x2, y2] of the ink in a mask, zeros if it has none."""
    ink = mask > INK
    columns, rows = np.flatnonzero(ink.any(0)), np.flatnonzero(ink.any(1))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(columns) else [0, 0, 0, 0]
