"""Draw the loss, precision and learning rate of a training from what train.py wrote for TensorBoard.

python -m tools.benchmarks.plot_training                              draws the configured training to training.png
python -m tools.benchmarks.plot_training log/yolo_custom_Tiny --png curves.png
"""

from collections.abc import Iterator
from pathlib import Path

from tools.benchmarks.measuring import load_pyplot
from yolov3 import configs
from yolov3.checks import UserError, project_path, say_it_in_one_line
from yolov3.files import check_output, whole_file
from yolov3.settings import ScriptParser

import numpy as np
import tensorflow as tf

PANELS = (  # title; scale and limits of the y axis; whether to smooth; {tag: (label, colour)}
    (
        "loss per object",
        *("log", None, True),
        {
            "loss/loss": ("all", "#222222"),
            "loss/box": ("box", "#1f77b4"),
            "loss/objectness": ("objectness", "#ff7f0e"),
            "loss/class": ("class", "#2ca02c"),
        },
    ),
    (
        "validation, percent",
        *("linear", (0, 100), False),
        {"validation/AP50": ("AP50", "#1f77b4"), "validation/AP": ("AP", "#ff7f0e")},
    ),
    ("learning rate", "linear", None, False, {"learning_rate": ("learning rate", "#222222")}),
)
TAGS = [tag for *_, lines in PANELS for tag in lines]
SMOOTHED = 40  # number of independent points that a smoothed line has, about


def read_curves(folder: Path) -> dict[str, dict[int, float]]:
    """Return {tag: {step: value}} of a folder of event files. Raises UserError if it holds no curves.

    An interrupted training has several files. From its first step on, a file replaces what older ones say, since those
    steps were repeated.
    """
    curves = {tag: {} for tag in TAGS}
    for file in sorted(folder.glob("*tfevents*")):  # their names begin with the time at which they were made
        newer = [(event.step, tag, value) for event in read_events(file) for tag, value in scalars(event)]
        first = min((step for step, *_ in newer), default=np.inf)
        curves = {tag: {step: x for step, x in curve.items() if step < first} for tag, curve in curves.items()}
        for step, tag, value in newer:
            curves[tag][step] = value
    if not any(curves.values()):
        raise UserError(f"{folder} holds no curves of a training: name its folder in {configs.TRAIN_LOGDIR}/")
    return curves


def read_events(file: Path) -> Iterator[tf.compat.v1.Event]:
    """Yield the events of a file. That of a running or killed training may end in the middle of an event."""
    try:
        for record in tf.data.TFRecordDataset(str(file)):
            yield tf.compat.v1.Event.FromString(record.numpy())
    except tf.errors.DataLossError:
        return


def scalars(event: tf.compat.v1.Event) -> Iterator[tuple[str, float]]:
    """Yield the tag and value of each number in an event that is drawn."""
    for value in event.summary.value:
        if value.tag in TAGS:
            yield value.tag, float(tf.make_ndarray(value.tensor))


def smooth(values: np.ndarray) -> np.ndarray:
    """Return the centred running mean, taken over fewer values at the ends."""
    window = np.ones(2 * (len(values) // SMOOTHED // 2) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def draw_training(curves: dict[str, dict[int, float]], path: Path) -> None:
    """Write the curves as a PNG."""
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
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of event files (that of the configured model)")
    parser.add_argument("--png", type=Path, metavar="PATH", default=Path("training.png"), help="output (training.png)")
    arguments = parser.parse_args()

    name = configs.TRAIN_MODEL_NAME + ("_Tiny" if configs.TRAIN_YOLO_TINY else "")
    folder = arguments.folder or project_path(configs.TRAIN_LOGDIR) / name
    if not folder.is_dir():
        raise UserError(f"log folder {folder} is missing: python train.py writes one")
    check_output(arguments.png, (".png",))
    load_pyplot()  # it may be missing
    draw_training(read_curves(folder), arguments.png)
    print(f"written: {arguments.png}")


if __name__ == "__main__":
    main()
