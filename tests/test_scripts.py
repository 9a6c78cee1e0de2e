"""The scripts as a person runs them: in a copy of the project, its configs.py edited, from another folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from yolov3 import configs
from yolov3.darknet import save_yolo_weights
from yolov3.loading import SHIPPED, custom_weights
from yolov3.yolov4 import Create_Yolo

import cv2
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent
NO_NETWORK = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}  # nobody listens there


@pytest.fixture
def project(tmp_path):
    """A copy of the project; call it with constants to edit its configs.py."""
    root = tmp_path / "project"
    left_out = "results", "checkpoints", "log", "tests", "__pycache__", "yolov4*.weights", "train", "test"
    shutil.copytree(PROJECT, root, ignore=shutil.ignore_patterns(".*", *left_out))

    def edit(**constants):
        file = root / "yolov3" / "configs.py"
        text = file.read_text()
        for name, value in constants.items():
            text, edits = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", text)
            assert edits == 1, f"configs.py should have one line for {name}"
        file.write_text(text)
        return root

    return edit


def start(root, script, *arguments, **popen):
    return subprocess.Popen(
        [sys.executable, root / script, *map(str, arguments)],
        cwd=root.parent,
        env={**os.environ, **{x.lower(): NO_NETWORK[x] for x in NO_NETWORK}, **NO_NETWORK},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def run(root, script, *arguments):
    """-> exit code, stdout, stderr."""
    process = start(root, script, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def assert_one_line(result, *parts):
    code, _, err = result
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    for part in parts:
        assert part in err


@pytest.mark.slow
def test_offline_the_missing_official_weights_are_one_line_with_url_and_place(project):
    root = project(YOLO_TYPE="yolov4")
    assert_one_line(
        run(root, "detection_demo.py"),
        "https://github.com/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/yolov4-tiny.weights",
        str(root / "model_data" / "yolov4-tiny.weights"),
    )
    assert [path.name for path in (root / "model_data").glob("*.weights*")] == ["yolov3-tiny.weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("constants", "parts"),
    [
        ({"YOLO_TYPE": "yolov5"}, ["YOLO_TYPE = 'yolov5'", "'yolov3', 'yolov4'"]),
        ({"YOLO_INPUT_SIZE": 400}, ["400", "multiple of 32"]),
    ],
)
def test_a_wrong_constant_is_one_line(project, constants, parts):
    assert_one_line(run(project(**constants), "detection_demo.py"), *parts)


def labels(out):
    """The class names of the boxes that a script has printed, in order."""
    return [line.split()[0] for line in out.splitlines() if " at " in line]


def test_as_cloned_things_of_80_classes_are_found_and_only_those_that_are_there(project):
    root = project()
    code, out, err = run(root, "detection_demo.py")
    assert (code, err) == (0, "")
    model, *_ = out.splitlines()
    assert model == "yolov3-tiny.weights: yolov3-tiny, 80 classes (person, bicycle, car ...), tf FP32, 416 letterbox"
    assert sorted(labels(out)) == ["cat", "cup", "person"]
    assert cv2.imread(str(root / "results" / "scene.jpg")).shape == (360, 1441, 3)
    assert not list((root / "model_data").glob("*.part"))


@pytest.mark.slow
def test_as_cloned_a_photograph_outside_is_understood(project, shared):
    code, out, err = run(project(), "detection_demo.py", shared / "images" / "dog.jpg")
    assert (code, err) == (0, "")
    assert {"dog", "bicycle"} <= set(labels(out)) <= {"dog", "bicycle", "car", "truck"}
    assert {"car", "truck"} & set(labels(out))


@pytest.mark.slow
def test_as_cloned_a_model_of_ones_own_finds_digits_and_is_measured(project):
    root = project()
    code, out, err = run(root, "detection_custom.py")
    assert code == 0, err
    assert out.startswith("yolov4-tiny-digits: yolov4-tiny, 10 classes (0, 1, 2 ...), ")
    assert re.search(r"24 pictures, [1-9]\d+ boxes", out)
    assert len(list((root / "results").glob("*.jpg"))) == 24
    (root / "model_data" / "digits" / "digits_test.txt").unlink(missing_ok=True)
    code, out, err = run(root, "evaluate_mAP.py")
    assert code == 0, err
    assert "digits_test.txt is not there yet" in out
    assert float(re.search(r"(?m)^AP50 +(\d+\.\d)", out)[1]) > 90


def test_a_model_of_ones_own_goes_before_the_one_that_comes_along(monkeypatch, tmp_path):
    monkeypatch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(tmp_path))
    monkeypatch.setattr(configs, "TRAIN_MODEL_NAME", "mine")
    for named in (None, SHIPPED):
        monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", named)
        assert custom_weights() == SHIPPED
    (tmp_path / "mine_Tiny").mkdir()
    assert custom_weights() == tmp_path / "mine_Tiny"
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", "checkpoints/other")
    assert custom_weights() == "checkpoints/other"


@pytest.mark.slow
def test_dog_bicycle_and_car_on_darknets_picture(project, shared):
    root = project(
        YOLO_TYPE="yolov4",
        YOLO_V4_TINY_WEIGHTS=str(shared / "weights" / "yolov4-tiny-voc.weights"),
        YOLO_COCO_CLASSES=str(shared / "darknet" / "voc.names"),
    )
    code, out, err = run(root, "detection_demo.py", shared / "images" / "dog.jpg")
    assert (code, err) == (0, "")
    assert set(labels(out)) == {"dog", "bicycle", "car"}
    assert cv2.imread(str(root / "results" / "dog.jpg")).shape == (576, 768, 3)


@pytest.mark.slow
def test_ctrl_c_and_sigterm_end_a_running_script_cleanly_with_a_playable_video(project, tmp_path):
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"mp4v"), 25, (320, 240))
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    for i in range(2000):
        writer.write(noise if i < 50 else noise * 0)  # black frames would stay in the encoder's buffer to the end
    writer.release()
    root = project(
        YOLO_TYPE="yolov4",
        YOLO_INPUT_SIZE=64,
        YOLO_CUSTOM_WEIGHTS="random.weights",
        TRAIN_CLASSES="model_data/coco/coco.names",
    )
    save_yolo_weights(Create_Yolo(64, "yolov4", True, 80), root / "random.weights")

    for number, code in ((signal.SIGINT, 0), (signal.SIGTERM, 143)):
        process = start(root, "detection_custom.py", source, "--output", output)
        deadline = time.monotonic() + 300  # it ends when the video is begun
        while not any(x.stat().st_size for x in tmp_path.glob(".out.*.part.mp4")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err
        written = int(re.search(r"(\d+) frames", out)[1])
        assert 0 < written < 2000, (out, err)
        assert cv2.VideoCapture(str(output)).get(cv2.CAP_PROP_FRAME_COUNT) == written
        assert not list(tmp_path.glob(".*"))


TALKATIVE = """
from yolov3.checks import say_it_in_one_line

@say_it_in_one_line
def main():
    for _ in range(100_000):
        print("found a digit")

main()
"""


@pytest.mark.slow
def test_when_nobody_reads_on_a_script_ends_without_a_word():
    command = [sys.executable, "-c", TALKATIVE]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "found a digit\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_where_nothing_can_be_printed_one_line_says_so():
    command = [sys.executable, "-c", TALKATIVE]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == "error: output cannot be written: No space left on device\n"
    assert ended.returncode == 1


def test_every_file_that_pip_is_told_to_install_is_there():
    folders = [PROJECT / name for name in ("deep_sort", "docs", "requirements", "tools", "yolov3")]
    files = [*PROJECT.glob("*.*"), *(file for folder in folders for file in folder.rglob("*.*"))]
    hints = []
    for file in (x for x in files if x.suffix in (".py", ".md", ".txt", ".ipynb")):
        text = file.read_text(encoding="utf-8")
        hints += [PROJECT / name for name in re.findall(r"pip install\b[^\n]*?\s-r\s+([^\s\"'`,;)]+)", text)]
        hints += [PROJECT / name for name in re.findall(r"\brequirements[\w-]*(?:/[\w-]+)?\.txt", text)]
        if file.suffix == ".txt":
            hints += [file.parent / name for name in re.findall(r"(?m)^-r\s+(\S+)", text)]
    hints = [hint for hint in hints if hint != PROJECT / "requirements/NAME.txt"]  # of how to add a runtime
    assert len(hints) > 50
    assert [str(hint) for hint in hints if not hint.is_file()] == []
