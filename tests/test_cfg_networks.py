"""Networks of cfgs compute what Darknet does, and go everywhere that the four of the table go."""

import dataclasses
import importlib
import sys

from deep_sort.matching import iou_matrix
from yolov3 import configs
from yolov3.boxes import decode, suppress
from yolov3.cfg.layers import MAKERS
from yolov3.cfg.network import embedding_row, read_network
from yolov3.cfg.options import READ
from yolov3.cfg.rows import ACTIVATIONS, READERS
from yolov3.cfg.write import cfg_text
from yolov3.checkpoint import ModelSpec, read_model, write_checkpoint
from yolov3.checks import UserError
from yolov3.darknet import get_arrays, heads_of, load_yolo_weights, save_yolo_weights, transfer_yolo_weights
from yolov3.heads import heads_to_train
from yolov3.loading import Load_Yolo_model
from yolov3.networks import NETWORKS
from yolov3.training.trainer import Schedule, Trainer, make_network
from yolov3.yolov4 import Create_Yolo, make_model

import cfgs
import numpy as np
import pytest
import tensorflow as tf
from darknet_forward import forward
from make_golden import CFGS, HERE, SIZES, golden_numbers
from oracle import centre_form, importer, importer_answers, random_picture, random_weights

RAW, FRACTIONS = 1e-3, 1e-4  # tolerances: raw heads absolute, boxes and scores
OWN = {"mixed": cfgs.MIXED, "one head": cfgs.ONE_HEAD, "new_coords": cfgs.NEW_COORDS}


@pytest.fixture
def written(tmp_path):
    """Writes the text of a cfg and random weights for it beside -> the cfg."""

    def write(text, name="mine"):
        file = tmp_path / f"{name}.cfg"
        file.write_text(text)
        random_weights(Create_Yolo(cfg=file), file.with_suffix(".weights"))
        return file

    return write


def predict(file, size=None, model=None):
    """Raw heads and predictions of a cfg of a random picture; without a model, one with the weights beside the cfg."""
    if model is None:
        model = Create_Yolo(size, cfg=file)
        load_yolo_weights(model, file.with_suffix(".weights"))
    raw = model(random_picture(model.input_shape[1]), training=False)
    raw = tf.nest.flatten(raw)
    return raw, decode(raw, read_network(file).heads)[0].numpy()


def in_head_order(file, answers):
    """The rows of each [yolo] in the order of the cfg -> of all, smallest stride first."""
    order = sorted(row.number for row in read_network(file).cfg.head_rows)
    return np.concatenate([answers[order.index(row.number)] for row in read_network(file).cfg.head_rows])


# --- The same numbers ------------------------------------------------------------------------------------------------


def test_what_is_read_is_made():
    from yolov3 import layers

    assert set(READERS) == set(MAKERS) == set(READ) - {"net"}
    assert set(ACTIVATIONS) == set(layers.ACTIVATIONS)
    everything = cfgs.MIXED + cfgs.NEW_COORDS
    assert all(f"[{name}]" in everything for name in READERS)
    assert all(f"activation={name}" in everything for name in ACTIVATIONS)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("size", [96, 64])
def test_a_network_computes_what_darknet_does(written, name, size):
    file = written(OWN[name].replace("width=96\nheight=96", f"width={size}\nheight={size}"))
    _, ours = predict(file)
    theirs, left = forward(file.read_text(), file.with_suffix(".weights").read_bytes(), random_picture(size)[0])
    theirs = in_head_order(file, theirs)
    assert left == 0
    assert theirs.std(0).min() > 100 * FRACTIONS  # else it would tell nothing
    np.testing.assert_allclose(centre_form(ours[:, :4]), theirs[:, :4], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours[:, 4:], theirs[:, 5:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["yolov3-tiny", "yolov4-tiny", *(pytest.param(x, marks=pytest.mark.slow) for x in ("yolov3", "yolov4"))]
)
def test_the_cfgs_of_our_networks_give_bit_for_bit_what_they_do(tmp_path, name):
    row = NETWORKS[name]
    model = make_model(row, 64, 3)
    (tmp_path / "ours.cfg").write_text(cfg_text(model, row.heads, 3, (64, 64)))
    by_cfg = Create_Yolo(cfg=tmp_path / "ours.cfg")
    weights = random_weights(model, tmp_path / "random.weights")
    for each in model, by_cfg:
        load_yolo_weights(each, weights)
    assert read_network(tmp_path / "ours.cfg").heads == row.heads
    for ours, theirs in zip(model(random_picture(64)), by_cfg(random_picture(64)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow) if x in ("yolov4-csp", "enet-coco") else x for x in CFGS]
)
def test_public_networks_equal_the_golden_numbers_of_opencvs_importer(shared, tmp_path, name):
    file = tmp_path / f"{name}.cfg"
    file.write_bytes((shared / "darknet" / "more" / f"{name}.cfg").read_bytes())
    models = [Create_Yolo(size, cfg=file) for size in SIZES]
    weights = random_weights(models[0], file.with_suffix(".weights"))
    with np.load(HERE / "golden" / f"{name}.npz") as golden:
        for size, model in zip(SIZES, models, strict=True):
            load_yolo_weights(model, weights)
            raw, predictions = predict(file, model=model)
            ours = golden_numbers(size, raw, centre_form(predictions[:, :4]), predictions[:, 4:])
            for key, numbers in ours.items():
                assert golden[key].std() > (100 * RAW if "raw" in key else 100 * FRACTIONS)
                np.testing.assert_allclose(numbers, golden[key], rtol=0, atol=RAW if "raw" in key else FRACTIONS)


LIVE = ("yolov3-tiny_3l", "yolov4-tiny-custom", "yolov3-spp", "yolov4-csp-swish", "yolov4x-mish")


@pytest.mark.parametrize("name", [x if "tiny" in x else pytest.param(x, marks=pytest.mark.slow) for x in LIVE])
def test_public_networks_equal_opencvs_importer(shared, tmp_path, name):
    file = tmp_path / f"{name}.cfg"
    file.write_bytes((shared / "darknet" / "more" / f"{name}.cfg").read_bytes())
    model = Create_Yolo(64, cfg=file)
    weights = random_weights(model, file.with_suffix(".weights"))
    load_yolo_weights(model, weights)
    raw, predictions = predict(file, model=model)
    their_raw, rows = importer_answers(importer(file, weights, 64), random_picture(64))
    for ours, theirs in zip(raw, their_raw, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=RAW)
    np.testing.assert_allclose(centre_form(predictions[:, :4]), rows[:, :4], rtol=0, atol=FRACTIONS)
    np.testing.assert_allclose(predictions[:, 4:], rows[:, 5:], rtol=0, atol=FRACTIONS)


def test_any_input_size_of_the_largest_stride_will_do(written):
    """A network whose coarsest cell has 8 pixels, of which features need two, and one of 64."""
    fine = written(cfgs.cfg(cfgs.conv(8, 4, 4, pad=0), cfgs.conv(8, 3, 2), cfgs.head(cfgs.ANCHORS, (0,), 1), size=80))
    assert [x.shape for x in Create_Yolo(48, cfg=fine).outputs] == [(None, 6, 6, 6)]
    with pytest.raises(UserError, match="is 40: make it a multiple of 16, 48 for example|multiple of 16, 32"):
        Create_Yolo(40, cfg=fine)
    coarse = cfgs.cfg(*[cfgs.conv(8, 3, 2)] * 6, cfgs.head(cfgs.ANCHORS, (0,), 1), size=128)
    assert [x.shape for x in Create_Yolo(192, cfg=written(coarse)).outputs] == [(None, 3, 3, 6)]
    with pytest.raises(UserError, match="is 96: make it a multiple of 64"):
        Create_Yolo(96, cfg=written(coarse))


# --- Weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_weights_there_and_back_are_the_same_bytes(written, name, tmp_path):
    file = written(OWN[name])
    weights = file.with_suffix(".weights")
    model = Create_Yolo(cfg=file)
    load_yolo_weights(model, weights)
    save_yolo_weights(model, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


@pytest.mark.slow
def test_weights_of_other_classes_cut_off_or_of_another_network_are_told(written, tmp_path):
    file, bad = written(cfgs.MIXED), tmp_path / "bad.weights"
    model, good = Create_Yolo(cfg=file), file.with_suffix(".weights").read_bytes()
    twenty = Create_Yolo(CLASSES=20, cfg=file)
    assert [head.classes for head in heads_of(twenty)] == [20, 20, 20]
    random_weights(twenty, bad)
    with pytest.raises(UserError, match=r"with 3 classes takes [\d,]+: it is mine with 20 classes: name 20 classes"):
        load_yolo_weights(model, bad)
    taken = transfer_yolo_weights(model, bad)
    assert taken == len([x for x in read_network(file).cfg.rows if x.name == "convolutional"]) - 3
    for data in (good[:-4], good + bytes(4)):
        bad.write_bytes(data)
        with pytest.raises(UserError, match="of another network than that of the cfg and the four of this project, or"):
            load_yolo_weights(model, bad)
    random_weights(Create_Yolo(32, "yolov3", True, 3), bad)
    with pytest.raises(UserError, match='is yolov3-tiny with 3 classes: set YOLO_CFG = None, YOLO_TYPE = "yolov3" and'):
        load_yolo_weights(model, bad)


# --- Everywhere else -------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(written, monkeypatch, tmp_path):
    """YOLO_CFG with weights beside it, and names of its three classes in the constant for a model of one's own."""
    file = written(cfgs.MIXED)
    (tmp_path / "three.names").write_text("a\nb\nc\n")
    for name, value in {
        "YOLO_CFG": str(file),
        "YOLO_CUSTOM_WEIGHTS": None,
        "TRAIN_CLASSES": str(tmp_path / "three.names"),
        "TRAIN_CHECKPOINTS_FOLDER": str(tmp_path / "checkpoints"),
        "YOLO_FRAMEWORK": "tf",
        "YOLO_SCORE_THRESHOLD": 0.1,
    }.items():
        monkeypatch.setattr(configs, name, value)
    return file


def picture():
    return (random_picture(80)[0] * 255).astype(np.uint8)


def assert_same_detections(ours, theirs, atol=1e-3):
    assert len(ours) == len(theirs) > 5
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=80 * atol)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=atol)
    np.testing.assert_array_equal(ours.classes, theirs.classes)


@pytest.mark.slow
def test_one_constant_names_the_network(configured, monkeypatch):
    detector = Load_Yolo_model()
    assert (detector.spec.name, detector.spec.input_size, detector.names) == ("mine", (96, 96), ("a", "b", "c"))
    assert Create_Yolo().output_shape == [(None, 12, 12, 8), (None, 6, 6, 32), (None, 3, 3, 16)]
    assert Create_Yolo(yolo_type="yolov3", tiny=True).name == "yolov3-tiny"
    assert Create_Yolo(64, CLASSES=1).output_shape[0] == (None, 8, 8, 6)
    configured.rename(configured.with_name("alone.cfg"))
    monkeypatch.setattr(configs, "YOLO_CFG", str(configured.with_name("alone.cfg")))
    with pytest.raises(UserError, match="does not fit .*alone.cfg: put its weights beside it as alone.weights"):
        Load_Yolo_model()
    configured.with_name("alone.cfg").rename(configured)
    monkeypatch.setattr(configs, "YOLO_CFG", None)  # beside the weights it need not be named
    by_weights = Load_Yolo_model(configured.with_suffix(".weights"))
    assert_same_detections(by_weights([picture()])[0], detector([picture()])[0], 0)


def test_a_checkpoint_folder_says_what_its_network_is(configured, tmp_path, monkeypatch):
    detector = Load_Yolo_model()
    spec = detector.spec
    model = Create_Yolo()
    load_yolo_weights(model, configured.with_suffix(".weights"))
    write_checkpoint(tmp_path / "checkpoints" / "kept", spec, get_arrays(model), "a test")
    configured.unlink()
    monkeypatch.setattr(configs, "YOLO_CFG", None)
    kept = Load_Yolo_model("kept", input_size=96)
    assert (kept.spec.name, kept.spec.heads, kept.spec.cfg) == (spec.name, spec.heads, spec.cfg)
    assert_same_detections(kept([picture()])[0], detector([picture()])[0], 0)

    cfg = tmp_path / "checkpoints" / "kept" / "network.cfg"
    whole = cfg.read_text()
    for spoilt, said in (
        (whole.replace("stride=2", "stride=two", 1), r"kept/network.cfg, section 0 .* stride=two must be a number"),
        (whole.replace("size=5", "size=3", 1), r"kept/weights.npz cannot be read .*does not belong to its model.json"),
        (whole.replace("mask=0", "mask=0,1").replace("filters=8\nsize=3", "filters=16\nsize=3"), "anchors is wrong"),
        (None, "kept/network.cfg is missing: write the checkpoint again"),
    ):
        cfg.write_text(spoilt) if spoilt else cfg.unlink()
        with pytest.raises(UserError, match=said):
            Load_Yolo_model("kept", input_size=96)


def test_a_checkpoint_with_other_anchors_and_classes_is_a_cfg_of_its_own(configured, tmp_path, monkeypatch):
    import Export_checkpoint

    network = read_network(configured)
    anchors = tuple(tuple((w * 2, h + 1) for w, h in head) for head in network.heads.anchors)
    heads = network.heads._replace(anchors=anchors)
    spec = ModelSpec("mine", False, ("x", "y"), (128, 128), "letterbox", heads, cfg=network.text)
    model = make_model(spec.network, 128, 2)
    load_yolo_weights(model, random_weights(model, tmp_path / "two.weights"))
    write_checkpoint(tmp_path / "two", spec, get_arrays(model), "a test")
    made = read_model(tmp_path / "two")
    assert (made.heads, made.network.heads, made.network.cfg.classes, made.network.cfg.size) == (
        heads,
        heads,
        2,
        (128, 128),
    )

    monkeypatch.setattr(sys, "argv", ["Export_checkpoint.py", str(tmp_path / "two"), str(tmp_path / "out.weights")])
    Export_checkpoint.main()
    assert (tmp_path / "out.weights").read_bytes() == (tmp_path / "two.weights").read_bytes()
    theirs, left = forward(
        (tmp_path / "out.cfg").read_text(), (tmp_path / "out.weights").read_bytes(), random_picture(128)[0]
    )
    ours = decode(model(random_picture(128)), heads)[0].numpy()
    assert left == 0
    np.testing.assert_allclose(centre_form(ours[:, :4]), in_head_order(tmp_path / "out.cfg", theirs)[:, :4], atol=1e-5)


def convert(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{script}.py"])
    importlib.import_module(script).main()


@pytest.mark.slow
def test_conversions_answer_the_same_and_carry_the_cfg(configured, monkeypatch, tmp_path):
    monkeypatch.setattr(configs, "YOLO_FEATURES", True)
    detector = Load_Yolo_model()
    convert("Convert_to_pb", monkeypatch)
    monkeypatch.setattr(configs, "YOLO_CALIBRATION_IMAGES", "IMAGES/digits")
    monkeypatch.setattr(configs, "YOLO_CALIBRATION_COUNT", 4)
    for mode in ("FP32", "INT8"):
        monkeypatch.setattr(configs, "YOLO_OPENVINO_QUANTIZE_MODE", mode)
        convert("Convert_to_OpenVINO", monkeypatch)
    (expected,) = detector([picture()])
    for folder in ("mine-96", "mine-openvino-FP32-96", "mine-openvino-INT8-96"):
        converted = Load_Yolo_model(folder, input_size=96)
        assert (converted.spec.name, converted.spec.network.heads) == ("mine", detector.spec.heads)
        (found,) = converted([picture()])
        if "INT8" not in folder:
            assert_same_detections(found, expected)
            np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-3)
        else:
            overlap = iou_matrix(found.boxes, expected.boxes).max(1)
            assert np.mean(overlap > 0.8) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one head", "new_coords"])
def test_heads_of_any_kind_survive_a_conversion(written, tmp_path, name):
    from yolov3.runtimes import openvino, tf

    weights = written(OWN[name]).with_suffix(".weights")
    names = tuple("ab"[: read_network(weights.with_suffix(".cfg")).cfg.classes])
    detector = Load_Yolo_model(weights, names, framework="tf", score_threshold=0.1)
    baked = {"score_threshold": 0.1, "iou_threshold": 0.45, "max_pixels": 10**8}
    tf.write(tmp_path / "saved", weights, detector.spec, baked)
    spec = dataclasses.replace(read_model(tmp_path / "saved"), framework="openvino")
    openvino.write(tmp_path / "openvino", tmp_path / "saved", spec)
    for folder in ("saved", "openvino"):
        found = Load_Yolo_model(tmp_path / folder, input_size=96, score_threshold=0.1)([picture()])[0]
        assert_same_detections(found, detector([picture()])[0])


def test_embeddings_are_made_of_the_last_layer_at_stride_4_or_else_8(written, monkeypatch):
    assert embedding_row(read_network(written(cfgs.MIXED)).cfg).number == 6
    assert embedding_row(read_network(written(cfgs.NEW_COORDS)).cfg).number == 1
    assert Create_Yolo(cfg=written(cfgs.MIXED), features=True).output_shape[-1] == (None, 6, 6, 4 * 64)
    head = cfgs.head(cfgs.ANCHORS, (0,), 1)
    eight = written(cfgs.cfg(cfgs.conv(8, 8, 8, pad=0), cfgs.conv(12), cfgs.conv(8, 2, 2, pad=0), head))
    assert embedding_row(read_network(eight).cfg).number == 1
    assert Create_Yolo(cfg=eight, features=True).output_shape[-1] == (None, 6, 6, 4 * 12)
    none = written(cfgs.cfg(cfgs.conv(8, 16, 16, pad=0), head))
    assert embedding_row(read_network(none).cfg) is None
    with pytest.raises(
        UserError, match='mine has no layer at stride 4 or 8, of which TRACKER_EMBEDDER = "detector" and'
    ):
        Load_Yolo_model(none.with_suffix(".weights"), ("a",), framework="tf", features=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_a_network_of_a_cfg_learns(written, name):
    """One picture, by heart: its two boxes are found, and nothing else."""
    network = read_network(written(OWN[name]))
    classes, steps = network.cfg.classes, 210
    truth = np.array([[[0.1, 0.1, 0.2, 0.25, 0], [0.3, 0.4, 0.7, 0.9, classes - 1], [0, 0, 0, 0, -1]]], np.float32)
    images = random_picture(96)
    schedule = Schedule(steps, 5, 0, 5e-3, 1e-4, 0.9)
    trainer = Trainer(*make_network(network, classes, (96, 96), "FP32", 0), network.heads, 1, schedule)
    trainer.begin()
    data = tf.data.Dataset.from_tensors((images, truth)).repeat()
    losses = trainer.fit(data, epochs=3, steps_per_epoch=steps // 3, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    predictions = decode(tf.nest.flatten(trainer.network(images)), network.heads)
    boxes, _, found, valid = (x.numpy()[0] for x in suppress(predictions, 0.3, 0.45, network.heads.nms))
    assert valid == 2
    overlap = iou_matrix(truth[0, :2, :4], boxes[:2])
    assert overlap.max(1).min() > 0.6
    assert found[overlap.argmax(1)].tolist() == truth[0, :2, 4].tolist()


def test_a_frozen_backbone_ends_where_the_cfg_stops_going_backward(configured, monkeypatch):
    from yolov3.training import configured as training

    monkeypatch.setattr(configs, "TRAIN_ANCHORS", None)
    monkeypatch.setattr(configs, "TRAIN_FREEZE_EPOCHS", 1)
    monkeypatch.setattr(configs, "TRAIN_INPUT_SIZE", 64)
    with pytest.raises(
        UserError, match="mine.cfg does not say which layers are the backbone: write stopbackward=1 into"
    ):
        training.configured_spec()
    configured.write_text(cfgs.MIXED.replace("[avgpool]", "[avgpool]\nstopbackward=1"))
    spec = training.configured_spec()
    assert (spec.name, spec.input_size, len(spec.classes), spec.network.backbone) == ("mine", (64, 64), 3, 5)
    monkeypatch.setattr(configs, "TRAIN_ANCHORS", (((1, 2), (3, 4)),) * 3)
    with pytest.raises(UserError, match=r"TRAIN_ANCHORS must be None or 3 heads of 1, 4, 2 \(width, height\) for mine"):
        training.configured_spec()


def test_the_cfg_beside_darknets_weights_gives_a_training_its_anchors_only_if_it_is_of_that_network(
    configured, monkeypatch
):
    monkeypatch.setattr(configs, "YOLO_CFG", None)
    monkeypatch.setattr(configs, "YOLO_V3_TINY_WEIGHTS", str(configured.with_suffix(".weights")))
    with pytest.raises(
        UserError, match="mine.cfg is not a cfg of yolov3-tiny: name it in YOLO_CFG to train the network"
    ):
        heads_to_train(NETWORKS["yolov3-tiny"], transfers=True)
    assert heads_to_train(NETWORKS["yolov3-tiny"], transfers=False) == NETWORKS["yolov3-tiny"].heads


def test_names_of_any_characters_name_a_network(written):
    file = written(cfgs.NEW_COORDS, "我的 network (2)")
    found = Load_Yolo_model(file.with_suffix(".weights"), ("a", "b"), framework="tf", features=True)
    assert found.spec.name == "我的 network (2)"


# --- tools/Describe_cfg.py -----------------------------------------------------------------------------------------


def test_a_cfg_is_described_and_whether_weights_fit_it(written, monkeypatch, capsys):
    import Describe_cfg

    file = written(cfgs.ONE_HEAD)
    monkeypatch.setattr(sys, "argv", ["Describe_cfg.py", str(file), str(file.with_suffix(".weights"))])
    Describe_cfg.main()
    said = capsys.readouterr().out.splitlines()
    # by hand: 2 * 9 * 3 * 12 * 48^2, 2 * 9 * 12 * 16 * 12^2 and 2 * 16 * 54 * 12^2 operations
    assert "mine: 5 layers, 3,082 parameters, 0.00 GFLOPs" in said
    assert [line.split()[1:8] for line in said[1:6]] == [
        ["convolutional", "48", "x", "48", "x", "12", "0.001"],
        ["maxpool", "24", "x", "24", "x", "12", "0.000"],
        ["convolutional", "12", "x", "12", "x", "16", "0.000"],
        ["convolutional", "12", "x", "12", "x", "54", "0.000"],
        ["yolo", "12", "x", "12", "x", "54", "0.000"],
    ]
    assert Describe_cfg.operations(read_network(file).cfg) == [1_492_992, 0, 497_664, 248_832, 0]
    assert "input: 96 x 96 pixels (height, width), or other multiples of 16" in said
    assert sum(line.startswith("head of 1 class at stride 8") for line in said) == 1
    assert said[-1] == f"{file.with_suffix('.weights')} fits"
    file.with_suffix(".weights").write_bytes(file.with_suffix(".weights").read_bytes()[:-4])
    with pytest.raises(SystemExit, match="error: weights file .* of another network than that of the cfg"):
        Describe_cfg.main()
