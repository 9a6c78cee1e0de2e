"""Passwords in the addresses of streams: used to open them, and neither told nor written."""

import base64
import http.server
import json
import pickle
import threading
import time

from yolov3.checks import UserError, mask_passwords
from yolov3.detect import Job
from yolov3.media import sources

import cv2
import numpy as np
import pytest
from test_outputs import FindsOne

ADDRESSES = {  # -> as they are told
    "rtsp://me:secret@cam:554/1": "rtsp://me:***@cam:554/1",
    "rtsp://me:se:c@ret@cam/1": "rtsp://me:***@cam/1",
    "rtsp://me@post.org:secret@cam/1": "rtsp://me@post.org:***@cam/1",
    "rtsp://:secret@cam/1": "rtsp://:***@cam/1",
    "rtsp://me:sec/ret@cam/1": "rtsp://me:***@cam/1",
    "rtsp://cam:554/user=me&password=secret&channel=1": "rtsp://cam:554/user=me&password=***&channel=1",
    "http://cam/1?user=me&pwd=secret": "http://cam/1?user=me&pwd=***",
    "RTSP://me:secret@cam is lost; srt://you:secret@cam": "RTSP://me:***@cam is lost; srt://you:***@cam",
    "http://cam:80/a@b": "http://cam:80/a@b",
    "http://cam/a:b@c?d=e": "http://cam/a:b@c?d=e",
    "rtsp://me@cam/1": "rtsp://me@cam/1",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_of_an_address_the_password_alone_is_masked(address):
    assert mask_passwords(address) == ADDRESSES[address]
    for error in (UserError(f"stream {address!r}"), pickle.loads(pickle.dumps(UserError(f"stream {address!r}")))):
        assert str(error) == f"stream {ADDRESSES[address]!r}"


@pytest.mark.parametrize("text", ["x://a:" * 10**5, "x://" + "a:" * 10**5, "password=" * 10**5, ":" * 10**6])
def test_no_text_takes_long(text):
    started = time.monotonic()
    mask_passwords(text)
    assert time.monotonic() - started < 20  # try by try it would be hours


@pytest.mark.parametrize("word", ["rtsp://me:secret@127.0.0.1:9/x", "rtspu://me:secret@host/x", "http://me:secret@\0"])
def test_a_stream_that_cannot_be_opened_is_told_without_its_password(word):
    with pytest.raises(UserError, match=r"me:\*\*\*@") as error:
        Job(word)
    assert "secret" not in str(error.value)


class Camera(http.server.BaseHTTPRequestHandler):
    """Shows 20 pictures to those who know the password, then breaks off, and is never there again."""

    def do_GET(self):
        known = self.headers["Authorization"] == f"Basic {base64.b64encode(b'me:secret').decode()}"
        if not known or self.server.shown:
            self.send_response(404 if self.server.shown else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.server.shown = True
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        jpeg = cv2.imencode(".jpg", np.full((48, 80, 3), 90, np.uint8))[1].tobytes()
        for _ in range(20):
            self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
            self.wfile.write(jpeg + b"\r\n")

    def log_message(self, *_):
        pass


def test_the_password_opens_the_stream_and_is_written_nowhere(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sources, "BACK_OFF_SECONDS", (0.05,))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        server.shown = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}/x.mjpg"
        job = Job(f"http://me:secret@{place}", tmp_path / "out.mp4", json=tmp_path / "out.jsonl")
        summary = job.run(FindsOne())
        server.shutdown()
    assert summary.frames >= 1  # the newest ones, which may be few where the machine is busy
    assert summary.problems == [f"stream http://me:***@{place} is lost"]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["source"] for line in lines} == {f"http://me:***@{place}"}
    told = "".join(capfd.readouterr())
    assert "is lost: trying again" in told and "secret" not in told
    assert all(b"secret" not in path.read_bytes() and "secret" not in path.name for path in tmp_path.iterdir())
