"""Report what evaluation found: a table, COCO's JSON files, and all charts and pictures into a folder."""

import json
from pathlib import Path

from yolov3.annotations.format import Record
from yolov3.charts import draw_by_score, draw_confusion, draw_curves
from yolov3.confusion import confusion_matrix
from yolov3.evaluation import SUMMARY, Scores
from yolov3.files import whole_file
from yolov3.sheets import draw_truth_beside_found

import numpy as np


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


def write_coco_json(folder, scores):
    """Writes detections.json, COCO's results, and truth.json, the annotations with the same ids, for

        truth = COCO("truth.json"); COCOeval(truth, truth.loadRes("detections.json"), "bbox")

    or for another ground truth: truth.json says which image_id is which file, and which category_id which class.
    """
    for name, data in (("detections.json", scores.detections), ("truth.json", scores.truth)):
        with whole_file(folder / name) as part:
            part.write_text(json.dumps(data), encoding="utf-8")


def draw_report(
    folder: Path, scores: Scores, records: list[Record], score_threshold: float, max_pixels: int
) -> list[str]:
    """Draw an evaluation into a folder and return the names of the files: curves, which class is taken for which, and
    pictures with truth and detections side by side.

    score_threshold  of the detections in the confusion matrix and on the pictures
    """
    names = [row.name for row in scores.classes]
    draw_curves(folder / "precision_recall.png", scores)
    draw_by_score(folder / "by_score.png", scores)
    matrix = confusion_matrix(records, scores.found, len(names), score_threshold)
    draw_confusion(folder / "confusion_matrix.png", matrix, names, score_threshold)
    draw_truth_beside_found(folder / "truth_and_found.jpg", records, scores.found, names, score_threshold, max_pixels)
    return ["precision_recall.png", "by_score.png", "confusion_matrix.png", "truth_and_found.jpg"]
