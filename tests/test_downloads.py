"""Official weights are fetched whole from the first address that has them, or one line says why not."""

import functools
import hashlib
import http.server
import os
import resource
import subprocess
import sys
import threading

from yolov3 import downloads
from yolov3.checks import UserError
from yolov3.downloads import OFFICIAL, fetch_weights, is_official
from yolov3.files import THIS_COMPUTER
from yolov3.networks import Official

import numpy as np
import pytest

NAME = "yolov4-tiny.weights"
WHOLE = np.random.RandomState(0).bytes(300_000)
OTHER = WHOLE[::-1]
HASHES = tuple(hashlib.sha256(data).hexdigest() for data in (b"another version", WHOLE))
PAGE = b"\n <!DOCTYPE html><html>Moved</html>"
# what a path answers with, under its true Content-Length
BODIES = {"whole": WHOLE, "other": OTHER, "page": PAGE, "short": WHOLE[:-7], "empty": b""}


class Server(http.server.BaseHTTPRequestHandler):
    """What the path says: a body, cut (off midway), loop (redirects to itself), endless, a number of an error."""

    def __init__(self, log, *args):
        self.log = log
        super().__init__(*args)

    def do_GET(self):
        kind = self.path.strip("/")
        self.log.append(kind)
        if kind.isdecimal():
            self.send_error(int(kind))
            return
        self.send_response(302 if kind == "loop" else 200)
        if kind == "loop":
            self.send_header("Location", self.path)
        elif kind != "endless":
            self.send_header("Content-Length", str(len(BODIES.get(kind, WHOLE))))
        self.end_headers()
        if kind == "endless":
            for _ in range(8):
                self.wfile.write(WHOLE)
        elif kind != "loop":
            self.wfile.write(WHOLE[:150_000] if kind == "cut" else BODIES[kind])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """(URL, list of what was asked for) of a web server on loopback."""
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, asked))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def addresses(server, monkeypatch):
    """Call it with kinds: the addresses of the official file, in order."""
    url, _ = server

    def use(*kinds):
        urls = tuple(kind if "://" in kind else f"{url}/{kind}" for kind in kinds)
        monkeypatch.setitem(OFFICIAL, NAME, Official(len(WHOLE), HASHES, urls))

    return use


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new folder" / NAME


def names(folder):
    return sorted(x.name for x in folder.iterdir())


def closed_address():
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as closed:
        return f"http://127.0.0.1:{closed.server_port}/{NAME}"


def test_a_missing_official_file_is_downloaded_once(server, addresses, file):
    addresses("whole", "404")
    fetch_weights(file)
    fetch_weights(file)
    assert file.read_bytes() == WHOLE
    assert names(file.parent) == [NAME]
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()  # others may read it, as any file
    assert server[1] == ["whole"]


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("page", "a web page came"),
        ("403", "403"),
        ("404", "404"),
        ("503", "503"),
        ("cut", "it was cut off"),
        ("short", "299,993 bytes came instead of 300,000"),
        ("empty", "0 bytes came instead of 300,000"),
        ("endless", "more bytes came than the file has"),
        ("other", "a file of another SHA-256 came"),
        ("loop", "redirected without end"),
        pytest.param(closed_address(), "no connection", id="nobody listens"),
        ("http://nowhere:port/", "Failed to parse"),
    ],
)
def test_the_next_address_is_tried_and_the_last_failure_names_all(server, addresses, file, kind, reason):
    addresses(kind, "404", "whole")
    fetch_weights(file)
    assert file.read_bytes() == WHOLE
    assert server[1][-2:] == ["404", "whole"]

    file.unlink()
    addresses(kind, "404")
    with pytest.raises(UserError) as error:
        fetch_weights(file)
    message, urls = str(error.value), OFFICIAL[NAME].urls
    assert message.startswith(f"cannot download {NAME} from {urls[0]} (")
    assert reason in message and f"or {urls[1]} (" in message
    assert message.endswith(f"get it elsewhere and put it at {file}")
    assert "\n" not in message
    assert names(file.parent) == []


def test_what_is_there_is_never_asked_for(server, addresses, file):
    addresses("whole")
    file.parent.mkdir()
    file.write_bytes(b"mine")
    fetch_weights(file)
    assert (server[1], file.read_bytes()) == ([], b"mine")


def test_two_at_once_both_end_well(addresses, file):
    addresses("whole")
    failures = []

    def fetch():
        try:
            fetch_weights(file)
        except UserError as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert file.read_bytes() == WHOLE
    assert names(file.parent) == [NAME]


def test_what_a_killed_download_left_is_removed_and_one_that_goes_on_is_not(addresses, file):
    addresses("whole")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file.parent.mkdir(parents=True)
    left, other = (f".yolov4-tiny.{THIS_COMPUTER}-{process}-0.part.weights" for process in (ended.pid, os.getppid()))
    for name in (left, other):
        (file.parent / name).write_bytes(WHOLE[:1000])
    fetch_weights(file)
    assert names(file.parent) == [other, NAME]


def test_a_place_that_cannot_be_written_is_one_line_and_no_address_is_blamed(server, addresses, tmp_path):
    addresses("whole")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="yolov4-tiny.weights cannot be written: File exists"):
        fetch_weights(tmp_path / "file" / NAME)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match="yolov4-tiny.weights cannot be written: File too large"):
            fetch_weights(tmp_path / NAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["file"]


def test_a_missing_file_that_is_not_official_is_told(tmp_path):
    with pytest.raises(UserError, match="mine.weights is missing: put it there, or name another"):
        fetch_weights(tmp_path / "mine.weights")


def test_a_file_is_official_by_its_bytes_whatever_its_name(addresses, tmp_path):
    addresses()
    for data, official in ((WHOLE, True), (OTHER, False), (b"another version", False)):  # the last has another size
        (tmp_path / "some.weights").write_bytes(data)
        assert is_official(tmp_path / "some.weights") == official


def test_the_official_file_that_comes_along_is_known_as_such():
    assert is_official(downloads.project_path("model_data/yolov3-tiny.weights"))


def test_the_table_has_the_sizes_of_the_networks_at_80_classes_and_several_addresses():
    parameters = {"yolov4": 64_429_405, "yolov4-tiny": 6_062_814, "yolov3": 62_001_757, "yolov3-tiny": 8_858_734}
    sizes = {name: official.size for name, official in OFFICIAL.items()}
    assert sizes == {f"{name}.weights": 20 + 4 * count for name, count in parameters.items()}
    for name, official in OFFICIAL.items():
        assert len(official.urls) >= 2 and all(url.endswith(f"/{name}") for url in official.urls)
        assert all(len(bytes.fromhex(known)) == 32 for known in official.sha256)
