"""The four networks compute what Darknet's do: OpenCV's importer is the oracle, live or in golden/."""

from yolov3 import configs
from yolov3.boxes import decode
from yolov3.checks import UserError
from yolov3.darknet import load_yolo_weights
from yolov3.networks import NETWORKS
from yolov3.yolov4 import Create_Yolo

import keras
import numpy as np
import pytest
from make_golden import HERE, SIZES, golden_numbers
from oracle import centre_form, importer, importer_answers, random_picture, random_weights

PARAMETERS = {"yolov3": 62_001_757, "yolov3-tiny": 8_858_734, "yolov4": 64_429_405, "yolov4-tiny": 6_062_814}
# Darknet's cfg of today says mask = 0,1,2 in the fine head; the published weights, and so our table, have mask = 1,2,3
IMPORTED_HEADS = {name: row.heads for name, row in NETWORKS.items()}
IMPORTED_HEADS["yolov3-tiny"] = NETWORKS["yolov3-tiny"].heads._replace(
    anchors=(((10, 14), (23, 27), (37, 58)), ((81, 82), (135, 169), (344, 319)))
)
RAW, FRACTIONS = 1e-3, 1e-4  # tolerances: raw heads absolute, boxes and scores


def create(name, size, classes):
    return Create_Yolo(size, name.removesuffix("-tiny"), name.endswith("-tiny"), classes)


class Computed:
    """One network at 80 classes with seeded random weights, and what it computes at each size."""

    def __init__(self, name, folder):
        self.name = name
        self.raw, self.boxes, self.scores = {}, {}, {}
        for size in SIZES:
            model = create(name, size, 80)
            self.parameters = model.count_params()
            self.weights = folder / "random.weights"
            if size == SIZES[0]:
                random_weights(model, self.weights)
            load_yolo_weights(model, self.weights)
            raw = model(random_picture(size), training=False)
            predictions = decode(raw, IMPORTED_HEADS[name])[0].numpy()
            self.raw[size] = [head.numpy() for head in raw]
            self.boxes[size], self.scores[size] = centre_form(predictions[:, :4]), predictions[:, 4:]


FULL = ("yolov3", "yolov4")


@pytest.fixture(scope="module", params=[pytest.param(x, marks=[pytest.mark.slow] * (x in FULL)) for x in PARAMETERS])
def network(request, tmp_path_factory):
    computed = Computed(request.param, tmp_path_factory.mktemp("weights"))
    yield computed
    computed.weights.unlink()  # up to 258 MB


def test_parameter_count_at_80_classes(network):
    assert network.parameters == PARAMETERS[network.name]


@pytest.mark.parametrize("size", SIZES)
def test_heads_and_boxes_equal_the_golden_numbers_of_opencvs_importer(network, size):
    ours = golden_numbers(size, network.raw[size], network.boxes[size], network.scores[size])
    with np.load(HERE / "golden" / f"{network.name}.npz") as golden:
        assert {key for key in golden if key.startswith(f"{size}_")} == set(ours)
        for key, numbers in ours.items():
            np.testing.assert_allclose(numbers, golden[key], rtol=0, atol=RAW if "raw" in key else FRACTIONS)


def test_the_golden_numbers_tell_networks_apart():
    """Random weights that give near nothing everywhere would make the parity tests above blind."""
    for name in PARAMETERS:
        with np.load(HERE / "golden" / f"{name}.npz") as golden:
            for key, numbers in golden.items():
                assert numbers.std() > (100 * RAW if "raw" in key else 100 * FRACTIONS), (name, key)


@pytest.mark.parametrize("size", SIZES)
def test_every_number_equals_opencvs_importer(network, size, shared):
    net = importer(shared / "darknet" / f"{network.name}.cfg", network.weights, size)
    raw, rows = importer_answers(net, random_picture(size))
    for ours, theirs in zip(network.raw[size], raw, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=RAW)
    np.testing.assert_allclose(network.boxes[size], rows[:, :4], rtol=0, atol=FRACTIONS)
    np.testing.assert_allclose(network.scores[size], rows[:, 5:], rtol=0, atol=FRACTIONS)


@pytest.mark.parametrize(
    ("name", "size", "classes"),
    [("yolov3", 160, 1), ("yolov3-tiny", 224, 2), ("yolov4", 32, 7), ("yolov4-tiny", 608, 20)],
)
def test_head_shapes_at_other_sizes_and_class_counts(name, size, classes):
    heads = create(name, size, classes).output_shape
    assert heads == [(None, size // s, size // s, 3 * (5 + classes)) for s in NETWORKS[name].heads.strides]


def test_a_model_survives_keras_saving(tmp_path):
    model = create("yolov4-tiny", 64, 3)
    load_yolo_weights(model, random_weights(model, tmp_path / "random.weights"))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for before, after in zip(model(random_picture(64)), again(random_picture(64)), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"yolo_type": "yolov5"}, "YOLO_TYPE = 'yolov5' is not known: choose one of 'yolov3', 'yolov4'"),
        ({"input_size": 400}, r"YOLO_INPUT_SIZE\) is 400: make it a multiple of 32"),
        ({"input_size": 0}, "is 0: make it a multiple of 32, 32 for example"),
        ({"input_size": "416"}, "is '416': make it a multiple of 32"),
        ({"input_size": (250, 416)}, r"is \(250, 416\): make each side a multiple of 32, \(256, 416\) for example"),
        ({"input_size": (416, 9e9)}, r"each side a multiple of 32, \(416, 416\) for example"),
        ({"input_size": (416,)}, r"is \(416,\): give one number or \(height, width\)"),
        ({"input_size": (256, 8192)}, "make each side 4096 at most"),
        ({"CLASSES": 0}, "at least one class"),
        ({"CLASSES": []}, "at least one class"),
        ({"CLASSES": "nowhere.names"}, "class names file nowhere.names is missing"),
    ],
)
def test_a_wrong_argument_is_told_in_the_users_words(arguments, message):
    with pytest.raises(UserError, match=message):
        Create_Yolo(**{"input_size": 64, "yolo_type": "yolov4", "tiny": True, "CLASSES": 3} | arguments)


def test_what_is_left_out_comes_from_configs_at_call_time(monkeypatch, tmp_path):
    names = tmp_path / "two.names"
    names.write_text("cat\ndog\n")
    for constant, value in {"YOLO_TYPE": "yolov3", "TRAIN_YOLO_TINY": True, "YOLO_COCO_CLASSES": str(names)}.items():
        monkeypatch.setattr(configs, constant, value)
    model = Create_Yolo(input_size=416)
    assert (model.name, model.output_shape) == ("yolov3-tiny", [(None, 26, 26, 21), (None, 13, 13, 21)])

    monkeypatch.setattr(configs, "YOLO_TYPE", "yolov4")
    monkeypatch.setattr(configs, "YOLO_INPUT_SIZE", 96)
    model = Create_Yolo()
    assert (model.name, model.output_shape) == ("yolov4-tiny", [(None, 6, 6, 21), (None, 3, 3, 21)])
