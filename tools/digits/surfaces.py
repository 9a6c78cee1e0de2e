"""Draw the backgrounds of digits, surfaces with clutter, and the effects of a camera: light, blur and noise.

Pictures are uint8 (H, W, 3), RGB. All random numbers come from the NumPy generator that a function takes.
"""

import colorsys

import cv2
import numpy as np


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Return a colour, float (red, green, blue), 0..255: grey, muted, or now and then bright."""
    saturation = rng.uniform(0, 0.12) if rng.random() < 0.3 else rng.beta(1.3, 1.9)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, rng.beta(1.4, 1.0))) * 255


def similar_colour(rng: np.random.Generator, colour: np.ndarray, spread: float) -> np.ndarray:
    """Return a colour near another. `spread` is the standard deviation of each channel."""
    return np.clip(colour + rng.normal(0, spread, 3), 0, 255)


def enlarge(small: np.ndarray, height: int, width: int, interpolation: int = cv2.INTER_CUBIC) -> np.ndarray:
    """Return a small array (h, w) or (h, w, 3) as a large, smooth one."""
    return cv2.resize(small.astype(np.float32), (width, height), interpolation=interpolation)


def to_picture(x: np.ndarray) -> np.ndarray:
    """Return numbers as a picture, clipped to 0..255."""
    return np.clip(x, 0, 255).astype(np.uint8)


# --- Surfaces --------------------------------------------------------------------------------------------------------


def flat(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a surface of one colour."""
    return to_picture(np.broadcast_to(random_colour(rng), (height, width, 3)))


def gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a surface whose colours change smoothly from corner to corner."""
    colours = np.array([[random_colour(rng) for _ in range(2)] for _ in range(rng.integers(2, 4))])
    return to_picture(enlarge(colours, height, width, cv2.INTER_LINEAR))


def clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return noise in several octaves between two colours, like plaster, stone, foliage or sky."""
    field, weight = np.zeros((height, width), np.float32), 1.0
    for cells in (2, 5, 11, 24, 52, 110):
        field += enlarge(rng.normal(0, weight, (cells, cells)), height, width, cv2.INTER_LINEAR)
        weight *= rng.uniform(0.4, 0.8)
    field = cv2.normalize(field, None, 0, 1, cv2.NORM_MINMAX)[..., np.newaxis]
    first = random_colour(rng)
    second = similar_colour(rng, first, 50) if rng.random() < 0.7 else random_colour(rng)
    return to_picture(first + field * (second - first))


def grain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return streaks along one direction, like wood, brushed metal or cloth."""
    across = rng.integers(30, 200)
    streaks = enlarge(rng.normal(0, 1, (across, 4)), height, width, cv2.INTER_LINEAR)
    streaks += enlarge(rng.normal(0, 0.7, (across // 6, 3)), height, width)
    if rng.random() < 0.5:
        streaks = cv2.resize(streaks.T, (width, height))
    return to_picture(random_colour(rng) + streaks[..., np.newaxis] * rng.uniform(5, 22) * rng.uniform(0.7, 1, 3))


def bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return rows of bricks, tiles or planks with joints between them."""
    brick_height, brick_width = rng.integers(25, 90), rng.integers(40, 220)
    colour, joint = random_colour(rng), random_colour(rng)
    picture = to_picture(np.broadcast_to(joint, (height, width, 3))).copy()
    gap = int(rng.integers(1, 6))
    for i, y in enumerate(range(-int(rng.integers(brick_height)), height, brick_height)):
        for x in range(-(i % 2) * (brick_width // 2), width, brick_width):
            corner = x + brick_width - gap, y + brick_height - gap
            cv2.rectangle(picture, (x, y), corner, similar_colour(rng, colour, 9).tolist(), cv2.FILLED)
    return picture


def patches(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return large polygons side by side, like walls, shelves, signs or things out of focus."""
    picture = SURFACES[rng.integers(4)](rng, height, width).copy()
    for _ in range(rng.integers(4, 14)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        corners = centre + rng.normal(0, 0.3, (rng.integers(3, 6), 2)) * (width, height)
        cv2.fillConvexPoly(picture, cv2.convexHull(corners.astype(np.int32)), random_colour(rng).tolist(), cv2.LINE_AA)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(1, 6))
    return picture


SURFACES = (flat, gradient, clouds, grain, bricks, patches)


def two_surfaces(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return one surface beside or in front of another, like a wall and its floor, or a board on a wall."""
    first, second = (SURFACES[rng.integers(len(SURFACES))](rng, height, width) for _ in range(2))
    corners = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
    mask = cv2.fillConvexPoly(np.zeros((height, width), np.uint8), cv2.convexHull(corners.astype(np.int32)), 1)
    return np.where(mask[..., np.newaxis] > 0, second, first)


def random_surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return one of the surfaces, with clutter on it."""
    surfaces = (*SURFACES, two_surfaces, two_surfaces)
    picture = np.ascontiguousarray(surfaces[rng.integers(len(surfaces))](rng, height, width))
    for _ in range(int(rng.gamma(1.2, 4))):
        layer = picture.copy()
        CLUTTER[rng.integers(len(CLUTTER))](rng, layer, random_colour(rng).tolist())
        share = rng.uniform(0.3, 1)
        cv2.addWeighted(layer, share, picture, 1 - share, 0, picture)
    return picture


# --- Clutter, drawn into the picture ---------------------------------------------------------------------------------


def line(rng: np.random.Generator, picture: np.ndarray, colour: list[float]) -> None:
    """Draw a line from side to side, since a short one could be taken for a 1."""
    height, width = picture.shape[:2]
    ends = np.array([[0, rng.uniform(0, height)], [width, rng.uniform(0, height)]])
    if rng.random() < 0.5:
        ends = np.array([[rng.uniform(0, width), 0], [rng.uniform(0, width), height]])
    first, last = ends.astype(int).tolist()
    cv2.line(picture, first, last, colour, int(rng.integers(1, 9)), cv2.LINE_AA)


def polygon(rng: np.random.Generator, picture: np.ndarray, colour: list[float]) -> None:
    """Draw a polygon, filled or as an outline."""
    height, width = picture.shape[:2]
    reach = rng.uniform(0.03, 0.25) * min(height, width)
    corners = rng.uniform(0, 1, 2) * (width, height) + rng.normal(0, reach, (rng.integers(3, 7), 2))
    hull = cv2.convexHull(corners.astype(np.int32))
    if rng.random() < 0.75:
        cv2.fillConvexPoly(picture, hull, colour, cv2.LINE_AA)
    else:
        cv2.polylines(picture, [hull], True, colour, int(rng.integers(1, 5)), cv2.LINE_AA)


def blob(rng: np.random.Generator, picture: np.ndarray, colour: list[float]) -> None:
    """Draw a filled ellipse, since an outline could be taken for a 0."""
    height, width = picture.shape[:2]
    axes = (rng.uniform(0.01, 0.15, 2) * min(height, width)).astype(int) + 2
    centre = (rng.uniform(0, 1, 2) * (width, height)).astype(int)
    cv2.ellipse(picture, centre.tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, colour, cv2.FILLED, cv2.LINE_AA)


def curve(rng: np.random.Generator, picture: np.ndarray, colour: list[float]) -> None:
    """Draw a long bent line, like a cable, a branch or a scratch."""
    height, width = picture.shape[:2]
    knots = rng.uniform(-0.2, 1.2, (5, 1, 2)) * (width, height)
    points = cv2.resize(knots.astype(np.float32), (1, 60), interpolation=cv2.INTER_CUBIC).astype(np.int32)
    cv2.polylines(picture, [points], False, colour, int(rng.integers(1, 7)), cv2.LINE_AA)


def specks(rng: np.random.Generator, picture: np.ndarray, colour: list[float]) -> None:
    """Draw small dots."""
    height, width = picture.shape[:2]
    for x, y in (rng.uniform(0, 1, (rng.integers(5, 60), 2)) * (width, height)).astype(int).tolist():
        cv2.circle(picture, (x, y), int(rng.integers(1, 4)), colour, cv2.FILLED, cv2.LINE_AA)


CLUTTER = (line, line, polygon, polygon, blob, curve, specks)


# --- The camera -----------------------------------------------------------------------------------------------------


def light(rng: np.random.Generator, picture: np.ndarray, strength: float) -> np.ndarray:
    """Return a picture in uneven, tinted light, sometimes with a shadow, rarely in grey. `strength` is 0..1."""
    height, width = picture.shape[:2]
    field = enlarge(1 + strength * rng.uniform(-0.4, 0.25, (3, 3)), height, width)
    if rng.random() < 0.4:
        corners = rng.uniform(-0.3, 1.3, (rng.integers(3, 6), 2)) * (width, height)
        shadow = np.zeros((height // 4, width // 4), np.float32)
        cv2.fillConvexPoly(shadow, cv2.convexHull((corners / 4).astype(np.int32)), strength * rng.uniform(0.25, 0.6))
        field *= 1 - enlarge(cv2.GaussianBlur(shadow, (0, 0), rng.uniform(0.7, 6)), height, width, cv2.INTER_LINEAR)
    tint = 1 + strength * rng.normal(0, 0.05, 3).astype(np.float32)
    lit = to_picture(cv2.multiply(picture.astype(np.float32), cv2.merge([field] * 3)) * tint)
    if rng.random() < 0.06 * strength:
        return cv2.cvtColor(cv2.cvtColor(lit, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return lit


def expose(rng: np.random.Generator, picture: np.ndarray, strength: float, smallest: float) -> np.ndarray:
    """Return a picture with noise and, often, blur by focus or motion.

    strength  0..1
    smallest  height in pixels of the digits that must stay readable
    """
    height, width = picture.shape[:2]
    kind, reach = rng.random(), strength * min(0.035 * smallest, 2.5) * rng.random()
    if kind < 0.35 and reach > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), reach)
    elif kind < 0.5 and reach > 0.3:
        length, angle = 2 * int(np.ceil(1.5 * reach)) + 1, rng.uniform(0, np.pi)
        kernel = np.zeros((length, length), np.float32)
        half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        ends = (np.array([half, -half]) + length / 2).astype(int).tolist()
        cv2.line(kernel, *ends, 1)
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    cv2.setRNGSeed(int(rng.integers(2**31)))  # OpenCV's noise is twice as fast as NumPy's
    noise = cv2.randn(np.empty((height, width), np.int16), 0, strength * rng.gamma(1.5, 3.5))
    return cv2.add(picture, cv2.merge([noise] * 3), dtype=cv2.CV_8U)
