"""The converters: a SavedModel and an OpenVINO folder that answer as the detector does, and what is refused."""

import ctypes
import gc
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from yolov3 import configs
from yolov3.annotations.format import check_annotations
from yolov3.boxes import decode
from yolov3.calibration import CalibrationInputs, choose_pictures
from yolov3.checkpoint import read_about, read_model, write_about, write_checkpoint
from yolov3.checks import PROJECT, UserError, read_class_names
from yolov3.conversion import read_source
from yolov3.evaluation import evaluate
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model, configured_model
from yolov3.runtimes import savedmodel
from yolov3.runtimes.common import BAKED, baked, folder_name, in_project, name_of
from yolov3.runtimes.openvino import (
    behind_heads,
    compile_for_cpu,
    import_openvino,
    in_place,
    quantise,
    read_saved_model,
)
from yolov3.runtimes.openvino_rewrites import save_copies
from yolov3.runtimes.tf import freeze, keras_network
from yolov3.yolov4 import Create_Yolo

import Convert_to_OpenVINO
import Convert_to_pb
import cv2
import Make_digits
import numpy as np
import pytest
import tensorflow as tf
from oracle import coco64, random_weights, stored_arrays

openvino = import_openvino()
SIZE = 160
SAMPLES = PROJECT / "IMAGES" / "digits"
NAMES = tuple("0123456789")
CONSTANTS = {
    "YOLO_INPUT_SIZE": SIZE,
    "YOLO_CUSTOM_WEIGHTS": SHIPPED,
    "YOLO_CALIBRATION_IMAGES": str(SAMPLES),
    "YOLO_CALIBRATION_COUNT": 4,
    "YOLO_OPENVINO_QUANTIZE_MODE": "FP32",
}
THRESHOLDS = {"score_threshold": 0.3, "iou_threshold": 0.45, "max_pixels": 10**8}


def converter(patch, folder):
    """convert("pb" or "openvino", constants ...), which writes into this folder of checkpoints."""
    scripts = {"pb": Convert_to_pb, "openvino": Convert_to_OpenVINO}

    def convert(target, *arguments, **constants):
        for name, value in constants.items():
            patch.setattr(configs, name, value)
        patch.setattr(sys, "argv", ["script", *arguments])
        scripts[target].main.__wrapped__()  # raises, where a script would tell

    for name, value in (CONSTANTS | {"TRAIN_CHECKPOINTS_FOLDER": str(folder)}).items():
        patch.setattr(configs, name, value)
    return convert


@pytest.fixture
def convert(monkeypatch, tmp_path):
    return converter(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def made(shipped_saved_model, tmp_path_factory):
    """A folder of checkpoints that nobody writes into: the shipped model, converted both ways."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        convert = converter(patch, folder)
        shutil.copytree(shipped_saved_model, folder / shipped_saved_model.name)
        convert("openvino", YOLO_TYPE="yolov3", TRAIN_YOLO_TINY=False)
        convert("openvino", YOLO_OPENVINO_QUANTIZE_MODE="INT8", YOLO_CALIBRATION_COUNT=24)
    return folder


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A SavedModel that suppresses across classes, knows low scores and takes small pictures only."""
    folder = tmp_path_factory.mktemp("strict")
    with pytest.MonkeyPatch.context() as patch:
        thresholds = {"YOLO_SCORE_THRESHOLD": 0.01, "YOLO_IOU_THRESHOLD": 0.3}
        converter(patch, folder)("pb", YOLO_CLASS_AGNOSTIC=True, YOLO_MAX_PIXELS=100_000, **thresholds)
    return folder / f"yolov4-tiny-digits-{SIZE}"


@pytest.fixture(scope="module")
def detector():
    return Load_Yolo_model(SHIPPED, input_size=SIZE)


def sample(i):
    return SAMPLES / f"{i:05d}.jpg"


def frames(count=6):
    return [read_picture(sample(i), 10**9) for i in range(count)]


def encoded(frame, kind=".png"):
    """The bytes of a picture file."""
    return cv2.imencode(kind, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.labels == b.labels and a.names == b.names
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.05)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


# --- The SavedModel ------------------------------------------------------------------------------------------------


def test_serving_default_answers_as_the_keras_model(made):
    folder = made / f"yolov4-tiny-digits-{SIZE}"
    model = read_model(folder)
    network = keras_network(model, PROJECT / SHIPPED)
    images = tf.random.stateless_uniform((3, SIZE, SIZE, 3), (1, 2))
    answers = savedmodel.load(folder)(images=images)
    assert list(answers) == ["predictions"]
    np.testing.assert_allclose(answers["predictions"], decode(network(images), model.heads), atol=1e-4)


def test_detect_bytes_answers_as_the_detector_and_a_broken_file_spoils_no_other(made, detector):
    detect_bytes = savedmodel.load(made / f"yolov4-tiny-digits-{SIZE}", "detect_bytes")
    frame = frames(1)[0]
    png, bmp = encoded(frame), encoded(frame[:200], ".bmp")
    whole = [sample(i).read_bytes() for i in range(5)]
    files = [whole[0], b"no picture", whole[1], b"", whole[2][:3000], whole[3], png, whole[4], bmp]
    answers = {name: x.numpy() for name, x in detect_bytes(image_bytes=tf.constant(files)).items()}
    assert {name: (x.dtype.name, x.shape) for name, x in answers.items()} == {
        "boxes": ("float32", (9, 100, 4)),
        "scores": ("float32", (9, 100)),
        "classes": ("int32", (9, 100)),
        "valid_detections": ("int32", (9,)),
    }
    expected = dict(
        zip((0, 2, 5, 7, 6, 8), detector([*(frames(5)[i] for i in (0, 1, 3, 4)), frame, frame[:200]]), strict=True)
    )
    for i, valid in enumerate(answers["valid_detections"]):
        rest = max(valid, 0)
        for name in ("boxes", "scores", "classes"):
            assert not answers[name][i, rest:].any()
        if i in expected:
            assert valid == len(expected[i]) > 0
            np.testing.assert_allclose(answers["boxes"][i, :valid], expected[i].boxes, atol=0.05)
            np.testing.assert_allclose(answers["scores"][i, :valid], expected[i].scores, atol=1e-4)
            assert answers["classes"][i, :valid].tolist() == expected[i].classes.tolist()
        else:
            assert valid == -1


def test_detect_bytes_takes_no_files_and_only_broken_ones(made):
    detect_bytes = savedmodel.load(made / f"yolov4-tiny-digits-{SIZE}", "detect_bytes")
    assert detect_bytes(image_bytes=tf.constant([], tf.string))["boxes"].shape == (0, 100, 4)
    assert detect_bytes(image_bytes=tf.constant([b"", b"x"]))["valid_detections"].numpy().tolist() == [-1, -1]


@pytest.mark.slow
def test_class_agnostic_suppression_is_baked_in_and_recorded(strict, made, monkeypatch, tmp_path):
    assert read_about(strict)["class_agnostic"] is True and baked(strict)["class_agnostic"] is True
    monkeypatch.setattr(configs, "YOLO_CLASS_AGNOSTIC", True)
    across = Load_Yolo_model(strict, input_size=SIZE)
    per_class = Load_Yolo_model(strict, input_size=SIZE, class_agnostic=False)
    assert (across.class_agnostic, per_class.class_agnostic) == (True, False)
    small = [cv2.resize(frame, None, fx=0.5, fy=0.5) for frame in frames()]
    thresholds = 0.01, 0.3
    found, more = across(small, *thresholds), per_class(small, *thresholds)
    assert sum(map(len, found)) < sum(map(len, more))
    files = tf.constant([encoded(frame) for frame in small])
    answers = {name: x.numpy() for name, x in savedmodel.load(strict, "detect_bytes")(image_bytes=files).items()}
    for i, expected in enumerate(found):
        n = len(expected)
        assert answers["valid_detections"][i] == n
        np.testing.assert_array_equal(answers["classes"][i, :n], expected.classes)
        np.testing.assert_allclose(answers["boxes"][i, :n], expected.boxes, atol=0.05)

    older = made / f"yolov4-tiny-digits-{SIZE}"
    about = read_about(older)
    assert about.pop("class_agnostic") is False
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "model.json").write_text(json.dumps(about))
    assert baked(tmp_path / "older") == {name: about.get(name, False) for name in BAKED}


@pytest.mark.slow
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(strict):
    detect_bytes = savedmodel.load(strict, "detect_bytes")
    small = cv2.imencode(".png", np.zeros((100, 999, 3), np.uint8))[1].tobytes()
    large = cv2.imencode(".png", np.zeros((101, 999, 3), np.uint8))[1].tobytes()
    assert detect_bytes(image_bytes=tf.constant([small, large]))["valid_detections"].numpy().tolist() == [0, -1]


@pytest.mark.slow
def test_a_large_jpeg_is_decoded_smaller_and_the_boxes_stay(made, detector):
    """For an input of 160 pixels, 960 and more are decoded at a half, 1,920 at a quarter, 3,840 at an eighth."""
    detect_bytes = savedmodel.load(made / f"yolov4-tiny-digits-{SIZE}", "detect_bytes")
    frame = frames(1)[0]  # 567 x 599
    for times in (2, 4, 7):
        large = cv2.resize(frame, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".jpg", cv2.cvtColor(large, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        answers = {name: x.numpy()[0] for name, x in detect_bytes(image_bytes=tf.constant([data])).items()}
        (expected,) = detector([cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)])
        assert answers["valid_detections"] == len(expected) > 0
        assert (best_iou(answers["boxes"][: len(expected)], expected.boxes) >= 0.95).all()


def best_iou(ours, theirs):
    """Boxes (n, 4) and (m, 4) xyxy -> (n,), the IoU of each of ours with the nearest of theirs."""
    ours, theirs = ours[:, np.newaxis], theirs[np.newaxis]
    sides = np.minimum(ours[..., 2:], theirs[..., 2:]) - np.maximum(ours[..., :2], theirs[..., :2])
    common = sides.clip(0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (ours, theirs)]
    return (common / (areas[0] + areas[1] - common)).max(1)


def test_model_json_tells_what_it_is_and_what_it_was_made_from(made):
    about = read_about(made / f"yolov4-tiny-digits-{SIZE}")
    original = read_about(PROJECT / SHIPPED)
    for key in ("type", "tiny", "classes", "resize", "strides", "anchors", "scale_x_y", "nms"):
        assert about[key] == original[key]
    assert about["made_from"] == SHIPPED
    assert (about["input_size"], about["framework"], about["precision"]) == (SIZE, "tf", "FP32")
    assert (about["score_threshold"], about["iou_threshold"]) == (0.3, 0.45)
    about = read_about(made / f"yolov4-tiny-digits-openvino-INT8-{SIZE}")
    assert (about["framework"], about["precision"]) == ("openvino", "INT8")
    assert (about["calibrated_on"], about["calibration_count"]) == (str(SAMPLES), 24)


@pytest.mark.parametrize("precision", ["FP32", "BF16"])
def test_the_detector_runs_a_saved_model(made, detector, precision):
    loaded = Load_Yolo_model(made / f"yolov4-tiny-digits-{SIZE}", input_size=SIZE, precision=precision)
    assert (loaded.spec.framework, loaded.spec.precision) == ("tf", precision)
    other = detector if precision == "FP32" else Load_Yolo_model(SHIPPED, input_size=SIZE, precision=precision)
    assert_same(loaded(frames()), other(frames()))


# --- OpenVINO ------------------------------------------------------------------------------------------------------


def test_openvino_tells_nobody_of_our_conversions():
    from openvino.tools.ovc import convert_impl

    assert convert_impl.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize(("hint", "threads"), [("LATENCY", 1), ("THROUGHPUT", 1), ("THROUGHPUT", 2)])
def test_openvino_finds_the_same_boxes_in_any_batch(made, detector, monkeypatch, hint, threads):
    monkeypatch.setattr(configs, "YOLO_OPENVINO_HINT", hint)
    monkeypatch.setattr(configs, "YOLO_OPENVINO_THREADS", threads)
    loaded = Load_Yolo_model(made / f"yolov4-tiny-digits-openvino-FP32-{SIZE}", input_size=SIZE)
    assert (loaded.spec.framework, loaded.spec.precision) == ("openvino", "FP32")
    for count in (1, 3, 1, 6):
        assert_same(loaded(frames(count)), detector(frames(count)))


def test_a_tensor_is_lent_where_it_lies():
    tensor = tf.random.stateless_uniform((2, 3), (1, 2))
    lent = in_place(tensor)
    assert lent.flags.writeable and lent.dtype == np.float32
    assert lent.ctypes.data == np.asarray(memoryview(tensor)).ctypes.data
    np.testing.assert_array_equal(lent, tensor.numpy())


def test_in_int8_the_same_digits_are_found(made, detector):
    loaded = Load_Yolo_model(made / f"yolov4-tiny-digits-openvino-INT8-{SIZE}", input_size=SIZE)
    ours, theirs = (np.concatenate([x.classes for x in found(frames(), 0.5)]) for found in (loaded, detector))
    assert len(theirs) > 5
    assert abs(len(ours) - len(theirs)) <= 2


def save_random(folder, yolo_type, features=False):
    """A tiny network with random weights as a SavedModel -> its folder."""
    random_weights(Create_Yolo(64, yolo_type, True, NAMES, features), folder / "random.weights")
    model, weights = configured_model(folder / "random.weights", NAMES, 64, yolo_type, True, features=features)
    savedmodel.save(folder / "saved", freeze(keras_network(model, weights), model.heads), model, **THRESHOLDS)
    return folder / "saved"


@pytest.mark.slow
@pytest.mark.parametrize("yolo_type", ["yolov3", "yolov4"])
def test_only_what_stands_before_the_raw_heads_is_quantised(tmp_path, yolo_type):
    graph = read_saved_model(save_random(tmp_path, yolo_type))
    behind = set(behind_heads(graph))
    convolutions = [x for x in graph.get_ordered_ops() if x.get_type_name() == "Convolution"]
    assert behind and not behind & {x.get_friendly_name() for x in convolutions}

    inputs = [np.random.default_rng(i).random((1, 64, 64, 3), np.float32) for i in range(2)]
    quantised = quantise(graph, inputs)
    readers = [
        place.get_node()
        for x in quantised.get_ordered_ops()
        if x.get_type_name() == "FakeQuantize"
        for place in x.output(0).get_target_inputs()
    ]
    assert len(readers) >= len(convolutions)
    assert not behind & {x.get_friendly_name() for x in readers}


def run(graph, images):
    return compile_for_cpu(openvino.Core(), graph, {"INFERENCE_PRECISION_HINT": "f32"})(images)


def test_a_signal_is_no_crash_after_models_are_deleted():
    """The oldest first, whose stack for signals the others would bring back."""

    def stack_for_signals():
        stack = ctypes.create_string_buffer(24)
        ctypes.CDLL(None).sigaltstack(None, stack)
        return stack.raw

    before = stack_for_signals()
    numbers = openvino.opset13.parameter([1, 4], np.float32)
    graph = openvino.Model([openvino.opset13.relu(numbers)], [numbers])
    models = [compile_for_cpu(openvino.Core(), graph, {}) for _ in range(2)]
    del models[0], models[0]
    gc.collect()
    assert stack_for_signals() == before


@pytest.mark.slow
def test_no_channels_are_moved_that_need_not_be(tmp_path):
    """Halves of channels are convolved apart and pooled apart, features included; the answers stay the same."""
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    as_imported = openvino.convert_model(str(save_random(tmp_path, "yolov4", features=True)))
    before = run(as_imported, images)
    saving = save_copies(as_imported)
    after = run(saving, images)
    for name in ("predictions", "features"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-5)

    operations = saving.get_ordered_ops()
    assert not [x for x in operations if x.get_type_name() == "Split"]
    poolings = [x for x in operations if x.get_type_name() in ("MaxPool", "AvgPool")]
    assert len(poolings) == 3 * 3 + 2  # two halves and what joins them, three times; the features' halves
    assert not [x for x in poolings if x.input_value(0).get_node().get_type_name() == "Concat"]


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("convolved", [True, False])
def test_only_a_split_of_a_convolutions_channels_goes(convolved, axis):
    opset13 = openvino.opset13
    pictures = opset13.parameter([1, 8, 4, 4])
    weights = np.random.default_rng(0).random((8, 8, 1, 1), np.float32)
    ones, zeros = [1, 1], [0, 0]
    whole = opset13.convolution(pictures, weights, ones, zeros, zeros, ones) if convolved else opset13.relu(pictures)
    halves = opset13.split(whole, axis, 2)
    graph = openvino.Model([opset13.subtract(halves.output(0), halves.output(1))], [pictures])
    images = np.random.default_rng(1).random((1, 8, 4, 4), np.float32)
    before = run(graph, images)[0]
    kinds = [x.get_type_name() for x in save_copies(graph).get_ordered_ops()]
    assert ("Split" in kinds) == (not convolved or axis != 1)
    np.testing.assert_allclose(run(graph, images)[0], before, atol=1e-5)


@pytest.mark.slow
def test_int8_loses_at_most_one_point_on_photographs(convert, tmp_path, shared):
    """Calibrated on one half of the photographs, measured on the other."""
    coco, voc = (read_class_names(shared / "darknet" / f"{name}.names") for name in ("coco", "voc"))
    sizes = {x.name: cv2.imread(str(x)).shape for x in (shared / "coco64" / "images").glob("*.jpg")}
    records = coco64(shared / "coco64", lambda name: sizes[name][:2], coco, voc)
    (tmp_path / "calibration").mkdir()
    for record in records[1::2]:
        shutil.copy(record.picture, tmp_path / "calibration")
    weights = shared / "weights" / "yolov4-tiny-voc.weights"
    constants = {"TRAIN_CLASSES": str(shared / "darknet" / "voc.names")}
    convert("pb", YOLO_INPUT_SIZE=416, YOLO_TYPE="yolov4", YOLO_CUSTOM_WEIGHTS=str(weights), **constants)
    calibration = {"YOLO_CALIBRATION_IMAGES": str(tmp_path / "calibration"), "YOLO_CALIBRATION_COUNT": 32}
    convert("openvino", YOLO_OPENVINO_QUANTIZE_MODE="INT8", **calibration)

    def ap50(folder):
        measured = [(x, sizes[x.picture.name][:2]) for x in records[::2]]
        found = Load_Yolo_model(tmp_path / folder)
        return 100 * evaluate(found, *zip(*measured, strict=True), voc, 0.001, 0.45, progress=False).AP50

    assert ap50("yolov4-tiny-voc-openvino-INT8-416") >= ap50("yolov4-tiny-voc-416") - 1.0


@pytest.mark.slow
def test_layers_go_back_to_float_until_no_more_is_lost_than_allowed(convert, made, tmp_path, capsys):
    shutil.copytree(made / f"yolov4-tiny-digits-{SIZE}", tmp_path / f"yolov4-tiny-digits-{SIZE}")
    lines = (SAMPLES / "digits.txt").read_text().splitlines()
    (tmp_path / "few.txt").write_text("\n".join(f"{SAMPLES}/{line}" for line in lines[:12]) + "\n")
    data = {"TEST_ANNOT_PATH": str(tmp_path / "few.txt"), "TRAIN_CLASSES": "model_data/digits/digits.names"}
    convert("openvino", YOLO_OPENVINO_QUANTIZE_MODE="INT8", YOLO_OPENVINO_MAX_DROP=0.5, **data)
    measured = [line for line in capsys.readouterr().out.splitlines() if line.startswith("AP50")]
    assert len(measured) >= 2  # before and after, and after each layer that went back
    assert read_model(tmp_path / f"yolov4-tiny-digits-openvino-INT8-{SIZE}").precision == "INT8"
    checked = check_annotations(tmp_path / "few.txt", 10, 10**9)
    exact, quantised = (
        Load_Yolo_model(tmp_path / f"yolov4-tiny-digits{kind}-{SIZE}", input_size=SIZE)
        for kind in ("", "-openvino-INT8")
    )
    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD
    before, after = (
        100 * evaluate(x, checked.records, checked.sizes, NAMES, *thresholds, progress=False).AP50
        for x in (exact, quantised)
    )
    assert after >= before - 0.5 - 0.1  # NNCF measures by another compilation of the same graph


@pytest.mark.slow
def test_int8_loses_at_most_one_point_on_digits(made, detector, monkeypatch, tmp_path):
    """Calibrated on the pictures that come along, measured on others."""
    options = ["--train", "0", "--test", "48", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["Make_digits.py", *options])
    Make_digits.main()
    quantised = Load_Yolo_model(made / f"yolov4-tiny-digits-openvino-INT8-{SIZE}", input_size=SIZE)
    checked = check_annotations(tmp_path / "digits_test.txt", 10, 10**9)
    exact, quantised = (
        100 * evaluate(found, checked.records, checked.sizes, NAMES, 0.001, 0.45, progress=False).AP50
        for found in (detector, quantised)
    )
    assert quantised >= exact - 1.0


# --- What is refused -----------------------------------------------------------------------------------------------


def test_calibration_pictures_come_from_a_folder_a_glob_or_annotations_the_same_each_time(detector, capsys):
    chosen = choose_pictures(SAMPLES, 5, 10**9)
    assert chosen == choose_pictures(SAMPLES / "*.jpg", 5, 10**9)
    assert len(set(chosen)) == 5 and chosen != sorted(chosen)
    assert set(choose_pictures(SAMPLES / "digits.txt", 24, 10**9)) == set(choose_pictures(SAMPLES, 24, 10**9))
    inputs = CalibrationInputs(chosen, (SIZE, SIZE), "letterbox", 10**9)
    for _ in range(2):  # NNCF goes through them more than once
        arrays = list(inputs)
        assert [(x.shape, x.dtype.name) for x in arrays] == [((1, SIZE, SIZE, 3), "float32")] * len(inputs)
    np.testing.assert_allclose(arrays[0], detector.fit([read_picture(chosen[0], 10**9)]), atol=1e-6)
    assert capsys.readouterr().err == ""


def test_broken_calibration_pictures_are_told_and_replaced(tmp_path, capsys):
    for i in range(6):
        shutil.copy(sample(i), tmp_path)
    (first,) = choose_pictures(tmp_path, 1, 10**9)
    first.write_bytes(first.read_bytes()[:2000])
    assert first not in choose_pictures(tmp_path, 5, 10**9)
    assert "truncated or damaged" in capsys.readouterr().err
    assert len(choose_pictures(tmp_path, 6, 10**9)) == 5  # as many as there are
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="has no picture that can be read: name others in YOLO_CALIBRATION_IMAGES"):
        choose_pictures(tmp_path, 6, 10**9)


def test_no_calibration_pictures_are_told_by_their_constant(tmp_path):
    for source, message in {
        tmp_path: "holds no pictures .*: name a folder, glob or annotation file .* YOLO_CALIBRATION_IMAGES",
        tmp_path / "a: b": "a: b is missing: name a folder",
        tmp_path / "none": "is missing: .* YOLO_CALIBRATION_IMAGES .*Make_digits",
        tmp_path / "*.jpg": "is missing: .* YOLO_CALIBRATION_IMAGES",
        PROJECT / "IMAGES" / "digits.mp4": "digits.mp4 is not a picture: .* YOLO_CALIBRATION_IMAGES",
        "rtsp://camera": "YOLO_CALIBRATION_IMAGES",
    }.items():
        with pytest.raises(UserError, match=message):
            choose_pictures(source, 1, 10**9)
    for count in (0, 1.5, None):
        with pytest.raises(UserError, match="YOLO_CALIBRATION_COUNT"):
            choose_pictures(SAMPLES, count, 10**9)


def test_a_conversion_is_no_source_and_needs_one(convert, made, tmp_path):
    with pytest.raises(
        UserError, match=f"yolov4-tiny-digits-{SIZE} is missing: python tools/Convert_to_pb.py writes it"
    ):
        convert("openvino")
    with pytest.raises(UserError, match="is a conversion already: name in YOLO_CUSTOM_WEIGHTS what"):
        convert("pb", YOLO_CUSTOM_WEIGHTS=str(made / f"yolov4-tiny-digits-{SIZE}"))
    with pytest.raises(UserError, match="openvino-FP32-160 is a conversion already"):
        convert("pb", YOLO_CUSTOM_WEIGHTS=str(made / f"yolov4-tiny-digits-openvino-FP32-{SIZE}"))
    assert not list(tmp_path.iterdir())


def test_a_source_that_does_not_fit_configs_is_refused_naming_both(convert, made, tmp_path):
    folder = tmp_path / f"yolov4-tiny-digits-{SIZE}"
    shutil.copytree(made / folder.name, folder)
    shutil.copytree(folder, tmp_path / f"yolov4-tiny-{SIZE}")  # where Darknet's weights are converted to
    (tmp_path / "two.names").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"has 10 classes \(0, 1, 2 ...\), but those of yolov3/configs.py are 2 \(a, b"):
        convert("openvino", YOLO_TYPE="yolov4", YOLO_CUSTOM_WEIGHTS=None, YOLO_COCO_CLASSES=str(tmp_path / "two.names"))
    (folder / "model.json").write_text((made / folder.name / "model.json").read_text().replace("160", "192"))
    with pytest.raises(UserError, match="is tf, yolov4-tiny at 192, but yolov3/configs.py says yolov4-tiny at 160"):
        convert("openvino", YOLO_CUSTOM_WEIGHTS=SHIPPED)


def test_a_damaged_folder_is_one_line_wherever_it_is_used(convert, made, tmp_path):
    folder = tmp_path / f"yolov4-tiny-digits-{SIZE}"
    shutil.copytree(made / folder.name, folder)
    whole = (folder / "saved_model.pb").read_bytes()
    for damage, message in (
        (whole[: len(whole) // 2], "holds no SavedModel that"),
        (None, "no saved_model.pb|no SavedM"),
    ):
        (folder / "saved_model.pb").unlink()
        if damage:
            (folder / "saved_model.pb").write_bytes(damage)
        with pytest.raises(UserError, match=message):
            Load_Yolo_model(folder)
        with pytest.raises(UserError, match=message):
            convert("openvino")
        (folder / "saved_model.pb").touch()
    (folder / "model.json").unlink()
    for use in (lambda: Load_Yolo_model(folder), lambda: convert("openvino"), lambda: convert("pb")):
        with pytest.raises(UserError, match="is not a checkpoint"):
            use()

    folder = tmp_path / f"yolov4-tiny-digits-openvino-FP32-{SIZE}"
    shutil.copytree(made / folder.name, folder)
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="holds no model.xml and model.bin that can be read: convert again"):
        Load_Yolo_model(folder)


def test_a_folder_that_does_not_fit_configs_is_refused_naming_both(made, monkeypatch):
    for name, value in {"TRAIN_CHECKPOINTS_FOLDER": str(made), "YOLO_INPUT_SIZE": SIZE}.items():
        monkeypatch.setattr(configs, name, value)
    for constants, message in (
        (
            {"YOLO_CUSTOM_WEIGHTS": f"yolov4-tiny-digits-openvino-INT8-{SIZE}"},
            '"openvino", but it is "tf" in yolov3/configs.py',
        ),
        ({"YOLO_CUSTOM_WEIGHTS": SHIPPED, "YOLO_FRAMEWORK": "openvino"}, '"tf", but it is "openvino" .*OpenVINO.py'),
        (
            {"YOLO_CUSTOM_WEIGHTS": f"yolov4-tiny-digits-{SIZE}", "YOLO_FRAMEWORK": "tf", "YOLO_INPUT_SIZE": 416},
            "160 x 160 pixels, but YOLO_INPUT_SIZE .* is 416",
        ),
    ):
        for name, value in constants.items():
            monkeypatch.setattr(configs, name, value)
        with pytest.raises(UserError, match=message):
            Load_Yolo_model()


def test_a_model_of_80_classes_is_not_calibrated_on_digits(convert, monkeypatch, tmp_path):
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", None)
    spec, weights = configured_model(None, framework="tf")
    folder = tmp_path / f"{spec.network.name}-{SIZE}"
    folder.mkdir()
    write_about(folder, spec, in_project(weights))
    (folder / "saved_model.pb").touch()  # it is refused before the graph is read
    with pytest.raises(UserError, match="name pictures like those it will see in YOLO_CALIBRATION_IMAGES"):
        convert("openvino", YOLO_OPENVINO_QUANTIZE_MODE="INT8", YOLO_CALIBRATION_IMAGES=None)


def test_a_checkpoint_is_converted_whatever_type_is_configured(made):
    names = {f"yolov4-tiny-digits{kind}-{SIZE}" for kind in ("", "-openvino-FP32", "-openvino-INT8")}
    assert {x.name for x in made.iterdir()} == names


def test_conversions_are_called_after_the_model_that_was_trained(monkeypatch, tmp_path):
    spec = read_model(PROJECT / SHIPPED)
    for name in ("cells_Tiny", "cells-2", "cells-openvino"):
        write_checkpoint(tmp_path / name, spec, stored_arrays(PROJECT / SHIPPED)[:1], "a test")
        assert name_of(tmp_path / name, spec) == name
        for framework, precision, size, folder in (
            ("tf", "FP32", (416, 416), f"{name}-416"),
            ("tf", "FP32", (256, 416), f"{name}-256x416"),
            ("openvino", "INT8", (416, 416), f"{name}-openvino-INT8-416"),
            ("onnx", "FP16", (256, 416), f"{name}-onnx-FP16-256x416"),
            ("neuron", "FP32", (416, 416), f"{name}-neuron-416"),
        ):
            made = replace(spec, framework=framework, precision=precision, input_size=size)
            assert folder_name(made, name) == folder
            (tmp_path / folder).mkdir()
            assert name_of(tmp_path / folder, made) == name
    assert name_of(PROJECT / "model_data" / "yolov3-tiny.weights", spec) == "yolov4-tiny"

    monkeypatch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(tmp_path))
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", "checkpoints/mine-openvino-INT8-416")  # not written yet
    with pytest.raises(UserError, match="mine-416 is missing: python tools/Convert_to_pb.py"):
        read_source()


def test_weights_that_are_nan_are_refused(convert, tmp_path):
    arrays = stored_arrays(PROJECT / SHIPPED)
    arrays[7] = np.full_like(arrays[7], np.nan)
    write_checkpoint(tmp_path / "diverged", read_model(PROJECT / SHIPPED), arrays, "a test")
    with pytest.raises(UserError, match="diverged holds weights that are not finite"):
        convert("pb", YOLO_CUSTOM_WEIGHTS="diverged")
    assert [x.name for x in tmp_path.iterdir()] == ["diverged"]


def test_a_missing_package_is_one_line_that_says_what_to_install(convert, made, monkeypatch):
    for package, mode in (("openvino", "FP32"), ("nncf", "INT8")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match="pip install -r requirements/openvino.txt"):
                convert("openvino", YOLO_OPENVINO_QUANTIZE_MODE=mode)
            if package == "openvino":
                with pytest.raises(UserError, match="OpenVINO is not installed"):
                    Load_Yolo_model(made / f"yolov4-tiny-digits-openvino-FP32-{SIZE}")


@pytest.mark.slow
def test_what_was_made_from_something_else_is_replaced_only_on_request(convert, made, tmp_path):
    name = f"yolov4-tiny-digits-{SIZE}"
    folder = shutil.copytree(made / name, tmp_path / name)
    before = (folder / "model.json").read_text()
    other = shutil.copytree(PROJECT / SHIPPED, tmp_path / "other" / Path(SHIPPED).name)  # another model of that name
    with pytest.raises(UserError, match=f"made from {SHIPPED}, not from .*other/.*: give --overwrite to replace it"):
        convert("pb", YOLO_CUSTOM_WEIGHTS=str(other))
    assert (folder / "model.json").read_text() == before
    convert("pb", "--overwrite")
    assert read_about(folder)["made_from"] == str(other)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["pb", "openvino"])
def test_a_full_disk_keeps_the_folder_that_was_there(convert, made, tmp_path, target):
    """It is of the same source, which nothing but the disk keeps from being replaced at once."""
    name = f"yolov4-tiny-digits-{SIZE}" if target == "pb" else f"yolov4-tiny-digits-openvino-FP32-{SIZE}"
    shutil.copytree(made / f"yolov4-tiny-digits-{SIZE}", tmp_path / f"yolov4-tiny-digits-{SIZE}")
    if target != "pb":
        convert(target)
    before = sorted((x.relative_to(tmp_path), x.stat().st_mtime_ns) for x in tmp_path.rglob("*") if x.is_file())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))
    try:
        with pytest.raises(UserError, match=f"{name} cannot be written"):
            convert(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    after = sorted((x.relative_to(tmp_path), x.stat().st_mtime_ns) for x in tmp_path.rglob("*") if x.is_file())
    assert after == before


@pytest.mark.slow
def test_killed_in_the_middle_nothing_looks_finished(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tools'); import Convert_to_pb as tool; from yolov3 import configs\n"
        f"configs.TRAIN_CHECKPOINTS_FOLDER, configs.YOLO_INPUT_SIZE = {str(tmp_path)!r}, {SIZE}\n"
        f"configs.YOLO_CUSTOM_WEIGHTS = {SHIPPED!r}\n"
        "sys.argv = ['x']; tool.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("yolov4*"))
    assert list(tmp_path.glob(".*"))  # it was in the middle
