"""What a user may detect on: a picture, a folder or glob of pictures, a video, a camera or a stream.

`open_source` turns a word of the command line into `Pictures` or a `Video`; both yield `Frame`s, uint8 (H, W, 3), RGB.
"""

import contextlib
import glob
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from yolov3.checks import UserError, mask_passwords, printable, project_path, shell_path, tell
from yolov3.formats import HEAD_BYTES, looks_like_picture
from yolov3.images import read_picture
from yolov3.media.outputs import PICTURE_SUFFIXES as WRITABLE
from yolov3.media.outputs import name_pictures

import cv2
import numpy as np

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif")  # what training reads, too
OTHER_SUFFIXES = (  # of pictures that only detection reads, or that are told when they are passed over
    *(".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".ppm", ".dib", ".jxl", ".svg", ".psd"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf"),
)
LABEL_SUFFIXES = (".txt", ".xml", ".json")  # lie beside pictures in great numbers; they are not opened to look
VIDEO_HEAD_BYTES = 4096  # by which text and playlists are told from videos
TEXT_SUFFIXES = (".txt", ".nfo", ".asc", ".ans", ".art", ".diz", ".ice", ".vt")  # FFmpeg makes a video of any of them
TEXT_STARTS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # byte order marks
PLAYLIST_MARKS = (b"#EXTM3U", b"ffconcat", b"c=IN IP", b"<MPD")  # FFmpeg opens what such a file names
RAW_VIDEO = b"YUV4MPEG2 "  # a line of text, then the pixels of frames, of which all may be bright
CONTROL_BYTES = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))  # which every video holds, and text does not
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
BACK_OFF_SECONDS = (0.5, 1, 2, 4, 8, 16, 30)  # before each try to reach a lost camera or stream again
SOURCES = "picture, folder, glob, video, camera number or stream"
USUAL_FPS = 25.0  # where a camera or stream does not say
LONGEST_GAP = 3600  # seconds between two frames; what a file says beyond that is an error
FIRST_FRAMES = 20  # that tell the rate of a video whose average is under 1


@dataclass(frozen=True)
class Frame:
    """One picture on its way to the detector."""

    source: str  # the file, camera or stream it came from, without a password
    index: int  # its number in that source, from 0
    picture: np.ndarray  # uint8 (H, W, 3), RGB
    seconds: float | None = None  # when it is of, later than the one before; None: a picture, of no time
    place: int = 0  # among all of its source, from 0, those that could not be read counted
    name: Path = Path("frame")  # what files of it are called, without suffix, relative to their folder


def open_source(word: str | int | os.PathLike, max_pixels: int) -> "Pictures | Video":
    """Open a path, glob, camera index (int, or digits) or stream URL. Raises UserError.

    Paths are tried as the shell gives them, then relative to the project's root. Of a folder or glob, the pictures are
    taken in the order of their names, numbers in them by their value.
    """
    if not isinstance(word, (int, str, os.PathLike)) or word == "":
        raise UserError(f"source {word!r} cannot be opened", f"give a {SOURCES}")
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise UserError(f"YOLO_MAX_PIXELS = {max_pixels!r} must be a whole number over 0")
    if str(word).startswith(STREAMS):
        return Video(str(word))
    try:
        if str(word).isdecimal() and not Path(str(word)).exists():
            return Video(int(str(word)))
        return _open_path(word, max_pixels)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{word} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL, or a character that the file system's encoding lacks
        raise UserError(f"{str(word)!r} is missing: its name is one that a file cannot have") from None


def _open_path(word, max_pixels):
    for path in (shell_path(word), project_path(word)):
        if path.is_dir():
            return Pictures(sorted(filter(_is_picture, path.iterdir()), key=_numbers_by_value), path, max_pixels)
        if path.exists():
            if not path.is_file():
                raise UserError(f"{word} is a pipe or a device", f"give a {SOURCES}")
            return Pictures([path], path.parent, max_pixels) if _is_picture(path) else Video(path)
        if found := glob.glob(str(path), recursive=True):
            paths = sorted(filter(_is_picture, map(Path, found)), key=_numbers_by_value)
            return Pictures(paths, Path(os.path.commonpath([x.parent for x in paths] or [path])), max_pixels)
    raise UserError(f"{word} is missing", f"give a {SOURCES}")


def _numbers_by_value(path):
    """A key that sorts paths by their names, 2.jpg before 10.jpg."""
    parts = [re.split(r"([0-9]+)", part) for part in path.parts]  # what is not a number, a number, and so on
    return [[int(x) if i % 2 else x for i, x in enumerate(part)] for part in parts], path


class Pictures:
    """Picture files, one frame each. Of several, those that cannot be read are told, left out and counted."""

    live, fps, unit = False, None, "pictures"

    def __init__(self, paths, root, max_pixels):
        if not paths:
            raise UserError(f"{root} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
        self.paths, self.root, self.max_pixels = paths, root, max_pixels
        self.count = len(paths)
        self.output_name = self.output_name_of(paths[0]).name
        self._names = name_pictures(paths, lambda path: path.relative_to(root).with_suffix(".txt"))
        self._left_out = []

    def frames(self):
        """Yield each picture that can be read; raise UserError if the only one cannot."""
        for place, path in enumerate(self.paths):
            try:
                picture = read_picture(path.absolute(), self.max_pixels)
            except UserError as error:
                if self.count == 1:
                    raise
                self._left_out.append(path)
                print(f"\n{printable(str(error))}: left out", file=sys.stderr)
            else:
                yield Frame(str(path), 0, picture, place=place, name=self._names[str(path)].with_suffix(""))

    def problems(self, ended):
        """Return what to tell at the end, as a list of str."""
        return [f"{len(self._left_out)} of {self.count} pictures could not be read"] if self._left_out else []

    def output_name_of(self, path: Path) -> Path:
        """Return where an annotated picture goes, relative to the output folder: a PNG if its own format cannot be
        written."""
        path = path.relative_to(self.root)
        return path if path.suffix.lower() in WRITABLE else path.with_name(path.name + ".png")


class Video:
    """A video file (Path), camera (int) or stream (str), opened.

    live  a camera, or a stream without an end: its newest frame counts, and it is reached again when lost.
    """

    unit = "frames"

    def __init__(self, name):
        self._address = name  # to open
        self.name = mask_passwords(name) if isinstance(name, str) else name  # to tell
        self.kind = {int: "camera", str: "stream"}.get(type(name), "video")
        if self.kind == "video" and _is_text(name):
            raise UserError(f"video {name} cannot be opened", "is it a video? It looks like text or a playlist")
        self._capture = self._open()
        if self._capture is None:
            remedy = "is it a video?" if self.kind == "video" else "is it connected?"
            raise UserError(f"{self.kind} {name} cannot be opened", remedy)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.live = self.kind != "video" and not count > 0
        self.count = None if self.live else max(int(count), 0)  # frames, by the file's header
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = self._average = fps if 0 < fps <= 1000 else USUAL_FPS
        if self.kind == "video" and self.fps < 1:
            self.fps = self._rate_of_first_frames()
        self.frames_read = 0
        self._has_times = False  # in the file
        self._seconds = 0.0  # of the last frame
        self._latest = 0.0  # by the file
        self._left_out = 0.0  # of jumps in the file's times
        self._has_jumped = False
        self.paths = [name] if self.kind == "video" else []
        self.output_name = {"video": f"{Path(str(name)).stem}.mp4", "camera": f"camera{name}.mp4"}.get(
            self.kind, "stream.mp4"
        )

    def frames(self):
        """Yield each frame until the file ends, or a live source has not come back after the last try."""
        try:
            while (picture := self._next()) is not None:
                self.frames_read += 1
                rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
                number = self.frames_read - 1
                name = Path(f"{Path(self.output_name).stem}_{number:06d}")
                yield Frame(str(self.name), number, rgb, self._clock(), number, name)
        finally:
            self._capture.release()
        if not self.frames_read:
            raise UserError(f"{self.kind} {self.name} holds no frames that can be read")

    def problems(self, ended):
        """Return what to tell at the end, as a list of str; `ended` is False if nobody wanted to see the end."""
        if not ended:
            return []
        if self.live:
            return [f"{self.kind} {self.name} is lost"]
        most = max(2, self.count // 100)  # frames that a header may be off
        duration = self.frames_read / self._average  # by the frames; by their times it is longer where there are gaps
        if self._has_times:
            duration = max(duration, self._latest + 1 / self._average)
        if self.count - duration * self._average > most:
            return [f"{self.kind} {self.name} breaks off: {self.frames_read} of {self.count} frames could be read"]
        return []

    @property
    def seconds(self) -> float | None:
        """How long it lasts by its header, without the jumps in its times; None if that is not known."""
        return max(self.count / self._average - self._left_out, 0.0) if self.count else None

    def _clock(self):
        """Return the seconds of the frame read last: by the wall clock of what is live, else by the file, whose rate
        may vary. Times that jump by more than LONGEST_GAP, forth or back, go on from there as if they did not."""
        if self.live:
            return time.monotonic()
        said = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        expected = self._seconds + 1 / self.fps if self.frames_read > 1 else 0.0
        jump = said - self._left_out - expected
        if abs(jump) > LONGEST_GAP:
            if self.frames_read > 1 and not self._has_jumped:
                tell(f"{self.kind} {self.name}: the times of its frames jump by {jump:.0f} seconds, which are left out")
                self._has_jumped = True
            self._left_out = said - expected
        self._latest = max(self._latest, said)
        now = said - self._left_out
        self._has_times = self.frames_read < 2 or now > self._seconds
        self._seconds = now if self._has_times else expected
        return self._seconds

    def _rate_of_first_frames(self):
        """Return the frames per second by the times of the first frames, if it is well above the average, which long
        gaps lower."""
        times = []
        while len(times) < FIRST_FRAMES and self._capture.grab():
            times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        self._capture.release()
        self._capture = self._open() or self._capture
        step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        return min(1 / step, 1000.0) if 0 < step < 0.5 / self._average else self._average

    def _open(self):
        """Return the capture of OpenCV, None if it cannot be opened.

        In a thread of its own: a stream may be silent for half a minute, in which OpenCV lets nobody interrupt it.
        """
        opened = []

        def work():
            with contextlib.suppress(cv2.error, UnicodeError):  # of a name that is not in UTF-8
                opened.append(cv2.VideoCapture(str(self.name.absolute()) if self.kind == "video" else self._address))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
        return opened[0] if opened and opened[0].isOpened() else None

    def _next(self):
        """Return the next picture in BGR, None at the end."""
        found, picture = self._capture.read()
        waits = iter(BACK_OFF_SECONDS if self.live else ())
        while not found and (seconds := next(waits, None)):
            lost = printable(f"{self.kind} {self.name} is lost")
            print(f"\n{lost}: trying again in {seconds} s", file=sys.stderr)
            self._capture.release()
            time.sleep(seconds)
            self._capture = self._open() or self._capture
            found, picture = self._capture.read()
        return picture if found else None


def _is_picture(path):
    """Whether a file is to be read as a picture: by its name, or by its first bytes whatever its name."""
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES + OTHER_SUFFIXES:
        return True
    return suffix not in LABEL_SUFFIXES and looks_like_picture(_head(path, HEAD_BYTES))


def _is_text(path):
    """Whether a file holds text, which FFmpeg makes a video of, or a playlist, of which it opens what that names."""
    head = _head(path, VIDEO_HEAD_BYTES)
    is_text = bool(head) and head.translate(None, CONTROL_BYTES) == head and not head.startswith(RAW_VIDEO)
    is_list = head.startswith(TEXT_STARTS) or any(mark in head for mark in PLAYLIST_MARKS)
    return path.suffix.lower() in TEXT_SUFFIXES or is_text or is_list


def _head(path, count):
    """The first bytes of a regular file; none where they cannot be read."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""
