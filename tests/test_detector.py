"""The detector as a user meets it: one call, any frames, checkpoints, and plain words for what does not fit."""

import io
import json
import os
import resource
import subprocess
import sys
import time
import tracemalloc
import zipfile
from dataclasses import replace

from yolov3 import configs
from yolov3.checkpoint import ModelSpec, find, read_model, read_weights, write_checkpoint
from yolov3.checks import PROJECT, UserError, read_class_names
from yolov3.darknet import (
    array_shapes,
    convolutions,
    get_arrays,
    load_arrays,
    load_yolo_weights,
    save_yolo_weights,
)
from yolov3.detector import Detector
from yolov3.files import THIS_COMPUTER, whole_folder
from yolov3.loading import Load_Yolo_model, configured_model
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import cv2
import numpy as np
import pytest
import tensorflow as tf
from oracle import random_weights, stored_arrays

NAMES = ("cat", "dog", "cup")
SIZE = 64
MODEL = ModelSpec("yolov4", True, NAMES, (SIZE, SIZE), "letterbox", NETWORKS["yolov4-tiny"].heads)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """(a network of three classes, its .weights file): yolov4-tiny, random, its heads' kernels larger so that scores
    lie anywhere in 0..1."""
    network = Create_Yolo(SIZE, "yolov4", True, NAMES)
    weights = random_weights(network, tmp_path_factory.mktemp("weights") / "random.weights")
    load_yolo_weights(network, weights)
    for conv, norm in convolutions(network):
        if norm is None:
            conv.kernel.assign(conv.kernel * 20)
    save_yolo_weights(network, weights)
    return network, weights


@pytest.fixture
def configured(network, tmp_path, monkeypatch):
    """configs.py set to that file; call it with constants to change."""

    def configure(**constants):
        for name, value in constants.items():
            assert hasattr(configs, name)
            monkeypatch.setattr(configs, name, value)

    names = tmp_path / "custom.names"
    names.write_text("\n".join(NAMES))
    configure(
        YOLO_TYPE="yolov4",
        TRAIN_YOLO_TINY=True,
        YOLO_INPUT_SIZE=SIZE,
        YOLO_ANCHORS=None,
        YOLO_CUSTOM_WEIGHTS=str(network[1]),
        YOLO_FRAMEWORK="tf",
        YOLO_PRECISION="FP32",
        YOLO_RESIZE="letterbox",
        YOLO_SCORE_THRESHOLD=0.3,
        YOLO_IOU_THRESHOLD=0.45,
        TRAIN_CLASSES=str(names),
        TRAIN_CHECKPOINTS_FOLDER=str(tmp_path / "checkpoints"),
    )
    return configure


def load(weights, **arguments):
    fixed = {"input_size": SIZE, "yolo_type": "yolov4", "tiny": True, "framework": "tf", "precision": "FP32"}
    fixed |= {"resize": "letterbox", "score_threshold": 0.3, "iou_threshold": 0.45}
    return Load_Yolo_model(weights, **fixed | arguments)


@pytest.fixture(scope="module")
def detector(network):
    return load(network[1], CLASSES=NAMES)


def frames(*sizes):
    """Each a chequered pattern of its own."""
    random = np.random.RandomState(5)
    patterns = [255 * random.randint(0, 2, (4, 4, 3)).astype(np.uint8) for _ in sizes]
    return [
        cv2.resize(pattern, (width, height), interpolation=cv2.INTER_NEAREST)
        for pattern, (height, width) in zip(patterns, sizes, strict=True)
    ]


def assert_same(ours, theirs, pixels=1e-3, score=1e-5):
    assert len(ours) == len(theirs)
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=score)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=0, atol=pixels)


# --- Calling -------------------------------------------------------------------------------------------------------


def test_it_answers_with_the_documented_arrays(detector):
    (found,) = detector(frames((48, 80)))
    n = len(found)
    assert 0 < n <= 100
    assert (found.boxes.dtype, found.boxes.shape) == (np.float32, (n, 4))
    assert (found.scores.dtype, found.scores.shape) == (np.float32, (n,))
    assert (found.classes.dtype, found.classes.shape) == (np.int32, (n,))
    assert found.names == detector.names == NAMES
    assert found.labels == [NAMES[i] for i in found.classes]
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() > 0.3
    x1, y1, x2, y2 = found.boxes.T
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= 80) & (y1 >= 0) & (y1 <= y2) & (y2 <= 48)).all()


def test_a_batch_of_frames_of_all_sizes_equals_one_by_one(detector):
    pictures = frames((48, 80), (300, 20), (1, 1), (64, 64), (1, 3000), (7, 5))
    together = detector(pictures)
    assert len(together) == len(pictures)
    assert len({float(found.scores[0]) for found in together}) == len(pictures)
    for picture, found in zip(pictures, together, strict=True):
        assert_same(found, detector([picture])[0])


def test_with_another_device_beside_the_cpu_tensorflow_runs_the_same_graphs(detector, monkeypatch):
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 80, 120, 3), np.uint8))
    devices = [tf.config.PhysicalDevice(f"/physical_device:{kind}:0", kind) for kind in ("CPU", "XPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: devices)
    other = Detector(detector.network, detector.spec, detector.score_threshold, detector.iou_threshold)
    for ours, theirs in zip(detector(frames), other(frames), strict=True):
        assert len(ours)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)


@pytest.mark.slow
def test_it_counts_where_its_time_goes(network):
    detector = load(network[1], CLASSES=NAMES)
    assert detector.timings.pictures == 0  # loading, which compiles, does not count
    started = time.perf_counter()
    for count in (1, 2):
        detector(frames(*[(720, 1280)] * count))
    seconds, timings = time.perf_counter() - started, detector.timings
    parts = timings.preparing, timings.network, timings.suppression
    assert timings.pictures == 3 and min(parts) > 0 and 0.5 * seconds < sum(parts) < seconds
    assert str(timings).startswith(f"a picture: {1000 * timings.preparing / 3:.1f} ms preparing, ")


def test_no_frames_are_no_answers(detector):
    assert detector([]) == []


def test_thresholds_of_the_call_win_and_decide(detector):
    picture = frames((48, 80))
    few, standard, many = (detector(picture, score)[0] for score in (0.5, None, 0.1))
    assert len(few) < len(standard) < len(many)
    assert few.scores.min() > 0.5 and 0.1 < many.scores.min() < 0.3
    apart, close = detector(picture, 0.3, 0.1)[0], detector(picture, 0.3, 0.9)[0]
    assert len(apart) < len(standard) < len(close)
    assert len(detector(picture, 1.0)[0]) == 0


@pytest.mark.parametrize("kind", [int, np.float32, np.float64])
def test_thresholds_may_be_any_kind_of_number(detector, kind):
    assert len(detector(frames((48, 80)), kind(1), kind(1))[0]) == 0
    assert len(detector(frames((48, 80)), kind(0), kind(0))[0]) > 0


def test_an_impossible_threshold_is_refused(detector):
    for wrong in (-0.1, 1.5, "0.3", float("nan")):
        with pytest.raises(UserError, match="must be a number from 0 to 1"):
            detector(frames((48, 80)), wrong)


def test_only_keeps_the_classes_asked_for(detector):
    (found,) = detector(frames((48, 80)), 0.1)
    assert set(found.labels) == set(NAMES)
    kept = found.only(["dog", "cup"])
    assert set(kept.labels) == {"dog", "cup"}
    assert len(kept) == sum(label != "cat" for label in found.labels) == len(kept.boxes) == len(kept.classes)
    assert len(found.only([])) == 0
    assert found.only(None) is found


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((48, 80, 3), np.uint8),  # a frame, not a list of frames
        [np.zeros((48, 80, 3), np.float32)],
        [np.zeros((48, 80), np.uint8)],
        [np.zeros((48, 80, 4), np.uint8)],
        [np.zeros((0, 80, 3), np.uint8)],
        [None],
        ["dog.jpg"],
        "dog.jpg",
    ],
    ids=["no list", "float", "grey", "alpha", "no pixels", "None", "path in a list", "path"],
)
def test_what_is_no_list_of_frames_is_refused(detector, wrong):
    with pytest.raises(UserError, match=r"a list of frames, each a NumPy uint8 \(H, W, 3\) in RGB"):
        detector(wrong)


def test_bf16_runs_and_stays_near_fp32(detector, network):
    half = load(network[1], CLASSES=NAMES, precision="BF16")
    picture = detector.fit(frames((48, 80)))
    ours, exact = (x.network(picture)["predictions"].numpy() for x in (half, detector))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[..., 4:], exact[..., 4:], rtol=0, atol=0.02)
    np.testing.assert_allclose(ours[..., :4], exact[..., :4], rtol=0.1, atol=0.05)


# --- Configuration -------------------------------------------------------------------------------------------------


def test_without_arguments_configs_decide_at_call_time(configured, detector):
    configured(YOLO_SCORE_THRESHOLD=0.2, YOLO_IOU_THRESHOLD=0.6, YOLO_RESIZE="stretch", YOLO_INPUT_SIZE=96)
    loaded = Load_Yolo_model()
    assert (loaded.score_threshold, loaded.iou_threshold) == (0.2, 0.6)
    assert (loaded.spec.resize, loaded.spec.input_size, loaded.names) == ("stretch", (96, 96), NAMES)
    assert loaded.fit(frames((48, 80))).shape == (1, 96, 96, 3)


@pytest.mark.parametrize(
    ("constant", "value", "message"),
    [
        ("YOLO_FRAMEWORK", "torch", "YOLO_FRAMEWORK = 'torch' is not known: choose one of 'tf'"),
        ("YOLO_CLASS_AGNOSTIC", "no", "YOLO_CLASS_AGNOSTIC = 'no' is not known: choose one of True, False"),
        ("YOLO_PRECISION", "fp32", "YOLO_PRECISION = 'fp32' is not known: choose one of 'FP32', 'BF16'"),
        ("YOLO_RESIZE", "crop", "YOLO_RESIZE = 'crop' is not known: choose one of 'letterbox', 'stretch'"),
        ("YOLO_TYPE", "yolov5", "YOLO_TYPE = 'yolov5' is not known: choose one of 'yolov3', 'yolov4'"),
        ("YOLO_INPUT_SIZE", 100, "is 100: make it a multiple of 32, 96 for example"),
        ("YOLO_SCORE_THRESHOLD", 1.5, "YOLO_SCORE_THRESHOLD = 1.5 must be a number from 0 to 1"),
        ("YOLO_SCORE_THRESHOLD", "0.3", "YOLO_SCORE_THRESHOLD = '0.3' must be a number from 0 to 1"),
        ("YOLO_IOU_THRESHOLD", -0.1, "YOLO_IOU_THRESHOLD = -0.1 must be a number from 0 to 1"),
        ("YOLO_ANCHORS", [[(1, 2)] * 3], "YOLO_ANCHORS must be None or 2 heads of 3 .* for yolov4-tiny"),
        ("YOLO_ANCHORS", [[(1, 2)] * 3, [(1, 2)] * 2], "YOLO_ANCHORS must be None or 2 heads"),
        ("YOLO_ANCHORS", [[(1, 2)] * 3, [(1, 0)] * 3], "YOLO_ANCHORS must be None or 2 heads"),
        ("YOLO_ANCHORS", "10,13", "YOLO_ANCHORS must be None or 2 heads"),
        ("TRAIN_CLASSES", "nowhere.names", "class names file nowhere.names is missing"),
        ("YOLO_CUSTOM_WEIGHTS", "nowhere", "nowhere is not there; .*checkpoints/ holds nothing: .*YOLO_CUSTOM_WEIGHTS"),
    ],
)
def test_a_wrong_constant_is_told_by_its_name(configured, constant, value, message):
    configured(**{constant: value})
    with pytest.raises(UserError, match=message):
        Load_Yolo_model()


def test_a_class_file_that_does_not_fit_the_weights_is_told(configured, network, tmp_path):
    names = tmp_path / "two.names"
    names.write_text("cat\ndog\n")
    configured(TRAIN_CLASSES=str(names))
    with pytest.raises(
        UserError, match="yolov4-tiny with 2 classes takes .*: it is yolov4-tiny with 3 classes: name 3"
    ) as error:
        Load_Yolo_model()
    assert str(network[1]) in str(error.value)


def test_a_class_file_is_read_whatever_the_editor_made_of_it(tmp_path):
    file = tmp_path / "x.names"
    for data in (
        b"cat\ndog house\n",
        b"\xef\xbb\xbfcat\r\ndog house\r\n\r\n",
        b" cat \n\tdog house\n\n \n",
        b"cat\rdog house",
    ):
        file.write_bytes(data)
        assert read_class_names(file) == ("cat", "dog house")
    file.write_text("größe\n猫\n", encoding="utf-8")
    assert read_class_names(file) == ("größe", "猫")


def test_a_class_file_that_cannot_be_used_is_told_by_its_name(tmp_path):
    for name, data in {"empty": b"", "blank": b"\r\n \n", "latin": "größe".encode("latin-1")}.items():
        (tmp_path / name).write_bytes(data)
    for name, message in {
        "none": "is missing: write one class name a line into it",
        "empty": "is empty: write one class name a line into it",
        "blank": "is empty",
        "latin": "is not in UTF-8: save it as UTF-8",
        ".": "is a folder, not a file",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            read_class_names(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


# --- Checkpoints ---------------------------------------------------------------------------------------------------


def write(folder, network, **options):
    write_checkpoint(folder, MODEL, list(get_arrays(network[0])), "a test", **options)
    return folder


def test_a_checkpoint_found_by_its_bare_name_detects_as_its_weights_do(configured, network, detector, tmp_path):
    write(tmp_path / "checkpoints" / "yolov4_custom_Tiny", network)
    configured(YOLO_CUSTOM_WEIGHTS="yolov4_custom", TRAIN_CLASSES="nowhere.names")  # it brings its own classes
    picture = frames((48, 80))
    loaded = Load_Yolo_model()
    assert loaded.spec == MODEL
    assert_same(loaded(picture)[0], detector(picture)[0])


def test_a_checkpoint_is_found_with_and_without_its_tiny(network, tmp_path):
    for name in ("yolov4_custom_Tiny", "yolov4-tiny-416", "both", "both_Tiny"):
        (tmp_path / name).mkdir()
    for name, tiny, found in (
        ("yolov4_custom", True, "yolov4_custom_Tiny"),
        ("yolov4_custom_Tiny", True, "yolov4_custom_Tiny"),
        ("yolov4-416", True, "yolov4-tiny-416"),
        ("yolov4-tiny-416", True, "yolov4-tiny-416"),
        ("both", True, "both_Tiny"),
        ("both", False, "both"),
        ("yolov4_custom", False, "yolov4_custom_Tiny"),
        ("yolov4_custom_Tiny/", True, "yolov4_custom_Tiny"),
        ("yolov4-tiny-416", False, "yolov4-tiny-416"),
    ):
        assert find(name, tiny, tmp_path) == tmp_path / found
        assert find(tmp_path / name, tiny, "elsewhere") == tmp_path / found
    with pytest.raises(UserError, match="yolov4-416 is not there; .* holds both, both_Tiny, yolov4-tiny-416, y"):
        find("yolov4-416", False, tmp_path)


def test_half_precision_halves_a_checkpoint_and_keeps_its_numbers(network, tmp_path):
    full, half = (write(tmp_path / kind, network, dtype=kind) for kind in ("float32", "float16"))
    sizes = [(folder / "weights.npz").stat().st_size for folder in (half, full)]
    assert sizes[0] < 0.51 * sizes[1]
    for ours, exact in zip(stored_arrays(half), stored_arrays(full), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-4)


def test_model_json_says_all_of_it(network, tmp_path):
    folder = write(tmp_path / "checkpoint", network)
    assert read_model(folder) == MODEL
    about = json.loads((folder / "model.json").read_text())
    assert about["classes"] == list(NAMES)
    assert about["anchors"][0] == [[23, 27], [37, 58], [81, 82]]
    assert {"type", "tiny", "input_size", "strides", "scale_x_y", "resize", "made_from"} <= set(about)
    older = {name: value for name, value in about.items() if name not in ("features", "beta_nms")}
    (folder / "model.json").write_text(json.dumps(older))
    assert read_model(folder) == MODEL


@pytest.mark.slow
@pytest.mark.parametrize(("yolo_type", "tiny"), [("yolov3", True), ("yolov4", False), ("yolov3", False)])
def test_a_checkpoint_says_itself_which_network_it_is(configured, network, detector, tmp_path, yolo_type, tiny):
    write(tmp_path / "checkpoints" / "mine_Tiny", network)
    configured(YOLO_CUSTOM_WEIGHTS="mine", YOLO_TYPE=yolo_type, TRAIN_YOLO_TINY=tiny)
    loaded = Load_Yolo_model()
    assert loaded.spec == MODEL
    assert_same(loaded(frames((48, 80)))[0], detector(frames((48, 80)))[0])


def test_a_model_is_told_in_one_line(detector):
    assert detector.name == "random.weights"
    assert str(MODEL) == "yolov4-tiny, 3 classes (cat, dog, cup), tf FP32, 64 letterbox"
    many = replace(MODEL, classes=tuple("abcd"), framework="openvino", precision="INT8", resize="stretch")
    assert str(many) == "yolov4-tiny, 4 classes (a, b, c ...), openvino INT8, 64 stretch"
    assert "1 class (a)" in str(replace(MODEL, classes=("a",)))


def test_darknets_own_weights_are_known_by_their_place_or_their_size(configured, tmp_path):
    official, copy = PROJECT / "model_data" / "yolov3-tiny.weights", tmp_path / "copy.weights"
    copy.symlink_to(official)
    for weights, yolo_type in ((official, "yolov4"), (official, "yolov3"), (copy, "yolov3")):
        configured(YOLO_TYPE=yolo_type)
        model, _ = configured_model(weights)
        assert (model.name, len(model.classes), model.classes[0]) == ("yolov3-tiny", 80, "person")
    mine = tmp_path / "mine.names"
    mine.write_text("".join(f"{i}\n" for i in range(80)))
    configured(TRAIN_CLASSES=str(mine))
    assert configured_model(copy)[0].classes == tuple(map(str, range(80)))
    assert configured_model(official)[0].classes[0] == "person"


def test_a_checkpoint_whose_classes_were_edited_is_refused(configured, network, tmp_path):
    folder = write(tmp_path / "checkpoints" / "mine", network)
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"classes": ["cat"]}))
    configured(YOLO_CUSTOM_WEIGHTS="mine")
    with pytest.raises(
        UserError, match="weights.npz cannot be read .array arr_85 is float32 .24,., where the network has .18,"
    ):
        Load_Yolo_model()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"type": "yolov4"}', "\0"])
def test_a_damaged_model_json_is_refused(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(UserError, match="model.json is damaged"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", []),
        ("classes", [1, 2]),
        ("classes", None),
        ("type", "yolov5"),
        ("tiny", "yes"),
        ("input_size", "416"),
        ("resize", "crop"),
        ("strides", None),
        ("anchors", [[1, 2]]),
        ("nms", "foo"),
        ("precision", "INT4"),
        ("framework", {}),
    ],
)
def test_a_model_json_that_no_tool_has_written_is_refused(network, tmp_path, key, value):
    folder = write(tmp_path / "mine", network)
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {key: value}))
    with pytest.raises(UserError, match="mine"):
        Load_Yolo_model(folder, input_size=SIZE)


def test_a_folder_without_model_json_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a checkpoint folder of this project: it has no model.json"):
        read_model(tmp_path)


def test_damaged_weights_of_a_checkpoint_are_refused(network, tmp_path):
    file = write(tmp_path / "checkpoint", network) / "weights.npz"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for data in (whole[: len(whole) // 2], whole[:-30], b"", b"text", bytes(flipped)):
        file.write_bytes(data)
        with pytest.raises(UserError, match="weights.npz cannot be read .*write it again"):
            read_weights(file.parent, array_shapes(network[0]))
    file.unlink()
    with pytest.raises(UserError, match="weights.npz cannot be read"):
        read_weights(file.parent, array_shapes(network[0]))


def test_a_header_that_claims_terabytes_is_refused_before_anything_is_read(network, tmp_path):
    """18 MB of zeros, deflated, once became 8.5 GB."""
    folder = write(tmp_path / "checkpoint", network)
    arrays = stored_arrays(folder)
    for claim in ((2**20, 2**20), (64,), ()):
        header = io.BytesIO()
        about = {"descr": "<f4", "fortran_order": False, "shape": claim}
        np.lib.format.write_array_header_1_0(header, about)
        with zipfile.ZipFile(folder / "weights.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for i, array in enumerate(arrays):
                member = io.BytesIO()
                np.save(member, array)
                archive.writestr(f"arr_{i}.npy", header.getvalue() + bytes(2**20) if i == 3 else member.getvalue())
        with pytest.raises(UserError, match="weights.npz cannot be read .array arr_3 is float32 .*where the network"):
            read_weights(folder, array_shapes(network[0]))


def test_the_header_of_an_array_that_claims_to_be_long_is_not_read(network, tmp_path):
    folder, length = write(tmp_path / "checkpoint", network), 5 * 10**7
    with zipfile.ZipFile(folder / "weights.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\2\0" + length.to_bytes(4, "little") + b" " * length)
    tracemalloc.start()
    with pytest.raises(UserError, match="weights.npz cannot be read"):
        read_weights(folder, array_shapes(network[0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < length / 10


@pytest.mark.filterwarnings("error")
def test_weights_too_large_for_float32_are_refused_without_a_warning(network, tmp_path):
    folder = write(tmp_path / "checkpoint", network)
    with np.load(folder / "weights.npz") as file:
        arrays = [array.astype(np.float64) for array in file.values()]
    arrays[0][0] = 1e300
    np.savez(folder / "weights.npz", *arrays)
    with pytest.raises(UserError, match="not finite"):
        load_arrays(network[0], read_weights(folder, array_shapes(network[0])), folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anchors", [[[-1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]]),
        ("anchors", [[[1e308, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]]),
        ("anchors", [[[float("nan"), 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]]),
        ("anchors", [[["1", 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]]),
        ("anchors", [[[1e-300, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]]),
        ("anchors", "none"),
        ("strides", [16.0, 32.0]),
        ("scale_x_y", [0, 1]),
        ("scale_x_y", [1.05, 10**400]),
        ("classes", ["cat", "cat", "cup"]),
        ("classes", ["cat", "do\ng", "cup"]),
        ("classes", ["cat", " ", "cup"]),
        ("classes", "cat"),
        ("classes", {"0": "cat"}),
        ("input_size", 1e308),
        ("input_size", 2**31),
        ("input_size", [64, 96, 3]),
        ("input_size", [64, 100]),
        ("input_size", []),
        ("tiny", "yes"),
        ("type", ["yolov4"]),
        ("features", []),
        ("beta_nms", -1),
        ("beta_nms", None),
        ("beta_nms", float("nan")),
    ],
)
def test_a_model_json_with_a_value_that_makes_no_sense_is_refused(network, tmp_path, name, value):
    file = write(tmp_path / "checkpoint", network) / "model.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, name: value}))
    with pytest.raises(UserError, match=r"model.json is damaged \(.*: write the checkpoint again"):
        read_model(file.parent)


def test_a_model_json_nested_without_end_is_damaged(network, tmp_path):
    file = write(tmp_path / "checkpoint", network) / "model.json"
    file.write_text("[" * 10**5)
    with pytest.raises(UserError, match="model.json is damaged"):
        read_model(file.parent)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "deep" / "checkpoint"
    for text in ("first", "second"):
        with whole_folder(folder) as part:
            (part / f"{text}.txt").write_text(text)
    with pytest.raises(RuntimeError), whole_folder(folder) as part:
        (part / "third.txt").write_text("third")
        raise RuntimeError
    assert [str(x.relative_to(tmp_path)) for x in sorted(tmp_path.rglob("*"))] == [
        "deep",
        "deep/checkpoint",
        "deep/checkpoint/second.txt",
    ]


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_removed_by_the_next(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, at_work = (f".mine.{THIS_COMPUTER}-{number}-0.part" for number in (ended.pid, os.getppid()))
    elsewhere, elsewhere_lately = ".mine.00000000-1-0.part", ".mine.00000000-2-0.part"
    for name in (left, at_work, elsewhere, elsewhere_lately):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text("{")
    os.utime(tmp_path / elsewhere, (0, 0))
    with pytest.raises(UserError, match="holds nothing"):
        find("mine", True, tmp_path)
    with whole_folder(tmp_path / "mine") as part:
        assert list(part.iterdir()) == []
    assert {x.name for x in tmp_path.iterdir()} == {at_work, elsewhere_lately, "mine"}


def test_a_checkpoint_where_nothing_can_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="mine cannot be written"), whole_folder(tmp_path / "file" / "mine"):
        pass


def test_a_checkpoint_whose_replacing_was_killed_between_its_two_renames_is_put_back(tmp_path):
    (tmp_path / ".mine.old").mkdir()
    (tmp_path / ".mine.old" / "model.json").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "mine"):
        raise RuntimeError
    assert [x.name for x in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "model.json").read_text() == "old"


def test_a_full_disk_leaves_the_checkpoint_as_it_was(tmp_path):
    model = ModelSpec("yolov4", True, ("a",), (64, 64), "letterbox", NETWORKS["yolov4-tiny"].heads)
    write_checkpoint(tmp_path / "mine", model, [np.ones(9)], "a test")
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))
    try:
        with pytest.raises(UserError, match="mine cannot be written"):
            write_checkpoint(tmp_path / "mine", model, [np.ones(10**6)], "a test")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3, 4, 6])
def test_outputs_of_a_network_that_are_not_finite_are_told_and_not_taken_for_no_boxes(value, column):
    predictions = np.zeros((2, 252, 4 + len(NAMES)), np.float32)
    frames = [np.zeros((30, 40, 3), np.uint8)] * 2
    detector = Detector(lambda images: {"predictions": tf.constant(predictions)}, MODEL, 0.3, 0.5, "broken.weights")
    assert [len(found) for found in detector(frames)] == [0, 0]
    predictions[1, 100, column] = value
    with pytest.raises(UserError, match="network of broken.weights gives outputs that are not finite"):
        detector(frames)
