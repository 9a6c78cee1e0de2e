"""Define the options of the tracker, their limits, and the error that names the option that is wrong."""

import math
import numbers
from dataclasses import dataclass, fields
from typing import Any

LIMITS: dict[str, tuple[float, float]] = {  # least and largest value; 0 and 1e9 for options that are not listed
    "frame_rate": (1e-3, 1e6),
    "high_score": (0, 1),
    "low_score": (0, 1),
    "confirm_hits": (1, 1e9),
    "min_iou": (0.001, 1),
    "low_iou": (0.001, 1),
    "found_iou": (0.001, 1),
    "smooth": (0, 1),
    "max_distance": (0, 2),
    "strange_distance": (0, 2),
    "budget": (1, 1e9),
    "measurement_noise": (1e-6, 1e3),
}


class OptionError(ValueError):
    """Say which option or argument is wrong, `name`, and why, `reason`: "= 2 must be a number, from 0 to 1"."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name} {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class TrackerOptions:
    """Hold the options of a Tracker. Raises OptionError, a ValueError, if one is wrong.

    Times are in frames of 1 / frame_rate seconds, whatever the rate at which frames come. Standard deviations are in
    box heights.
    """

    frame_rate: float = 30.0  # frames a second: the unit of times, and the rate if update() is called without a time
    high_score: float = 0.4  # 0..1: detections of at least this score are matched first and start tracks
    low_score: float = 0.1  # 0..1: detections between the two scores prolong tracks; lower ones are ignored
    confirm_hits: int = 3  # detections until a track is shown; tracks of the very first frame are shown at once
    confirm_misses: float = 1  # frames that a track may be unseen before it is confirmed
    max_unseen: float = 60  # frames: a track that is unseen for longer ends
    coast: float = 1  # frames: a track that is unseen for no longer is still shown, at its predicted place
    fresh: float = 5  # frames: tracks that were seen this recently are matched before the others
    min_iou: float = 0.2  # 0..1: least overlap of prediction and detection (IoU times the IoU of the heights alone)
    low_iou: float = 0.4  # 0..1: least IoU of prediction and detection for detections of low score
    found_iou: float = 0.4  # 0..1: least IoU with the place where a lost track was last seen
    smooth: float = 0.5  # 0..1: the Kalman filter's share of a box that is shown; the rest is as detected
    max_distance: float = 0.12  # 0..2: largest cosine distance of the embeddings of one object
    strange_distance: float = 0.25  # 0..2: embeddings further apart are of two objects, whatever their overlap
    budget: int = 50  # embeddings that a track remembers
    measurement_noise: float = 0.1  # standard deviation of a detection's centre and height
    position_noise: float = 0.02  # what one frame adds to the standard deviation of the place
    velocity_noise: float = 1 / 200  # what one frame adds to the standard deviation of the velocity
    class_agnostic: bool = False  # True: a track may change its class (car, truck); False: never

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is not bool:
                check_number(field.name, value, *LIMITS.get(field.name, (0, 1e9)))
            elif value not in (True, False):
                raise OptionError(field.name, f"= {value!r} must be True or False")
        if self.low_score > self.high_score:
            raise OptionError("low_score", f"= {self.low_score} must not be more than high_score = {self.high_score}")


def check_number(name: str, value: Any, at_least: float = 0, at_most: float = math.inf) -> None:
    """Raise OptionError if a value is not a finite number in a range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not at_least <= float(value) <= at_most:
        span = f"{at_least} or more" if at_most == math.inf else f"from {at_least} to {at_most}"
        raise OptionError(name, f"= {value!r} must be a number, {span}")
    if not math.isfinite(value):
        raise OptionError(name, f"= {value!r} must be finite")
