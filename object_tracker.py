"""Detect and track by Deep SORT on a video, a camera or a stream: numbers that stay with their objects, and trails.

python object_tracker.py                                 what TRACKER_SOURCE in yolov3/configs.py names
python object_tracker.py street.mp4                      annotated video in results/
python object_tracker.py street.mp4 --output out.mp4 --json tracks.jsonl --mot tracks.txt
python object_tracker.py 0 --show                        camera 0, in a window; q quits
python object_tracker.py street.mp4 --only person,car    some classes only
python object_tracker.py MOT17-04/img1 --mot tracks.txt  a folder of pictures, in the order of their names

The model is that of detection_demo.py. The TRACKER_ constants in yolov3/configs.py say how it follows, and
TRACKER_EMBEDDER which embedding tells objects apart.
"""

import sys
from dataclasses import fields

from deep_sort import OptionError, Tracker, TrackerOptions
from yolov3 import configs
from yolov3.checks import UserError, check_count, say_it_in_one_line
from yolov3.cli import detect_from_command_line
from yolov3.detect import Job, Summary
from yolov3.detector import Detector
from yolov3.tracking.embedders import load_embedder
from yolov3.tracking.follower import Follower


def Object_tracking(
    Yolo: Detector,
    video_path: str,
    output_path: str = "",
    input_size: int | None = None,
    show: bool = False,
    CLASSES=None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    rectangle_colors="",
    Track_only=None,
) -> Summary:
    """Follow what a detector finds on a video file, camera index or stream, and write the annotated video.

    yolo = Load_Yolo_model(features=True)
    summary = Object_tracking(yolo, "street.mp4", "tracked.mp4", Track_only=["person"])
    print(summary.found.seen())  # seen: 12 x person

    Yolo        a detector from `Load_Yolo_model`, with features=True if TRACKER_EMBEDDER is "detector"
    Track_only  names of the classes to follow; None or empty: all
    score_threshold  0..1; None: TRACKER_LOW_SCORE, since detections of low score still prolong tracks
    The other arguments are those of `detect_video`. Raises UserError.
    """
    threshold = configs.TRACKER_LOW_SCORE if score_threshold is None else score_threshold
    if configs.TRACKER_EMBEDDER == "detector" and not Yolo.spec.features:
        raise UserError('TRACKER_EMBEDDER = "detector" needs a detector with features: Load_Yolo_model(features=True)')
    only = [Track_only] if isinstance(Track_only, str) else Track_only
    job = Job(video_path, output_path, show=show, only=only or None, colour=rectangle_colors, follow=make_follower())
    detector = Yolo.across_classes() if configs.TRACKER_CLASS_AGNOSTIC else Yolo
    return job.run(detector, input_size, CLASSES, threshold, iou_threshold)


def make_follower() -> Follower:
    """Return the tracker, with its embedder, that the TRACKER_ constants describe. Raises UserError."""
    constants = {field.name: f"TRACKER_{field.name.upper()}" for field in fields(TrackerOptions)}
    try:
        options = TrackerOptions(**{name: getattr(configs, constant) for name, constant in constants.items()})
    except OptionError as error:
        raise UserError(f"{constants[error.name]} {error.reason}") from None
    trail = check_count("TRACKER_TRAIL", configs.TRACKER_TRAIL, 0)
    named = configs.TRACKER_EMBEDDER
    embedder = {"none": None, "detector": "detector"}[named] if named in ("none", "detector") else load_embedder(named)
    return Follower(Tracker(options), embedder, trail)


@say_it_in_one_line
def main() -> int:
    return detect_from_command_line(
        __doc__,
        configs.TRACKER_SOURCE,
        features=configs.TRACKER_EMBEDDER == "detector",
        class_agnostic=configs.TRACKER_CLASS_AGNOSTIC or None,  # None: what YOLO_CLASS_AGNOSTIC says
        make_follower=make_follower,
        score_threshold=configs.TRACKER_LOW_SCORE,
    )


if __name__ == "__main__":
    sys.exit(main())
