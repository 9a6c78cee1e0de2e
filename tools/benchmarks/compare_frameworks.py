"""Show one picture through several checkpoints side by side: what each framework and precision finds, and how fast.

python -m tools.benchmarks.compare_frameworks PICTURE                  all checkpoints of the configured type and size
python -m tools.benchmarks.compare_frameworks PICTURE CHECKPOINT ...   these: folders, bare names or .weights files
python -m tools.benchmarks.compare_frameworks PICTURE --output mine.png    instead of results/compared.jpg

The first panel is what the others are compared with. If no checkpoints are given, it is the configured weights run by
"tf". Each of its boxes is compared with the box of its class, in another panel, that overlaps it most.
"""

import functools
import math
import sys
from pathlib import Path
from typing import NamedTuple

from deep_sort.matching import iou_matrix
from tools.benchmarks.measuring import markdown, run_in_rounds, timed
from yolov3 import configs
from yolov3.checkpoint import find, is_weights, read_model
from yolov3.checks import UserError, as_given, check_input_size, project_path, say_it_in_one_line, shell_path
from yolov3.conversion import configured_source
from yolov3.detector import Detections, Detector
from yolov3.files import check_output
from yolov3.heads import configured_network
from yolov3.images import read_picture
from yolov3.loading import Load_Yolo_model
from yolov3.media.drawing import FONT, FONT_PIXELS, draw_detections
from yolov3.media.outputs import PICTURE_SUFFIXES, write_picture
from yolov3.settings import ScriptParser

import cv2
import numpy as np

OUTPUT = "results/compared.jpg"
HEADER = "checkpoint|framework|ms a frame|boxes|missing|additional|least IoU|largest score difference"
ROUNDS = 20  # timed calls of each checkpoint
COLUMNS = 3  # most panels in a row
SMALLEST = 480  # least width of a panel in pixels, to make room for its caption


class Panel(NamedTuple):
    """Hold a checkpoint and what it finds on the picture."""

    name: str
    detector: Detector
    found: Detections

    @property
    def framework(self) -> str:
        """Return the framework and precision, as captions show them."""
        return f"{self.detector.spec.framework} {self.detector.spec.precision}"


def choose_checkpoints(named: list[str]) -> list[str | Path | None]:
    """Return the checkpoints to load. None stands for the configured weights."""
    if named:
        return [as_given(word) for word in named]
    configured, _ = configured_source()
    name = configured.name if configured else configured_network().name
    wanted = name, configured.input_size if configured else check_input_size(configs.YOLO_INPUT_SIZE)
    folders = sorted(project_path(configs.TRAIN_CHECKPOINTS_FOLDER).glob("[!.]*"))
    return [None, *(folder for folder in folders if kind(folder) == wanted)]


def kind(folder: Path) -> tuple[str, tuple[int, int]] | None:
    """Return the network and input size of a conversion, None of any other folder."""
    try:
        model = read_model(folder)
    except UserError:
        return None
    return None if is_weights(folder) else (model.name, model.input_size)


def load_panels(checkpoints: list[str | Path | None], picture: np.ndarray) -> list[Panel]:
    """Return the panels of the checkpoints that run here. Print why the others do not."""
    panels = []
    for checkpoint in checkpoints:
        try:
            if checkpoint is None:
                name, detector = configs.YOLO_CUSTOM_WEIGHTS or "Darknet's weights", Load_Yolo_model(framework="tf")
            else:
                name = find(checkpoint, configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
                detector = Load_Yolo_model(name)
            if panels and detector.names != panels[0].detector.names:
                raise UserError(f"{name} has other classes than {panels[0].name}")
            panels.append(Panel(Path(name).name, detector, detector([picture])[0]))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not panels:
        raise UserError("none of these checkpoints runs here")
    return panels


def compare(expected: Detections, found: Detections) -> tuple[int, int, float, float]:
    """Compare Detections of the same picture.

    Return how many are missing, how many are additional, and of the others the least IoU and the largest difference in
    score, which are 1 and 0 if there are none.
    """
    iou = iou_matrix(expected.boxes, found.boxes)  # (expected, found)
    iou *= expected.classes[:, np.newaxis] == found.classes
    pairs = []  # each box has at most one partner; the best pairs come first
    for i, j in zip(*np.unravel_index(np.argsort(-iou, axis=None), iou.shape), strict=True):
        if iou[i, j] >= 0.5 and i not in (a for a, _ in pairs) and j not in (b for _, b in pairs):
            pairs.append((i, j))
    least = min((iou[i, j] for i, j in pairs), default=1.0)
    off = max((abs(expected.scores[i] - found.scores[j]) for i, j in pairs), default=0.0)
    return len(expected) - len(pairs), len(found) - len(pairs), float(least), float(off)


def draw_panel(picture: np.ndarray, found: Detections, lines: list[str]) -> np.ndarray:
    """Return the picture with its boxes under a caption of some lines."""
    scale = max(1.0, SMALLEST / picture.shape[1])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    larger = Detections(found.boxes * scale, found.scores, found.classes, found.names)
    drawn = draw_detections(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), larger)
    pixels = size[0] / 32  # height of capital letters
    caption = np.full((round(pixels * (0.8 + 1.7 * len(lines))), size[0], 3), 255, np.uint8)
    for i, line in enumerate(lines):
        at, pen = (round(pixels / 2), round(pixels * 1.7 * (i + 1))), max(1, round(pixels / 12))
        cv2.putText(caption, line, at, FONT, pixels / FONT_PIXELS, (0, 0, 0), pen, cv2.LINE_AA)
    return np.concatenate([caption, drawn])


def tile(panels: list[np.ndarray]) -> np.ndarray:
    """Return pictures of one size as one picture, in rows, with a margin between them."""
    panels = [cv2.copyMakeBorder(x, 0, 6, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for x in panels]
    columns = min(COLUMNS, math.ceil(len(panels) ** 0.5))  # four make a square
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
    return np.concatenate([np.concatenate(panels[i : i + columns], 1) for i in range(0, len(panels), columns)])


@say_it_in_one_line
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("picture", help="what to detect on")
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="folder, bare name or .weights file")
    parser.add_argument("--output", metavar="PATH", help=f"picture to write ({OUTPUT})")
    arguments = parser.parse_args()
    output = project_path(OUTPUT) if arguments.output is None else shell_path(arguments.output).absolute()
    check_output(output, PICTURE_SUFFIXES, [Path(as_given(arguments.picture))])
    picture = read_picture(as_given(arguments.picture), configs.YOLO_MAX_PIXELS)

    panels = load_panels(choose_checkpoints(arguments.checkpoints), picture)
    calls = {i: functools.partial(timed, lambda x=x: x.detector([picture])) for i, x in enumerate(panels)}
    milliseconds = run_in_rounds(calls, ROUNDS, "timing")

    rows, drawn = [], []
    for i, panel in enumerate(panels):
        speed, boxes = f"{np.median(milliseconds[i]):.1f}", str(len(panel.found))
        missing, additional, least, off = compare(panels[0].found, panel.found)
        rows.append(
            [panel.name, panel.framework, speed, boxes, str(missing), str(additional), f"{least:.3f}", f"{off:.3f}"]
        )
        lines = [f"{panel.framework}, {speed} ms", f"{boxes} boxes", "what the others are compared with"]
        if i:
            lines[1] += f": {missing} missing, {additional} additional" if missing or additional else ""
            lines[2] = f"IoU from {least:.3f}, scores within {off:.3f}"
        drawn.append(draw_panel(picture, panel.found, lines))
    print(markdown(HEADER, rows))
    write_picture(output, tile(drawn))
    print(f"written: {output}")


if __name__ == "__main__":
    main()
