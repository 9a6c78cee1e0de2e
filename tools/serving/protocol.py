"""Define TensorFlow Serving's protocol for a model with the signature `detect_bytes`: requests, answers and errors.

`rest_server.py` and `grpc_server.py` transport them.
"""

import base64
import binascii
import enum
from http import HTTPStatus
from typing import NamedTuple

from yolov3.boxes import MAX_BOXES

import numpy as np

SIGNATURE = "detect_bytes"
INPUT = "image_bytes"
VERSION = 1
OUTPUTS = {  # name -> dtype and shape behind that of the batch
    "boxes": (np.float32, (MAX_BOXES, 4)),
    "scores": (np.float32, (MAX_BOXES,)),
    "classes": (np.int32, (MAX_BOXES,)),
    "valid_detections": (np.int32, ()),
}
DTYPES = {np.float32: "DT_FLOAT", np.int32: "DT_INT32"}


class Reason(enum.Enum):
    """List the reasons why a request has no answer, each with its HTTP status and the name of its gRPC status."""

    INVALID = HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT"
    NO_TOKEN = HTTPStatus.UNAUTHORIZED, "UNAUTHENTICATED"
    NOT_FOUND = HTTPStatus.NOT_FOUND, "NOT_FOUND"
    TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "INVALID_ARGUMENT"
    FULL = HTTPStatus.TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"
    FAILED = HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL"
    UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE"
    TIMEOUT = HTTPStatus.GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"


class Refused(Exception):
    """Tell the client why its request has no answer."""

    def __init__(self, reason: Reason, text: str):
        super().__init__(text)
        self.reason = reason


class Found(NamedTuple):
    """Hold what was found in one picture."""

    boxes: np.ndarray  # float32 (n, 4), x1, y1, x2, y2 in pixels
    scores: np.ndarray  # float32 (n,)
    classes: np.ndarray  # int32 (n,)


def check_model(served: str, name: str, version: int | None) -> None:
    """Raise Refused for a model or version that is not the one served."""
    if name != served or version not in (None, VERSION):
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise Refused(Reason.NOT_FOUND, f"Servable not found for request: {asked}; this server has {served}")


def check_signature(name: str) -> None:
    """Raise Refused for a signature that is not the one served. An empty name means the default."""
    if name not in ("", SIGNATURE):
        raise Refused(Reason.INVALID, f'Serving signature name: "{name}" not found: this server has "{SIGNATURE}"')


def as_arrays(answers: list[Found | None]) -> dict[str, np.ndarray]:
    """Return the outputs of `detect_bytes` for a list of pictures; None is one that could not be decoded."""
    outputs = {name: np.zeros((len(answers), *shape), dtype) for name, (dtype, shape) in OUTPUTS.items()}
    for i, found in enumerate(answers):
        outputs["valid_detections"][i] = -1 if found is None else len(found.scores)
        for name in Found._fields if found else ():
            outputs[name][i, : len(found.scores)] = getattr(found, name)
    return outputs


# --- JSON ------------------------------------------------------------------------------------------------------------


def read_request(body: object) -> tuple[list[bytes], bool]:
    """Return the picture files of a request, parsed JSON, and whether it wants its answer by rows.

    A request with "instances" is answered by rows, a request with "inputs" by columns. Raises Refused.
    """
    if not isinstance(body, dict):
        raise Refused(Reason.INVALID, "the request is not a JSON object")
    signature = body.get("signature_name", "")
    if not isinstance(signature, str):
        raise Refused(Reason.INVALID, "signature_name is not a string")
    check_signature(signature)
    if ("instances" in body) == ("inputs" in body):
        raise Refused(Reason.INVALID, 'the request needs "instances" or "inputs", and not both')
    by_rows = "instances" in body
    values = body["instances"] if by_rows else body["inputs"]
    if not by_rows and isinstance(values, dict) and set(values) == {INPUT}:
        values = values[INPUT]
    if not isinstance(values, list):
        raise Refused(Reason.INVALID, f"{'instances' if by_rows else INPUT} is not a list")
    return [_file_of(value) for value in values], by_rows


def _file_of(value):
    """Return the bytes of one picture: {"image_bytes": {"b64": ...}} or, since there is one input, {"b64": ...}."""
    if isinstance(value, dict) and set(value) == {INPUT}:
        value = value[INPUT]
    if not (isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)):
        raise Refused(Reason.INVALID, f'a picture must be {{"{INPUT}": {{"b64": "..."}}}}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Reason.INVALID, f"{INPUT} is not in base64") from None


def write_answer(answers: list[Found | None], by_rows: bool) -> dict:
    """Return the answer to the request of `read_request`, to be written as JSON."""
    columns = {name: array.tolist() for name, array in as_arrays(answers).items()}
    if not by_rows:
        return {"outputs": columns}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


# --- Status and metadata ---------------------------------------------------------------------------------------------


def status(is_ready: bool) -> dict:
    """Return the answer of GET /v1/models/NAME."""
    state = "AVAILABLE" if is_ready else "LOADING"
    return {
        "model_version_status": [
            {"version": str(VERSION), "state": state, "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def signature_def() -> dict:
    """Return the SignatureDefMap of the model, as protobuf's JSON writes it."""

    def tensor(name, dtype, shape):
        dimensions = [{"size": str(size), "name": ""} for size in (-1, *shape)]
        return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}

    outputs = {name: tensor(name, DTYPES[dtype], shape) for name, (dtype, shape) in OUTPUTS.items()}
    signature = {
        "inputs": {INPUT: tensor(INPUT, "DT_STRING", ())},
        "outputs": outputs,
        "method_name": "tensorflow/serving/predict",
    }
    return {"signature_def": {SIGNATURE: signature}}


def metadata(model: str) -> dict:
    """Return the answer of GET /v1/models/NAME/metadata."""
    spec = {"name": model, "signature_name": "", "version": str(VERSION)}
    return {"model_spec": spec, "metadata": {"signature_def": signature_def()}}
