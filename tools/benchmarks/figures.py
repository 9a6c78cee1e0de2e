"""Hold what tools/benchmarks/speed.py measures: rows of its tables, a CSV file, and the budgets."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.benchmarks.contenders import Contender, Setup
from yolov3.files import whole_file
from yolov3.sizes import size_name

HEADER = "contender|type|size|network ms|ms a frame|p99 ms|FPS|AP50|AP|peak MB"
PARTS_HEADER = "parts of a frame, ms|type|size|preparing|network|suppression|the rest|bare request"
CSV_HEADER = [
    "contender",
    "framework",
    "precision",
    "type",
    "size",
    "network_ms",
    "frame_ms",
    "p99_ms",
    "FPS",
    "AP50",
    "AP",
    "peak_MB",
    "note",
]
BUDGETS = (  # ratio of two medians, each of a contender and what was timed; its bound for full and for tiny networks
    ("tf FP32", "frame", "tf FP32", "network", "at most", 1.10, 1.25),
    ("openvino INT8", "frame", "openvino INT8", "bare", "at most", None, 1.25),
    ("tf FP32", "network", "tf BF16", "network", "at least", 1.7, 1.7),
    ("tf FP32", "network", "openvino INT8", "network", "at least", 3.5, 3.5),
    ("tf FP32", "frame", "openvino INT8", "frame", "at least", 3.0, 3.0),
    ("Keras predict + NumPy NMS", "network", "openvino INT8", "network", "at least", None, 10.0),
    ("Keras predict + NumPy NMS", "frame", "tf FP32", "frame", "at least", 1.4, 2.5),
    ("OpenCV DNN", "frame", "tf FP32", "frame", "at least", 1.8, 1.5),
)
INT8_MAY_LOSE = 1.0  # AP50, percentage points


@dataclass
class Row:
    """Hold one row of the result. If its figures are missing, the note says why."""

    contender: Contender
    setup: Setup
    note: str = ""
    peak: float | None = None  # memory, MB
    network: float | None = None  # median, ms
    frame: float | None = None  # median end to end, ms
    p99: float | None = None  # 99th percentile end to end, ms
    parts: Sequence[float] = ()  # medians of a frame's preparing, network, suppression and the rest, ms
    bare: float | None = None  # median of OpenVINO's request alone, ms
    AP50: float | None = None  # 0..1
    AP: float | None = None

    @property
    def figures(self) -> tuple[float | None, ...]:
        """Return the figures in the order of the tables, None for those that were not measured."""
        percent = (None if x is None else 100 * x for x in (self.AP50, self.AP))
        return self.network, self.frame, self.p99, self.frame and 1000 / self.frame, *percent, self.peak

    @property
    def cells(self) -> list[str]:
        """Return the row of the Markdown table."""
        name = f"{self.contender.name}: {self.note}" if self.note else self.contender.name
        decimals = 2, 2, 2, 1, 1, 1, 0
        texts = ("-" if x is None else f"{x:.{n}f}" for x, n in zip(self.figures, decimals, strict=True))
        return [name, self.setup.type, size_name(self.setup.size), *texts]

    @property
    def parts_cells(self) -> list[str]:
        """Return the row of the Markdown table of parts."""
        figures = ("-" if x is None else f"{x:.2f}" for x in (*self.parts, self.bare))
        return [self.contender.name, self.setup.type, size_name(self.setup.size), *figures]

    @property
    def record(self) -> list:
        """Return the row of the CSV file."""
        name, framework, precision, *_ = self.contender
        figures = ("" if x is None else f"{x:.6g}" for x in self.figures)
        return [name, framework, precision or "", self.setup.type, size_name(self.setup.size), *figures, self.note]


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write the rows as a CSV file."""
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([CSV_HEADER, *(row.record for row in rows)])


def check_budgets(rows: list[Row]) -> Iterator[list[str]]:
    """Yield the table cells of each budget of each type and size."""
    table = {(row.setup, row.contender.name): row for row in rows}
    for setup in dict.fromkeys(row.setup for row in rows):
        for over, what, under, of_what, sign, full, tiny in BUDGETS:
            budget = tiny if setup.type.endswith("tiny") else full
            a, b = table.get((setup, over)), table.get((setup, under))
            if budget and a and b:
                a, b = getattr(a, what), getattr(b, of_what)
                name = f"{over} {what} / {under} {of_what}"
                yield [name, *_judged(setup, a / b if a and b else None, sign, budget)]
        a, b = (table.get((setup, name)) for name in ("tf FP32", "openvino INT8"))
        if a and b and a.AP50 is not None and b.AP50 is not None:
            lost = 100 * (a.AP50 - b.AP50)
            yield ["AP50 points: tf FP32 - openvino INT8", *_judged(setup, lost, "at most", INT8_MAY_LOSE)]


def _judged(setup, measured, sign, budget):
    text, met = "not measured", "-"
    if measured is not None:
        text = f"{measured:.2f}"
        met = "yes" if (measured <= budget if sign == "at most" else measured >= budget) else "NO"
    return [setup.type, size_name(setup.size), text, f"{sign} {budget:.2f}", met]
