"""Measure speed, accuracy and memory by framework, precision and input size, beside Keras `predict` and OpenCV DNN.

python -m tools.benchmarks.speed                                       the model that detection_demo.py uses
python -m tools.benchmarks.speed --sizes 320 416 512 608 --annotations model_data/digits/digits_test.txt --png bench.png
python -m tools.benchmarks.speed --weights mine.weights --classes mine.names      another model, of the configured type
python -m tools.benchmarks.speed --types yolov4-tiny yolov4 --random              random weights
python -m tools.benchmarks.speed --markdown bench.md --csv bench.csv --frameworks tf openvino --noise

The model is converted for every framework that runs here, by the functions of the converters, into a temporary folder.
Each round times every contender from frame to boxes and its network alone on a prepared batch, in shuffled order, so
that other work of the machine affects all alike. All sizes of a tiny network are measured together, those of a full one
in turn, since several would not fit into memory. Immediately before each timed call comes an untimed one of the same
contender, so that the caches hold its weights, as in use. Peak memory is that of a whole process, including Python and
its libraries, which loads one contender and runs it a few times.
"""

import argparse
import functools
import gc
import itertools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from tools.benchmarks.charts import draw_chart
from tools.benchmarks.contenders import CONTENDERS, FRAMEWORKS, PRECISIONS, Calls, Contender, warm_up
from tools.benchmarks.figures import HEADER, PARTS_HEADER, Row, check_budgets, write_csv
from tools.benchmarks.measuring import (
    describe_machine,
    load_pyplot,
    markdown,
    measure_memory,
    run_in_child,
    run_in_rounds,
    timed,
)
from yolov3 import checks, configs
from yolov3.checks import UserError
from yolov3.files import check_output, whole_file
from yolov3.settings import ScriptParser
from yolov3.sizes import size_of

if TYPE_CHECKING:  # these modules import TensorFlow
    from tools.benchmarks.materials import Material
    from yolov3.annotations.format import Checked
    from yolov3.detector import Detector

import cv2
import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # keeps yolov3 from importing TensorFlow in OpenCV's child

CFG_FOLDER = checks.PROJECT.parent / "shared/data/darknet"  # Darknet's own cfg files, for OpenCV
FRAME_SIZE = 720, 1280  # height and width of the made-up frame, pixels
CHILDREN = 2  # processes that measure peak memory at a time


# --- Measuring -----------------------------------------------------------------------------------------------------


def benchmark(
    materials: "list[Material]", contenders: list[Contender], rounds: int, checked: "Checked | None"
) -> list[Row]:
    """Measure materials together and return their rows, with accuracy if `checked` annotations are given."""
    from tools.benchmarks.preparing import prepare_all

    with tempfile.TemporaryDirectory() as folder:
        # 1. Make what each contender loads, and measure its peak memory
        rows, runnable = [], []
        for setup, made in run_in_child(prepare_all, materials, contenders, Path(folder)):
            for contender, path in zip(contenders, made, strict=True):
                rows.append(Row(contender, setup, note=path if isinstance(path, str) else ""))
                runnable += [] if rows[-1].note else [(rows[-1], path)]
        with ThreadPoolExecutor(CHILDREN) as children:
            jobs = [(warm_up, *loading(row, path)) for row, path in runnable]
            measured = children.map(lambda job: measure_memory(*job), jobs)
            for (row, _), (peak, note) in zip(runnable, measured, strict=True):
                row.peak, row.note = peak, note.replace(f"{folder}/", "")

        # 2. Time all of them in turn
        calls = [(row, warm_up(*loading(row, path))) for row, path in runnable if not row.note]
        title = " ".join(dict.fromkeys(row.setup.type for row in rows))
        timers = {(i, "frame"): functools.partial(timed, each.end_to_end) for i, (_, each) in enumerate(calls)}
        timers |= {(i, "network"): functools.partial(timed, each.network) for i, (_, each) in enumerate(calls)}
        for i, (_, each) in enumerate(calls):
            timers |= {(i, "parts"): functools.partial(timed_parts, each)} if each.detector else {}
            timers |= {(i, "bare"): functools.partial(timed, each.bare)} if each.bare else {}
        milliseconds = run_in_rounds(timers, rounds, title)
        for i, (row, _) in enumerate(calls):
            row.frame, row.p99 = np.percentile(milliseconds[i, "frame"], [50, 99])
            row.network = np.median(milliseconds[i, "network"])
            if (i, "parts") in timers:
                row.parts = tuple(np.median(milliseconds[i, "parts"], 0))
            if (i, "bare") in timers:
                row.bare = np.median(milliseconds[i, "bare"])

        # 3. Measure accuracy
        for row, each in calls:
            if checked and each.detector:
                row.AP50, row.AP = measure_accuracy(each.detector, checked)
    return rows


def loading(row: Row, path: Path) -> tuple:
    """Return the arguments of `warm_up`."""
    return row.setup, path, row.contender.load, row.contender.precision


def timed_parts(calls: Calls) -> list[float]:
    """Return the milliseconds of a frame's preparing, network, suppression and the rest, right after another frame."""
    from yolov3.detector import Timings

    calls.end_to_end()
    calls.detector.timings = Timings()
    started = time.perf_counter()
    calls.end_to_end()
    whole = time.perf_counter() - started
    _, *parts = astuple(calls.detector.timings)
    return [1000 * x for x in (*parts, whole - sum(parts))]


def measure_accuracy(detector: "Detector", checked: "Checked") -> tuple[float, float]:
    """Return AP50 and AP, 0..1, on annotated pictures."""
    from yolov3.evaluation import evaluate

    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD
    data = checked.records, checked.sizes, detector.names
    scores = evaluate(detector, *data, *thresholds, max_pixels=configs.YOLO_MAX_PIXELS)
    return scores.AP50, scores.AP


# --- What is measured ----------------------------------------------------------------------------------------------


def read_annotated(path: str, count: int | None, class_count: int) -> "Checked":
    """Return the first `count` pictures of an annotation file, or all of them. Raises UserError."""
    from yolov3.annotations.cli import read_pictures

    checked = read_pictures(checks.as_given(path), class_count)
    checked.records, checked.sizes = checked.records[:count], checked.sizes[:count]
    return checked


def read_frame(path: Path | None) -> np.ndarray:
    """Return a picture file or, for None, a made-up picture: uint8 (H, W, 3), RGB. Raises UserError."""
    from yolov3.images import read_picture

    if path:
        return read_picture(path.absolute(), configs.YOLO_MAX_PIXELS)
    blocks = np.random.default_rng(0).integers(0, 256, (18, 32, 3), np.uint8)
    return cv2.resize(blocks, FRAME_SIZE[::-1], interpolation=cv2.INTER_CUBIC)


# --- The command line ----------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    """Parse the command line and check it as far as possible before the work starts."""
    parser = ScriptParser(__doc__)
    what = parser.add_argument_group("what is measured")
    what.add_argument("--weights", metavar="PATH", help="checkpoint folder of weights, its bare name, or .weights file")
    what.add_argument("--classes", metavar="FILE", help="class names of a .weights file (TRAIN_CLASSES)")
    what.add_argument("--types", nargs="+", help="networks: yolov3, yolov3-tiny, yolov4, yolov4-tiny")
    what.add_argument("--random", action="store_true", help="use random weights, to measure speed only")
    what.add_argument("--sizes", nargs="+", type=size_of, help="network input, pixels: 416 256x416 (YOLO_INPUT_SIZE)")
    what.add_argument("--frameworks", nargs="+", default=FRAMEWORKS, help=", ".join(FRAMEWORKS))
    what.add_argument("--precisions", nargs="+", default=PRECISIONS, help=", ".join(PRECISIONS))
    what.add_argument("--noise", action="store_true", help="also measure INT8 calibrated on noise")
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=int, default=30, help="timed calls of each contender (30)")
    how.add_argument("--frame", type=Path, metavar="PICTURE", help="detect on it instead of a made-up 1280 x 720 one")
    how.add_argument("--annotations", metavar="FILE", help="measure AP50 and AP on these pictures")
    how.add_argument("--pictures", type=int, metavar="N", help="only the first N of them")
    how.add_argument("--calibration", metavar="SOURCE", help="pictures for INT8 (YOLO_CALIBRATION_IMAGES)")
    how.add_argument("--calibration-count", type=int, metavar="N", help="number of them (YOLO_CALIBRATION_COUNT)")
    how.add_argument("--cfg", type=Path, metavar="FOLDER", default=CFG_FOLDER, help="Darknet's cfg files, for OpenCV")
    out = parser.add_argument_group("files to write")
    out.add_argument("--markdown", type=Path, metavar="PATH", help="the tables")
    out.add_argument("--csv", type=Path, metavar="PATH", help="the rows, for programs")
    out.add_argument("--png", type=Path, metavar="PATH", help="FPS against AP50; without annotations, milliseconds")
    arguments = parser.parse_args()
    check_arguments(arguments)
    return arguments


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise UserError if the arguments are wrong or do not go together."""
    from yolov3.networks import NETWORKS

    for option, known in ("types", NETWORKS), ("frameworks", FRAMEWORKS), ("precisions", PRECISIONS):
        for word in getattr(arguments, option) or ():
            checks.choose(f"--{option}", word, known)
    for size in arguments.sizes or ():
        checks.check_input_size(size, "--sizes")
    for option in "rounds", "pictures", "calibration_count":
        if getattr(arguments, option) is not None:
            checks.check_count(f"--{option.replace('_', '-')}", getattr(arguments, option), 1)
    if arguments.weights and (arguments.random or len(arguments.types or ()) > 1):
        raise UserError("--weights takes at most one of --types, and not --random")
    if arguments.annotations and (arguments.random or len(arguments.types or ()) > 1):
        raise UserError("--annotations takes at most one of --types, and not --random")
    if arguments.pictures and not arguments.annotations:
        raise UserError("--pictures needs --annotations: it is the number of pictures to take of them")
    if arguments.cfg != CFG_FOLDER and not arguments.cfg.is_dir():
        raise UserError(f"--cfg {arguments.cfg} is not a folder")
    for path, suffix in (arguments.markdown, ".md"), (arguments.csv, ".csv"), (arguments.png, ".png"):
        if path:
            check_output(path, (suffix,))
    if arguments.png:
        load_pyplot()


@checks.say_it_in_one_line
def main() -> None:
    # 1. Choose what to measure
    arguments = parse_arguments()
    from tools.benchmarks.materials import choose_materials

    contenders = [
        contender
        for contender in CONTENDERS
        if contender.framework in arguments.frameworks
        and contender.precision in (None, *arguments.precisions)
        and (arguments.noise or not contender.on_noise)
    ]
    if not contenders:
        raise UserError("nothing to measure: none of --frameworks has one of --precisions")
    frame, checked = read_frame(arguments.frame), None
    materials = choose_materials(arguments, frame, any(contender.precision == "INT8" for contender in contenders))
    conditions = list(dict.fromkeys(map(str, materials)))
    if arguments.annotations:
        checked = read_annotated(arguments.annotations, arguments.pictures, len(materials[0].spec.classes))
        conditions.append(f"AP50 and AP on {len(checked.records)} pictures of {arguments.annotations}")

    # 2. Measure
    rows = []
    for _, group in itertools.groupby(materials, lambda x: (x.spec.name, None if x.spec.tiny else x.spec.input_size)):
        rows += benchmark(list(group), contenders, arguments.rounds, checked)
        gc.collect()  # several full networks at once would fill the memory

    # 3. Report
    machine = describe_machine("openvino", "nncf", "onnxruntime", "ai-edge-litert")
    conditions.append(f"{frame.shape[1]} x {frame.shape[0]} frame, batch 1, {arguments.rounds} rounds")
    conditions.append("network, frame and p99 in milliseconds; peak memory is that of the whole process")
    budgets = markdown("ratio of medians|type|size|measured|budget|met", list(check_budgets(rows)))
    figures = markdown(HEADER, [row.cells for row in rows])
    parts = markdown(PARTS_HEADER, [row.parts_cells for row in rows if row.parts])
    report = "\n\n".join([machine, "; ".join(conditions), figures, parts, budgets]) + "\n"
    print(f"\n{report}")
    if arguments.markdown:
        with whole_file(arguments.markdown) as part:
            part.write_text(report, encoding="utf-8")
    if arguments.csv:
        write_csv(arguments.csv, rows)
    if arguments.png:
        draw_chart(rows, machine, arguments.png)


if __name__ == "__main__":
    main()
