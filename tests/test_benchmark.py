"""tools/benchmarks/speed.py as a person runs it: its tables, CSV and charts, and what it says to wrong arguments."""

import csv
import importlib.util
import os
import pickle
import re
import subprocess
import sys

from yolov3.checkpoint import ModelSpec, write_checkpoint
from yolov3.checks import UserError
from yolov3.darknet import get_arrays
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import numpy as np
import pytest
from conftest import PROJECT, SHARED, draw_red_and_green

HAS_OPENVINO = all(map(importlib.util.find_spec, ("openvino", "nncf")))
PNG = b"\x89PNG\r\n\x1a\n"


def benchmark(*arguments, cwd):
    """As from a shell: without what importing yolov3 in another test has left in the environment."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    command = [sys.executable, "-m", "tools.benchmarks.speed", *arguments]
    shell["PYTHONPATH"] = str(PROJECT)
    return subprocess.run(command, cwd=cwd, env=shell, capture_output=True, text=True, timeout=300)


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_random_weights_for_speed(tmp_path):
    options = "--types yolov4-tiny --sizes 64 --frameworks tf trt keras opencv --precisions FP32 --rounds 2 --random"
    results = "--markdown out.md --csv out.csv --png out.png"
    result = benchmark(*options.split(), *results.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = (tmp_path / "out.md").read_text()
    assert report in result.stdout
    assert (tmp_path / "out.png").read_bytes().startswith(PNG)
    assert re.search(r"cores.*Python \d.*TensorFlow \d.*OpenCV \d", report)
    assert "yolov4-tiny: random weights" in report

    rows = {row["contender"]: row for row in read_csv(tmp_path / "out.csv")}
    assert list(rows) == ["tf FP32", "trt FP32", "Keras predict + NumPy NMS", "OpenCV DNN"]
    for row in rows.values():
        assert (row["type"], row["size"], row["AP50"]) == ("yolov4-tiny", "64", "")
        figures = [row[name] for name in ("network_ms", "frame_ms", "p99_ms", "FPS", "peak_MB")]
        if row["note"]:
            assert row["note"].startswith("not available: ") and not any(figures)
        else:
            assert all(float(x) > 0 for x in figures)
    assert not rows["tf FP32"]["note"] and not rows["Keras predict + NumPy NMS"]["note"]
    assert bool(rows["OpenCV DNN"]["note"]) != SHARED.exists()
    for name, row in rows.items():
        assert f"| {name}: {row['note']} " if row["note"] else f"| {name} " in report

    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()]
    (budget,) = (row for row in cells if row and row[0] == "tf FP32 frame / tf FP32 network")
    assert float(budget[3]) > 0 and budget[5] in ("yes", "NO")


@pytest.mark.slow
def test_a_checkpoint_on_annotated_pictures(tmp_path):
    """One whose anchors and classes are its own, at another size than it was made for, in INT8."""
    heads = NETWORKS["yolov4-tiny"].heads._replace(
        anchors=(((14, 20), (20, 27), (27, 37)), ((38, 51), (54, 73), (89, 119)))
    )
    model = ModelSpec("yolov4", True, ("red", "green"), (96, 96), "letterbox", heads)
    write_checkpoint(tmp_path / "mine", model, get_arrays(Create_Yolo(96, "yolov4", True, 2)), "a test")
    (tmp_path / "mine.txt").write_text("\n".join(draw_red_and_green(tmp_path)))
    options = "--weights mine --sizes 64 --frameworks openvino opencv --precisions INT8 --rounds 1"
    data = "--annotations mine.txt --pictures 3 --calibration mine.txt --calibration-count 2"
    results = "--csv out.csv --png out.png"
    result = benchmark(*options.split(), *data.split(), *results.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "AP50 and AP on 3 pictures" in result.stdout and "INT8 calibrated on 2 pictures of" in result.stdout
    assert (tmp_path / "out.png").read_bytes().startswith(PNG)

    rows = {row["contender"]: row for row in read_csv(tmp_path / "out.csv")}
    assert list(rows) == ["openvino INT8", "OpenCV DNN"]
    if HAS_OPENVINO:
        header, parts = re.search(r"(parts of a frame.*)\n.*\n(\| openvino INT8 .*)", result.stdout).groups()
        assert header.split("|")[-6:-1] == [" preparing ", " network ", " suppression ", " the rest ", " bare request "]
        assert all(float(part) > 0 for part in parts.split("|")[-6:-1])
        assert 0 <= float(rows["openvino INT8"]["AP"]) <= float(rows["openvino INT8"]["AP50"]) <= 100
    else:
        assert "not installed" in rows["openvino INT8"]["note"] or "NNCF" in rows["openvino INT8"]["note"]
    assert rows["OpenCV DNN"]["AP50"] == ""


def test_a_row_says_why_a_contender_is_missing_but_not_what_to_do():
    from tools.benchmarks.measuring import not_available

    error = pickle.loads(pickle.dumps(UserError("NNCF: not installed", "pip install nncf")))  # it comes from a child
    assert str(error) == "NNCF: not installed: pip install nncf"
    assert not_available(error) == "not available: NNCF: not installed"


def test_noise_is_as_much_as_pictures_and_the_same_each_time(monkeypatch):
    from tools.benchmarks.materials import Calibration, Material

    model = ModelSpec("yolov4", True, ("a", "b"), (64, 64), "letterbox", NETWORKS["yolov4-tiny"].heads)
    material = Material(model, None, Calibration("", (), 3), PROJECT, np.full((60, 80, 3), 255, np.uint8))
    noise = material.calibration_inputs(on_noise=True)
    once, again = list(noise), list(noise)
    assert len(noise) == len(once) == 3
    np.testing.assert_array_equal(once, again)
    assert once[0].shape == (1, 64, 64, 3) and once[0].dtype == np.float32 and 0.4 < np.mean(once) < 0.6
    (frame,) = material.calibration_inputs(on_noise=False)
    assert frame.shape == (1, 64, 64, 3) and frame[0, 32, 32].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["yolov4-tiny", "yolov4", "yolov3-tiny", "yolov3"])
def test_opencv_gets_a_cfg_with_the_anchors_of_the_model(name, shared, monkeypatch):
    from tools.benchmarks.preparing import fitting_cfg

    row = NETWORKS[name]
    published = row.heads
    anchors = tuple(tuple((100 * i + j, 7) for j in range(3)) for i in range(len(published.strides)))
    model = ModelSpec(
        NETWORKS[name].type, NETWORKS[name].tiny, ("a", "b"), (64, 64), "letterbox", published._replace(anchors=anchors)
    )
    cfg = fitting_cfg(model, shared / "darknet")

    assert set(re.findall(r"(?m)^classes=(\d+)", cfg)) == {"2"}
    assert len(re.findall(r"filters=21\b[^\[]*\[yolo\]", cfg)) == len(anchors)
    (listed,) = set(re.findall(r"(?m)^anchors=(.*)", cfg))
    widths = list(map(int, listed.split(",")))[::2]
    masks = [[int(x) for x in mask.split(",")] for mask in re.findall(r"(?m)^mask=(.*)", cfg)]
    heads = [tuple((widths[i], 7) for i in mask) for mask in masks]
    assert heads == list(anchors if name == "yolov4" else reversed(anchors))  # the others begin with the coarse head


def test_budgets_are_ratios_of_what_was_measured(monkeypatch):
    from tools.benchmarks.contenders import CONTENDERS, Setup
    from tools.benchmarks.figures import Row, check_budgets

    kinds = {contender.name: contender for contender in CONTENDERS}
    setup = Setup("yolov4-tiny", (416, 416), PROJECT, None)
    tf = Row(kinds["tf FP32"], setup, network=20.0, frame=24.0, AP50=0.95)
    int8 = Row(kinds["openvino INT8"], setup, network=5.0, frame=9.0, bare=7.5, AP50=0.93)
    trt = Row(kinds["trt INT8"], setup, note="not available: no GPU")
    table = {row[0]: row[3:] for row in check_budgets([tf, int8, trt])}
    assert table["tf FP32 frame / tf FP32 network"] == ["1.20", "at most 1.25", "yes"]
    assert table["openvino INT8 frame / openvino INT8 bare"] == ["1.20", "at most 1.25", "yes"]
    assert table["tf FP32 network / openvino INT8 network"] == ["4.00", "at least 3.50", "yes"]
    assert table["tf FP32 frame / openvino INT8 frame"] == ["2.67", "at least 3.00", "NO"]
    assert table["AP50 points: tf FP32 - openvino INT8"] == ["2.00", "at most 1.00", "NO"]
    assert len(table) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--types yolov5", "'yolov4-tiny'"),
        ("--frameworks tf coreml", "'openvino'"),
        ("--precisions INT4", "'INT8'"),
        ("--sizes 100", "multiple of 32"),
        ("--rounds 0", "--rounds"),
        ("--random --annotations mine.txt", "--annotations"),
        ("--pictures 3", "--annotations"),
        ("--weights nowhere", "nowhere is not there"),
        ("--calibration nowhere.txt", "nowhere.txt is missing"),
        ("--csv out.txt", ".csv"),
    ],
)
def test_wrong_arguments_are_told_in_one_line_before_the_work(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # which importing it would change
    monkeypatch.chdir(tmp_path)
    from tools.benchmarks import speed

    monkeypatch.setattr(sys, "argv", ["speed.py", *arguments.split()])
    with pytest.raises(SystemExit) as error:
        speed.main()
    assert str(error.value).startswith("error: ") and said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert capsys.readouterr().out == ""
