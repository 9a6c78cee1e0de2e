"""Detection from a source to its results: `detect_image`, `detect_video` and `detect_realtime`, which users know,
and the `Job` behind them.

A `Job` is one source and its outputs. Making one checks everything that can be checked before a model is loaded.
"""

import contextlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from yolov3 import configs
from yolov3.checks import UserError, choose, class_names, project_path, shell_path, tell
from yolov3.detector import Detections, Detector, check_wanted
from yolov3.files import OneFileRefused, check_output, check_writable, falls_on, told_in_one_line
from yolov3.media.drawing import check_colour, draw_detections, draw_tracks
from yolov3.media.outputs import PICTURE_SUFFIXES, RESULT_FILES, name_pictures, shorten, write_picture
from yolov3.media.sources import Pictures, Video, open_source
from yolov3.media.threads import ReadAhead, Signals, WriteBehind
from yolov3.media.video import CODECS, VideoFile
from yolov3.media.window import open_window
from yolov3.sizes import written_size

import numpy as np
from tqdm import tqdm


def detect_image(
    Yolo: Detector,
    image_path: str | os.PathLike,
    output_path: str | os.PathLike = "",
    input_size: int | tuple[int, int] | None = None,
    show: bool = False,
    CLASSES: str | Collection | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    rectangle_colors: tuple | str = "",
) -> np.ndarray:
    """Detect on one picture and return the annotated picture, uint8 (H, W, 3), RGB.

    Yolo              a detector from `Load_Yolo_model`
    output_path       a picture file to write, "" for none
    input_size        only checked: the detector has its own
    CLASSES           a names file or names to label with, as many as the detector's; None: the detector's
    score_threshold, iou_threshold  0..1; None: the detector's
    rectangle_colors  one (red, green, blue) for all boxes; "": one per class
    Raises UserError.
    """
    job = Job(image_path, output_path, show=show, colour=rectangle_colors)
    picture = job.run(Yolo, input_size, CLASSES, score_threshold, iou_threshold).picture
    assert picture is not None  # what cannot be read has raised UserError
    return picture


def detect_video(
    Yolo: Detector,
    video_path: str | os.PathLike | int,
    output_path: str | os.PathLike = "",
    input_size: int | tuple[int, int] | None = None,
    show: bool = False,
    CLASSES: str | Collection | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    rectangle_colors: tuple | str = "",
) -> "Summary":
    """Detect on a video file, camera index or stream and write the annotated video, until its end, `q` in the window or
    Ctrl-C. Arguments as in `detect_image`; returns a `Summary`. SIGTERM and SIGHUP raise `Terminated`."""
    job = Job(video_path, output_path, show=show, colour=rectangle_colors)
    return job.run(Yolo, input_size, CLASSES, score_threshold, iou_threshold)


def detect_realtime(
    Yolo: Detector,
    output_path: str | os.PathLike = "",
    input_size: int | tuple[int, int] | None = None,
    show: bool = False,
    CLASSES: str | Collection | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    rectangle_colors: tuple | str = "",
    camera: int = 0,
) -> "Summary":
    """Do what `detect_video` does, on a camera."""
    job = Job(camera, output_path, show=show, colour=rectangle_colors)
    return job.run(Yolo, input_size, CLASSES, score_threshold, iou_threshold)


@dataclass
class Summary:
    """What a job did."""

    frames: int = 0  # detected on, drawn and written
    boxes: int = 0
    detection_seconds: float = 0.0  # spent inside the detector
    total_seconds: float = 0.0  # from the first read to the last write, drawing and encoding included
    problems: list = field(default_factory=list)  # of str: pictures left out, a video that breaks off
    picture: np.ndarray | None = None  # the last frame, annotated: uint8 (H, W, 3), RGB
    found: Detections | None = None  # in the last frame; tracks, with their numbers, if it was followed

    def rates(self) -> str:
        """Return the frames per second of detection and in total, in words."""
        detection, total = (self.frames / max(s, 1e-9) for s in (self.detection_seconds, self.total_seconds))
        return f"detection {detection:.1f} FPS, total {total:.1f} FPS"


class Terminated(SystemExit):
    """SIGTERM or SIGHUP has ended a job, whose files are finished. Uncaught, it ends the program with the exit code
    that shells expect, 128 + the signal's number.

    summary  the `Summary` of the job
    """

    def __init__(self, signal_number, summary):
        super().__init__(128 + signal_number)
        self.summary = summary


class Job:
    """One source with its outputs, checked; `run` it on a detector.

    source   picture, folder, glob, video, camera index or stream
    output   file or folder, "" for none
    only     names of the classes wanted, None for all
    colour   one (red, green, blue) for all boxes, "" or None for one per class
    labels   False: boxes without their labels
    follow   a `tracking.Follower`, whose tracks are then drawn and written, or None
    results  by the names of RESULT_FILES the paths to write, "" for none: json="boxes.jsonl"
    Raises UserError.
    """

    def __init__(self, source, output="", show=False, only=None, colour=None, labels=True, follow=None, **results):
        self.source = open_source(source, configs.YOLO_MAX_PIXELS)
        self.picture_names = {}  # source of a frame -> path of its annotated picture, relative to the output folder
        with told_in_one_line(output):
            self.output = self._plan_output(shell_path(output)) if output else None
        self.results = {name: shell_path(path) for name, path in results.items() if path}
        for name, path in self.results.items():
            row = RESULT_FILES[choose("the kind of result", name, RESULT_FILES)]
            if row.of_tracks and not follow:
                raise UserError(f"output {path} is for tracks: object_tracker.py writes it")
            names = (project_path(x) for x in (configs.TRAIN_CLASSES, configs.YOLO_COCO_CLASSES) if isinstance(x, str))
            if row.suffixes:
                check_output(path, row.suffixes, [*self.source.paths, *names])
                continue
            check_writable(path)
            inside = (source for source in self.source.paths if path.resolve() in source.resolve().parents)
            if row.of_pictures and (source := next(inside, None)):
                raise UserError(f"output {path} holds {source.name}, which is to be read: name another folder")
        places = [path.resolve() for path in self.results.values()]  # which need not be there yet
        if twice := next((path for path in places if places.count(path) > 1), None):
            raise UserError(f"output {twice} is named for two kinds of results: name another file for one of them")
        self.only, self.colour, self.labels = only, check_colour(colour) if colour else None, labels
        self.follow, self.draw = follow, draw_tracks if follow else draw_detections
        self.window = open_window() if show else None
        self.quit = False

    @property
    def written(self) -> list[Path]:
        """The files and the folder that it writes."""
        return [*filter(None, [self.output]), *self.results.values()]

    def run(self, detector, input_size=None, CLASSES=None, score_threshold=None, iou_threshold=None) -> Summary:
        """Detect, draw, write and show, side by side. Ctrl-C and `q` end it early and cleanly; SIGTERM and SIGHUP, too,
        and raise `Terminated`. Raises UserError."""
        names = self._check_fits(detector, input_size, CLASSES)
        source, summary, stopped_by = self.source, Summary(), None
        started = time.perf_counter()
        with contextlib.ExitStack() as at_the_end:  # undone from the last to the first
            signals = Signals()
            at_the_end.callback(signals.restore)
            results = at_the_end.enter_context(contextlib.closing(Results(self, summary)))
            writer = at_the_end.enter_context(contextlib.closing(WriteBehind(results.write)))
            reader = at_the_end.enter_context(contextlib.closing(ReadAhead(source.frames(), source.live, self._quit)))
            progress = at_the_end.enter_context(
                tqdm(total=source.count, unit=f" {source.unit}", disable=source.count == 1)
            )
            at_the_end.callback(signals.finish)
            ended = False
            try:
                for frame in reader:
                    before = time.perf_counter()
                    (detections,) = detector([frame.picture], score_threshold, iou_threshold)
                    now = time.perf_counter()
                    summary.detection_seconds += now - before
                    summary.total_seconds = now - started
                    found = replace(detections, names=names).only(self.only)
                    if self.follow:
                        found = self.follow(frame, found)
                    writer.put((frame, found))
                    progress.set_postfix_str(summary.rates(), refresh=False)
                    progress.update()
                    if self._quit():
                        break
                else:
                    ended = not self.quit
            except KeyboardInterrupt as stop:
                stopped_by = stop.args[0] if stop.args else None
                tell("stopped: finishing what was read")
            summary.problems += source.problems(ended)
            results.source_is_whole = ended and not summary.problems
        summary.total_seconds = time.perf_counter() - started
        if refused := results.refused:
            summary.problems.append(f"{refused} of {source.count} pictures could not be written")
        if self.window:
            self.window.poll(0 if source.count == 1 else 1)
            self.window.close()
        if stopped_by:
            raise Terminated(stopped_by, summary)
        return summary

    def _quit(self):
        """Return whether `q` was pressed in the window."""
        self.quit = self.quit or bool(self.window and self.window.poll())
        return self.quit

    def _check_fits(self, detector, input_size, classes):
        """Return the names to label with. Refuses what is not the detector's before it ends in wrong boxes."""
        size = detector.spec.input_size
        if input_size not in (None, size, written_size(size)):
            raise UserError(f"input_size is {input_size}, but the detector was loaded for {written_size(size)}")
        names = detector.names if classes is None else class_names(classes)
        if len(names) != len(detector.names):
            raise UserError(f"CLASSES has {len(names)} names, but the detector knows {len(detector.names)} classes")
        check_wanted(self.only, names)
        return names

    def _plan_output(self, output):
        """Return the path of the file or, for several pictures, of the folder; sure to be writable and not to fall on
        what is read."""
        source = self.source
        if source.count != 1 and isinstance(source, Pictures):
            if output.suffix and not output.is_dir():
                raise UserError(f"output {output} must be a folder: there are {source.count} pictures")
            check_writable(output)
            if output.samefile(source.root):
                raise UserError(f"output {output} is the folder of the pictures themselves: name another")
            self.picture_names = name_pictures(source.paths, source.output_name_of)
            if fallen := falls_on((output / name for name in self.picture_names.values()), source.paths):
                raise UserError(f"output {fallen} is one of the pictures to read: name another folder")
            for folder in {output / name.parent for name in self.picture_names.values()}:
                check_writable(folder)
            return output
        suffixes = PICTURE_SUFFIXES if isinstance(source, Pictures) else tuple(CODECS)
        file = output / shorten(Path(source.output_name)) if output.is_dir() or not output.suffix else output
        check_output(file, suffixes, source.paths)
        return file


class Results:
    """Where the detections of a job go, frame by frame."""

    def __init__(self, job, summary):
        self.job, self.summary = job, summary
        self.refused = 0  # annotated pictures of a folder that could not be written
        self.source_is_whole = False
        is_video = job.output and isinstance(job.source, Video)
        self.video = VideoFile(job.output, job.source.fps, job.source.live) if is_video else None
        self.files = []
        with contextlib.ExitStack() as undone:
            for name, path in job.results.items():
                self.files.append(RESULT_FILES[name].writer(path))
                undone.callback(self.files[-1].close)
            undone.pop_all()

    def write(self, item):
        frame, found = item
        for file in self.files:
            file.write(frame, found)
        picture = self.job.draw(frame.picture, found, self.job.colour, self.job.labels)
        self.summary.picture, self.summary.found = picture, found
        if self.video:
            self.video.write(picture, frame.seconds)
        elif self.job.output:
            self._write_picture(frame, picture)
        if self.job.window:
            self.job.window.put(picture)
        self.summary.frames += 1  # here, where no Ctrl-C can come between the writing and the counting
        self.summary.boxes += len(found)

    def _write_picture(self, frame, picture):
        if self.job.source.count == 1:
            write_picture(self.job.output, picture)
            return
        try:
            write_picture(self.job.output / self.job.picture_names[frame.source], picture)
        except OneFileRefused as error:  # the others can be written
            self.refused += 1
            tell(f"{error}: left out")

    def close(self):
        with contextlib.ExitStack() as files:  # each is closed, whatever the other one says
            for file in self.files:
                files.callback(file.close)
            if self.video:
                files.callback(self.video.close, self.job.source.seconds if self.source_is_whole else None)
