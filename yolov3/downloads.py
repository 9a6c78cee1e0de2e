"""Darknet's official .weights files: how they are known, where they are to be had, and how they are fetched."""

import hashlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import UserError, project_path
from yolov3.files import STALE

ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download/"
HANK_AI = "https://github.com/hank-ai/darknet/releases/download/v2.0/"
REDMON = "https://data.pjreddie.com/files/"
REDMON_BEFORE = "https://pjreddie.com/media/files/"  # answers with a web page since April 2025
TIMEOUT = 30  # seconds without a byte
WORDS = {  # for errors of requests, whose own words are long
    "ConnectionError": "no connection",
    "ChunkedEncodingError": "it was cut off",
    "TooManyRedirects": "redirected without end",
}


class Official(NamedTuple):
    size: int  # bytes
    sha256: tuple  # of every version in circulation
    urls: tuple  # tried in this order


OFFICIAL = {
    "yolov3.weights": Official(
        248_007_048,
        ("523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",),
        (REDMON + "yolov3.weights", HANK_AI + "yolov3.weights", REDMON_BEFORE + "yolov3.weights"),
    ),
    "yolov3-tiny.weights": Official(
        35_434_956,
        ("dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",),
        (REDMON + "yolov3-tiny.weights", HANK_AI + "yolov3-tiny.weights", REDMON_BEFORE + "yolov3-tiny.weights"),
    ),
    "yolov4.weights": Official(
        257_717_640,
        (
            "e8a4f6c62188738d86dc6898d82724ec0964d0eb9d2ae0f0a9d53d65d108d562",
            "8463fde6ee7130a947a73104ce73c6fa88618a9d9ecd4a65d0b38f07e17ec4e4",
        ),
        (ALEXEYAB + "darknet_yolo_v3_optimal/yolov4.weights", HANK_AI + "yolov4.weights"),
    ),
    "yolov4-tiny.weights": Official(
        24_251_276,
        (
            "cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87",
            "037676f0d929c24e1bd9a0037fe30dc416fc26e0ca2a4491a44d024873316061",
        ),
        (ALEXEYAB + "darknet_yolo_v4_pre/yolov4-tiny.weights", HANK_AI + "yolov4-tiny.weights"),
    ),
}


def is_official(path: str | Path) -> bool:
    """Return whether the file is one of Darknet's official weights, whatever its name.

    The file is hashed only if its size is an official one, and each time anew: that takes 20 ms for YOLOv3-tiny and
    140 ms for YOLOv3, a fraction of what loading takes, and nothing needs to be remembered. Raises OSError if it
    cannot be read.
    """
    size = Path(path).stat().st_size
    hashes = [known for official in OFFICIAL.values() if official.size == size for known in official.sha256]
    return bool(hashes) and hashlib.sha256(Path(path).read_bytes()).hexdigest() in hashes


def fetch_weights(path: str | Path) -> None:
    """Download an official weights file, by its name, if nothing lies at `path`; show a progress bar.

    The addresses are tried in order until one gives a file of the right size and SHA-256. It is written to a temporary
    folder beside `path`, another for each process, and moved when it is whole. Raises UserError, with every address, if
    none gives it.
    """
    file = project_path(path)
    if file.exists():
        return
    official = OFFICIAL.get(file.name)
    if official is None:
        raise UserError(f"weights file {path} is missing: put it there, or name another in yolov3/configs.py")
    failures = []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(file)
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
            part = Path(folder) / file.name
            for url in official.urls:
                reason = _download(url, part, official)
                if reason is None:
                    part.replace(file)
                    return
                failures.append(f"{url} ({reason})")
    except OSError as error:
        raise UserError(f"weights file {path} cannot be written: {error.strerror or error}") from None
    raise UserError(f"cannot download {file.name} from {' or '.join(failures)}: get it elsewhere and put it at {file}")


def _remove_stale(file):
    for left in file.parent.glob(f".{file.name}.*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)


def _download(url, part, official):
    """Download to `part` -> None, or in a few words why what came is not the official file."""
    import pooch  # only here: nobody needs it whose weights are in place

    try:
        with part.open("wb") as out:
            pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)(url, _AtMost(out, official.size), None)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None):  # of this machine: errors of requests are OSErrors too, without a number
            raise
        return WORDS.get(type(error).__name__) or str(error).split("\n")[0]
    with part.open("rb") as came:
        if came.read(512).lstrip()[:1] == b"<":
            return "a web page came"
    if part.stat().st_size != official.size:
        return f"{part.stat().st_size:,} bytes came instead of {official.size:,}"
    if pooch.file_hash(str(part), "sha256") not in official.sha256:
        return "a file of another SHA-256 came"
    return None


class _AtMost:
    """A file to write to that refuses more than so many bytes: an address may answer without end."""

    def __init__(self, file, size):
        self.file, self.left = file, size

    def write(self, data):
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("more bytes came than the file has")
        self.file.write(data)

    def flush(self):
        self.file.flush()
