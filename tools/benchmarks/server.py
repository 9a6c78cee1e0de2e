"""Measure tools/serving/server.py by gRPC and REST beside the bare detector: pictures a second, latency, CPU time.

python -m tools.benchmarks.server checkpoints/yolov4-tiny-416 photos/
python -m tools.benchmarks.server checkpoints/yolov4-tiny-openvino-INT8-416 photos/ --rounds 5 --markdown server.md
python -m tools.benchmarks.server checkpoints/yolov4-tiny-416 photos/ --server "--replicas 2 --batch 4"

Every contender decodes the same picture files. In each round, in shuffled order, the clients send all pictures to the
server, one picture a request and each client one request at a time; a process of its own calls the detector on one
picture after another. CPU seconds are those of the server with all processes of Ray, and of the process with the loop,
without those of the clients. Requests of one byte show the cost of all but decoding and network.
"""

import contextlib
import itertools
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools.benchmarks.measuring import describe_machine, markdown, run_in_rounds
from tools.serving.protocol_clients import GrpcClient, RestClient, Server
from yolov3 import configs
from yolov3.checks import PROJECT, UserError, as_given, check_count, say_it_in_one_line
from yolov3.files import check_output, whole_file
from yolov3.images import picture_of
from yolov3.media.sources import Pictures, open_source
from yolov3.settings import ScriptParser, constants

import numpy as np
import psutil
import requests

SERVER = PROJECT / "tools" / "serving" / "server.py"
READY = re.compile(r"is served after \d+ s: (http://\S+)/ and gRPC (\S+)")
START_SECONDS = 300
ANSWER_SECONDS = 60
WARM_UP = 32  # requests
BATCHES = re.compile(r"^yolo_batch_pictures_(sum|count) (\S+)$", re.MULTILINE)


class Round(NamedTuple):
    """Hold the figures of one round of a contender."""

    rate: float  # pictures a second
    cpu: float  # milliseconds a picture
    latencies: list  # milliseconds of each request
    batch: float  # pictures in a batch, on average


# --- The bare detector ------------------------------------------------------------------------------------------------


def detect_in_loop(pipe, checkpoint, files, settings):
    """Answer each number of pictures that comes through the pipe by the seconds of each. It runs in its own process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    vars(configs).update(settings)
    from tools.serving.server import find_model
    from yolov3.loading import Load_Yolo_model

    spec, weights = find_model(checkpoint)
    detector = Load_Yolo_model(weights, input_size=spec.input_size)
    again = itertools.cycle(files)
    pipe.send(str(spec))
    while count := pipe.recv():
        seconds = []
        for file in itertools.islice(again, count):
            started = time.perf_counter()
            detector([picture_of(file, "of the benchmark", configs.YOLO_MAX_PIXELS)])
            seconds.append(time.perf_counter() - started)
        pipe.send(seconds)


@contextlib.contextmanager
def bare_detector(checkpoint, files, count):
    """Give a function that runs a round of the bare detector, and its description."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=detect_in_loop, args=(theirs, checkpoint, files, constants()))
    process.start()
    description = ours.recv()
    watched = psutil.Process(process.pid)

    def run(pictures=count):
        before, started = cpu_seconds(watched), time.perf_counter()
        ours.send(pictures)
        latencies = ours.recv()
        took = time.perf_counter() - started
        cpu = 1000 * (cpu_seconds(watched) - before) / pictures
        return Round(pictures / took, cpu, [1000 * x for x in latencies], 1)

    try:
        run(WARM_UP)
        yield run, description
    finally:
        ours.send(0)
        process.join()


# --- The server ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server_running(checkpoint, options):
    """Give a server's process and the addresses of REST and gRPC."""
    command = [sys.executable, SERVER, checkpoint, "--rest-port", "0", "--grpc-port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if found := READY.search(line):
                    break
            else:
                raise UserError("the server does not start, for the reason above")
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield psutil.Process(process.pid), *found.groups()
        finally:
            process.send_signal(signal.SIGTERM)


def send_requests(call, files, clients, count):
    """Return the milliseconds of each of `count` requests, of one file each."""
    lock, left, latencies = threading.Lock(), iter(range(count)), []

    def work():
        while True:
            with lock:
                i = next(left, None)
            if i is None:
                return
            started = time.perf_counter()
            call([files[i % len(files)]])
            latencies.append(1000 * (time.perf_counter() - started))

    with ThreadPoolExecutor(clients) as pool:
        for worker in [pool.submit(work) for _ in range(clients)]:
            worker.result()
    return latencies


def run_round(process, rest, call, files, clients, count):
    """Run one round against the server."""
    before, batches = cpu_seconds(process), read_batches(rest)
    started = time.perf_counter()
    latencies = send_requests(call, files, clients, count)
    took = time.perf_counter() - started
    pictures, formed = (after - earlier for after, earlier in zip(read_batches(rest), batches, strict=True))
    return Round(count / took, 1000 * (cpu_seconds(process) - before) / count, latencies, pictures / formed)


def read_batches(rest):
    """Return how many pictures came in how many batches, by the server's metrics."""
    found = dict(BATCHES.findall(requests.get(f"{rest}/metrics", timeout=ANSWER_SECONDS).text))
    return float(found["sum"]), float(found["count"])


def cpu_seconds(process):
    """Return the CPU seconds of a process and its descendants; those that ended count with their parents."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


# --- The command line ------------------------------------------------------------------------------------------------


def parse_arguments():
    parser = ScriptParser(__doc__)
    parser.add_argument("checkpoint", help="folder, or its name under checkpoints/")
    parser.add_argument("source", help="pictures: a folder or glob")
    parser.add_argument("--pictures", type=int, default=400, help="in a round, repeated if there are fewer (400)")
    parser.add_argument("--clients", type=int, default=16, help="that send requests at the same time (16)")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each (3)")
    parser.add_argument("--server", default="", metavar="OPTIONS", help="of tools/serving/server.py, in quotes")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table there too")
    arguments = parser.parse_args()
    for name in ("pictures", "clients", "rounds"):
        check_count(f"--{name}", getattr(arguments, name), 1)
    if arguments.markdown:
        check_output(arguments.markdown, (".md",))
    return arguments


def given_settings(arguments):
    """Return the --config and --set of this script as options for the server."""
    return [f"--{name}={word}" for name in ("config", "set") for word in getattr(arguments, name)]


def row(name, rounds, loop):
    """Return a contender's row of the table; the loop's own has no ratio."""
    rate, cpu = (np.median([getattr(x, field) for x in rounds]) for field in ("rate", "cpu"))
    p50, p99 = np.percentile(np.concatenate([x.latencies for x in rounds]), [50, 99])
    times = f"{cpu / np.median([x.cpu for x in loop]):.2f}"
    batch = f"{np.mean([x.batch for x in rounds]):.1f}"
    return [name, f"{rate:.1f}", f"{p50:.0f}", f"{p99:.0f}", f"{cpu:.1f}", times, batch]


@say_it_in_one_line
def main():
    # 1. The pictures and the model
    arguments = parse_arguments()
    pictures = open_source(arguments.source, configs.YOLO_MAX_PIXELS)
    if not isinstance(pictures, Pictures):
        raise UserError(f"{arguments.source} is not a folder or glob of pictures")
    files = [path.read_bytes() for path in pictures.paths]
    checkpoint = str(as_given(arguments.checkpoint))

    # 2. The rounds
    options = [*given_settings(arguments), *shlex.split(arguments.server)]
    with (
        server_running(checkpoint, options) as (
            process,
            rest,
            grpc,
        ),
        bare_detector(checkpoint, files, arguments.pictures) as (loop, description),
    ):
        by_grpc = GrpcClient(Server(grpc, "yolo", ANSWER_SECONDS), 1)
        by_rest = RestClient(Server(rest.removeprefix("http://"), "yolo", ANSWER_SECONDS), 1)
        ways = {"gRPC": (by_grpc, files), "REST": (by_rest, files), "gRPC, one byte": (by_grpc, [b"?"])}
        calls = {"bare detector": loop}
        for name, (call, asked) in ways.items():
            send_requests(call, asked, arguments.clients, WARM_UP)
            calls[name] = lambda call=call, asked=asked: run_round(
                process, rest, call, asked, arguments.clients, arguments.pictures
            )
        rounds = run_in_rounds(calls, arguments.rounds, "server")
        before = cpu_seconds(process)
        time.sleep(10)
        idle = 10 * (cpu_seconds(process) - before)

    # 3. The results
    header = "|pictures a second|p50, ms|p99, ms|CPU, ms a picture|of the loop's|batch"
    report = "\n\n".join(
        [
            describe_machine("ray", "grpcio", "openvino"),
            f"{shlex.join(['python', *sys.argv])}: {description}, {len(files)} files of "
            f"{np.mean([len(x) for x in files]) / 1e3:.0f} KB, {arguments.clients} clients, {arguments.pictures} "
            f"pictures a round, {arguments.rounds} rounds. The idle server takes {idle:.1f} % of a core.",
            markdown(header, [row(name, rounds[name], rounds["bare detector"]) for name in calls]),
        ]
    )
    print(f"\n{report}\n")
    if arguments.markdown:
        with whole_file(arguments.markdown) as part:
            part.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
