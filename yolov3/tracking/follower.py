"""Follows what the detector finds from frame to frame: detections in, tracks with stable numbers out.

The tracker itself is deep_sort's, which knows no detector; here its answers get names, trails and counts.
"""

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tracks:
    """What is followed in one frame."""

    boxes: np.ndarray  # float32 (n, 4): x1, y1, x2, y2 in pixels of the frame; may reach over its edge
    scores: np.ndarray  # float32 (n,), 0..1, of the detections they were seen as last
    classes: np.ndarray  # int32 (n,), indices into names
    names: tuple  # of str: the names of all classes of the model
    numbers: np.ndarray  # int32 (n,), identities, from 1, never used twice
    trails: list  # for each the points (k, 2) where it stood lately, oldest first, in pixels of the frame
    counts: dict  # class name -> how many objects were seen so far

    def __len__(self):
        return len(self.numbers)

    @property
    def labels(self):
        """The class name of each track."""
        return [self.names[i] for i in self.classes]

    def seen(self):
        """The counts in words."""
        counts = ", ".join(f"{count} x {name}" for name, count in sorted(self.counts.items()))
        return f"seen: {counts or 'nothing'}"


class Follower:
    """follower(frame, detections) -> Tracks: a `sources.Frame`, in order, and the detector's answer on it.

    tracker  a deep_sort.Tracker
    embed    an embedder, see `appearance`; "detector": the detections' own features; None: motion only
    trail    frames that a trail goes back
    """

    def __init__(self, tracker, embed=None, trail=45):
        self.tracker, self.embed = tracker, embed
        self.counts = Counter()  # class name, that of the first sight -> objects seen
        self.trails = {}  # number -> deque of (frame, x, y), where its box stands; of all that may still be seen
        self.trail_length, self.size, self.frames = trail, None, 0

    def __call__(self, frame, detections):
        # 1. The tracker sees every frame in the size of the first: some videos change theirs on the way
        size = np.array(frame.picture.shape[1::-1])  # width, height
        self.size = size if self.size is None else self.size
        scale = np.tile(self.size / size, 2)
        seconds = frame.place / self.tracker.frame_rate if frame.seconds is None else frame.seconds
        boxes, scores, classes = detections.boxes * scale, detections.scores, detections.classes
        tracks = self.tracker.update(boxes, scores, classes, self._features(detections, scale), frame.picture, seconds)

        # 2. Who was where, and how many there were
        self.frames += 1
        boxes = np.array([track.box for track in tracks], np.float32).reshape(-1, 4)
        for track, (x1, _, x2, y2) in zip(tracks, boxes, strict=True):
            if track.number not in self.trails:
                self.trails[track.number] = deque(maxlen=self.trail_length)
                self.counts[detections.names[track.class_id]] += 1
            self.trails[track.number].append((self.frames, (x1 + x2) / 2, y2))
        self.trails = {number: self.trails[number] for number in self.tracker.numbers()}
        return Tracks(
            (boxes / scale).astype(np.float32),
            np.array([track.score for track in tracks], np.float32),
            np.array([track.class_id for track in tracks], np.int32),
            detections.names,
            np.array([track.number for track in tracks], np.int32),
            [self._trail(track.number) / scale[:2] for track in tracks],
            dict(self.counts),
        )

    def _features(self, detections, scale):
        """What the tracker is to tell objects by, its boxes being those of the frame times a scale."""
        if callable(self.embed):
            return lambda picture, boxes: self.embed(picture, boxes / scale)
        return detections.features if self.embed == "detector" else None

    def _trail(self, number):
        """Its points (k, 2) since it was last out of sight, within the last frames."""
        points = np.array(self.trails[number]).reshape(-1, 3)
        gaps = np.flatnonzero(np.diff(points[:, 0]) > 1)
        points = points[gaps[-1] + 1 :] if len(gaps) else points
        return points[points[:, 0] > self.frames - self.trail_length, 1:]
