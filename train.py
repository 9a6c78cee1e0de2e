"""Train a detector of your own on the pictures of TRAIN_ANNOT_PATH, and measure it on those of TEST_ANNOT_PATH.

python train.py              begins, or goes on where it was interrupted; all settings are in yolov3/configs.py
python train.py --overwrite  begins anew and replaces the checkpoint of that name

The checkpoint with the best AP on a part of the training pictures (TRAIN_VAL_PATH, TRAIN_VAL_SPLIT) becomes
checkpoints/{TRAIN_MODEL_NAME}, with _Tiny appended for a tiny network. That of the latest epoch has the same name with
_last appended. The pictures of TEST_ANNOT_PATH choose nothing: the result is measured on them. Watch the training with:
tensorboard --logdir log. All GPUs of this machine are used; for several machines set TF_CONFIG.
"""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from yolov3 import configs
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError, project_path, say_it_in_one_line
from yolov3.detector import Detector
from yolov3.evaluation import evaluate
from yolov3.files import check_writable
from yolov3.heads import configured_network
from yolov3.loading import Load_Yolo_model
from yolov3.report import draw_report
from yolov3.runtimes.common import in_project
from yolov3.runtimes.tf import allow_memory_growth
from yolov3.settings import FILE_NAME, ScriptParser, configured_names, write_settings
from yolov3.sheets import draw_batch
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
from yolov3.training.charts import draw_data
from yolov3.training.configured import (
    AUTO,
    CONTINUE_WITH,
    Pictures,
    augmented_batches,
    check_constants,
    configured_pictures,
    configured_schedule,
    configured_sizes,
    configured_spec,
    load_first_weights,
    make_batches,
    plain_batches,
)
from yolov3.training.presets import configured_preset, resolve
from yolov3.training.progress import Progress, Results
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

DRAWN_BATCHES = 3


class Job(NamedTuple):
    """A training as configs.py means it: what is trained, on which pictures, by which machines, into which folders."""

    name: str
    spec: ModelSpec
    precision: str
    training: Pictures
    validated: Pictures
    tested: Pictures | None
    strategy: tf.distribute.Strategy
    is_chief: bool
    folder: str  # of the best checkpoint
    log: Path

    @property
    def steps_per_epoch(self) -> int:
        """Return the steps of one round through the pictures."""
        return max(1, round(len(self.training.records) / configs.TRAIN_BATCH_SIZE))


def read_job() -> Job:
    """Return and print what configs.py and the pictures mean. Raises UserError if it cannot be trained."""
    check_constants()
    preset, classes = configured_preset(), configured_names()
    name = configs.TRAIN_MODEL_NAME + ("_Tiny" if configured_network().tiny else "")
    allow_memory_growth()
    strategy = choose_strategy(None if configs.TRAIN_BATCH_SIZE == AUTO else configs.TRAIN_BATCH_SIZE)
    is_chief = place_among_workers(strategy)[1] == 0
    folder, log = f"{configs.TRAIN_CHECKPOINTS_FOLDER}/{name}", project_path(configs.TRAIN_LOGDIR) / name
    for place in (project_path(configs.TRAIN_CHECKPOINTS_FOLDER), log):
        check_writable(place)
    training, validated, tested = configured_pictures(len(classes))
    told = resolve(preset, training, len(classes), strategy.num_replicas_in_sync)
    spec, precision = configured_spec(), training_precision(configs.TRAIN_PRECISION)
    print(
        f"{name}: {replace(spec, precision=precision)}\n{told}\n{len(training.records)} pictures to train on, "
        f"{len(validated.records)} to choose the best epoch by, {len(tested.records) if tested else 0} to measure the "
        "result on"
    )
    return Job(name, spec, precision, training, validated, tested, strategy, is_chief, folder, log)


def make_trainer(job: Job) -> tuple[Trainer, Backup]:
    """Return the Trainer of a network without weights, and the Backup of its state."""
    network, precision = job.spec.network, job.precision
    input_size = job.spec.input_size if len(configured_sizes(network.multiple)) == 1 else None
    with job.strategy.scope():
        parts = make_network(network, len(job.spec.classes), input_size, precision, configs.TRAIN_SEED)
    schedule = configured_schedule(job.steps_per_epoch, network)
    trainer = Trainer(*parts, job.spec.heads, configs.TRAIN_BATCH_SIZE, schedule)
    settings = {name: getattr(configs, name) for name in CONTINUE_WITH}
    settings |= {"number of pictures": len(job.training.records)}
    settings |= {"classes": job.spec.classes, "FP16": precision == "FP16"}
    backup = Backup(trainer, f"{job.folder}_backup.npz", settings, configs.TRAIN_BACKUP_SECONDS, job.is_chief)
    return trainer, backup


def begin(trainer: Trainer, backup: Backup, job: Job, overwrite: bool) -> None:
    """Give the network its first weights, or those of an interrupted training.

    Raises UserError if the checkpoint of that name exists and is neither to be continued nor to be replaced.
    """
    with job.strategy.scope():
        file = None if overwrite else backup.resume()
        if file:
            print(f"going on at step {trainer.steps_done} of {trainer.schedule.steps}, from {file}")
            check_unfinished(trainer, backup, job.folder)
        elif project_path(job.folder).exists() and not overwrite:
            raise UserError(
                f"{job.folder} is there already, without the backup from which it could go on: give --overwrite to "
                f"replace it, or change TRAIN_MODEL_NAME; TRAIN_FROM_CHECKPOINT = {job.name!r} begins with its weights"
            )
        else:
            load_first_weights(trainer.network, job.spec)
            trainer.begin()
            backup.discard()
        (chief_step,) = from_chief([float(trainer.steps_done if backup.is_chief else 0)])
    if chief_step != trainer.steps_done:
        raise UserError(f"{backup.file} differs from the first worker's: keep the project in a folder that all share")


def check_unfinished(trainer: Trainer, backup: Backup, folder: str) -> None:
    """Raise UserError if a training has nothing left to do."""
    patience, waited = configs.TRAIN_PATIENCE, backup.progress["epochs_since_best"]
    constant = "TRAIN_EPOCHS" if trainer.steps_done >= trainer.schedule.steps else "TRAIN_PATIENCE"
    ended = constant == "TRAIN_EPOCHS" or 0 < patience <= waited
    if ended and backup.progress["measured_step"] == trainer.steps_done:
        raise UserError(
            f"{folder} is trained: raise {constant}, from {getattr(configs, constant)}, to go on with it, or give "
            "--overwrite to begin anew"
        )


def draw_beginning(job: Job) -> None:
    """Draw the data and the first batches, in which a wrong class or box is seen at once."""
    draw_data(job.log / "data.png", *job.training, job.spec)
    for i, (images, truth) in enumerate(augmented_batches(job.training.records, job.spec).take(DRAWN_BATCHES), 1):
        draw_batch(job.log / f"training_batch_{i}.jpg", images.numpy(), truth.numpy(), job.spec.classes)
    drawn = f"{in_project(job.log)}/data.png and training_batch_1.jpg to {DRAWN_BATCHES}"
    print(f"drawn: {drawn}: are boxes and classes right?")


def make_callbacks(
    trainer: Trainer, backup: Backup, job: Job
) -> tuple[list[keras.callbacks.Callback], list[keras.callbacks.Callback]]:
    """Return what runs at the end of each epoch: the validation with what follows from it, and the reports of it."""
    spec, thresholds = job.spec, (configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD)
    network = averaged_network(trainer, spec.input_size)
    validation = Validation(
        Detector(network, spec, *thresholds),
        *job.validated,
        averaged_losses(network, spec.input_size, spec.heads),
        plain_batches(job.validated.records, spec),
        thresholds,
        configs.TEST_BATCH_SIZE,
        configs.YOLO_MAX_PIXELS,
        job.is_chief,
    )
    keep = Keep(job.folder, spec, f"train.py, {configs.TRAIN_ANNOT_PATH}", backup, configs.TRAIN_PATIENCE)
    if not job.is_chief:
        return [validation, keep], []
    results = Results(job.log, job.steps_per_epoch, goes_on=trainer.steps_done > 0)
    return [validation, keep, TensorBoard(job.log, validation)], [Progress(backup, job.steps_per_epoch), results]


def run(trainer: Trainer, backup: Backup, job: Job) -> None:
    """Train to the end. Ctrl-C and SIGTERM end the script as soon as the state of the training is saved."""
    measuring, writing = make_callbacks(trainer, backup, job)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by clusters to end a job: treated as Ctrl-C
    try:
        if trainer.steps_done % job.steps_per_epoch == 0 and trainer.steps_done > backup.progress["measured_step"]:
            end_epoch(trainer, [*measuring, *writing[1:]], job.strategy)  # the last validation was interrupted
        batches = make_batches(job.training.records, job.spec, job.strategy)
        callbacks = [EpochMeans(), TerminateOnNaN(), backup, *measuring, *writing]
        train(trainer, batches, job.steps_per_epoch, callbacks, job.strategy)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second signal must not interrupt the writing of the backup
            signal.signal(number, signal.SIG_IGN)
        backup.save()
        sys.exit(f"stopped at step {trainer.steps_done}: the same command goes on from there")
    except tf.errors.ResourceExhaustedError:
        raise UserError("out of memory: lower TRAIN_BATCH_SIZE or TRAIN_INPUT_SIZE in yolov3/configs.py") from None
    backup.finish()


def end_epoch(trainer: Trainer, callbacks: list[keras.callbacks.Callback], strategy: tf.distribute.Strategy) -> None:
    """Run what callbacks do at the end of an epoch, for an epoch that was interrupted before they ran."""
    logs: dict[str, float] = {}
    with strategy.scope():
        for callback in callbacks:
            callback.set_model(trainer)
            callback.on_epoch_end(None, logs)


def draw_end(job: Job) -> None:
    """Draw what the best checkpoint finds, and measure it on pictures by which nothing was chosen."""
    thresholds, shown = (configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD), configs.YOLO_SCORE_THRESHOLD
    detector = Load_Yolo_model(job.folder, input_size=configs.TRAIN_INPUT_SIZE, framework="tf")
    how = detector.names, *thresholds, configs.TEST_BATCH_SIZE, configs.YOLO_MAX_PIXELS, False
    scores = evaluate(detector, *job.validated, *how)
    draw_report(job.log, scores, job.validated.records, shown, configs.YOLO_MAX_PIXELS)
    if job.tested:
        scores = evaluate(detector, *job.tested, *how)
        told = f"AP50 {100 * scores.AP50:.1f}, AP {100 * scores.AP:.1f}"
        print(f"{told} on the {len(job.tested.records)} pictures of {configs.TEST_ANNOT_PATH}, which chose nothing")
    print(detector.timings)
    print(f"curves, confusion matrix, truth beside what was found, and all settings: {in_project(job.log)}/")


@say_it_in_one_line
def main() -> None:
    # 1. What to train, and on which pictures
    parser = ScriptParser(__doc__)
    parser.add_argument("--overwrite", action="store_true", help="begin anew and replace the checkpoint of that name")
    overwrite = parser.parse_args().overwrite
    job = read_job()

    # 2. The network, new or as an interrupted training left it
    trainer, backup = make_trainer(job)
    begin(trainer, backup, job, overwrite)
    if job.is_chief:
        write_settings(job.log)
        if trainer.steps_done == 0:
            draw_beginning(job)

    # 3. Training
    run(trainer, backup, job)

    # 4. How it went
    best = backup.progress["best_AP"]
    options = f" --config {in_project(job.log)}/{FILE_NAME}" if parser.has_settings else ""
    print(f"{job.folder}: AP {best:.1f} on the {len(job.validated.records)} pictures that chose the best epoch")
    if job.is_chief:
        draw_end(job)
    print(f"python detection_custom.py{options} uses it; the same command with more TRAIN_EPOCHS goes on with it")
    if best <= 0:
        print(
            "AP 0: nothing was found on the pictures that choose the best epoch. More TRAIN_EPOCHS, another "
            "TRAIN_PRESET or TRAIN_ANCHORS that fit (python tools/Anchors.py) help; python tools/Check_annotations.py "
            "looks for wrong boxes"
        )


if __name__ == "__main__":
    main()
