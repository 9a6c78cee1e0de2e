"""Write what `boxes.py` does as ONNX operations: raw heads to predictions, and suppression.

Suppression is greedy, in a loop that keeps one box of each picture at a time. ONNX's own NonMaxSuppression does not
know DIoU, returns any number of boxes, and TensorRT-RTX refuses it.
"""

from collections.abc import Sequence
from typing import Any

from yolov3.boxes import MAX_BOXES, MAX_LOG_SIZE, MAX_PAIRS
from yolov3.networks import Heads
from yolov3.runtimes.onnx_parts.graph import Graph

import numpy as np

LEAST_AREA = 1e-12  # of a union and of a hull, in fractions of the input: two boxes without area do not overlap


def write_decoding(
    graph: Graph,
    raw: str,
    shape: tuple[int, int, int],
    stride: int,
    anchors: Sequence,
    scale_x_y: float,
    new_coords: bool = False,
) -> str:
    """Write `boxes.decode` of one head. Return the name of its predictions (N, boxes, 4 + C).

    raw    the name of a raw head, (N, height, width, anchors * (5 + C))
    shape  its height, width and channels
    """
    height, width, channels = shape
    sides, count = np.array([width, height]), len(anchors)
    classes = channels // count - 5
    y, x = np.divmod(np.arange(height * width), width)
    cell = np.stack([x, y], -1)[:, np.newaxis]  # (cells, 1, 2)

    raw = graph("Reshape", raw, [-1, height * width, count, 5 + classes])
    centre, size, objectness, classes = graph("Split", raw, [2, 2, 1, classes], axis=-1, outputs=4)
    centre = graph("Mul", graph("Sigmoid", centre), np.float32(scale_x_y / sides))
    centre = graph("Add", centre, np.float32((cell - (scale_x_y - 1) / 2) / sides))
    if new_coords:
        sigmoid = graph("Sigmoid", size)
        size = graph("Mul", graph("Mul", sigmoid, sigmoid), 4.0)
    else:
        size = graph("Exp", graph("Min", size, MAX_LOG_SIZE))
    half = graph("Mul", size, np.float32(np.array(anchors) / (sides * stride) / 2))
    scores = graph("Mul", graph("Sigmoid", objectness), graph("Sigmoid", classes))
    rows = graph("Concat", graph("Sub", centre, half), graph("Add", centre, half), scores, axis=-1)
    return graph("Reshape", rows, [0, height * width * count, channels // count - 1])


def write_suppression(
    graph: Graph,
    predictions: str,
    shape: tuple[int, int],
    size: tuple[int, int],
    heads: Heads,
    score_threshold: float,
    iou_threshold: float,
    class_agnostic: bool,
) -> tuple[str, str, str, str]:
    """Write `boxes.suppress` for pictures that fill the network input. Return the names of what it answers:

    boxes (N, 100, 4), in pixels of the input and clipped to it, scores (N, 100), classes int32 (N, 100) and
    valid_detections int32 (N,).

    predictions  the name of predictions (N, boxes, 4 + C)
    shape        their number of boxes, and of classes
    size         height and width of the network input
    """
    # 1. The best pairs of box and class, with a score of zero if it is not over the threshold
    rows, classes = shape
    boxes, scores = graph("Split", predictions, [4, classes], axis=-1, outputs=2)
    if class_agnostic:
        label_of_row = graph("ArgMax", scores, axis=-1, keepdims=0)  # (N, rows)
        flat = graph("ReduceMax", scores, axes=[-1], keepdims=0)
    else:
        flat = graph("Reshape", scores, [0, -1])
    pairs = min(MAX_PAIRS, rows * (1 if class_agnostic else classes))
    score, pair = graph("TopK", flat, [pairs], axis=1, outputs=2)  # (N, pairs)
    if class_agnostic:
        row, label = pair, graph("GatherElements", label_of_row, pair, axis=1)
    else:
        row = graph("Div", pair, classes)
        label = graph("Sub", pair, graph("Mul", row, classes))
    box = _rows(graph, boxes, row)  # (N, pairs, 4)
    sides = [graph("Squeeze", x, [-1]) for x in graph("Split", box, axis=-1, outputs=4)]
    score = graph("Where", graph("Greater", score, float(score_threshold)), score, 0.0)

    # 2. Those that are kept: one of each picture a turn
    area = _area(graph, sides)
    loop = graph.body()
    inner = _keep_one(loop, pairs, sides, area, None if class_agnostic else label, heads, iou_threshold)
    state = {"alive": (np.float32, ("N", pairs)), "kept": (np.float32, ("N", pairs))}
    inputs = {"turn": (np.int64, ()), "goes_on": (bool, ()), **state}
    body = loop.to_graph(inputs, {inner[0]: (bool, ()), **dict(zip(inner[1:], state.values(), strict=True))}, "keep")
    none = graph("Mul", score, 0.0)
    _, kept = graph("Loop", MAX_BOXES, np.array(True), score, none, body=body, outputs=2)

    # 3. The best hundred
    count = min(MAX_BOXES, pairs)
    score, place = graph("TopK", kept, [count], axis=1, outputs=2)
    is_box = graph("Greater", score, 0.0)
    box = graph("Clip", _rows(graph, box, place), 0.0, 1.0)
    box = graph("Mul", box, [float(side) for side in (size[1], size[0]) * 2])
    box = graph("Mul", box, graph("Unsqueeze", graph("Cast", is_box, to=graph.type(np.float32)), [-1]))
    label = graph("Cast", graph("GatherElements", label, place, axis=1), to=graph.type(np.int32))
    label = graph("Mul", label, graph("Cast", is_box, to=graph.type(np.int32)))
    valid = graph("ReduceSum", graph("Cast", is_box, to=graph.type(np.int32)), [1], keepdims=0)
    if count < MAX_BOXES:
        missing = MAX_BOXES - count
        box = graph("Pad", box, [0, 0, 0, 0, missing, 0], 0.0)
        score = graph("Pad", score, [0, 0, 0, missing], 0.0)
        label = graph("Pad", label, [0, 0, 0, missing], np.int32(0))
    return box, score, label, valid


def _keep_one(
    loop: Graph, pairs: int, sides: list[str], area: str, label: str | None, heads: Heads, iou_threshold: float
) -> tuple[str, str, str]:
    """Write one turn of the loop: the best pair alive is kept, and those that it suppresses die.

    Return the names of whether any pair is left alive, of the scores of those alive, and of the scores of those kept.
    """
    place = loop("ArgMax", "alive", axis=1, keepdims=1)  # (N, 1)
    is_best = loop("Equal", np.arange(pairs)[np.newaxis], place)  # (N, pairs)
    kept = loop("Max", "kept", loop("Where", is_best, "alive", 0.0))

    best = [loop("GatherElements", side, place, axis=1) for side in sides]
    left, top = (loop("Max", sides[i], best[i]) for i in (0, 1))
    right, bottom = (loop("Min", sides[i], best[i]) for i in (2, 3))
    width, height = (loop("Max", loop("Sub", b, a), 0.0) for a, b in ((left, right), (top, bottom)))
    common = loop("Mul", width, height)
    union = loop("Sub", loop("Add", area, loop("GatherElements", area, place, axis=1)), common)
    overlap = loop("Div", common, loop("Max", union, LEAST_AREA))
    if heads.nms == "diou":
        overlap = loop("Sub", overlap, loop("Pow", _distance(loop, sides, best), float(heads.beta_nms)))
    suppressed = loop("Greater", overlap, float(iou_threshold))
    if label is not None:
        same = loop("Equal", label, loop("GatherElements", label, place, axis=1))
        suppressed = loop("And", suppressed, same)
    alive = loop("Where", loop("Or", suppressed, is_best), 0.0, "alive")
    return loop("Greater", loop("ReduceMax", alive, keepdims=0), 0.0), alive, kept


def _distance(loop: Graph, sides: list[str], best: list[str]) -> str:
    """Write the squared distance of the centres over the squared diagonal of the hull."""
    hull, apart = [], []  # its width and height; twice the distance of the centres along x and y
    for low, high in ((0, 2), (1, 3)):
        hull.append(loop("Sub", loop("Max", sides[high], best[high]), loop("Min", sides[low], best[low])))
        apart.append(loop("Sub", loop("Add", sides[low], sides[high]), loop("Add", best[low], best[high])))
    squares = [loop("Add", *(loop("Mul", x, x) for x in pair)) for pair in (apart, hull)]
    return loop("Div", loop("Mul", squares[0], 0.25), loop("Max", squares[1], LEAST_AREA))


def _area(graph: Graph, sides: list[str]) -> str:
    x1, y1, x2, y2 = sides
    return graph("Mul", graph("Sub", x2, x1), graph("Sub", y2, y1))


def _rows(graph: Graph, table: str, rows: Any) -> str:
    """Write the choice of rows (N, k) of a table (N, rows, columns)."""
    return graph("GatherND", table, graph("Unsqueeze", rows, [-1]), batch_dims=1)
