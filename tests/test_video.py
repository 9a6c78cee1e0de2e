"""The pipeline: order, bounded queues, newest frame first for live pictures, errors in the right thread."""

import threading
import time

from yolov3.media.threads import QUEUE_FRAMES, ReadAhead, WriteBehind

import pytest


def numbers(count, log=None):
    for i in range(count):
        if log is not None:
            log.append(i)
        yield i


def test_read_ahead_keeps_order_and_loses_nothing():
    assert list(ReadAhead(numbers(500))) == list(range(500))


def test_read_ahead_never_runs_further_ahead_than_its_queue():
    log = []
    reader = ReadAhead(numbers(100, log))
    time.sleep(0.3)
    assert len(log) <= QUEUE_FRAMES + 1
    reader.close()


def test_read_ahead_of_a_live_source_gives_the_newest_frame():
    shown, read = threading.Event(), threading.Event()

    def camera():
        yield "first"
        shown.wait(60)
        yield from range(50)
        read.set()

    frames = iter(ReadAhead(camera(), newest_only=True))
    assert next(frames) == "first"
    shown.set()
    assert read.wait(60)  # a slow detector
    assert next(frames) == 49


def test_read_ahead_asks_while_nothing_comes_whether_to_give_up():
    stay_away = threading.Event()

    def lost_camera():
        yield "last"
        stay_away.wait(60)

    asked = []
    reader = ReadAhead(lost_camera(), newest_only=True, give_up=lambda: asked.append(True) or len(asked) == 2)
    assert list(reader) == ["last"]
    assert len(asked) == 2
    stay_away.set()
    reader.close()


def test_an_error_of_the_reader_reaches_the_caller_behind_the_frames_before_it():
    def broken():
        yield 1
        raise ValueError("torn")

    frames = iter(ReadAhead(broken()))
    assert next(frames) == 1
    with pytest.raises(ValueError, match="torn"):
        next(frames)


def test_closing_a_reader_ends_its_thread_and_its_source():
    ended = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            ended.append(True)

    reader = ReadAhead(endless())
    next(iter(reader))
    reader.close()
    assert ended == [True]
    assert not reader._thread.is_alive()


def test_write_behind_writes_all_in_order_before_it_closes():
    written = []

    def slow(item):
        time.sleep(0.001)
        written.append(item)

    writer = WriteBehind(slow)
    for i in range(100):
        writer.put(i)
    writer.close()
    assert written == list(range(100))


def test_an_error_of_the_writer_reaches_the_caller_and_never_blocks_it():
    def full_disk(item):
        raise OSError("no space")

    writer = WriteBehind(full_disk)
    with pytest.raises(OSError, match="no space"):
        for _ in range(10 * QUEUE_FRAMES):
            writer.put(0)
    with pytest.raises(OSError, match="no space"):
        writer.close()


def test_an_interrupt_in_the_middle_of_a_put_does_not_leave_the_writer_waiting():
    """It leaves a waiter of the queue's condition behind, which takes the wake-up of the next item."""
    writer = WriteBehind(print)
    while not writer._queue.not_empty._waiters:
        time.sleep(0.01)
    left = threading.Lock()
    left.acquire()
    writer._queue.not_empty._waiters.appendleft(left)
    closing = threading.Thread(target=writer.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
