"""Send pictures to a TensorFlow Serving that runs a folder of tools/Convert_to_pb.py, and write a JSON line for each.

python tools/serving/client.py photos/ --output boxes.jsonl            by gRPC, at localhost:8500
python tools/serving/client.py photos/ --rest                          by REST, at localhost:8501
python tools/serving/client.py "photos/*.jpg" --address host:8500 --batch 4 --in-flight 16

A server that is busy or does not answer is asked again after 0.1, 0.2, 0.4 ... seconds. A picture that it cannot decode
or never answers gets a line with an error. It needs: pip install -r requirements/serving.txt
"""

import argparse
import base64
import codecs
import collections
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any directory

from yolov3 import configs
from yolov3.checks import UserError, check_count, read_class_names, say_it_in_one_line, shell_path
from yolov3.files import check_output, whole_file
from yolov3.media.sources import Pictures, open_source
from yolov3.settings import ScriptParser

import numpy as np
import requests
from tqdm import tqdm

SIGNATURE = "detect_bytes"
OUTPUTS = {"boxes": 3, "scores": 2, "classes": 2, "valid_detections": 1}  # and the number of their dimensions
FIRST_WAIT = 0.1  # seconds before a request is sent again; doubled each time, plus up to as much at random


Caller = Callable[[list[bytes]], dict[str, np.ndarray]]


class Unanswered(Exception):
    """Say why a request has no answer, and whether asking `again` may help."""

    def __init__(self, reason: str, again: bool):
        super().__init__(reason)
        self.again = again


# --- The two ways to ask: each returns a function from the bytes of files to {name: array} ---------------------------


def grpc_caller(address: str, model: str, seconds: float) -> Caller:
    """Return a caller by gRPC, which takes bytes as they are."""
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError:
        raise UserError("gRPC needs its packages: pip install -r requirements/serving.txt, or give --rest") from None
    import tensorflow as tf

    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    predict = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address, unlimited)).Predict
    busy = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED

    def call(files):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, SIGNATURE
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string, [len(files)]))
        try:
            outputs = predict(request, timeout=seconds).outputs
        except grpc.RpcError as error:
            reason = f"{error.code().name.lower().replace('_', ' ')}: {error.details()}".splitlines()[0]
            raise Unanswered(reason, error.code() in busy) from None
        try:
            return {name: tf.make_ndarray(outputs[name]) for name in OUTPUTS if name in outputs}
        except (TypeError, ValueError) as error:
            raise Unanswered(f"the answer holds no arrays ({error})", again=False) from None

    return call


def rest_caller(address: str, model: str, seconds: float) -> Caller:
    """Return a caller by REST. The server takes the bytes in base64, since the name of the input ends in _bytes."""
    url, session = f"http://{address}/v1/models/{model}:predict", requests.Session()

    def call(files):
        instances = [{"image_bytes": {"b64": base64.b64encode(data).decode()}} for data in files]
        try:
            response = session.post(url, json={"signature_name": SIGNATURE, "instances": instances}, timeout=seconds)
        except requests.RequestException as error:
            raise Unanswered(type(error).__name__, again=True) from None
        if response.status_code != 200:
            reason = f"HTTP {response.status_code}: {response.text[:200]!r}"
            raise Unanswered(reason, response.status_code in (429, 503, 504))
        try:
            rows = response.json()["predictions"]
            return {name: np.array([row[name] for row in rows]) for name in OUTPUTS}
        except (ValueError, KeyError, TypeError) as error:
            raise Unanswered(f"the answer holds no predictions ({type(error).__name__})", again=False) from None

    return call


def checked(answers: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return the answers if they are those for `count` files. Raises Unanswered if not."""
    for name, dimensions in OUTPUTS.items():
        shape = answers[name].shape if name in answers else None
        if shape is None or len(shape) != dimensions or shape[0] != count:
            raise Unanswered(f"the answer for {count} files holds {name} of shape {shape}", again=False)
    valid = answers["valid_detections"]
    if (valid < -1).any() or (valid > answers["scores"].shape[1]).any():
        raise Unanswered("the answer holds valid_detections that are out of range", again=False)
    return answers


# --- Asking --------------------------------------------------------------------------------------------------------


def ask(call: Caller, paths: list[Path], retries: int) -> tuple[list[dict], float | None]:
    """Send the pictures of one request. Return a dict for each, and the seconds of the answered call or None."""
    read, lines = [], {}
    for path in paths:
        try:
            read.append((path, path.read_bytes()))
        except OSError as error:
            lines[path] = {"source": str(path), "error": f"cannot be read: {error.strerror}"}
    seconds, reason = None, None
    for wait in itertools.chain((FIRST_WAIT * 2**i for i in range(retries)), [None]) if read else ():
        started = time.perf_counter()
        try:
            answers = checked(call([data for _, data in read]), len(read))
            seconds = time.perf_counter() - started
            break
        except Unanswered as error:
            reason = str(error)
            if wait is None or not error.again:
                break
            time.sleep(wait * (1 + random.random()))
    for i, (path, _) in enumerate(read):
        lines[path] = {"source": str(path), **(result_of(answers, i) if seconds is not None else {"error": reason})}
    return [lines[path] for path in paths], seconds


def result_of(answers: dict[str, np.ndarray], i: int) -> dict:
    """Return what a line says about picture i of a request."""
    valid = int(answers["valid_detections"][i])
    if valid < 0:
        return {"error": "cannot be decoded"}
    return {
        "boxes": answers["boxes"][i, :valid].astype(float).round(2).tolist(),
        "scores": answers["scores"][i, :valid].astype(float).round(5).tolist(),
        "classes": answers["classes"][i, :valid].astype(int).tolist(),
    }


def named(classes: list[int], names: tuple[str, ...]) -> list[str]:
    """Return the names of classes. Raises UserError if there are too few names."""
    if classes and not 0 <= min(classes) <= max(classes) < len(names):
        raise UserError(f"the server answers with class {max(classes)}, but --names has {len(names)} names")
    return [names[i] for i in classes]


def in_flight(pool: ThreadPoolExecutor, function: Callable, items: Iterable, count: int) -> Iterator:
    """Yield function(item) for each item, in order. The pool works on at most `count` items in advance."""
    begun = collections.deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) >= count:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


# --- The command line ----------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("source", help="picture, folder or glob")
    parser.add_argument("--output", metavar="PATH", type=Path, help="file to write (the terminal)")
    parser.add_argument("--rest", action="store_true", help="ask by REST instead of gRPC")
    parser.add_argument("--address", help="host:port of the server (localhost:8500, by REST localhost:8501)")
    parser.add_argument("--model", default="yolo", help="name of the model on the server (yolo)")
    parser.add_argument("--names", metavar="FILE", help="names file, to write class names instead of numbers")
    parser.add_argument("--batch", type=int, default=1, help="pictures in a request (1)")
    parser.add_argument("--in-flight", type=int, default=8, help="requests that wait for an answer at a time (8)")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for an answer (10)")
    parser.add_argument("--retries", type=int, default=5, help="times to ask again (5)")
    arguments = parser.parse_args()
    for name, least in {"batch": 1, "in_flight": 1, "retries": 0}.items():
        check_count(f"--{name.replace('_', '-')}", getattr(arguments, name), least)
    if not 0 < arguments.timeout < 1e6:
        raise UserError(f"--timeout {arguments.timeout:g} must be more than 0 seconds")
    if arguments.output:
        arguments.output = shell_path(arguments.output).absolute()
        check_output(arguments.output, (".jsonl", ".json"))
    arguments.names = read_class_names(shell_path(arguments.names).absolute()) if arguments.names else None
    return arguments


@say_it_in_one_line
def main() -> int:
    # 1. What to send, and where
    arguments = parse_arguments()
    pictures = open_source(arguments.source, configs.YOLO_MAX_PIXELS)
    if not isinstance(pictures, Pictures):
        raise UserError(f"{arguments.source} is not a picture, folder or glob")
    make_caller, port = (rest_caller, 8501) if arguments.rest else (grpc_caller, 8500)
    call = make_caller(arguments.address or f"localhost:{port}", arguments.model, arguments.timeout)
    requested = [pictures.paths[i : i + arguments.batch] for i in range(0, len(pictures.paths), arguments.batch)]

    # 2. Send many requests at a time and write the lines in the order of the pictures; names need not be Unicode
    seconds, errors, started = [], collections.Counter(), time.monotonic()
    with (
        whole_file(arguments.output) if arguments.output else contextlib.nullcontext() as part,
        part.open("w", encoding="utf-8", errors="backslashreplace")
        if part
        else contextlib.nullcontext(sys.stdout) as out,
        ThreadPoolExecutor(arguments.in_flight) as pool,
        tqdm(total=len(pictures.paths), unit=" pictures", disable=None) as bar,
    ):
        answers = in_flight(pool, lambda paths: ask(call, paths, arguments.retries), requested, 2 * arguments.in_flight)
        for lines, took in answers:
            seconds += [] if took is None else [took]
            for line in lines:
                errors[line.get("error")] += 1
                if arguments.names and "classes" in line:
                    line["classes"] = named(line["classes"], arguments.names)
                out.write(json.dumps(line, ensure_ascii=codecs.lookup(out.encoding).name != "utf-8") + "\n")
            bar.update(len(lines))

    # 3. Report
    total, answered = time.monotonic() - started, errors.pop(None, 0)
    print(f"{answered} of {len(pictures.paths)} pictures answered, {answered / total:.1f} a second", file=sys.stderr)
    if seconds:
        p50, p90, p99 = 1000 * np.percentile(seconds, [50, 90, 99])
        print(f"a request: p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms", file=sys.stderr)
    for reason, count in errors.most_common():
        print(f"error: {count} pictures: {reason}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
