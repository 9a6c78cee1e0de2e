"""Recognise Darknet's official .weights files by their SHA-256, and download them from the addresses in `networks`."""

import hashlib
from pathlib import Path

from yolov3.checks import UserError, project_path
from yolov3.files import remove_left_parts, whole_file
from yolov3.networks import NETWORKS

TIMEOUT = 30  # seconds without a byte
WORDS = {  # for errors of requests, whose own words are long
    "ConnectionError": "no connection",
    "ChunkedEncodingError": "it was cut off",
    "TooManyRedirects": "redirected without end",
}


OFFICIAL = {f"{name}.weights": network.official for name, network in NETWORKS.items() if network.official}


def is_official(path: str | Path) -> bool:
    """Return whether the file is one of Darknet's official weights, whatever its name.

    The file is hashed only if its size is an official one. The hash is not kept for the next call, since it takes only
    20 ms for YOLOv3-tiny and 140 ms for YOLOv3, a fraction of loading. Raises OSError if the file cannot be read.
    """
    size = Path(path).stat().st_size
    hashes = [known for official in OFFICIAL.values() if official.size == size for known in official.sha256]
    return bool(hashes) and hashlib.sha256(Path(path).read_bytes()).hexdigest() in hashes


def fetch_weights(path: str | Path) -> None:
    """Download the official weights file of that name to `path`, with a progress bar, if there is no file yet.

    The addresses are tried in order until one gives a file of the right size and SHA-256. Raises UserError, with every
    address, if none does.
    """
    file = project_path(path)
    if file.exists():
        return
    official = OFFICIAL.get(file.name)
    if official is None:
        raise UserError(f"weights file {path} is missing: put it there, or name another in yolov3/configs.py")
    failures = []
    with whole_file(file) as part:
        remove_left_parts(file.parent)
        for url in official.urls:
            reason = _download(url, part, official)
            if reason is None:
                return
            failures.append(f"{url} ({reason})")
        raise UserError(
            f"cannot download {file.name} from {' or '.join(failures)}: get it elsewhere and put it at {file}"
        )


def _download(url, part, official):
    """Write what the address answers to `part`. Return None, or in a few words why it is not the official file."""
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
    """Write to a file, but refuse more than so many bytes, since an address may answer without end."""

    def __init__(self, file, size):
        self.file, self.left = file, size

    def write(self, data):
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("more bytes came than the file has")
        self.file.write(data)

    def flush(self):
        self.file.flush()
