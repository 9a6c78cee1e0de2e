"""TFLite: files that answer as TensorFlow does, what is in them, and what is refused."""

import io
import json
import re
import shutil
import sys
import zipfile
from dataclasses import replace

from yolov3 import configs
from yolov3.boxes import decode
from yolov3.cfg.network import read_network
from yolov3.cfg.write import cfg_text
from yolov3.checkpoint import ModelSpec, read_about, read_model, write_about
from yolov3.checks import PROJECT, UserError
from yolov3.darknet import load_yolo_weights
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.networks import NETWORKS
from yolov3.runtimes import RunOptions, savedmodel, tflite
from yolov3.runtimes.common import sample_images
from yolov3.runtimes.tf import freeze
from yolov3.yolov4 import make_model

import cfgs
import Convert_to_TFLite
import numpy as np
import pytest
import tensorflow as tf
from oracle import random_weights
from tensorflow.lite.python import schema_py_generated as schema

SIZE = 160
MODES = ("FP32", "FP16", "INT8")
THRESHOLDS = {"score_threshold": 0.3, "iou_threshold": 0.45, "max_pixels": 10**8}


@pytest.fixture(scope="module")
def made(shipped_saved_model, tmp_path_factory):
    """A folder of checkpoints that nobody writes into: the shipped model as a SavedModel and as TFLite."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        constants = {"TRAIN_CHECKPOINTS_FOLDER": str(folder), "YOLO_INPUT_SIZE": SIZE, "YOLO_CUSTOM_WEIGHTS": SHIPPED}
        calibration = {"YOLO_CALIBRATION_IMAGES": str(PROJECT / "IMAGES/digits"), "YOLO_CALIBRATION_COUNT": 12}
        for name, value in {**constants, **calibration}.items():
            patch.setattr(configs, name, value)
        patch.setattr(sys, "argv", ["script"])
        shutil.copytree(shipped_saved_model, folder / shipped_saved_model.name)
        for mode in MODES:
            patch.setattr(configs, "YOLO_TFLITE_QUANTIZE_MODE", mode)
            Convert_to_TFLite.main.__wrapped__()
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the FP32 folder, to damage."""
    return shutil.copytree(made / f"yolov4-tiny-digits-tflite-FP32-{SIZE}", tmp_path / "copy")


def load(folder):
    return Load_Yolo_model(folder, input_size=SIZE)


def frames(count=6):
    return [read_picture(PROJECT / f"IMAGES/digits/{i:05d}.jpg", 10**9) for i in range(count)]


# --- Writing and running --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "pixels", "scores"), [("FP32", 0.05, 1e-4), ("FP16", 1, 0.01), ("INT8", 8, 0.15)])
def test_the_detector_finds_the_same_boxes(made, mode, pixels, scores):
    detector = Load_Yolo_model(SHIPPED, input_size=SIZE)
    loaded = load(made / f"yolov4-tiny-digits-tflite-{mode}-{SIZE}")
    assert (loaded.spec.framework, loaded.spec.precision) == ("tflite", mode)
    ours, theirs = loaded(frames(), score_threshold=0.5), detector(frames(), score_threshold=0.5)
    assert sum(map(len, theirs)) > 5
    for a, b in zip(ours, theirs, strict=True):
        assert a.labels == b.labels
        np.testing.assert_allclose(a.boxes, b.boxes, atol=pixels)
        np.testing.assert_allclose(a.scores, b.scores, atol=scores)


def test_sizes_of_files_are_as_their_weights(made):
    size = {mode: (made / f"yolov4-tiny-digits-tflite-{mode}-{SIZE}" / tflite.FILE).stat().st_size for mode in MODES}
    assert size["FP16"] < 0.51 * size["FP32"] and size["INT8"] < 0.27 * size["FP32"]
    about = read_about(made / f"yolov4-tiny-digits-tflite-INT8-{SIZE}")
    assert (about["calibration_count"], about["calibrated_on"]) == (12, str(PROJECT / "IMAGES/digits"))


def test_int8_computes_in_integers_from_bytes_to_raw_heads(made):
    data = (made / f"yolov4-tiny-digits-tflite-INT8-{SIZE}" / tflite.FILE).read_bytes()
    graph = schema.Model.GetRootAsModel(data, 0).Subgraphs(0)
    types = [graph.Tensors(i).Type() for i in range(graph.TensorsLength())]
    assert types[graph.Inputs(0)] == schema.TensorType.UINT8
    assert {types[place] for place in graph.OutputsAsNumpy()} == {schema.TensorType.INT8}
    assert not {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16} & set(types)


def test_metadata_are_read_without_our_code(made):
    """Labels by any reader of zip files; what refers to them by TensorFlow's reader of the format around it."""
    data = (made / f"yolov4-tiny-digits-tflite-FP32-{SIZE}" / tflite.FILE).read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("labels.txt").decode().split() == list("0123456789")
        about = json.loads(archive.read("about.json"))
    assert (about["type"], about["input_size"], about["resize"]) == ("yolov4-tiny", SIZE, "letterbox")
    model = schema.Model.GetRootAsModel(data, 0)
    (entry,) = [x for x in map(model.Metadata, range(model.MetadataLength())) if x.Name() == b"TFLITE_METADATA"]
    metadata = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert metadata[4:8] == b"M001" and b"labels.txt" in metadata and b"yolov4-tiny" in metadata


@pytest.mark.slow
def test_the_same_model_is_the_same_file(made):
    spec = replace(read_model(made / f"yolov4-tiny-digits-{SIZE}"), framework="tflite")
    file = made / f"yolov4-tiny-digits-tflite-FP32-{SIZE}" / tflite.FILE
    content = tflite.convert(made / f"yolov4-tiny-digits-{SIZE}", spec)
    outputs = json.loads(zipfile.ZipFile(file).read("about.json"))["outputs"]
    assert tflite.with_metadata(content, spec, outputs) == file.read_bytes()


def test_a_number_of_threads(made, monkeypatch):
    asked, interpreter = [], tflite.import_interpreter()

    def note(file, num_threads):
        asked.append(num_threads)
        return interpreter(file, num_threads=num_threads)

    monkeypatch.setattr(tflite, "import_interpreter", lambda: note)
    for threads in (1, 0):
        monkeypatch.setattr(configs, "YOLO_TFLITE_THREADS", threads)
        load(made / f"yolov4-tiny-digits-tflite-INT8-{SIZE}")
    assert asked[0] == 1 <= asked[1]


def test_tensorflows_own_converter_takes_the_saved_model(made):
    """By the line in docs/conversion.md: the signature must be named, since detect_bytes cannot be converted."""
    source = made / f"yolov4-tiny-digits-{SIZE}"
    with tflite.silence():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(source), signature_keys=["serving_default"])
        interpreter = tflite.import_interpreter()(model_content=converter.convert())
    images = sample_images(read_model(source)).numpy()
    answers = interpreter.get_signature_runner("serving_default")(images=images)
    np.testing.assert_allclose(answers["predictions"], savedmodel.load(source)(images=images)["predictions"], atol=1e-4)


CFGS = {"mixed": cfgs.MIXED, "new_coords": cfgs.NEW_COORDS}
EVERY = [(name, mode) for name in CFGS for mode in ("FP32", "INT8")] + [(name, "FP32") for name in NETWORKS]


def narrow(name):
    """Return a cfg of one of our networks with all of its layers and an eighth of its filters.

    TensorFlow's converter takes more than 10 GB of memory for the whole YOLOv4.
    """
    row = NETWORKS[name]
    text = cfg_text(make_model(row, (64, 96), 3), row.heads, 3, (64, 96))
    return re.sub(r"(batch_normalize=1\nfilters=)(\d+)", lambda x: f"{x[1]}{int(x[2]) // 8}", text)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), EVERY)
def test_every_network_answers_as_the_keras_model_with_features(tmp_path, name, mode):
    """Those of cfgs hold every layer, activation and padding that is read."""
    (tmp_path / "mine.cfg").write_text(CFGS[name] if name in CFGS else narrow(name))
    row = read_network(tmp_path / "mine.cfg")
    classes = ("a", "b", "c")[: row.cfg.classes]
    network = make_model(row, (64, 96), len(classes), True)
    load_yolo_weights(network, random_weights(network, tmp_path / "random.weights"))
    facts = {"features": True, "cfg": row.text}
    spec = ModelSpec(row.type, row.tiny, classes, (64, 96), "letterbox", row.heads, **facts)
    savedmodel.save(tmp_path / "source", freeze(network, row.heads), spec, **THRESHOLDS)
    write_about(tmp_path / "source", spec, "a test", **THRESHOLDS)

    spec = replace(spec, framework="tflite", precision=mode)
    inputs = [np.random.RandomState(i).rand(1, 64, 96, 3).astype(np.float32) for i in range(4)]
    tflite.write(tmp_path / "made", tmp_path / "source", spec, None, inputs)
    images = np.concatenate(inputs[:2])
    ours = tflite.load(spec, tmp_path / "made", RunOptions())(images)
    *heads, features = network(images)
    for answer, expected in (ours["predictions"], decode(heads, row.heads)), (ours["features"], features):
        off = np.abs(answer - expected)
        assert off.max() < 1e-4 if mode == "FP32" else off.mean() < 0.5 * np.std(expected)  # random weights, 30 layers


# --- What is refused ------------------------------------------------------------------------------------------------


def test_a_missing_package_is_one_line(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    for action in (lambda: load(made / f"yolov4-tiny-digits-tflite-FP32-{SIZE}"), lambda: tflite.check("FP32")):
        with pytest.raises(UserError, match=r"LiteRT is not installed .*: pip install -r requirements/tflite\.txt"):
            action()


@pytest.mark.parametrize("damage", ["short", "empty", "text", "missing", "of a newer version"])
def test_a_damaged_file_is_one_line(folder, damage):
    data = (folder / tflite.FILE).read_bytes()
    newer = data[:4] + b"TFL9" + data[8:]
    content = {"short": data[:10000], "empty": b"", "text": b"not a model", "of a newer version": newer}.get(damage)
    (folder / tflite.FILE).unlink()
    if content is not None:
        (folder / tflite.FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"model\.tflite cannot be loaded by LiteRT .*Convert_to_TFLite") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_file_of_another_tool_is_refused_naming_what_was_expected(folder):
    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), tf.float32, "pixels")])
    def serving_default(pixels):
        return {"scores": tf.reduce_mean(pixels, (1, 2))}

    module = tf.Module()
    with tflite.silence():
        function = serving_default.get_concrete_function()
        tf.saved_model.save(module, str(folder / "other"), {"serving_default": function})
        content = tf.lite.TFLiteConverter.from_saved_model(str(folder / "other")).convert()
    (folder / tflite.FILE).write_bytes(content)
    expected = rf"pixels \[1, 32, 32, 3\] and scores, not images \[1, {SIZE}, {SIZE}, 3\] and predictions or raw_head_0"
    with pytest.raises(UserError, match=expected):
        load(folder)


def test_a_folder_of_another_size_is_refused(made):
    with pytest.raises(UserError, match=rf"takes {SIZE} x {SIZE} pixels, but YOLO_INPUT_SIZE"):
        Load_Yolo_model(made / f"yolov4-tiny-digits-tflite-FP32-{SIZE}", input_size=416)


@pytest.mark.parametrize(
    ("constant", "value", "part"),
    [("YOLO_TFLITE_QUANTIZE_MODE", "INT4", "'INT8', 'FP16', 'FP32'"), ("YOLO_TFLITE_THREADS", 1.5, "whole number")],
)
def test_a_wrong_constant_is_named(monkeypatch, constant, value, part):
    monkeypatch.setattr(configs, constant, value)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(UserError, match=constant) as error:
        Convert_to_TFLite.main.__wrapped__() if constant.endswith("MODE") else Load_Yolo_model(SHIPPED)
    assert part in str(error.value)
