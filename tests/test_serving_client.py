"""Test the serving client against servers that answer nonsense, slowly, without end or not at all, and its signals."""

import contextlib
import http.server
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tools.serving.protocol_clients import GrpcClient, RestClient, Server, Unanswered, line_of
from yolov3.checks import PROJECT

import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.slow  # nothing here depends on the version of TensorFlow
CLIENT = PROJECT / "tools" / "serving" / "client.py"
RIGHT = {"boxes": [[1, 2, 3, 4]], "scores": [0.9], "classes": [0], "valid_detections": 1}
LINE = {"boxes": [[1.0, 2.0, 3.0, 4.0]], "scores": [0.9], "classes": [0]}
NONSENSE = {
    "null": {"predictions": [{**RIGHT, "valid_detections": None}]},
    "text": {
        "predictions": [{"boxes": [[1, 2, 3, "4"]], "scores": ["0.9"], "classes": [0], "valid_detections": "two"}]
    },
    "class by name": {"predictions": [{**RIGHT, "classes": ["cat"]}]},
    "too few": {"predictions": []},
    "not rows": {"predictions": [1]},
    "not an object": [1],
    "deep": "[" * 100_000,
    "html": "<html>",
    "empty": "",
}


@contextlib.contextmanager
def answering(answer):
    """Run an HTTP server that calls `answer(handler, body)` for each request; give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that leaves
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def send(handler, answer):
    """Send what a test wants answered: text as it is, all else as JSON."""
    data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


@pytest.fixture
def pictures(tmp_path):
    """Three files with their own names in them: what a server is sent, it knows again."""
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ("a", "b", "c"):
        data = (PROJECT / "IMAGES" / "digits" / "00000.jpg").read_bytes()
        (place / f"{name}.jpg").write_bytes(data + name.encode())
    return place


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """ask(source, option ...): the exit code and lines of the client, run in this process."""

    def run(source, *options):
        output = tmp_path / "out.jsonl"
        monkeypatch.setattr(sys, "argv", ["client.py", str(source), *map(str, options), "--output", str(output)])
        code = importlib.import_module("tools.serving.client").main.__wrapped__()
        return code, [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    return run


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_an_error_of_its_picture_alone(ask, pictures, kind):
    asked = []

    def answer(handler, body):
        asked.append(body)
        send(handler, NONSENSE[kind] if len(asked) == 2 else {"predictions": [RIGHT]})

    with answering(answer) as address:
        code, lines = ask(pictures, "--rest", "--address", address, "--in-flight", 1)
    assert code == 1
    assert [line.pop("source")[-5:] for line in lines] == ["a.jpg", "b.jpg", "c.jpg"]
    assert lines[0] == lines[2] == LINE
    assert "answer" in lines[1]["error"]


def test_one_row_of_nonsense_leaves_the_others_of_its_request(ask, pictures):
    rows = [RIGHT, {**RIGHT, "scores": [float("nan")]}, RIGHT]
    with answering(lambda handler, _: send(handler, {"predictions": rows})) as address:
        _, lines = ask(pictures, "--rest", "--address", address, "--batch", 3)
    assert [line.get("error") for line in lines] == [
        None,
        "the answer makes no sense: scores is not finite numbers of shape (1,)",
        None,
    ]


def test_a_class_without_a_name_is_an_error_of_its_picture_alone(ask, pictures, tmp_path):
    (tmp_path / "two.names").write_text("cat\ndog\n")
    rows = [{**RIGHT, "classes": [1]}, {**RIGHT, "classes": [2]}, {**RIGHT, "classes": [-1]}]
    with answering(lambda handler, _: send(handler, {"predictions": rows})) as address:
        options = ("--batch", 3, "--names", tmp_path / "two.names")
        _, lines = ask(pictures, "--rest", "--address", address, *options)
    assert lines[0]["classes"] == ["dog"]
    assert [line.get("error") for line in lines[1:]] == [
        f"the answer makes no sense: class {number} is not one of 2" for number in (2, -1)
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"boxes": [[1, 2, 3]]},
        {"boxes": [[1, 2, 3, float("inf")]]},
        {"boxes": [[1, 2, 3, 4], [1, 2]]},
        {"boxes": {"a": 1}},
        {"boxes": 10**400},
        {"scores": 0.9},
        {"scores": [True]},
        {"scores": []},
        {"classes": [0.5]},
        {"classes": [10**30]},
        {"classes": [100_000]},
        {"valid_detections": -2},
        {"valid_detections": 2},
        {"valid_detections": 1.0},
        {"valid_detections": [1]},
        {"valid_detections": True},
        {"valid_detections": 10**30},
    ],
)
def test_a_row_is_checked(wrong):
    assert line_of({**RIGHT, **wrong}, None)["error"].startswith("the answer makes no sense: ")
    missing = {name: value for name, value in RIGHT.items() if name not in wrong}
    assert "missing" in line_of(missing, None)["error"]


def test_a_row_with_more_rows_than_boxes_and_one_without_any():
    padded = {"boxes": np.zeros((100, 4)), "scores": np.zeros(100), "classes": np.zeros(100, int)}
    padded["boxes"][0] = RIGHT["boxes"][0]
    padded["scores"][0] = 0.9
    assert line_of({**padded, "valid_detections": np.int32(1)}, None) == LINE
    assert line_of({**padded, "valid_detections": 0}, ("x",)) == {"boxes": [], "scores": [], "classes": []}
    assert line_of({"boxes": [], "scores": [], "classes": [], "valid_detections": 0}, None)["boxes"] == []
    assert line_of({"valid_detections": -1}, None) == {"error": "cannot be decoded"}


@pytest.mark.parametrize("part", ["status", "headers", "body"])
def test_an_answer_that_drips_ends_at_the_timeout(ask, pictures, part):
    begun = {"status": b"", "headers": b"HTTP/1.1 200 OK\r\nX-Long: ", "body": b"HTTP/1.1 200 OK\r\n\r\n"}

    def answer(handler, _):
        handler.wfile.write(begun[part])
        for _ in range(600):
            handler.wfile.write(b" " if part == "body" else b"H")
            time.sleep(0.1)

    with answering(answer) as address:
        started = time.monotonic()
        code, (line,) = ask(pictures / "a.jpg", "--rest", "--address", address, "--timeout", 1, "--retries", 0)
        assert time.monotonic() - started < 30  # the answer drips for a minute
    assert code == 1 and line["error"] == "timeout: no whole answer within 1 s"


@pytest.mark.parametrize("kind", ["endless", "declared"])
def test_an_answer_has_a_largest_size(ask, pictures, kind):
    sent = []

    def answer(handler, _):
        handler.send_response(200)
        if kind == "declared":
            handler.send_header("Content-Length", str(2**40))
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" " * 2**16)
            sent.append(1)

    with answering(answer) as address:
        _, (line,) = ask(pictures / "a.jpg", "--rest", "--address", address, "--retries", 0)
    assert "more than 1_048_576 bytes" in line["error"] and len(sent) < 500


def test_an_address_that_is_none_is_told(ask, pictures):
    with pytest.raises(ValueError, match="--address localhost:port is not host:port"):
        ask(pictures, "--rest", "--address", "localhost:port")


# --- gRPC ------------------------------------------------------------------------------------------------------------


def import_stubs():
    """Return grpc and the stubs of TensorFlow Serving. Those of TensorFlow 2.17 are older than its protobuf."""
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except (ImportError, TypeError) as error:
        pytest.skip(f"needs requirements/serving.txt: {error}")
    return grpc, predict_pb2, prediction_service_pb2_grpc


@contextlib.contextmanager
def predicting(predict):
    """Run a gRPC server whose Predict calls `predict(request, context)`; give its address."""
    grpc, _, prediction_service_pb2_grpc = import_stubs()
    servicer = prediction_service_pb2_grpc.PredictionServiceServicer()
    servicer.Predict = predict
    server = grpc.server(ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None)


def response(**arrays):
    """Return a PredictResponse of arrays, or of tensors as they are."""
    _, predict_pb2, _ = import_stubs()

    answer = predict_pb2.PredictResponse()
    for name, value in arrays.items():
        answer.outputs[name].CopyFrom(value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value))
    return answer


def lying_tensor(*shape):
    """Return a tensor of one value that declares another shape."""
    tensor = tf.make_tensor_proto(np.float32([0.5]))
    del tensor.tensor_shape.dim[:]
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    return tensor


@pytest.mark.parametrize("shape", [(1, 2**40), (1, -1, 4), (2, 1), (), (1, 2**20, 2**20)])
def test_a_tensor_that_lies_about_its_size_is_not_made(shape):
    with predicting(lambda *_: response(boxes=lying_tensor(*shape))) as address:
        caller = GrpcClient(Server(address, "yolo", 20), 1)
        with pytest.raises(Unanswered, match="holds boxes of shape"):
            caller([b"x"])
        caller.close()


def test_arrays_of_an_answer_become_rows():
    arrays = {"boxes": np.ones((2, 1, 4), np.float32), "scores": np.ones((2, 1), np.float32)}
    arrays |= {"classes": np.zeros((2, 1), np.int32), "valid_detections": np.int32([1, -1])}
    with predicting(lambda *_: response(**arrays)) as address:
        rows = GrpcClient(Server(address, "yolo", 20), 2)([b"x", b"y"])
    assert [line_of(row, ("cat",)) for row in rows] == [
        {"boxes": [[1.0] * 4], "scores": [1.0], "classes": ["cat"]},
        {"error": "cannot be decoded"},
    ]


def test_a_message_has_a_largest_size():
    arrays = {"boxes": np.ones((1, 2**18, 4), np.float32)}
    with predicting(lambda *_: response(**arrays)) as address, pytest.raises(Unanswered, match="larger than max"):
        GrpcClient(Server(address, "yolo", 20), 1)([b"x"])


# --- The end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "number"), [("rest", signal.SIGINT), ("grpc", signal.SIGTERM)])
def test_a_signal_ends_it_at_once_and_keeps_the_answers(pictures, tmp_path, way, number):
    """The server answers a.jpg and b.jpg and is silent about c.jpg."""
    waiting, over, asked = threading.Event(), threading.Event(), []
    arrays = {name: np.array([value]) for name, value in RIGHT.items()}

    def be_silent_at_last():
        asked.append(1)
        if len(asked) > 2:
            waiting.set()
            over.wait(60)

    def answer(handler, _):
        be_silent_at_last()
        send(handler, {"predictions": [RIGHT]})

    def predict(*_):
        be_silent_at_last()
        return response(**arrays)

    output = tmp_path / "out.jsonl"
    with answering(answer) if way == "rest" else predicting(predict) as address:
        options = ["--address", address, "--in-flight", "1", "--timeout", "60", "--output", output]
        command = [sys.executable, CLIENT, pictures, *options, *(["--rest"] if way == "rest" else [])]
        environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert waiting.wait(120)
                started = time.monotonic()
                process.send_signal(number)
                _, told = process.communicate(timeout=120)
                took = time.monotonic() - started
            finally:
                process.kill()
                over.set()
    assert process.returncode == 128 + number and took < 30  # the answer would be waited for for a minute
    assert [json.loads(line)["source"][-5:] for line in output.read_text().splitlines()] == ["a.jpg", "b.jpg"]
    assert "interrupted: 1 pictures have no line" in told and "Traceback" not in told


def test_the_lines_of_a_run_that_fails_are_kept(monkeypatch, ask, pictures, tmp_path):
    client = importlib.import_module("tools.serving.client")
    whole = client.line_of

    def broken(row, names):
        if broken.calls:
            raise RuntimeError("a fault of the client")
        broken.calls += 1
        return whole(row, names)

    broken.calls = 0
    monkeypatch.setattr(client, "line_of", broken)
    answer = {"predictions": [RIGHT]}
    with answering(lambda handler, _: send(handler, answer)) as address, pytest.raises(RuntimeError):
        ask(pictures, "--rest", "--address", address, "--in-flight", 1)
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["source"].endswith("a.jpg")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.jsonl"]


def test_a_run_without_an_answer_leaves_an_older_file(monkeypatch, ask, pictures, tmp_path):
    (tmp_path / "out.jsonl").write_text("older\n")
    client = importlib.import_module("tools.serving.client")
    monkeypatch.setattr(client, "line_of", lambda *_: 1 / 0)
    answer = {"predictions": [RIGHT]}
    with answering(lambda handler, _: send(handler, answer)) as address, pytest.raises(ZeroDivisionError):
        ask(pictures, "--rest", "--address", address)
    assert (tmp_path / "out.jsonl").read_text() == "older\n"


def test_a_connection_that_the_server_closed_is_opened_again():
    """By HTTP/1.0 each answer ends its connection."""
    with answering(lambda handler, _: send(handler, {"predictions": [RIGHT]})) as address:
        caller = RestClient(Server(address, "yolo", 10), 1)
        assert [caller([b"x"]) for _ in range(3)] == [[RIGHT]] * 3
