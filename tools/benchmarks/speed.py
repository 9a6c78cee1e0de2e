"""Speed, accuracy and memory by framework, precision and input size, beside Keras `predict` and OpenCV DNN, in one run.

python -m tools.benchmarks.speed                                       the model that detection_demo.py uses
python -m tools.benchmarks.speed --sizes 320 416 512 608 --annotations model_data/digits/digits_test.txt --png bench.png
python -m tools.benchmarks.speed --weights mine.weights --classes mine.names      another model, of the configured type
python -m tools.benchmarks.speed --types yolov4-tiny yolov4 --random              random weights
python -m tools.benchmarks.speed --markdown bench.md --csv bench.csv --frameworks tf openvino --noise

The model is converted for every framework that runs here, by the converters' own functions, into a temporary folder.
Each round times every contender once from frame to boxes and once the network alone on a ready batch, in shuffled
order, so that whatever else the machine does hurts all alike: all sizes of a tiny network together, those of a full one
in turn, since several would not fit into memory. Immediately before each timed call stands an untimed one of the same
contender: caches hold its own weights then, as in use. Peak memory is that of a process of its own, which loads one
contender and runs it a few times: the whole process, Python and its libraries included.
"""

import argparse
import functools
import gc
import itertools
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.benchmarks.charts import draw_chart
from tools.benchmarks.contenders import CONTENDERS, FRAMEWORKS, PRECISIONS, warm_up
from tools.benchmarks.figures import HEADER, Row, check_budgets, write_csv
from tools.benchmarks.measuring import (
    describe_machine,
    load_pyplot,
    measure_memory,
    run_in_child,
    run_in_rounds,
    table,
    timed,
)
from yolov3 import checks, configs
from yolov3.checks import UserError
from yolov3.files import check_output, whole_file

import cv2
import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # a child imports TensorFlow when it needs it, and OpenCV's does not

CFG_FOLDER = checks.PROJECT.parent / "shared/data/darknet"  # Darknet's own cfg files, for OpenCV
FRAME_SIZE = 1280, 720  # pixels, width and height of the made-up frame
CHILDREN = 2  # processes at a time that measure peak memory


# --- Measuring -----------------------------------------------------------------------------------------------------


def benchmark(materials, contenders, rounds, checked):
    """What is measured together -> its rows; with accuracy if annotations, `checked`, are given."""
    from tools.benchmarks.preparing import prepare

    with tempfile.TemporaryDirectory() as folder:
        # 1. What each contender loads, and its peak memory
        rows, runnable = [], []
        for setup, made in run_in_child(prepare, materials, contenders, Path(folder)):
            for contender, path in zip(contenders, made, strict=True):
                rows.append(Row(contender, setup, note=path if isinstance(path, str) else ""))
                runnable += [] if rows[-1].note else [(rows[-1], path)]
        with ThreadPoolExecutor(CHILDREN) as children:
            jobs = [(warm_up, *loading(row, path)) for row, path in runnable]
            measured = children.map(lambda job: measure_memory(*job), jobs)
            for (row, _), (peak, note) in zip(runnable, measured, strict=True):
                row.peak, row.note = peak, note.replace(f"{folder}/", "")

        # 2. All of them in turn
        calls = [(row, warm_up(*loading(row, path))) for row, path in runnable if not row.note]
        title = " ".join(dict.fromkeys(row.setup.type for row in rows))
        timers = {(i, "frame"): functools.partial(timed, each.end_to_end) for i, (_, each) in enumerate(calls)}
        timers |= {(i, "network"): functools.partial(timed, each.network) for i, (_, each) in enumerate(calls)}
        milliseconds = run_in_rounds(timers, rounds, title)
        for i, (row, _) in enumerate(calls):
            row.frame, row.p99 = np.percentile(milliseconds[i, "frame"], [50, 99])
            row.network = np.median(milliseconds[i, "network"])

        # 3. How well they find what is annotated
        for row, (_, _, detector) in calls:
            if checked and detector:
                row.AP50, row.AP = accuracy(detector, checked)
    return rows


def loading(row, path):
    """The arguments of `warm_up`."""
    return row.setup, path, row.contender.load, row.contender.precision


def accuracy(detector, checked):
    """AP50 and AP, 0..1, on annotated pictures."""
    from yolov3.evaluation import evaluate

    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD
    data = checked.records, checked.sizes, detector.names
    scores = evaluate(detector, *data, *thresholds, max_pixels=configs.YOLO_MAX_PIXELS)
    return scores.AP50, scores.AP


# --- What is measured ----------------------------------------------------------------------------------------------


def read_annotated(path, count, class_count):
    """The first `count` pictures of an annotation file -> annotations.Checked."""
    from yolov3.annotation_cli import read_pictures

    checked = read_pictures(checks.as_given(path), class_count)
    checked.records, checked.sizes = checked.records[:count], checked.sizes[:count]
    return checked


def read_frame(path):
    """uint8 (H, W, 3), RGB: a picture file or, for None, a made-up picture."""
    from yolov3.images import read_picture

    if path:
        return read_picture(path.absolute(), configs.YOLO_MAX_PIXELS)
    blocks = np.random.default_rng(0).integers(0, 256, (18, 32, 3), np.uint8)
    return cv2.resize(blocks, FRAME_SIZE, interpolation=cv2.INTER_CUBIC)


# --- The command line ----------------------------------------------------------------------------------------------


def parse_arguments():
    """The command line, checked as far as it can be before the work starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is measured")
    what.add_argument("--weights", metavar="PATH", help="a checkpoint folder of weights, its bare name, or .weights")
    what.add_argument("--classes", metavar="FILE", help="class names of a .weights file (TRAIN_CLASSES)")
    what.add_argument("--types", nargs="+", help="Darknet's networks: yolov3, yolov3-tiny, yolov4, yolov4-tiny")
    what.add_argument("--random", action="store_true", help="random weights, for speed only")
    what.add_argument("--sizes", nargs="+", type=int, help="network input, pixels, multiples of 32 (YOLO_INPUT_SIZE)")
    what.add_argument("--frameworks", nargs="+", default=FRAMEWORKS, help=", ".join(FRAMEWORKS))
    what.add_argument("--precisions", nargs="+", default=PRECISIONS, help=", ".join(PRECISIONS))
    what.add_argument("--noise", action="store_true", help="also INT8 calibrated on noise")
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=int, default=30, help="timed calls of each contender (30)")
    how.add_argument("--frame", type=Path, metavar="PICTURE", help="detect on it instead of a made-up 1280 x 720")
    how.add_argument("--annotations", metavar="FILE", help="measure AP50 and AP on these pictures")
    how.add_argument("--pictures", type=int, metavar="N", help="the first N of them only")
    how.add_argument("--calibration", metavar="SOURCE", help="pictures for INT8 (YOLO_CALIBRATION_IMAGES)")
    how.add_argument("--calibration-count", type=int, metavar="N", help="so many (YOLO_CALIBRATION_COUNT)")
    how.add_argument("--cfg", type=Path, metavar="FOLDER", default=CFG_FOLDER, help="cfg files, for OpenCV")
    out = parser.add_argument_group("results")
    out.add_argument("--markdown", type=Path, metavar="PATH", help="the tables")
    out.add_argument("--csv", type=Path, metavar="PATH", help="the rows, for programs")
    out.add_argument("--png", type=Path, metavar="PATH", help="FPS against AP50; without annotations, milliseconds")
    arguments = parser.parse_args()
    check(arguments)
    return arguments


def check(arguments):
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
        raise UserError("--weights goes with one of --types at most, and not with --random")
    if arguments.annotations and (arguments.random or len(arguments.types or ()) > 1):
        raise UserError("--annotations goes with one of --types at most, and not with --random")
    if arguments.pictures and not arguments.annotations:
        raise UserError("--pictures says how many of --annotations, which is missing")
    if arguments.cfg != CFG_FOLDER and not arguments.cfg.is_dir():
        raise UserError(f"--cfg {arguments.cfg} is not a folder")
    for path, suffix in (arguments.markdown, ".md"), (arguments.csv, ".csv"), (arguments.png, ".png"):
        if path:
            check_output(path, (suffix,))
    if arguments.png:
        load_pyplot()


@checks.say_it_in_one_line
def main():
    # 1. What to measure, with what, and on what
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
        raise UserError("nothing to measure: no such precision in --frameworks")
    frame, checked = read_frame(arguments.frame), None
    materials = choose_materials(arguments, frame, any(contender.precision == "INT8" for contender in contenders))
    conditions = list(dict.fromkeys(map(str, materials)))
    if arguments.annotations:
        checked = read_annotated(arguments.annotations, arguments.pictures, len(materials[0].spec.classes))
        conditions.append(f"AP50 and AP on {len(checked.records)} pictures of {arguments.annotations}")

    # 2. Measuring
    rows = []
    for _, group in itertools.groupby(materials, lambda x: (x.spec.name, None if x.spec.tiny else x.spec.input_size)):
        rows += benchmark(list(group), contenders, arguments.rounds, checked)
        gc.collect()  # several full networks at once would fill the memory

    # 3. The results
    machine = describe_machine("openvino", "nncf")
    conditions.append(f"{frame.shape[1]} x {frame.shape[0]} frame, batch 1, {arguments.rounds} rounds")
    conditions.append("network, frame and p99 in milliseconds; peak memory is of the whole process")
    budgets = table("ratio of medians|type|size|measured|budget|met", list(check_budgets(rows)))
    figures = table(HEADER, [row.cells for row in rows])
    report = "\n\n".join([machine, "; ".join(conditions), figures, budgets]) + "\n"
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
