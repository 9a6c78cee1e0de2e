"""Train a detector of your own: pictures in TRAIN_ANNOT_PATH, measured on those in TEST_ANNOT_PATH.

python train.py              begins, or goes on where it was interrupted; all settings are in yolov3/configs.py
python train.py --overwrite  begins anew and replaces the checkpoint of that name

The checkpoint with the best AP50 becomes checkpoints/{TRAIN_MODEL_NAME}, with _Tiny appended for a tiny network. That
of the latest epoch has the same name with _last appended. Watch the training with: tensorboard --logdir log. All GPUs
of this machine are used; for several machines set TF_CONFIG.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from yolov3 import annotation_cli, configs
from yolov3.annotations import Record
from yolov3.checkpoint import ModelSpec, find, read_model, read_weights
from yolov3.checks import (
    UserError,
    check_amount,
    check_count,
    check_input_size,
    check_threshold,
    choose,
    project_path,
    read_class_names,
    say_it_in_one_line,
)
from yolov3.darknet import array_shapes, convolutions, load_arrays, transfer_yolo_weights
from yolov3.dataset import readable, training_batches
from yolov3.detector import Detector
from yolov3.downloads import fetch_weights
from yolov3.files import check_writable
from yolov3.fitting import RESIZES
from yolov3.heads import configured_heads, configured_network, default_weights, heads_to_train, tell_unofficial
from yolov3.networks import Network
from yolov3.runtimes.common import in_project
from yolov3.runtimes.tf import allow_memory_growth
from yolov3.settings import FILE_NAME, ScriptParser, write_settings
from yolov3.training.augment import AUGMENTED, PLAIN
from yolov3.training.callbacks import (
    Backup,
    EpochMeans,
    Keep,
    TensorBoard,
    TerminateOnNaN,
    Validation,
    averaged_network,
)
from yolov3.training.trainer import (
    Schedule,
    Trainer,
    as_distributed,
    choose_strategy,
    from_chief,
    make_network,
    place_among_workers,
    train,
    training_precision,
)

import keras
import tensorflow as tf

COUNTS = (  # constants that are whole numbers, and the least value of each
    ("TRAIN_BATCH_SIZE", 1),
    ("TRAIN_EPOCHS", 1),
    ("TRAIN_FREEZE_EPOCHS", 0),
    ("TRAIN_PATIENCE", 0),
    ("TRAIN_SEED", 0),
    ("TEST_BATCH_SIZE", 1),
)
AMOUNTS = "TRAIN_WARMUP_EPOCHS", "TRAIN_BACKUP_SECONDS"
FRACTIONS = "TRAIN_LR_INIT", "TRAIN_LR_END", "TRAIN_EMA", "TRAIN_MOSAIC", "TEST_SCORE_THRESHOLD", "TEST_IOU_THRESHOLD"
SWITCHES = "TRAIN_FLIP", "TRAIN_DATA_AUG"
# fmt: off
CONTINUE_WITH = (  # an interrupted training goes on only if these constants have not changed
    "YOLO_TYPE", "TRAIN_YOLO_TINY", "YOLO_ANCHORS", "TRAIN_ANCHORS", "YOLO_CFG", "YOLO_RESIZE", "TRAIN_CLASSES",
    "TRAIN_ANNOT_PATH", "TEST_ANNOT_PATH", "TRAIN_INPUT_SIZE", "TRAIN_MULTISCALE", "TRAIN_BATCH_SIZE", "TRAIN_EPOCHS",
    "TRAIN_WARMUP_EPOCHS", "TRAIN_FREEZE_EPOCHS", "TRAIN_LR_INIT", "TRAIN_LR_END", "TRAIN_EMA", "TRAIN_SEED",
    "TRAIN_DATA_AUG", "TRAIN_MOSAIC", "TRAIN_FLIP",
)
# fmt: on


# --- What the constants say ------------------------------------------------------------------------------------------


def configured_spec() -> ModelSpec:
    """Return the ModelSpec to train."""
    network = configured_network()
    classes, size = read_class_names(configs.TRAIN_CLASSES), configured_sizes(network.multiple)[0]
    resize = choose("YOLO_RESIZE", configs.YOLO_RESIZE, RESIZES)
    heads = heads_to_train(network, transfers())
    if configs.TRAIN_ANCHORS is not None:
        heads = heads._replace(anchors=configured_heads(network, "TRAIN_ANCHORS").anchors)
    if configs.TRAIN_FREEZE_EPOCHS and network.backbone is None:
        text = "write stopbackward=1 into the last section of its backbone, or set TRAIN_FREEZE_EPOCHS = 0"
        raise UserError(f"{network.cfg.file} does not say which layers are the backbone: {text}")
    return ModelSpec(network.type, network.tiny, classes, size, resize, heads, cfg=network.text)


def read_pictures(path: str, class_count: int) -> tuple[list[Record], list[tuple[int, int]]]:
    """Return the records of an annotation file whose pictures can be read, and their sizes (width, height)."""
    checked = annotation_cli.read_pictures(path, class_count)
    good, problems = readable(checked.records, configs.YOLO_MAX_PIXELS)
    annotation_cli.tell_left_out(problems)
    size_of = dict(zip((record.picture for record in checked.records), checked.sizes, strict=True))
    return good, [size_of[record.picture] for record in good]


def check_constants() -> None:
    """Raise UserError if one of the TRAIN_ or TEST_ constants has a value that it cannot have."""
    for constant, least in COUNTS:
        check_count(constant, getattr(configs, constant), least)
    for constant in AMOUNTS:
        check_amount(constant, getattr(configs, constant))
    for constant in FRACTIONS:
        check_threshold(constant, getattr(configs, constant))
    for constant in SWITCHES:
        choose(constant, getattr(configs, constant), (True, False))
    name = configs.TRAIN_MODEL_NAME
    if not isinstance(name, str) or not name.strip(" ."):
        raise UserError(f"TRAIN_MODEL_NAME = {name!r} cannot name a folder: use yolo_custom, for example")
    project_path(name)  # raises UserError for a name that the file system does not accept


def configured_sizes(multiple: int) -> list[int]:
    """Return the input sizes to train at, multiples of so many pixels, TRAIN_INPUT_SIZE first."""
    more = configs.TRAIN_MULTISCALE or ()
    if not isinstance(more, (tuple, list)):
        raise UserError(f"TRAIN_MULTISCALE = {more!r} must be None or several sizes: (320, 352)")
    size = check_input_size(configs.TRAIN_INPUT_SIZE, "TRAIN_INPUT_SIZE", multiple)
    return [size, *(check_input_size(size, "TRAIN_MULTISCALE", multiple) for size in more)]


def configured_schedule(steps_per_epoch: int, network: Network) -> Schedule:
    """Return the Schedule of the training, with the lengths given in epochs turned into steps."""
    return Schedule(
        steps=configs.TRAIN_EPOCHS * steps_per_epoch,
        warm_up=round(configs.TRAIN_WARMUP_EPOCHS * steps_per_epoch),
        freeze=min(configs.TRAIN_FREEZE_EPOCHS, configs.TRAIN_EPOCHS) * steps_per_epoch,
        lr_init=configs.TRAIN_LR_INIT,
        lr_end=configs.TRAIN_LR_END,
        ema=configs.TRAIN_EMA,
        backbone=network.backbone or 0,
    )


def transfers() -> bool:
    """Return whether the training begins with Darknet's weights."""
    return configs.TRAIN_TRANSFER and not configs.TRAIN_FROM_CHECKPOINT


def load_first_weights(network: keras.Model, spec: ModelSpec) -> None:
    """Load a checkpoint's weights or Darknet's, as configs.py says, or leave the network's random ones."""
    if configs.TRAIN_FROM_CHECKPOINT:
        folder = find(configs.TRAIN_FROM_CHECKPOINT, spec.tiny, configs.TRAIN_CHECKPOINTS_FOLDER)
        made = read_model(folder)
        if (made.name, len(made.classes)) != (spec.name, len(spec.classes)):
            raise UserError(
                f"TRAIN_FROM_CHECKPOINT: {folder} is {made.name} with {len(made.classes)} classes, not {spec.name} "
                f"with {len(spec.classes)}: name another in yolov3/configs.py"
            )
        load_arrays(network, read_weights(folder, array_shapes(network)), folder)
    elif transfers():
        weights = in_project(default_weights(configured_network()))
        fetch_weights(weights)
        tell_unofficial(project_path(weights), None)
        taken = transfer_yolo_weights(network, weights)
        print(f"TRAIN_TRANSFER: {taken} of {len(convolutions(network))} convolutions begin with {weights}")


def make_batches(
    records: list[Record], spec: ModelSpec, strategy: tf.distribute.Strategy
) -> Callable[[int], tf.data.Dataset]:
    """Return a function of the first step that returns the endless batches from there on: this worker's share."""
    workers, index = place_among_workers(strategy)
    sizes = configured_sizes(spec.network.multiple)
    augmentation = AUGMENTED._replace(mosaic=configs.TRAIN_MOSAIC, flip=bool(configs.TRAIN_FLIP))

    def batches(first_step):
        share = training_batches(
            records,
            sizes,
            configs.TRAIN_BATCH_SIZE // workers,
            spec.resize,
            augmentation if configs.TRAIN_DATA_AUG else PLAIN,
            configs.TRAIN_SEED,
            first_step,
            (index, workers),
            configs.YOLO_MAX_PIXELS,
        )
        return as_distributed(share, configs.TRAIN_BATCH_SIZE // strategy.num_replicas_in_sync, strategy)

    return batches


# --- Training --------------------------------------------------------------------------------------------------------


def begin(
    trainer: Trainer, spec: ModelSpec, backup: Backup, folder: str, overwrite: bool, strategy: tf.distribute.Strategy
) -> None:
    """Give the network its first weights, or those of an interrupted training.

    Raises UserError if the checkpoint of that name exists and is neither to be continued nor to be replaced.
    """
    state = None if overwrite else backup.read()
    if state is None and not overwrite and project_path(folder).exists():
        raise UserError(
            f"{folder} is there already: give --overwrite to replace it, or change TRAIN_MODEL_NAME in "
            f"yolov3/configs.py; for more epochs set TRAIN_FROM_CHECKPOINT = {Path(folder).name!r}, too"
        )
    with strategy.scope():
        if state is None:
            load_first_weights(trainer.network, spec)
            trainer.begin()
            backup.discard()
        else:
            backup.restore(state)
            print(f"going on at step {trainer.steps_done} of {trainer.schedule.steps}, from {backup.file}")
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
    training, _ = read_pictures(configs.TRAIN_ANNOT_PATH, len(spec.classes))
    tested = read_pictures(configs.TEST_ANNOT_PATH, len(spec.classes))
    print(f"{len(training)} pictures to train on, {len(tested[0])} to measure on")

    # 2. The network, new or as an interrupted training left it
    steps_per_epoch = max(1, round(len(training) / configs.TRAIN_BATCH_SIZE))
    precision = training_precision(configs.TRAIN_PRECISION)
    input_size = spec.input_size if len(configured_sizes(spec.network.multiple)) == 1 else None
    with strategy.scope():
        parts = make_network(spec.network, len(spec.classes), input_size, precision, configs.TRAIN_SEED)
    schedule = configured_schedule(steps_per_epoch, spec.network)
    trainer = Trainer(*parts, spec.heads, configs.TRAIN_BATCH_SIZE, schedule)
    settings = {name: getattr(configs, name) for name in CONTINUE_WITH}
    settings |= {"number of pictures": len(training), "classes": spec.classes, "FP16": precision == "FP16"}
    backup = Backup(trainer, f"{folder}_backup.npz", settings, configs.TRAIN_BACKUP_SECONDS, chief)
    begin(trainer, spec, backup, folder, overwrite, strategy)
    if chief:
        write_settings(log)

    # 3. Training
    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD
    detector = Detector(averaged_network(trainer, spec.input_size), spec, *thresholds)
    validation = Validation(detector, *tested, thresholds, configs.TEST_BATCH_SIZE, configs.YOLO_MAX_PIXELS, chief)
    keep = Keep(folder, spec, f"train.py, {configs.TRAIN_ANNOT_PATH}", backup, configs.TRAIN_PATIENCE)
    measuring = [validation, keep, *([TensorBoard(log, validation)] if chief else [])]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by clusters to end a job: treated as Ctrl-C
    try:
        if trainer.steps_done % steps_per_epoch == 0 and trainer.steps_done > backup.progress["measured_step"]:
            end_epoch(trainer, measuring, strategy)  # the validation after the last step was interrupted
        callbacks = [EpochMeans(), TerminateOnNaN(), backup, *measuring]
        train(trainer, make_batches(training, spec, strategy), steps_per_epoch, callbacks, strategy)
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
    if best <= 0:
        print(
            "AP50 0: nothing was found on the pictures of TEST_ANNOT_PATH. More TRAIN_EPOCHS, TRAIN_TRANSFER = True for"
            " photographs, or TRAIN_ANCHORS that fit (python tools/Anchors.py) help; python tools/Check_annotations.py "
            "looks for wrong boxes"
        )


if __name__ == "__main__":
    main()
