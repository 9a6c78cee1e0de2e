"""Give detections numbers that stay with their objects from frame to frame.

The tracker itself is that of deep_sort, which does not know the detector. Here names, trails and counts are added.
"""

from collections import Counter, deque
from collections.abc import Callable

from deep_sort import Tracker
from yolov3.detector import Detections
from yolov3.media.sources import Frame

import numpy as np


class Follower:
    """Turn the detections of each frame into those of the tracks to show, with numbers, trails and counts.

    follow = Follower(Tracker(), "detector")
    tracks = follow(frame, detections)  # tracks.numbers: [1, 2, ...]
    """

    def __init__(self, tracker: Tracker, embedder: Callable | str | None = None, trail: int = 45):
        """Follow objects with a tracker.

        embedder  a function, see `tracking.embedders`; "detector" for the detections' own embeddings; None for motion
                  only
        trail     length of a trail in frames
        """
        self.tracker, self.embedder = tracker, embedder
        self.counts: Counter[str] = Counter()  # class name -> objects seen, each counted for its first class
        self.trails: dict[int, deque] = {}  # number -> (frame, x, y) of the foot of its box
        self.size: np.ndarray | None = None
        self.trail_length, self.frames = trail, 0

    def __call__(self, frame: Frame, detections: Detections) -> Detections:
        """Return the tracks to show after one more frame. Their boxes are not clipped to the frame."""
        # 1. Track in pixels of the first frame: the size of some videos changes on the way
        size = np.array(frame.picture.shape[1::-1])  # width, height, as boxes have them
        self.size = size if self.size is None else self.size
        scale = np.tile(self.size / size, 2)
        rate = self.tracker.options.frame_rate
        seconds = frame.place / rate if frame.seconds is None else frame.seconds
        boxes, scores, classes = detections.boxes * scale, detections.scores, detections.classes
        embeddings = self._embeddings(detections, scale)
        tracks = self.tracker.update(boxes, scores, classes, embeddings, frame.picture, seconds)

        # 2. Prolong the trails and count the objects
        self.frames += 1
        boxes = np.array([track.box for track in tracks], np.float32).reshape(-1, 4)
        for track, (x1, _, x2, y2) in zip(tracks, boxes, strict=True):
            if track.number not in self.trails:
                self.trails[track.number] = deque(maxlen=self.trail_length)
                self.counts[detections.names[track.class_id]] += 1
            self.trails[track.number].append((self.frames, (x1 + x2) / 2, y2))
        self.trails = {number: self.trails[number] for number in self.tracker.numbers()}
        return Detections(
            (boxes / scale).astype(np.float32),
            np.array([track.score for track in tracks], np.float32),
            np.array([track.class_id for track in tracks], np.int32),
            detections.names,
            numbers=np.array([track.number for track in tracks], np.int32),
            trails=[self._trail(track.number) / scale[:2] for track in tracks],
            counts=dict(self.counts),
        )

    def _embeddings(self, detections, scale):
        """Return the embeddings as the tracker takes them. Its boxes are those of the frame times `scale`."""
        if callable(self.embedder):
            return lambda picture, boxes: self.embedder(picture, boxes / scale)
        return detections.embeddings if self.embedder == "detector" else None

    def _trail(self, number):
        """Return the points (k, 2) of a track in the last frames, since it was last out of sight."""
        points = np.array(self.trails[number]).reshape(-1, 3)
        gaps = np.flatnonzero(np.diff(points[:, 0]) > 1)
        points = points[gaps[-1] + 1 :] if len(gaps) else points
        return points[points[:, 0] > self.frames - self.trail_length, 1:]
