"""Reader, detector and writer side by side, each in its own thread, with bounded queues between them.

    source -> ReadAhead -> (the caller's thread: detector) -> WriteBehind -> files

Nothing here knows what is read, detected or written.
"""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

QUEUE_FRAMES = 4  # waiting before and behind the detector: enough to even out, few enough to stay small
END = object()


class Signals:
    """How a job is ended early: by Ctrl-C, or by SIGTERM or SIGHUP, which raise KeyboardInterrupt(number) in the main
    thread, unless the caller's program does something itself about them.

    `finish` ignores them from then on: a second, impatient one must not tear what is being finished. `restore` ends it.
    """

    def __init__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # only it may change signals
            self._before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
            for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # Windows lacks SIGHUP
                if number and signal.getsignal(number) == signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._interrupt)

    @staticmethod
    def _interrupt(number, stack):
        raise KeyboardInterrupt(number)

    def finish(self) -> None:
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        for stream in (1, 2):  # SIGHUP may mean that the terminal is closed: what is still printed then goes nowhere
            try:
                os.write(stream, b"")
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class ReadAhead:
    """Runs an iterator in a thread of its own, some frames ahead. Iterate over it; close it when done.

    frames       a generator
    newest_only  drop the frame that waits when a newer one comes, so that a live picture never lags
    give_up      called while no frame comes, five times a second; the iteration ends when it returns True
    Raises, behind the frames before it, what the iterator raised.
    """

    def __init__(self, frames: Generator, newest_only: bool = False, give_up: Callable[[], bool] = lambda: False):
        self._frames, self._newest_only, self._give_up = frames, newest_only, give_up
        self._queue: queue.Queue = queue.Queue(1 if newest_only else QUEUE_FRAMES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __iter__(self):
        while True:
            try:
                frame = self._queue.get(timeout=0.2)
            except queue.Empty:
                if self._give_up():
                    return
                continue
            if frame is END:
                return
            if isinstance(frame, BaseException):
                raise frame
            yield frame

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=0.5)  # a camera or stream that hangs does not hold up the rest

    def _work(self):
        last = END
        try:
            with contextlib.closing(self._frames):
                for frame in self._frames:
                    if self._newest_only:
                        with contextlib.suppress(queue.Empty):
                            self._queue.get_nowait()
                    if not _put(self._queue, frame, self._stop):
                        break
        except BaseException as error:  # whatever it is, the caller's thread gets it
            last = error
        _put(self._queue, last, self._stop)


class WriteBehind:
    """Calls a function for each item put, in order, in a thread of its own. Close it to wait for the last one.

    Both `put` and `close` raise what the function raised.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._queue: queue.Queue = queue.Queue(QUEUE_FRAMES)
        self._failed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        if not _put(self._queue, item, self._failed):
            assert self._error
            raise self._error

    def close(self) -> None:
        _put(self._queue, END, self._failed)
        self._thread.join()
        if self._error:
            raise self._error

    def _work(self):
        try:
            while (item := _get(self._queue)) is not END:
                self._function(item)
        except BaseException as error:  # whatever it is, the caller's thread gets it
            self._error = error
            self._failed.set()


def _get(waiting):
    """Return the next item of a queue as soon as there is one.

    It looks by itself each second: Ctrl-C in the middle of a `put` may leave a waiter behind to which the next `put`
    gives the wake-up that was meant for this thread.
    """
    while True:
        with contextlib.suppress(queue.Empty):
            return waiting.get(timeout=1)


def _put(to, item, unless):
    """Put an item into a queue as soon as there is room; return False if the event comes first."""
    while not unless.is_set():
        with contextlib.suppress(queue.Full):
            to.put(item, timeout=0.1)
            return True
    return False
