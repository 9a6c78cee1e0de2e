"""Test tools/serving/server.py as it runs: Ray Serve, its replicas, the page in a browser, and what is left behind.

Ray needs half a minute to start: all tests share one server, and the last one ends it.
"""

import base64
import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from yolov3.checks import PROJECT
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model

import numpy as np
import psutil
import pytest
import requests
from browser import open_page

pytest.importorskip("ray.serve", reason="needs requirements/serving-ray.txt")
pytest.importorskip("uvicorn", reason="needs requirements/serving-ray.txt")

from tools.benchmarks import server as benchmark
from tools.serving import client
from tools.serving.protocol_clients import GrpcClient, RestClient, Server, Unanswered, line_of

pytestmark = pytest.mark.slow
SIZE = 160
TOKEN = "a-token-of-the-tests"
DIGITS = sorted((PROJECT / "IMAGES" / "digits").glob("*.jpg"))
READY = re.compile(r"is served after \d+ s: http://(\S+)/ and gRPC (\S+)")
QUEUE, BATCH = 8, 4
DROP = """{
  const bytes = Uint8Array.from(atob("%s"), character => character.charCodeAt(0))
  const dropped = new DataTransfer()
  dropped.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}))
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, bubbles: true}))
}"""


class Running:
    """Hold the process of a server and its addresses."""

    def __init__(self, process, rest, grpc, token_file):
        self.process, self.rest, self.grpc, self.token_file = process, rest, grpc, token_file
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    def metric(self, name):
        text = requests.get(f"http://{self.rest}/metrics", headers=self.headers, timeout=60).text
        return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))

    def replica(self):
        """Return the process of the one replica."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if "ray::ServeReplica" in " ".join(process.cmdline()):
                return process
        raise AssertionError("the server has no replica")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(f"{TOKEN}\n")
    command = [sys.executable, PROJECT / "tools" / "serving" / "server.py", SHIPPED, "--token-file", folder / "token"]
    command += ["--set", f"YOLO_INPUT_SIZE={SIZE}", "--rest-port", 0, "--grpc-port", 0, "--queue", QUEUE]
    command += ["--batch", BATCH, "--wait", 100]
    with (
        (folder / "err").open("w") as err,
        subprocess.Popen(list(map(str, command)), cwd=folder, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        try:
            lines = iter(process.stdout.readline, "")
            ready = next(filter(None, map(READY.search, lines)), None)
            assert ready, (folder / "err").read_text()
            yield Running(process, ready[1], ready[2], folder / "token")
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def send(monkeypatch, tmp_path, server):
    """send(source, option ...): the exit code and lines of the client."""

    def run(source, *options):
        output = tmp_path / "out.jsonl"
        options = [*map(str, options), "--token-file", str(server.token_file), "--output", str(output)]
        monkeypatch.setattr(sys, "argv", ["client.py", str(source), *options])
        code = client.main.__wrapped__()
        return code, [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    return run


@pytest.fixture
def pictures(tmp_path):
    """Eight pictures, and a broken one as the fourth."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in DIGITS[:8]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "00002b.jpg").write_bytes(DIGITS[2].read_bytes()[:3000])
    return folder


@pytest.mark.parametrize("way", ["grpc", "rest"])
def test_it_answers_as_the_detector_and_a_broken_picture_spoils_no_other(server, send, pictures, way):
    options = ("--rest", "--address", server.rest) if way == "rest" else ("--address", server.grpc)
    code, lines = send(pictures, *options, "--batch", 3, "--in-flight", 3)
    assert code == 1 and lines.pop(3)["error"] == "cannot be decoded"
    detector = Load_Yolo_model(SHIPPED, input_size=SIZE)
    frames = [read_picture(line["source"], 10**9) for line in lines]
    for line, found in zip(lines, detector(frames), strict=True):
        np.testing.assert_allclose(np.reshape(line["boxes"], (-1, 4)), found.boxes, atol=0.05)
        np.testing.assert_allclose(line["scores"], found.scores, atol=1e-4)
        assert line["classes"] == found.classes.tolist()


def test_requests_that_come_together_are_one_batch(server):
    client = GrpcClient(Server(server.grpc, "yolo", 60, token=TOKEN), 1)
    before = [server.metric(f"yolo_batch_pictures_{x}") for x in ("sum", "count")]
    with ThreadPoolExecutor(2 * BATCH) as pool:
        rows = list(pool.map(lambda path: client([path.read_bytes()]), DIGITS))
    pictures, batches = (
        server.metric(f"yolo_batch_pictures_{x}") - y for x, y in zip(("sum", "count"), before, strict=True)
    )
    assert pictures == len(rows) == len(DIGITS)
    assert 2 < pictures / batches <= BATCH


def test_the_benchmark_measures_server_and_detector(server):
    files = [path.read_bytes() for path in DIGITS[:2]]
    client = GrpcClient(Server(server.grpc, "yolo", 60, token=TOKEN), 1)
    assert len(benchmark.send_requests(client, files, clients=3, count=5)) == 5
    with benchmark.bare_detector(SHIPPED, files, 4) as (loop, description):
        rounds = [loop(), loop()]
    assert description.startswith("yolov4-tiny, 10 classes") and all(len(x.latencies) == 4 for x in rounds)
    name, rate, p50, p99, cpu, ratio, batch = benchmark.row("bare detector", rounds, rounds)
    assert (name, ratio, batch) == ("bare detector", "1.00", "1.0")
    assert min(map(float, (rate, p50, p99, cpu))) > 0 and float(p50) <= float(p99)
    assert benchmark.cpu_seconds(psutil.Process(server.process.pid)) > 1


def test_a_replica_killed_under_load_loses_no_request_and_the_queue_stays_short(server, send):
    """While no replica runs, the queue fills: requests beyond it are refused at once, by both protocols."""
    clients = [
        kind(Server(address, "yolo", 60, token=TOKEN), 1)
        for kind, address in ((GrpcClient, server.grpc), (RestClient, server.rest))
    ]
    refused, data = set(), DIGITS[0].read_bytes()

    def flood(client):
        try:
            assert "error" not in line_of(client([data])[0], None)
        except Unanswered as error:
            assert error.again
            refused.add(str(error)[:18])

    replica = server.replica()
    with ThreadPoolExecutor(100) as pool:

        def kill_and_flood():
            time.sleep(0.5)
            replica.kill()
            psutil.wait_procs([replica], 60)
            flooded = [pool.submit(flood, one) for one in clients for _ in range(4 * BATCH + 2 * QUEUE)]
            for one in flooded:
                one.result()

        flooding = pool.submit(kill_and_flood)
        patient = "--retries", 10, "--timeout", 60  # a replica starts in 10 seconds here, in 40 on a busy machine
        code, lines = send(DIGITS[0].parent, "--address", server.grpc, "--in-flight", 2, *patient)
        flooding.result()
    assert code == 0 and [line["source"] for line in lines] == list(map(str, DIGITS))
    assert {"resource exhausted", "HTTP 429: '{\"error"} <= refused
    assert server.replica().pid != replica.pid


def test_the_page_draws_the_boxes_of_a_picture_dropped_on_it(server, tmp_path):
    picture = base64.b64encode(DIGITS[0].read_bytes()).decode()
    said = "document.getElementById('said').textContent"
    with open_page(f"http://{server.rest}/", tmp_path) as page:
        page.run(DROP % picture)
        assert "token" in page.wait_for(f"{said}.startsWith('error') && {said}")
        page.run(f"document.getElementById('secret').value = {TOKEN!r}")
        page.run(DROP % picture)
        text = page.wait_for(f"/\\d /.test({said}) && {said}")
        height, width, _ = read_picture(DIGITS[0], 10**9).shape
        assert page.run("[canvas.width, canvas.height]") == [width, height]
        drawn = page.run("[...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]")
        page.run(DROP % base64.b64encode(b"no picture").decode())
        assert page.wait_for(f"{said}.startsWith('error') && {said}") == "error: this file cannot be read as a picture"
    found = Load_Yolo_model(SHIPPED, input_size=SIZE)([read_picture(DIGITS[0], 10**9)])[0]
    assert text == ", ".join(f"{x} {y:.2f}" for x, y in zip(found.labels, found.scores, strict=True))
    drawn = np.reshape(drawn, (height, width, 4))[..., :3].astype(int)
    for x1, _, x2, y2 in found.boxes.astype(int):  # the lower edge of each box has one strong colour
        edge = drawn[min(y2, height - 1), x1 + 2 : x2 - 2]
        assert (edge.max(axis=1) - edge.min(axis=1)).mean() > 60


def test_sigterm_answers_what_is_in_progress_and_leaves_no_process(server):
    processes = psutil.Process(server.process.pid).children(recursive=True)
    assert len(processes) > 5
    client = GrpcClient(Server(server.grpc, "yolo", 60, token=TOKEN), 1)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client, [path.read_bytes()]) for path in DIGITS[:4]]
        while server.metric("yolo_requests_in_progress") < 1 and not all(x.done() for x in asked):
            time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        refused = [error for error in (x.exception() for x in asked) if error]  # those that came after the signal
    assert all(isinstance(error, Unanswered) and error.again for error in refused), refused
    assert len(refused) < len(asked)
    answered = [x.result() for x in asked if not x.exception()]
    assert all("error" not in line_of(row, None) for (row,) in answered)
    assert server.process.wait(60) == 0
    _, left = psutil.wait_procs(processes, 60)
    assert not left and server.token_file.with_name("err").stat().st_size == 0
