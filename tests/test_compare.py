"""tools/benchmarks/compare_frameworks.py: one picture through several checkpoints, and how their boxes differ."""

import sys

from tools.benchmarks import compare_frameworks
from yolov3 import configs
from yolov3.checkpoint import ModelSpec, write_checkpoint
from yolov3.darknet import get_arrays
from yolov3.detector import Detections
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import cv2
import numpy as np
import pytest
from conftest import draw_red_and_green


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script as a module, at 64 pixels; run(*arguments) calls it from the command line, in tmp_path."""
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", 64)
    monkeypatch.setattr(configs, "YOLO_TYPE", "yolov4")
    monkeypatch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(tmp_path / "checkpoints"))
    monkeypatch.setattr(compare_frameworks, "ROUNDS", 1)
    monkeypatch.chdir(tmp_path)
    draw_red_and_green(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare_frameworks.py", *map(str, arguments)])
        compare_frameworks.main()

    compare_frameworks.run = run
    return compare_frameworks


@pytest.mark.slow
def test_draws_what_runs_and_says_why_the_rest_does_not(script, tmp_path, capsys):
    model = ModelSpec("yolov4", True, ("a", "b"), (64, 64), "letterbox", NETWORKS["yolov4-tiny"].heads)
    arrays = list(get_arrays(Create_Yolo(64, "yolov4", True, 2)))
    for name in "one", "two":
        write_checkpoint(tmp_path / name, model, arrays, "a test")
    (tmp_path / "empty").mkdir()
    script.run("0.png", "one", "two", "empty", "nowhere", "--output", "out.png")
    out, told = capsys.readouterr()
    assert cv2.imread(str(tmp_path / "out.png")).shape[1] == 2 * (script.SMALLEST + 6)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [["one", "tf FP32"], ["two", "tf FP32"]]
    assert rows[3][4:] == ["0", "0", "1.000", "0.000"]
    left_out = [line for line in told.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2 and "model.json" in left_out[0] and "nowhere is not there" in left_out[1]


def test_by_default_the_configured_weights_and_all_conversions_of_their_type_and_size(script, tmp_path):
    assert script.choose_checkpoints([]) == [None]  # without a folder too
    for name, size, weights in ("fits", 64, False), ("larger", 96, False), ("trained", 64, True):
        model = ModelSpec("yolov4", True, ("a", "b"), (size, size), "letterbox", NETWORKS["yolov4-tiny"].heads)
        folder = tmp_path / "checkpoints" / name
        write_checkpoint(folder, model, [], "a test")
        if not weights:
            (folder / "weights.npz").unlink()
    assert script.choose_checkpoints([]) == [None, tmp_path / "checkpoints/fits"]


def test_nothing_that_runs_is_an_error_in_one_line(script):
    with pytest.raises(SystemExit, match="^error: none of these checkpoints runs here$"):
        script.run("0.png", "nowhere", "--output", "out.png")
    with pytest.raises(SystemExit, match="error: picture .*nowhere.png"):
        script.run("nowhere.png", "--output", "out.png")


def test_boxes_are_compared_with_those_of_their_class_that_overlap_them_most(script):
    def detections(*rows):
        boxes, scores, classes = zip(*rows, strict=True)
        return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(classes), ("a", "b"))

    expected = detections(((0, 0, 10, 10), 0.9, 0), ((20, 20, 30, 30), 0.8, 1), ((50, 50, 60, 60), 0.7, 0))
    found = detections(
        ((0, 0, 10, 9), 0.85, 0), ((20, 20, 30, 30), 0.5, 0), ((20, 20, 30, 30), 0.6, 1), ((0, 0, 10, 6), 0.4, 0)
    )
    assert script.compare(expected, found) == pytest.approx((1, 2, 0.9, 0.2))
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, int), ("a", "b"))
    assert script.compare(expected, nothing) == (3, 0, 1.0, 0.0)
    assert script.compare(nothing, nothing) == (0, 0, 1.0, 0.0)
