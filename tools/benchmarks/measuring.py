"""What the benchmarks share: contenders in turn, memory of a process of its own, the machine, a table.

TensorFlow is imported where it is needed: the process that measures OpenCV's memory does without.
"""

import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import random
import re
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from yolov3.checks import UserError

import cv2
import numpy as np
from tqdm import tqdm


class NotAvailable(UserError):
    """Say why a contender cannot run here. Its row in the table repeats it."""


def not_available(error: UserError) -> str:
    """Return the note of a row: what is wrong, without the remedy, which would make the table too wide."""
    return f"not available: {error.problem}"


def run_in_rounds(calls, rounds, title):
    """{name: callable} -> {name: what it answered in each round}. Each round calls all of them, in shuffled order, so
    that whatever else the machine does hurts all alike."""
    answers = {name: [] for name in calls}
    for _ in tqdm(range(rounds), title, unit=" rounds"):
        for name in random.sample(list(calls), len(calls)):
            answers[name].append(calls[name]())
    return answers


def run_in_child(run, *arguments):
    """What `run` returns, called in a process of its own. Raises UserError too if that is killed."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), hush) as child:
            return child.submit(run, *arguments).result()
    except BrokenProcessPool:
        raise UserError("a process was killed: out of memory?") from None


def hush():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow greets past every log level


def timed(call):
    """Milliseconds that a call takes right after another."""
    call()
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def measure_memory(run, *arguments):
    """(peak MB, "") of a process of its own that calls `run`, or (None, why it cannot)."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), hush) as child:
            return child.submit(peak_memory, run, *arguments).result(), ""
    except UserError as error:
        return None, not_available(error)
    except BrokenProcessPool:
        return None, "killed: out of memory?"


def peak_memory(run, *arguments):
    """MB, of this whole process; NaN where there is no /proc."""
    run(*arguments)
    status = Path("/proc/self/status")  # getrusage would count what the parent held when it started this process
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6 if status.exists() else np.nan


def describe_machine(*packages):
    """One line; the versions of more packages are told where they are installed."""
    from yolov3.runtimes.common import cpu_flags, cpu_info

    import keras
    import tensorflow as tf

    gpus = [tf.config.experimental.get_device_details(x)["device_name"] for x in tf.config.list_physical_devices("GPU")]
    bfloat16 = "bfloat16" if any("bf16" in flag for flag in cpu_flags()) else "no bfloat16"
    versions = [f"{x} {importlib.metadata.version(x)}" for x in packages if importlib.util.find_spec(x)]
    return (
        f"{cpu_info().get('model name', platform.processor())}, {os.cpu_count()} cores, "
        f"{', '.join([bfloat16, *gpus])}; "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"{', '.join([f'OpenCV {cv2.__version__}', f'NumPy {np.__version__}', *versions])}"
    )


def table(header, rows):
    """Lists of str -> a Markdown table that reads well as it is."""
    header = header.split("|")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    justified = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in (header, rule, *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in justified)


def load_pyplot():
    """Matplotlib's pyplot, which draws to files alone."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("--png needs matplotlib: pip install -r requirements.txt") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
