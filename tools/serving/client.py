"""Send pictures to tools/serving/server.py or TensorFlow Serving, and write a JSON line for each.

python tools/serving/client.py photos/ --output boxes.jsonl            by gRPC, at localhost:8500
python tools/serving/client.py photos/ --rest                          by REST, at localhost:8501
python tools/serving/client.py "photos/*.jpg" --address host:8500 --batch 4 --in-flight 16

A request that a busy server refuses, or that gets no answer, is sent again after 0.1, 0.2, 0.4 ... seconds. A picture
that cannot be decoded, or that gets no answer or a wrong one, has a line with an error. Ctrl-C keeps the answers
received so far. It needs: pip install -r requirements/serving.txt
"""

import argparse
import codecs
import collections
import contextlib
import itertools
import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any directory

from tools.serving.protocol_clients import (
    GrpcClient,
    PredictClient,
    RestClient,
    Server,
    Unanswered,
    line_of,
    read_token,
)
from yolov3 import configs
from yolov3.checks import UserError, check_count, printable, read_class_names, say_it_in_one_line, shell_path
from yolov3.files import check_output, new_part, told_in_one_line
from yolov3.media.sources import Pictures, open_source
from yolov3.settings import ScriptParser

import numpy as np
from tqdm import tqdm

FIRST_WAIT = 0.1  # seconds before a request is sent again; doubled each time, plus up to as much at random
POLL = 0.1  # seconds between two checks whether a signal has come


# --- Sending -------------------------------------------------------------------------------------------------------


def send(
    client: PredictClient, paths: list[Path], retries: int, names: tuple[str, ...] | None, end: threading.Event
) -> tuple[list[dict], float | None]:
    """Send the pictures of one request. Return the line of each, and the seconds of the answered call or None.

    names  of the classes, to write them instead of numbers
    end    set when the program is to end, so that nothing is sent again
    """
    read, lines = [], {}
    for path in paths:
        try:
            read.append((path, path.read_bytes()))
        except OSError as error:
            lines[path] = {"source": str(path), "error": f"cannot be read: {error.strerror}"}
    rows, seconds, reason = None, None, None
    for pause in itertools.chain((FIRST_WAIT * 2**i for i in range(retries)), [None]) if read else ():
        started = time.perf_counter()
        try:
            rows = client([data for _, data in read])
            seconds = time.perf_counter() - started
            break
        except Unanswered as error:
            reason = str(error)
            if pause is None or not error.again or end.wait(pause * (1 + random.random())):
                break
    for i, (path, _) in enumerate(read):
        lines[path] = {"source": str(path), **({"error": reason} if rows is None else line_of(rows[i], names))}
    return [lines[path] for path in paths], seconds


class Threads:
    """Call a function in threads that, unlike those of a ThreadPoolExecutor, do not keep the program from ending."""

    def __init__(self, function: Callable, count: int):
        self._function, self._items = function, queue.SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, item) -> Future:
        future = Future()
        self._items.put((future, item))
        return future

    def _work(self):
        while True:
            future, item = self._items.get()
            try:
                future.set_result(self._function(item))
            except BaseException as error:
                future.set_exception(error)


def answers(threads: Threads, requested: Iterable, count: int, end: threading.Event) -> Iterator:
    """Yield the result of each request, in order, with at most `count` of them begun in advance.

    Once `end` is set, only results that are complete already follow.
    """
    begun = collections.deque()
    requested = iter(requested)
    while not end.is_set():
        begun.extend(threads.submit(item) for item in itertools.islice(requested, count - len(begun)))
        if not begun:
            return
        wait([begun[0]], POLL)
        if begun[0].done():
            yield begun.popleft().result()
    yield from (future.result() for future in begun if future.done())


@contextlib.contextmanager
def signals_set(end: threading.Event) -> Iterator[list[int]]:
    """Let the first SIGINT or SIGTERM set `end`. Give a list that will hold its number."""
    came = []

    def handle(number, _):
        end.set()
        came.append(number)
        signal.signal(number, before[number])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup has them ignored
            signal.signal(number, handle)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept_lines(path: Path | None) -> Iterator[TextIO]:
    """Give the terminal or a new file to write lines to. A file with lines is kept, whatever ends the program."""
    if path is None:
        yield sys.stdout
        return
    with told_in_one_line(path):
        part = new_part(path)
        try:
            with part.open("w", encoding="utf-8", errors="backslashreplace") as out:
                yield out
        finally:
            if part.stat().st_size:
                part.replace(path)
            else:
                part.unlink()


# --- The command line ----------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("source", help="picture, folder or glob")
    parser.add_argument("--output", metavar="PATH", type=Path, help="file to write (the terminal)")
    parser.add_argument("--rest", action="store_true", help="send by REST instead of gRPC")
    parser.add_argument("--address", help="host:port of the server (localhost:8500, by REST localhost:8501)")
    parser.add_argument("--model", default="yolo", help="name of the model on the server (yolo)")
    parser.add_argument("--names", metavar="FILE", help="names file, to write class names instead of numbers")
    parser.add_argument("--batch", type=int, default=1, help="pictures in a request (1)")
    parser.add_argument("--in-flight", type=int, default=8, help="requests that wait for an answer at a time (8)")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for a whole answer (10)")
    parser.add_argument("--retries", type=int, default=5, help="times that a request is sent again (5)")
    parser.add_argument("--token-file", metavar="FILE", help="its first line is the token that the server requires")
    parser.add_argument("--tls-ca", metavar="FILE", help="certificate to trust, PEM: use TLS")
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


def make_client(arguments: argparse.Namespace) -> PredictClient:
    """Return the client that the command line describes. Raises UserError."""
    kind, port = (RestClient, 8501) if arguments.rest else (GrpcClient, 8500)
    server = Server(
        arguments.address or f"localhost:{port}",
        arguments.model,
        arguments.timeout,
        authority=shell_path(arguments.tls_ca).absolute() if arguments.tls_ca else None,
        token=read_token(arguments.token_file) if arguments.token_file else None,
    )
    return kind(server, arguments.batch)


@say_it_in_one_line
def main() -> int:
    # 1. What to send, and where
    arguments = parse_arguments()
    pictures = open_source(arguments.source, configs.YOLO_MAX_PIXELS)
    if not isinstance(pictures, Pictures):
        raise UserError(f"{arguments.source} is not a picture, folder or glob")
    client, end = make_client(arguments), threading.Event()
    requested = [pictures.paths[i : i + arguments.batch] for i in range(0, len(pictures.paths), arguments.batch)]

    # 2. Send many requests at a time and write the lines in the order of the pictures; names need not be Unicode
    seconds, errors, started = [], collections.Counter(), time.monotonic()
    with (
        kept_lines(arguments.output) as out,
        signals_set(end) as came,
        tqdm(total=len(pictures.paths), unit=" pictures", disable=None) as bar,
    ):
        threads = Threads(
            lambda paths: send(client, paths, arguments.retries, arguments.names, end), arguments.in_flight
        )
        for lines, took in answers(threads, requested, 2 * arguments.in_flight, end):
            seconds += [] if took is None else [took]
            for line in lines:
                errors[line.get("error")] += 1
                out.write(json.dumps(line, ensure_ascii=codecs.lookup(out.encoding).name != "utf-8") + "\n")
            out.flush()
            bar.update(len(lines))
        client.close()

    # 3. Report
    total, answered = time.monotonic() - started, errors.pop(None, 0)
    print(f"{answered} of {len(pictures.paths)} pictures answered, {answered / total:.1f} a second", file=sys.stderr)
    if seconds:
        p50, p90, p99 = 1000 * np.percentile(seconds, [50, 90, 99])
        print(f"a request: p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms", file=sys.stderr)
    for reason, count in errors.most_common():
        print(printable(f"error: {count} pictures: {reason}"), file=sys.stderr)
    if came:
        missing = len(pictures.paths) - answered - sum(errors.values())
        print(f"interrupted: {missing} pictures have no line", file=sys.stderr)
        sys.stdout.flush()
        os._exit(128 + came[0])  # Python's own way to end takes a second or two with TensorFlow loaded
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
