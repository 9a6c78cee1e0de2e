"""Measure how good a detector is on annotated pictures, by COCO's protocol as pycocotools has it.

Boxes are small, medium or large by their area in pixels of the picture, as in COCO. Pictures of other sizes than COCO's
640 x 480 have other shares of each.
"""

import contextlib
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from yolov3.annotations.format import Record
from yolov3.checks import UserError, check_count
from yolov3.detector import Detections
from yolov3.images import read_picture
from yolov3.media.threads import ReadAhead

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

SUMMARY = {  # COCO's twelve numbers, in its order; all but AP50 and AP75 are means over ten IoUs
    "AP": "IoU 0.50, 0.55 ... 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "AP_small": "boxes up to 32 x 32 pixels",
    "AP_medium": "boxes up to 96 x 96 pixels",
    "AP_large": "larger boxes",
    "AR1": "recall with one box of each class in a picture",
    "AR10": "recall with ten",
    "AR100": "recall with a hundred",
    "AR_small": "recall, boxes up to 32 x 32 pixels",
    "AR_medium": "recall, boxes up to 96 x 96 pixels",
    "AR_large": "recall, larger boxes",
}
RECALLS = np.linspace(0, 1, 101)  # the recalls at which COCO takes the precision
SCORES = np.linspace(0, 1, 101)  # the score thresholds at which precision and recall are taken


class ClassScores(NamedTuple):
    """Hold the results of one class. Numbers are 0..1, NaN where the annotations have no box to measure by.

    Precision and recall are those at IoU 0.5 and the score threshold with the best F1, their harmonic mean. A detector
    with that score as YOLO_SCORE_THRESHOLD has this precision and recall.
    """

    name: str
    boxes: int  # in the annotations
    AP: float
    AP50: float
    precision: float
    recall: float
    score: float


@dataclass
class Scores:
    """Hold the results of an evaluation. Numbers are 0..1, NaN where the annotations have no box to measure by."""

    AP: float  # SUMMARY says what each of the twelve means
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AR1: float
    AR10: float
    AR100: float
    AR_small: float
    AR_medium: float
    AR_large: float
    classes: list[ClassScores]  # in the order of the class ids
    curves: np.ndarray  # float (classes, 101): precision at RECALLS, IoU 0.50; NaN for classes without boxes
    by_score: np.ndarray  # float (classes, 2, 101): precision and recall of scores from SCORES on, IoU 0.50; or NaN
    images_per_second: float  # inside the detector
    found: Mapping[int, Detections]  # by the index of their record
    detections: list[dict]  # in COCO's results format
    truth: dict  # the annotations in COCO's format, with the same ids
    problems: list[str]  # why pictures were left out


# --- Measuring -----------------------------------------------------------------------------------------------------


def evaluate(
    detector: Callable[..., list[Detections]],
    records: Sequence[Record],
    sizes: Sequence[tuple[int, int]],
    class_names: Sequence[str],
    score_threshold: float,
    iou_threshold: float,
    batch_size: int = 1,
    max_pixels: int = 10**9,
    progress: bool = True,
) -> Scores:
    """Run a detector on annotated pictures and return its Scores.

    detector        a Detector, or a callable with its arguments and answers
    records, sizes  as `annotations.check_annotations` returns them
    class_names     the classes of detector and annotations, in the order of their ids
    batch_size      pictures detected at a time
    max_pixels      pictures with more are left out, as are those that cannot be decoded
    progress        whether to show a progress bar, if the output is a terminal
    Raises UserError if none of the pictures can be read.
    """
    batch_size = check_count("TEST_BATCH_SIZE", batch_size, 1)
    found: dict[int, Detections] = {}
    problems: list[str] = []
    seconds = 0.0
    reader = ReadAhead(_read(records, max_pixels, problems))
    bar = tqdm(total=len(records), unit=" pictures", disable=None if progress else True)
    with contextlib.closing(reader), bar:
        for batch in _in_batches(reader, batch_size):
            frames = [picture for _, picture in batch]
            before = time.perf_counter()
            answers = detector(frames, score_threshold=score_threshold, iou_threshold=iou_threshold)
            seconds += time.perf_counter() - before
            found.update(zip([i for i, _ in batch], answers, strict=True))
            bar.update(len(batch))
    if not found:
        raise UserError(f"none of the {len(records)} pictures can be read; {problems[0]}")

    return score(found, records, sizes, class_names, seconds, problems)


def score(
    found: Mapping[int, Detections],
    records: Sequence[Record],
    sizes: Sequence[tuple[int, int]],
    class_names: Sequence[str],
    seconds: float,
    problems: list[str],
) -> Scores:
    """Return the Scores of detections, {index of a record: Detections}.

    seconds   the time that they took
    problems  why other records are missing
    """
    truth = coco_truth(records, sizes, class_names, found)
    detections = coco_results(found)
    stats, classes, curves, by_score = _score(truth, detections)
    return Scores(
        **stats,
        classes=classes,
        curves=curves,
        by_score=by_score,
        images_per_second=len(found) / max(seconds, 1e-9),
        found=found,
        detections=detections,
        truth=truth,
        problems=problems,
    )


def _read(records, max_pixels, problems):
    """Yield index and picture of each record. Add what is wrong with those that cannot be read to `problems`."""
    for i, record in enumerate(records):
        try:
            yield i, read_picture(record.picture, max_pixels)
        except UserError as error:
            problems.append(str(error))


def _in_batches(items, size):
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def _score(truth, detections):
    """Return COCO's twelve numbers by name, a list of ClassScores, and the two kinds of curves."""
    results = [{**x, "id": i, "area": x["bbox"][2] * x["bbox"][3]} for i, x in enumerate(detections, 1)]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        measured = COCOeval(_indexed(truth, truth["annotations"]), _indexed(truth, results), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    stats, precision = (np.where(x < 0, np.nan, x) for x in (measured.stats, measured.eval["precision"]))
    precision = precision[:, :, :, 0, -1]  # (IoUs, recalls, classes), for all areas and 100 boxes

    answers = iter(measured.evalImgs)  # one for each class, area and picture; pictures change fastest
    pictures, areas = len(truth["images"]), len(measured.params.areaRng)
    classes, by_score = [], []
    for k, category in enumerate(truth["categories"]):
        of_class, *_ = [list(itertools.islice(answers, pictures)) for _ in range(areas)]  # the first is all areas
        of_class = list(filter(None, of_class))
        classes.append(_class_scores(category["name"], precision[:, :, k], of_class))
        by_score.append(_by_score(of_class))
    return dict(zip(SUMMARY, stats.tolist(), strict=True)), classes, precision[0].T, np.array(by_score)


def _class_scores(name, precision, answers):
    """Return the ClassScores of a class's precision (IoUs, recalls) and pycocotools' answers for its pictures."""
    boxes, scores, right = _best_first(answers)
    AP, AP50 = float(precision.mean()), float(precision[0].mean())
    if not boxes:
        return ClassScores(name, 0, AP, AP50, np.nan, np.nan, np.nan)
    if not right.any():
        return ClassScores(name, boxes, AP, AP50, 0.0, 0.0, np.nan)
    last = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))  # equal scores cannot be told apart by a threshold
    true, count = np.cumsum(right)[last], last + 1
    best = np.argmax(2 * true / (boxes + count))  # F1
    at_best = true[best] / count[best], true[best] / boxes, scores[last[best]]
    return ClassScores(name, boxes, AP, AP50, *(float(x) for x in at_best))


def _by_score(answers):
    """Return precision and recall (2, 101) of a class's detections with a score of at least SCORES."""
    boxes, scores, right = _best_first(answers)
    if not boxes:
        return np.full((2, len(SCORES)), np.nan)
    count = np.searchsorted(-scores, -SCORES, side="right")
    true = np.concatenate([[0], np.cumsum(right)])[count]
    with np.errstate(invalid="ignore"):
        return np.stack([true / count, true / boxes])


def _best_first(answers):
    """Return how many boxes of a class there are, and its detections, best first: scores, and whether each is right."""
    boxes = sum(len(x["gtIds"]) for x in answers)
    scores = np.array([score for x in answers for score in x["dtScores"]])
    right = np.array([match > 0 for x in answers for match in x["dtMatches"][0]], bool)
    order = np.argsort(-scores, kind="stable")
    return boxes, scores[order], right[order]


def _indexed(truth, annotations):
    """Return a COCO object of copies, since pycocotools changes what it gets, and its loadRes refuses an empty list."""
    coco = COCO()
    coco.dataset = {**truth, "annotations": [{"iscrowd": 0, **x} for x in annotations]}
    coco.createIndex()
    return coco


# --- COCO's formats ------------------------------------------------------------------------------------------------


def coco_truth(
    records: Sequence[Record], sizes: Sequence[tuple[int, int]], class_names: Sequence[str], indices: Iterable[int]
) -> dict:
    """Return the records of those indices as COCO's annotations.

    image_id is the index plus 1, category_id the class, from 0. file_name is relative to the folder that all pictures
    have in common.
    """
    chosen = sorted(indices)
    root = os.path.commonpath([records[i].picture.parent for i in chosen])
    images: list[dict] = []
    annotations: list[dict] = []
    for i in chosen:
        (height, width), file_name = sizes[i], records[i].picture.relative_to(root).as_posix()
        images.append({"id": i + 1, "file_name": file_name, "width": int(width), "height": int(height)})
        for box, label in zip(_xywh(records[i].boxes), records[i].classes, strict=True):
            row = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": int(label), "bbox": box}
            annotations.append({**row, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def coco_results(found: Mapping[int, Detections]) -> list[dict]:
    """Return detections, {index of a record: Detections}, as COCO's results: ids as in `coco_truth`, best first."""
    rows = []
    for i, detections in sorted(found.items()):
        boxes = _xywh(detections.boxes)
        for box, score, label in zip(boxes, detections.scores, detections.classes, strict=True):
            rows.append({"image_id": i + 1, "category_id": int(label), "bbox": box, "score": round(float(score), 6)})
    return rows


def _xywh(boxes):
    """Return xyxy boxes (n, 4) as lists of left, top, width and height, rounded to 0.001 pixels for a short JSON."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).round(3).tolist()
