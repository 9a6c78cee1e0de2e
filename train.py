"""Train a detector of your own on the pictures of TRAIN_ANNOT_PATH, and measure it on those of TEST_ANNOT_PATH.

python train.py              begins, or goes on where it was interrupted; all settings are in yolov3/configs.py
python train.py --overwrite  begins anew and replaces the checkpoint of that name

The checkpoint with the best AP50 on a part of the training pictures (TRAIN_VAL_PATH, TRAIN_VAL_SPLIT) becomes
checkpoints/{TRAIN_MODEL_NAME}, with _Tiny appended for a tiny network. That of the latest epoch has the same name with
_last appended. The pictures of TEST_ANNOT_PATH choose nothing: the result is measured on them. Watch the training with:
tensorboard --logdir log. All GPUs of this machine are used; for several machines set TF_CONFIG.
"""

import signal
import sys
from pathlib import Path

from yolov3 import configs
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError, project_path, say_it_in_one_line
from yolov3.detector import Detector
from yolov3.evaluation import evaluate
from yolov3.files import check_writable
from yolov3.loading import Load_Yolo_model
from yolov3.runtimes.common import in_project
from yolov3.runtimes.tf import allow_memory_growth
from yolov3.settings import FILE_NAME, ScriptParser, write_settings
from yolov3.training.backup import Backup
from yolov3.training.callbacks import EpochMeans, Keep, TensorBoard, TerminateOnNaN, Validation, averaged_network
from yolov3.training.configured import (
    CONTINUE_WITH,
    Pictures,
    check_constants,
    configured_pictures,
    configured_schedule,
    configured_sizes,
    configured_spec,
    load_first_weights,
    make_batches,
)
from yolov3.training.trainer import (
    Trainer,
    choose_strategy,
    from_chief,
    make_network,
    place_among_workers,
    train,
    training_precision,
)

import keras
import tensorflow as tf


def begin(
    trainer: Trainer, spec: ModelSpec, backup: Backup, folder: str, overwrite: bool, strategy: tf.distribute.Strategy
) -> None:
    """Give the network its first weights, or those of an interrupted training.

    Raises UserError if the checkpoint of that name exists and is neither to be continued nor to be replaced.
    """
    with strategy.scope():
        file = None if overwrite else backup.resume()
        if file:
            print(f"going on at step {trainer.steps_done} of {trainer.schedule.steps}, from {file}")
        elif project_path(folder).exists() and not overwrite:
            raise UserError(
                f"{folder} is there already: give --overwrite to replace it, or change TRAIN_MODEL_NAME in "
                f"yolov3/configs.py; for more epochs set TRAIN_FROM_CHECKPOINT = {Path(folder).name!r}, too"
            )
        else:
            load_first_weights(trainer.network, spec)
            trainer.begin()
            backup.discard()
        (chief_step,) = from_chief([float(trainer.steps_done if backup.is_chief else 0)])
    if chief_step != trainer.steps_done:
        raise UserError(f"{backup.file} differs from the first worker's: keep the project in a folder that all share")


def end_epoch(trainer: Trainer, callbacks: list[keras.callbacks.Callback], strategy: tf.distribute.Strategy) -> None:
    """Run what callbacks do at the end of an epoch, for an epoch that was interrupted before they ran."""
    logs: dict[str, float] = {}
    with strategy.scope():
        for callback in callbacks:
            callback.set_model(trainer)
            callback.on_epoch_end(None, logs)


def measure(folder: str, tested: Pictures, thresholds: tuple[float, float]) -> None:
    """Print the AP50 of the best checkpoint on pictures by which nothing was chosen."""
    detector = Load_Yolo_model(folder, input_size=configs.TRAIN_INPUT_SIZE, framework="tf")
    scores = evaluate(
        detector, *tested, detector.names, *thresholds, configs.TEST_BATCH_SIZE, configs.YOLO_MAX_PIXELS, progress=False
    )
    told = f"AP50 {100 * scores.AP50:.1f}, AP {100 * scores.AP:.1f}"
    print(f"{told} on the {len(tested.records)} pictures of {configs.TEST_ANNOT_PATH}, which chose nothing")


@say_it_in_one_line
def main() -> None:
    # 1. What to train, and on which pictures
    parser = ScriptParser(__doc__)
    parser.add_argument("--overwrite", action="store_true", help="begin anew and replace the checkpoint of that name")
    overwrite = parser.parse_args().overwrite
    check_constants()
    allow_memory_growth()
    strategy = choose_strategy(configs.TRAIN_BATCH_SIZE)
    chief = place_among_workers(strategy)[1] == 0
    spec = configured_spec()
    name = configs.TRAIN_MODEL_NAME + ("_Tiny" if spec.tiny else "")
    folder, log = f"{configs.TRAIN_CHECKPOINTS_FOLDER}/{name}", project_path(configs.TRAIN_LOGDIR) / name
    for place in (project_path(configs.TRAIN_CHECKPOINTS_FOLDER), log):
        check_writable(place)
    training, validated, tested = configured_pictures(len(spec.classes))
    print(
        f"{len(training.records)} pictures to train on, {len(validated.records)} to choose the best epoch by, "
        f"{len(tested.records) if tested else 0} to measure the result on"
    )

    # 2. The network, new or as an interrupted training left it
    steps_per_epoch = max(1, round(len(training.records) / configs.TRAIN_BATCH_SIZE))
    precision = training_precision(configs.TRAIN_PRECISION)
    input_size = spec.input_size if len(configured_sizes(spec.network.multiple)) == 1 else None
    with strategy.scope():
        parts = make_network(spec.network, len(spec.classes), input_size, precision, configs.TRAIN_SEED)
    schedule = configured_schedule(steps_per_epoch, spec.network)
    trainer = Trainer(*parts, spec.heads, configs.TRAIN_BATCH_SIZE, schedule)
    settings = {name: getattr(configs, name) for name in CONTINUE_WITH}
    settings |= {"number of pictures": len(training.records), "classes": spec.classes, "FP16": precision == "FP16"}
    backup = Backup(trainer, f"{folder}_backup.npz", settings, configs.TRAIN_BACKUP_SECONDS, chief)
    begin(trainer, spec, backup, folder, overwrite, strategy)
    if chief:
        write_settings(log)

    # 3. Training
    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD
    detector = Detector(averaged_network(trainer, spec.input_size), spec, *thresholds)
    validation = Validation(detector, *validated, thresholds, configs.TEST_BATCH_SIZE, configs.YOLO_MAX_PIXELS, chief)
    keep = Keep(folder, spec, f"train.py, {configs.TRAIN_ANNOT_PATH}", backup, configs.TRAIN_PATIENCE)
    measuring = [validation, keep, *([TensorBoard(log, validation)] if chief else [])]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by clusters to end a job: treated as Ctrl-C
    try:
        if trainer.steps_done % steps_per_epoch == 0 and trainer.steps_done > backup.progress["measured_step"]:
            end_epoch(trainer, measuring, strategy)  # the validation after the last step was interrupted
        callbacks = [EpochMeans(), TerminateOnNaN(), backup, *measuring]
        train(trainer, make_batches(training.records, spec, strategy), steps_per_epoch, callbacks, strategy)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second signal must not interrupt the writing of the backup
            signal.signal(number, signal.SIG_IGN)
        backup.save()
        sys.exit(f"stopped at step {trainer.steps_done}: the same command goes on from there")
    except tf.errors.ResourceExhaustedError:
        raise UserError("out of memory: lower TRAIN_BATCH_SIZE or TRAIN_INPUT_SIZE in yolov3/configs.py") from None
    backup.discard()
    best = backup.progress["best_AP50"]
    options = f" --config {in_project(log)}/{FILE_NAME}" if parser.has_settings else ""
    print(f"{folder}: AP50 {100 * best:.1f}; python detection_custom.py{options} uses it")
    if tested and chief:
        measure(folder, tested, thresholds)
    if best <= 0:
        print(
            "AP50 0: nothing was found on the pictures that choose the best epoch. More TRAIN_EPOCHS, TRAIN_TRANSFER = "
            "True for photographs, or TRAIN_ANCHORS that fit (python tools/Anchors.py) help; python "
            "tools/Check_annotations.py looks for wrong boxes"
        )


if __name__ == "__main__":
    main()
