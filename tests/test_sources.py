"""What a path names: opened once for all kinds of files, in the order that people mean, and told when passed over."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from yolov3.checks import PROJECT, UserError, as_given, read_class_names, read_file
from yolov3.darknet import load_yolo_weights
from yolov3.images import read_picture
from yolov3.media.sources import Pictures, Video, open_source

import cv2
import keras
import numpy as np
import pytest

MAX_PIXELS = 10**8


def write_pictures(folder, *names):
    for i, name in enumerate(names):
        (folder / name).write_bytes(cv2.imencode(".png", np.full((4, 6, 3), i, np.uint8))[1].tobytes())


def special_files(folder):
    """Make what is not a regular file of a usual size -> {path: what it is told to be}."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zeros.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    with (folder / "sparse.jpg").open("wb") as file:
        file.truncate(40 * 10**9)
    told = {"pipe": "is a pipe", "zeros": "is a device", "folder": "is a folder", "sparse": "is larger than"}
    return {folder / f"{name}.jpg": reason for name, reason in told.items()}


# --- What a path names ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have a name")
@pytest.mark.parametrize(
    "read",
    [
        read_class_names,
        lambda path: read_picture(path, MAX_PIXELS),
        lambda path: load_yolo_weights(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), path),
    ],
)
def test_only_regular_files_of_a_usual_size_are_opened(read, tmp_path):
    for path, reason in special_files(tmp_path).items():
        with pytest.raises(UserError, match=f"{path.name} {reason}"):
            read(path)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_told_in_one_line(name):
    for use in (as_given, lambda path: read_file(path, 10, "names"), lambda path: open_source(path, MAX_PIXELS)):
        with pytest.raises(UserError) as error:
            use(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.jpg", "file/below", "x\udcff.jpg"])
def test_a_name_that_no_file_has_is_told_in_one_line(name, tmp_path):
    (tmp_path / "file").touch()
    for path in (name, str(tmp_path / name)):
        assert as_given(path) == path
        with pytest.raises(UserError, match="^names .*(missing|cannot be read)") as error:
            read_file(path, 10, "names")
        assert "\n" not in str(error.value)
        with pytest.raises(UserError):
            open_source(path, MAX_PIXELS)


def test_a_file_may_have_as_many_bytes_as_its_kind_and_not_one_more(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 5, "list") == b"12345"
    with pytest.raises(UserError, match="list .*a is larger than the 4 bytes"):
        read_file(tmp_path / "a", 4, "list")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have a name")
def test_a_folder_with_a_pipe_a_device_and_a_huge_file_gives_its_pictures(tmp_path, capsys):
    special_files(tmp_path)
    write_pictures(tmp_path, "a.jpg", "z.jpg")
    pictures = open_source(tmp_path, MAX_PIXELS)
    assert isinstance(pictures, Pictures)
    assert [Path(frame.source).name for frame in pictures.frames()] == ["a.jpg", "z.jpg"]
    assert capsys.readouterr().err.count("left out") == 4
    assert pictures.problems(True) == ["4 of 6 pictures could not be read"]


# --- Folders and globs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["", "*.jpg", "*"])
def test_pictures_come_in_the_order_of_the_numbers_in_their_names(word, tmp_path):
    names = ["1.jpg", "2.jpg", "9.jpg", "10.jpg", "11.jpg", "a1b2.jpg", "a1b10.jpg", "a02b1.jpg", "a10.jpg", "b.jpg"]
    write_pictures(tmp_path, *names)
    assert [path.name for path in open_source(tmp_path / word, MAX_PIXELS).paths] == names


def test_numbers_in_the_names_of_folders_count_too(tmp_path):
    for folder in ("10", "9"):
        (tmp_path / folder).mkdir()
        write_pictures(tmp_path / folder, "2.png", "10.png")
    found = open_source(f"{tmp_path}/*/*.png", MAX_PIXELS)
    names = ["9/2.png", "9/10.png", "10/2.png", "10/10.png"]
    assert [f"{path.parent.name}/{path.name}" for path in found.paths] == names


def test_a_folder_reads_or_tells_all_that_looks_like_a_picture(tmp_path, capsys):
    read = ["a.jfif", "b.jpe", "c.mpo", "d.webp", "e", "f.jpg.1", "g.tif"]
    write_pictures(tmp_path, *read)
    told = {"h.jxl": b"\xff\x0a" + bytes(99), "i.heic": bytes(99), "j.dng": b"", "k": b"8BPS" + bytes(99)}
    for name, data in told.items():
        (tmp_path / name).write_bytes(data)
    for name in ("labels.txt", "video.mp4", "notes", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    for word in (tmp_path, tmp_path / "*"):
        pictures = open_source(word, MAX_PIXELS)
        assert [Path(frame.source).name for frame in pictures.frames()] == read
        lines = capsys.readouterr().err.split("\n\n")
        assert [[name for name in told if f"/{name} " in line] for line in lines] == [[name] for name in told]
        assert pictures.problems(True) == ["4 of 11 pictures could not be read"]


def test_a_picture_is_not_counted_as_a_frame(tmp_path):
    write_pictures(tmp_path, "a.png")
    assert open_source(tmp_path, MAX_PIXELS).unit == "pictures"
    assert open_source(write_video(tmp_path / "x.avi", 5), MAX_PIXELS).unit == "frames"


# --- Videos ---------------------------------------------------------------------------------------------------------


def write_video(path, fps, count=6):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    assert writer.isOpened()
    for i in range(count):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("fps", [0.1, 0.5, 29.97, 240])
def test_the_rate_of_a_video_is_kept_even_under_1(fps, tmp_path):
    video = open_source(write_video(tmp_path / "x.avi", fps), MAX_PIXELS)
    assert video.fps == pytest.approx(fps, rel=1e-3)
    assert len(list(video.frames())) == 6


class Capture:
    """What OpenCV says of a video whose frames are of these times, by a header that counts rate x duration."""

    def __init__(self, seconds, fps, count):
        self.seconds, self.at = seconds, -1
        self.values = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: count}

    def isOpened(self):
        return True

    def get(self, what):
        return self.seconds[self.at] * 1000 if what == cv2.CAP_PROP_POS_MSEC else self.values[what]

    def grab(self):
        self.at += 1
        return self.at < len(self.seconds)

    def read(self):
        return self.grab(), np.zeros((4, 4, 3), np.uint8)

    def release(self):
        self.seconds = self.seconds[:1]


@pytest.mark.parametrize(
    ("seconds", "problems"),
    [
        ([*range(50), *range(90, 100)], 0),  # a gap
        ([*range(40, 100)], 0),  # that starts late
        ([*range(50)], 1),  # cut
        ([*range(10), *range(30, 50)], 1),  # a gap, and cut
        ([0] * 50, 1),  # without times, cut
        ([0] * 100, 0),
    ],
)
def test_a_gap_in_the_times_of_a_video_does_not_mean_that_it_breaks_off(seconds, problems, tmp_path, monkeypatch):
    (tmp_path / "x.mkv").write_bytes(bytes(100))
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: Capture(seconds, 1.0, 100))
    video = open_source(tmp_path / "x.mkv", MAX_PIXELS)
    assert len(list(video.frames())) == len(seconds)
    assert len(video.problems(True)) == problems


HOURS = 5 * 3600
JUMPS = {  # times of ten frames a second -> and the jump that is told
    "for good": ([i / 10 + HOURS * (i >= 50) for i in range(100)], HOURS),
    "of one frame": ([i / 10 + HOURS * (i == 50) for i in range(100)], HOURS),
    "back": ([i / 10 + HOURS * (i < 50) for i in range(100)], -HOURS),
    "from frame to frame": ([i / 10 + HOURS * (i % 2) for i in range(100)], HOURS),
    "beyond all numbers": ([i / 10 + 1e16 * (i == 50) for i in range(100)], 1e16),
}


@pytest.mark.parametrize("name", JUMPS)
def test_times_that_jump_by_hours_are_damaged_and_go_on_from_there(name, tmp_path, monkeypatch, capsys):
    times, jump = JUMPS[name]
    (tmp_path / "x.mkv").write_bytes(bytes(100))
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Capture(times, 10.0, round(10 * max(times)) + 1))
    video = open_source(tmp_path / "x.mkv", MAX_PIXELS)
    seconds = [frame.seconds for frame in video.frames()]
    assert np.diff(seconds) == pytest.approx(0.1, abs=1e-2)
    assert video.problems(True) == []
    told = capsys.readouterr().err.split()
    assert told.count("jump") == 1 and f"{jump:.0f}" in told


def test_the_average_rate_of_a_video_with_long_gaps_is_not_its_rate(tmp_path, monkeypatch):
    times = [i / 10 + 1200 * (i >= 50) for i in range(100)]
    (tmp_path / "x.mp4").write_bytes(bytes(100))
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Capture(times, 100 / 1210, 100))
    video = open_source(tmp_path / "x.mp4", MAX_PIXELS)
    assert video.fps == pytest.approx(10)
    assert video.seconds == pytest.approx(1210)
    assert [frame.seconds for frame in video.frames()] == pytest.approx(times)
    assert video.problems(True) == []


TEXTS = {
    "notes.txt": b"Buy milk.\n",
    "umlauts.mp4": "\u00c4pfel und Birnen".encode("latin-1"),
    "wide.avi": "Notes".encode("utf-16"),
    "zeros.txt": bytes(1000),
    "page.mp4": b"<!DOCTYPE html><html></html>",
    "list.mp4": b"ffconcat version 1.0\nfile 'whole.avi'\n",
    "list with zeros.mp4": b"ffconcat version 1.0\nfile 'whole.avi'\n#\0\0\0",
    "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nwhole.avi\n#EXT-X-ENDLIST\n",
    "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "dash.mpd": b"<?xml version='1.0'?>\n<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
    "ansi.ans": b"\x1b[31mred\x1b[0m",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_and_playlists_are_refused_before_opencv_opens_them(name, tmp_path, monkeypatch):
    write_video(tmp_path / "whole.avi", 5)
    (tmp_path / name).write_bytes(TEXTS[name])
    monkeypatch.setattr(cv2, "VideoCapture", None)
    with pytest.raises(UserError, match=f"video .*{name} cannot be opened: is it a video"):
        open_source(tmp_path / name, MAX_PIXELS)


def test_a_bright_video_of_raw_pixels_is_not_taken_for_text(tmp_path):
    frame = b"FRAME\n" + bytes([200]) * (64 * 48 * 3 // 2)
    (tmp_path / "x.y4m").write_bytes(b"YUV4MPEG2 W64 H48 F5:1 Ip A1:1 C420jpeg\n" + frame * 3)
    video = open_source(tmp_path / "x.y4m", MAX_PIXELS)
    assert isinstance(video, Video)
    assert len(list(video.frames())) == 3


# --- Streams --------------------------------------------------------------------------------------------------------

READS = """
import os, signal, sys
from contextlib import closing
from yolov3.media.sources import open_source
from yolov3.media.threads import ReadAhead
for address in sys.argv[1:]:  # in a process each: OpenCV opens one after the other
    if process := os.fork():
        print("ended", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        continue
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", os.getpid(), flush=True)
    source = open_source(address, 10**6)
    with closing(ReadAhead(source.frames(), source.live)) as frames:
        for frame in frames:
            print("frame", flush=True)
    break
"""
HEADERS = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n"


def mjpeg(count):
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 100, np.uint8))[1].tobytes()
    return (b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)) * count


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_ends_the_wait_for_a_stream_that_says_nothing():
    """While it is opened, by RTSP and by HTTP, and after some frames."""
    answers = {"rtsp": b"", "http": b"", "http after some frames": HEADERS + mjpeg(100)}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in answers]
        ports = (server.getsockname()[1] for server in servers)
        addresses = [f"{kind.split()[0]}://127.0.0.1:{port}/x" for kind, port in zip(answers, ports, strict=True)]
        command = [sys.executable, "-c", READS, *addresses]
        process = stack.enter_context(
            subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        lines = map(str.split, iter(process.stdout.readline, ""))
        for server, answer in zip(servers, answers.values(), strict=True):
            word, number = next(lines)
            assert word == "ready"
            connection = stack.enter_context(server.accept()[0])
            connection.recv(1000)
            connection.sendall(answer)
            if answer:
                assert next(lines) == ["frame"]
            asked = time.monotonic()
            os.kill(int(number), signal.SIGINT)
            word, code = next(line for line in lines if line != ["frame"])
            assert word == "ended" and int(code) in (1, 130, -signal.SIGINT)
            assert time.monotonic() - asked < 20  # OpenCV waits for half a minute
        _, errors = process.communicate(timeout=60)
    assert errors.count("\nKeyboardInterrupt") == len(answers)
