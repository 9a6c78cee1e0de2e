"""Follow objects by Deep SORT: predict tracks, match them to detections, confirm them, lose and find them again.

It follows the papers SORT (Bewley 2016), Deep SORT (Wojke 2017), ByteTrack (Zhang 2022: a second pass for low scores)
and OC-SORT (Cao 2023: a lost track is also looked for where it was last seen).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .inputs import check_boxes, check_column, check_embeddings
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
from .options import TrackerOptions, check_number


class Track(NamedTuple):
    """Describe a track as `Tracker.update` returns it. Times are in frames of 1 / frame_rate seconds."""

    number: int  # identity, from 1, which is never used twice
    box: np.ndarray  # float32 (4,): xyxy in pixels, not clipped to the frame
    score: float  # of its latest detection
    class_id: int
    age: float  # frames since it was first seen
    hits: int  # detections that were matched to it
    unseen: float  # frames since its latest detection: 0 if it is seen in this one


class Tracker:
    """Follow objects from frame to frame by their detections.

    tracker = Tracker(frame_rate=25, class_agnostic=True)
    tracks = tracker.update(boxes, scores, classes)  # [Track(number=1, box=...), ...]
    """

    def __init__(self, options: TrackerOptions | None = None, **changes: Any):
        """Use these options, or the defaults, with changes by name. Raises ValueError if one is wrong."""
        self.options = replace(options or TrackerOptions(), **changes)
        noise = self.options.measurement_noise, self.options.position_noise, self.options.velocity_noise
        self.filter = KalmanFilter(*noise)
        self.time, self.count, self.embedding_length = None, 0, None
        self.tracks = _new_tracks(0)

    def update(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        classes: np.ndarray,
        embeddings: np.ndarray | Callable | None = None,
        frame: np.ndarray | None = None,
        time: float | None = None,
    ) -> list[Track]:
        """Return the tracks to show after one more frame. Raises ValueError if its detections are wrong, and then
        changes nothing.

        boxes       (n, 4), xyxy in pixels
        scores      (n,)
        classes     (n,), whole numbers
        embeddings  (n, d), or a function of a frame and boxes, float32 (k, 4), that returns (k, d) and is called with
                    the boxes that need one; None: match by motion only
        frame       passed to that function
        time        in seconds, later than that of the last call; None: 1 / frame_rate later
        """
        boxes, scores, classes, embedded = self._check(boxes, scores, classes, embeddings, frame)
        first = self.time is None
        frames = self._step(time)  # the last check, so that refused detections change nothing
        self._predict(frames)
        if embedded is not None:
            self.embedding_length = embedded.shape[1] or self.embedding_length
        tracks, matched, left = self._match(boxes, scores, classes, embedded, frames)
        self._see(tracks, matched, boxes, scores, classes, embedded)
        self._start(left, boxes, scores, classes, embedded)
        self._confirm(first)
        return self._shown()

    def numbers(self) -> list[int]:
        """Return the identities that may still be seen: those of tracks that are shown, and of tracks lost for now."""
        return [number for number in self.tracks["number"].tolist() if number]

    def _check(self, boxes, scores, classes, embeddings, frame):
        boxes = check_boxes(boxes)
        scores, classes = (check_column(n, x, len(boxes)) for n, x in (("scores", scores), ("classes", classes)))
        if embeddings is not None and not callable(embeddings):
            embeddings = check_embeddings(embeddings, len(boxes), self.embedding_length)
        has_area = (boxes[:, 2:] - boxes[:, :2] > 0.01).all(1)  # a box clipped at the edge of the frame may have none
        kept = (scores >= self.options.low_score) & has_area
        if (classes % 1 != 0).any():
            raise ValueError(f"classes {classes.tolist()} must be whole numbers")
        if self.options.class_agnostic:
            kept = without_duplicates(boxes, scores, np.flatnonzero(kept))
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept].astype(int)
        if embeddings is None:
            return boxes, scores, classes, None
        if callable(embeddings):
            high = np.flatnonzero(scores >= self.options.high_score)
            asked = embeddings(frame, boxes[high].astype(np.float32)) if len(high) else np.empty((0, 0))
            asked = check_embeddings(asked, len(high), self.embedding_length)
            embeddings = np.zeros((len(boxes), asked.shape[1]))
            embeddings[high] = asked
        else:
            embeddings = embeddings[kept]
        return boxes, scores, classes, normalise(embeddings)

    def _step(self, time):
        """Return the frames since the last update."""
        if time is None:
            time = 0.0 if self.time is None else self.time + 1 / self.options.frame_rate
        check_number("time", time, -1e12, 1e12)
        if self.time is not None and time <= self.time:
            raise ValueError(f"time = {time} is not later than the frame before it, at {self.time}")
        frames = 1.0 if self.time is None else round((time - self.time) * self.options.frame_rate, 6)
        self.time = time
        return frames

    def _predict(self, frames):
        t = self.tracks
        patience = np.where(t["number"] > 0, self.options.max_unseen, self.options.confirm_misses * max(frames, 1.0))
        t["unseen"] += frames
        t["age"] += frames
        longest = max(self.options.max_unseen, frames)  # tracks seen in the last frame stay, however long ago it was
        t = self._keep((t["unseen"] - frames <= patience) & (t["unseen"] <= longest))
        t["state"], t["covariance"] = self.filter.predict(t["state"], t["covariance"], frames)

    def _keep(self, kept):
        if not kept.all():
            self.tracks = {name: column[kept] for name, column in self.tracks.items()}
        return self.tracks

    def _match(self, boxes, scores, classes, embeddings, frames):
        """Return indices of the matched tracks, of their detections, and of the detections of high score left over."""
        t = self.tracks
        expected, lately = to_xyxy(t["state"]), t["unseen"] <= frames
        high, low = np.flatnonzero(scores >= self.options.high_score), np.flatnonzero(scores < self.options.high_score)
        known, tentative = np.flatnonzero(t["number"] > 0), np.flatnonzero(t["number"] == 0)
        pairs = [(known[:0], high[:0])]

        distances = np.ones((len(expected), len(boxes)), np.float32)  # cosine; 1 for low scores, which show too little
        if embeddings is not None and len(high):
            distances[:, high] = cosine_distances(t["gallery"], embeddings[high])

        def match(tracks, detections, cost_of, limit, levels=None):
            """Add the best pairs of these tracks and detections to `pairs`, and return those of both that are left."""
            if not len(tracks) or not len(detections):
                return tracks, detections
            cost = cost_of(tracks, detections)
            if not self.options.class_agnostic:
                cost = np.where(t["class_id"][tracks, np.newaxis] == classes[detections], cost, NEVER)
            if embeddings is not None and cost_of is not distance_in_gate:
                cost = np.where(too_different(tracks, detections), NEVER, cost)
            rows, columns = assign(cost, limit) if levels is None else cascade(cost, limit, levels[tracks])
            pairs.append((tracks[rows], detections[columns]))
            return others(tracks, rows), others(detections, columns)

        def distance_in_gate(tracks, detections):
            far = self.filter.distance(t["state"][tracks], t["covariance"][tracks], to_xyah(boxes[detections])) > GATE
            return np.where(far, NEVER, distances[np.ix_(tracks, detections)])

        def too_different(tracks, detections):
            """Return whether embeddings are too far apart to be of one object; those of length 0 never are."""
            known = embeddings[detections].any(1) & (scores[detections] >= self.options.high_score)
            known = known & np.array([len(x) > 0 for x in t["gallery"][tracks]])[:, np.newaxis]
            return known & (distances[np.ix_(tracks, detections)] > self.options.strange_distance)

        def gap(tracks, detections):
            return 1 - height_iou_matrix(expected[tracks], boxes[detections])

        def gap_and_distance(tracks, detections):
            cost = gap(tracks, detections)
            return np.where(cost > 1 - self.options.min_iou, NEVER, cost + distances[np.ix_(tracks, detections)])

        # 1. By embedding: recently seen tracks that overlap the detection too; then all tracks whose motion allows it,
        #    those seen last first
        stale = t["unseen"] > self.options.fresh + frames - 1
        if embeddings is not None:
            rest, high = match(known[~stale[known]], high, gap_and_distance, NEVER / 2)
            known = np.concatenate([rest, known[stale[known]]])
            known, high = match(known, high, distance_in_gate, self.options.max_distance, t["unseen"])

        # 2. By overlap with the prediction, the tracks that were seen recently first
        known, high = match(known, high, gap, 1 - self.options.min_iou, stale)

        # 3. Detections of low score prolong tracks that were seen in the frame before
        there, hidden = known[lately[known]], known[~lately[known]]
        there, _ = match(there, low, lambda i, j: 1 - iou_matrix(expected[i], boxes[j]), 1 - self.options.low_iou)
        known = np.concatenate([there, hidden])

        # 4. By overlap with where the track was last seen: it stood still, or the prediction went wrong
        _, high = match(known, high, lambda i, j: 1 - iou_matrix(t["last"][i], boxes[j]), 1 - self.options.found_iou)

        # 5. What is left may belong to tracks that are not confirmed yet
        _, high = match(tentative, high, gap, 1 - self.options.min_iou)
        tracks, detections = (np.concatenate(x) for x in zip(*pairs, strict=True))
        return tracks, detections, high

    def _see(self, tracks, detections, boxes, scores, classes, embeddings):
        """Update matched tracks with their detections."""
        t = self.tracks
        t["state"][tracks], t["covariance"][tracks] = self.filter.update(
            t["state"][tracks], t["covariance"][tracks], to_xyah(boxes[detections])
        )
        t["last"][tracks], t["score"][tracks] = boxes[detections], scores[detections]
        t["unseen"][tracks] = 0
        t["hits"][tracks] += 1
        if embeddings is not None:
            for i, embedding, score in zip(tracks, embeddings[detections], scores[detections], strict=True):
                if embedding.any() and score >= self.options.high_score:  # low scores are often of hidden objects
                    t["gallery"][i] = np.stack([*t["gallery"][i], embedding])[-int(self.options.budget) :]
        if self.options.class_agnostic:  # majority vote, weighted by score (Boyer and Moore)
            same = t["class_id"][tracks] == classes[detections]
            votes = t["votes"][tracks] + np.where(same, 1, -1) * scores[detections]
            t["class_id"][tracks] = np.where(votes < 0, classes[detections], t["class_id"][tracks])
            t["votes"][tracks] = np.abs(votes)

    def _start(self, detections, boxes, scores, classes, embeddings):
        if not len(detections):
            return
        new = _new_tracks(len(detections))
        new["state"], new["covariance"] = self.filter.initiate(to_xyah(boxes[detections]))
        new["last"], new["score"], new["class_id"] = boxes[detections], scores[detections], classes[detections]
        new["votes"], new["hits"] = scores[detections], np.ones(len(detections), int)
        if embeddings is not None:
            for i, embedding in enumerate(embeddings[detections]):
                new["gallery"][i] = embedding[np.newaxis][: int(embedding.any())]
        self.tracks = {name: np.concatenate([column, new[name]]) for name, column in self.tracks.items()}

    def _confirm(self, first):
        t = self.tracks
        confirmed = np.flatnonzero((t["number"] == 0) & ((t["hits"] >= self.options.confirm_hits) | first))
        t["number"][confirmed] = self.count + 1 + np.arange(len(confirmed))
        self.count += len(confirmed)

    def _shown(self):
        t = self.tracks
        # Half a frame is added to `coast`, since the times of frames vary
        shown = np.flatnonzero((t["number"] > 0) & (t["unseen"] < self.options.coast + 0.5))
        boxes, unseen = to_xyxy(t["state"][shown]), t["unseen"][shown]
        smooth = np.where(unseen > 0, 1, self.options.smooth)[:, np.newaxis]
        boxes = (smooth * boxes + (1 - smooth) * t["last"][shown]).astype(np.float32)
        columns = [t[name][shown].tolist() for name in ("number", "score", "class_id", "age", "hits", "unseen")]
        return [Track(number, box, *rest) for box, number, *rest in zip(boxes, *columns, strict=True)]


def _new_tracks(count):
    """Return the columns of new tracks by name."""
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
        "gallery": gallery,  # of (k, d) embeddings, rows of length 1
    }
