"""Send picture files to a server with TensorFlow Serving's protocol, by gRPC or by REST, and check its answers.

A client sends one request and returns one row for each of its files: the values of `OUTPUTS` by name, as the server
gave them. It raises Unanswered if no such answer comes within the time and the size allowed. `line_of` checks a row.
"""

import base64
import contextlib
import http.client
import json
import math
import os
import re
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yolov3.checkpoint import MOST_CLASSES
from yolov3.checks import UserError, read_file, shell_path

import numpy as np

SIGNATURE = "detect_bytes"
INPUT = "image_bytes"
OUTPUTS = ("boxes", "scores", "classes", "valid_detections")
TOKEN = re.compile(r"[!-~]{8,1000}")  # printable ASCII
SECRET_BYTES = 2**16  # of the largest file with a token or certificate
PICTURE_BYTES = 2**20  # of the answer for one picture, at most: 100 boxes take 10 KB as JSON
SHOWN = 200  # characters of a server's own words

Row = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """Say where the server is and how to reach it."""

    address: str  # host:port
    model: str
    seconds: float  # for one whole answer
    authority: str | os.PathLike | None = None  # file with the certificate to trust, PEM; None: without TLS
    token: str | None = None


class Unanswered(Exception):
    """Say why a request has no answer, and whether sending it `again` may help."""

    def __init__(self, reason: str, again: bool):
        super().__init__(reason)
        self.again = again


class PredictClient(ABC):
    """Send requests from any thread. `close` ends those that wait for an answer."""

    @abstractmethod
    def __call__(self, files: list[bytes]) -> list[Row]: ...

    @abstractmethod
    def close(self) -> None: ...


# --- gRPC ------------------------------------------------------------------------------------------------------------


class GrpcClient(PredictClient):
    """Send requests by gRPC, which takes bytes as they are. `batch` is the largest number of files in a request."""

    def __init__(self, server: Server, batch: int):
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError:
            remedy = "pip install -r requirements/serving.txt, or give --rest"
            raise UserError("gRPC needs its packages", remedy) from None
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", batch * PICTURE_BYTES)]
        if server.authority:
            trusted = grpc.ssl_channel_credentials(_read(server.authority))
            self._channel = grpc.secure_channel(server.address, trusted, options)
        else:
            self._channel = grpc.insecure_channel(server.address, options)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel).Predict
        self._server, self._make_request, self._error = server, predict_pb2.PredictRequest, grpc.RpcError
        self._metadata = [("authorization", f"Bearer {server.token}")] if server.token else None
        codes = grpc.StatusCode  # CANCELLED: by a server that ended between receiving the call and beginning it
        self._again = codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED, codes.RESOURCE_EXHAUSTED, codes.CANCELLED

    def __call__(self, files: list[bytes]) -> list[Row]:
        import tensorflow as tf

        request = self._make_request()
        request.model_spec.name, request.model_spec.signature_name = self._server.model, SIGNATURE
        request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(files, tf.string, [len(files)]))
        try:
            outputs = self._predict(request, timeout=self._server.seconds, metadata=self._metadata).outputs
        except self._error as error:
            code = error.code()
            reason = f"{code.name.lower().replace('_', ' ')}: {error.details()}".splitlines()[0]
            raise Unanswered(reason[:SHOWN], code in self._again) from None
        except ValueError:
            raise Unanswered("not sent: interrupted", again=False) from None  # the channel is closed
        arrays = {name: _array(outputs[name], name, len(files)) for name in OUTPUTS if name in outputs}
        return [{name: array[i] for name, array in arrays.items()} for i in range(len(files))]

    def close(self) -> None:
        self._channel.close()


def _array(tensor, name, count):
    """Return a tensor of an answer as an array (count, ...), after checking its declared size."""
    import tensorflow as tf

    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if shape[:1] != [count] or min(shape) < 0 or math.prod(shape) > count * PICTURE_BYTES:
        raise Unanswered(f"the answer for {count} files holds {name} of shape {tuple(shape)}", again=False)
    try:
        return tf.make_ndarray(tensor)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:SHOWN]
        raise Unanswered(f"the answer holds no array {name} ({reason})", again=False) from None


# --- REST ------------------------------------------------------------------------------------------------------------


class RestClient(PredictClient):
    """Send requests by REST, with the bytes in base64."""

    def __init__(self, server: Server, batch: int):
        self._server, self._most = server, batch * PICTURE_BYTES
        self._context = _tls_context(server.authority) if server.authority else None
        self._headers = {"Content-Type": "application/json"}
        if server.token:
            self._headers["Authorization"] = f"Bearer {server.token}"
        self._of_thread, self._open, self._closed = threading.local(), set(), False
        self._connection()  # so that a malformed address is refused at once

    def __call__(self, files: list[bytes]) -> list[Row]:
        instances = [{INPUT: {"b64": base64.b64encode(data).decode()}} for data in files]
        body = json.dumps({"signature_name": SIGNATURE, "instances": instances}).encode()
        status, answer = self._post(f"/v1/models/{self._server.model}:predict", body)
        if status != http.HTTPStatus.OK:
            text = answer[:SHOWN].decode("utf-8", "replace")
            raise Unanswered(f"HTTP {status}: {text!r}", status in (408, 429, 502, 503, 504))
        try:
            rows = json.loads(answer)["predictions"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unanswered(f"the answer holds no predictions ({type(error).__name__})", again=False) from None
        if not isinstance(rows, list) or len(rows) != len(files) or not all(isinstance(row, dict) for row in rows):
            raise Unanswered(f"the answer does not hold predictions for {len(files)} files", again=False)
        return rows

    def close(self) -> None:
        self._closed = True
        for connection in list(self._open):
            connection.cut()

    def _connection(self):
        if not hasattr(self._of_thread, "connection"):
            self._of_thread.connection = _Connection(self._server.address, self._server.seconds, self._context)
            self._open.add(self._of_thread.connection)
        return self._of_thread.connection

    def _post(self, path, body):
        """Return the status and body of the answer. The limits of time and size cover its headers too."""
        connection, late = self._connection(), threading.Event()

        def end():
            late.set()
            connection.cut()

        timer = threading.Timer(self._server.seconds, end)
        timer.daemon = True
        timer.start()
        try:
            if self._closed:
                raise Unanswered("not sent: interrupted", again=False)
            connection.request("POST", path, body, self._headers)
            response = connection.getresponse()
            answer = response.read(self._most + 1)
            if late.is_set() or len(answer) > self._most:
                raise http.client.HTTPException(f"an answer of more than {self._most:_} bytes")
            return response.status, answer
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: TLS that was cut
            connection.close()
            if late.is_set() or isinstance(error, TimeoutError):
                raise Unanswered(f"timeout: no whole answer within {self._server.seconds:g} s", again=True) from None
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise Unanswered(reason[:SHOWN], again=isinstance(error, OSError | http.client.HTTPException)) from None
        finally:
            timer.cancel()


class _Connection(http.client.HTTPConnection):
    """Hold a connection that another thread can cut, whatever it waits for."""

    def __init__(self, address, seconds, context):
        try:
            super().__init__(address, timeout=seconds)
        except http.client.InvalidURL:
            raise UserError(f"--address {address} is not host:port") from None
        self._tls, self._last = context, None

    def connect(self):
        super().connect()
        self._last = self.sock
        if self._tls:
            self.sock = self._last = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock.do_handshake()

    def cut(self):
        # Not self.sock: that is None already while an answer without a declared length is read.
        with contextlib.suppress(OSError, TypeError):  # not connected, or not any more
            socket.socket.shutdown(self._last, socket.SHUT_RDWR)


def _tls_context(authority):
    try:
        return ssl.create_default_context(cadata=_read(authority).decode())
    except (ssl.SSLError, ValueError) as error:
        raise UserError(f"{authority} is not a certificate in PEM ({error})") from None


def _read(path):
    return read_file(path, SECRET_BYTES, "certificate")


def read_token(word: str) -> str:
    """Return the token in the first line of a file. Raises UserError."""
    path = shell_path(word).absolute()
    lines = read_file(path, SECRET_BYTES, "token file").decode("utf-8", "replace").splitlines()
    if not lines or not TOKEN.fullmatch(lines[0]):
        raise UserError(f"token file {path} must begin with a line of 8 or more ASCII characters without spaces")
    return lines[0]


# --- Checking an answer ---------------------------------------------------------------------------------------------


def line_of(row: Row, names: Sequence[str] | None) -> dict:
    """Return the line of a picture: its boxes, scores and classes, or an error if the row makes no sense.

    names  of the classes, to write them instead of numbers; None for numbers
    """
    try:
        valid = _numbers(row, "valid_detections", "iu", ()).item()
        if valid == -1:
            return {"error": "cannot be decoded"}
        if valid < 0:
            raise ValueError(f"valid_detections is {valid}")
        boxes = _numbers(row, "boxes", "fiu", (valid, 4))
        scores = _numbers(row, "scores", "fiu", (valid,))
        classes = _numbers(row, "classes", "iu", (valid,)).tolist()
        count = MOST_CLASSES if names is None else len(names)
        for number in classes:
            if not 0 <= number < count:
                raise ValueError(f"class {number} is not one of {count}")
    except ValueError as error:
        return {"error": f"the answer makes no sense: {error}"}
    return {
        "boxes": boxes.astype(float).round(2).tolist(),
        "scores": scores.astype(float).round(5).tolist(),
        "classes": classes if names is None else [names[number] for number in classes],
    }


def _numbers(row, name, kinds, shape):
    """Return the first shape[0] entries of an output. Raises ValueError unless they are numbers of that shape."""
    if shape[:1] == (0,):
        return np.zeros(shape, int)
    try:
        array = np.asarray(row[name])
        array = array[: shape[0]] if shape else array
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError):
        raise ValueError(f"{name} is missing or not an array") from None
    if array.dtype.kind not in kinds or array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} is not {'whole numbers' if kinds == 'iu' else 'finite numbers'} of shape {shape}")
    return array
