"""train.py as a person runs it, on a few small pictures: what it makes, how it goes on, what it refuses."""

import contextlib
import io
import re
import shutil
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import train
from yolov3 import configs
from yolov3.annotations.format import Record
from yolov3.boxes import decode
from yolov3.cfg.write import rewrite
from yolov3.checkpoint import ModelSpec, read_model, write_checkpoint
from yolov3.darknet import convolutions, get_arrays, load_arrays, save_yolo_weights
from yolov3.loading import Load_Yolo_model, custom_weights
from yolov3.training import callbacks
from yolov3.training.configured import Pictures, configured_pictures, configured_spec
from yolov3.training.presets import PRESETS, choose_anchors, resolve
from yolov3.training.progress import COLUMNS, read_results
from yolov3.training.trainer import Trainer
from yolov3.yolov4 import Create_Yolo

import cfgs
import cv2
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
    "TRAIN_PRESET": "scratch",
    "TRAIN_TRANSFER": False,
    "TRAIN_FROM_CHECKPOINT": None,
    "TRAIN_FREEZE_EPOCHS": 0,
    "TRAIN_INPUT_SIZE": 64,
    "TRAIN_MULTISCALE": None,
    "TRAIN_ANCHORS": None,
    "TRAIN_BATCH_SIZE": 4,
    "TRAIN_EPOCHS": 3,
    "TRAIN_LR_INIT": 1e-3,
    "TRAIN_FLIP": False,
    "TRAIN_PRECISION": "FP32",
    "TRAIN_BACKUP_SECONDS": 1e9,
    "TRAIN_PATIENCE": 0,
}


def configure(folder, patch):
    """Set configs.py to train on the pictures of a folder."""
    paths = {
        "TRAIN_CLASSES": "my.names",
        "TRAIN_ANNOT_PATH": "train.txt",
        "TRAIN_VAL_PATH": "test.txt",
        "TEST_ANNOT_PATH": "test.txt",
        "TRAIN_CHECKPOINTS_FOLDER": "checkpoints",
        "TRAIN_LOGDIR": "log",
    }
    for name, value in (CONSTANTS | {name: str(folder / path) for name, path in paths.items()}).items():
        patch.setattr(configs, name, value)
    patch.setattr(sys, "argv", ["train.py"])


def draw(folder):
    """Draw eight pictures with a red or a green box each, and write all else that a training reads."""
    lines = draw_red_and_green(folder)
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join(lines[:2]))
    (folder / "my.names").write_text("red\ngreen\n")
    (folder / "small.cfg").write_text(cfgs.SMALL)


def make_small(folder, patch):
    """Train a network in little, where it does not matter which: `mine`, not `mine_Tiny`."""

    class EagerTrainer(Trainer):  # a few steps take less than tracing
        def prepare(self):
            super().prepare()
            self.run_eagerly = True

    patch.setattr(train, "Trainer", EagerTrainer)
    patch.setattr(configs, "YOLO_CFG", str(folder / "small.cfg"))


@pytest.fixture
def handlers():
    """Put the handlers of signals back that a training sets."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture
def undrawn(monkeypatch):
    """Draw nothing, and measure nothing in the end: test_a_folder_for_each_training looks at that."""
    for drawing in ("draw_beginning", "draw_end"):
        monkeypatch.setattr(train, drawing, lambda *_: None)


@pytest.fixture
def folder(tmp_path, monkeypatch, handlers):
    """A folder of eight pictures, and configs.py set to train on them."""
    draw(tmp_path)
    configure(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def small(folder, undrawn, monkeypatch):
    """The same with a small network; which pictures are tested on does not matter either."""
    make_small(folder, monkeypatch)
    monkeypatch.setattr(configs, "TEST_ANNOT_PATH", None)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small network trained for three epochs, into which nobody writes: its folder, and what was printed."""
    folder, out = tmp_path_factory.mktemp("finished"), io.StringIO()
    draw(folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        configure(folder, patch)
        make_small(folder, patch)
        before = signal.getsignal(signal.SIGTERM)
        train.main()
        signal.signal(signal.SIGTERM, before)
    return folder, out.getvalue()


@pytest.fixture
def trained(small, finished, monkeypatch):
    """A copy of that training, to go on with."""
    for part in ("checkpoints", "log"):
        shutil.copytree(finished[0] / part, small / part)
    configure(finished[0], monkeypatch)  # its backup is of these files
    make_small(finished[0], monkeypatch)
    monkeypatch.setattr(configs, "TRAIN_CHECKPOINTS_FOLDER", str(small / "checkpoints"))
    monkeypatch.setattr(configs, "TRAIN_LOGDIR", str(small / "log"))
    return small


def error_of_training():
    with pytest.raises(SystemExit) as exit:
        train.main()
    return str(exit.value)


# --- What it makes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trained_checkpoint_is_usable_at_once_and_as_darknet_weights_in_opencv(
    folder, undrawn, monkeypatch, capsys, shared
):
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    train.main()
    out = capsys.readouterr().out
    assert "8 pictures to train on, 2 to choose the best epoch by, 2 to measure the result on" in out
    assert re.search(r"mine_Tiny: AP \d+\.\d on the 2 pictures that chose the best epoch", out)
    assert "python detection_custom.py uses it" in out
    made = folder / "checkpoints" / "mine_Tiny"
    model = read_model(made)
    assert (model.name, model.classes, model.input_size) == ("yolov4-tiny", ("red", "green"), (64, 64))
    assert read_model(folder / "checkpoints" / "mine_Tiny_last") == model
    assert [x.name for x in (folder / "checkpoints").glob("*backup*")] == ["mine_Tiny_backup.npz"]
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
def test_it_begins_with_a_checkpoint_or_with_darknet_weights(small, monkeypatch):
    """With a learning rate of nothing the result is what it began with."""
    monkeypatch.setattr(configs, "TRAIN_LR_INIT", 0.0)
    monkeypatch.setattr(configs, "TRAIN_LR_END", 0.0)
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    model = replace(configured_spec(), classes=("a", "b"))
    source = Create_Yolo(64, CLASSES=2)
    first = [array.copy() for array in get_arrays(source)]
    write_checkpoint(small / "start", model, first, "a test")
    save_yolo_weights(source, small / "start.weights")
    for constants in (
        {"TRAIN_FROM_CHECKPOINT": str(small / "start")},
        {"TRAIN_FROM_CHECKPOINT": None, "TRAIN_TRANSFER": True, "YOLO_V4_TINY_WEIGHTS": str(small / "start.weights")},
    ):
        for name, value in constants.items():
            monkeypatch.setattr(configs, name, value)
        monkeypatch.setattr(sys, "argv", ["train.py", "--overwrite"])
        train.main()
        for mine, theirs in zip(stored_arrays(small / "checkpoints" / "mine_last"), first, strict=True):
            if mine.ndim == 4:  # the statistics of batch normalisation do move
                np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.slow
def test_it_begins_with_a_partial_file_and_the_anchors_of_its_cfg(small, monkeypatch, capsys):
    """The first three convolutions, as Darknet's `partial` makes them of weights of any number of classes."""
    heads = configured_spec().heads
    heads = heads._replace(anchors=tuple(tuple((w + 1, h + 2) for w, h in anchors) for anchors in heads.anchors))
    source = Create_Yolo(64, CLASSES=20)
    whole = random_weights(source, small / "whole.weights").read_bytes()
    size = 20 + 4 * sum(conv.count_params() + norm.count_params() for conv, norm in convolutions(source)[:3])
    (small / "small.conv.3").write_bytes(whole[:size])
    (small / "any.cfg").write_text(rewrite(configured_spec().network.cfg, heads, 20, (416, 416)))
    for name, value in {
        "TRAIN_TRANSFER": True,
        "YOLO_V4_TINY_WEIGHTS": str(small / "small.conv.3"),
        "YOLO_CFG": str(small / "any.cfg"),
        "TRAIN_EPOCHS": 1,
    }.items():
        monkeypatch.setattr(configs, name, value)
    assert configured_spec().input_size == (64, 64)  # TRAIN_INPUT_SIZE, whatever the cfg says
    train.main()
    assert f"TRAIN_TRANSFER: 3 of 6 convolutions begin with {small}/small.conv.3" in capsys.readouterr().out
    made = read_model(small / "checkpoints" / "mine")
    assert (made.name, made.heads, made.network.cfg.classes) == ("any", heads, 2)
    monkeypatch.setattr(configs, "TRAIN_ANCHORS", heads.anchors[::-1])
    assert configured_spec().heads.anchors == heads.anchors[::-1]


@pytest.mark.slow
def test_one_picture_will_do_for_batches_of_sixteen_and_a_frozen_backbone_thaws_at_two_sizes(small, monkeypatch):
    lines = (small / "train.txt").read_text().split("\n")
    (small / "train.txt").write_text(lines[0])
    monkeypatch.setattr(configs, "TRAIN_BATCH_SIZE", 16)
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 2)
    monkeypatch.setattr(configs, "TRAIN_FREEZE_EPOCHS", 1)
    monkeypatch.setattr(configs, "TRAIN_MULTISCALE", (96,))
    train.main()
    assert (small / "checkpoints" / "mine").is_dir()


@pytest.mark.slow
def test_a_seeded_part_of_the_pictures_chooses_the_best_epoch(folder, monkeypatch):
    monkeypatch.setattr(configs, "TRAIN_VAL_PATH", None)
    monkeypatch.setattr(configs, "TRAIN_VAL_SPLIT", 0.25)
    parts = [configured_pictures(2) for _ in range(2)]
    training, validated, tested = ([record.picture.name for record in part.records] for part in parts[0])
    assert [[record.picture.name for record in part.records] for part in parts[1]] == [training, validated, tested]
    assert (len(training), len(validated), tested) == (6, 2, ["0.png", "1.png"]) and not set(training) & set(validated)
    monkeypatch.setattr(configs, "TRAIN_SEED", 1)
    assert [record.picture.name for record in configured_pictures(2)[1].records] != validated
    monkeypatch.setattr(configs, "TEST_ANNOT_PATH", None)
    assert configured_pictures(2)[2] is None


def test_a_folder_for_each_training(finished):
    log, out = finished[0] / "log" / "mine", finished[1]
    drawn = {"data.png", "results.png", "precision_recall.png", "by_score.png", "confusion_matrix.png"}
    drawn |= {"truth_and_found.jpg", *(f"training_batch_{i}.jpg" for i in (1, 2, 3))}
    assert {x.name for x in log.iterdir() if "tfevents" not in x.name} == drawn | {"results.csv", "settings.py"}
    assert all(min(cv2.imread(str(log / name)).shape[:2]) > 300 for name in drawn)
    rows = read_results(log / "results.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3] and set(rows[0]) == set(COLUMNS)
    assert all(row["loss"] == pytest.approx(row["box"] + row["objectness"] + row["class"], rel=1e-4) for row in rows)
    assert all(0 <= row["AP"] <= row["AP50"] <= 100 and row["val_loss"] > 0 for row in rows)

    assert "mine: small, 2 classes (red, green), tf FP32, 64 letterbox\n" in out
    assert out.index("compiling the training step") < out.index("epoch 1 of 3: loss ")
    first, _, last = re.findall(r"epoch \d of 3: loss \d+\.\d\d per object, .*, AP50 \d+\.\d, AP \d+\.\d.*", out)
    assert first.endswith(" left") and not last.endswith(" left")
    assert re.search(r"mine: AP \d+\.\d on the 2 pictures that chose the best epoch", out)
    assert re.search(r"AP50 \d+\.\d, AP \d+\.\d on the 2 pictures of .*test.txt, which chose nothing", out)


@pytest.mark.slow
def test_presets_are_values_for_the_pictures_at_hand(folder, monkeypatch):
    pictures = configured_pictures(2)[0]
    for name in ("TRANSFER", "FLIP", "EPOCHS", "LR_INIT", "ANCHORS", "BATCH_SIZE"):
        monkeypatch.setattr(configs, f"TRAIN_{name}", "AUTO")
    for constant in ("TRAIN_EPOCHS", "TRAIN_FLIP"):  # what a person has set stays
        monkeypatch.setattr(configs, constant, {"TRAIN_EPOCHS": 7, "TRAIN_FLIP": False}[constant])
    said = resolve(PRESETS["photographs"], pictures, 2)
    assert said.endswith(": TRAIN_TRANSFER = True, TRAIN_LR_INIT = 0.001, TRAIN_BATCH_SIZE = 4, TRAIN_ANCHORS = None")
    assert (configs.TRAIN_TRANSFER, configs.TRAIN_FLIP, configs.TRAIN_EPOCHS) == (True, False, 7)
    for constant in ("TRAIN_EPOCHS", "TRAIN_LR_INIT"):  # a few pictures of classes that the weights know
        monkeypatch.setattr(configs, constant, "AUTO")
    assert resolve(PRESETS["photographs"], pictures, 80).endswith(": TRAIN_EPOCHS = 15, TRAIN_LR_INIT = 0.0001")

    photographs, scratch = PRESETS["photographs"], PRESETS["scratch"]
    assert [photographs.epochs_for(count) for count in (10, 75, 300, 1200, 10**6)] == [100, 60, 30, 15, 15]
    assert [scratch.epochs_for(count) for count in (1, 1000, 4000)] == [200, 40, 20]
    assert [photographs.batch_size_for(count, 1) for count in (10, 300, 1100, 2200, 10**6)] == [4, 4, 8, 16, 16]
    assert [scratch.batch_size_for(count, 1) for count in (100, 4000)] == [4, 16]
    assert [photographs.batch_size_for(300, devices) for devices in (2, 3, 8)] == [4, 6, 8]
    monkeypatch.setattr(configs, "TRAIN_PRESET", "digits")
    assert "TRAIN_PRESET = 'digits' is not known: choose one of 'photographs', 'scratch'" in error_of_training()


def test_anchors_are_fitted_where_the_published_ones_fit_badly_and_no_head_is_taken_over(folder, monkeypatch):
    monkeypatch.setattr(configs, "TRAIN_ANCHORS", "AUTO")
    monkeypatch.setattr(configs, "TRAIN_TRANSFER", True)
    rng = np.random.default_rng(0)

    def pictures(sides):
        boxes = np.concatenate([np.zeros((len(sides), 2)), sides], 1).astype(np.float32)
        record = Record(folder / "0.png", boxes, np.zeros(len(boxes), np.int32))
        return Pictures([record], [(64, 64)])

    small = pictures(rng.integers(2, 8, (60, 2)))  # of which YOLOv4-tiny's smallest anchor is the fourfold
    fitted = choose_anchors(small, 2, always_fit=False)
    assert np.shape(fitted) == (2, 3, 2) and np.max(fitted) < 8
    alike = pictures(rng.integers(20, 60, (60, 2)))
    assert choose_anchors(alike, 2, always_fit=False) is None
    assert np.shape(choose_anchors(alike, 2, always_fit=True)) == (2, 3, 2)
    assert choose_anchors(pictures(np.full((9, 2), 3)), 2, always_fit=True) is None  # one size
    (folder / "coco.names").write_text("a\nb\n")
    monkeypatch.setattr(configs, "YOLO_COCO_CLASSES", str(folder / "coco.names"))
    assert choose_anchors(small, 2, always_fit=False) is None  # the heads of the weights are of these classes


# --- How it goes on --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stopped_twice_it_ends_as_if_it_had_not_been(small, finished, monkeypatch, capsys):
    class CtrlC(keras.callbacks.Callback):
        """After the first and after the fourth of six steps; an epoch has two."""

        def on_train_batch_end(self, batch, logs=None):
            if self.model.steps_done in (1, 4) and self.model.steps_done not in stopped:
                stopped.append(self.model.steps_done)
                raise KeyboardInterrupt

    stopped = []
    monkeypatch.setattr(train, "TerminateOnNaN", CtrlC)
    for step in (1, 4):
        assert error_of_training() == f"stopped at step {step}: the same command goes on from there"
    capsys.readouterr()
    train.main()
    assert "going on at step 4 of 6" in capsys.readouterr().out
    ours, whole = (stored_arrays(place / "checkpoints" / "mine_last") for place in (small, finished[0]))
    for mine, expected in zip(ours, whole, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_stopped_while_it_was_measured_it_is_measured_when_it_goes_on(small, monkeypatch):
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    evaluate = callbacks.evaluate

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "evaluate", interrupted)
    assert "stopped at step 2" in error_of_training()
    assert not (small / "checkpoints" / "mine").exists()
    monkeypatch.setattr(callbacks, "evaluate", evaluate)
    train.main()
    assert (small / "checkpoints" / "mine").is_dir()


@pytest.mark.slow
def test_a_folder_that_is_no_checkpoint_is_not_replaced(small, monkeypatch):
    (small / "checkpoints" / "mine").mkdir(parents=True)
    (small / "checkpoints" / "mine" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 1)
    monkeypatch.setattr(sys, "argv", ["train.py", "--overwrite"])
    assert re.match("error: .*mine is not a checkpoint, so it is not replaced", error_of_training())
    assert (small / "checkpoints" / "mine" / "thesis.txt").exists()


def test_a_finished_training_is_not_lost_to_another(small, monkeypatch):
    made = small / "checkpoints" / "mine"
    made.mkdir(parents=True)
    assert re.match(r"error: .*mine is there already, without the backup .*: give --overwrite", error_of_training())
    assert not list(made.iterdir())


def rows_of(small):
    return read_results(small / "log" / "mine" / "results.csv")


@pytest.mark.slow
def test_a_training_goes_on_for_more_epochs_after_its_end(trained, monkeypatch, capsys):
    before = rows_of(trained)
    assert "mine is trained: raise TRAIN_EPOCHS, from 3, to go on with it" in error_of_training()
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 4)
    capsys.readouterr()
    train.main()
    out = capsys.readouterr().out
    assert "going on at step 6 of 8" in out and "epoch 4 of 4: " in out and "epoch 3 of 4: " not in out
    assert rows_of(trained)[:3] == before and [row["epoch"] for row in rows_of(trained)] == [1, 2, 3, 4]
    monkeypatch.setattr(configs, "TRAIN_EPOCHS", 3)
    assert "has done 8 steps, but TRAIN_EPOCHS makes 6: raise it to go on" in error_of_training()


@pytest.mark.slow
def test_a_training_that_ended_early_goes_on_with_more_patience(small, monkeypatch, capsys):
    monkeypatch.setattr(callbacks, "evaluate", lambda *_, **__: SimpleNamespace(AP50=0.5, AP=0.25))
    monkeypatch.setattr(configs, "TRAIN_PATIENCE", 1)
    train.main()
    assert "AP has not risen for 1 epochs: training ends" in capsys.readouterr().out
    assert [row["AP50"] for row in rows_of(small)] == [50, 50]
    assert "raise TRAIN_PATIENCE, from 1, to go on" in error_of_training()
    monkeypatch.setattr(configs, "TRAIN_PATIENCE", 9)
    train.main()
    assert len(rows_of(small)) == 3


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TRAIN_EPOCHS", 0, "TRAIN_EPOCHS = 0 must be a whole number, 1 or more"),
        ("TRAIN_BATCH_SIZE", 2.5, "TRAIN_BATCH_SIZE = 2.5 must be a whole number"),
        ("TRAIN_LR_INIT", "fast", "TRAIN_LR_INIT = 'fast' must be a number or 'AUTO'"),
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
