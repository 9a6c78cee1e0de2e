"""Train a detector of your own: pictures in TRAIN_ANNOT_PATH, measured on those in TEST_ANNOT_PATH.

python train.py              goes on where it was interrupted; all settings are in yolov3/configs.py
python train.py --overwrite  begins anew, and replaces the checkpoint of that name

The best by AP50 becomes checkpoints/{TRAIN_MODEL_NAME}, with _Tiny for a tiny network; the last one has _last behind
that. Watch it with: tensorboard --logdir log. All GPUs of this machine are used; for several machines set TF_CONFIG.
"""

import argparse
import signal
import sys

from yolov3 import configs
from yolov3.augment import AUGMENTED, PLAIN
from yolov3.callbacks import Backup, EpochMeans, Keep, TensorBoard, TerminateOnNaN, Validation, averaged_network
from yolov3.checkpoint import Model, find, read_model, read_weights
from yolov3.cli import read_pictures, tell_left_out
from yolov3.darknet import fetch_weights, load_arrays, transfer_yolo_weights
from yolov3.dataset import readable, training_batches
from yolov3.detector import DARKNET_WEIGHTS, Detector, configured_heads
from yolov3.frameworks import allow_memory_growth
from yolov3.images import RESIZES
from yolov3.settings import (
    UserError,
    architecture,
    check_amount,
    check_count,
    check_input_size,
    check_threshold,
    choose,
    project_path,
    read_class_names,
    say_it_in_one_line,
)
from yolov3.trainer import (
    Schedule,
    Trainer,
    as_distributed,
    choose_strategy,
    make_network,
    place_among_workers,
    training_precision,
)

NUMBERS = (  # what each of these constants must be
    (("TRAIN_BATCH_SIZE", "TRAIN_EPOCHS", "TEST_BATCH_SIZE"), lambda *constant: check_count(*constant, least=1)),
    (("TRAIN_FREEZE_EPOCHS", "TRAIN_PATIENCE", "TRAIN_SEED"), lambda *constant: check_count(*constant, least=0)),
    (("TRAIN_WARMUP_EPOCHS", "TRAIN_BACKUP_SECONDS"), check_amount),
    (("TRAIN_LR_INIT", "TRAIN_LR_END", "TRAIN_EMA", "TRAIN_MOSAIC"), check_threshold),
    (("TEST_SCORE_THRESHOLD", "TEST_IOU_THRESHOLD"), check_threshold),
)
CONTINUE_WITH = (  # an interrupted training goes on only while these constants are what they were
    *(
        "YOLO_TYPE",
        "TRAIN_YOLO_TINY",
        "TRAIN_ANCHORS",
        "YOLO_ANCHORS",
        "YOLO_RESIZE",
        "TRAIN_CLASSES",
        "TRAIN_ANNOT_PATH",
    ),
    *("TRAIN_INPUT_SIZE", "TRAIN_MULTISCALE", "TRAIN_BATCH_SIZE", "TRAIN_EPOCHS", "TRAIN_WARMUP_EPOCHS"),
    *("TRAIN_FREEZE_EPOCHS", "TRAIN_LR_INIT", "TRAIN_LR_END", "TRAIN_EMA", "TRAIN_SEED"),
    *("TRAIN_DATA_AUG", "TRAIN_MOSAIC", "TRAIN_FLIP"),
)


# --- What the constants say ------------------------------------------------------------------------------------------


def configured_model():
    """The Model to train."""
    name = architecture(configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY)
    classes, size = read_class_names(configs.TRAIN_CLASSES), configured_sizes()[0]
    resize = choose("YOLO_RESIZE", configs.YOLO_RESIZE, RESIZES)
    heads = configured_heads(name, "YOLO_ANCHORS" if configs.TRAIN_ANCHORS is None else "TRAIN_ANCHORS")
    return Model(configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY, classes, size, resize, heads)


def check_numbers():
    for constants, check in NUMBERS:
        for constant in constants:
            check(constant, getattr(configs, constant))


def configured_sizes():
    """Input sizes to train at, TRAIN_INPUT_SIZE first."""
    more = configs.TRAIN_MULTISCALE or ()
    if not isinstance(more, (tuple, list)):
        raise UserError(f"TRAIN_MULTISCALE = {more!r} must be None or several sizes: (320, 352)")
    return [check_input_size(size) for size in (configs.TRAIN_INPUT_SIZE, *more)]


def configured_schedule(steps_per_epoch):
    return Schedule(
        steps=configs.TRAIN_EPOCHS * steps_per_epoch,
        warm_up=round(configs.TRAIN_WARMUP_EPOCHS * steps_per_epoch),
        freeze=min(configs.TRAIN_FREEZE_EPOCHS, configs.TRAIN_EPOCHS) * steps_per_epoch,
        lr_init=configs.TRAIN_LR_INIT,
        lr_end=configs.TRAIN_LR_END,
        ema=configs.TRAIN_EMA,
    )


def load_first_weights(network, model):
    """What training begins with: a checkpoint's weights, Darknet's, or fresh ones."""
    if configs.TRAIN_FROM_CHECKPOINT:
        folder = find(configs.TRAIN_FROM_CHECKPOINT, model.tiny, configs.TRAIN_CHECKPOINTS_FOLDER)
        made = read_model(folder)
        if (made.name, len(made.classes)) != (model.name, len(model.classes)):
            raise UserError(
                f"TRAIN_FROM_CHECKPOINT: {folder} is {made.name} with {len(made.classes)} classes, not {model.name} "
                f"with {len(model.classes)}: name another in yolov3/configs.py"
            )
        load_arrays(network, read_weights(folder), folder)
    elif configs.TRAIN_TRANSFER:
        weights = getattr(configs, DARKNET_WEIGHTS[model.name])
        fetch_weights(weights)
        transfer_yolo_weights(network, weights)


def make_batches(records, model, workers, index):
    """-> function of the first step: an endless dataset of the batches of one machine out of so many."""
    augmentation = AUGMENTED._replace(mosaic=configs.TRAIN_MOSAIC, flip=configs.TRAIN_FLIP)

    def batches(first_step):
        share = training_batches(
            records,
            configured_sizes(),
            configs.TRAIN_BATCH_SIZE // workers,
            model.resize,
            augmentation if configs.TRAIN_DATA_AUG else PLAIN,
            configs.TRAIN_SEED,
            first_step,
            (index, workers),
            configs.YOLO_MAX_PIXELS,
        )
        return as_distributed(share, configs.TRAIN_BATCH_SIZE, workers)

    return batches


# --- Training --------------------------------------------------------------------------------------------------------


def train(trainer, batches, steps_per_epoch, callbacks, strategy):
    """Keras' `fit`, as often as it takes: the rest of an interrupted epoch, the frozen stage, all else."""
    schedule = trainer.schedule
    while (step := trainer.steps_done) < schedule.steps and not trainer.stop_training:
        epoch, done = divmod(step, steps_per_epoch)
        until = (schedule.freeze if step < schedule.freeze else schedule.steps) // steps_per_epoch
        with strategy.scope():
            if step == schedule.freeze:
                trainer.prepare()  # the backbone learns from here on
            trainer.fit(
                batches(step),
                initial_epoch=epoch,
                epochs=epoch + 1 if done else until,
                steps_per_epoch=steps_per_epoch - done,
                callbacks=callbacks,
                shuffle=False,  # it is shuffled
                verbose=1 if sys.stdout.isatty() else 2,
            )


def end_epoch(trainer, callbacks, strategy):
    """What callbacks do at the end of an epoch, for one that ended without them."""
    logs = {}
    with strategy.scope():
        for callback in callbacks:
            callback.set_model(trainer)
            callback.on_epoch_end(None, logs)


@say_it_in_one_line
def main():
    # 1. What to train, and on what
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overwrite", action="store_true", help="begin anew and replace the checkpoint of that name")
    overwrite = parser.parse_args().overwrite
    check_numbers()
    allow_memory_growth()
    strategy = choose_strategy(configs.TRAIN_BATCH_SIZE)
    workers, worker = place_among_workers(strategy)
    chief = worker == 0
    model = configured_model()
    training = read_pictures(configs.TRAIN_ANNOT_PATH, len(model.classes)).records
    training, problems = readable(training, configs.YOLO_MAX_PIXELS)
    tell_left_out(problems)
    tested = read_pictures(configs.TEST_ANNOT_PATH, len(model.classes))
    print(f"{len(training)} pictures to train on, {len(tested.records)} to measure on")
    steps_per_epoch = max(1, round(len(training) / configs.TRAIN_BATCH_SIZE))

    # 2. The network, as new or as an interrupted training left it
    any_size = len(configured_sizes()) > 1
    precision = training_precision(configs.TRAIN_PRECISION)
    with strategy.scope():
        parts = make_network(model.name, len(model.classes), None if any_size else model.input_size, precision)
    trainer = Trainer(*parts, model.heads, configs.TRAIN_BATCH_SIZE, configured_schedule(steps_per_epoch))

    folder = f"{configs.TRAIN_CHECKPOINTS_FOLDER}/{configs.TRAIN_MODEL_NAME}{'_Tiny' if model.tiny else ''}"
    settings = {name: getattr(configs, name) for name in CONTINUE_WITH} | {"pictures": len(training)}
    backup = Backup(f"{folder}_backup.npz", settings, configs.TRAIN_BACKUP_SECONDS, chief)
    state = None if overwrite else backup.read()
    if overwrite:
        backup.discard()
    if state is None and not overwrite and project_path(folder).exists():
        raise UserError(f"{folder} is there already: give --overwrite, or change TRAIN_MODEL_NAME in yolov3/configs.py")
    with strategy.scope():
        if state is None:
            load_first_weights(trainer.network, model)
            trainer.begin()
        else:
            backup.restore(trainer, state)
            print(f"going on at step {trainer.steps_done} of {trainer.schedule.steps}, from {backup.file}")

    # 3. Training
    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD
    detector = Detector(averaged_network(trainer, model.input_size), model, *thresholds)
    validation = Validation(detector, tested, thresholds, configs.TEST_BATCH_SIZE, configs.YOLO_MAX_PIXELS, chief)
    keep = Keep(folder, model, f"train.py, {configs.TRAIN_ANNOT_PATH}", backup, configs.TRAIN_PATIENCE)
    callbacks = [EpochMeans(), TerminateOnNaN(), backup, validation, keep]
    if chief:
        callbacks.append(TensorBoard(project_path(configs.TRAIN_LOGDIR) / configs.TRAIN_MODEL_NAME, validation))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's way to say Ctrl-C
    try:
        if trainer.steps_done % steps_per_epoch == 0 and trainer.steps_done > backup.progress["measured_step"]:
            end_epoch(trainer, callbacks[callbacks.index(validation) :], strategy)  # interrupted while it was measured
        train(trainer, make_batches(training, model, workers, worker), steps_per_epoch, callbacks, strategy)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not tear what is being written
        backup.save()
        sys.exit(f"stopped at step {trainer.steps_done}: python train.py goes on from there")
    backup.discard()
    print(f"{folder}: AP50 {100 * backup.progress['best_AP50']:.1f}; python detection_custom.py uses it")


if __name__ == "__main__":
    main()
