"""Detect and track objects on a video, a camera or a stream by Deep SORT, with numbers and trails.

python object_tracker.py                                 tracks on TRACKER_SOURCE in yolov3/configs.py
python object_tracker.py street.mp4                      writes the annotated video to results/
python object_tracker.py street.mp4 --output out.mp4 --json tracks.jsonl --mot tracks.txt
python object_tracker.py 0 --show                        tracks on camera 0, in a window; q quits
python object_tracker.py street.mp4 --only person,car    tracks these classes only
python object_tracker.py MOT17-04/img1 --mot tracks.txt  tracks on a folder of pictures, in the order of their names

The model is that of detection_demo.py. The TRACKER_ constants in yolov3/configs.py are the parameters of the tracker;
TRACKER_EMBEDDER chooses the embedding that tells objects apart.
"""

import os
import sys
from collections.abc import Collection
from dataclasses import fields

from deep_sort import OptionError, Tracker, TrackerOptions
from yolov3 import configs
from yolov3.checks import UserError, check_count, say_it_in_one_line
from yolov3.cli import detect_from_command_line
from yolov3.detect import Job, Summary
from yolov3.detector import Detector
from yolov3.settings import ScriptParser
from yolov3.tracking.embedders import load_embedder
from yolov3.tracking.follower import Follower


def Object_tracking(
    Yolo: Detector,
    video_path: str | os.PathLike | int,
    output_path: str | os.PathLike = "",
    input_size: int | tuple[int, int] | None = None,
    show: bool = False,
    CLASSES: str | Collection | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    rectangle_colors: tuple | str = "",
    Track_only: str | Collection[str] | None = None,
) -> Summary:
    """Track what a detector finds on a video file, camera index or stream, and write the annotated video.

    yolo = Load_Yolo_model(features=True)
    summary = Object_tracking(yolo, "street.mp4", "tracked.mp4", Track_only=["person"])
    print(summary.found.seen())  # seen: 12 x person

    Yolo        a detector from `Load_Yolo_model`, with features=True if TRACKER_EMBEDDER is "detector"
    Track_only  names of the classes to track; None or empty for all
    score_threshold  0..1; None means TRACKER_LOW_SCORE, since detections with a low score still prolong tracks
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
    """Return a tracker with its embedder as the TRACKER_ constants describe them. Raises UserError."""
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
    parser = ScriptParser(__doc__)
    return detect_from_command_line(
        parser,
        configs.TRACKER_SOURCE,
        features=configs.TRACKER_EMBEDDER == "detector",
        class_agnostic=configs.TRACKER_CLASS_AGNOSTIC or None,  # None means YOLO_CLASS_AGNOSTIC
        make_follower=make_follower,
        score_threshold=configs.TRACKER_LOW_SCORE,
    )


if __name__ == "__main__":
    sys.exit(main())
