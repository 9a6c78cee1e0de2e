"""Detection from a source to its results: `detect_image`, `detect_video` and `detect_realtime`, which users know,
and the `Job` behind them.

A `Job` is one source and its outputs. Making one checks everything that can be checked before a model is loaded.
"""

import contextlib
import sys
import time
from dataclasses import dataclass, field, replace

from yolov3 import configs
from yolov3.checks import UserError, class_names, shell_path
from yolov3.detector import Detections
from yolov3.files import check_output, check_writable
from yolov3.media.drawing import check_colour, draw_detections, draw_tracks
from yolov3.media.outputs import CODECS, PICTURE_SUFFIXES, JsonLines, MotLines, VideoFile, open_window, write_picture
from yolov3.media.sources import Pictures, Video, open_source
from yolov3.media.threads import ReadAhead, Undisturbed, WriteBehind

import numpy as np
from tqdm import tqdm


def detect_image(
    Yolo,
    image_path,
    output_path="",
    input_size=None,
    show=False,
    CLASSES=None,
    score_threshold=None,
    iou_threshold=None,
    rectangle_colors="",
):
    """Detects on one picture -> the annotated picture, uint8 (H, W, 3), RGB.

    Yolo              a detector from `Load_Yolo_model`
    output_path       a picture file to write, "" for none
    input_size        only checked: the detector has its own
    CLASSES           a names file or names to label with, as many as the detector's; None: the detector's
    score_threshold, iou_threshold  0..1; None: the detector's
    rectangle_colors  one (red, green, blue) for all boxes; "": one per class
    Raises UserError.
    """
    job = Job(image_path, output_path, show=show, colour=rectangle_colors)
    return job.run(Yolo, input_size, CLASSES, score_threshold, iou_threshold).picture


def detect_video(
    Yolo,
    video_path,
    output_path="",
    input_size=None,
    show=False,
    CLASSES=None,
    score_threshold=None,
    iou_threshold=None,
    rectangle_colors="",
):
    """Detects on a video file, camera index or stream and writes the annotated video, until its end, `q` in the
    window or Ctrl-C. Arguments as in `detect_image`; returns a `Summary`."""
    job = Job(video_path, output_path, show=show, colour=rectangle_colors)
    return job.run(Yolo, input_size, CLASSES, score_threshold, iou_threshold)


def detect_realtime(
    Yolo,
    output_path="",
    input_size=None,
    show=False,
    CLASSES=None,
    score_threshold=None,
    iou_threshold=None,
    rectangle_colors="",
    camera=0,
):
    """`detect_video` on a camera."""
    job = Job(camera, output_path, show=show, colour=rectangle_colors)
    return job.run(Yolo, input_size, CLASSES, score_threshold, iou_threshold)


@dataclass
class Summary:
    """What a job did."""

    frames: int = 0
    boxes: int = 0
    detection_seconds: float = 0.0  # spent inside the detector
    total_seconds: float = 0.0  # from the first read to the last write, drawing and encoding included
    problems: list = field(default_factory=list)  # of str: pictures left out, a video that breaks off
    picture: np.ndarray = None  # the last frame, annotated: uint8 (H, W, 3), RGB
    found: Detections = None  # in the last frame; its tracks if it was followed

    def rates(self):
        detection, total = (self.frames / max(s, 1e-9) for s in (self.detection_seconds, self.total_seconds))
        return f"detection {detection:.1f} FPS, total {total:.1f} FPS"


class Job:
    """One source with its outputs, checked; `run` it on a detector.

    source  picture, folder, glob, video, camera index or stream; output  file or folder, "" for none;
    json_path  file for one JSON line per frame; only  names of the classes wanted, None for all;
    colour  one (red, green, blue) for all boxes, "" or None for one per class.
    follow  a `tracking.Follower`, whose tracks are then drawn and written, or None;
    mot_path  file for them in MOTChallenge's format, "" for none.
    """

    def __init__(self, source, output="", json_path="", show=False, only=None, colour=None, follow=None, mot_path=""):
        self.source = open_source(source, configs.YOLO_MAX_PIXELS)
        self.output = self._plan_output(shell_path(output)) if output else None
        self.json_path = shell_path(json_path) if json_path else None
        if self.json_path:
            check_output(self.json_path, (".json", ".jsonl"))
        self.mot_path = shell_path(mot_path) if mot_path else None
        if self.mot_path:
            check_output(self.mot_path, (".txt",))
        self.only, self.colour = only, check_colour(colour) if colour else None
        self.follow, self.draw = follow, draw_tracks if follow else draw_detections
        self.window = open_window() if show else None
        self.quit = False

    def run(self, detector, input_size=None, CLASSES=None, score_threshold=None, iou_threshold=None):
        """Detects, draws, writes and shows, side by side -> Summary. Ctrl-C and `q` end it early and cleanly."""
        names = self._check_fits(detector, input_size, CLASSES)
        source, summary = self.source, Summary()
        started = time.perf_counter()
        with contextlib.ExitStack() as at_the_end:  # undone from the last to the first
            undisturbed = Undisturbed()
            at_the_end.callback(undisturbed.end)
            results = at_the_end.enter_context(contextlib.closing(Results(self, summary)))
            writer = at_the_end.enter_context(contextlib.closing(WriteBehind(results.write)))
            reader = at_the_end.enter_context(contextlib.closing(ReadAhead(source.frames(), source.live, self._quit)))
            progress = at_the_end.enter_context(tqdm(total=source.count, unit=" frames", disable=source.count == 1))
            at_the_end.callback(undisturbed.begin)
            ended = False
            try:
                for frame in reader:
                    before = time.perf_counter()
                    (detections,) = detector([frame.picture], score_threshold, iou_threshold)
                    now = time.perf_counter()
                    found = replace(detections, names=names).only(self.only)
                    if self.follow:
                        found = self.follow(frame, found)
                    writer.put((frame, found))
                    summary.frames += 1
                    summary.boxes += len(found)
                    summary.detection_seconds += now - before
                    summary.total_seconds = now - started
                    progress.set_postfix_str(summary.rates(), refresh=False)
                    progress.update()
                    if self._quit():
                        break
                else:
                    ended = not self.quit
            except KeyboardInterrupt:
                print("\nstopped: finishing what was read", file=sys.stderr)
        summary.total_seconds = time.perf_counter() - started
        summary.problems = source.problems(ended)
        if self.window:
            self.window.poll(0 if source.count == 1 else 1)
            self.window.close()
        return summary

    def _quit(self):
        """True once `q` was pressed in the window."""
        self.quit = self.quit or bool(self.window and self.window.poll())
        return self.quit

    def _check_fits(self, detector, input_size, classes):
        """The names to label with; refuses what is not the detector's before it ends in wrong boxes."""
        if input_size not in (None, detector.spec.input_size):
            raise UserError(f"input_size is {input_size}, but the detector was loaded for {detector.spec.input_size}")
        names = detector.names if classes is None else class_names(classes)
        if len(names) != len(detector.names):
            raise UserError(f"CLASSES has {len(names)} names, but the detector knows {len(detector.names)} classes")
        if unknown := [name for name in self.only or () if name not in names]:
            raise UserError(f"class {unknown[0]} is not known; the classes are {', '.join(names)}")
        return names

    def _plan_output(self, output):
        """Path of the file or, for several pictures, of the folder; sure to be writable."""
        source = self.source
        if source.count != 1 and isinstance(source, Pictures):
            if output.suffix and not output.is_dir():
                raise UserError(f"output {output} must be a folder: there are {source.count} pictures")
            check_writable(output)
            if output.samefile(source.root):
                raise UserError(f"output {output} is the folder of the pictures themselves: name another")
            return output
        suffixes = PICTURE_SUFFIXES if isinstance(source, Pictures) else tuple(CODECS)
        file = output / source.output_name if output.is_dir() or not output.suffix else output
        check_output(file, suffixes, [path for path in source.paths if path.exists()])
        return file


class Results:
    """Where the detections of a job go, frame by frame."""

    def __init__(self, job, summary):
        self.job, self.summary = job, summary
        kinds = {JsonLines: job.json_path, MotLines: job.mot_path}
        self.lines = [kind(path) for kind, path in kinds.items() if path]
        is_video = job.output and isinstance(job.source, Video)
        self.video = VideoFile(job.output, job.source.fps, job.source.live) if is_video else None

    def write(self, item):
        frame, found = item
        for lines in self.lines:
            lines.write(frame, found)
        picture = self.job.draw(frame.picture, found, self.job.colour)
        self.summary.picture, self.summary.found = picture, found
        if self.video:
            self.video.write(picture)
        elif self.job.output:
            write_picture(self._picture_path(frame), picture)
        if self.job.window:
            self.job.window.put(picture)

    def _picture_path(self, frame):
        source, output = self.job.source, self.job.output
        return output if source.count == 1 else output / source.output_name_of(frame)

    def close(self):
        with contextlib.ExitStack() as files:  # each is closed, whatever the other one says
            for file in filter(None, (self.video, *self.lines)):
                files.callback(file.close)
