"""Drive a headless Chromium by its DevTools protocol: load a page, run JavaScript, take a picture of it."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LISTENING = re.compile(r"DevTools listening on ws://([^/]+)/")
SECONDS = 60


class Page:
    """Hold one page of the browser."""

    def __init__(self, socket):
        self._socket, self._number = socket, 0

    def call(self, method: str, **parameters) -> dict:
        """Return the result of a method of the DevTools protocol."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(SECONDS))
            if answer.get("id") == self._number:
                return answer["result"]

    def run(self, script: str):
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str):
        """Return the value of a JavaScript expression as soon as it is true."""
        end = time.monotonic() + SECONDS
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script} stays false; the page says: {self.run('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def screenshot(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextlib.contextmanager
def open_page(address: str, profile: Path, size: tuple[int, int] = (900, 900)) -> Iterator[Page]:
    """Give a page of a headless Chromium at an address. Skip the test if there is no Chromium.

    profile  a new folder for the browser's own files
    size     of the window, width and height
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium or Chrome on the PATH")
    connect = pytest.importorskip("websockets.sync.client").connect
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={profile}", "--window-size={},{}".format(*size), "about:blank"]
    with (profile / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + SECONDS
            while not (found := LISTENING.search((profile / "log").read_text(errors="replace"))):
                assert time.monotonic() < end and process.poll() is None, (profile / "log").read_text(errors="replace")
                time.sleep(0.1)
            opened = requests.put(f"http://{found[1]}/json/new?{address}", timeout=SECONDS).json()
            with connect(opened["webSocketDebuggerUrl"], max_size=None) as socket:
                page = Page(socket)
                page.wait_for("document.readyState == 'complete' && location.href != 'about:blank'")
                yield page
        finally:
            process.terminate()
            process.wait(SECONDS)
