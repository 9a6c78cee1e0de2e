"""Measure what each precision of each framework costs in accuracy: AP50 and AP beside those of TensorFlow in FP32.

python -m tools.benchmarks.precisions --weights model_data/yolov3-tiny.weights --annotations photographs.txt
python -m tools.benchmarks.precisions --weights model_data/yolov4-tiny-digits \
    --annotations model_data/digits/digits_test.txt --calibration model_data/digits/digits_train.txt

INT8 is calibrated on one half of the annotated pictures and measured on the other, several times, each time with other
halves, chosen at random. With --calibration, it is calibrated on pictures of that file, again chosen at random, and
measured on all annotated ones. "trt" is the ONNX file that TensorRT takes, run by ONNX Runtime on the CPU.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.benchmarks.contenders import CONTENDERS, PRECISIONS, Contender
from tools.benchmarks.measuring import describe_machine, markdown
from yolov3 import configs
from yolov3.annotations.cli import read_pictures
from yolov3.annotations.format import Checked, annotated_pictures
from yolov3.calibration import CalibrationInputs
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError, as_given, check_amount, check_count, choose, say_it_in_one_line
from yolov3.conversion import configured_trt_options
from yolov3.detector import Detections, Detector
from yolov3.evaluation import score
from yolov3.files import check_output, whole_file
from yolov3.images import read_picture
from yolov3.loading import Load_Yolo_model, configured_model
from yolov3.runtimes import RUNTIMES, tf
from yolov3.runtimes.common import folder_name
from yolov3.runtimes.onnx import PREDICTIONS
from yolov3.runtimes.openvino import ANY_DROP
from yolov3.settings import ScriptParser
from yolov3.sizes import size_name

import numpy as np
from tqdm import tqdm

FRAMEWORKS = tuple(dict.fromkeys(x.framework for x in CONTENDERS if x.framework in RUNTIMES))
MAY_LOSE = 1.5, 2.0  # what INT8 may lose of AP50 and of AP, percentage points, as the mean of the splits

Split = tuple[list[Path], list[int]]  # pictures to calibrate on, and indices of the records to measure on


def draw_splits(checked: Checked, calibration: list[Path], count: int | None, splits: int) -> list[Split]:
    """Return random splits, the same each time.

    calibration  the pictures to choose from; none: half of the records, of which the others are measured on
    count        how many of them to choose; None: all, of separate pictures the hundred that configs.py says
    """
    drawn, everything = [], list(range(len(checked.records)))
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(calibration) or len(everything)).tolist()
        if calibration:
            chosen = [calibration[i] for i in order[: count or configs.YOLO_CALIBRATION_COUNT]]
            drawn.append((chosen, everything))
        else:
            half = len(order) // 2
            drawn.append(([checked.records[i].picture for i in order[:half][:count]], sorted(order[half:])))
    return drawn


def measure(contender: Contender, spec: ModelSpec, source: Path, checked: Checked, splits: list[Split]) -> np.ndarray:
    """Return AP50 and AP of a contender in percent, (splits, 2). Raises UserError if it cannot run here."""
    target = replace(spec, framework=contender.framework, precision=contender.precision)
    options: dict[str, Any] = {
        "openvino": ANY_DROP,
        "onnx": PREDICTIONS,
        "trt": configured_trt_options()._replace(backend="onnx", outputs="predictions"),
    }
    runtime, folder = RUNTIMES[contender.framework].module, source.with_name(folder_name(target))
    runtime.check(contender.precision, options.get(contender.framework))
    if contender.framework == "tf":
        detector = Load_Yolo_model(source, input_size=spec.input_size, precision=contender.precision)
    rows, found = [], {}
    for pictures, indices in tqdm(splits, contender.name, unit=" splits"):
        if contender.framework != "tf" and (contender.precision == "INT8" or not rows):
            inputs = CalibrationInputs(pictures, spec.input_size, spec.resize, configs.YOLO_MAX_PIXELS)
            runtime.write(folder, source, target, options.get(contender.framework), inputs)
            detector, found = Load_Yolo_model(folder, input_size=spec.input_size), {}
        found |= detect(detector, checked, set(indices) - set(found))
        scores = score({i: found[i] for i in indices}, checked.records, checked.sizes, spec.classes, 0.0, [])
        rows.append((100 * scores.AP50, 100 * scores.AP))
    return np.array(rows)


def detect(detector: Detector, checked: Checked, indices: Iterable[int]) -> dict[int, Detections]:
    """Return what a detector finds in the pictures of some records, by the index of the record."""
    thresholds = {"score_threshold": configs.TEST_SCORE_THRESHOLD, "iou_threshold": configs.TEST_IOU_THRESHOLD}
    frames = ((i, read_picture(checked.records[i].picture, configs.YOLO_MAX_PIXELS)) for i in indices)
    return {i: detector([frame], **thresholds)[0] for i, frame in frames}


def lines(measured: dict[str, np.ndarray | str], may_lose: tuple[float, float]) -> Iterator[list[str]]:
    """Return a line of the table for each contender: AP50 and AP of each split, and what is lost."""
    expected = next(iter(measured.values()))
    for name, figures in measured.items():
        if isinstance(figures, str):
            yield [f"{name}: {figures}", *["-"] * (len(expected) + 3)]
            continue
        lost = (expected - figures).mean(0)
        cells = [f"{AP50:.1f} / {AP:.1f}" for AP50, AP in figures]
        met = ("yes" if all(lost <= may_lose) else "NO") if name.endswith("INT8") else "-"
        yield [name, *cells, *(f"{x:.2f}" for x in lost), met]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line. Raises UserError."""
    parser = ScriptParser(__doc__)
    parser.add_argument(
        "--weights", metavar="PATH", help="checkpoint folder of weights, its bare name, or .weights file"
    )
    parser.add_argument("--classes", metavar="FILE", help="class names of a .weights file (YOLO_COCO_CLASSES)")
    parser.add_argument("--annotations", metavar="FILE", required=True, help="annotated pictures to measure on")
    parser.add_argument("--calibration", metavar="FILE", help="other annotated pictures to calibrate on (one half)")
    parser.add_argument("--calibration-count", type=int, metavar="N", help="number of them (YOLO_CALIBRATION_COUNT)")
    parser.add_argument("--splits", type=int, default=5, help="times that INT8 is calibrated and measured (5)")
    parser.add_argument("--frameworks", nargs="+", default=FRAMEWORKS, help=", ".join(FRAMEWORKS))
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, help=", ".join(PRECISIONS))
    parser.add_argument(
        "--may-lose", nargs=2, type=float, default=MAY_LOSE, help="AP50 and AP points of INT8 (1.5 2.0)"
    )
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="file to write the table to")
    arguments = parser.parse_args()
    for option, known in ("frameworks", FRAMEWORKS), ("precisions", PRECISIONS):
        for word in getattr(arguments, option):
            choose(f"--{option}", word, known)
    for option in "splits", "calibration_count":
        if getattr(arguments, option) is not None:
            check_count(f"--{option.replace('_', '-')}", getattr(arguments, option), 1)
    for points in arguments.may_lose:
        check_amount("--may-lose", points)
    if arguments.markdown:
        check_output(arguments.markdown, (".md",))
    return arguments


@say_it_in_one_line
def main() -> None:
    # 1. Choose what to measure, and on what
    arguments = parse_arguments()
    spec, weights = configured_model(
        arguments.weights and as_given(arguments.weights), arguments.classes and as_given(arguments.classes)
    )
    checked = read_pictures(as_given(arguments.annotations), len(spec.classes))
    calibration = annotated_pictures(as_given(arguments.calibration)) if arguments.calibration else []
    splits = draw_splits(checked, calibration, arguments.calibration_count, arguments.splits)
    contenders = [
        contender
        for contender in CONTENDERS
        if contender.framework in arguments.frameworks
        and contender.precision in arguments.precisions
        and not contender.on_noise
    ]

    # 2. Measure; TensorFlow in FP32 first, which the others are compared with
    measured: dict[str, np.ndarray | str] = {}
    baked = {"score_threshold": 0.3, "iou_threshold": 0.45, "max_pixels": configs.YOLO_MAX_PIXELS}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / folder_name(spec)
        tf.write(source, weights, spec, baked)
        for contender in dict.fromkeys((CONTENDERS[0], *contenders)):
            try:
                measured[contender.name] = measure(contender, spec, source, checked, splits)
            except UserError as error:
                measured[contender.name] = f"not available: {error.problem}"

    # 3. Report
    titles = "|".join(f"split {i + 1}" for i in range(len(splits)))
    header = f"AP50 / AP at {size_name(spec.input_size)}|{titles}|AP50 lost|AP lost|met"
    table = markdown(header, list(lines(measured, arguments.may_lose)))
    on = f"measured on {len(splits[0][1])} pictures of {arguments.annotations}"
    by = f"INT8 calibrated on {len(splits[0][0])} of {arguments.calibration or 'the others'}"
    machine = describe_machine("openvino", "nncf", "onnxruntime", "ai-edge-litert")
    report = f"{machine}\n\n{spec.name}: {on}, {by}\n\n{table}\n"
    print(f"\n{report}")
    if arguments.markdown:
        with whole_file(arguments.markdown) as part:
            part.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
