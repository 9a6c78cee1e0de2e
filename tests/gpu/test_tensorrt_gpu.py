"""TensorRT on a real GPU: the shipped model in three precisions, through the very scripts, against TensorFlow.

It is run by TF-TRT where TensorFlow has it, and otherwise by ONNX Runtime.

python -m pytest tests/gpu -s
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from yolov3.checks import UserError
from yolov3.runtimes import tftrt
from yolov3.runtimes.onnx_parts.providers import NO_GPU

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
SHARED_CONSTANTS = {
    "YOLO_CUSTOM_WEIGHTS": "model_data/yolov4-tiny-digits",
    "YOLO_CALIBRATION_IMAGES": "IMAGES/digits",
    "YOLO_CALIBRATION_COUNT": 24,
}
BATCH_SIZES = (1, 4)
PRECISIONS = ("FP32", "FP16", "INT8")
by_tftrt = pytest.mark.skipif(not tftrt.has_tftrt(), reason="needs a TensorFlow with TF-TRT: 2.17.1")
AP50_LOST = {"FP32": 0.1, "FP16": 1.0, "INT8": 1.0}  # points

# One process for each model, since frameworks share a GPU badly: -> JSON of boxes, AP50 and milliseconds a frame
MEASURE = """
import json, sys, time
import numpy as np
from yolov3 import configs
import tensorflow as tf
tf.config.experimental.enable_tensor_float_32_execution(False)
from yolov3.cli import read_pictures
from yolov3.loading import Load_Yolo_model
from yolov3.evaluation import evaluate
from yolov3.images import read_picture

detector = Load_Yolo_model(weights=sys.argv[1])
checked = read_pictures("IMAGES/digits/digits.txt", len(detector.names))
scores = evaluate(detector, checked.records, checked.sizes, detector.names, 0.005, 0.45)
frames = [read_picture(record.picture, 10**8) for record in checked.records]
found = [detector([frame])[0] for frame in frames]
speed = {}
for batch in (1, 4):
    images = tf.random.uniform((batch, 416, 416, 3))
    for _ in range(20):
        detector.network(images)
    start = time.perf_counter()
    for _ in range(100):
        answers = detector.network(images)
    answers["predictions"].numpy()
    speed[batch] = 10 * (time.perf_counter() - start) / batch
print(json.dumps({
    "AP50": 100 * scores.AP50,
    "found": [[x.boxes.tolist(), x.scores.tolist(), x.classes.tolist()] for x in found],
    "milliseconds": speed,
}))
"""

# The folder by TensorFlow alone, nothing of the project: bytes in, boxes out
SERVE = """
import json, sys
import tensorflow as tf
from tensorflow.python.compiler.tensorrt import trt_convert
detect = tf.saved_model.load(sys.argv[1]).signatures["detect_bytes"]
answers = detect(image_bytes=tf.constant([open(file, "rb").read() for file in sys.argv[2:]] + [b"no picture"]))
print(json.dumps({name: answer.numpy().tolist() for name, answer in answers.items()}))
"""


@pytest.fixture(scope="session", autouse=True)
def tensorrt():
    try:
        if tftrt.has_tftrt():
            tftrt.check_tensorrt(2048)
        elif tftrt.free_memory() is None:
            pytest.skip(NO_GPU)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy of the project with the SavedModel of the shipped model; call it with constants to edit its configs.py."""
    root = tmp_path_factory.mktemp("gpu") / "project"
    left_out = "results", "checkpoints", "log", "tests", "__pycache__", "*.weights", "train", "test"
    shutil.copytree(PROJECT, root, ignore=shutil.ignore_patterns(".*", *left_out))

    def edit(**constants):
        file = root / "yolov3" / "configs.py"
        text = file.read_text()
        for name, value in constants.items():
            text, edits = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", text)
            assert edits == 1, name
        file.write_text(text)
        return root

    edit(**SHARED_CONSTANTS, YOLO_TRT_BATCH_SIZES=BATCH_SIZES)
    print(run(root, root / "tools" / "Convert_to_pb.py"))
    return edit


def run(root, *command):
    ran = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    return ran.stdout


def measure(root, folder):
    return json.loads(run(root, "-c", MEASURE, f"checkpoints/{folder}").splitlines()[-1])


@pytest.fixture(scope="session")
def plain(project):
    return measure(project(), "yolov4-tiny-digits-416")


@pytest.fixture(scope="session", params=PRECISIONS)
def converted(request, project):
    """-> precision, the project's folder, the converter's report."""
    root = project(YOLO_TRT_QUANTIZE_MODE=request.param)
    told = run(root, root / "tools" / "Convert_to_TRT.py")
    print(told)
    return request.param, root, told


@by_tftrt
def test_nearly_all_of_the_network_is_in_engines(converted):
    inside, total = map(int, re.search(r"TensorRT: (\d+) of (\d+) operations", converted[2]).groups())
    assert inside >= 0.95 * total


def test_boxes_and_accuracy_against_tensorflow(converted, plain):
    precision, root, _ = converted
    made = measure(root, f"yolov4-tiny-digits-trt-{precision}-416")
    print(f"\n| {precision} | AP50 {made['AP50']:.1f}, TensorFlow {plain['AP50']:.1f} |", end="")
    for batch in BATCH_SIZES:
        ours, theirs = made["milliseconds"][str(batch)], plain["milliseconds"][str(batch)]
        print(f" batch {batch}: {ours:.2f} ms a picture, TensorFlow {theirs:.2f} ({theirs / ours:.1f} times) |", end="")
    print()
    assert plain["AP50"] - made["AP50"] <= AP50_LOST[precision]
    if precision == "FP32":
        for (boxes, scores, classes), (boxes_tf, scores_tf, classes_tf) in zip(
            made["found"], plain["found"], strict=True
        ):
            assert classes == classes_tf
            assert np.allclose(scores, scores_tf, atol=1e-3)
            assert all(overlap(a, b) >= 0.99 for a, b in zip(boxes, boxes_tf, strict=True))


def overlap(a, b):
    """IoU of two xyxy boxes."""
    width, height = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.skipif(tftrt.has_tftrt(), reason="is run by TF-TRT here")
def test_onnx_runtime_runs_it_by_tensorrt_and_keeps_the_engines(converted):
    precision, root, _ = converted
    folder = f"yolov4-tiny-digits-trt-{precision}-416"
    told = run(root, "-c", MEASURE, f"checkpoints/{folder}")
    assert f"{folder} runs by ONNX Runtime's TensorrtExecutionProvider" in told
    assert list((root / "checkpoints" / folder / "cache").iterdir())


@by_tftrt
def test_engines_are_on_disk_and_bytes_become_boxes_by_tensorflow_alone(converted, plain):
    precision, root, _ = converted
    folder = root / "checkpoints" / f"yolov4-tiny-digits-trt-{precision}-416"
    assert list(folder.glob("assets/trt-serialized-engine.*"))
    pictures = sorted((PROJECT / "IMAGES" / "digits").glob("*.jpg"))[:3]  # a batch of 4 with the one that is none
    answers = json.loads(run(root.parent, "-c", SERVE, folder, *pictures).splitlines()[-1])
    assert answers["valid_detections"][3] == -1
    assert sum(answers["valid_detections"][:3]) > 0
    if precision == "FP32":
        assert answers["valid_detections"][:3] == [len(boxes) for boxes, _, _ in plain["found"][:3]]


@by_tftrt
def test_two_folders_are_loaded_by_one_process(project):
    """After those above: it needs the folders that they have converted."""
    root = project()
    folders = [f"checkpoints/yolov4-tiny-digits-trt-{precision}-416" for precision in PRECISIONS]
    told = run(
        root,
        "-c",
        "import tensorflow as tf\n"
        "from yolov3.runtimes.savedmodel import load\n"
        "from yolov3.runtimes.tftrt import import_converter\n"
        "import_converter()\n"
        f"networks = [load(folder) for folder in {folders}]\n"
        "answers = [network(images=tf.ones((1, 416, 416, 3)))['predictions'].numpy() for network in networks]\n"
        "print(max(abs(answers[0] - other).max() for other in answers), (answers[0] == answers[2]).all())",
    )
    worst, same = told.split()[-2:]
    assert float(worst) < 0.5
    assert same == "False"  # else one has taken the other's engine


@by_tftrt
def test_a_portable_folder_holds_no_engine_and_builds_its_own(project, plain):
    root = project(YOLO_TRT_QUANTIZE_MODE="INT8", YOLO_TRT_PORTABLE=True)
    folder = root / "checkpoints" / "yolov4-tiny-digits-trt-INT8-416"
    run(root, root / "tools" / "Convert_to_TRT.py")
    assert json.loads((folder / "model.json").read_text())["portable"]
    assert sum(x.stat().st_size for x in folder.glob("assets/*")) < 10**6
    assert plain["AP50"] - measure(root, folder.name)["AP50"] <= AP50_LOST["INT8"]
