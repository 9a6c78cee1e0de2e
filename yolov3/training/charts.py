"""Draw a training as PNG files: the data that it learns from, and how its losses and precision went."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolov3.anchors import box_sizes
from yolov3.annotations.format import Record
from yolov3.charts import figure_file
from yolov3.checkpoint import ModelSpec
from yolov3.sizes import size_name

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 25  # with a bar of their own
MOST_POINTS = 20_000  # boxes in the plot of sizes
PANELS: dict[str, dict[str, tuple]] = {  # title of each panel: {column of results.csv: (label, colour, line style)}
    "loss per object": {
        "loss": ("trained on", "C0", "-"),
        "val_loss": ("not trained on", "C1", "-"),
    },
    "its terms": {
        "box": ("box", "C2", "-"),
        "val_box": (None, "C2", ":"),
        "objectness": ("objectness", "C3", "-"),
        "val_objectness": (None, "C3", ":"),
        "class": ("class", "C4", "-"),
        "val_class": (None, "C4", ":"),
    },
    "precision in percent": {"AP50": ("AP50", "C0", "-"), "AP": ("AP", "C1", "-")},
    "learning rate": {"learning_rate": (None, "C7", "-")},
}


def draw_data(path: Path, records: Sequence[Record], sizes: Sequence[tuple[int, int]], spec: ModelSpec) -> None:
    """Draw the boxes of a data set: how many of each class and in a picture, how large they are in the network input,
    beside the anchors, and where their centres are.

    sizes  (height, width) of each picture
    """
    classes = np.concatenate([record.classes for record in records])
    with figure_file(path, 13, 10) as figure:
        (by_class, by_picture), (by_size, by_place) = figure.subplots(2, 2)
        figure.suptitle(f"{len(records)} pictures, {len(classes)} boxes")
        _draw_classes(by_class, np.bincount(classes, minlength=len(spec.classes)), spec.classes)
        in_picture = np.array([len(record.classes) for record in records])
        edges = np.arange(in_picture.max() + 2) - 0.5 if in_picture.max() < 40 else 40
        by_picture.hist(in_picture, edges, color="C0", edgecolor="white")
        by_picture.set(title="boxes in a picture", xlabel="boxes", ylabel="pictures")

        width, height = box_sizes(list(records), list(sizes), spec.input_size, spec.resize).T
        some = np.random.default_rng(0).permutation(len(width))[:MOST_POINTS]
        by_size.scatter(width[some], height[some], 6, alpha=0.25, linewidths=0, label="boxes")
        anchors = np.array(sum(spec.heads.anchors, ()), float)
        by_size.scatter(*anchors.T, 90, "black", marker="+", linewidths=2, label="anchors")
        by_size.set(xscale="log", yscale="log", aspect="equal", xlabel="width", ylabel="height")
        for axis in (by_size.xaxis, by_size.yaxis):
            axis.set_ticks([8, 16, 32, 64, 128, 256, 512, 1024], ["8", "16", "32", "64", "128", "256", "512", "1024"])
            axis.set_ticks([], minor=True)
        sides = np.concatenate([width, height, anchors.ravel()])
        by_size.set(xlim=(limits := (0.8 * sides.min(), 1.25 * sides.max())), ylim=limits)
        by_size.set_title(f"sizes in pixels of the {size_name(spec.input_size)} input")
        by_size.legend(frameon=False)

        pairs = zip(records, sizes, strict=True)
        centres = np.concatenate([(r.boxes[:, :2] + r.boxes[:, 2:]) / 2 / (size[1], size[0]) for r, size in pairs])
        counts, *_ = np.histogram2d(centres[:, 1], centres[:, 0], 25, [[0, 1], [0, 1]])
        image = by_place.imshow(counts, cmap="viridis", extent=(0, 1, 1, 0), aspect="equal")
        by_place.set(title="places of their centres", xlabel="from left to right", ylabel="from top to bottom")
        figure.colorbar(image, label="boxes", shrink=0.8)


def _draw_classes(axes: "Axes", counts: np.ndarray, names: Sequence[str]) -> None:
    shown = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    bars = axes.barh(range(len(shown)), counts[shown], color="C0")
    axes.bar_label(bars, padding=3)
    axes.set_yticks(range(len(shown)), [f"{names[i]:.24}" for i in shown])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)  # a class may be named $
    axes.invert_yaxis()
    axes.margins(x=0.15)
    left_out = len(names) - len(shown)
    axes.set(xlabel="boxes", title=f"boxes by class{f', {left_out} classes with fewer not shown' if left_out else ''}")


def draw_results(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Draw the rows of a results.csv: losses, their terms, precision and learning rate over the epochs."""
    with figure_file(path, 13, 8) as figure:
        for axes, (title, lines) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            for column, (label, colour, style) in lines.items():
                points = [(row["epoch"], row[column]) for row in rows if column in row]
                x, y = np.array(points, float).reshape(-1, 2).T
                axes.plot(x, y, style, color=colour, label=label, marker="." if len(x) < 40 else "")
            axes.set(title=title, xlabel="epoch", ylim=(0, None))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if any(label for label, *_ in lines.values()):
                axes.legend(frameon=False, title="dotted: not trained on" if title == "its terms" else None)
            if title.startswith("precision"):
                axes.set_ylim(0, 100)
                _mark_best(axes, [row for row in rows if "AP50" in row])


def _mark_best(axes: "Axes", rows: Sequence[dict[str, float]]) -> None:
    if rows:
        best = max(rows, key=lambda row: row["AP"])
        text = f"best AP: {best['AP']:.1f} after epoch {best['epoch']:.0f}"
        axes.axvline(best["epoch"], color="grey", linestyle=":")
        axes.set_title(f"precision in percent; {text}")
