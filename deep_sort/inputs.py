"""What a caller may hand to the tracker, and what to say when it does not fit: ValueErrors of one line."""

import numbers

import numpy as np

LIMITS = {  # of the tracker's options, least and most; where none are named, 0 and 1e9
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


def check_options(options):
    """The arguments of Tracker: {name: value}."""
    for name, value in options.items():
        if name == "class_agnostic":
            if value not in (True, False):
                raise ValueError(f"{name} = {value!r} must be True or False")
        else:
            check_number(name, value, *LIMITS.get(name, (0, 1e9)))
    low, high = options["low_score"], options["high_score"]
    if low > high:
        raise ValueError(f"low_score = {low} must not be more than high_score = {high}")


def check_number(name, value, at_least=0, at_most=np.inf):
    """A finite number in a range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not at_least <= value <= at_most:
        span = f"{at_least} or more" if at_most == np.inf else f"from {at_least} to {at_most}"
        raise ValueError(f"{name} = {value!r} must be a number, {span}")
    if not np.isfinite(value):
        raise ValueError(f"{name} = {value!r} must be finite")


def check_boxes(boxes):
    """xyxy in pixels -> float64 (n, 4). Nothing at all is no boxes; empty boxes are the caller's to drop."""
    boxes = _numbers("boxes", boxes)
    if boxes.size == 0:
        return np.empty((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are of shape {boxes.shape}: they must be (n, 4), x1, y1, x2, y2 in pixels")
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(boxes) < 1e7).all(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"box {i} is {boxes[i].tolist()}: x1 <= x2 and y1 <= y2 must be finite numbers of pixels")
    return boxes


def check_column(name, values, count):
    """One finite number for each box -> (n,)."""
    values = _numbers(name, values)
    if values.shape != (count,) and not (values.size == 0 and count == 0):
        raise ValueError(f"{name} are of shape {values.shape}, but there are {count} boxes: one number for each")
    values = values.reshape(count)
    if not np.isfinite(values).all():
        i = int((~np.isfinite(values)).argmax())
        raise ValueError(f"{name}: number {i} is {values[i]}, which is not finite")
    return values


def check_features(features, count, length):
    """Appearances -> float64 (n, d). `length` is the d of earlier frames, None before the first."""
    features = _numbers("features", features)
    if features.size == 0 and count == 0:
        return np.empty((0, length or 0))
    if features.ndim != 2 or len(features) != count:
        raise ValueError(f"features are of shape {features.shape}, but there are {count} boxes: one row for each")
    if features.shape[1] == 0 or length not in (None, features.shape[1]):
        earlier = "at least 1" if length is None else f"{length} as in earlier frames"
        raise ValueError(f"features have {features.shape[1]} numbers a box: it must be {earlier}")
    if not np.isfinite(features).all():
        i = int((~np.isfinite(features)).any(1).argmax())
        raise ValueError(f"features of box {i} are not finite")
    return features


def _numbers(name, values):
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} are no array of numbers") from None
