"""An annotated video being written, in the pace of its source. Frames are uint8 (H, W, 3), RGB."""

import math
import shutil
import time
from pathlib import Path

from yolov3.checks import UserError, tell
from yolov3.files import new_part, told_in_one_line

import cv2
import numpy as np

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "XVID"}
DISK_RESERVE = 2**20  # bytes that closing a video may take: what is buffered, and the index of its frames
INDEX_BYTES = 64  # of that index for each frame, at most
FRAME_BYTES = 1.5  # for each pixel, at most: an encoded frame is not larger than the frame in YUV 4:2:0
SLIP = 0.6  # frames by which a frame may come early or late before others are left out or repeated
MOST_REPEATS = 90_000  # of frames, to fill the gaps in the times of a source: an hour's at 25 a second
REPEATS_A_FRAME = 100  # more of them for each frame that comes


class VideoFile:
    """A video being written. Closed early, by a full disk or by Ctrl-C, it holds what was written so far.

    path  Path of the file; its suffix is one of CODECS
    fps   frames a second, over 0. Frames that come at other times are repeated or left out, so that the video lasts as
          long as its source
    live  frames that come without a time are of now

    Longer gaps than can be filled, which damaged times have, are left out and told.
    """

    def __init__(self, path: Path, fps: float, live: bool = False):
        self.path, self.live = path, live
        # MPEG-4 counts time in at most 65,535 steps a second, OpenCV in thousandths, hundredths ... of a frame
        self.fps = max(0.001, round(fps, 3 if fps < 65 else 2 if fps < 655 else 1))
        self.frames = 0  # written
        self.steady = True  # each frame was written once
        self._repeats = math.inf if live else MOST_REPEATS  # that are left
        self._has_told = False  # that there are more
        self._writer: cv2.VideoWriter | None = None
        self._held: np.ndarray | None = None
        self._place = -1  # of the frame that is held until the next one tells how long it lasts

    def write(self, picture: np.ndarray, seconds: float | None = None) -> None:
        """Write a frame. seconds: when it is of, by any clock; None: a frame after the one before. Raises UserError."""
        if self.live and seconds is None:
            seconds = time.monotonic()
        height, width = picture.shape[:2]
        if self._writer is None:
            self._open(height, width, seconds)
        if (height, width) != self._size:  # some videos change their size on the way
            picture = cv2.resize(picture, self._size[::-1])
        place = self._place + 1
        self._repeats += REPEATS_A_FRAME
        if seconds is not None and abs((exact := (seconds - self._began) * self.fps) - place) > SLIP:
            left_out = self._take_repeats(exact - place)
            self._began += left_out / self.fps
            place, self.steady = max(round(exact - left_out), self._place), False
        self._fill(place)
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        bottom, right = (side % 2 for side in self._size)
        if bottom or right:
            bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        self._held, self._place = bgr, place

    def close(self, seconds: float | None = None) -> None:
        """Finish the video. seconds: how long it lasts, if its rate varies. Raises UserError if it is not whole."""
        if self._writer is None:
            return
        try:
            place = self._place + 1
            end = place if self.steady or not seconds else max(place, round(seconds * self.fps))
            self._fill(end - self._take_repeats(end - place))
        finally:
            self._writer.release()
            self._writer = None
            self._finish()

    def _open(self, height, width, seconds):
        self._size, self._began = (height, width), seconds
        even = tuple(side + side % 2 for side in (width, height))
        with told_in_one_line(self.path):
            self._part = new_part(self.path)
        codec = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._part), codec, self.fps, even)
        if not writer.isOpened():
            self._part.unlink()
            raise UserError(f"output {self.path} cannot be written at {width} x {height} pixels")
        self._writer = writer
        if even != (width, height):
            told = f"{self.path.name} is {even[0]} x {even[1]} pixels: its codec takes even sizes only, so that the"
            tell(f"{told} edge of the {width} x {height} frames is repeated")

    def _take_repeats(self, count):
        """Return 0 if a frame may be repeated so often, else `count`, how many are to be left out."""
        if count <= self._repeats:
            self._repeats -= max(count, 0)
            return 0
        if not self._has_told:
            self._has_told = True
            tell(
                f"{self.path.name}: a gap of {count / self.fps:.0f} seconds in the times of its source is left out: it"
                " would take too many frames to fill"
            )
        return count

    def _fill(self, place):
        """Write the frame that is held until the next one, which is at that place."""
        while self.frames < place:
            self._check_disk()
            self._writer.write(self._held)
            self.frames += 1

    def _check_disk(self):
        frame_bytes = FRAME_BYTES * self._size[0] * self._size[1]
        if shutil.disk_usage(self.path.parent).free < DISK_RESERVE + frame_bytes + INDEX_BYTES * self.frames:
            raise UserError(f"the disk is full: output {self.path} ends after {self.frames} frames")

    def _finish(self):
        """Give the video its name if it is whole: OpenCV does not tell what the system did not write."""
        there = self.path.exists()
        with told_in_one_line(self.path):
            try:
                readable = count_frames(self._part, self.frames) if self.frames else 0
                keep = readable and (readable >= self.frames or not there)
                if keep:
                    self._part.replace(self.path)
            finally:
                self._part.unlink(missing_ok=True)
        if readable < self.frames:
            kept = "they are kept" if keep else "what lay there is kept" if there else "nothing is kept"
            raise UserError(
                f"output {self.path} could not be written whole, as on a full disk or beyond a limit of file sizes: "
                f"{readable} of {self.frames} frames can be read; {kept}"
            )


def count_frames(path: Path, expected: int) -> int:
    """Return how many frames of a video can be read. Reads only the last one if it is where the header says."""
    capture = cv2.VideoCapture(str(path))
    try:
        if expected <= capture.get(cv2.CAP_PROP_FRAME_COUNT) <= expected + 1:
            capture.set(cv2.CAP_PROP_POS_FRAMES, expected - 1)
            if capture.read()[0] and capture.get(cv2.CAP_PROP_POS_FRAMES) >= expected:
                return expected
        capture.open(str(path))
        return sum(1 for _ in iter(capture.grab, False))
    finally:
        capture.release()
