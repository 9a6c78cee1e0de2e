"""Wrap the trackers to compare, so that all are called alike.

A contender makes, for a frame rate, an `Update`. Each runs with its own defaults. One that is not installed raises
NotInstalled, and its row says so.
"""

import importlib
import warnings
from collections.abc import Callable

from deep_sort import Tracker

import numpy as np

Update = Callable[[np.ndarray, np.ndarray, float], list]  # boxes xyxy, scores and seconds to [(number, box xyxy)]


class NotInstalled(Exception):
    """Say which package a contender lacks."""


def _import(module, package):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deep-sort-realtime imports pkg_resources
            return importlib.import_module(module)
    except ImportError:
        raise NotInstalled(f"not installed: {package}") from None


def ours(frame_rate: float) -> Update:
    """Return our tracker, by motion only."""
    tracker = Tracker(frame_rate=frame_rate)

    def update(boxes, scores, seconds):
        tracks = tracker.update(boxes, scores, np.zeros(len(boxes), int), time=seconds)
        return [(track.number, track.box) for track in tracks]

    return update


def ours_with_embeddings(frame_rate: float) -> Update:
    """Return our tracker with embeddings, to be timed only: they are the same for box i in every frame."""
    tracker, embeddings = Tracker(frame_rate=frame_rate), np.random.default_rng(0).normal(size=(1000, 256))

    def update(boxes, scores, seconds):
        tracks = tracker.update(boxes, scores, np.zeros(len(boxes), int), embeddings[: len(boxes)], time=seconds)
        return [(track.number, track.box) for track in tracks]

    return update


def roboflow(name: str) -> Callable[[float], Update]:
    """Return the maker of a tracker of roboflow's package `trackers`."""

    def make(frame_rate):
        tracker = getattr(_import("trackers", "trackers"), f"{name}Tracker")(frame_rate=frame_rate)
        supervision = _import("supervision", "supervision")

        def update(boxes, scores, seconds):
            given = supervision.Detections(boxes.astype(np.float32), confidence=scores)
            given.class_id = np.zeros(len(boxes), int)
            found = tracker.update(given, timestamp=seconds)
            return [(n, b) for n, b in zip(found.tracker_id, found.xyxy, strict=True) if n >= 0]

        return update

    return make


def deep_sort_realtime(frame_rate: float) -> Update:
    """Return deep-sort-realtime with one embedding for all boxes, so that only its association is timed."""
    module = _import("deep_sort_realtime.deepsort_tracker", "deep-sort-realtime")
    tracker = module.DeepSort(max_age=60, embedder=None)
    blank = np.ones(128, np.float32)

    def update(boxes, scores, seconds):
        given = [((*b[:2], *(b[2:] - b[:2])), s, 0) for b, s in zip(boxes, scores, strict=True)]
        tracks = tracker.update_tracks(given, embeds=[blank] * len(given))
        shown = (t for t in tracks if t.is_confirmed() and t.time_since_update == 0)
        return [(int(t.track_id), t.to_ltrb()) for t in shown]

    return update


CONTENDERS = {
    "ours": ours,
    "SORT": roboflow("SORT"),
    "ByteTrack": roboflow("ByteTrack"),
    "OC-SORT": roboflow("OCSORT"),
    "DeepSORT-rt": deep_sort_realtime,
}
TIMED = {"ours": ours, "ours, embeddings": ours_with_embeddings, **CONTENDERS}
