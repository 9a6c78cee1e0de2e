"""Darknet's .weights files: byte for byte there and back, bad files refused and explained."""

import resource

from yolov3.checks import UserError
from yolov3.darknet import (
    convolutions,
    get_arrays,
    load_yolo_weights,
    save_yolo_weights,
    transfer_yolo_weights,
)
from yolov3.yolov4 import Create_Yolo

import numpy as np
import pytest
from oracle import random_weights

CLASSES = 3
PER_CLASS = 3 * 4 * (512 + 1 + 256 + 1)  # bytes that a class adds to the heads of yolov4-tiny


@pytest.fixture(scope="module")
def model():
    return Create_Yolo(32, "yolov4", True, CLASSES)


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    """The bytes of a good file."""
    return random_weights(model, tmp_path_factory.mktemp("weights") / "good.weights").read_bytes()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.weights"


def everything(model):
    return np.concatenate([array.ravel() for array in get_arrays(model)])


# --- Reading and writing -------------------------------------------------------------------------------------------


def test_load_and_save_give_the_same_bytes(model, good, file):
    file.write_bytes(good)
    load_yolo_weights(model, file)
    save_yolo_weights(model, file)
    assert file.read_bytes() == good
    assert [x.name for x in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "header",
    [
        np.array([0, 2, 5, 32013312, 0], "<i4"),  # the pictures seen are int64
        np.array([0, 2, 0, 64, 0], "<i4"),
        np.array([1, 0, 0, 7, 0], "<i4"),
        np.array([0, 1, 0, 32013312], "<i4"),  # int32 before version 0.2
    ],
    ids=lambda header: f"version {header[0]}.{header[1]}, {header.nbytes} bytes",
)
def test_both_forms_of_the_header_are_read(model, good, file, header):
    file.write_bytes(header.tobytes() + good[20:])
    load_yolo_weights(model, file)
    np.testing.assert_array_equal(everything(model), np.frombuffer(good, "<f4", offset=20))


def nan_at_the_end(good):
    return good[:-4] + np.float32(np.nan).tobytes()


BAD_FILES = {
    "cut off": (lambda good: good[:-4], "it is of another network than the four of this project, or was cut off"),
    "cut in the header": (lambda good: good[:10], "has 10 bytes"),
    "cut within a number": (lambda good: good[:-1], "not a whole number of weights: cut off"),
    "four bytes too many": (lambda good: good + bytes(4), "it is of another network than the four"),
    "empty": (lambda good: b"", "is empty: download it again"),
    "web page": (lambda good: b"\n<!DOCTYPE html><html>Not found</html>", "is a web page, not weights"),
    "not a number": (nan_at_the_end, "not finite"),
    "infinite": (lambda good: good[:20] + np.float32(np.inf).tobytes() + good[24:], "not finite"),
    "more classes": (lambda good: good + bytes(17 * PER_CLASS), "it is yolov4-tiny with 20 classes: name 20 classes"),
    "fewer classes": (lambda good: good[: -2 * PER_CLASS], "it is yolov4-tiny with 1 classes: name 1 classes"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_refused_and_the_model_left_untouched(model, good, file, bad):
    file.write_bytes(good)
    load_yolo_weights(model, file)
    before = everything(model)
    damage, message = BAD_FILES[bad]
    file.write_bytes(damage(good))
    with pytest.raises(UserError, match=message) as error:
        load_yolo_weights(model, file)
    assert str(file) in str(error.value)
    np.testing.assert_array_equal(everything(model), before)


def test_a_wrong_class_count_is_told_with_both_byte_counts_and_the_count_that_fits(model, file):
    other = Create_Yolo(32, "yolov4", True, 7)
    theirs = random_weights(other, file).stat().st_size
    assert theirs == 20 + 4 * other.count_params()
    ours = 20 + 4 * model.count_params()
    with pytest.raises(UserError) as error:
        load_yolo_weights(model, file)
    for part in (f"{theirs:,} bytes", f"yolov4-tiny with 3 classes takes {ours:,}", "it is yolov4-tiny with 7 classes"):
        assert part in str(error.value)


def zeros(file, count):
    """Writes a .weights file of so many zeros, with its header."""
    file.write_bytes(np.array([0, 2, 5, 0, 0], "<i4").tobytes() + bytes(4 * count))


# parameters at 80 classes, and what has to be set where yolov4-tiny is
OTHERS = {
    "yolov3": (62_001_757, 'set YOLO_TYPE = "yolov3" and TRAIN_YOLO_TINY = False'),
    "yolov3-tiny": (8_858_734, 'set YOLO_TYPE = "yolov3"'),
    "yolov4": (64_429_405, "set TRAIN_YOLO_TINY = False"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("classes", [1, 3, 20, 365])
def test_whole_weights_of_another_network_are_told_with_the_constants_to_set(model, file, name, classes):
    parameters, settings = OTHERS[name]
    before_heads = (512, 256) if name.endswith("tiny") else (256, 512, 1024)  # channels
    zeros(file, parameters + (classes - 80) * 3 * sum(channels + 1 for channels in before_heads))
    with pytest.raises(UserError) as error:
        load_yolo_weights(model, file)
    message = str(error.value)
    assert f"it is {name} with {classes} classes: {settings}" in message
    assert (f"name {classes} classes" in message) == (classes != CLASSES)
    assert "download" not in message
    with pytest.raises(UserError) as error:
        transfer_yolo_weights(model, file)
    assert str(error.value) == message


# --- Partial files for training ------------------------------------------------------------------------------------

PARTIAL = {  # what Darknet's `partial` keeps: the network, bytes of the file, and the convolutions in it of how many
    "yolov4-tiny.conv.29": ("yolov4", True, 19_789_716, 17, 21),
    "yolov4.conv.137": ("yolov4", False, 170_038_676, 92, 110),
    "darknet53.conv.74": ("yolov3", False, 162_482_580, 52, 75),
    "yolov3-tiny.conv.15": ("yolov3", True, 30_973_396, 9, 13),
}


@pytest.mark.parametrize("name", [pytest.param(x, marks=() if "tiny" in x else pytest.mark.slow) for x in PARTIAL])
def test_a_partial_file_gives_a_training_its_convolutions_and_nothing_else(tmp_path, name):
    yolo_type, tiny, size, taken, count = PARTIAL[name]
    model = Create_Yolo(32, yolo_type, tiny, CLASSES)
    data = random_weights(model, tmp_path / "whole.weights").read_bytes()
    (tmp_path / name).write_bytes(data[:size])
    before = everything(model)
    assert transfer_yolo_weights(model, tmp_path / name) == taken
    after, border = everything(model), (size - 20) // 4
    np.testing.assert_array_equal(after[:border], np.frombuffer(data[20:size], "<f4"))
    np.testing.assert_array_equal(after[border:], before[border:])
    with pytest.raises(UserError) as error:
        load_yolo_weights(model, tmp_path / name)
    assert f"it is the first {taken} of {count} convolutions of {model.name}: begin a training" in str(error.value)
    assert "download" not in str(error.value)


@pytest.mark.slow
def test_any_file_that_ends_behind_a_convolution_is_taken_heads_of_other_classes_apart(model, tmp_path):
    other = Create_Yolo(32, "yolov4", True, 7)
    data = random_weights(other, tmp_path / "whole.weights").read_bytes()
    counts = [conv.count_params() + (norm.count_params() if norm else 0) for conv, norm in convolutions(other)]
    file = tmp_path / "part.weights"
    for made, end in enumerate(20 + 4 * np.cumsum(counts), 1):
        file.write_bytes(data[:end])
        heads = sum(number <= made for number in (18, 21))  # the convolutions that are heads
        assert transfer_yolo_weights(model, file) == made - heads
        for size in (end - 4, end + 4):
            file.write_bytes((data + bytes(4))[:size])
            with pytest.raises(UserError, match="of another network"):
                transfer_yolo_weights(model, file)


def test_a_partial_file_of_another_network_is_told_with_the_constants_to_set(model, file):
    zeros(file, (PARTIAL["yolov4.conv.137"][2] - 20) // 4)
    with pytest.raises(UserError, match="first 92 of 110 convolutions of yolov4: set TRAIN_YOLO_TINY = False") as error:
        transfer_yolo_weights(model, file)
    assert "download" not in str(error.value)


# --- The disk ------------------------------------------------------------------------------------------------------


def test_a_missing_file_or_a_folder_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="none.weights is missing"):
        load_yolo_weights(model, tmp_path / "none.weights")
    with pytest.raises(UserError, match="is a folder, not a file"):
        load_yolo_weights(model, tmp_path)


def test_saving_where_nothing_can_be_written_leaves_nothing(model, tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "folder").mkdir()
    for path in ("file/x.weights", "folder"):
        with pytest.raises(UserError, match=f"{path} cannot be written"):
            save_yolo_weights(model, tmp_path / path)
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_a_full_disk_keeps_the_file_that_was_there(model, file):
    file.write_bytes(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match="some.weights cannot be written: File too large"):
            save_yolo_weights(model, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(x.name, x.read_bytes()) for x in file.parent.iterdir()] == [(file.name, b"before")]
