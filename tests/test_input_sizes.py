"""Inputs that are not square: detection, every conversion that runs here, and what the files and lines of them say."""

import json
import sys
from dataclasses import replace

from tools.cluster.parts import describe_run
from yolov3 import configs
from yolov3.checkpoint import read_about, read_model, write_checkpoint
from yolov3.checks import PROJECT, UserError, check_input_size
from yolov3.darknet import get_arrays, save_yolo_weights
from yolov3.detect import detect_image
from yolov3.fitting import RESIZES
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model, configured_model
from yolov3.runtimes import savedmodel
from yolov3.runtimes.tftrt_engines import head_shapes
from yolov3.settings import apply
from yolov3.sizes import size_name, size_of, written_size
from yolov3.training.configured import configured_spec
from yolov3.yolov4 import Create_Yolo

import Convert_to_Neuron
import Convert_to_OpenVINO
import Convert_to_pb
import numpy as np
import pytest
import tensorflow as tf
from cfgs import ANCHORS, cfg, conv, head

SIZE = (128, 192)
NAME = "128x192"
SAMPLES = PROJECT / "IMAGES" / "digits"
FOLDERS = {
    "tf": f"yolov4-tiny-digits-{NAME}",
    "openvino": f"yolov4-tiny-digits-openvino-FP32-{NAME}",
    "neuron": f"yolov4-tiny-digits-neuron-{NAME}",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of checkpoints that nobody writes into: the shipped model, converted for all that runs here."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(folder))
        patch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", SHIPPED)
        patch.setattr(configs, "YOLO_INPUT_SIZE", SIZE)
        patch.setattr(configs, "YOLO_FEATURES", True)
        patch.setattr(configs, "YOLO_OPENVINO_QUANTIZE_MODE", "FP32")
        patch.setattr(configs, "NEURON_CHIP", "cpu")
        patch.setattr(configs, "NEURON_TRANSFER", "float32")
        patch.setattr(configs, "NEURON_DYNAMIC_BATCH_SIZE", False)
        patch.setattr(configs, "NEURON_BATCH_SIZE", 2)
        patch.setattr(sys, "argv", ["script"])
        for tool in (Convert_to_pb, Convert_to_OpenVINO, Convert_to_Neuron):
            tool.main.__wrapped__()
    return folder


@pytest.fixture(scope="module")
def detector():
    return Load_Yolo_model(SHIPPED, input_size=SIZE, features=True)


@pytest.fixture(scope="module")
def frames():
    return [read_picture(SAMPLES / f"{i:05d}.jpg", 10**9) for i in range(2)]


def test_a_wide_input_is_the_square_one_without_its_grey_bars(frames):
    frame = frames[1]  # 339 x 559: 252 rows of 416
    square, wide = (Load_Yolo_model(SHIPPED, input_size=size) for size in (416, (256, 416)))
    np.testing.assert_array_equal(square.fit([frame])[:, 82:334], wide.fit([frame])[:, 2:254])
    (theirs,), (ours,) = square([frame], 0.5), wide([frame], 0.5)
    assert len(theirs) >= 4 and ours.labels == theirs.labels
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=4)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FOLDERS)
def test_conversions_answer_as_the_weights_do(made, detector, frames, framework):
    folder = made / FOLDERS[framework]
    converted = Load_Yolo_model(folder, input_size=SIZE, features=True)
    assert converted.spec.input_size == SIZE and str(converted.spec).endswith(f"{NAME} letterbox")
    assert read_about(folder)["input_size"] == list(SIZE)
    assert converted.fit(frames).shape == (2, *SIZE, 3)
    for ours, theirs in zip(converted(frames, 0.2), detector(frames, 0.2), strict=True):
        assert len(theirs) > 2 and ours.labels == theirs.labels
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
        np.testing.assert_allclose(ours.embeddings, theirs.embeddings, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["tf", "neuron"])
def test_files_are_detected_on_as_pictures_are(made, frames, framework):
    files = tf.constant([(SAMPLES / f"{i:05d}.jpg").read_bytes() for i in range(2)])
    answers = savedmodel.load(made / FOLDERS[framework], "detect_bytes")(image_bytes=files)
    for i, expected in enumerate(Load_Yolo_model(made / FOLDERS["tf"], input_size=SIZE)(frames, 0.3)):
        assert answers["valid_detections"][i] == len(expected) > 0
        np.testing.assert_allclose(answers["boxes"][i, : len(expected)], expected.boxes, atol=0.1)


@pytest.mark.slow
def test_a_folder_of_another_size_is_refused_naming_both(made, monkeypatch):
    with pytest.raises(UserError, match="takes 128 x 192 pixels, but YOLO_INPUT_SIZE .* is 192: change it"):
        Load_Yolo_model(made / FOLDERS["openvino"], input_size=192)
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", (192, 128))
    with pytest.raises(UserError, match=r"is \(192, 128\): change it, or convert for that size"):
        Load_Yolo_model(made / FOLDERS["tf"])


def test_a_size_on_a_command_line_is_a_pair(monkeypatch):
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", 416)
    apply([], ["YOLO_INPUT_SIZE=(256, 416)"])
    assert configured_model(SHIPPED)[0].input_size == (256, 416)
    assert [size_of(word) for word in ("416", "256x416")] == [416, (256, 416)]
    with pytest.raises(ValueError, match="invalid literal"):
        size_of("256,416")


@pytest.mark.slow
def test_a_rectangle_holds_the_picture_and_little_more(frames):
    """Pictures of a list may have inputs of different sizes; what is found is what each has alone."""
    square, rectangle = (Load_Yolo_model(SHIPPED, input_size=192, resize=x, features=True) for x in RESIZES[::2])
    pictures = [frames[0], np.ascontiguousarray(frames[1][50:250]), frames[0][:, ::-1], frames[1]]
    heights = [rectangle.fit([picture]).shape[1] for picture in pictures]
    assert heights == [192, 96, 192, 128]
    together, theirs = rectangle(pictures, 0.5), square(pictures, 0.5)
    for picture, found, other in zip(pictures, together, theirs, strict=True):
        (alone,) = rectangle([picture], 0.5)
        assert found.labels == alone.labels and len(found) > 0 and set(found.labels) & set(other.labels)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.05)
        np.testing.assert_allclose(found.embeddings, alone.embeddings, atol=1e-4)
        np.testing.assert_allclose(rectangle.embed(picture, found.boxes), found.embeddings, atol=1e-4)
    np.testing.assert_allclose(together[0].boxes, theirs[0].boxes, atol=0.05)  # its input is the square one
    assert rectangle.timings.pictures == 8 and str(rectangle.spec).endswith("192 rectangle")


@pytest.mark.slow
def test_a_rectangle_is_refused_where_inputs_have_one_size(made, monkeypatch):
    monkeypatch.setattr(configs, "YOLO_RESIZE", "rectangle")
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", SIZE)
    for folder in FOLDERS.values():
        with pytest.raises(UserError, match=f'"rectangle" is .*: {made / folder} takes 128 x 192 pixels: set YOLO_RES'):
            Load_Yolo_model(made / folder)
    monkeypatch.setattr(configs, "YOLO_CUSTOM_WEIGHTS", SHIPPED)
    monkeypatch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(made / "more"))
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(UserError, match='"rectangle" is .* a conversion takes inputs of one size: set YOLO_RESIZE = '):
        Convert_to_pb.main.__wrapped__()
    with pytest.raises(UserError, match='"rectangle" is .* of a batch have inputs of one size: set YOLO_RESIZE = "let'):
        configured_spec()


def test_squares_are_written_as_one_number():
    assert [size_name(size) for size in ((416, 416), (256, 416))] == ["416", "256x416"]
    assert [written_size(size) for size in ((416, 416), (256, 416))] == [416, [256, 416]]
    assert check_input_size(416) == check_input_size([416, 416]) == (416, 416)


@pytest.mark.slow
def test_model_json_with_one_number_is_a_square(made, tmp_path):
    about = read_about(made / FOLDERS["tf"])
    for size in (128, [128, 128]):
        (tmp_path / "model.json").write_text(json.dumps(about | {"input_size": size}))
        assert read_model(tmp_path).input_size == (128, 128)


@pytest.mark.slow
def test_the_call_may_name_the_size_either_way(detector):
    source = SAMPLES / "00000.jpg"
    for size in (SIZE, list(SIZE)):
        assert detect_image(detector, source, input_size=size).shape[2] == 3
    with pytest.raises(UserError, match=r"input_size is 192, but the detector was loaded for \[128, 192\]"):
        detect_image(detector, source, input_size=192)


def test_what_needs_no_run_takes_both_sides(detector, tmp_path):
    """The heads that TensorRT answers, and run.json of a cluster's job."""
    assert head_shapes(detector.spec) == [(8, 12, 45), (4, 6, 45)]
    listing = type("Listing", (), {"names": [], "lines": lambda self: []})()
    (tmp_path / "mine.weights").write_bytes(b"")
    run = describe_run(detector.spec, tmp_path / "mine.weights", {}, 10, listing, 8)
    assert json.loads(json.dumps(run)) == run and run["input_size"] == list(SIZE)


def test_a_cfg_may_be_wide_and_keeps_that_in_its_folder(tmp_path, monkeypatch):
    text = cfg(conv(8, 3, 2), conv(8, 3, 2), head(ANCHORS, (0,), 1), size=(48, 80))
    (tmp_path / "mine.cfg").write_text(text)
    network = Create_Yolo(cfg=tmp_path / "mine.cfg")
    assert (network.input_shape, network.output_shape) == ((None, 48, 80, 3), (None, 12, 20, 6))
    save_yolo_weights(network, tmp_path / "mine.weights")
    spec, _ = configured_model(tmp_path / "mine.weights", ["a"])
    assert spec.input_size == (48, 80)
    write_checkpoint(tmp_path / "mine", replace(spec, input_size=(64, 96)), get_arrays(network), "a test")
    said = read_model(tmp_path / "mine")
    assert (said.input_size, said.network.cfg.size) == ((64, 96), (64, 96))
