"""Paint the synthetic scenes, from a seed, with people whom embeddings can tell apart by their clothes.

Frames are uint8 (720, 1280, 3), RGB. The people have a shirt above trousers, skin and hair. A few wear the same. They
are seen larger and smaller, half hidden, and in light that changes from left to right.
"""

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass

from tools.benchmarks.tracking_scenes import HEIGHT, WIDTH, Scene

import cv2
import numpy as np

SPRITE = (240, 96)  # height and width in pixels that a person is painted in, before it is scaled to the box
PHASES = 8  # pictures of a step
PATTERNS = ("plain", "plain", "stripes", "bands", "checks")
SKINS = ((241, 210, 184), (214, 165, 126), (157, 107, 71), (96, 62, 42))
HAIRS = ((30, 24, 20), (84, 56, 34), (196, 160, 96), (150, 150, 150))
PILLAR = (112, 108, 104)


@dataclass(frozen=True)
class Look:
    """Hold the colours, RGB, and the pattern that a person is painted in."""

    shirt: tuple
    second: tuple  # colour of the shirt's pattern
    pattern: str
    trousers: tuple
    skin: tuple
    hair: tuple


def make_look(rng: np.random.Generator) -> Look:
    """Return a random Look. There are few colours, so that some people share the shirt and some the trousers."""

    def colour(hues, values):
        hue, value = rng.integers(hues) / hues, rng.choice(values)
        return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, rng.choice((0.15, 0.55, 0.85)), value))

    shirt, second, trousers = colour(10, (0.35, 0.6, 0.9)), colour(6, (0.3, 0.9)), colour(6, (0.2, 0.4, 0.65))
    skin, hair = SKINS[rng.integers(len(SKINS))], HAIRS[rng.integers(len(HAIRS))]
    return Look(shirt, second, str(rng.choice(PATTERNS)), trousers, skin, hair)


def paint_person(look: Look, phase: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a person, uint8 (240, 96, 3), at one phase of the step, and its mask, uint8 (240, 96)."""
    height, width = SPRITE
    picture, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    swing = np.sin(2 * np.pi * phase / PHASES)

    def both(draw, *arguments, colour, thickness):
        draw(picture, *arguments, colour, thickness, cv2.LINE_AA)
        draw(mask, *arguments, 255, thickness, cv2.LINE_AA)

    for side in (-1, 1):  # legs and shoes
        foot = (48 + round(side * 26 * swing), 228)
        both(cv2.line, (48 + 6 * side, 122), foot, colour=look.trousers, thickness=19)
        both(cv2.line, foot, (foot[0] + 8, foot[1] + 2), colour=(25, 25, 28), thickness=12)
    shirt = np.zeros_like(mask)
    cv2.ellipse(shirt, (48, 62), (26, 22), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.rectangle(shirt, (24, 60), (72, 128), 255, -1)
    for side in (-1, 1):  # arms
        hand = (48 + 28 * side - round(side * 12 * swing), 128)
        cv2.line(shirt, (48 + 24 * side, 58), hand, 255, 13, cv2.LINE_AA)
        both(cv2.circle, hand, 6, colour=look.skin, thickness=-1)
    picture[shirt > 127] = _cloth(look)[shirt > 127]
    mask |= shirt
    both(cv2.circle, (48, 24), 18, colour=look.skin, thickness=-1)
    cv2.ellipse(picture, (48, 20), (18, 14), 0, 180, 360, look.hair, -1, cv2.LINE_AA)
    return picture, mask


def _cloth(look):
    height, width = SPRITE
    y, x = np.mgrid[:height, :width]
    patterns = {"plain": x < 0, "stripes": x // 6 % 2, "bands": y // 9 % 2, "checks": (x // 9 + y // 9) % 2}
    return np.where(patterns[look.pattern][..., np.newaxis] > 0, look.second, look.shirt).astype(np.uint8)


def paint_scene(scene: Scene, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the pictures of a scene, one for each of its frames."""
    rng = np.random.default_rng([seed, *scene.name.encode()])
    numbers = np.unique(scene.truth[:, 1]).astype(int)
    looks = {number: make_look(rng) for number in numbers}
    people = {number: [paint_person(looks[number], phase) for phase in range(PHASES)] for number in numbers}
    street = _street(rng)
    light = np.tile(np.linspace(0.75, 1.1, WIDTH, dtype=np.float32)[:, np.newaxis], (HEIGHT, 1, 3))
    for i, frame in enumerate(scene.frames):
        picture = street.copy()
        rows = scene.truth[scene.truth[:, 0] == frame]
        for row in rows[np.argsort(rows[:, 3] + rows[:, 5])]:  # the farthest first, whose feet are highest
            _paste(picture, *people[int(row[1])][(int(frame) + 3 * int(row[1])) // 4 % PHASES], row[2:6])
        for x1, y1, x2, y2 in scene.pillars[i].round().astype(int):
            cv2.rectangle(picture, (x1, y1), (x2, y2), PILLAR, -1)
        noise = rng.normal(0, 4, (HEIGHT // 2, WIDTH // 2, 3)).astype(np.int8)
        noise = cv2.resize(noise.view(np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST).view(np.int8)
        yield cv2.add(cv2.multiply(picture, light, dtype=cv2.CV_8U), noise, dtype=cv2.CV_8U)


def _street(rng):
    """Return the background, a wall of many shades and the ground."""
    coarse = (rng.uniform(90, 190, (9, 16, 1)) + rng.uniform(-20, 20, (9, 16, 3))).astype(np.float32)
    street = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    street += cv2.resize(rng.normal(0, 14, (90, 160, 1)).astype(np.float32), (WIDTH, HEIGHT))[..., np.newaxis]
    street[330:] = 0.4 * street[330:] + 75
    return np.clip(street, 0, 255).astype(np.uint8)


def _paste(picture, person, mask, place):
    """Scale a person to its place (left, top, width, height) and paint it over the picture."""
    left, top, width, height = np.round(place).astype(int)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, WIDTH), min(top + height, HEIGHT)
    if x1 >= x2 or y1 >= y2:
        return
    part = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    person, mask = (cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA)[part] for x in (person, mask))
    share = mask[..., np.newaxis] / 255
    picture[y1:y2, x1:x2] = (share * person + (1 - share) * picture[y1:y2, x1:x2]).astype(np.uint8)
