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
    embed    an embedder, see `appearance`; None: the detections' own features, if they have any
    trail    frames that a trail goes back
    """

    def __init__(self, tracker, embed=None, trail=45):
        self.tracker, self.embed = tracker, embed
        self.counts = Counter()  # class name -> objects seen
        self.trails = {}  # number -> deque of (x, y), where its box stands on the ground; of all that may still be seen
        self.trail_length, self.size = trail, None

    def __call__(self, frame, detections):
        # 1. The tracker sees every frame in the size of the first: some videos change theirs on the way
        size = np.array(frame.picture.shape[1::-1])  # width, height
        self.size = size if self.size is None else self.size
        scale = np.tile(self.size / size, 2)
        embed = self.embed and (lambda picture, boxes: self.embed(picture, boxes / scale))
        features = detections.features if embed is None else embed
        tracks = self.tracker.update(
            detections.boxes * scale, detections.scores, detections.classes, features, frame.picture, frame.seconds
        )

        # 2. Who was where, and how many there were
        boxes = np.array([track.box for track in tracks], np.float32).reshape(-1, 4)
        for track, (x1, _, x2, y2) in zip(tracks, boxes, strict=True):
            if track.number not in self.trails:
                self.trails[track.number] = deque(maxlen=self.trail_length)
                self.counts[detections.names[track.class_id]] += 1
            self.trails[track.number].append(((x1 + x2) / 2, y2))
        self.trails = {number: self.trails[number] for number in self.tracker.numbers()}
        return Tracks(
            (boxes / scale).astype(np.float32),
            np.array([track.score for track in tracks], np.float32),
            np.array([track.class_id for track in tracks], np.int32),
            detections.names,
            np.array([track.number for track in tracks], np.int32),
            [np.array(self.trails[track.number]).reshape(-1, 2) / scale[:2] for track in tracks],
            dict(self.counts),
        )
