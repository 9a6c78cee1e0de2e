"""Ray, and its workers: processes with a detector each, on one machine or many, which write the parts they are given.

Plain actors and a queue of parts, not a pool of Ray Data: that starts an actor anew for ever, whatever ended it (seen
on 2.60: a worker that lacks a package, and the job never ends), and wants the names of all pictures beforehand.
"""

import collections
import contextlib
import itertools
import logging
import math
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yolov3  # noqa: F401  before TensorFlow, which it keeps quiet

# isort: split
import numpy as np
import ray
import tensorflow as tf
from cluster_listing import first_line
from cluster_parts import run_file, write_part
from tqdm import tqdm

from yolov3 import configs
from yolov3.detector import Load_Yolo_model
from yolov3.images import picture_of
from yolov3.settings import PROJECT, UserError

CONNECT_SECONDS = 10
OBJECT_STORE = 100 * 2**20  # bytes of shared memory for a Ray of our own: all it carries is names and counts
READERS = 8  # threads of a worker that read and decode ahead
LOSSES = 3  # workers lost in a row, for each there is, before it is no accident


# --- A worker ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a worker needs to know."""

    output: Path
    model: str  # for the rows
    constants: dict  # of configs.py, as the script has read it
    batch_size: int
    cpus: int  # and threads of the network
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
    """An actor. Its methods raise UserError if the whole job cannot go on."""

    def __init__(self, job):
        self.job, self.detector = job, None

    def load(self):
        """The detector, once; threads before TensorFlow starts any."""
        if self.detector:
            return
        if not run_file(self.job.output).exists():
            raise UserError(
                f"output {self.job.output} is not there on machine {os.uname().nodename}: it must lie in a folder that "
                "all machines share"
            )
        tf.config.threading.set_intra_op_parallelism_threads(self.job.cpus)
        tf.config.threading.set_inter_op_parallelism_threads(self.job.cpus)
        vars(configs).update(self.job.constants)  # this process is ours, and configs.py may have changed meanwhile
        self.detector = Load_Yolo_model()

    def detect(self, number, pictures):
        """Writes a part: a row for each picture -> Done."""
        started, rows = time.monotonic(), []
        with ThreadPoolExecutor(READERS) as pool:
            ahead = read_ahead(pool, self.read, pictures.pictures(), READERS + self.job.batch_size)
            try:
                while batch := list(itertools.islice(ahead, self.job.batch_size)):
                    rows += self.rows(batch)
            except OSError as error:
                raise UserError(f"{first_line(error)}; parts already written are kept") from None
        write_part(self.job.output, number, rows)
        boxes, unreadable = sum(len(row["scores"]) for row in rows), sum(row["error"] is not None for row in rows)
        return Done(number, len(rows), boxes, unreadable, time.monotonic() - started)

    def read(self, name, get_bytes):
        try:
            return Read(name, picture_of(get_bytes(), name, configs.YOLO_MAX_PIXELS), None)
        except UserError as error:
            return Read(name, None, str(error))

    def rows(self, batch):
        """A list of Read -> rows by cluster_parts.SCHEMA."""
        found = iter(self.detector([read.frame for read in batch if read.error is None]))
        return [self.row(read, next(found) if read.error is None else None) for read in batch]

    def row(self, read, found):
        row = {"path": as_text(read.name), "model": self.job.model, "error": read.error and as_text(read.error)}
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
    modules = os.pathsep.join([str(PROJECT), str(PROJECT / "tools")])
    if address is None:  # "local": else Ray may look for one that an old file tells of
        options = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    else:
        check_answers(address)
        options = {"address": address}
    options |= {"log_to_driver": False, "logging_level": logging.CRITICAL}
    # Of a lost machine Ray tells pages, on standard output
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            ray.init(**options, runtime_env={"env_vars": {"PYTHONPATH": modules}})
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"Ray does not start: {first_line(error)}") from None
        try:
            yield
        finally:
            ray.shutdown()


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


def start_worker(job):
    """-> the actor, which may have to wait for room."""
    return ray.remote(Worker).options(num_cpus=job.cpus, num_gpus=job.gpus).remote(job)


def detect_parts(numbers, cut, start, count):
    """Yields Done for each part, as they come. The part of a worker that is lost goes to another.

    numbers  of the parts; cut  number -> its pictures; start() -> a worker; count  of workers
    """
    todo, under_way, losses = collections.deque(numbers), {}, 0

    def hire():
        worker = start()
        under_way[worker.load.remote()] = worker, None

    for _ in range(count):
        hire()
    while todo or any(number is not None for _, number in under_way.values()):
        (ended,), _ = ray.wait(list(under_way))
        worker, number = under_way.pop(ended)
        try:
            done = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            raise UserError(told(error)) from None
        except ray.exceptions.RayError as error:
            losses += 1
            if losses > LOSSES * count:
                reason = str(error).strip().splitlines()[-1][:300]
                raise UserError(
                    f"{losses} workers were lost, one after the other ({reason}): is a machine short of memory, or "
                    "without this project and its packages?"
                ) from None
            tqdm.write(f"a worker is lost{'' if number is None else f': part {number} goes to another'}", sys.stderr)
            todo.extendleft([] if number is None else [number])
            hire()
            continue
        if done:
            losses = 0
            yield done
        if todo:
            number = todo.popleft()
            under_way[worker.detect.remote(number, cut(number))] = worker, number


def told(error):
    """What a worker has raised, in one line."""
    if isinstance(error.cause, UserError):
        return str(error.cause)
    return f"a worker failed: {type(error.cause).__name__}: {first_line(error.cause)}"
