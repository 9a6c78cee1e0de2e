"""Start Ray or connect to a cluster, for a cluster job and for a server, quietly; see how much room it has."""

import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from yolov3 import configs
from yolov3.checks import PROJECT, UserError, first_line
from yolov3.settings import constants

import ray
from ray.exceptions import AuthenticationError

CONNECT_SECONDS = 10
OBJECT_STORE = 100 * 2**20  # bytes of shared memory if this program starts Ray: only names and counts go through it
TOKEN_REMEDY = "if the cluster asks for a token, set RAY_AUTH_MODE=token and copy its ~/.ray/auth_token to this machine"
THREADS = ("YOLO_OPENVINO_THREADS", "YOLO_ONNX_THREADS", "YOLO_TFLITE_THREADS")  # 0 would be all of the machine


def configured_constants(cpus: int) -> dict:
    """Return the constants of configs.py as they are now, for other processes. A network gets `cpus` threads."""
    return {**constants(), **{name: getattr(configs, name) or cpus for name in THREADS}}


@contextlib.contextmanager
def ray_running(address: str | None, object_store: int = OBJECT_STORE) -> Iterator[None]:
    """Connect to the Ray cluster at an address or, for None, start Ray on this machine for as long as the context.

    object_store  bytes of shared memory of a Ray that is started
    """
    if address is None:  # without "local" Ray may look for a cluster that an old file names
        options = {"address": "local", "include_dashboard": False, "object_store_memory": object_store}
    else:
        check_answers(address)
        options = {"address": address}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # or it warns of each pool on standard error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it reports to its makers
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    options |= {"log_to_driver": False, "logging_level": logging.CRITICAL}
    # Ray writes pages about a lost machine to standard output
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            with no_stderr():  # where Ray's C++ writes the level at which it logs
                ray.init(**options, runtime_env={"env_vars": {"PYTHONPATH": str(PROJECT)}})
        except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
            reason = first_line(error).split(". ")[0]
            if address is None:
                raise UserError(f"Ray does not start: {reason}") from None
            raise UserError(f"the Ray cluster at --address {address} cannot be used ({reason})", TOKEN_REMEDY) from None
        end_by_signals()
        try:
            yield
        finally:
            ray.shutdown()


def end_by_signals() -> None:
    """Make SIGTERM and SIGHUP end the program as Ctrl-C does, with the exit code that shells expect.

    It must be called after ray.init, which replaces Python's handler of SIGTERM by one in C++ that prints its stack and
    aborts.
    """

    def end(number, stack):
        sys.unraisablehook = lambda _: None  # what Ray's executor, collected after Ray has ended, raises to nobody
        sys.exit(128 + number)

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # Windows lacks SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup has SIGHUP ignored
            signal.signal(number, end)


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
    """Discard what is written to standard error, also by C++."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_answers(address: str) -> None:
    """Raise UserError if nothing listens at an address. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        raise UserError(
            f"no Ray cluster answers at --address {address}: give the HOST:PORT that ray start --head prints"
        ) from None


def plan_workers(workers: int | None, cpus: int | None, gpus: float) -> tuple[int, int]:
    """Return the number of workers and the CPUs of each. None means one worker for each machine, with all its CPUs.

    Raises UserError if there is not room for a single worker.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not machines:
        raise UserError("the cluster has no machine with CPUs: add one by ray start --address=...")
    workers = workers or len(machines)
    cpus = cpus or max(1, int(min(machine["CPU"] for machine in machines)) // math.ceil(workers / len(machines)))
    wanted = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    room = sum(int(min(machine.get(kind, 0) // amount for kind, amount in wanted.items())) for machine in machines)
    if not room:
        raise UserError(f"no machine has {cpus} CPUs and {gpus:g} GPUs for a worker: lower --cpus or --gpus")
    if room < workers:
        print(f"there is room for {room} of {workers} workers now; the others wait", file=sys.stderr)
    return workers, cpus


def warn_if_full(cpus: int, gpus: float) -> None:
    """Say on standard error if a worker has to wait, because others use the cluster."""
    free = ray.available_resources()
    for kind, amount in (("CPU", cpus), ("GPU", gpus)):
        if free.get(kind, 0) < amount:
            room = f"{free.get(kind, 0):g} of the {amount:g} {kind}s of a worker"
            print(f"only {room} are free in the cluster now: waiting for more", file=sys.stderr)
