"""Where results go: annotated pictures and videos, JSON lines, a window. Pictures are uint8 (H, W, 3), RGB.

Files take their final name when they are whole; until then what lay there stays. Raises UserError.
"""

import json
import shutil
import subprocess
import sys
import threading
import time

from yolov3.checks import UserError
from yolov3.files import told_in_one_line, whole_file

import cv2

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "XVID"}
DISK_RESERVE = 16 * 2**20  # bytes that must stay free, so that a video can still be closed properly
FRAMES_PER_DISK_CHECK = 32
WINDOW = "YOLO (q to quit)"


def write_picture(path, picture):
    """Writes a picture in the format that its name ends in."""
    try:
        encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error:
        encoded = False
    if not encoded:
        raise UserError(f"output {path} cannot be written: {picture.shape[1]} x {picture.shape[0]} is too large for it")
    with whole_file(path) as part:
        part.write_bytes(data)


class VideoFile:
    """A video being written. Closed early, by a full disk or by Ctrl-C, it holds what was written so far.

    live  frames come as they come: each is written as often as keeps the video at the clock's pace.
    """

    def __init__(self, path, fps, live=False):
        self.path, self.fps, self.live = path, fps, live
        self.frames = 0
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._writer = None

    def write(self, picture):
        height, width = picture.shape[:2]
        if self._writer is None:
            self._open(width, height)
        if (width, height) != self._size:  # some videos change their size on the way
            picture = cv2.resize(picture, self._size)
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        due = 1 + int((time.monotonic() - self._started) * self.fps) - self.frames if self.live else 1
        for _ in range(due):
            self._writer.write(bgr)
            self.frames += 1
            if self.frames % FRAMES_PER_DISK_CHECK == 0:
                self._check_disk()

    def _open(self, width, height):
        self._size, self._started = (width, height), time.monotonic()
        codec = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
        self._check_disk()
        writer = cv2.VideoWriter(str(self._part), codec, self.fps, self._size)
        if not writer.isOpened():
            raise UserError(f"output {self.path} cannot be written at {width} x {height} pixels")
        self._writer = writer

    def _check_disk(self):
        if shutil.disk_usage(self.path.parent).free < DISK_RESERVE:
            raise UserError(f"the disk is full: output {self.path} ends after {self.frames} frames")

    def close(self):
        if self._writer is None:
            return
        self._writer.release()
        with told_in_one_line(self.path):
            self._part.replace(self.path)


class Lines:
    """A text file that grows with every frame."""

    def __init__(self, path):
        self.path = path
        self._part = path.with_name(f".{path.name}.part")
        with told_in_one_line(self.path):
            self._file = self._part.open("w", encoding="utf-8", errors="backslashreplace")  # odd file names
        self.lines = 0

    def write(self, frame, found):
        with told_in_one_line(self.path):
            self._file.write(self.text(frame, found))
            self._file.flush()
        self.lines += 1

    def close(self):
        try:
            with told_in_one_line(self.path):
                self._file.close()
        finally:  # what is written counts, on a full disk too; a run without a line leaves what lay there
            with told_in_one_line(self.path):
                if self.lines:
                    self._part.replace(self.path)
                else:
                    self._part.unlink()


class JsonLines(Lines):
    """One JSON line per frame: source, frame number, boxes xyxy in pixels, scores, class names; of tracks, numbers."""

    def text(self, frame, found):
        line = {
            "source": frame.source,
            "frame": frame.index,
            "boxes": [[round(float(x), 2) for x in box] for box in found.boxes],
            "scores": [round(float(score), 5) for score in found.scores],
            "classes": found.labels,
        }
        if found.numbers is not None:
            line["numbers"] = found.numbers.tolist()
        return json.dumps(line, ensure_ascii=False) + "\n"


class MotLines(Lines):
    """Tracks as in MOTChallenge, one a line: frame (from 1), number, left, top, width, height, score, -1, -1, -1."""

    def text(self, frame, found):
        rows = zip(found.numbers, found.boxes, found.scores, strict=True)
        return "".join(
            f"{frame.place + 1},{number},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n"
            for number, (x1, y1, x2, y2), score in rows
        )


class Window:
    """Shows the newest picture. Any thread may call `put`, only the main one `poll`, as GUIs want it."""

    def __init__(self):
        self._newest = None
        self._lock = threading.Lock()

    def put(self, picture):
        with self._lock:
            self._newest = picture

    def poll(self, milliseconds=1):
        """Shows what was put last; True once `q` is pressed. 0 waits for a key."""
        with self._lock:
            picture, self._newest = self._newest, None
        if picture is not None:
            cv2.imshow(WINDOW, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(milliseconds) & 0xFF == ord("q")

    def close(self):
        cv2.destroyAllWindows()


def open_window():
    """A Window, or None, said in one line, where there is no display: asked in a child, since Qt ends the process."""
    probe = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0:
        return Window()
    print("--show: there is no display here; going on without a window", file=sys.stderr)
    return None
