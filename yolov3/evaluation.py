"""How good a detector is on annotated pictures: COCO's protocol, by pycocotools.

pictures -> detector -> COCO's form -> Scores -> table, precision-recall curves, JSON
"""

import contextlib
import io
import itertools
import json
import math
import time
from dataclasses import dataclass, field

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from yolov3.images import read_picture
from yolov3.outputs import told_in_one_line
from yolov3.settings import UserError
from yolov3.video import ReadAhead

SUMMARY = (  # COCOeval.stats in its order, and what each says
    ("AP", "IoU 0.50:0.95"),
    ("AP50", "IoU 0.50"),
    ("AP75", "IoU 0.75"),
    ("APs", "boxes under 32 x 32 pixels"),
    ("APm", "boxes of 32 x 32 to 96 x 96"),
    ("APl", "larger boxes"),
    ("AR1", "recall, 1 box a picture"),
    ("AR10", "recall, 10 boxes a picture"),
    ("AR100", "recall, 100 boxes a picture"),
    ("ARs", "recall, small boxes"),
    ("ARm", "recall, medium boxes"),
    ("ARl", "recall, large boxes"),
)
IOU50, IOU75, ALL_SIZES, BOXES100 = 0, 5, 0, 2  # indices into COCOeval's arrays
MAX_CURVES = 20  # classes drawn one by one; of more, only the mean


@dataclass(frozen=True)
class ClassScores:
    """One class; precision and recall at IoU 0.5. NaN where there is nothing to find."""

    name: str
    boxes: int  # that are there
    AP: float
    AP50: float
    AP75: float
    recall: float  # of all its boxes, however low their score
    F1: float  # the best that a score threshold gives,
    score: float  # and that threshold
    precision: np.ndarray  # at COCO's 101 recalls, 0, 0.01 ... 1


@dataclass(frozen=True)
class Scores:
    """All figures are 0..1; NaN where there is nothing to measure."""

    summary: dict  # of SUMMARY's names
    classes: list  # of ClassScores
    truth: dict  # COCO's annotation file
    found: list  # COCO's results: image_id, category_id, bbox (x, y, width, height), score
    images_per_second: float  # pictures over seconds in the detector
    problems: list = field(default_factory=list)  # of str: pictures that could not be read, left out

    @property
    def AP(self):
        return self.summary["AP"]

    @property
    def AP50(self):
        return self.summary["AP50"]


def evaluate(detector, checked, score_threshold, iou_threshold, batch_size, max_pixels, progress=True):
    """A Detector on annotations.Checked -> Scores. Raises UserError if not one picture can be read."""
    # 1. What is there, and what is found
    images, truth, found, problems, seconds = [], [], [], [], 0.0
    with tqdm(total=len(checked.records), unit=" pictures", disable=None if progress else True) as bar:
        for batch in batched(read_ahead(checked, max_pixels), batch_size):
            bar.update(len(batch))
            problems += [frame for *_, frame in batch if isinstance(frame, str)]
            batch = [entry for entry in batch if not isinstance(entry[-1], str)]
            started = time.perf_counter()
            detections = detector([frame for *_, frame in batch], score_threshold, iou_threshold)
            seconds += time.perf_counter() - started
            for (record, (width, height), _), answer in zip(batch, detections, strict=True):
                number = len(images) + 1
                images.append({"id": number, "file_name": str(record.picture), "width": width, "height": height})
                truth += coco_boxes(number, record.boxes, record.classes)
                found += coco_boxes(number, answer.boxes, answer.classes, score=answer.scores)
    if not images:
        raise UserError(f"none of the {len(problems)} pictures can be read; {problems[0]}")

    # 2. COCO's protocol
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(detector.names)]
    for number, box in enumerate(truth, 1):
        box.update(id=number, iscrowd=0)
    dataset = {"images": images, "categories": categories, "annotations": truth}
    measured = measure(dataset, found)
    summary = {name: not_a_number(value) for (name, _), value in zip(SUMMARY, measured.stats, strict=True)}
    counts = np.bincount([box["category_id"] - 1 for box in truth], minlength=len(categories))
    classes = [class_scores(measured.eval, i, name, int(counts[i])) for i, name in enumerate(detector.names)]
    return Scores(summary, classes, dataset, found, len(images) / seconds, problems)


def read_ahead(checked, max_pixels):
    """Checked -> (record, its size, its picture or, if it cannot be read, why), decoded in a thread of its own."""

    def entries():
        for record, size in zip(checked.records, checked.sizes, strict=True):
            try:
                yield record, size, read_picture(record.picture, max_pixels)
            except UserError as error:
                yield record, size, str(error)

    with contextlib.closing(ReadAhead(entries())) as ahead:
        yield from ahead


def batched(entries, size):
    entries = iter(entries)
    return iter(lambda: list(itertools.islice(entries, size)), [])


def coco_boxes(image, boxes, classes, **columns):
    """xyxy (n, 4) and classes (n,) of a picture in COCO's form; columns: more of its keys, each (n,)."""
    rows = []
    for i, (x1, y1, x2, y2) in enumerate(np.asarray(boxes, float).tolist()):
        row = {"image_id": image, "category_id": int(classes[i]) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        row["area"] = (x2 - x1) * (y2 - y1)
        rows.append(row | {name: float(column[i]) for name, column in columns.items()})
    return rows


def measure(truth, found):
    """COCO's annotation file and results -> COCOeval, all figures computed."""
    with contextlib.redirect_stdout(io.StringIO()):  # it tells every step
        sides = []
        for boxes in (truth["annotations"], [{**box, "id": i} for i, box in enumerate(found, 1)]):
            side = COCO()
            side.dataset = {**truth, "annotations": boxes}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def class_scores(measured, i, name, boxes):
    """COCOeval.eval -> ClassScores of category i."""
    precision = measured["precision"][:, :, i, ALL_SIZES, BOXES100]  # (IoUs, recalls), -1 without boxes
    scores = measured["scores"][IOU50, :, i, ALL_SIZES, BOXES100]
    recall = np.linspace(0, 1, precision.shape[1])
    f1 = 2 * precision[IOU50] * recall / np.maximum(precision[IOU50] + recall, 1e-9)
    best = int(np.argmax(f1))
    figures = (
        np.mean(precision),
        np.mean(precision[IOU50]),
        np.mean(precision[IOU75]),
        measured["recall"][IOU50, i, ALL_SIZES, BOXES100],
        f1[best],
        scores[best],
    )
    figures = [not_a_number(x) if boxes else math.nan for x in figures]
    return ClassScores(name, boxes, *figures, precision[IOU50])


def not_a_number(x):
    """pycocotools' -1, for nothing to measure, as NaN."""
    return math.nan if x < 0 else float(x)


# --- Report ----------------------------------------------------------------------------------------------------------


def table(scores):
    """Scores -> lines of text: a row for each class, then COCO's summary. Percent."""

    def percent(x):
        return "-" if math.isnan(x) else f"{100 * x:.1f}"

    names = [row.name for row in scores.classes]
    width = max(map(len, [*names, "class"]))
    lines = [f"{'class':{width}}  boxes    AP  AP50  AP75  recall  best F1  at score"]
    for row in scores.classes:
        at = "-" if math.isnan(row.score) else f"{row.score:.2f}"
        cells = [percent(x) for x in (row.AP, row.AP50, row.AP75, row.recall, row.F1)]
        lines.append(
            f"{row.name:{width}}  {row.boxes:5}  {cells[0]:>4}  {cells[1]:>4}  {cells[2]:>4}  {cells[3]:>6}  "
            f"{cells[4]:>7}  {at:>8}"
        )
    lines += ["", *(f"{name:5} {percent(scores.summary[name]):>5}  {about}" for name, about in SUMMARY)]
    return "\n".join(lines)


def write_json(path, content):
    """Writes a JSON file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    with told_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps(content), encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def draw_curves(path, scores):
    """Precision over recall at IoU 0.5 as a PNG: a line for each class, a thick one for their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in scores.classes if row.boxes]
    recall = np.linspace(0, 1, len(rows[0].precision))
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    axes.set_prop_cycle(color=plt.colormaps["tab20"].colors)
    for row in rows if len(rows) <= MAX_CURVES else []:
        axes.plot(recall, row.precision, linewidth=1, label=f"{row.name} {100 * row.AP50:.1f}")
    mean = np.mean([row.precision for row in rows], 0)
    axes.plot(recall, mean, color="black", linewidth=3, label=f"all {100 * scores.AP50:.1f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"AP50 {100 * scores.AP50:.1f}, {len(scores.truth['images'])} pictures", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="AP50", frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    part = path.with_name(f".{path.name}.part")
    with told_in_one_line(path):
        try:
            figure.savefig(part, dpi=120, format="png")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    plt.close(figure)
