"""tools/Convert_to_Neuron.py without a Neuron chip: all but the vendor's compiler."""

import shutil
import sys
import types

from yolov3 import configs
from yolov3.checkpoint import read_about
from yolov3.checks import PROJECT, UserError
from yolov3.images import read_picture
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.runtimes import neuron, savedmodel
from yolov3.runtimes.neuron import OnChip

import Convert_to_Neuron
import numpy as np
import pytest
import tensorflow as tf

SIZE = 160


@pytest.fixture(scope="module")
def source(shipped_saved_model, tmp_path_factory):
    """A folder of checkpoints with the shipped model as a SavedModel in it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    shutil.copytree(shipped_saved_model, folder / shipped_saved_model.name)
    return folder


@pytest.fixture
def convert(source, monkeypatch):
    """convert(options ..., constants ...) -> the folder it wrote."""

    def run(*options, **constants):
        defaults = {"TRAIN_CHECKPOINTS_FOLDER": str(source), "YOLO_INPUT_SIZE": SIZE, "NEURON_CHIP": "cpu"}
        for name, value in {**defaults, "YOLO_CUSTOM_WEIGHTS": SHIPPED, **constants}.items():
            monkeypatch.setattr(configs, name, value)
        monkeypatch.setattr(sys, "argv", ["script", *options])
        Convert_to_Neuron.main.__wrapped__()
        return source / f"yolov4-tiny-digits-neuron-{SIZE}"

    return run


def files():
    return [(PROJECT / "IMAGES" / "digits" / f"{i:05d}.jpg").read_bytes() for i in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--dynamic-batch-size"], ["--no-dynamic-batch-size", "--batch-size", "2"]])
def test_both_signatures_answer_as_before_for_any_number_of_pictures(convert, source, options):
    folder = convert(*options, NEURON_TRANSFER="float32")
    for name, value in (
        ("detect_bytes", tf.constant(files())),
        ("serving_default", tf.random.uniform((5, SIZE, SIZE, 3))),
    ):
        before = savedmodel.load(source / f"yolov4-tiny-digits-{SIZE}", name)
        after = savedmodel.load(folder, name)
        for count in (1, 4, 5):
            key = {"detect_bytes": "image_bytes", "serving_default": "images"}[name]
            theirs, ours = before(**{key: value[:count]}), after(**{key: value[:count]})
            for output in theirs:
                np.testing.assert_allclose(ours[output], theirs[output], atol=1e-2 if output == "boxes" else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["float16", "bfloat16"])
def test_half_precision_between_host_and_chip_keeps_the_boxes(convert, transfer):
    folder = convert(NEURON_TRANSFER=transfer)
    about = read_about(folder)
    assert (about["framework"], about["chip"], about["transfer"]) == ("neuron", "cpu", transfer)
    detector = Load_Yolo_model(folder, input_size=SIZE)
    frames = [read_picture(f"IMAGES/digits/{i:05d}.jpg", 10**9) for i in range(5)]
    for ours, theirs in zip(detector(frames, 0.5), Load_Yolo_model(SHIPPED, input_size=SIZE)(frames, 0.5), strict=True):
        mine, other = (np.lexsort((x.boxes[:, 0], x.classes)) for x in (ours, theirs))  # scores may tie
        assert ours.classes[mine].tolist() == theirs.classes[other].tolist()
        sides = (theirs.boxes[:, 2:] - theirs.boxes[:, :2]).min(1, keepdims=True)[other]
        assert (np.abs(ours.boxes[mine] - theirs.boxes[other]) <= np.maximum(0.05 * sides, 1.5)).all()


def test_the_chip_gets_batches_of_its_own_size():
    sizes = []

    def dense(images):
        sizes.append(images.shape[0])
        total = tf.reduce_sum(images, (1, 2, 3))[:, tf.newaxis, tf.newaxis]
        return tf.repeat(total, 4, -1), tf.cast(total, tf.float16)

    on_chip = tf.function(OnChip(dense, "float32", 3), input_signature=[tf.TensorSpec((None, 2, 2, 3))])
    for count in (1, 3, 7):
        images = tf.random.uniform((count, 2, 2, 3))
        answers = on_chip(images)["predictions"]
        assert answers.shape == (count, 1, 5)
        np.testing.assert_allclose(answers[:, 0, 0], tf.reduce_sum(images, (1, 2, 3)), rtol=1e-5)
    assert set(sizes) == {3}


def test_a_missing_vendor_package_is_one_line_that_says_what_to_install(convert):
    for chip, package in {
        "inf1": "tensorflow.neuron",
        "inf2": "tensorflow_neuronx",
        "trn1": "tensorflow_neuronx",
    }.items():
        with pytest.raises(UserError, match=f"{chip} needs the package {package}.*pip install -r requirements/neuron"):
            convert(NEURON_CHIP=chip)


@pytest.mark.parametrize(
    ("constant", "value"),
    [("NEURON_CHIP", "gpu"), ("NEURON_AUTO_CAST", "some"), ("NEURON_TRANSFER", "int8"), ("NEURON_BATCH_SIZE", 0)],
)
def test_a_wrong_constant_is_named(convert, constant, value):
    with pytest.raises(UserError, match=constant):
        convert(**{constant: value})


def test_the_compiler_is_called_as_documented_and_too_small_a_share_is_refused(monkeypatch):
    """The vendor's package stood in for by its documented functions; what they compile is not shown here."""
    calls = []

    def analyze_model(func, example_inputs):
        calls.append("analyze")
        return {"supported_count": 99, "total_count": 100, "unsupported_operators": {"Where"}}

    def trace(func, example_inputs):
        calls.append("trace")
        traced = tf.keras.layers.Layer()
        traced.on_neuron_ratio = share
        return traced

    monkeypatch.setitem(
        sys.modules, "tensorflow_neuronx", types.SimpleNamespace(analyze_model=analyze_model, trace=trace)
    )
    monkeypatch.setenv("NEURON_CC_FLAGS", "--verbose=1")
    share = 0.95
    neuron.compiled(lambda x: x, tf.zeros((1, 2, 2, 3)), neuron.WriteOptions())
    assert calls == ["analyze", "trace"]
    assert neuron.os.environ["NEURON_CC_FLAGS"] == "--verbose=1 --auto-cast=matmult --dynamic-batch-size"
    share = 0.5
    with pytest.raises(UserError, match="only 50% of the operators would run on inf2; it does not support Where"):
        neuron.compiled(lambda x: x, tf.zeros((1, 2, 2, 3)), neuron.WriteOptions())
