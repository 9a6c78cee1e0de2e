"""Run a cluster job with Ray Data: workers, processes with a detector each, on one machine or many, write its parts.

The dataset has a row, and a block, for each part: its number and the names of its pictures without their bytes. Actors
read the pictures themselves, so that Ray does not reserve CPUs for reading.
"""

import collections
import contextlib
import itertools
import logging
import math
import os
import pickle
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

from tools.cluster.listing import Files, Rows, first_line
from tools.cluster.parts import run_file, write_part
from yolov3 import configs
from yolov3.checks import PROJECT, UserError
from yolov3.detector import Detections, Timings
from yolov3.images import picture_of
from yolov3.loading import Load_Yolo_model
from yolov3.settings import constants

import cv2
import numpy as np
import ray.data
import tensorflow as tf

CONNECT_SECONDS = 10
OBJECT_STORE = 100 * 2**20  # bytes of shared memory if this program starts Ray: only names and counts go through it
READERS = 8  # threads of a worker that read and decode in advance
RESTARTS = 10  # of a worker by Ray, before the job is given up


def configured_constants(cpus: int) -> dict:
    """Return the constants of configs.py as they are now, for the workers. A network gets `cpus` threads."""
    return {**constants(), "YOLO_OPENVINO_THREADS": configs.YOLO_OPENVINO_THREADS or cpus}


# --- A worker ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerSettings:
    """Hold what a worker needs to know."""

    output: Path
    model: str  # as it is written into the rows
    constants: dict  # of configs.py, as the script has read it
    batch_size: int
    workers: int
    cpus: int  # of each worker, and threads of its network
    gpus: float


class Done(NamedTuple):
    """Report a part that a worker has written."""

    number: int
    pictures: int
    boxes: int
    unreadable: int
    seconds: float
    detected: int  # pictures, and the seconds of the detector's parts for them
    preparing: float
    network: float
    suppression: float


class Read(NamedTuple):
    """Hold a picture that was read, or the reason why it could not be."""

    name: str
    frame: np.ndarray | None  # uint8 (H, W, 3), RGB
    error: str | None


class Worker:
    """Detect in an actor of the pool. The methods raise UserError if the whole job cannot go on."""

    def __init__(self, settings: WorkerSettings):
        self.settings, self.detector = settings, None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Detect on one row of the dataset. Return its Done as a batch of one row."""
        self.load()  # not in __init__: Ray Data would pass on an error there only as the text of a traceback
        done = self.detect(int(batch["number"][0]), pickle.loads(batch["pictures"][0]))
        return {name: [value] for name, value in done._asdict().items()}

    def load(self) -> None:
        """Load the detector once, after setting the number of threads, which TensorFlow then cannot change."""
        if self.detector:
            return
        if not run_file(self.settings.output).exists():
            raise UserError(
                f"output {self.settings.output} is missing on machine {os.uname().nodename}: it must lie in a folder "
                "that all machines share"
            )
        tf.config.threading.set_intra_op_parallelism_threads(self.settings.cpus)
        tf.config.threading.set_inter_op_parallelism_threads(self.settings.cpus)
        vars(configs).update(self.settings.constants)  # configs.py may have changed since the job started
        self.detector = Load_Yolo_model()
        _, file = cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))
        picture_of(file.tobytes(), "a pixel", max_pixels=1)  # or all threads would trace the decoder, for seconds

    def detect(self, number: int, pictures: Files | Rows) -> Done:
        """Detect on the pictures of a part and write it."""
        started, rows, self.detector.timings = time.monotonic(), [], Timings()
        with ThreadPoolExecutor(READERS) as pool:
            ahead = read_ahead(pool, self.read, pictures.pictures(), READERS + self.settings.batch_size)
            try:
                while batch := list(itertools.islice(ahead, self.settings.batch_size)):
                    rows += self.rows(batch)
            except OSError as error:
                raise UserError(f"{first_line(error)}; parts already written are kept") from None
        write_part(self.settings.output, number, rows)
        boxes, unreadable = sum(len(row["scores"]) for row in rows), sum(row["error"] is not None for row in rows)
        seconds, timings = time.monotonic() - started, astuple(self.detector.timings)
        return Done(number, len(rows), boxes, unreadable, seconds, *timings)

    def read(self, name: str, get_bytes: Callable[[], bytes]) -> Read:
        """Read and decode a picture."""
        try:
            return Read(name, picture_of(get_bytes(), name, configs.YOLO_MAX_PIXELS), None)
        except UserError as error:
            return Read(name, None, str(error))

    def rows(self, batch: list[Read]) -> list[dict]:
        """Return the rows of a batch of pictures, with the columns of `parts.SCHEMA`."""
        found = iter(self.detector([read.frame for read in batch if read.error is None]))
        return [self.row(read, next(found) if read.error is None else None) for read in batch]

    def row(self, read: Read, found: Detections | None) -> dict:
        """Return the row of a picture. `found` is None if it could not be read."""
        row = {"path": as_text(read.name), "model": self.settings.model, "error": read.error and as_text(read.error)}
        if found is None:
            return {**row, "boxes": [], "scores": [], "classes": []}
        height, width, _ = read.frame.shape
        lists = {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "classes": found.labels}
        return {**row, "width": width, "height": height, **lists}


def read_ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable[tuple], count: int) -> Iterator:
    """Yield function(*item) for each item, in order. The pool works on up to `count` items in advance."""
    begun = collections.deque()
    for item in items:
        begun.append(pool.submit(function, *item))
        if len(begun) > count:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def as_text(name: str) -> str:
    """Return a file name, which need not be valid UTF-8, as a string that Parquet can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# --- Ray -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ray_running(address: str | None) -> Iterator[None]:
    """Connect to the Ray cluster at an address or, for None, start Ray on this machine for as long as the context."""
    if address is None:  # without "local" Ray may look for a cluster that an old file names
        options = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
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
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"Ray does not start: {first_line(error)}") from None
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


def detect_parts(
    settings: WorkerSettings, parts: Iterable[tuple[int, Files | Rows]], worker: type[Worker] = Worker
) -> Iterator[Done]:
    """Yield Done for each part, in the order in which they finish. Ray gives the part of a lost worker to another.

    parts  the number of each part, and its pictures as `cut` of a listing returns them
    """
    warnings.filterwarnings("ignore", "`ray_remote_args`")  # before 2.64; nothing else limits max_restarts
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a part may take long
    context.raise_original_map_exception = True
    items = [{"number": number, "pictures": pickle.dumps(pictures)} for number, pictures in parts]
    done = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        worker,
        fn_constructor_args=(settings,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(settings.workers, len(items)), max_tasks_in_flight_per_actor=1),
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
        max_restarts=RESTARTS,
    )
    try:
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from (Done(**row) for row in batch.to_pylist())
    except ray.exceptions.RayError as error:
        raise UserError(why_ended(error)) from None


def why_ended(error: ray.exceptions.RayError) -> str:
    """Return in one line what has ended the job."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return str(cause)
    if cause:
        return f"a worker failed: {type(cause).__name__}: {first_line(cause)}"
    reason = str(error).strip().splitlines()[-1][:300]
    return f"a worker is lost ({reason}): is a machine short of memory, or without this project and its packages?"
