"""Deep SORT's tracks: predicted, matched to a frame's detections, confirmed, lost, found again.

From the papers SORT (Bewley 2016), Deep SORT (Wojke 2017), ByteTrack (Zhang 2022: a pass for low scores) and OC-SORT
(Cao 2023: a lost track is also sought where it was seen last).
"""

from typing import NamedTuple

import numpy as np

from .inputs import check_boxes, check_column, check_features, check_number, check_options
from .kalman import GATE, KalmanFilter, to_xyah, to_xyxy
from .matching import (
    NEVER,
    assign,
    cascade,
    cosine_distances,
    height_iou_matrix,
    iou_matrix,
    normalise,
    others,
    without_duplicates,
)


class Track(NamedTuple):
    """What update() tells of a track. Frames are of 1 / frame_rate seconds, whatever rate they came at."""

    number: int  # identity, from 1, never used twice
    box: np.ndarray  # (4,) float32 xyxy, pixels; may reach over the picture's edge
    score: float  # of the detection it was seen as last
    class_id: int
    age: float  # frames since it was seen first
    hits: int  # how often it was seen
    unseen: float  # frames since it was seen last: 0 now


class Tracker:
    """Lengths of time are in frames of 1 / frame_rate seconds; standard deviations are in heights of the box."""

    def __init__(
        self,
        frame_rate=30.0,  # frames a second where update() is told no time, and the frame that all arguments mean
        high_score=0.4,  # 0..1: detections of at least so much are matched first, and start tracks
        low_score=0.1,  # 0..1: those between the two prolong tracks; those below are ignored
        confirm_hits=3,  # detections until a track is shown; those of the very first frame are at once
        confirm_misses=1,  # frames a track may be unseen before it is confirmed
        max_unseen=60,  # frames: a track unseen for longer ends
        coast=1,  # frames: a track unseen for no longer is still shown, where it should be
        fresh=5,  # frames: tracks seen so lately choose their detections before the others
        min_iou=0.2,  # 0..1: overlap of prediction and detection, at least (IoU times that of heights alone)
        low_iou=0.4,  # 0..1: the same (IoU) for detections of low score
        found_iou=0.4,  # 0..1: the same (IoU) with where a lost track was seen last
        smooth=0.5,  # 0..1: how much of a box shown is the filter's; the rest is as detected
        max_distance=0.12,  # 0..2: cosine distance of appearances, at most
        strange_distance=0.25,  # 0..2: from this cosine distance on it is another object, whatever overlaps
        budget=50,  # features that a track remembers
        measurement_noise=0.1,  # standard deviation of a detection's centre and height
        position_noise=0.02,  # of what a frame adds to those
        velocity_noise=1 / 200,  # of what a frame adds to their velocities
        class_agnostic=False,  # True: a track may be matched to another class (car, truck); False: never
    ):
        options = {name: value for name, value in locals().items() if name != "self"}
        check_options(options)
        vars(self).update(options)
        self.filter = KalmanFilter(measurement_noise, position_noise, velocity_noise)
        self.time, self.count, self.feature_length = None, 0, None
        self.tracks = _new_tracks(0)

    def update(self, boxes, scores, classes, features=None, frame=None, time=None):
        """One frame's detections, boxes (n, 4) xyxy in pixels, scores (n,), classes (n,) -> [Track] to show.

        features: appearances (n, d), or a callable (frame, boxes (k, 4) float32) -> (k, d) that is asked for those
        that need one. time: seconds, later than before; None: 1 / frame_rate after the last.
        """
        boxes, scores, classes, features = self._check(boxes, scores, classes, features, frame)
        first = self.time is None
        frames = self._step(time)  # the last check: what is refused changes nothing
        self._predict(frames)
        if features is not None:
            self.feature_length = features.shape[1] or self.feature_length
        tracks, matched, left = self._match(boxes, scores, classes, features, frames)
        self._see(tracks, matched, boxes, scores, classes, features)
        self._start(left, boxes, scores, classes, features)
        self._confirm(first)
        return self._shown()

    def numbers(self):
        """Identities that may still be seen: of tracks shown, and of those lost for the time being."""
        return [number for number in self.tracks["number"].tolist() if number]

    def _check(self, boxes, scores, classes, features, frame):
        boxes = check_boxes(boxes)
        scores, classes = (check_column(n, x, len(boxes)) for n, x in (("scores", scores), ("classes", classes)))
        if features is not None and not callable(features):
            features = check_features(features, len(boxes), self.feature_length)
        kept = (scores >= self.low_score) & (boxes[:, 2:] - boxes[:, :2] > 0.01).all(1)  # an edge may cut all of a box
        if (classes % 1 != 0).any():
            raise ValueError(f"classes {classes.tolist()} must be whole numbers")
        if self.class_agnostic:
            kept = without_duplicates(boxes, scores, np.flatnonzero(kept))
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept].astype(int)
        if features is None:
            return boxes, scores, classes, None
        if callable(features):
            high = np.flatnonzero(scores >= self.high_score)
            asked = features(frame, boxes[high].astype(np.float32)) if len(high) else np.empty((0, 0))
            asked = check_features(asked, len(high), self.feature_length)
            features = np.zeros((len(boxes), asked.shape[1]))
            features[high] = asked
        else:
            features = features[kept]
        return boxes, scores, classes, normalise(features)

    def _step(self, time):
        """Frames since the last update."""
        if time is None:
            time = 0.0 if self.time is None else self.time + 1 / self.frame_rate
        check_number("time", time, -1e12, 1e12)
        if self.time is not None and time <= self.time:
            raise ValueError(f"time = {time} is not later than the frame before it, at {self.time}")
        frames = 1.0 if self.time is None else round((time - self.time) * self.frame_rate, 6)
        self.time = time
        return frames

    def _predict(self, frames):
        t = self.tracks
        patience = np.where(t["number"] > 0, self.max_unseen, self.confirm_misses * max(frames, 1.0))
        t["unseen"] += frames
        t["age"] += frames
        longest = max(self.max_unseen, frames)  # frames far apart: who was there in the last one may still be
        t = self._keep((t["unseen"] - frames <= patience) & (t["unseen"] <= longest))
        t["state"], t["covariance"] = self.filter.predict(t["state"], t["covariance"], frames)

    def _keep(self, kept):
        if not kept.all():
            self.tracks = {name: column[kept] for name, column in self.tracks.items()}
        return self.tracks

    def _match(self, boxes, scores, classes, features, frames):
        """-> tracks, their detections, and the detections of high score that nothing matches: indices."""
        t = self.tracks
        expected, lately = to_xyxy(t["state"]), t["unseen"] <= frames
        high, low = np.flatnonzero(scores >= self.high_score), np.flatnonzero(scores < self.high_score)
        known, tentative = np.flatnonzero(t["number"] > 0), np.flatnonzero(t["number"] == 0)
        pairs = [(known[:0], high[:0])]

        unlikeness = np.ones((len(expected), len(boxes)), np.float32)  # cosine distances; the doubtful show too little
        if features is not None and len(high):
            unlikeness[:, high] = cosine_distances(t["gallery"], features[high])

        def match(tracks, detections, cost_of, limit, levels=None):
            """Notes the best pairs of these tracks and detections -> which of both are left."""
            if not len(tracks) or not len(detections):
                return tracks, detections
            cost = cost_of(tracks, detections)
            if not self.class_agnostic:
                cost = np.where(t["class_id"][tracks, np.newaxis] == classes[detections], cost, NEVER)
            if features is not None and cost_of is not unlike:
                cost = np.where(stranger(tracks, detections), NEVER, cost)
            rows, columns = assign(cost, limit) if levels is None else cascade(cost, limit, levels[tracks])
            pairs.append((tracks[rows], detections[columns]))
            return others(tracks, rows), others(detections, columns)

        def unlike(tracks, detections):
            far = self.filter.distance(t["state"][tracks], t["covariance"][tracks], to_xyah(boxes[detections])) > GATE
            return np.where(far, NEVER, unlikeness[np.ix_(tracks, detections)])

        def stranger(tracks, detections):
            """Looks quite otherwise, whatever overlaps. Features of length 0 look like nothing and tell nothing."""
            told = features[detections].any(1) & (scores[detections] >= self.high_score)
            told = told & np.array([len(x) > 0 for x in t["gallery"][tracks]])[:, np.newaxis]
            return told & (unlikeness[np.ix_(tracks, detections)] > self.strange_distance)

        def off(tracks, detections):
            return 1 - height_iou_matrix(expected[tracks], boxes[detections])

        def off_and_unlike(tracks, detections):
            cost = off(tracks, detections)
            return np.where(cost > 1 - self.min_iou, NEVER, cost + unlikeness[np.ix_(tracks, detections)])

        # 1. By appearance: tracks seen lately where they overlap, too; then all, where the motion allows it, those seen
        #    last choosing first
        stale = t["unseen"] > self.fresh + frames - 1
        if features is not None:
            rest, high = match(known[~stale[known]], high, off_and_unlike, NEVER / 2)
            known = np.concatenate([rest, known[stale[known]]])
            known, high = match(known, high, unlike, self.max_distance, t["unseen"])

        # 2. By overlap with the prediction; the tracks seen lately choose first
        known, high = match(known, high, off, 1 - self.min_iou, stale)

        # 3. Detections of low score prolong tracks that were seen in the frame before
        there, hidden = known[lately[known]], known[~lately[known]]
        there, _ = match(there, low, lambda i, j: 1 - iou_matrix(expected[i], boxes[j]), 1 - self.low_iou)
        known = np.concatenate([there, hidden])

        # 4. By overlap with where the track was seen last: it stood still, or the prediction went astray
        _, high = match(known, high, lambda i, j: 1 - iou_matrix(t["last"][i], boxes[j]), 1 - self.found_iou)

        # 5. What is left may belong to tracks that are not confirmed yet
        _, high = match(tentative, high, off, 1 - self.min_iou)
        tracks, detections = (np.concatenate(x) for x in zip(*pairs, strict=True))
        return tracks, detections, high

    def _see(self, tracks, detections, boxes, scores, classes, features):
        """Matched tracks learn from their detections."""
        t = self.tracks
        t["state"][tracks], t["covariance"][tracks] = self.filter.update(
            t["state"][tracks], t["covariance"][tracks], to_xyah(boxes[detections])
        )
        t["last"][tracks], t["score"][tracks] = boxes[detections], scores[detections]
        t["unseen"][tracks] = 0
        t["hits"][tracks] += 1
        if features is not None:
            for i, feature, score in zip(tracks, features[detections], scores[detections], strict=True):
                if feature.any() and score >= self.high_score:  # who is half hidden looks like the one before
                    t["gallery"][i] = np.stack([*t["gallery"][i], feature])[-int(self.budget) :]
        if self.class_agnostic:  # the class seen most, weighted by score: Boyer and Moore's majority vote
            same = t["class_id"][tracks] == classes[detections]
            votes = t["votes"][tracks] + np.where(same, 1, -1) * scores[detections]
            t["class_id"][tracks] = np.where(votes < 0, classes[detections], t["class_id"][tracks])
            t["votes"][tracks] = np.abs(votes)

    def _start(self, detections, boxes, scores, classes, features):
        if not len(detections):
            return
        new = _new_tracks(len(detections))
        new["state"], new["covariance"] = self.filter.initiate(to_xyah(boxes[detections]))
        new["last"], new["score"], new["class_id"] = boxes[detections], scores[detections], classes[detections]
        new["votes"], new["hits"] = scores[detections], np.ones(len(detections), int)
        if features is not None:
            for i, feature in enumerate(features[detections]):
                new["gallery"][i] = feature[np.newaxis][: int(feature.any())]
        self.tracks = {name: np.concatenate([column, new[name]]) for name, column in self.tracks.items()}

    def _confirm(self, first):
        t = self.tracks
        confirmed = np.flatnonzero((t["number"] == 0) & ((t["hits"] >= self.confirm_hits) | first))
        t["number"][confirmed] = self.count + 1 + np.arange(len(confirmed))
        self.count += len(confirmed)

    def _shown(self):
        t = self.tracks
        shown = np.flatnonzero((t["number"] > 0) & (t["unseen"] < self.coast + 0.5))  # clocks jitter
        boxes, unseen = to_xyxy(t["state"][shown]), t["unseen"][shown]
        smooth = np.where(unseen > 0, 1, self.smooth)[:, np.newaxis]
        boxes = (smooth * boxes + (1 - smooth) * t["last"][shown]).astype(np.float32)
        columns = [t[name][shown].tolist() for name in ("number", "score", "class_id", "age", "hits", "unseen")]
        return [Track(number, box, *rest) for box, number, *rest in zip(boxes, *columns, strict=True)]


def _new_tracks(count):
    """A column for each thing known of a track."""
    gallery = np.empty(count, object)
    gallery[:] = [np.empty((0, 1), np.float32)] * count
    return {
        "number": np.zeros(count, int),  # 0: not confirmed
        "state": np.empty((count, 8)),
        "covariance": np.empty((count, 4, 3)),
        "last": np.empty((count, 4)),  # xyxy, as detected
        "score": np.empty(count),
        "class_id": np.empty(count, int),
        "votes": np.empty(count),  # for the class
        "age": np.zeros(count),
        "unseen": np.zeros(count),
        "hits": np.zeros(count, int),
        "gallery": gallery,  # of (k, d) features, rows of length 1
    }
