"""Draws how a training went, from what train.py wrote for TensorBoard: loss, precision, learning rate.

python -m tools.benchmarks.plot_training                              the configured training -> training.png
python -m tools.benchmarks.plot_training log/yolo_custom_Tiny --png curves.png
"""

import argparse
from pathlib import Path

from tools.benchmarks.measuring import load_pyplot
from yolov3 import configs
from yolov3.checks import UserError, project_path, say_it_in_one_line
from yolov3.files import check_output, whole_file

import numpy as np
import tensorflow as tf

PANELS = (  # title, scale and limits of the y axis, whether to smooth, {tag: (label, colour)}
    (
        "loss, a picture's mean",
        *("log", None, True),
        {
            "loss/loss": ("all", "#222222"),
            "loss/box": ("box", "#1f77b4"),
            "loss/objectness": ("objectness", "#ff7f0e"),
            "loss/class": ("class", "#2ca02c"),
        },
    ),
    (
        "validation",
        *("linear", (0, 1), False),
        {"validation/AP50": ("AP50", "#1f77b4"), "validation/AP": ("AP", "#ff7f0e")},
    ),
    ("learning rate", "linear", None, False, {"learning_rate": ("learning rate", "#222222")}),
)
TAGS = [tag for *_, lines in PANELS for tag in lines]
SMOOTHED = 40  # a smoothed line has about so many independent points


def read_curves(folder):
    """A folder of event files -> {tag: {step: value}}. A training that went on has several files: each replaces what
    older ones say from its first step on, since from there the training was done again."""
    curves = {tag: {} for tag in TAGS}
    for file in sorted(folder.glob("*tfevents*")):  # their names begin with the time
        newer = [(event.step, tag, value) for event in read_events(file) for tag, value in scalars(event)]
        first = min((step for step, *_ in newer), default=np.inf)
        curves = {tag: {step: x for step, x in curve.items() if step < first} for tag, curve in curves.items()}
        for step, tag, value in newer:
            curves[tag][step] = value
    if not any(curves.values()):
        raise UserError(f"{folder} holds no curves of a training: name the folder in {configs.TRAIN_LOGDIR}/")
    return curves


def read_events(file):
    """As far as the file is whole: that of a training under way, or killed, may end in the middle of an event."""
    try:
        for record in tf.data.TFRecordDataset(str(file)):
            yield tf.compat.v1.Event.FromString(record.numpy())
    except tf.errors.DataLossError:
        return


def scalars(event):
    for value in event.summary.value:
        if value.tag in TAGS:
            yield value.tag, float(tf.make_ndarray(value.tensor))


def smooth(values):
    """Centred running mean, over fewer values at the ends."""
    window = np.ones(2 * (len(values) // SMOOTHED // 2) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def draw(curves, path):
    figure, axes = load_pyplot().subplots(1, len(PANELS), figsize=(10, 3.6), layout="constrained")
    last = max(step for curve in curves.values() for step in curve)
    for (title, scale, limits, smoothed, lines), ax in zip(PANELS, axes, strict=True):
        for tag, (label, colour) in lines.items():
            steps, values = np.array(sorted(curves[tag].items())).reshape(-1, 2).T
            if smoothed and len(steps):
                ax.plot(steps, values, color=colour, alpha=0.2, linewidth=0.7)
                values = smooth(values)
            ax.plot(steps, values, color=colour, label=label, marker="" if len(steps) > 50 else ".")
        ax.set_title(title, loc="left", fontweight="bold")
        ax.set_xlabel("step")
        ax.set_xlim(0, last)
        ax.set_yscale(scale)
        if limits:
            ax.set_ylim(limits)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            ax.legend(frameon=False, ncols=2, handlelength=1)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120)


@say_it_in_one_line
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="of event files (that of the configured model)")
    parser.add_argument("--png", type=Path, metavar="PATH", default=Path("training.png"), help="(training.png)")
    arguments = parser.parse_args()

    name = configs.TRAIN_MODEL_NAME + ("_Tiny" if configs.TRAIN_YOLO_TINY else "")
    folder = arguments.folder or project_path(configs.TRAIN_LOGDIR) / name
    if not folder.is_dir():
        raise UserError(f"log folder {folder} is missing: python train.py writes one")
    check_output(arguments.png, (".png",))
    load_pyplot()  # is it there?
    draw(read_curves(folder), arguments.png)
    print(f"written: {arguments.png}")


if __name__ == "__main__":
    main()
