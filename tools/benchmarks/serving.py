"""Call the `detect_bytes` of a checkpoint from several threads, as a server would, and measure rate, latency and AP.

python -m tools.benchmarks.serving checkpoints/yolov4-tiny-416             on TEST_ANNOT_PATH, a thread for each core
python -m tools.benchmarks.serving checkpoints/yolov4-tiny-neuron-416 mine.txt --threads 4 --batch 8

Neuron needs one thread for each of its cores. Every picture is sent once and counted, also those of the last, smaller
request. AP needs a folder whose detect_bytes answers low scores, so convert with YOLO_SCORE_THRESHOLD = 0.005.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from yolov3 import configs
from yolov3.annotations.cli import read_pictures
from yolov3.checks import UserError, as_given, check_count, say_it_in_one_line
from yolov3.conversion import read_served
from yolov3.detector import Detections
from yolov3.evaluation import score
from yolov3.runtimes import savedmodel
from yolov3.runtimes.neuron import import_compiler
from yolov3.settings import ScriptParser

import numpy as np
import tensorflow as tf

HIGHEST_SCORE = 0.005  # highest threshold with which AP can be measured
WARM_UP = 3  # requests before the measurement


def drive(
    detect_bytes: Callable, files: list[bytes], batch: int, threads: int
) -> tuple[list[tuple], list[float], float]:
    """Send all files once, in requests of `batch`.

    Return (index, boxes, scores, classes) of each file, or (index, None) if it cannot be decoded, the seconds of each
    request, and the seconds of all.
    """
    requests, lock, answers, latencies = iter(range(0, len(files), batch)), threading.Lock(), [], []

    def work():
        while True:
            with lock:
                first = next(requests, None)
            if first is None:
                return
            started = time.perf_counter()
            found = detect_bytes(image_bytes=tf.constant(files[first : first + batch]))
            found = {name: x.numpy() for name, x in found.items()}
            latencies.append(time.perf_counter() - started)
            for i, valid in enumerate(found["valid_detections"]):
                rows = [found[name][i, :valid] for name in ("boxes", "scores", "classes")] if valid >= 0 else [None]
                answers.append((first + i, *rows))

    for _ in range(WARM_UP):
        detect_bytes(image_bytes=tf.constant(files[:batch]))
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for worker in [pool.submit(work) for _ in range(threads)]:
            worker.result()
    return sorted(answers, key=lambda answer: answer[0]), latencies, time.perf_counter() - started


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("checkpoint", help="folder of a SavedModel, or its name under checkpoints/")
    parser.add_argument("annotations", nargs="?", help="annotation file (TEST_ANNOT_PATH)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="requests at a time (number of cores)")
    parser.add_argument("--batch", type=int, default=1, help="pictures in a request (1)")
    arguments = parser.parse_args()
    for option in ("threads", "batch"):
        check_count(f"--{option}", getattr(arguments, option), 1)
    return arguments


@say_it_in_one_line
def main() -> None:
    # 1. The model and the pictures
    arguments = parse_arguments()
    folder, model, about = read_served(arguments.checkpoint)
    if model.framework == "neuron":
        import_compiler(about.get("chip"))
    checked = read_pictures(as_given(arguments.annotations or configs.TEST_ANNOT_PATH), len(model.classes))
    files = [record.picture.read_bytes() for record in checked.records]

    # 2. Detect on all pictures once
    detect_bytes = savedmodel.load(folder, "detect_bytes")
    answers, latencies, seconds = drive(detect_bytes, files, arguments.batch, arguments.threads)
    found = {i: Detections(*rows, model.classes) for i, *rows in answers if rows[0] is not None}
    if not found:
        raise UserError("none of the pictures can be decoded")

    # 3. Report
    percentiles = ", ".join(f"p{p} {1000 * np.percentile(latencies, p):.1f} ms" for p in (50, 90, 95, 99))
    print(f"{model.name} at {model.input_size}, {model.framework} {model.precision}, {arguments.threads} threads")
    print(f"{len(answers)} pictures, {len(answers) - len(found)} of them damaged, in {len(latencies)} requests")
    print(f"{len(answers) / seconds:.1f} pictures a second; a request: {percentiles}")
    scores = score(found, checked.records, checked.sizes, model.classes, seconds, [])
    print(f"AP50 {100 * scores.AP50:.1f}, AP {100 * scores.AP:.1f}")
    if about["score_threshold"] > HIGHEST_SCORE:
        only = f"AP counts scores over {about['score_threshold']:g} only"
        print(f"{only}: to measure the whole AP, convert with YOLO_SCORE_THRESHOLD = {HIGHEST_SCORE}")


if __name__ == "__main__":
    main()
