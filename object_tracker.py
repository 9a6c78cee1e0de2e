"""Detect and follow: Deep SORT on a video, a camera or a stream; numbers that stay with their objects, and trails.

python object_tracker.py                                 what TRACKER_SOURCE in yolov3/configs.py names
python object_tracker.py street.mp4                      annotated video in results/
python object_tracker.py street.mp4 --output out.mp4 --json tracks.jsonl --mot tracks.txt
python object_tracker.py 0 --show                        camera 0, in a window; q quits
python object_tracker.py street.mp4 --only person,car    some classes only
python object_tracker.py MOT17-04/img1 --mot tracks.txt  a folder of pictures, in the order of their names

The model is that of detection_demo.py. TRACKER_... in yolov3/configs.py say how it follows; TRACKER_EMBEDDER, whether
and how objects are told by their looks.
"""

import inspect
import sys

from deep_sort import Tracker
from yolov3 import configs
from yolov3.checks import UserError, check_count, say_it_in_one_line
from yolov3.cli import detect_from_command_line
from yolov3.detect import Job
from yolov3.detector import Detector
from yolov3.tracking.embedders import load_embedder
from yolov3.tracking.follower import Follower
from yolov3.utils import Load_Yolo_model


def Object_tracking(
    Yolo,
    video_path,
    output_path="",
    input_size=None,
    show=False,
    CLASSES=None,
    score_threshold=None,
    iou_threshold=None,
    rectangle_colors="",
    Track_only=None,
):
    """Follows what a detector finds on a video file, camera index or stream, and writes the annotated video.

    Yolo        a detector from `Load_Yolo_model`, with features=True if TRACKER_EMBEDDER is "detector"
    Track_only  names of the classes to follow; None or empty: all
    score_threshold  0..1; None: TRACKER_LOW_SCORE, since doubtful detections still prolong tracks
    The other arguments as in `detect_video`; returns a `Summary`. Raises UserError.
    """
    threshold = configs.TRACKER_LOW_SCORE if score_threshold is None else score_threshold
    if configs.TRACKER_EMBEDDER == "detector" and not Yolo.spec.features:
        raise UserError('TRACKER_EMBEDDER = "detector" needs a detector with features: Load_Yolo_model(features=True)')
    if configs.TRACKER_CLASS_AGNOSTIC and not Yolo.class_agnostic:
        Yolo = Detector(Yolo.network, Yolo.spec, Yolo.score_threshold, Yolo.iou_threshold, class_agnostic=True)
    only = [Track_only] if isinstance(Track_only, str) else Track_only
    job = Job(video_path, output_path, show=show, only=only or None, colour=rectangle_colors, follow=make_follower())
    return job.run(Yolo, input_size, CLASSES, threshold, iou_threshold)


def make_follower():
    """The tracker and embedder that TRACKER_... in configs.py say."""
    options = {name: getattr(configs, f"TRACKER_{name.upper()}") for name in inspect.signature(Tracker).parameters}
    try:
        tracker = Tracker(**options)
    except ValueError as error:
        name, reason = str(error).split(" ", 1)
        raise UserError(f"TRACKER_{name.upper()} {reason}") from None
    trail = check_count("TRACKER_TRAIL", configs.TRACKER_TRAIL, 0)
    named = configs.TRACKER_EMBEDDER
    if named in ("detector", "none"):
        return Follower(tracker, None if named == "none" else named, trail)
    return Follower(tracker, load_embedder(named), trail)


def load():
    across_classes = configs.TRACKER_CLASS_AGNOSTIC or None  # None: what YOLO_CLASS_AGNOSTIC says
    return Load_Yolo_model(features=configs.TRACKER_EMBEDDER == "detector", class_agnostic=across_classes)


@say_it_in_one_line
def main():
    return detect_from_command_line(__doc__, load, configs.TRACKER_SOURCE, make_follower, configs.TRACKER_LOW_SCORE)


if __name__ == "__main__":
    sys.exit(main())
