"""Measure what workers and Ray cost: pictures a second by one worker and by two, beside the detector in a loop.

python -m tools.benchmarks.cluster photos/                                      the configured model
python -m tools.benchmarks.cluster photos/ --random yolov4 --pictures 32        full YOLOv4, random weights
python -m tools.benchmarks.cluster photos/ --rounds 7 --markdown cluster.md

Every network, also that of the bare detector, has --cpus threads. In each round, in shuffled order, one worker of
tools/Detect_cluster.py and, where there are enough cores, two detect on all pictures, from the files to the parts on
disk, and the bare detector is called in a loop on the same pictures, decoded before, in batches of the same size. The
time of workers begins when the last of them is loaded and warmed up, and ends when Ray Data reports the last part. The
ratios are those of the medians of one run.
"""

import argparse
import functools
import itertools
import math
import os
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tools.benchmarks.measuring import describe_machine, markdown, run_in_rounds
from tools.benchmarks.preparing import write_random_weights
from tools.cluster.listing import Files, local_pictures
from tools.cluster.parts import run_file
from tools.cluster.ray_cluster import configured_constants, ray_running
from tools.cluster.workers import Worker, WorkerSettings, detect_parts
from yolov3 import configs
from yolov3.checks import UserError, check_count, choose, say_it_in_one_line
from yolov3.detector import Detector
from yolov3.files import check_output, whole_file
from yolov3.images import read_picture
from yolov3.loading import Load_Yolo_model, configured_model
from yolov3.networks import NETWORKS
from yolov3.settings import ScriptParser
from yolov3.sizes import size_name

import numpy as np
import tensorflow as tf

BUDGETS = (  # least ratio of the pictures a second of the first to those of the second
    ("2 workers", "1 worker", 1.6),
    ("1 worker", "bare detector", 0.9),
)


class Starter(Worker):
    """Make a worker that waits for the others after warming up."""

    def load(self) -> None:
        """Load the detector, warm it up and wait until all workers have done so."""
        if self.detector:
            return
        super().load()
        self.detector([np.zeros((480, 640, 3), np.uint8)] * self.settings.batch_size)
        (self.settings.output / f"ready-{os.getpid()}").touch()
        while len(list(self.settings.output.glob("ready-*"))) < self.settings.workers:
            time.sleep(0.001)


def bare(names: list[str], frames: dict[str, np.ndarray], detector: Detector, batch_size: int) -> float:
    """Return the pictures a second of the detector in a loop. `frames` holds the decoded pictures by name."""
    started = time.perf_counter()
    for first in range(0, len(names), batch_size):
        detector([frames[name] for name in names[first : first + batch_size]])
    return len(names) / (time.perf_counter() - started)


def by_workers(names: list[str], settings: WorkerSettings, part_size: int) -> float:
    """Return the pictures a second of Ray Data, without the time to start."""
    for file in settings.output.glob("ready-*"):
        file.unlink()
    parts = [(first, Files(names[first : first + part_size])) for first in range(0, len(names), part_size)]
    for _ in detect_parts(settings, parts, Starter):
        ended = time.time()
    return len(names) / (ended - max(file.stat().st_mtime for file in settings.output.glob("ready-*")))


def configure_random(name: str, folder: Path, frame: np.ndarray) -> None:
    """Configure random weights of a built-in network, with the classes of COCO, and write them to the folder."""
    weights = folder / f"{name}.weights"
    weights.touch()
    configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY = NETWORKS[name].type, NETWORKS[name].tiny
    configs.TRAIN_CLASSES = configs.YOLO_COCO_CLASSES
    configs.YOLO_FRAMEWORK, configs.YOLO_CUSTOM_WEIGHTS = "tf", str(weights)
    model, _ = configured_model()
    write_random_weights(model, weights, frame)


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("source", help="pictures: a folder or glob")
    parser.add_argument("--random", metavar="TYPE", help=f"use random weights of {', '.join(NETWORKS)}")
    parser.add_argument("--pictures", type=int, default=256, help="pictures in a round, some repeated (256)")
    parser.add_argument("--part-size", type=int, help="pictures in a part (an eighth of all, at least a batch)")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures detected at a time (8)")
    parser.add_argument("--cpus", type=int, default=1, help="threads of each network (1)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each (5)")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="also write the tables to this file")
    arguments = parser.parse_args()
    arguments.part_size = arguments.part_size or max(arguments.batch_size, math.ceil(arguments.pictures / 8))
    for name in ("pictures", "part_size", "batch_size", "cpus", "rounds"):
        check_count(f"--{name.replace('_', '-')}", getattr(arguments, name), 1)
    if arguments.part_size >= arguments.pictures:
        raise UserError(f"parts of {arguments.part_size} leave nothing for a second worker: raise --pictures")
    if arguments.cpus > os.cpu_count():
        raise UserError(f"--cpus {arguments.cpus} is more than the {os.cpu_count()} of this machine")
    if arguments.random:
        choose("--random", arguments.random, NETWORKS)
    if arguments.markdown:
        check_output(arguments.markdown, (".md",))
    return arguments


@say_it_in_one_line
def main() -> None:
    arguments = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.cpus)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.cpus)
    again = itertools.cycle(local_pictures(arguments.source, configs.YOLO_MAX_PIXELS))
    names = list(itertools.islice(again, arguments.pictures))
    frames = {name: read_picture(name, configs.YOLO_MAX_PIXELS) for name in names}

    with tempfile.TemporaryDirectory() as folder, ray_running(None):
        # 1. Prepare the contenders
        if arguments.random:
            configure_random(arguments.random, Path(folder), frames[names[0]])
        configs.YOLO_OPENVINO_THREADS = arguments.cpus
        settings = WorkerSettings(
            output=Path(folder),
            model="benchmark",
            constants=configured_constants(arguments.cpus),
            batch_size=arguments.batch_size,
            workers=1,
            cpus=arguments.cpus,
            gpus=0,
        )
        run_file(settings.output).touch()
        detector = Load_Yolo_model()
        bare(names[: arguments.batch_size], frames, detector, arguments.batch_size)

        # 2. Measure pictures a second, in turn
        timers = {"bare detector": functools.partial(bare, names, frames, detector, arguments.batch_size)}
        for count in (1, 2) if os.cpu_count() >= 2 * arguments.cpus else (1,):
            by = functools.partial(by_workers, names, replace(settings, workers=count), arguments.part_size)
            timers["1 worker" if count == 1 else f"{count} workers"] = by
        rates = run_in_rounds(timers, arguments.rounds, detector.spec.name)

    # 3. Report
    medians = {name: np.median(values) for name, values in rates.items()}
    rows = [[name, f"{medians[name]:.2f}", f"{min(rates[name]):.2f} to {max(rates[name]):.2f}"] for name in rates]
    report = [
        describe_machine("ray", "pyarrow", "openvino"),
        f"{shlex.join(['python', *sys.argv])}: {detector.spec.name} at {size_name(detector.spec.input_size)}, "
        f"{detector.spec.framework} {detector.spec.precision}, {arguments.cpus} threads each, batches of "
        f"{arguments.batch_size}, {len(names)} pictures in parts of {arguments.part_size}, {arguments.rounds} rounds",
        markdown("pictures a second|median|of all rounds", rows),
        markdown("ratio|measured|budget|met", [judged(medians, *budget) for budget in BUDGETS if budget[0] in medians]),
    ]
    report = "\n\n".join(report) + "\n"
    print(f"\n{report}")
    if arguments.markdown:
        with whole_file(arguments.markdown) as part:
            part.write_text(report, encoding="utf-8")


def judged(medians: dict[str, float], over: str, under: str, budget: float) -> list[str]:
    """Return the cells of a budget: its ratio, what was measured, and whether that is enough."""
    ratio = medians[over] / medians[under]
    return [f"{over} / {under}", f"{ratio:.2f}", f"at least {budget:.2f}", "yes" if ratio >= budget else "NO"]


if __name__ == "__main__":
    main()
