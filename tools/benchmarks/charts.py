"""Draw the charts of speed.py: speed against accuracy, or bars of milliseconds where only speed was measured."""

import itertools
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tools.benchmarks.figures import Row
from tools.benchmarks.measuring import load_pyplot
from yolov3.files import whole_file
from yolov3.sizes import size_name

if TYPE_CHECKING:  # Matplotlib is imported where it is needed
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "tf": "#1f77b4",
    "openvino": "#9467bd",
    "onnx": "#8c564b",
    "tflite": "#e377c2",
    "trt": "#76b900",
    "keras": "#ff7f0e",
    "opencv": "#2ca02c",
}
MARKERS = {"FP32": "o", "BF16": "s", "FP16": "D", "INT8": "^"}
OFFSETS = (8, 0), (-8, 0), (0, 8), (0, -8), (8, 8), (8, -8), (-8, 8), (-8, -8)  # of a label, points, best first
HORIZONTAL, VERTICAL = {8: "left", 0: "center", -8: "right"}, {8: "bottom", 0: "center", -8: "top"}


def draw_chart(rows: list[Row], machine: str, path: Path) -> None:
    """Write the chart of the rows as a PNG, with the machine as its title."""
    plt = load_pyplot()
    measured = [row for row in rows if row.AP50 is not None]
    figure = draw_accuracy(plt, measured) if measured else draw_bars(plt, rows)
    figure.suptitle(machine, fontsize=6)
    with whole_file(path) as part:
        figure.savefig(part, dpi=140)


def draw_accuracy(plt: ModuleType, rows: list[Row]) -> "Figure":
    """Draw FPS against AP50: a point for each row, and a line through the sizes of each contender."""
    figure, ax = plt.subplots(figsize=(11, 7), layout="constrained")
    for (_, name), line in _lines(rows).items():
        framework, precision, on_noise = line[0].contender.framework, line[0].contender.precision, "noise" in name
        points = [1000 / row.frame for row in line], [100 * row.AP50 for row in line]
        style = {"color": COLOURS[framework], "marker": MARKERS[precision], "linestyle": ":" if on_noise else "-"}
        ax.plot(*points, **style, linewidth=0.5, label=name, fillstyle="none" if on_noise else "full")
    ax.margins(0.15)
    ax.set_xlabel("frames per second, end to end, batch 1: more is better")
    ax.set_ylabel("AP50, percent: more is better")
    ax.grid(linewidth=0.3)
    ax.legend(fontsize=8, loc="best")
    label_points(figure, ax, rows)
    return figure


def label_points(figure: "Figure", ax: "Axes", rows: list[Row]) -> None:
    """Write the contender and size of each point beside it, where it covers least."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # so that positions in pixels are known
    several_types = len({row.setup.type for row in rows}) > 1
    halo = [withStroke(linewidth=2, foreground="white")]
    places = [(1000 / row.frame, 100 * row.AP50) for row in rows]
    points = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in map(ax.transData.transform, places)]  # the markers
    taken = [ax.get_legend().get_window_extent(), *points]
    for row, place in zip(rows, places, strict=True):
        name = row.contender.name.replace("calibrated on ", "")
        label = " ".join([name, *([row.setup.type] if several_types else []), size_name(row.setup.size)])
        style = {"fontsize": 6, "color": COLOURS[row.contender.framework], "path_effects": halo}
        text = ax.annotate(label, place, (0, 0), textcoords="offset points", **style)
        tried = []  # (how much it covers, where)
        for factor, (right, up) in itertools.product((1, 2, 3), OFFSETS):
            where = {"position": (factor * right, factor * up), "ha": HORIZONTAL[right], "va": VERTICAL[up]}
            text.set(**where)
            box = text.get_window_extent()
            tried.append((sum(box.overlaps(other) for other in taken), where))
            if not tried[-1][0]:
                break
        text.set(**min(tried, key=lambda x: x[0])[1])
        taken.append(text.get_window_extent())


def _lines(rows):
    """Return {(type, name of the contender): its rows of all sizes} in the order of the table."""
    lines = {}
    for row in rows:
        lines.setdefault((row.setup.type, row.contender.name), []).append(row)
    return lines


def draw_bars(plt: ModuleType, rows: list[Row]) -> "Figure":
    """Draw a panel for each type and size.

    A row has a dark bar up to the network's median, a light one up to the median end to end, and a line up to the 99th
    percentile.
    """
    panels = [list(group) for _, group in itertools.groupby(rows, lambda row: row.setup)]
    heights = [len(panel) + 1.5 for panel in panels]
    figure = plt.figure(figsize=(10, 0.36 * sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for panel, ax in zip(panels, axes[:, 0], strict=True):
        for row in panel:
            name, colour = row.contender.name, COLOURS[row.contender.framework]
            frame, p99 = row.frame or 0, row.p99 or 0
            ax.barh(name, frame, color=colour, alpha=0.5)
            ax.barh(name, row.network or 0, color=colour, alpha=0.8, height=0.4)
            ax.hlines(name, frame, p99, color="black", linewidth=1)
            label = row.note or f"{frame:.1f} ms, {1000 / frame:.1f} FPS, {row.peak:.0f} MB"
            ax.annotate(label, (max(frame, p99), name), (4, 0), textcoords="offset points", va="center", fontsize=8)
        ax.set_xlim(0, 1.4 * max(row.p99 or 1 for row in panel))
        ax.set_title(f"{panel[0].setup.type} at {size_name(panel[0].setup.size)}", loc="left", fontweight="bold")
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(
        "milliseconds a frame, less is better: dark the network alone, light end to end, line to the 99th percentile"
    )
    return figure
