"""What evaluation tells a person: a table, precision-recall curves, COCO's JSON files."""

import json
import warnings

from yolov3.evaluation import RECALLS, SUMMARY
from yolov3.files import whole_file

import numpy as np

CURVES = 20  # classes drawn each with a line of its own: ten colours, two styles; of more, the best and the worst few
BEST_AND_WORST = 5


def table(scores):
    """Scores -> lines of text, in percent: a row for each class, then COCO's twelve numbers."""
    width = max(len(row.name) for row in scores.classes)
    lines = [f"{'':{width}}  boxes     AP   AP50   precision  recall  at score"]
    for row in scores.classes:
        at = "-" if np.isnan(row.score) else f"{row.score:.3f}"
        lines.append(
            f"{row.name:{width}}  {row.boxes:5}  {_percent(row.AP)}  {_percent(row.AP50)}       "
            f"{_percent(row.precision)}   {_percent(row.recall)}  {at:>8}"
        )
    lines += ["", *(f"{name:9} {_percent(getattr(scores, name))}  {about}" for name, about in SUMMARY.items())]
    return "\n".join(lines)


def _percent(x):
    return f"{'-' if np.isnan(x) else format(100 * x, '.1f'):>5}"


def draw_curves(path, scores):
    """Draws precision over recall at IoU 0.5 into a PNG: a line per class, and their mean."""
    from matplotlib.figure import Figure  # only here: training needs none of it

    order = sorted((i for i, x in enumerate(scores.classes) if x.boxes), key=lambda i: -scores.classes[i].AP50)
    chosen = order if len(order) <= CURVES else order[:BEST_AND_WORST] + order[-BEST_AND_WORST:]
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for rank, i in enumerate(chosen):
        label = f"{100 * scores.classes[i].AP50:5.1f} {scores.classes[i].name:.24}"
        axes.plot(RECALLS, scores.curves[i], ("-", "--")[rank // 10], color=f"C{rank % 10}", linewidth=1, label=label)
    if order:
        label = f"{100 * scores.AP50:5.1f} mean of {len(order)} classes"
        axes.plot(RECALLS, scores.curves[order].mean(0), "black", linewidth=3, label=label)
        left_out = len(order) - len(chosen)
        title = f"AP50, best and worst (not shown: {left_out})" if left_out else "AP50"
        look = {"family": "monospace", "size": "small"}
        legend = figure.legend(loc="outside right upper", title=title, alignment="left", frameon=False, prop=look)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a class may be named $
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="recall", ylabel="precision", title="Precision and recall at IoU 0.5")
    axes.grid(alpha=0.3)
    with whole_file(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the font lacks some scripts
        figure.savefig(part, format="png", dpi=120)


def write_coco_json(folder, scores):
    """Writes detections.json, COCO's results, and truth.json, the annotations with the same ids, for

        truth = COCO("truth.json"); COCOeval(truth, truth.loadRes("detections.json"), "bbox")

    or for another ground truth: truth.json says which image_id is which file, and which category_id which class.
    """
    for name, data in (("detections.json", scores.detections), ("truth.json", scores.truth)):
        with whole_file(folder / name) as part:
            part.write_text(json.dumps(data), encoding="utf-8")
