"""The benchmark of what each precision costs: its splits, its table, and one run of it."""

from pathlib import Path
from types import SimpleNamespace

from tools.benchmarks import precisions
from tools.benchmarks.precisions import draw_splits, lines
from yolov3.checks import PROJECT

import numpy as np
import pytest

CHECKED = SimpleNamespace(records=[SimpleNamespace(picture=Path(f"{i}.jpg")) for i in range(10)])


def test_no_picture_is_calibrated_and_measured_on():
    splits = draw_splits(CHECKED, [], None, 3)
    for pictures, indices in splits:
        assert sorted([*pictures, *(CHECKED.records[i].picture for i in indices)]) == [
            x.picture for x in CHECKED.records
        ]
        assert len(pictures) == len(indices) == 5
    assert splits == draw_splits(CHECKED, [], None, 3)
    assert splits[0] != splits[1]
    assert [len(pictures) for pictures, _ in draw_splits(CHECKED, [], 2, 3)] == [2, 2, 2]


def test_pictures_of_another_file_leave_all_to_measure_on():
    others = [Path(f"other{i}.jpg") for i in range(8)]
    for pictures, indices in draw_splits(CHECKED, others, 4, 2):
        assert set(pictures) < set(others) and len(set(pictures)) == 4
        assert indices == list(range(10))


def test_what_is_lost_is_the_mean_of_the_splits():
    measured = {
        "tf FP32": np.array([[50.0, 30.0], [40.0, 20.0]]),
        "tflite INT8": np.array([[48.0, 30.0], [39.5, 21.0]]),
        "onnx FP16": "not available: no package",
    }
    assert list(lines(measured, (1.25, 2.0))) == [
        ["tf FP32", "50.0 / 30.0", "40.0 / 20.0", "0.00", "0.00", "-"],
        ["tflite INT8", "48.0 / 30.0", "39.5 / 21.0", "1.25", "-0.50", "yes"],
        ["onnx FP16: not available: no package", "-", "-", "-", "-", "-"],
    ]
    assert list(lines(measured, (1.2, 2.0)))[1][-1] == "NO"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frameworks", "onnxx"], "--frameworks"),
        (["--precisions", "INT4"], "--precisions"),
        (["--splits", "0"], "--splits"),
        (["--markdown", "table.txt"], ".md"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, said, monkeypatch):
    monkeypatch.setattr("sys.argv", ["precisions", "--annotations", "IMAGES/digits/digits.txt", *arguments])
    with pytest.raises(SystemExit, match=said) as ended:
        precisions.main()
    assert len(str(ended.value).splitlines()) == 1


@pytest.mark.slow
def test_the_digits_keep_their_ap(monkeypatch, tmp_path):
    table = tmp_path / "table.md"
    annotations = str(PROJECT / "IMAGES/digits/digits.txt")
    chosen = ["--frameworks", "tflite", "--precisions", "FP32", "INT8", "--splits", "1"]
    weights = ["--weights", "model_data/yolov4-tiny-digits", "--set", "YOLO_INPUT_SIZE=224"]
    monkeypatch.setattr(
        "sys.argv", ["precisions", *weights, "--annotations", annotations, *chosen, "--markdown", str(table)]
    )
    precisions.main()
    rows = [line.strip("| ").split("|") for line in table.read_text().splitlines() if line.startswith("|")][2:]
    lost = {row[0].strip(): float(row[-3]) for row in rows}
    assert list(lost) == ["tf FP32", "tflite FP32", "tflite INT8"]
    assert abs(lost["tflite FP32"]) < 0.2 and lost["tflite INT8"] < 3
