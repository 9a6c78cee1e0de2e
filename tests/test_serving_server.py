"""Test the server's REST and gRPC, its limits, token, TLS and end, with a detector in this process instead of Ray's."""

import asyncio
import base64
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from yolov3.checks import UserError

import numpy as np
import pytest

pytest.importorskip("ray.serve", reason="needs requirements/serving-ray.txt")
pytest.importorskip("uvicorn", reason="needs requirements/serving-ray.txt")

from tools.serving import grpc_server, listeners, protocol, server
from tools.serving.dispatcher import Dispatcher, Limits
from tools.serving.protocol import Found
from tools.serving.protocol_clients import GrpcClient, RestClient, Server, Unanswered, line_of

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

PREDICT = "/v1/models/yolo:predict"
FOUND = Found(np.float32([[1, 2, 3, 4]]), np.float32([0.5]), np.int32([1]))
LINE = {"boxes": [[1.0, 2.0, 3.0, 4.0]], "scores": [0.5], "classes": [1]}
LIMITS = {"request_bytes": 100_000, "pictures": 3, "requests": 2, "seconds": 60}


class LocalHandle:
    """Answer as the handle of a Ray Serve deployment does, by a coroutine function in this process."""

    def __init__(self, detect):
        self.detect = detect

    def options(self, method_name):
        return self

    def remote(self, files):
        return asyncio.ensure_future(self.detect(files))


async def detect_at_once(files):
    """Find one box in each file, except for the undecodable b"?"."""
    return [(None if file == b"?" else FOUND, len(files) if i == 0 else 0) for i, file in enumerate(files)]


def serve(work, detect=detect_at_once, token=None, tls=None, **limits):
    """Return what work(address of REST, of gRPC) returns in a thread while a server runs. End the server by SIGTERM."""

    async def run():
        ready = asyncio.get_running_loop().create_future()
        endpoint = listeners.Endpoint("127.0.0.1", 0, listeners.open_socket("127.0.0.1", 0), token, tls)
        dispatcher = Dispatcher(LocalHandle(detect), Limits(**{**LIMITS, **limits}))
        running = listeners.listen_until_signal(
            endpoint, dispatcher, "yolo", ("cat", "</script>"), lambda: True, lambda *x: ready.set_result(x)
        )
        running = asyncio.ensure_future(running)
        rest, by_grpc = await ready
        try:
            return await asyncio.to_thread(work, rest.split("/")[2], by_grpc)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await running

    return asyncio.run(run())


def send(address, method, path, body=None, headers=(), context=None):
    """Return status, headers and body of an answer."""
    kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
    connection = kind(address, timeout=60, **({"context": context} if context else {}))
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    connection.request(method, path, data, dict(headers))
    response = connection.getresponse()
    answer = response.status, dict(response.headers), response.read().decode()
    connection.close()
    return answer


def instances(*files):
    return {"instances": [{"b64": base64.b64encode(file).decode()} for file in files]}


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_rest_answers_rows_columns_status_and_metadata():
    encoded = [{"b64": base64.b64encode(file).decode()} for file in (b"x", b"?")]

    def work(rest, _):
        by_rows = {"instances": [{"image_bytes": encoded[0]}, encoded[1]], "signature_name": "detect_bytes"}
        _, _, rows = send(rest, "POST", PREDICT, by_rows)
        rows = json.loads(rows)["predictions"]
        for inputs in (encoded, {"image_bytes": encoded}):
            _, _, columns = send(rest, "POST", "/v1/models/yolo/versions/1:predict", {"inputs": inputs})
            columns = json.loads(columns)["outputs"]
            assert {name: [row[name] for row in rows] for name in rows[0]} == columns
        assert [line_of(row, None) for row in rows] == [LINE, {"error": "cannot be decoded"}]
        assert np.shape(columns["boxes"]) == (2, 100, 4)
        assert json.loads(send(rest, "POST", PREDICT, {"instances": []})[2]) == {"predictions": []}
        assert json.loads(send(rest, "GET", "/v1/models/yolo")[2]) == protocol.status(True)
        about = json.loads(send(rest, "GET", "/v1/models/yolo/metadata")[2])
        outputs = about["metadata"]["signature_def"]["signature_def"]["detect_bytes"]["outputs"]
        assert set(outputs) == set(columns)
        assert send(rest, "GET", "/healthz")[::2] == (200, "ok\n")
        status, headers, page = send(rest, "GET", "/")
        assert status == 200 and headers["content-type"].startswith("text/html")
        assert '["cat", "\\u003c/script>"]' in page and "v1/models/yolo:predict" in page

    serve(work)


def test_grpc_answers_predictions_status_and_metadata():
    def work(_, address):
        client = GrpcClient(Server(address, "yolo", 60), 3)
        assert [line_of(row, ("dog", "cat"))["classes"] for row in client([b"x", b"y"])] == [["cat"]] * 2
        assert line_of(client([b"?"])[0], None) == {"error": "cannot be decoded"}
        client.close()
        with grpc.insecure_channel(address) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
            request.model_spec.name = "yolo"
            about = predict.GetModelMetadata(request)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            assert about.metadata["signature_def"].Unpack(signatures)
            signature = signatures.signature_def["detect_bytes"]
            assert [x.size for x in signature.outputs["boxes"].tensor_shape.dim] == [-1, 100, 4]
            request = get_model_status_pb2.GetModelStatusRequest()
            request.model_spec.name = "yolo"
            (state,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request).model_version_status
            assert state.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE

    serve(work)


def test_metrics_count_requests_pictures_and_batches():
    def work(rest, address):
        send(rest, "POST", PREDICT, instances(b"x", b"?"))
        send(rest, "POST", "/v1/models/other:predict", instances(b"x"))
        GrpcClient(Server(address, "yolo", 60), 3)([b"x"])
        return send(rest, "GET", "/metrics")[2].splitlines()

    lines = serve(work)
    for line in (
        'yolo_requests_total{by="rest",outcome="OK"} 1.0',
        'yolo_requests_total{by="rest",outcome="NOT_FOUND"} 1.0',
        'yolo_requests_total{by="grpc",outcome="OK"} 1.0',
        'yolo_pictures_total{outcome="detected"} 2.0',
        'yolo_pictures_total{outcome="undecodable"} 1.0',
        "yolo_batch_pictures_sum 3.0",
        "yolo_batch_pictures_count 2.0",
        "yolo_requests_in_progress 0.0",
    ):
        assert line in lines


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_rest_refuses_bad_requests_and_goes_on():
    cases = [
        ("POST", "/v1/models/other:predict", instances(b"x"), 404, "this server has yolo"),
        ("POST", "/v1/models/yolo/versions/2:predict", instances(b"x"), 404, "Specific(yolo, 2)"),
        ("GET", "/v2", None, 404, "/v2 does not exist"),
        ("GET", PREDICT, None, 404, "Servable not found"),
        ("POST", PREDICT, b"\xff{", 400, "is not JSON"),
        ("POST", PREDICT, b"[" * 50_000, 400, "is not JSON"),
        ("POST", PREDICT, b"[1]", 400, "is not a JSON object"),
        ("POST", PREDICT, {}, 400, "and not both"),
        ("POST", PREDICT, {**instances(b"x"), "inputs": []}, 400, "not both"),
        ("POST", PREDICT, {**instances(b"x"), "signature_name": "serving_default"}, 400, "detect_bytes"),
        ("POST", PREDICT, {**instances(b"x"), "signature_name": 1}, 400, "not a string"),
        ("POST", PREDICT, {"instances": 1}, 400, "not a list"),
        ("POST", PREDICT, {"instances": ["x"]}, 400, "a picture must be"),
        ("POST", PREDICT, {"instances": [{"b64": "?"}]}, 400, "not in base64"),
        ("POST", PREDICT, instances(*[b"x"] * 4), 400, "4 pictures: this server takes 3 at most"),
        ("POST", PREDICT, instances(b"x" * 100_000), 413, "100,000 bytes at most"),
        ("POST", PREDICT, iter([b" " * 60_000] * 2), 413, "100,000 bytes at most"),  # of no declared length
    ]

    def work(rest, _):
        for method, path, body, code, words in cases:
            status, _, text = send(rest, method, path, body)
            assert status == code and words in text
        assert send(rest, "POST", PREDICT, instances(b"x"))[0] == 200

    serve(work)


def test_grpc_refuses_bad_requests_and_goes_on():
    def request(**changes):
        message = predict_pb2.PredictRequest()
        message.model_spec.name = "yolo"
        message.inputs["image_bytes"].dtype = 7
        message.inputs["image_bytes"].string_val.append(b"x")
        message.inputs["image_bytes"].tensor_shape.dim.add().size = 1
        for change in changes.values():
            change(message)
        return message

    cases = [
        (lambda x: setattr(x.model_spec, "name", "other"), "NOT_FOUND", "this server has yolo"),
        (lambda x: setattr(x.model_spec, "signature_name", "other"), "INVALID_ARGUMENT", "detect_bytes"),
        (lambda x: x.inputs.pop("image_bytes"), "INVALID_ARGUMENT", "the input must be image_bytes, not empty"),
        (lambda x: setattr(x.inputs["image_bytes"], "dtype", 1), "INVALID_ARGUMENT", "must be a list of strings"),
        (lambda x: x.inputs["image_bytes"].string_val.append(b"y"), "INVALID_ARGUMENT", "of shape (N,)"),
        (lambda x: x.output_filter.append("masks"), "INVALID_ARGUMENT", "output masks is not one of boxes"),
        (lambda x: x.inputs["image_bytes"].string_val.append(b"y" * 200_000), "RESOURCE_EXHAUSTED", "larger than max"),
    ]

    def work(_, address):
        with grpc.insecure_channel(address) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            for change, code, words in cases:
                with pytest.raises(grpc.RpcError) as caught:
                    predict(request(change=change), timeout=60)
                assert caught.value.code().name == code and words in caught.value.details()
            assert set(predict(request(change=lambda x: x.output_filter.append("scores"))).outputs) == {"scores"}

    serve(work)


class Gate:
    """Let the detector wait until it is opened, and count what it has begun and what was cancelled."""

    def __init__(self):
        self.begun, self.cancelled, self.is_open = threading.Semaphore(0), threading.Event(), threading.Event()

    async def detect(self, files):
        self.begun.release()
        try:
            while not self.is_open.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await detect_at_once(files)


def test_requests_beyond_the_limit_are_refused_and_the_others_answered():
    gate = Gate()

    def work(rest, address):
        with ThreadPoolExecutor(2) as pool:
            first = [pool.submit(send, rest, "POST", PREDICT, instances(b"x")) for _ in range(LIMITS["requests"])]
            for _ in first:
                gate.begun.acquire()
            status, headers, text = send(rest, "POST", PREDICT, instances(b"x"))
            assert status == 429 and headers["retry-after"] == "1" and "2 requests are in progress" in text
            with pytest.raises(Unanswered, match="^resource exhausted: 2 requests are in progress") as caught:
                GrpcClient(Server(address, "yolo", 60), 1)([b"x"])
            assert caught.value.again
            gate.is_open.set()
            assert [x.result()[0] for x in first] == [200, 200]

    serve(work, gate.detect)


def test_a_request_that_takes_too_long_is_cancelled():
    gate = Gate()

    def work(rest, address):
        status, _, text = send(rest, "POST", PREDICT, instances(b"x"))
        assert status == 504 and "no answer within 0.2 seconds" in text
        assert gate.cancelled.wait(60)
        gate.cancelled.clear()
        with pytest.raises(Unanswered, match="^deadline exceeded: no answer within 0.2 seconds"):
            GrpcClient(Server(address, "yolo", 60), 1)([b"x"])
        assert gate.cancelled.wait(60)

    serve(work, gate.detect, seconds=0.2)


def test_a_client_that_closes_its_connection_cancels_its_request():
    gate = Gate()

    def work(rest, address):
        connection = http.client.HTTPConnection(rest)
        connection.request("POST", PREDICT, json.dumps(instances(b"x")))
        gate.begun.acquire()
        connection.close()
        assert gate.cancelled.wait(60)
        gate.cancelled.clear()
        with pytest.raises(Unanswered, match="deadline"):
            GrpcClient(Server(address, "yolo", 0.2), 1)([b"x"])
        assert gate.cancelled.wait(60)

    serve(work, gate.detect)


def test_a_token_is_required_for_all_but_the_page_and_its_health():
    def work(rest, address):
        for path in ("/v1/models/yolo", "/v1/models/yolo/metadata", "/metrics"):
            assert send(rest, "GET", path)[0] == 401
            assert send(rest, "GET", path, headers={"Authorization": "Bearer secret-token"})[0] == 200
        for wrong in ("", "Bearer secret", "secret-token", "Bearer \xe9"):
            assert send(rest, "POST", PREDICT, instances(b"x"), {"Authorization": wrong.encode("latin-1")})[0] == 401
        assert send(rest, "GET", "/")[0] == send(rest, "GET", "/healthz")[0] == 200
        for kind, place in ((RestClient, rest), (GrpcClient, address)):
            assert kind(Server(place, "yolo", 20, token="secret-token"), 1)([b"x"])
            with pytest.raises(Unanswered, match="requires a token"):
                kind(Server(place, "yolo", 60), 1)([b"x"])

    serve(work, token="secret-token")


def make_certificate(folder):
    """Return the paths of a certificate for 127.0.0.1 and of its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_tls_by_both_protocols(tmp_path):
    pair = make_certificate(tmp_path)

    def work(rest, address):
        for kind, place in ((RestClient, rest), (GrpcClient, address)):
            assert kind(Server(place, "yolo", 20, authority=pair[0]), 1)([b"x"])
            with pytest.raises(Unanswered):  # without TLS
                kind(Server(place, "yolo", 5), 1)([b"x"])
        with pytest.raises(ssl.SSLCertVerificationError):
            send(rest, "GET", "/healthz", context=ssl.create_default_context())

    serve(work, tls=server.read_tls(*pair))


def test_the_end_answers_the_requests_in_progress():
    gate = Gate()

    def work(rest, address):
        pool = ThreadPoolExecutor(2)
        asked = pool.submit(send, rest, "POST", PREDICT, instances(b"x"))
        by_grpc = pool.submit(GrpcClient(Server(address, "yolo", 60), 1), [b"x"])
        gate.begun.acquire()
        gate.begun.acquire()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        for kind, place in ((RestClient, rest), (GrpcClient, address)):
            with pytest.raises(Unanswered) as caught:
                kind(Server(place, "yolo", 5), 1)([b"x"])
            assert caught.value.again
        gate.is_open.set()
        assert asked.result()[0] == 200 and len(by_grpc.result()) == 1

    serve(work, gate.detect)


def test_a_call_that_an_ending_server_drops_is_to_be_sent_again(monkeypatch):
    async def drop(self, request, context):
        await context.abort(grpc.StatusCode.CANCELLED)

    monkeypatch.setattr(grpc_server.PredictionService, "Predict", drop)

    def work(_, address):
        with pytest.raises(Unanswered, match="cancelled") as caught:
            GrpcClient(Server(address, "yolo", 20), 1)([b"x"])
        assert caught.value.again

    serve(work)


# --- The command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--queue", "0"], "--queue = 0 must be a whole number"),
        (["--replicas", "2", "--most-replicas", "1"], "--most-replicas 1 is less than --replicas 2"),
        (["--gpus", "1.5"], "--gpus 1.5 must be a whole number or less than 1"),
        (["--timeout", "0"], "--timeout 0 must be from 1"),
        (["--wait", "nan"], "--wait nan must be from 0"),
        (["--name", "a/b"], "--name 'a/b' may hold only"),
    ],
)
def test_options_that_make_no_sense_are_refused(monkeypatch, options, message):
    monkeypatch.setattr(sys, "argv", ["server.py", *options])
    with pytest.raises(UserError) as caught:
        server.parse_arguments()
    assert message in str(caught.value)


def test_a_certificate_or_token_that_cannot_be_used_is_named(tmp_path):
    certificate, key = make_certificate(tmp_path)
    for pair, message in (
        ((certificate, None), "give both"),
        ((certificate, certificate), "cannot be used"),
        ((tmp_path / "missing", key), "cannot be used: .*No such file"),
    ):
        with pytest.raises(UserError, match=message):
            server.read_tls(*pair)
    (tmp_path / "token").write_text("two words\n")
    with pytest.raises(UserError, match="must begin with a line of 8 or more"):
        server.read_token(tmp_path / "token")


def test_a_port_in_use_is_told():
    with listeners.open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1:{port} .*: choose another port"):
            listeners.open_socket("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen at 127.0.0.1:70000"):
        listeners.open_socket("127.0.0.1", 70000)


def test_packages_that_are_missing_are_told(monkeypatch):
    monkeypatch.delattr("tools.serving.listeners")
    monkeypatch.setitem(sys.modules, "tools.serving.listeners", None)
    with pytest.raises(UserError, match="pip install -r requirements/serving-ray.txt"):
        server.import_ray_serve()
