"""How fast the detector is and how much memory it takes, beside OpenCV DNN and Keras `predict`, in the same run.

python tools/Benchmark.py                                  YOLOv4-tiny and YOLOv4 at 416, FP32 and BF16
python tools/Benchmark.py --types yolov3 --sizes 320 608   other networks and input sizes
python tools/Benchmark.py --markdown bench.md --png bench.png
python tools/Benchmark.py --random                         random weights: they do not change the speed

Each round calls every contender of one type and size once, in shuffled order, so that whatever else the machine does
hurts all alike. Peak memory is that of a process of its own, which loads one contender and runs it a few times: the
whole process, Python and its libraries included.
"""

import argparse
import functools
import gc
import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from any directory

from contenders import CONTENDERS, Setup, load_detector, write_random_weights  # noqa: E402
from measuring import describe_machine, load_pyplot, measure_memory, run_in_rounds, table  # noqa: E402

from yolov3 import configs, settings  # noqa: E402
from yolov3.outputs import check_output  # noqa: E402
from yolov3.settings import UserError  # noqa: E402

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # a child imports TensorFlow when it needs it, and OpenCV's does not

CFG_FOLDER = settings.PROJECT.parent / "shared/data/darknet"  # Darknet's own cfg files, for OpenCV
FRAME_SIZE = 1280, 720  # pixels, width and height of the made-up frame
WARM_UP = 3  # untimed calls of each contender; also those behind its peak memory
CHILDREN = 2  # processes at a time that measure peak memory
COLOURS = {"tf": "#1f77b4", "Keras": "#ff7f0e", "OpenCV": "#2ca02c"}  # bars, by the first word of the contender
BUDGETS = (  # median of this over median of that, must be, for full networks, for tiny ones
    ("tf FP32", "tf FP32 network alone", "at most", 1.10, 1.25),
    ("Keras predict + NumPy NMS", "tf FP32", "at least", 1.4, 2.5),
    ("OpenCV DNN", "tf FP32", "at least", 1.8, 1.5),
    ("tf FP32 network alone", "tf BF16 network alone", "at least", 1.7, 1.7),
)


# --- Measuring -----------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One line of the result; without figures, the note says why."""

    contender: str
    setup: Setup
    peak: float = None  # MB
    note: str = ""
    median: float = None  # ms
    p99: float = None  # ms

    def cells(self):
        if self.note:
            return [f"{self.contender}: {self.note}", self.setup.type, str(self.setup.size), "-", "-", "-", "-"]
        figures = f"{self.median:.2f}", f"{self.p99:.2f}", f"{1000 / self.median:.1f}", f"{self.peak:.0f}"
        return [self.contender, self.setup.type, str(self.setup.size), *figures]


def benchmark(setup, precisions, rounds):
    """One type and size -> its rows."""
    chosen = {name: (make, precision) for name, precision, make in CONTENDERS if precision in (None, *precisions)}
    with ThreadPoolExecutor(CHILDREN) as children:
        measured = children.map(lambda contender: measure_memory(warm_up, setup, *contender), chosen.values())
        rows = [Row(name, setup, *memory) for name, memory in zip(chosen, measured, strict=True)]

    runnable = [(row, chosen[row.contender]) for row in rows if not row.note]
    calls = {
        row.contender: functools.partial(timed, warm_up(setup, make, precision), setup.frame)
        for row, (make, precision) in runnable
    }
    milliseconds = run_in_rounds(calls, rounds, f"{setup.type} {setup.size}")
    for row, _ in runnable:
        row.median, row.p99 = np.percentile(milliseconds[row.contender], [50, 99])
    return rows


def timed(call, frame):
    """Milliseconds that a call takes."""
    started = time.perf_counter()
    call(frame)
    return 1000 * (time.perf_counter() - started)


def warm_up(setup, make, precision):
    """A contender, made and called a few times."""
    call = make(setup, precision)
    for _ in range(WARM_UP):
        call(setup.frame)
    return call


# --- What is measured ----------------------------------------------------------------------------------------------


def prepare(name, size, frame, folder, arguments):
    """One type and size -> Setup, with the configured Darknet weights or, in `folder`, random ones."""
    from yolov3.detector import DARKNET_WEIGHTS

    configured = getattr(configs, DARKNET_WEIGHTS[name])
    weights, found = settings.project_path(configured), f"weights {configured}"
    is_random = arguments.random or not weights.exists()
    if is_random:
        weights, found = Path(folder) / f"{name}-{size}.weights", "random weights"
        found += "" if arguments.random else f", since {configured} is missing"
    print(f"{name} at {size}: {found}")
    setup = Setup(name, size, settings.class_names(configs.YOLO_COCO_CLASSES), weights, arguments.cfg.absolute(), frame)
    if is_random:
        write_random_weights(setup)
    return setup


def read_frame(path):
    """uint8 (H, W, 3), RGB: a picture file or, for None, a made-up picture."""
    from yolov3.images import read_picture

    if path:
        return read_picture(path.absolute(), configs.YOLO_MAX_PIXELS)
    blocks = np.random.default_rng(0).integers(0, 256, (18, 32, 3), np.uint8)
    return cv2.resize(blocks, FRAME_SIZE, interpolation=cv2.INTER_CUBIC)


# --- Report --------------------------------------------------------------------------------------------------------


def check_budgets(rows):
    """Rows -> one list of cells for each budget of each type and size."""
    medians = {(row.setup, row.contender): row.median for row in rows}
    for setup in dict.fromkeys(row.setup for row in rows):
        for over, under, sign, full, tiny in BUDGETS:
            budget, measured, met = tiny if setup.type.endswith("tiny") else full, "not measured", "-"
            if (a := medians.get((setup, over))) and (b := medians.get((setup, under))):
                measured = f"{a / b:.2f}"
                met = "yes" if (a / b <= budget if sign == "at most" else a / b >= budget) else "NO"
            yield [f"{over} / {under}", setup.type, str(setup.size), measured, f"{sign} {budget:.2f}", met]


def draw_chart(rows, machine, path):
    """One panel for each type and size: a bar to the median, a line to the 99th percentile."""
    plt = load_pyplot()
    panels = [list(group) for _, group in itertools.groupby(rows, lambda row: row.setup)]
    heights = [len(panel) + 1.5 for panel in panels]
    figure = plt.figure(figsize=(10, 0.36 * sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for panel, ax in zip(panels, axes[:, 0], strict=True):
        for row in panel:
            median, p99 = row.median or 0, row.p99 or 0
            ax.barh(row.contender, median, color=COLOURS[row.contender.split()[0]], alpha=0.85)
            ax.hlines(row.contender, median, p99, color="black", linewidth=1)
            label = row.note or f"{median:.1f} ms, {1000 / median:.1f} FPS, {row.peak:.0f} MB"
            ax.annotate(label, (max(median, p99), row.contender), (4, 0), textcoords="offset points", va="center")
        ax.set_xlim(0, 1.4 * max(row.p99 or 1 for row in panel))
        ax.set_title(f"{panel[0].setup.type} at {panel[0].setup.size}", loc="left", fontweight="bold")
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("milliseconds a frame, less is better: bar to the median, line to the 99th percentile")
    figure.suptitle(machine, fontsize="small")
    figure.savefig(path, dpi=120)


def parse_arguments():
    """The command line, checked as far as it can be before the work starts."""
    from yolov3.detector import DARKNET_WEIGHTS, PRECISIONS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=["yolov4-tiny", "yolov4"], help=", ".join(DARKNET_WEIGHTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[416], help="network input, pixels, multiples of 32")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, help=", ".join(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each contender (30)")
    parser.add_argument("--frame", type=Path, metavar="PICTURE", help="detect on it instead of a made-up 1280 x 720")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the tables there too")
    parser.add_argument("--png", type=Path, metavar="PATH", help="draw a chart")
    parser.add_argument("--random", action="store_true", help="random weights even where the configured ones are")
    parser.add_argument("--cfg", type=Path, metavar="FOLDER", default=CFG_FOLDER, help="cfg files, for OpenCV")
    arguments = parser.parse_args()

    for name in arguments.types:
        settings.choose("--types", name, DARKNET_WEIGHTS)
    for precision in arguments.precisions:
        settings.choose("--precisions", precision, PRECISIONS)
    for size in arguments.sizes:
        settings.check_input_size(size)
    if arguments.rounds < 1:
        raise UserError(f"--rounds is {arguments.rounds}, but it must be at least 1")
    if arguments.cfg != CFG_FOLDER and not arguments.cfg.is_dir():
        raise UserError(f"--cfg {arguments.cfg} is not a folder")
    for path, suffix in (arguments.markdown, ".md"), (arguments.png, ".png"):
        if path:
            check_output(path, (suffix,))
    if arguments.png:
        load_pyplot()
    return arguments


@settings.say_it_in_one_line
def main():
    arguments, rows = parse_arguments(), []
    frame = read_frame(arguments.frame)
    with tempfile.TemporaryDirectory() as folder:
        for name, size in itertools.product(arguments.types, arguments.sizes):
            setup = prepare(name, size, frame, folder, arguments)
            rows += benchmark(setup, arguments.precisions, arguments.rounds)
            load_detector.cache_clear()  # several full networks at once would fill the memory
            gc.collect()

    machine = describe_machine()
    conditions = f"{frame.shape[1]} x {frame.shape[0]} frame, batch 1, {arguments.rounds} rounds"
    figures = table("contender|type|size|median ms|p99 ms|FPS|peak MB", [row.cells() for row in rows])
    budgets = table("ratio of medians|type|size|measured|budget|met", list(check_budgets(rows)))
    report = f"{machine}\n\n{conditions}; peak memory is of the whole process\n\n{figures}\n\n{budgets}\n"
    print(f"\n{report}")
    if arguments.markdown:
        arguments.markdown.write_text(report, encoding="utf-8")
    if arguments.png:
        draw_chart(rows, machine, arguments.png)


if __name__ == "__main__":
    main()
