"""Serve a model by Ray Serve with TensorFlow Serving's REST and gRPC, and a page on which to drop a picture.

python tools/serving/server.py                                          the model of configs.py, on this machine
python tools/serving/server.py checkpoints/yolov4-tiny-openvino-INT8-416 --replicas 2
python tools/serving/server.py checkpoints/yolov4-416 --gpus 1 --most-replicas 8 --address 10.0.0.1:6379
python tools/serving/client.py photos/ --output boxes.jsonl             sends pictures to it

Pictures of requests that arrive together are detected as one batch. A picture that cannot be decoded is answered by
valid_detections -1. While --queue requests wait, more are refused: HTTP 429, or RESOURCE_EXHAUSTED by gRPC. After
SIGTERM or Ctrl-C nothing new is accepted, the requests in progress are answered, and Ray ends.

The server listens on this machine only, unless --host names another address: then give --token-file and --tls-cert too.
Ray's own ports listen on all addresses and execute what is sent to them. A Ray that this program starts requires a
secret token that nobody else has; the machines of a cluster belong in a private network. It needs:
pip install -r requirements/serving-ray.txt
"""

import os
import re
import secrets
import ssl
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any directory

from tools.serving.protocol_clients import read_token
from yolov3 import configs
from yolov3.checkpoint import find, is_weights, read_model
from yolov3.checks import UserError, as_given, check_count, say_it_in_one_line, shell_path
from yolov3.downloads import fetch_weights
from yolov3.loading import configured_model
from yolov3.settings import ScriptParser

MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
OWN_RAY = {  # the environment of a Ray that this program starts
    "RAY_AUTH_MODE": "token",  # its ports are open to all who reach this machine: nobody else has the token
    "RAY_max_direct_call_object_size": "2000000",  # bytes: a smaller picture needs no shared memory, which costs 2 ms
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",  # the default of 0.1 costs 2 % of a core
}


def parse_arguments():
    parser = ScriptParser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="folder, its name under checkpoints/, or .weights (configs.py's)")
    parser.add_argument("--name", default="yolo", help="name of the model for clients (yolo)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1); 0.0.0.0 for all")
    parser.add_argument("--rest-port", type=int, default=8501, help="port of REST and the page (8501); 0 for any")
    parser.add_argument("--grpc-port", type=int, default=8500, help="port of gRPC (8500); 0 for any")
    parser.add_argument("--batch", type=int, default=8, help="most pictures detected at a time (8)")
    parser.add_argument("--wait", type=float, default=5, help="milliseconds that a batch waits for more pictures (5)")
    parser.add_argument("--replicas", type=int, default=1, help="processes, each with the model (1)")
    parser.add_argument("--most-replicas", type=int, help="so many while requests wait (--replicas)")
    parser.add_argument("--cpus", type=int, help="CPUs and threads of a replica (those of a machine, shared evenly)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a replica; with 0.5 two share one (0)")
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster (Ray is started on this machine)")
    parser.add_argument("--queue", type=int, default=64, help="most requests that wait; more are refused (64)")
    parser.add_argument("--request-pictures", type=int, default=32, help="most pictures in a request (32)")
    parser.add_argument("--request-mb", type=int, default=32, help="most megabytes of a request (32)")
    parser.add_argument("--timeout", type=float, default=30, help="seconds that a request may take (30)")
    parser.add_argument("--token-file", metavar="FILE", help="its first line is a token that every request must have")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain, PEM: REST and gRPC use TLS")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    arguments = parser.parse_args()
    arguments.most_replicas = arguments.most_replicas or arguments.replicas
    for name in ("batch", "replicas", "most_replicas", "cpus", "queue", "request_pictures", "request_mb"):
        if getattr(arguments, name) is not None:
            check_count(f"--{name.replace('_', '-')}", getattr(arguments, name), 1)
    if arguments.most_replicas < arguments.replicas:
        raise UserError(f"--most-replicas {arguments.most_replicas} is less than --replicas {arguments.replicas}")
    if not 0 <= arguments.gpus < 1e3 or (arguments.gpus > 1 and arguments.gpus % 1):
        raise UserError(f"--gpus {arguments.gpus:g} must be a whole number or less than 1")
    for name, least, most in (("wait", 0, 1e4), ("timeout", 1, 1e4), ("request_mb", 1, 1e3)):
        if not least <= getattr(arguments, name) <= most:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {getattr(arguments, name):g} must be from {least:g} to {most:g}")
    if not MODEL_NAME.fullmatch(arguments.name):
        raise UserError(f"--name {arguments.name!r} may hold only letters, digits, dots, - and _")
    return arguments


def read_tls(certificate, key):
    """Return the paths of a certificate and its key, or None if neither is given. Raises UserError if they are bad."""
    if not certificate and not key:
        return None
    if not (certificate and key):
        raise UserError("--tls-cert and --tls-key belong together: give both")
    pair = shell_path(certificate).absolute(), shell_path(key).absolute()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair, password="")  # or OpenSSL asks on the terminal
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UserError(f"--tls-cert {pair[0]} and --tls-key {pair[1]} cannot be used: {error}") from None
    return pair


def find_model(word):
    """Return the ModelSpec and Path of the weights named by the command line, or else by configs.py."""
    if word is None:
        return configured_model()
    weights = find(as_given(word), configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
    is_conversion = weights.is_dir() and not is_weights(weights)
    return configured_model(weights, input_size=read_model(weights).input_size if is_conversion else None)


def warn_of_open_host(arguments):
    """Say on standard error what an address lacks that other machines reach."""
    for option, lack in (
        ("token_file", "anyone who reaches it may send requests"),
        ("tls_cert", "anyone on the network may read them"),
    ):
        if getattr(arguments, option) is None:
            print(f"--host {arguments.host} without --{option.replace('_', '-')}: {lack}", file=sys.stderr)


def import_ray_serve():
    """Return the modules that need Ray, which reads its environment while it is imported."""
    try:
        from tools.serving import listeners, ray_serve
    except ImportError as error:
        raise UserError(f"{error}: pip install -r requirements/serving-ray.txt") from None
    return listeners, ray_serve


@say_it_in_one_line
def main():
    # 1. The model
    started, arguments = time.monotonic(), parse_arguments()
    token = read_token(arguments.token_file) if arguments.token_file else None
    tls = read_tls(arguments.tls_cert, arguments.tls_key)
    spec, weights = find_model(arguments.checkpoint)
    fetch_weights(weights)

    # 2. Where to listen
    if arguments.address is None:
        os.environ.update(OWN_RAY, RAY_AUTH_TOKEN=secrets.token_hex())
    listeners, ray_serve = import_ray_serve()
    rest_socket = listeners.open_socket(arguments.host, arguments.rest_port)
    listeners.open_socket(arguments.host, arguments.grpc_port).close()  # a port in use is told before Ray starts
    if not listeners.is_loopback(arguments.host):
        warn_of_open_host(arguments)
    ray_is = f"joining the Ray cluster at {arguments.address}" if arguments.address else "starting Ray"
    print(f"{spec}: {ray_is}, which takes up to half a minute", flush=True)

    # 3. Serve until SIGTERM or Ctrl-C
    terminal = sys.stdout  # ray_running replaces sys.stdout while Ray prints its own lines

    def when_ready(rest, grpc):
        seconds = time.monotonic() - started
        print(f"{arguments.name} is served after {seconds:.0f} s: {rest} and gRPC {grpc}", file=terminal, flush=True)

    endpoint = listeners.Endpoint(arguments.host, arguments.grpc_port, rest_socket, token, tls)
    ray_serve.serve_model(spec, weights, arguments, endpoint, when_ready)
    print("ended")


if __name__ == "__main__":
    sys.exit(main())
