"""A training: its schedule, its steps, what it keeps, and that it goes on where it was interrupted."""

import functools
import io
import json
import resource
import shutil
import types
import zipfile
from pathlib import Path

from yolov3.annotations.format import check_annotations
from yolov3.cfg.network import network_of
from yolov3.checkpoint import ModelSpec, read_model
from yolov3.checks import UserError
from yolov3.darknet import convolutions, get_arrays, load_arrays, save_yolo_weights, transfer_yolo_weights
from yolov3.dataset import training_batches
from yolov3.detector import Detector
from yolov3.loading import Load_Yolo_model
from yolov3.networks import NETWORKS
from yolov3.training import backup as backup_module
from yolov3.training import callbacks
from yolov3.training.augment import AUGMENTED, PLAIN
from yolov3.training.backup import Backup
from yolov3.training.callbacks import (
    EpochMeans,
    Keep,
    TensorBoard,
    TerminateOnNaN,
    Validation,
    averaged_losses,
    averaged_network,
)
from yolov3.training.loss import count_objects, yolo_loss
from yolov3.training.trainer import Schedule, Trainer, make_network, training_precision
from yolov3.yolov4 import Create_Yolo

import cfgs
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import draw_red_and_green
from oracle import stored_arrays

SIZE, BATCH, STEPS = 64, 4, 6
NETWORK = network_of(cfgs.SMALL, Path("small.cfg"), "small")
MODEL = ModelSpec("small", False, ("red", "green"), (SIZE, SIZE), "letterbox", NETWORK.heads, cfg=cfgs.SMALL)
SCHEDULE = Schedule(steps=STEPS, warm_up=2, freeze=0, lr_init=1e-3, lr_end=1e-4, ema=0.9, backbone=NETWORK.backbone)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Eight pictures with a red or a green box."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "annotations.txt").write_text("\n".join(draw_red_and_green(folder)))
    return check_annotations(folder / "annotations.txt", 2, 10**6)


@pytest.fixture(scope="module")
def batches(checked):
    """The first batches of a training, drawn once."""
    batches = training_batches(checked.records, (SIZE,), BATCH, "letterbox", AUGMENTED, seed=5).take(STEPS).cache()
    assert len(list(batches)) == STEPS  # read to the end, they are kept
    return batches


def make_trainer(schedule=SCHEDULE, precision="FP32", size=(SIZE, SIZE), network=NETWORK):
    parts = make_network(network, 2, size, precision, seed=3)
    return Trainer(*parts, network.heads, BATCH, schedule)


def fit(trainer, batches, steps, callbacks=(), epochs=1):
    trainer.run_eagerly = True  # a few steps take less than tracing; tests of train.py run the graph
    rest = batches.skip(trainer.steps_done).repeat()
    callbacks = [EpochMeans(), *callbacks]
    return trainer.fit(rest, steps_per_epoch=steps, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False)


def weights_of(trainer):
    return [variable.numpy() for variable in trainer.network.variables]


@functools.cache
def idle_trainer():
    """One that does not train: backups are only read into it."""
    return make_trainer()


def make_backup(folder, trainer=None, settings=None, is_chief=True):
    return Backup(
        trainer or idle_trainer(),
        folder / "backup.npz",
        settings or {"TRAIN_EPOCHS": 3},
        seconds=1e9,
        is_chief=is_chief,
    )


# --- Schedule --------------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_in_a_line_then_falls_along_a_cosine():
    schedule = Schedule(steps=105, warm_up=4, freeze=0, lr_init=0.4, lr_end=0.2, ema=0.9)
    assert schedule.learning_rate(np.arange(4)).numpy() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert schedule.learning_rate([4, 54, 104]).numpy() == pytest.approx([0.4, 0.3, 0.2], abs=1e-6)
    assert schedule.learning_rate(29).numpy() == pytest.approx(0.2 + 0.2 * (1 + np.cos(np.pi / 4)) / 2)


@pytest.mark.slow
def test_the_optimizer_follows_the_schedule_of_all_stages(batches):
    trainer = make_trainer(SCHEDULE._replace(freeze=2))
    trainer.begin()
    rates = []
    for _ in range(2):
        trainer.prepare()
        for _ in range(2):
            rates.append(float(trainer.optimizer.learning_rate))
            fit(trainer, batches, 1)
    assert rates == pytest.approx([float(SCHEDULE.learning_rate(step)) for step in range(4)])


# --- Steps -----------------------------------------------------------------------------------------------------------


def test_a_frozen_backbone_stays_and_learns_afterwards(batches):
    trainer = make_trainer(SCHEDULE._replace(freeze=2))

    def kernels():
        convs = convolutions(trainer.network)
        return [conv.kernel.numpy() for conv, _ in convs], [n.moving_mean.numpy() for _, n in convs if n]

    def changed(before, after):
        return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]

    trainer.begin()
    first, first_means = kernels()
    fit(trainer, batches, 2)
    frozen, frozen_means = kernels()
    count = NETWORK.backbone
    assert changed(first, frozen) == [False] * count + [True] * (len(first) - count)
    assert changed(first_means, frozen_means) == [False] * count + [True] * (len(first_means) - count)
    trainer.prepare()
    fit(trainer, batches, 2)
    assert all(changed(frozen, kernels()[0]))


@pytest.mark.slow
def test_the_average_follows_the_weights(batches):
    trainer = make_trainer()
    trainer.begin()
    average = weights_of(trainer)
    for step in range(3):
        fit(trainer, batches, 1)
        keep = min(SCHEDULE.ema, (1 + step) / (10 + step))
        average = [keep * a + (1 - keep) * b for a, b in zip(average, weights_of(trainer), strict=True)]
    for mine, expected in zip(trainer.average, average, strict=True):
        np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["BF16", pytest.param("FP16", marks=pytest.mark.slow)])
def test_mixed_precision_learns_with_float32_weights(batches, precision):
    trainer = make_trainer(precision=precision, network=NETWORKS["yolov4-tiny"])
    trainer.begin()
    history = fit(trainer, batches, 2).history
    assert np.isfinite(history["loss"][0])
    assert {variable.dtype for variable in trainer.network.variables} == {"float32"}
    assert all(np.isfinite(weights).all() for weights in weights_of(trainer))


def test_one_network_learns_at_several_sizes(batches):
    trainer = make_trainer(size=None)
    trainer.begin()
    for size in ((SIZE, SIZE), (96, 96), (64, 96)):
        of_size = batches.map(lambda images, truth, size=size: (tf.image.resize(images, size), truth))
        assert np.isfinite(fit(trainer, of_size, 1).history["loss"][0])


def test_auto_precision_is_one_that_a_network_can_have():
    assert training_precision("AUTO") in ("FP32", "BF16", "FP16")
    assert training_precision("FP32") == "FP32"
    with pytest.raises(UserError, match="TRAIN_PRECISION = 'INT8' is not known"):
        training_precision("INT8")


@pytest.mark.slow
def test_what_is_shown_is_the_loss_per_object(checked):
    trainer = make_trainer()
    trainer.begin()
    images, truth = next(iter(training_batches(checked.records, [SIZE], BATCH, "letterbox", PLAIN, seed=5)))
    objects = int((truth[..., 4] >= 0).numpy().sum())
    expected = yolo_loss(trainer.network(images, training=True), truth, NETWORK.heads)
    shown = trainer.train_step((images, truth))
    assert objects == BATCH  # one in each picture
    for name, term in expected.items():
        assert float(shown[name]) == pytest.approx(float(term.numpy().sum()) / objects, rel=1e-3)
    twice = tf.concat([truth, truth], 1)
    assert int(count_objects(twice)) == 2 * objects
    assert float(trainer.train_step((images, truth - [0, 0, 0, 0, 99]))["loss"]) > 0  # without any object, too


# --- Backup ----------------------------------------------------------------------------------------------------------


def test_a_training_goes_on_as_if_it_had_not_been_interrupted(batches, tmp_path):
    whole = make_trainer()
    whole.begin()
    fit(whole, batches, STEPS)

    interrupted = make_trainer()
    backup = make_backup(tmp_path, interrupted)
    interrupted.begin()
    fit(interrupted, batches, STEPS // 2)
    backup.progress = {"best_AP": 0.5, "epochs_since_best": 2, "measured_step": 3}
    backup.save()

    resumed = make_trainer()
    backup = make_backup(tmp_path, resumed)
    assert backup.resume() == tmp_path / "backup.npz"
    assert resumed.steps_done == STEPS // 2
    assert backup.progress == {"best_AP": 0.5, "epochs_since_best": 2, "measured_step": 3}
    fit(resumed, batches, STEPS - STEPS // 2)
    for group in ("network", "average", "optimizer"):
        for a, b in zip(*(variables_of(trainer, group) for trainer in (whole, resumed)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def variables_of(trainer, group):
    owner = {"network": trainer.network.variables, "average": trainer.average, "optimizer": trainer.optimizer.variables}
    return [keras.ops.convert_to_numpy(variable) for variable in owner[group]]


def test_a_training_stopped_where_the_backbone_thaws_goes_on(batches, tmp_path):
    schedule = SCHEDULE._replace(freeze=2)
    interrupted = make_trainer(schedule)
    backup = make_backup(tmp_path, interrupted)
    interrupted.begin()
    fit(interrupted, batches, 2)
    backup.save()
    resumed = make_trainer(schedule)
    make_backup(tmp_path, resumed).resume()
    for a, b in zip(weights_of(interrupted), weights_of(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(resumed.optimizer.variables) > len(interrupted.optimizer.variables)


@pytest.fixture(scope="module")
def two_backups(batches, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backups")
    trainer = make_trainer()
    backup = make_backup(folder, trainer)
    trainer.begin()
    for _ in range(2):
        fit(trainer, batches, 1)
        backup.save()
    return folder


@pytest.fixture
def saved_twice(two_backups, tmp_path):
    """A folder with the backup of step 2 and, before it, that of step 1."""
    return shutil.copytree(two_backups, tmp_path, dirs_exist_ok=True)


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_not_saved(saved_twice):
    trainer = make_trainer()
    backup = make_backup(saved_twice, trainer)
    backup.resume()
    trainer.step.assign(3)
    trainer.network.variables[0].assign(trainer.network.variables[0] * float("nan"))
    backup.save()
    assert step_resumed(saved_twice) == 2


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: bytes(99)])
def test_a_damaged_backup_gives_way_to_the_one_before(saved_twice, capsys, damage):
    file = saved_twice / "backup.npz"
    assert step_resumed(saved_twice) == 2
    file.write_bytes(damage(file.read_bytes()))
    assert step_resumed(saved_twice) == 1
    assert "is damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda about, arrays: about.update(step="2"),
        lambda about, arrays: about.update(step=10**9),
        lambda about, arrays: about.update(progress=[1]),
        lambda about, arrays: about["progress"].update(best_AP="high"),
        lambda about, arrays: arrays.update({"network/0": np.zeros((3, 3), np.float32)}),
        lambda about, arrays: arrays.update({"network/0": np.array([{}], object)}),
        lambda about, arrays: arrays.pop("average/0"),
    ],
)
def test_a_backup_whose_content_makes_no_sense_gives_way_to_the_one_before(saved_twice, capsys, change):
    rewrite_backup(saved_twice / "backup.npz", change)
    assert step_resumed(saved_twice) == 1
    assert "is damaged" in capsys.readouterr().out


def step_resumed(folder):
    make_backup(folder).resume()
    return idle_trainer().steps_done


def rewrite_backup(file, change):
    with np.load(file) as stored:
        arrays = dict(stored)
    about = json.loads(str(arrays.pop("about")))
    change(about, arrays)
    np.savez(file, about=json.dumps(about), **arrays)


OTHER_OPTIMIZERS = {
    "an array less": lambda arrays: arrays.pop("optimizer/2"),
    "an array more": lambda arrays: arrays.update({"optimizer/999": np.zeros(())}),
    "another shape": lambda arrays: arrays.update({"optimizer/2": np.zeros(())}),
    "text": lambda arrays: arrays.update({"optimizer/0": np.array("1")}),
}


@pytest.mark.parametrize("other", OTHER_OPTIMIZERS)
def test_a_backup_of_another_optimizer_gives_way_to_the_one_before(saved_twice, capsys, other):
    rewrite_backup(saved_twice / "backup.npz", lambda about, arrays: OTHER_OPTIMIZERS[other](arrays))
    trainer = make_trainer()
    backup = make_backup(saved_twice, trainer)
    assert backup.resume() == saved_twice / "backup.previous.npz"
    assert trainer.steps_done == 1
    assert "backup.npz does not fit (" in (told := capsys.readouterr().out) and "trying backup.previous.npz" in told
    backup.save()  # which moves the newest one into the place of the one before
    (saved_twice / "backup.npz").unlink()
    assert step_resumed(saved_twice) == 1


@pytest.mark.parametrize("other", OTHER_OPTIMIZERS)
def test_backups_of_another_optimizer_are_refused_before_anything_is_assigned(saved_twice, other):
    for name in ("backup.npz", "backup.previous.npz"):
        rewrite_backup(saved_twice / name, lambda about, arrays: OTHER_OPTIMIZERS[other](arrays))
    trainer = make_trainer()
    before, backup = weights_of(trainer), make_backup(saved_twice, trainer)
    with pytest.raises(UserError, match="backup.npz holds another optimizer, perhaps .*--overwrite"):
        backup.resume()
    for a, b in zip(before, weights_of(trainer), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(list(saved_twice.iterdir())) == 2  # another version of Keras may go on with them


def test_headers_are_checked_before_an_array_is_read(saved_twice, monkeypatch, capsys):
    """An `about` of gigabytes, or of objects, is not even opened."""
    file = saved_twice / "backup.npz"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for dtype, shape in (("<U1", (2**40,)), ("<U300000000", ()), ("|O", ()), ("<f4", (2**40,))):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in {**members, "about.npy": header.getvalue() + bytes(99)}.items():
                archive.writestr(name, data)
        with monkeypatch.context() as patch:
            patch.setattr(np, "load", None)
            (saved_twice / "backup.previous.npz").rename(saved_twice / "kept")
            assert make_backup(saved_twice).resume() is None
            (saved_twice / "kept").rename(saved_twice / "backup.previous.npz")
        told = capsys.readouterr().out
        assert "backup.npz is damaged (it does not say to which training it belongs): there is not another" in told


@pytest.mark.parametrize("name", ["backup.npz", "backup.previous.npz"])
def test_a_folder_in_a_backups_place_is_told(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is not a file: move it away"):
        make_backup(tmp_path)


def test_a_backup_that_may_not_be_read_is_kept(saved_twice, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(backup_module, "read_headers", refused)
    with pytest.raises(UserError, match="backup.npz cannot be read: Permission denied"):
        make_backup(saved_twice).resume()
    assert (saved_twice / "backup.npz").exists()


def test_a_kill_between_the_two_renames_loses_nothing_but_the_newest(saved_twice):
    (saved_twice / "backup.npz").rename(saved_twice / "backup.npz.part")
    assert step_resumed(saved_twice) == 1


def test_a_full_disk_leaves_the_backups_as_they_were(batches, saved_twice):
    trainer = make_trainer()
    backup = make_backup(saved_twice, trainer)
    backup.resume()
    fit(trainer, batches, 1)
    before = {path.name: path.read_bytes() for path in saved_twice.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**4, limits[1]))
    try:
        with pytest.raises(UserError, match="backup.npz cannot be written"):
            backup.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in saved_twice.iterdir()} == before


def test_a_backup_of_another_training_is_refused(saved_twice):
    with pytest.raises(UserError, match="belongs to a training with TRAIN_EPOCHS = 3, not 4: .*--overwrite"):
        make_backup(saved_twice, settings={"TRAIN_EPOCHS": 4}).resume()


@pytest.mark.slow
def test_a_backup_of_more_steps_than_there_are_now_says_which_constant_to_raise(batches, tmp_path):
    trainer = make_trainer()
    backup = make_backup(tmp_path, trainer)
    trainer.begin()
    fit(trainer, batches, 2)
    backup.save()
    with pytest.raises(UserError, match="has done 2 steps, but TRAIN_EPOCHS makes 1: raise it"):
        make_backup(tmp_path, make_trainer(SCHEDULE._replace(steps=1))).resume()
    longer = make_trainer(SCHEDULE._replace(steps=99))
    assert make_backup(tmp_path, longer).resume() and longer.steps_done == 2


def test_without_a_backup_there_is_nothing_to_read(tmp_path):
    assert make_backup(tmp_path).resume() is None


@pytest.mark.slow
def test_only_the_chief_writes(batches, tmp_path):
    trainer = make_trainer()
    backup = make_backup(tmp_path, trainer, is_chief=False)
    trainer.begin()
    keep = Keep(tmp_path / "mine", MODEL, "a test", backup, patience=0)
    fit(trainer, batches, 1, [backup, Measured([0.5]), keep])
    assert not list(tmp_path.iterdir())


# --- What is kept ----------------------------------------------------------------------------------------------------


class Measured(keras.callbacks.Callback):
    """A validation that is known beforehand."""

    def __init__(self, AP):
        super().__init__()
        self.AP = iter(AP)

    def on_epoch_end(self, epoch, logs=None):
        logs["AP"] = next(self.AP)


@pytest.mark.slow
def test_the_best_and_the_last_averaged_weights_are_kept_and_training_ends_without_progress(batches, tmp_path):
    trainer = make_trainer(SCHEDULE._replace(steps=99))
    backup = make_backup(tmp_path, trainer)
    trainer.begin()
    folder, seen = tmp_path / "mine", []
    keep = Keep(folder, MODEL, "a test", backup, patience=2)

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([average.numpy() for average in self.model.average])

    fit(trainer, batches, 1, [backup, Measured([0.1, 0.6, 0.4, 0.5, 0.9]), keep, Look()], epochs=5)
    assert len(seen) == 4  # the fourth epoch was the second without a better one
    assert backup.progress == {"best_AP": 0.6, "epochs_since_best": 2, "measured_step": 4}
    for path, expected in ((folder, seen[1]), (tmp_path / "mine_last", seen[3])):
        assert read_model(path) == MODEL
        load_arrays(trainer.network, stored_arrays(path), path)
        for mine, average in zip(weights_of(trainer), expected, strict=True):
            np.testing.assert_array_equal(mine, average)


def test_a_loss_that_is_no_number_ends_training_and_nothing_of_it_is_kept(batches, tmp_path):
    trainer = make_trainer(SCHEDULE._replace(lr_init=float("nan")))
    backup = make_backup(tmp_path, trainer)
    trainer.begin()
    keep = Keep(tmp_path / "mine", MODEL, "a test", backup, patience=0)
    with pytest.raises(UserError, match="not a number any more at step .*TRAIN_LR_INIT"):
        fit(trainer, batches, STEPS, [TerminateOnNaN(), backup, Measured([0.5]), keep])
    assert not list(tmp_path.iterdir())


def make_validation(trainer, checked):
    network = averaged_network(trainer, (SIZE, SIZE))
    losses = averaged_losses(network, (SIZE, SIZE), NETWORK.heads)
    batches = training_batches(checked.records, [SIZE], 4, "letterbox", PLAIN, 0).take(2)
    detector = Detector(network, MODEL, 0.001, 0.45)
    return Validation(detector, checked.records, checked.sizes, losses, batches, (0.001, 0.45), 2, 10**6, True)


def test_validation_measures_the_averaged_weights_as_the_checkpoint_will_be(checked, batches, tmp_path):
    trainer = make_trainer()
    backup = make_backup(tmp_path, trainer)
    trainer.begin()
    validation = make_validation(trainer, checked)
    detector, seen = validation.detector, {}
    keep = Keep(tmp_path / "mine", MODEL, "a test", backup, patience=0)
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.update(logs))
    fit(trainer, batches, 2, [backup, validation, keep, look])
    assert 0 <= seen["AP50"] <= 100 and backup.progress["best_AP"] == seen["AP"]
    terms = [seen[f"val_{name}"] for name in ("box", "objectness", "class")]
    assert min(terms) > 0 and seen["val_loss"] == pytest.approx(sum(terms))
    frame = np.full((60, 80, 3), 200, np.uint8)
    loaded = Load_Yolo_model(tmp_path / "mine", input_size=SIZE, resize="letterbox")
    mine, theirs = detector([frame])[0], loaded([frame], 0.001, 0.45)[0]
    assert len(mine)
    np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=1e-2)
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)
    assert mine.names == theirs.names


@pytest.mark.slow
def test_tensorboard_gets_losses_rate_ap_and_pictures(checked, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "LOG_EVERY", 2)
    trainer = make_trainer()
    trainer.begin()
    validation = make_validation(trainer, checked)
    fit(trainer, batches, 4, [validation, TensorBoard(tmp_path, validation)])
    tags = {}
    for file in tmp_path.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                tags.setdefault(value.tag, []).append(event.step)
    for name in ("loss/loss", "loss/box", "loss/objectness", "loss/class", "learning_rate"):
        assert tags[name] == [2, 4]
    for name in ("validation/AP50", "validation/AP", "validation/val_loss", "found/0", "found/3"):
        assert tags[name] == [4]


def test_a_log_that_cannot_be_written_is_one_line_about_the_log(tmp_path):
    board = TensorBoard(tmp_path, types.SimpleNamespace(records=[]))
    board.set_model(types.SimpleNamespace(steps_done=10))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(UserError, match=f"TRAIN_LOGDIR: {tmp_path} cannot be written: the disk"):
            board.on_epoch_end(0, {"AP50": 50.0, "AP": 20.0, "val_loss": 3.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# --- First weights ---------------------------------------------------------------------------------------------------


def test_darknet_weights_of_another_class_count_give_everything_but_the_heads(tmp_path):
    theirs, mine = (Create_Yolo(SIZE, "yolov4", True, classes) for classes in (7, 2))
    save_yolo_weights(theirs, tmp_path / "theirs.weights")
    heads = [conv.kernel.numpy() for conv, norm in convolutions(mine) if norm is None]
    assert transfer_yolo_weights(mine, tmp_path / "theirs.weights") == 19  # of 21
    for (a, norm_a), (b, norm_b) in zip(convolutions(theirs), convolutions(mine), strict=True):
        if norm_b is None:
            np.testing.assert_array_equal(b.kernel.numpy(), heads.pop(0))
        else:
            np.testing.assert_array_equal(a.kernel.numpy(), b.kernel.numpy())
            np.testing.assert_array_equal(norm_a.moving_variance.numpy(), norm_b.moving_variance.numpy())


def test_darknet_weights_of_the_same_class_count_give_the_heads_too(tmp_path):
    theirs, mine = (Create_Yolo(SIZE, "yolov4", True, 2) for _ in range(2))
    save_yolo_weights(theirs, tmp_path / "theirs.weights")
    assert transfer_yolo_weights(mine, tmp_path / "theirs.weights") == 21
    for a, b in zip(get_arrays(theirs), get_arrays(mine), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_of_another_network_are_not_transferred(tmp_path):
    save_yolo_weights(Create_Yolo(SIZE, "yolov3", True, 7), tmp_path / "theirs.weights")
    with pytest.raises(UserError, match='it is yolov3-tiny with 7 classes: set YOLO_TYPE = "yolov3"'):
        transfer_yolo_weights(Create_Yolo(SIZE, "yolov4", True, 2), tmp_path / "theirs.weights")
