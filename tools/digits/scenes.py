"""Draw pictures of digits with their boxes. The same random generator gives the same picture.

A person can read every digit that has a box: its contrast with its surroundings is measured, also after light, blur and
noise, and a digit that would not stand out is drawn in another way or left out.
"""

from dataclasses import dataclass, field

from tools.digits.glyphs import DIGITS, LETTERS, TextRow, random_lettering, write_row
from tools.digits.surfaces import expose, light, random_colour, random_surface, similar_colour

import cv2
import numpy as np

SIDES = 320, 640  # pixels, of pictures
MIN_HEIGHT = 22  # pixels, of digits
MAX_HEIGHT = 0.6  # of the picture's shorter side
MAX_DIGITS = 8  # in a picture
MAX_ANGLE = 20  # degrees that a row is turned; with shear and perspective still too little to make a 6 a 9
ROWS_TRIED = 5  # for a text, each smaller than the one before; then it is left out
PLACES_TRIED = 10  # for each row
MIN_VISIBLE = 0.85  # share of a digit's ink that must be inside the picture
MAX_IOU = 0.1  # largest, of the boxes of two digits
CONTRAST = 28  # least, between ink and its surroundings, CIELAB units
COLOUR_SHARE = 0.5  # weight of colour beside lightness in the contrast: eyes and JPEG resolve it less well
SEPARATION = 2.5  # least contrast in standard deviations of ink and surroundings
STRENGTHS = (1.0, 0.6, 0.3, 0.0)  # of light, blur and noise; the first that leaves all digits readable is taken


@dataclass(frozen=True)
class Style:
    """Describe how a row is painted. Colours are float (3,), RGB."""

    ink: np.ndarray  # its colour at the top
    ink_below: np.ndarray  # its colour at the bottom
    cover: float  # opacity of the ink, 0..1
    edge: np.ndarray | None  # colour of a rim around the ink; None leaves it out
    shadow: float  # darkness of the shadow, 0..1
    sheet: np.ndarray | None  # colour of a plate behind the row; None leaves it out
    disc: bool  # whether the plate is round


@dataclass
class Drawing:
    """Hold a picture while it is drawn, and the digits on it."""

    picture: np.ndarray  # uint8 (H, W, 3), RGB
    rows: list = field(default_factory=list)  # (TextRow, left, top) of each row, cut to the picture
    smallest: float = np.inf  # height in pixels of the smallest digits

    @property
    def boxes(self) -> np.ndarray:
        """Return the boxes of the digits, float32 (n, 4), xyxy."""
        boxes = [
            box + [left, top, left, top]
            for row, left, top in self.rows
            for character, box in zip(row.text, row.boxes, strict=True)
            if character in DIGITS
        ]
        return np.array(boxes, np.float32).reshape(-1, 4)

    @property
    def classes(self) -> np.ndarray:
        """Return the classes of the digits, int32 (n,)."""
        return np.array([int(x) for row, _, _ in self.rows for x in row.text if x in DIGITS], np.int32)


def draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture, uint8 (H, W, 3), RGB, its boxes, float32 (n, 4), xyxy in pixels, and classes, int32 (n,)."""
    height, width = rng.integers(SIDES[0], SIDES[1] + 1, 2)
    scene = Drawing(random_surface(rng, int(height), int(width)))
    for text in random_texts(rng):
        place_text(rng, scene, text)
    for strength in STRENGTHS:
        picture = expose(rng, light(rng, scene.picture, strength), strength, scene.smallest)
        if all(is_readable(picture, *row) for row in scene.rows):
            break
    return picture, scene.boxes, scene.classes


def random_texts(rng: np.random.Generator) -> list[str]:
    """Return texts to write: letters as distraction, and digits alone, in numbers and behind letters."""
    texts = ["".join(rng.choice(list(LETTERS), rng.integers(1, 6))) for _ in range(rng.poisson(0.8))]
    wanted = int(rng.integers(0, MAX_DIGITS + 1))
    while wanted:
        length = 1 if rng.random() < 0.6 else int(rng.integers(1, min(4, wanted) + 1))
        prefix = rng.choice(list(LETTERS), rng.integers(1, 3)) if length > 1 and rng.random() < 0.25 else []
        texts.append("".join([*prefix, *rng.choice(list(DIGITS), length)]))
        wanted -= length
    return texts


def place_text(rng: np.random.Generator, scene: Drawing, text: str) -> None:
    """Write the text where it covers no other row and can be read. Leave it out if no such place is found."""
    tallest = min(MAX_HEIGHT * min(scene.picture.shape[:2]), 1.2 * scene.picture.shape[1] / len(text))
    height = np.exp(rng.uniform(np.log(MIN_HEIGHT), np.log(tallest)))
    lettering = random_lettering(rng, text)
    for _ in range(ROWS_TRIED):
        angle = np.clip(rng.normal(0, 9 if len(text) == 1 else 6), -MAX_ANGLE, MAX_ANGLE)
        row = write_row(lettering, height, angle)
        height = max(0.7 * height, MIN_HEIGHT)
        if _max_iou(row.boxes) > MAX_IOU:
            continue
        for _ in range(PLACES_TRIED):
            part, left, top = cut(rng, row, scene.picture.shape)
            if part is None or any(_touch(part, left, top, *other) for other in scene.rows):
                continue
            region = scene.picture[top : top + part.masks.shape[1], left : left + part.masks.shape[2]]
            painted = paint(region, part, random_style(rng))
            if is_readable(painted, part):
                region[:] = painted
                scene.rows.append((part, left, top))
                scene.smallest = min(scene.smallest, row.height)
                return


def cut(rng: np.random.Generator, row: TextRow, shape: tuple[int, ...]) -> tuple[TextRow | None, int, int]:
    """Choose a place for a row on a picture of that shape. Return the row cut to the picture, its left and its top.

    The row is None if too much of a character was cut off.
    """
    _, height, width = row.masks.shape
    left = int(rng.random() * (shape[1] - 0.76 * width) - 0.12 * width)
    top = int(rng.random() * (shape[0] - 0.76 * height) - 0.12 * height)
    x, y = max(-left, 0), max(-top, 0)
    part = row.cut(x, y, shape[1] - left, shape[0] - top)
    visible = part.masks.sum((1, 2)) / np.maximum(row.masks.sum((1, 2)), 1)
    return (part if visible.min() >= MIN_VISIBLE else None), left + x, top + y


def random_style(rng: np.random.Generator) -> Style:
    """Return a random way to paint a row."""
    ink = random_colour(rng)
    return Style(
        ink,
        ink_below=similar_colour(rng, ink, 30) if rng.random() < 0.4 else ink,
        cover=rng.uniform(0.85, 1),
        edge=random_colour(rng) if rng.random() < 0.2 else None,
        shadow=rng.uniform(0.3, 0.8) if rng.random() < 0.2 else 0,
        sheet=random_colour(rng) if rng.random() < 0.4 else None,
        disc=rng.random() < 0.3,
    )


def paint(region: np.ndarray, row: TextRow, style: Style) -> np.ndarray:
    """Return a region of a picture, uint8 (h, w, 3), with the row painted on it."""
    region, everything = region.copy(), row.masks.max(0)
    if style.sheet is not None:
        if style.disc and len(row.text) == 1:
            cv2.ellipse(region, cv2.minAreaRect(row.outline), style.sheet.tolist(), cv2.FILLED, cv2.LINE_AA)
        else:
            cv2.fillConvexPoly(region, row.outline.round().astype(np.int32), style.sheet.tolist(), cv2.LINE_AA)
    region = region.astype(np.float32)
    if style.shadow:
        reach = max(1, round(0.06 * row.height))
        thrown = cv2.GaussianBlur(np.roll(everything, (reach, reach), (0, 1)), (0, 0), reach / 2 + 0.5)
        region *= 1 - style.shadow * thrown[..., np.newaxis]
    if style.edge is not None:
        rim = cv2.dilate(everything, np.ones((3, 3), np.uint8), iterations=max(1, round(0.025 * row.height)))
        region += (style.edge - region) * rim[..., np.newaxis]
    down = np.linspace(0, 1, len(region), dtype=np.float32)[:, np.newaxis, np.newaxis]
    ink = style.ink + (style.ink_below - style.ink) * down
    region += (ink - region) * (everything * style.cover)[..., np.newaxis]
    return np.clip(region, 0, 255).astype(np.uint8)


def is_readable(picture: np.ndarray, row: TextRow, left: int = 0, top: int = 0) -> bool:
    """Return whether each digit of a row that lies at (left, top) stands out from its surroundings."""
    _, height, width = row.masks.shape
    region = picture[top : top + height, left : left + width].astype(np.float32) / 255
    lab = cv2.cvtColor(region, cv2.COLOR_RGB2LAB) * np.float32([1, COLOUR_SHARE, COLOUR_SHARE])
    any_ink = row.masks.max(0) > 0.05
    reach = 2 * max(1, round(0.06 * row.height)) + 1
    for character, mask in zip(row.text, row.masks, strict=True):
        if character not in DIGITS:
            continue
        ink = lab[mask > 0.7]
        around = lab[(cv2.dilate(mask, np.ones((reach, reach), np.uint8)) > 0.05) & ~any_ink]
        if not len(ink) or not len(around):
            return False
        axis = ink.mean(0) - around.mean(0)
        contrast = np.linalg.norm(axis)
        spread = np.sqrt(((ink @ axis).var() + (around @ axis).var()) / 2) / max(contrast, 1e-6)
        if contrast < CONTRAST or contrast < SEPARATION * spread:
            return False
    return True


def _touch(row, left, top, other, other_left, other_top):
    """Return whether the rectangles of two rows overlap."""
    _, height, width = row.masks.shape
    _, other_height, other_width = other.masks.shape
    apart = left >= other_left + other_width or other_left >= left + width
    return not (apart or top >= other_top + other_height or other_top >= top + height)


def _max_iou(boxes):
    """Return the largest IoU of any two of the boxes (n, 4)."""
    lower = np.maximum(boxes[:, np.newaxis, :2], boxes[:, :2])
    upper = np.minimum(boxes[:, np.newaxis, 2:], boxes[:, 2:])
    shared = np.maximum(upper - lower, 0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.triu(shared / (area[:, np.newaxis] + area - shared), 1).max()
