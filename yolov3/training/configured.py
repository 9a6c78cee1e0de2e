"""Read from configs.py what a training is: which network, on which pictures, from which weights, how long and how."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from yolov3 import configs
from yolov3.annotations.cli import read_pictures, tell_left_out
from yolov3.annotations.format import Record, draw_share
from yolov3.checkpoint import ModelSpec, find, read_model, read_weights
from yolov3.checks import (
    UserError,
    check_amount,
    check_count,
    check_input_size,
    check_path,
    check_threshold,
    choose,
    project_path,
)
from yolov3.darknet import array_shapes, convolutions, load_arrays, transfer_yolo_weights
from yolov3.dataset import readable, training_batches
from yolov3.downloads import fetch_weights
from yolov3.fitting import RESIZES, check_fixed
from yolov3.heads import configured_heads, configured_network, default_weights, heads_to_train, tell_unofficial
from yolov3.networks import Network
from yolov3.runtimes.common import in_project
from yolov3.settings import configured_names
from yolov3.training.augment import AUGMENTED, PLAIN
from yolov3.training.trainer import Schedule, as_distributed, place_among_workers

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
FRACTIONS = (
    *("TRAIN_LR_INIT", "TRAIN_LR_END", "TRAIN_EMA", "TRAIN_MOSAIC", "TRAIN_VAL_SPLIT"),
    *("TEST_SCORE_THRESHOLD", "TEST_IOU_THRESHOLD", "YOLO_SCORE_THRESHOLD"),
)
SWITCHES = "TRAIN_FLIP", "TRAIN_DATA_AUG", "TRAIN_TRANSFER"
AUTO = "AUTO"  # the value of a constant that TRAIN_PRESET and the pictures decide
AUTOMATIC = "TRAIN_TRANSFER", "TRAIN_FLIP", "TRAIN_EPOCHS", "TRAIN_LR_INIT", "TRAIN_BATCH_SIZE"  # and TRAIN_ANCHORS
# fmt: off
CONTINUE_WITH = (  # an interrupted training goes on only if these constants have not changed
    "YOLO_TYPE", "TRAIN_YOLO_TINY", "YOLO_ANCHORS", "TRAIN_ANCHORS", "YOLO_CFG", "YOLO_RESIZE", "TRAIN_CLASSES",
    "TRAIN_ANNOT_PATH", "TRAIN_VAL_PATH", "TRAIN_VAL_SPLIT", "TRAIN_INPUT_SIZE", "TRAIN_MULTISCALE",
    "TRAIN_BATCH_SIZE", "TRAIN_WARMUP_EPOCHS", "TRAIN_FREEZE_EPOCHS", "TRAIN_LR_INIT", "TRAIN_LR_END",
    "TRAIN_EMA", "TRAIN_SEED", "TRAIN_DATA_AUG", "TRAIN_MOSAIC", "TRAIN_FLIP",
)
# fmt: on


def configured_spec() -> ModelSpec:
    """Return the ModelSpec to train."""
    network = configured_network()
    classes, size = configured_names(), configured_sizes(network.multiple)[0]
    resize = choose("YOLO_RESIZE", configs.YOLO_RESIZE, RESIZES)
    check_fixed(resize, "the pictures of a batch have inputs of one size")
    heads = heads_to_train(network, transfers())
    if configs.TRAIN_ANCHORS not in (None, AUTO):
        heads = heads._replace(anchors=configured_heads(network, "TRAIN_ANCHORS").anchors)
    if configs.TRAIN_FREEZE_EPOCHS and network.backbone is None:
        text = "write stopbackward=1 into the last section of its backbone, or set TRAIN_FREEZE_EPOCHS = 0"
        raise UserError(f"{network.cfg.file} does not say which layers are the backbone: {text}")
    return ModelSpec(network.type, network.tiny, classes, size, resize, heads, cfg=network.text)


class Pictures(NamedTuple):
    """Annotated pictures that can be read."""

    records: list[Record]
    sizes: list[tuple[int, int]]  # (height, width) of each


def configured_pictures(class_count: int) -> tuple[Pictures, Pictures, Pictures | None]:
    """Return the pictures to train on, those that choose the best epoch, and those that the result is measured on."""
    training = readable_pictures(configs.TRAIN_ANNOT_PATH, class_count)
    tested = None if configs.TEST_ANNOT_PATH is None else readable_pictures(configs.TEST_ANNOT_PATH, class_count)
    if configs.TRAIN_VAL_PATH is not None:
        return training, readable_pictures(configs.TRAIN_VAL_PATH, class_count), tested
    return *split(training, configs.TRAIN_VAL_SPLIT, configs.TRAIN_SEED), tested


def readable_pictures(path: str, class_count: int) -> Pictures:
    """Return the records of an annotation file whose pictures can be read."""
    checked = read_pictures(path, class_count)
    good, problems = readable(checked.records, configs.YOLO_MAX_PIXELS)
    tell_left_out(problems)
    size_of = dict(zip((record.picture for record in checked.records), checked.sizes, strict=True))
    return Pictures(good, [size_of[record.picture] for record in good])


def split(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """Return pictures without a share of them, and that share, drawn at random; a single picture is in both."""
    if len(pictures.records) == 1:
        return pictures, pictures
    drawn = set(draw_share(pictures.records, share, seed))
    parts = ([i for i in range(len(pictures.records)) if (i in drawn) == wanted] for wanted in (False, True))
    records, sizes = pictures
    rest, part = (Pictures([records[i] for i in rows], [sizes[i] for i in rows]) for rows in parts)
    return rest, part


def check_constants() -> None:
    """Raise UserError if one of the TRAIN_ or TEST_ constants has a value that it cannot have."""
    automatic = [constant for constant in AUTOMATIC if isinstance(getattr(configs, constant), str)]
    for constant in automatic:
        if constant not in SWITCHES and getattr(configs, constant) != AUTO:
            raise UserError(f"{constant} = {getattr(configs, constant)!r} must be a number or {AUTO!r}")
    for constant, least in COUNTS:
        if constant not in automatic:
            check_count(constant, getattr(configs, constant), least)
    for constant in AMOUNTS:
        check_amount(constant, getattr(configs, constant))
    for constant in FRACTIONS:
        if constant not in automatic:
            check_threshold(constant, getattr(configs, constant))
    for constant in SWITCHES:
        choose(constant, getattr(configs, constant), (True, False, *([AUTO] if constant in AUTOMATIC else [])))
    name = configs.TRAIN_MODEL_NAME
    if not isinstance(name, str) or not name.strip(" ."):
        raise UserError(f"TRAIN_MODEL_NAME = {name!r} cannot name a folder: use yolo_custom, for example")
    check_path("TRAIN_MODEL_NAME", name)


def configured_sizes(multiple: int) -> list[tuple[int, int]]:
    """Return the input sizes (height, width) to train at, multiples of so many pixels, TRAIN_INPUT_SIZE first."""
    more: Sequence[int | tuple[int, int]] = configs.TRAIN_MULTISCALE or ()
    if not isinstance(more, (tuple, list)):
        raise UserError(f"TRAIN_MULTISCALE = {more!r} must be None or several sizes: (320, 352)")
    size = check_input_size(configs.TRAIN_INPUT_SIZE, "TRAIN_INPUT_SIZE", multiple)
    return [size, *(check_input_size(other, "TRAIN_MULTISCALE", multiple) for other in more)]


def configured_schedule(steps_per_epoch: int, network: Network) -> Schedule:
    """Return the Schedule of the training, with the lengths given in epochs turned into steps.

    It is called when `presets.resolve` has put numbers in place of "AUTO".
    """
    epochs: Any = configs.TRAIN_EPOCHS
    learning_rate: Any = configs.TRAIN_LR_INIT
    return Schedule(
        steps=epochs * steps_per_epoch,
        warm_up=round(configs.TRAIN_WARMUP_EPOCHS * steps_per_epoch),
        freeze=min(configs.TRAIN_FREEZE_EPOCHS, epochs) * steps_per_epoch,
        lr_init=learning_rate,
        lr_end=configs.TRAIN_LR_END,
        ema=configs.TRAIN_EMA,
        backbone=network.backbone or 0,
    )


def transfers() -> bool:
    """Return whether the training begins with Darknet's weights."""
    return configs.TRAIN_TRANSFER is True and not configs.TRAIN_FROM_CHECKPOINT


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


def plain_batches(records: list[Record], spec: ModelSpec) -> tf.data.Dataset:
    """Return batches of the pictures as they are, each once; a few twice where the last batch is not full."""
    batch, resize = min(configs.TEST_BATCH_SIZE, len(records)), spec.resize
    endless = training_batches(records, [spec.input_size], batch, resize, PLAIN, 0, max_pixels=configs.YOLO_MAX_PIXELS)
    return endless.take(-(-len(records) // batch))


def augmented_batches(
    records: list[Record], spec: ModelSpec, first_step: int = 0, shard: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Return the endless batches to train on from a step on: the part of them that is the worker's, `shard` as in
    `training_batches`."""
    batch_size: Any = configs.TRAIN_BATCH_SIZE
    augmentation = AUGMENTED._replace(mosaic=configs.TRAIN_MOSAIC, flip=configs.TRAIN_FLIP is True)
    return training_batches(
        records,
        configured_sizes(spec.network.multiple),
        batch_size // shard[1],
        spec.resize,
        augmentation if configs.TRAIN_DATA_AUG else PLAIN,
        configs.TRAIN_SEED,
        first_step,
        shard,
        configs.YOLO_MAX_PIXELS,
    )


def make_batches(
    records: list[Record], spec: ModelSpec, strategy: tf.distribute.Strategy
) -> Callable[[int], tf.data.Dataset]:
    """Return a function of the first step that returns the endless batches from there on: this worker's share."""
    workers, index = place_among_workers(strategy)
    replica_batch = configs.TRAIN_BATCH_SIZE // strategy.num_replicas_in_sync

    def batches(first_step):
        return as_distributed(augmented_batches(records, spec, first_step, (index, workers)), replica_batch, strategy)

    return batches
