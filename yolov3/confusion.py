"""Which class is taken for which: the confusion matrix of detections, which COCO's protocol does not have."""

from collections.abc import Mapping, Sequence

from yolov3.annotations.format import Record
from yolov3.boxes import iou
from yolov3.detector import Detections

import numpy as np

IOU = 0.5  # least overlap of a detection with the box that it is of


def confusion_matrix(
    records: Sequence[Record], found: Mapping[int, Detections], class_count: int, score_threshold: float
) -> np.ndarray:
    """Return int (C + 1, C + 1): boxes of the class of the row that were found as the class of the column.

    The last column counts boxes that were not found, the last row counts detections where there is no box. A detection
    is paired with a box of any class, the pairs with the most overlap first, and each belongs to one pair at most.
    """
    matrix = np.zeros((class_count + 1, class_count + 1), int)
    for i, detections in found.items():
        shown = detections.scores > score_threshold
        boxes, classes = detections.boxes[shown], detections.classes[shown]
        truth = records[i].classes
        overlap = iou(records[i].boxes[:, np.newaxis], boxes[np.newaxis]).numpy()  # (truth, detections)
        missed, wrong = set(range(len(truth))), set(range(len(classes)))
        for place in np.argsort(-overlap, axis=None, kind="stable"):
            row, column = divmod(int(place), max(len(classes), 1))
            if overlap[row, column] < IOU:
                break
            if row in missed and column in wrong:
                matrix[truth[row], classes[column]] += 1
                missed.remove(row)
                wrong.remove(column)
        for row in missed:
            matrix[truth[row], class_count] += 1
        for column in wrong:
            matrix[class_count, classes[column]] += 1
    return matrix
