"""Time contenders in turn, measure memory in a process of its own, and describe the machine, for all benchmarks.

TensorFlow is imported inside functions, so that it is not in the process that measures OpenCV's memory.
"""

import contextlib
import importlib.metadata
import multiprocessing
import os
import platform
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType
from typing import Any

from yolov3 import configs
from yolov3.checks import UserError
from yolov3.settings import constants

import cv2
import numpy as np
from tqdm import tqdm


class NotAvailable(UserError):
    """Say why a contender cannot run here. Its row in the table repeats it."""


def not_available(error: UserError) -> str:
    """Return the note of a row: what is wrong, without the remedy, which would make the table too wide."""
    return f"not available: {error.problem}"


def run_in_rounds(calls: dict[Any, Callable[[], Any]], rounds: int, title: str) -> dict[Any, list]:
    """Call each of {name: callable} once a round. Return {name: its answers}.

    The order is shuffled in each round, so that other work of the machine affects all alike.
    """
    answers = {name: [] for name in calls}
    for _ in tqdm(range(rounds), title, unit=" rounds"):
        for name in random.sample(list(calls), len(calls)):
            answers[name].append(calls[name]())
    return answers


def run_in_child(run: Callable, *arguments: Any) -> Any:
    """Return what `run` returns in a process of its own. Raises UserError, also if that process is killed."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin, (constants(),)) as child:
            return child.submit(run, *arguments).result()
    except BrokenProcessPool:
        raise UserError("a process was killed: out of memory?") from None


def begin(settings: dict[str, Any]) -> None:
    """Take over the settings of the process that started this one, and discard standard error, to which TensorFlow
    writes at any log level as it is imported."""
    vars(configs).update(settings)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def timed(call: Callable[[], Any]) -> float:
    """Return the milliseconds that a call takes right after another."""
    call()
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def measure_memory(run: Callable, *arguments: Any) -> tuple[float | None, str]:
    """Return the peak MB of a process that calls `run`, and "", or None and the reason why it cannot."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin, (constants(),)) as child:
            return child.submit(peak_memory, run, *arguments).result(), ""
    except UserError as error:
        return None, not_available(error)
    except BrokenProcessPool:
        return None, "killed: out of memory?"


def peak_memory(run: Callable, *arguments: Any) -> float:
    """Call `run` and return the peak MB of this process; NaN on systems without /proc."""
    run(*arguments)
    status = Path("/proc/self/status")  # getrusage counts what the parent held as it started this process
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6 if status.exists() else np.nan


def describe_machine(*packages: str) -> str:
    """Return the CPU, the GPUs and the versions in one line. Of `packages`, those that are installed are added."""
    from yolov3.runtimes.common import cpu_flags, cpu_info

    import keras
    import tensorflow as tf

    gpus = [tf.config.experimental.get_device_details(x)["device_name"] for x in tf.config.list_physical_devices("GPU")]
    bfloat16 = "bfloat16" if any("bf16" in flag for flag in cpu_flags()) else "no bfloat16"
    versions = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return (
        f"{cpu_info().get('model name', platform.processor())}, {os.cpu_count()} cores, "
        f"{', '.join([bfloat16, *gpus])}; "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"{', '.join([f'OpenCV {cv2.__version__}', f'NumPy {np.__version__}', *versions])}"
    )


def markdown(header: str, rows: list[list[str]]) -> str:
    """Return a Markdown table with aligned columns. `header` holds their titles, separated by |."""
    header = header.split("|")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    justified = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in (header, rule, *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in justified)


def load_pyplot() -> ModuleType:
    """Return Matplotlib's pyplot, set to draw to files without a display. Raises UserError."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("--png needs matplotlib: pip install -r requirements.txt") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
