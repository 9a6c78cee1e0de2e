"""Make synthetic scenes for trackers: boxes like people that walk, cross and hide, with ground truth, from a seed.

Detections and truth are rows as in MOTChallenge's det.txt and gt.txt:
frame (from 1), number (-1 for detections), left, top, width, height, score, -1, -1, -1.
A person hidden by a nearer one or by a pillar is detected less often, with a lower score and a worse box, but stays in
the truth, as in MOTChallenge. Dropped frames are missing in both.
"""

from dataclasses import dataclass

import numpy as np

FRAME_RATE = 30
WIDTH, HEIGHT = 1280, 720


@dataclass(frozen=True)
class Recipe:
    """Hold the parameters of a kind of scene."""

    people: int = 8
    facing: bool = False  # pairs start on opposite sides at one depth, and cross
    pillars: int = 0  # each hides a person behind it for 1 to 30 frames
    missed: float = 0.03  # share of visible people that the detector misses
    false: float = 0.1  # wrong detections a frame
    jitter: float = 0.03  # standard deviation of a box's sides, in box sizes
    shake: float = 0.0  # standard deviation of the camera's jolts, pixels a frame
    drops: float = 0.0  # share of frames after which up to 8 frames are lost
    restless: float = 0.02  # standard deviation of the change of velocity, in walking speeds a frame


KINDS = {
    "crossings": Recipe(people=10, facing=True),
    "occlusions": Recipe(people=6, pillars=5),
    "missed": Recipe(missed=0.25, jitter=0.05),
    "false": Recipe(false=2.0, jitter=0.05),
    "shake": Recipe(shake=6.0),
    "drops": Recipe(drops=0.08),
    "crowd": Recipe(people=30, missed=0.08, false=0.5, jitter=0.04, pillars=2),
    "turns": Recipe(restless=0.12),
}


@dataclass(frozen=True)
class Scene:
    """Hold a scene: what a detector finds in it, and the truth."""

    name: str
    frame_rate: float
    frames: np.ndarray  # (frames,) ascending numbers of the frames that were not dropped
    detections: np.ndarray  # (n, 10)
    truth: np.ndarray  # (n, 10)
    pillars: np.ndarray | None = None  # (frames, pillars, 4) xyxy, nearer than all people; None if unknown


def make_scene(kind: str, seed: int = 0, frame_count: int = 300) -> Scene:
    """Return a Scene of KINDS[kind]. The same seed gives the same scene."""
    recipe = KINDS[kind]
    rng = np.random.default_rng([seed, *kind.encode()])
    pillars = _pillars(recipe, rng)
    camera = _camera(recipe, frame_count, rng)
    boxes = _walks(recipe, frame_count, rng)  # (frames, people, 4) xyxy, without the camera's motion
    detections, truth = [], []
    frames = _kept_frames(recipe, frame_count, rng)
    for i in frames - 1:
        number = np.flatnonzero(_inside(boxes[i] + np.tile(camera[i], 2)))
        visible = _visible(boxes[i, number], pillars)
        here = boxes[i, number] + np.tile(camera[i], 2)
        truth.append(_rows(i + 1, number + 1, here, np.ones(len(number))))
        detections.append(_detect(i + 1, here, visible, recipe, rng))
    moved = pillars + np.tile(camera[frames - 1], 2)[:, np.newaxis]
    return Scene(f"{kind}-{seed}", FRAME_RATE, frames, np.concatenate(detections), np.concatenate(truth), moved)


def _walks(recipe, frame_count, rng):
    """Return the boxes of all people in all frames. Their heights follow from their depths; they turn at the edges."""
    count = recipe.people
    depth = rng.uniform(0, 1, count)  # 0 far, 1 near
    x = rng.uniform(0, WIDTH, count)
    direction = rng.choice((-1.0, 1.0), count)
    if recipe.facing:
        depth[1::2] = np.clip(depth[: count // 2 * 2 : 2] + rng.normal(0, 0.03, count // 2), 0, 1)
        direction = np.where(np.arange(count) % 2, -1.0, 1.0)
        x = np.where(direction > 0, rng.uniform(0, WIDTH * 0.35, count), rng.uniform(WIDTH * 0.65, WIDTH, count))
    speed = rng.uniform(0.012, 0.035, count)  # body heights a frame: walking at 30 frames a second
    aspect = rng.uniform(0.32, 0.45, count)
    velocity, drift = direction * speed, rng.normal(0, 0.0006, count)
    boxes = np.empty((frame_count, count, 4))
    for i in range(frame_count):
        height = 110 + 190 * depth
        swing = 1 + 0.12 * np.sin(0.35 * i + np.arange(count))  # the legs
        feet = 330 + 330 * depth
        half = aspect * swing * height / 2
        boxes[i] = np.stack([x - half, feet - height, x + half, feet], 1)
        velocity += rng.normal(0, recipe.restless, count) * speed
        velocity = np.clip(velocity, -1.5 * speed, 1.5 * speed)
        velocity = np.where((x < -60) & (velocity < 0) | (x > WIDTH + 60) & (velocity > 0), -velocity, velocity)
        drift += rng.normal(0, recipe.restless * 0.0006, count)
        drift = np.where((depth < 0) & (drift < 0) | (depth > 1) & (drift > 0), -drift, drift)
        x, depth = x + velocity * height, depth + drift
    return boxes


def _pillars(recipe, rng):
    """Return pillars (n, 4), xyxy, nearer than all people, each of which hides a person for 1 to 30 frames."""
    left = np.linspace(0, WIDTH, recipe.pillars + 2)[1:-1] + rng.uniform(-60, 60, recipe.pillars)
    return np.stack([left, left * 0, left + rng.uniform(40, 190, recipe.pillars), left * 0 + HEIGHT], 1)


def _camera(recipe, frame_count, rng):
    """Return the offsets (frames, 2), in pixels, of a camera that is jolted and swings back."""
    offset, offsets = np.zeros(2), []
    for jolt in rng.normal(0, 1, (frame_count, 2)) * recipe.shake:
        offset = 0.85 * offset + jolt
        offsets.append(offset)
    return np.array(offsets)


def _kept_frames(recipe, frame_count, rng):
    lost = np.zeros(frame_count, bool)
    for i in np.flatnonzero(rng.random(frame_count) < recipe.drops):
        lost[i + 1 : i + 1 + rng.integers(1, 9)] = True
    return np.flatnonzero(~lost) + 1


def _inside(boxes):
    """Return whether at least half of the width of each box is in the picture, (n,)."""
    centre = boxes[:, [0, 2]].mean(1)
    return (centre > 0) & (centre < WIDTH)


def _visible(boxes, pillars):
    """Return the share (n,) of each box that neither a pillar nor a nearer box covers, by a grid of points."""
    grid = np.stack(np.meshgrid(*[(np.arange(12) + 0.5) / 12] * 2), -1).reshape(-1, 2)
    points = boxes[:, np.newaxis, :2] + grid * (boxes[:, 2:] - boxes[:, :2])[:, np.newaxis]  # (n, 144, 2)
    covers = np.concatenate([boxes, pillars])
    nearer = np.concatenate([boxes[:, 3], np.full(len(pillars), np.inf)]) > boxes[:, 3:]  # (n, covers)
    within = ((points[:, :, np.newaxis] > covers[:, :2]) & (points[:, :, np.newaxis] < covers[:, 2:])).all(-1)
    return 1 - (within & nearer[:, np.newaxis]).any(2).mean(1)


def _detect(frame, boxes, visible, recipe, rng):
    """Return what a detector would find: never what is less than 30 % visible, nearly always what is more than 70 %."""
    found = rng.random(len(boxes)) < np.clip((visible - 0.3) / 0.4, 0, 1) * (1 - recipe.missed)
    boxes, visible = boxes[found], visible[found]
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + rng.normal(0, 1, boxes.shape) * size * recipe.jitter * (2 - visible)[:, np.newaxis]
    scores = np.clip(rng.normal(0.25 + 0.65 * visible, 0.08), 0.05, 0.99)
    count = rng.poisson(recipe.false)
    height = rng.uniform(60, 300, count)
    corner = np.stack([rng.uniform(0, WIDTH, count), rng.uniform(0, HEIGHT - height)], 1)
    wrong = np.concatenate([corner, corner + np.stack([height * rng.uniform(0.3, 0.6, count), height], 1)], 1)
    scores = np.concatenate([scores, np.clip(rng.normal(0.4, 0.15, count), 0.05, 0.99)])
    return _rows(frame, -1, np.concatenate([boxes, wrong]), scores)


def _rows(frame, number, boxes, scores):
    rows = np.full((len(boxes), 10), -1.0)
    rows[:, 0], rows[:, 1], rows[:, 6] = frame, number, scores
    rows[:, 2:4], rows[:, 4:6] = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    return rows
