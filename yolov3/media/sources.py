"""What a person may detect on: a picture, a folder or glob of pictures, a video, a camera or a stream.

`open_source` turns a command-line word into `Pictures` or a `Video`; both yield `Frame`s, uint8 (H, W, 3), RGB.
"""

import glob
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import UserError, project_path, shell_path
from yolov3.images import SIGNATURES, read_picture
from yolov3.media.outputs import PICTURE_SUFFIXES as WRITABLE

import cv2
import numpy as np

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
REFUSED_SUFFIXES = (".webp", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".svg")  # pictures too: told, not passed over
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
BACK_OFF_SECONDS = (0.5, 1, 2, 4, 8, 16, 30)  # before each try to reach a lost camera or stream again
USUAL_FPS = 25.0  # where a camera or stream does not say
LONGEST_GAP = 3600  # seconds between two frames; what a file says beyond that is an error


class Frame(NamedTuple):
    """One picture on its way to the detector."""

    source: str  # the file, camera or stream it came from
    index: int  # its number in that source, from 0
    picture: np.ndarray  # uint8 (H, W, 3), RGB
    seconds: float = None  # when it is of, later than the one before; None: a picture, of no time
    place: int = 0  # among all of its source, from 0, those that could not be read counted


def open_source(word, max_pixels):
    """A path, glob, camera index (int, or digits) or stream URL -> Pictures or Video. Raises UserError.

    Paths are tried as the shell gives them, then relative to the project's root.
    """
    if not isinstance(word, (int, str, os.PathLike)) or word == "":
        raise UserError(f"source {word!r} is none: give a picture, folder, glob, video, camera number or stream")
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise UserError(f"YOLO_MAX_PIXELS = {max_pixels!r} must be a whole number over 0")
    if str(word).startswith(STREAMS):
        return Video(str(word))
    try:
        if str(word).isdecimal() and not Path(str(word)).exists():
            return Video(int(word))
        return _open_path(word, max_pixels)
    except OSError as error:
        raise UserError(f"{word} cannot be read: {error.strerror}") from None


def _open_path(word, max_pixels):
    for path in (shell_path(word), project_path(word)):
        if path.is_fifo() or path.is_socket():
            raise UserError(f"{word} is a pipe: give a picture, folder, glob, video, camera number or stream")
        if path.is_dir():
            return Pictures(sorted(x for x in path.iterdir() if _is_picture_name(x)), path, max_pixels)
        if path.exists():
            return Pictures([path], path.parent, max_pixels) if _is_picture(path) else Video(path)
        if found := sorted(glob.glob(str(path), recursive=True)):
            paths = [Path(x) for x in found if _is_picture_name(x)]
            return Pictures(paths, Path(os.path.commonpath([x.parent for x in paths] or [path])), max_pixels)
    raise UserError(f"{word} is missing: give a picture, folder, glob, video, camera number or stream")


class Pictures:
    """Picture files, one frame each. Of several, the unreadable are reported, left out and counted."""

    live, fps = False, None

    def __init__(self, paths, root, max_pixels):
        if not paths:
            raise UserError(f"{root} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
        self.paths, self.root, self.max_pixels = paths, root, max_pixels
        self.count = len(paths)
        self.output_name = self.output_name_of(Frame(str(paths[0]), 0, None)).name
        self._left_out = []

    def frames(self):
        """Yields each picture that can be read; raises UserError if the only one cannot."""
        for place, path in enumerate(self.paths):
            try:
                picture = read_picture(path.absolute(), self.max_pixels)
            except UserError as error:
                if self.count == 1:
                    raise
                self._left_out.append(path)
                print(f"\n{error}: left out", file=sys.stderr)
            else:
                yield Frame(str(path), 0, picture, place=place)

    def problems(self, ended):
        """What to tell at the end, as a list of str."""
        return [f"{len(self._left_out)} of {self.count} pictures could not be read"] if self._left_out else []

    def output_name_of(self, frame):
        """Where an annotated picture goes, relative to the output folder; a PNG if its own format cannot be written."""
        path = Path(frame.source).relative_to(self.root)
        return path if path.suffix.lower() in WRITABLE else path.with_name(path.name + ".png")


class Video:
    """A video file (Path), camera (int) or stream (str), opened.

    live  a camera, or a stream without an end: its newest frame counts, and it is reached again when lost.
    """

    def __init__(self, name):
        self.name = name
        self.kind = {int: "camera", str: "stream"}.get(type(name), "video")
        self._capture = self._open()
        if self._capture is None:
            remedy = "is it a video?" if self.kind == "video" else "is it connected?"
            raise UserError(f"{self.kind} {name} cannot be opened: {remedy}")
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.live = self.kind != "video" and not count > 0
        self.count = None if self.live else max(int(count), 0)  # frames, by the file's header
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 1000 else USUAL_FPS
        self.frames_read = 0
        self._seconds = 0.0  # of the last frame
        self.paths = [name] if self.kind == "video" else []
        self.output_name = {"video": f"{Path(str(name)).stem}.mp4", "camera": f"camera{name}.mp4"}.get(
            self.kind, "stream.mp4"
        )

    def frames(self):
        """Yields each frame until the file ends, or a live source has not come back after the last try."""
        try:
            while (picture := self._next()) is not None:
                self.frames_read += 1
                rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
                yield Frame(str(self.name), self.frames_read - 1, rgb, self._clock(), self.frames_read - 1)
        finally:
            self._capture.release()
        if not self.frames_read:
            raise UserError(f"{self.kind} {self.name} holds no frames that can be read")

    def problems(self, ended):
        """What to tell at the end, as a list of str; `ended` is False if nobody wanted to see the end."""
        if not ended:
            return []
        if self.live:
            return [f"{self.kind} {self.name} is lost"]
        if self.count - self.frames_read > max(2, self.count // 100):  # some headers are one or two off
            return [f"{self.kind} {self.name} breaks off: {self.frames_read} of {self.count} frames could be read"]
        return []

    def _clock(self):
        """Seconds of the frame read last: by the wall clock of what is live, else by the file, whose rate may vary."""
        now = time.monotonic() if self.live else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self.frames_read > 1 and not self._seconds < now < self._seconds + LONGEST_GAP:  # no or wrong times in it
            now = self._seconds + 1 / self.fps
        self._seconds = now
        return now

    def _open(self):
        capture = cv2.VideoCapture(self.name if self.kind == "camera" else str(self.name))
        return capture if capture.isOpened() else None

    def _next(self):
        """The next picture in BGR, or None at the end."""
        found, picture = self._capture.read()
        waits = iter(BACK_OFF_SECONDS if self.live else ())
        while not found and (seconds := next(waits, None)):
            print(f"\n{self.kind} {self.name} is lost: trying again in {seconds} s", file=sys.stderr)
            self._capture.release()
            time.sleep(seconds)
            self._capture = self._open() or self._capture
            found, picture = self._capture.read()
        return picture if found else None


def _is_picture_name(path):
    return Path(path).suffix.lower() in PICTURE_SUFFIXES + REFUSED_SUFFIXES and not Path(path).name.startswith(".")


def _is_picture(path):
    """By its name, or by its first bytes whatever its name."""
    if _is_picture_name(path):
        return True
    with path.open("rb") as file:
        return file.read(8).startswith(tuple(SIGNATURES.values()))
