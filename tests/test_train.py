"""train.py as a person runs it, on a few small pictures: what it makes, how it goes on, what it refuses."""

import re
import signal
import sys

import train
from yolov3 import configs
from yolov3.boxes import decode
from yolov3.cfg.write import cfg_text
from yolov3.checkpoint import ModelSpec, read_model, write_checkpoint
from yolov3.darknet import get_arrays, load_arrays, save_yolo_weights
from yolov3.loading import Load_Yolo_model, custom_weights
from yolov3.training import callbacks
from yolov3.training.configured import configured_pictures, configured_spec
from yolov3.training.trainer import Trainer
from yolov3.yolov4 import Create_Yolo

import cfgs
import keras
import numpy as np
import pytest
from conftest import draw_red_and_green
from oracle import centre_form, importer, importer_answers, random_weights, stored_arrays

CONSTANTS = {
    "YOLO_TYPE": "yolov4",
    "TRAIN_YOLO_TINY": True,
    "YOLO_INPUT_SIZE": 64,
    "YOLO_ANCHORS": None,
    "TRAIN_MODEL_NAME": "mine",
    "TRAIN_TRANSFER": False,
    "TRAIN_FROM_CHECKPOINT": None,
    "TRAIN_FREEZE_EPOCHS": 0,
    "TRAIN_INPUT_SIZE": 64,
    "TRAIN_MULTISCALE": None,
    "TRAIN_ANCHORS": None,
    "TRAIN_BATCH_SIZE": 4,
    "TRAIN_EPOCHS": 3,
    "TRAIN_PRECISION": "FP32",
    "TRAIN_BACKUP_SECONDS": 1e9,
    "TRAIN_PATIENCE": 0,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight pictures with a red or a green box each, and configs.py set to train on them."""
    lines = draw_red_and_green(tmp_path)
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "test.txt").write_text("\n".join(lines[:2]))
    (tmp_path / "my.names").write_text("red\ngreen\n")
    paths = {
        "TRAIN_CLASSES": "my.names",
        "TRAIN_ANNOT_PATH": "train.txt",
        "TRAIN_VAL_PATH": "test.txt",
        "TEST_ANNOT_PATH": "test.txt",
        "TRAIN_CHECKPOINTS_FOLDER": "checkpoints",
        "TRAIN_LOGDIR": "log",
    }
    for name, value in (CONSTANTS | {name: str(tmp_path / path) for name, path in paths.items()}).items():
        monkeypatch.setattr(configs, name, value)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield tmp_path
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture
def eager(monkeypatch):
    """A few steps take less than tracing."""

    class EagerTrainer(Trainer):
        def prepare(self):
            super().prepare()
            self.run_eagerly = True

    monkeypatch.setattr(train, "Trainer", EagerTrainer)


@pytest.fixture
def small(folder, eager, monkeypatch):
    """A network in little, for what does not depend on the network."""
    (folder / "small.cfg").write_text(cfgs.SMALL)
    monkeypatch.setattr(configs, "YOLO_CFG", str(folder / "small.cfg"))


def error_of_training():
    with pytest.raises(SystemExit) as exit:
        train.main()
    return str(exit.value)


# --- What it makes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trained_checkpoint_is_usable_at_once_and_as_darknet_weights_in_opencv(folder, capsys, shared):
    train.main()
    out = capsys.readouterr().out
    assert "8 pictures to train on, 2 to choose the best epoch by, 2 to measure the result on" in out
    assert re.search(r"mine_Tiny: AP50 \d+\.\d; python detection_custom.py uses", out)
    made = folder / "checkpoints" / "mine_Tiny"
    model = read_model(made)
    assert (model.name, model.classes, model.input_size) == ("yolov4-tiny", ("red", "green"), (64, 64))
    assert read_model(folder / "checkpoints" / "mine_Tiny_last") == model
    assert not list((folder / "checkpoints").glob("*backup*"))
    assert custom_weights() == made
    detector = Load_Yolo_model(custom_weights())
    assert detector.names == ("red", "green")

    network = Create_Yolo(64, "yolov4", True, 2)
    load_arrays(network, stored_arrays(made), made)
    save_yolo_weights(network, folder / "mine.weights")
    cfg = (shared / "darknet" / "yolov4-tiny.cfg").read_text().replace("classes=80", "classes=2")
    (folder / "mine.cfg").write_text(cfg.replace("filters=255", "filters=21"))
    picture = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    _, theirs = importer_answers(importer(folder / "mine.cfg", folder / "mine.weights", 64), picture)
    mine = decode(network(picture), model.heads)[0].numpy()
    np.testing.assert_allclose(centre_form(mine[:, :4]), theirs[:, :4], atol=1e-4)
    np.testing.assert_allclose(mine[:, 4:], theirs[:, 5:], atol=1e-4)


@pytest.mark.slow
def test_it_begins_with_a_checkpoint_or_with_darknet_weights(folder, eager, monkeypatch):
    """With a learning rate of nothing the result is what it began with."""
    monkeypatch.setattr(configs, "TRAIN_LR_INIT", 0.0)
    monkeypatch.setattr(configs, "TRAIN_LR_END", 0.0)
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    source = Create_Yolo(64, "yolov4", True, 2)
    first = [array.copy() for array in get_arrays(source)]
    model = ModelSpec("yolov4", True, ("a", "b"), (64, 64), "letterbox", configured_spec().heads)
    write_checkpoint(folder / "start", model, first, "a test")
    save_yolo_weights(source, folder / "start.weights")
    for constants in (
        {"TRAIN_FROM_CHECKPOINT": str(folder / "start")},
        {"TRAIN_FROM_CHECKPOINT": None, "TRAIN_TRANSFER": True, "YOLO_V4_TINY_WEIGHTS": str(folder / "start.weights")},
    ):
        for name, value in constants.items():
            monkeypatch.setattr(configs, name, value)
        monkeypatch.setattr(sys, "argv", ["train.py", "--overwrite"])
        train.main()
        for mine, theirs in zip(stored_arrays(folder / "checkpoints" / "mine_Tiny_last"), first, strict=True):
            if mine.ndim == 4:  # the statistics of batch normalisation do move
                np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.slow
def test_it_begins_with_a_partial_file_and_the_anchors_of_its_cfg(folder, eager, monkeypatch, capsys):
    """yolov4-tiny.conv.29, as Darknet's `partial` makes it of weights of any number of classes."""
    whole = random_weights(Create_Yolo(64, "yolov4", True, 20), folder / "whole.weights").read_bytes()
    (folder / "yolov4-tiny.conv.29").write_bytes(whole[:19_789_716])
    heads = configured_spec().heads._replace(anchors=(((1, 2), (3, 4), (5, 6)), ((7, 8), (9, 10), (11, 12))))
    (folder / "any.cfg").write_text(cfg_text(Create_Yolo(64, "yolov4", True, 20), heads, 20, (416, 416)))
    for name, value in {
        "TRAIN_TRANSFER": True,
        "YOLO_V4_TINY_WEIGHTS": str(folder / "yolov4-tiny.conv.29"),
        "YOLO_CFG": str(folder / "any.cfg"),
        "TRAIN_EPOCHS": 1,
    }.items():
        monkeypatch.setattr(configs, name, value)
    assert configured_spec().input_size == (64, 64)  # TRAIN_INPUT_SIZE, whatever the cfg says
    train.main()
    assert f"TRAIN_TRANSFER: 17 of 21 convolutions begin with {folder}/yolov4-tiny.conv.29" in capsys.readouterr().out
    made = read_model(folder / "checkpoints" / "mine")
    assert (made.name, made.heads, made.network.cfg.classes) == ("any", heads, 2)
    monkeypatch.setattr(configs, "TRAIN_ANCHORS", heads.anchors[::-1])
    assert configured_spec().heads.anchors == heads.anchors[::-1]


@pytest.mark.slow
def test_a_frozen_backbone_thaws_after_its_epochs(folder, small, monkeypatch):
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 2)
    monkeypatch.setattr(configs, "TRAIN_FREEZE_EPOCHS", 1)
    train.main()
    assert (folder / "checkpoints" / "mine").is_dir()


@pytest.mark.slow
def test_a_data_set_of_one_picture_will_do_for_batches_of_sixteen(folder, small, monkeypatch):
    lines = (folder / "train.txt").read_text().split("\n")
    (folder / "train.txt").write_text(lines[0])
    monkeypatch.setattr(configs, "TRAIN_BATCH_SIZE", 16)
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    train.main()
    assert (folder / "checkpoints" / "mine").is_dir()


@pytest.mark.slow
def test_a_seeded_part_of_the_pictures_chooses_the_best_epoch_at_two_sizes(folder, small, monkeypatch, capsys):
    monkeypatch.setattr(configs, "TRAIN_VAL_PATH", None)
    monkeypatch.setattr(configs, "TRAIN_VAL_SPLIT", 0.25)
    monkeypatch.setattr(configs, "TRAIN_MULTISCALE", (96,))
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    parts = [configured_pictures(2) for _ in range(2)]
    training, validated, tested = ([record.picture.name for record in part.records] for part in parts[0])
    assert [[record.picture.name for record in part.records] for part in parts[1]] == [training, validated, tested]
    assert (len(training), len(validated), tested) == (6, 2, ["0.png", "1.png"]) and not set(training) & set(validated)
    monkeypatch.setattr(configs, "TRAIN_SEED", 1)
    assert [record.picture.name for record in configured_pictures(2)[1].records] != validated
    train.main()
    out = capsys.readouterr().out
    assert "6 pictures to train on, 2 to choose the best epoch by, 2 to measure the result on" in out
    assert re.search(r"AP50 \d+\.\d, AP \d+\.\d on the 2 pictures of .*test.txt, which chose nothing", out)
    monkeypatch.setattr(configs, "TEST_ANNOT_PATH", None)
    assert configured_pictures(2)[2] is None


# --- How it goes on --------------------------------------------------------------------------------------------------


def test_stopped_twice_it_ends_as_if_it_had_not_been(folder, small, monkeypatch, capsys):
    train.main()
    whole = stored_arrays(folder / "checkpoints" / "mine_last")

    class CtrlC(keras.callbacks.Callback):
        """After the first and after the fourth of six steps; an epoch has two."""

        def on_train_batch_end(self, batch, logs=None):
            if self.model.steps_done in (1, 4) and self.model.steps_done not in stopped:
                stopped.append(self.model.steps_done)
                raise KeyboardInterrupt

    stopped = []
    monkeypatch.setattr(configs, "TRAIN_MODEL_NAME", "stopped")
    monkeypatch.setattr(train, "TerminateOnNaN", CtrlC)
    for step in (1, 4):
        assert error_of_training() == f"stopped at step {step}: the same command goes on from there"
    capsys.readouterr()
    train.main()
    assert "going on at step 4 of 6" in capsys.readouterr().out
    for mine, expected in zip(stored_arrays(folder / "checkpoints" / "stopped_last"), whole, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_stopped_while_it_was_measured_it_is_measured_when_it_goes_on(folder, small, monkeypatch):
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    evaluate = callbacks.evaluate

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "evaluate", interrupted)
    assert "stopped at step 2" in error_of_training()
    assert not (folder / "checkpoints" / "mine").exists()
    monkeypatch.setattr(callbacks, "evaluate", evaluate)
    train.main()
    assert (folder / "checkpoints" / "mine").is_dir()


@pytest.mark.slow
def test_a_folder_that_is_no_checkpoint_is_not_replaced(folder, small, monkeypatch):
    (folder / "checkpoints" / "mine").mkdir(parents=True)
    (folder / "checkpoints" / "mine" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    monkeypatch.setattr(sys, "argv", ["train.py", "--overwrite"])
    assert re.match("error: .*mine is not a checkpoint, so it is not replaced", error_of_training())
    assert (folder / "checkpoints" / "mine" / "thesis.txt").exists()


def test_a_finished_training_is_not_lost_to_another(folder, small, monkeypatch):
    made = folder / "checkpoints" / "mine"
    made.mkdir(parents=True)
    assert re.match(r"error: .*mine is there already: give --overwrite", error_of_training())
    assert not list(made.iterdir())


# --- What it refuses -------------------------------------------------------------------------------------------------


def break_pictures(folder, pattern="*.png"):
    for path in folder.glob(pattern):
        path.write_bytes(path.read_bytes()[:-40])


REFUSED = {
    "missing": (lambda f: (f / "train.txt").unlink(), "annotation file .*train.txt is missing"),
    "empty": (lambda f: (f / "train.txt").write_text("\n"), "annotation file .*train.txt is empty"),
    "no test pictures": (lambda f: (f / "test.txt").write_text(""), "annotation file .*test.txt is empty"),
    "classes beyond the names": (lambda f: (f / "my.names").write_text("red\n") and drop_red(f), "has no box that can"),
    "all pictures broken": (break_pictures, "none of the pictures to train on can be read"),
    "all pictures gone": (lambda f: [x.unlink() for x in f.glob("*.png")], "has no picture that can be used"),
    "not a number": (lambda f: (f / "train.txt").write_text("0.png nan,1,20,20,0"), "has no box that can be used"),
}


def drop_red(folder):
    lines = (folder / "train.txt").read_text().split("\n")
    (folder / "train.txt").write_text("\n".join(line for line in lines if line.endswith(",1")))


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_unusable_data_is_one_line(spoil, message, folder):
    spoil(folder)
    error = error_of_training()
    assert re.match(f"error: .*{message}", error) and "\n" not in error
    assert not list((folder / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_checkpoint_of_another_network_or_class_count_is_no_beginning(folder, monkeypatch):
    heads = configured_spec().heads
    for made, said in (
        (
            ModelSpec("yolov4", True, ("a",), (64, 64), "letterbox", heads),
            "yolov4-tiny with 1 classes, not yolov4-tiny with 2",
        ),
        (
            ModelSpec("yolov3", True, ("a", "b"), (64, 64), "letterbox", heads),
            "yolov3-tiny with 2 classes, not yolov4-tiny with 2",
        ),
    ):
        write_checkpoint(folder / "other", made, [], "a test")
        monkeypatch.setattr(configs, "TRAIN_FROM_CHECKPOINT", str(folder / "other"))
        assert re.match(f"error: TRAIN_FROM_CHECKPOINT: .*other is {said}", error_of_training())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TRAIN_EPOCHS", 0, "TRAIN_EPOCHS = 0 must be a whole number, 1 or more"),
        ("TRAIN_BATCH_SIZE", 2.5, "TRAIN_BATCH_SIZE = 2.5 must be a whole number"),
        ("TRAIN_LR_INIT", "fast", "TRAIN_LR_INIT = 'fast' must be a number from 0 to 1"),
        ("TRAIN_INPUT_SIZE", 100, "100: make it a multiple of 32"),
        ("TRAIN_MULTISCALE", (100,), "100: make it a multiple of 32"),
        ("TRAIN_MULTISCALE", 320, "TRAIN_MULTISCALE = 320 must be None or several sizes"),
        ("TRAIN_VAL_SPLIT", 1.5, "TRAIN_VAL_SPLIT = 1.5 must be a number from 0 to 1"),
        ("TRAIN_VAL_PATH", "nowhere.txt", "nowhere.txt is missing"),
        ("TRAIN_WARMUP_EPOCHS", -1, "TRAIN_WARMUP_EPOCHS = -1 must be a number, 0 or more"),
        ("TRAIN_FLIP", "yes", "TRAIN_FLIP = 'yes' is not known"),
        ("TRAIN_MODEL_NAME", "", "TRAIN_MODEL_NAME = '' cannot name a folder"),
        ("TRAIN_LOGDIR", __file__, "cannot be written"),
        ("TRAIN_CHECKPOINTS_FOLDER", __file__, "cannot be written"),
        ("TRAIN_SEED", None, "TRAIN_SEED = None must be a whole number"),
        ("TRAIN_ANCHORS", ((1, 2),), "TRAIN_ANCHORS must be None or 2 heads of 3"),
        ("TRAIN_PRECISION", "INT8", "TRAIN_PRECISION = 'INT8' is not known"),
        ("TRAIN_CLASSES", "nowhere.names", "class names file nowhere.names is missing"),
    ],
)
def test_a_wrong_constant_is_one_line(name, value, message, folder, monkeypatch):
    monkeypatch.setattr(configs, name, value)
    error = error_of_training()
    assert error.startswith("error: ") and message in error and "\n" not in error
