"""Serves a model by Ray Serve, in TensorFlow Serving's words: REST, gRPC, and a page to drop pictures on.

python tools/serving/server.py                                          what configs.py means, on this machine
python tools/serving/server.py checkpoints/yolov4-tiny-openvino-INT8-416 --replicas 2
python tools/serving/server.py checkpoints/yolov4-416 --gpus 1 --most-replicas 8 --address 10.0.0.1:6379
python tools/serving/client.py photos/ --output boxes.jsonl             asks it, as any client of TensorFlow Serving

Pictures of requests that come together are detected as one batch. A picture that cannot be decoded is answered by
valid_detections -1. When --queue requests wait, more are refused: 429, or RESOURCE_EXHAUSTED by gRPC. SIGTERM and
Ctrl-C: nothing new is taken, what is under way is answered, Ray ends.

It listens on this machine only, unless --host says otherwise; give it --token-file and --tls-cert then. Ray's own ports
listen on all addresses and run what they are sent: a Ray of our own asks for a secret that only it knows, the machines
of a cluster belong into a private network. Needs: pip install -r requirements/serving-ray.txt
"""

import os
import re
import secrets
import ssl
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs from any directory

from tools.serving.asking import read_token
from yolov3 import configs
from yolov3.checkpoint import find, is_weights, read_model
from yolov3.checks import UserError, as_given, check_count, say_it_in_one_line, shell_path
from yolov3.downloads import fetch_weights
from yolov3.loading import configured_model
from yolov3.settings import ScriptParser

MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
RAY_OF_OUR_OWN = {
    "RAY_AUTH_MODE": "token",  # its ports are open to all who reach this machine: nobody else knows the secret
    "RAY_max_direct_call_object_size": "2000000",  # bytes: most pictures need no shared memory, which costs 2 ms each
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",  # a tenth, as it is else, costs 2 % of a core
}


def parse_arguments():
    parser = ScriptParser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="folder, its name under checkpoints/, or .weights (configs.py's)")
    parser.add_argument("--name", default="yolo", help="of the model, for clients (yolo)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1); 0.0.0.0: all")
    parser.add_argument("--rest-port", type=int, default=8501, help="of REST and the page (8501); 0: any free one")
    parser.add_argument("--grpc-port", type=int, default=8500, help="of gRPC (8500); 0: any free one")
    parser.add_argument("--batch", type=int, default=8, help="pictures detected at a time, at most (8)")
    parser.add_argument("--wait", type=float, default=5, help="milliseconds that a batch waits to fill (5)")
    parser.add_argument("--replicas", type=int, default=1, help="processes, each with the model (1)")
    parser.add_argument("--most-replicas", type=int, help="so many while requests wait (--replicas)")
    parser.add_argument("--cpus", type=int, help="CPUs, and threads of the network, of each (what a machine has)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each; 0.5: two share one (0)")
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster (one of our own, on this machine)")
    parser.add_argument("--queue", type=int, default=64, help="requests that may wait; more are refused (64)")
    parser.add_argument("--request-pictures", type=int, default=32, help="pictures in a request, at most (32)")
    parser.add_argument("--request-mb", type=int, default=32, help="megabytes of a request, at most (32)")
    parser.add_argument("--timeout", type=float, default=30, help="seconds that a request may take (30)")
    parser.add_argument("--token-file", metavar="FILE", help="its first line is a token that requests must bring")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain, PEM: REST and gRPC by TLS")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    arguments = parser.parse_args()
    arguments.most_replicas = arguments.most_replicas or arguments.replicas
    for name in ("batch", "replicas", "most_replicas", "cpus", "queue", "request_pictures", "request_mb"):
        if getattr(arguments, name) is not None:
            check_count(f"--{name.replace('_', '-')}", getattr(arguments, name), 1)
    if arguments.most_replicas < arguments.replicas:
        raise UserError(f"--most-replicas {arguments.most_replicas} is less than --replicas {arguments.replicas}")
    if not 0 <= arguments.gpus < 1e3 or (arguments.gpus > 1 and arguments.gpus % 1):
        raise UserError(f"--gpus {arguments.gpus:g} must be a whole number, or a part of one")
    for name, least, most in (("wait", 0, 1e4), ("timeout", 1, 1e4), ("request_mb", 1, 1e3)):
        if not least <= getattr(arguments, name) <= most:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {getattr(arguments, name):g} must be from {least:g} to {most:g}")
    if not MODEL_NAME.fullmatch(arguments.name):
        raise UserError(f"--name {arguments.name!r} must be of letters, digits, dots, - and _")
    return arguments


def read_tls(certificate, key):
    """Return the paths of a certificate and its key, tried, or None if neither is given. Raises UserError."""
    if not certificate and not key:
        return None
    if not (certificate and key):
        raise UserError("--tls-cert and --tls-key belong together: give both")
    pair = shell_path(certificate).absolute(), shell_path(key).absolute()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair, password="")  # or it would ask for one
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UserError(f"--tls-cert {pair[0]} and --tls-key {pair[1]} do not work: {error}") from None
    return pair


def find_model(word):
    """Return the ModelSpec and Path of the weights that the command line, or else configs.py, means."""
    if word is None:
        return configured_model()
    weights = find(as_given(word), configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
    is_conversion = weights.is_dir() and not is_weights(weights)
    return configured_model(weights, input_size=read_model(weights).input_size if is_conversion else None)


def warn(arguments):
    """Say on standard error what an address that others reach lacks."""
    for option, lack in (("token_file", "anybody who reaches it may ask"), ("tls_cert", "anybody on the way may read")):
        if getattr(arguments, option) is None:
            print(f"{arguments.host} without --{option.replace('_', '-')}: {lack}", file=sys.stderr)


def import_ray():
    """Import what needs Ray. Not before this: Ray reads its environment as it is imported."""
    try:
        from tools.serving import doors, running
    except ImportError as error:
        raise UserError(f"{error}: pip install -r requirements/serving-ray.txt") from None
    return doors, running


@say_it_in_one_line
def main():
    # 1. What to serve
    started, arguments = time.monotonic(), parse_arguments()
    token = read_token(arguments.token_file) if arguments.token_file else None
    tls = read_tls(arguments.tls_cert, arguments.tls_key)
    spec, weights = find_model(arguments.checkpoint)
    fetch_weights(weights)

    # 2. Where
    if arguments.address is None:
        os.environ.update(RAY_OF_OUR_OWN, RAY_AUTH_TOKEN=secrets.token_hex())
    doors, running = import_ray()
    listener = doors.listen(arguments.host, arguments.rest_port)
    if arguments.grpc_port:
        doors.listen(arguments.host, arguments.grpc_port).close()
    if not doors.is_local(arguments.host):
        warn(arguments)
    print(f"{spec}: Ray starts, which takes half a minute", flush=True)

    # 3. Until SIGTERM or Ctrl-C
    terminal = sys.stdout  # what Ray prints meanwhile is not for the user

    def tell_ready(rest, grpc):
        seconds = time.monotonic() - started
        print(f"{arguments.name} is served after {seconds:.0f} s: {rest} and gRPC {grpc}", file=terminal, flush=True)

    place = doors.Place(arguments.host, arguments.grpc_port, listener, token, tls)
    running.serve_model(spec, weights, arguments, place, tell_ready)
    print("ended")


if __name__ == "__main__":
    sys.exit(main())
