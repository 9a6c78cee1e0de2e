"""Ray Data, and its workers: processes with a detector each, on one machine or many, which write the parts they are
given.

The dataset has a row, and a block, for each part: its number and the names of its pictures, no bytes. It is made of
items, so it has no readers for which the actors would have to leave CPUs; an actor reads its pictures itself.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tools.cluster.listing import first_line
from tools.cluster.parts import run_file, write_part
from yolov3 import configs
from yolov3.checks import PROJECT, UserError
from yolov3.images import picture_of
from yolov3.loading import Load_Yolo_model

import cv2
import numpy as np
import ray.data
import tensorflow as tf

CONNECT_SECONDS = 10
OBJECT_STORE = 100 * 2**20  # bytes of shared memory for a Ray of our own: all it carries is names and counts
READERS = 8  # threads of a worker that read and decode ahead
RESTARTS = 10  # of each worker, by Ray, after which its loss is not an accident


def configured_constants(cpus):
    """What configs.py says now, for processes elsewhere."""
    constants = {name: value for name, value in vars(configs).items() if name.isupper()}
    return {**constants, "YOLO_OPENVINO_THREADS": configs.YOLO_OPENVINO_THREADS or cpus}


# --- A worker ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know."""

    output: Path
    model: str  # for the rows
    constants: dict  # of configs.py, as the script has read it
    batch_size: int
    workers: int
    cpus: int  # of each worker, and threads of its network
    gpus: float


class Done(NamedTuple):
    """What a worker tells of a part it has written."""

    number: int
    pictures: int
    boxes: int
    unreadable: int
    seconds: float


class Read(NamedTuple):
    name: str
    frame: np.ndarray | None  # uint8 (H, W, 3), RGB
    error: str | None


class Worker:
    """What an actor of the pool runs. Its methods raise UserError if the whole job cannot go on."""

    def __init__(self, settings):
        self.settings, self.detector = settings, None

    def __call__(self, batch):
        """A row of the dataset -> Done, as a batch of one row."""
        self.load()  # not before: Ray Data hands on what a call raises, of what __init__ raises a traceback's text
        done = self.detect(int(batch["number"][0]), pickle.loads(batch["pictures"][0]))
        return {name: [value] for name, value in done._asdict().items()}

    def load(self):
        """The detector, once; threads before TensorFlow starts any."""
        if self.detector:
            return
        if not run_file(self.settings.output).exists():
            raise UserError(
                f"output {self.settings.output} is not there on machine {os.uname().nodename}: it must lie in a folder "
                "that all machines share"
            )
        tf.config.threading.set_intra_op_parallelism_threads(self.settings.cpus)
        tf.config.threading.set_inter_op_parallelism_threads(self.settings.cpus)
        vars(configs).update(self.settings.constants)  # this process is ours, and configs.py may have changed meanwhile
        self.detector = Load_Yolo_model()
        _, file = cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))
        picture_of(file.tobytes(), "a pixel", max_pixels=1)  # or all threads trace the decoder at once, for seconds

    def detect(self, number, pictures):
        """Writes a part: a row for each picture -> Done."""
        started, rows = time.monotonic(), []
        with ThreadPoolExecutor(READERS) as pool:
            ahead = read_ahead(pool, self.read, pictures.pictures(), READERS + self.settings.batch_size)
            try:
                while batch := list(itertools.islice(ahead, self.settings.batch_size)):
                    rows += self.rows(batch)
            except OSError as error:
                raise UserError(f"{first_line(error)}; parts already written are kept") from None
        write_part(self.settings.output, number, rows)
        boxes, unreadable = sum(len(row["scores"]) for row in rows), sum(row["error"] is not None for row in rows)
        return Done(number, len(rows), boxes, unreadable, time.monotonic() - started)

    def read(self, name, get_bytes):
        try:
            return Read(name, picture_of(get_bytes(), name, configs.YOLO_MAX_PIXELS), None)
        except UserError as error:
            return Read(name, None, str(error))

    def rows(self, batch):
        """A list of Read -> rows by parts.SCHEMA."""
        found = iter(self.detector([read.frame for read in batch if read.error is None]))
        return [self.row(read, next(found) if read.error is None else None) for read in batch]

    def row(self, read, found):
        row = {"path": as_text(read.name), "model": self.settings.model, "error": read.error and as_text(read.error)}
        if found is None:
            return {**row, "boxes": [], "scores": [], "classes": []}
        height, width, _ = read.frame.shape
        lists = {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "classes": found.labels}
        return {**row, "width": width, "height": height, **lists}


def read_ahead(pool, function, items, count):
    """map() by a pool, in order, with `count` items begun ahead of the one that is asked for."""
    begun = collections.deque()
    for item in items:
        begun.append(pool.submit(function, *item))
        if len(begun) > count:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def as_text(name):
    """Parquet's strings are UTF-8; file names need not be."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# --- Ray -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ray_running(address):
    """A cluster's Ray or, for None, one of our own, which ends with this program."""
    if address is None:  # "local": else Ray may look for one that an old file tells of
        options = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    else:
        check_answers(address)
        options = {"address": address}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of each pool on standard error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    options |= {"log_to_driver": False, "logging_level": logging.CRITICAL}
    # Of a lost machine Ray tells pages, on standard output
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            with no_stderr():  # where Ray's C++ tells at which level it logs
                ray.init(**options, runtime_env={"env_vars": {"PYTHONPATH": str(PROJECT)}})
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"Ray does not start: {first_line(error)}") from None
        end_by_signals()
        try:
            yield
        finally:
            ray.shutdown()


def end_by_signals():
    """Make SIGTERM and SIGHUP end the program as Ctrl-C does, with the exit code that shells expect. After ray.init: it
    replaces Python's handler of SIGTERM by one in C++ that prints its stack and aborts."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # Windows lacks SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores one
            signal.signal(number, lambda number, _: sys.exit(128 + number))


@contextlib.contextmanager
def no_stderr():
    """Nothing on standard error, from C++ neither."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_answers(address):
    """Refuses an address where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        raise UserError(
            f"no Ray cluster answers at --address {address}: give the HOST:PORT that ray start --head tells"
        ) from None


def plan_workers(workers, cpus, gpus):
    """-> how many workers, and CPUs of each; None: one for each machine, with all its cores. Raises UserError if there
    is no room for a single one."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not machines:
        raise UserError("the cluster has no machine with CPUs: ray start --address=... adds one")
    workers = workers or len(machines)
    cpus = cpus or max(1, int(min(machine["CPU"] for machine in machines)) // math.ceil(workers / len(machines)))
    wanted = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    room = sum(int(min(machine.get(kind, 0) // amount for kind, amount in wanted.items())) for machine in machines)
    if not room:
        raise UserError(f"no machine has {cpus} CPUs and {gpus:g} GPUs for a worker: lower --cpus or --gpus")
    if room < workers:
        print(f"there is room for {room} of {workers} workers now; the others wait", file=sys.stderr)
    return workers, cpus


def detect_parts(settings, parts, worker=Worker):
    """Yields Done for each part, as they come. Ray gives the part of a worker that is lost to its successor.

    parts  (number, its pictures as a listing has cut them)
    """
    warnings.filterwarnings("ignore", "`ray_remote_args`")  # until 2.64; nothing else bounds max_restarts
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
        raise UserError(told(error)) from None


def told(error):
    """What has ended the job, in one line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return str(cause)
    if cause:
        return f"a worker failed: {type(cause).__name__}: {first_line(cause)}"
    reason = str(error).strip().splitlines()[-1][:300]
    return f"a worker is lost ({reason}): is a machine short of memory, or without this project and its packages?"
