"""Darknet's .weights files: byte for byte there and back, bad files refused, downloads whole or not at all."""

import functools
import http.server
import resource
import threading

from yolov3 import darknet
from yolov3.checks import UserError
from yolov3.darknet import fetch_weights, get_arrays, load_yolo_weights, save_yolo_weights
from yolov3.yolov4 import Create_Yolo

import numpy as np
import pytest
from oracle import random_weights

CLASSES = 3
PER_CLASS = 3 * 4 * (512 + 1 + 256 + 1)  # bytes that a class adds to the heads of yolov4-tiny


@pytest.fixture(scope="module")
def model():
    return Create_Yolo(32, "yolov4", True, CLASSES)


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    """The bytes of a good file."""
    return random_weights(model, tmp_path_factory.mktemp("weights") / "good.weights").read_bytes()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.weights"


def everything(model):
    return np.concatenate([array.ravel() for array in get_arrays(model)])


# --- Reading and writing -------------------------------------------------------------------------------------------


def test_load_and_save_give_the_same_bytes(model, good, file):
    file.write_bytes(good)
    load_yolo_weights(model, file)
    save_yolo_weights(model, file)
    assert file.read_bytes() == good
    assert [x.name for x in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "header",
    [
        np.array([0, 2, 5, 32013312, 0], "<i4"),  # the pictures seen are int64
        np.array([0, 2, 0, 64, 0], "<i4"),
        np.array([1, 0, 0, 7, 0], "<i4"),
        np.array([0, 1, 0, 32013312], "<i4"),  # int32 before version 0.2
    ],
    ids=lambda header: f"version {header[0]}.{header[1]}, {header.nbytes} bytes",
)
def test_both_forms_of_the_header_are_read(model, good, file, header):
    file.write_bytes(header.tobytes() + good[20:])
    load_yolo_weights(model, file)
    np.testing.assert_array_equal(everything(model), np.frombuffer(good, "<f4", offset=20))


def nan_at_the_end(good):
    return good[:-4] + np.float32(np.nan).tobytes()


BAD_FILES = {
    "cut off": (lambda good: good[:-4], "it is truncated, or of another network: download it again"),
    "cut in the header": (lambda good: good[:10], "has 10 bytes"),
    "four bytes too many": (lambda good: good + bytes(4), "it is too long, or of another network"),
    "empty": (lambda good: b"", "is empty: download it again"),
    "web page": (lambda good: b"\n<!DOCTYPE html><html>Not found</html>", "is a web page, not weights"),
    "not a number": (nan_at_the_end, "not finite"),
    "infinite": (lambda good: good[:20] + np.float32(np.inf).tobytes() + good[24:], "not finite"),
    "more classes": (lambda good: good + bytes(17 * PER_CLASS), "it would fit 20 classes"),
    "fewer classes": (lambda good: good[: -2 * PER_CLASS], "it would fit 1 classes"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_refused_and_the_model_left_untouched(model, good, file, bad):
    file.write_bytes(good)
    load_yolo_weights(model, file)
    before = everything(model)
    damage, message = BAD_FILES[bad]
    file.write_bytes(damage(good))
    with pytest.raises(UserError, match=message) as error:
        load_yolo_weights(model, file)
    assert str(file) in str(error.value)
    np.testing.assert_array_equal(everything(model), before)


def test_a_wrong_class_count_is_told_with_both_byte_counts_and_the_count_that_fits(model, file):
    other = Create_Yolo(32, "yolov4", True, 7)
    theirs = random_weights(other, file).stat().st_size
    assert theirs == 20 + 4 * other.count_params()
    ours = 20 + 4 * model.count_params()
    with pytest.raises(UserError) as error:
        load_yolo_weights(model, file)
    for part in (f"{theirs:,} bytes", f"yolov4-tiny with 3 classes takes {ours:,}", "it would fit 7 classes"):
        assert part in str(error.value)


def test_the_weights_of_another_network_are_refused(model, file):
    random_weights(Create_Yolo(32, "yolov3", True, CLASSES), file)
    with pytest.raises(UserError, match="yolov4-tiny with 3 classes takes .*: it is too long, or of another network"):
        load_yolo_weights(model, file)


def test_a_missing_file_or_a_folder_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="none.weights cannot be read: No such file"):
        load_yolo_weights(model, tmp_path / "none.weights")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_yolo_weights(model, tmp_path)


def test_saving_where_nothing_can_be_written_leaves_nothing(model, tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "folder").mkdir()
    for path in ("none/x.weights", "file/x.weights", "folder"):
        with pytest.raises(UserError, match=f"{path} cannot be written"):
            save_yolo_weights(model, tmp_path / path)
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_a_full_disk_keeps_the_file_that_was_there(model, file):
    file.write_bytes(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match="some.weights cannot be written: File too large"):
            save_yolo_weights(model, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(x.name, x.read_bytes()) for x in file.parent.iterdir()] == [(file.name, b"before")]


# --- Downloads -----------------------------------------------------------------------------------------------------

WHOLE = np.random.RandomState(0).bytes(300_000)


class Server(http.server.BaseHTTPRequestHandler):
    """What the path says: whole, short, long (each with the true Content-Length), cut (off midway), else 404."""

    def __init__(self, log, *args):
        self.log = log
        super().__init__(*args)

    def do_GET(self):
        kind = self.path.strip("/")
        self.log.append(kind)
        if kind == "cut-once":
            kind = "cut" if self.log.count("cut-once") == 1 else "whole"
        bodies = {"whole": WHOLE, "cut": WHOLE, "short": WHOLE[:-7], "long": WHOLE + b"tail", "empty": b""}
        if kind not in bodies:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(bodies[kind])))
        self.end_headers()
        self.wfile.write(bodies[kind][: len(WHOLE) // 2 if kind == "cut" else None])

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


def test_a_missing_official_file_is_downloaded_whole(server, tmp_path, monkeypatch):
    url, asked = server
    monkeypatch.setitem(darknet.OFFICIAL, "yolov4-tiny.weights", (f"{url}/whole", len(WHOLE)))
    file = tmp_path / "new folder" / "yolov4-tiny.weights"
    fetch_weights(file)
    assert file.read_bytes() == WHOLE
    assert [x.name for x in file.parent.iterdir()] == [file.name]
    fetch_weights(file)
    assert asked == ["whole"]  # once


def test_a_file_that_is_there_is_never_asked_for(server, file):
    url, asked = server
    file.write_bytes(b"mine")
    fetch_weights(file, f"{url}/whole", len(WHOLE))
    assert (asked, file.read_bytes()) == ([], b"mine")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", ""),
        ("short", "299,993 bytes came instead of 300,000"),
        ("long", "300,004 bytes came instead of 300,000"),
        ("empty", "0 bytes came instead of 300,000"),
        ("nowhere", "404"),
    ],
)
def test_a_bad_download_leaves_nothing_and_names_url_and_place(server, file, kind, reason):
    url, asked = server
    with pytest.raises(UserError) as error:
        fetch_weights(file, f"{url}/{kind}", len(WHOLE))
    message = str(error.value)
    assert message.startswith(f"cannot download {url}/{kind} (")
    assert message.endswith(f"get it elsewhere and put it at {file}")
    assert reason in message
    assert "\n" not in message
    assert asked == [kind]
    assert list(file.parent.iterdir()) == []


def test_after_a_cut_the_next_try_starts_afresh(server, file):
    url, asked = server
    with pytest.raises(UserError):
        fetch_weights(file, f"{url}/cut-once", len(WHOLE))
    fetch_weights(file, f"{url}/cut-once", len(WHOLE))
    assert file.read_bytes() == WHOLE
    assert asked == ["cut-once"] * 2


def test_what_a_killed_download_left_does_no_harm(server, file):
    part = file.with_name(file.name + ".part")
    part.write_bytes(WHOLE[:1000])
    fetch_weights(file, f"{server[0]}/whole", len(WHOLE))
    assert [(x.name, x.read_bytes()) for x in file.parent.iterdir()] == [(file.name, WHOLE)]


def test_offline_is_one_line_with_url_and_place(server, file):
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/yolov4.weights"
    with pytest.raises(UserError) as error:
        fetch_weights(file, url, 3)
    assert str(error.value).startswith(f"cannot download {url} (")
    assert str(error.value).endswith(f"put it at {file}")
    assert "\n" not in str(error.value)
    assert list(file.parent.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot download .*File exists.* put it at"):
        fetch_weights(tmp_path / "file" / "yolov4.weights", f"{server[0]}/whole", len(WHOLE))


def test_a_missing_file_that_is_not_official_is_told(tmp_path):
    with pytest.raises(UserError, match="mine.weights is missing: put it there, or name another"):
        fetch_weights(tmp_path / "mine.weights")


def test_the_official_sizes_are_those_of_the_networks_at_80_classes():
    parameters = {"yolov4": 64_429_405, "yolov4-tiny": 6_062_814, "yolov3": 62_001_757, "yolov3-tiny": 8_858_734}
    sizes = {name: size for name, (_, size) in darknet.OFFICIAL.items()}
    assert sizes == {f"{name}.weights": 20 + 4 * count for name, count in parameters.items()}
