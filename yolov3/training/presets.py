"""What TRAIN_PRESET stands for: the values of the constants of a training that are "AUTO"."""

from typing import Any, NamedTuple

from yolov3 import configs
from yolov3.anchors import box_sizes, fit_heads
from yolov3.checkpoint import find, read_model
from yolov3.checks import UserError, choose, read_class_names
from yolov3.heads import configured_network, heads_to_train
from yolov3.training.configured import AUTO, Pictures, configured_sizes, transfers

import numpy as np

STEPS = 2000  # a training should have at least so many
BATCH_SIZES = 16, 8, 4  # pictures a step: the largest of these with which it has them, or else the last
LEARNING_RATE = 1e-3
# Fewer pictures than this, of classes that the weights know already, make a network forget more than it learns. It
# then learns at the slow rate, for the fewest epochs of the preset (docs/training.md).
FEW_PICTURES = 100
SLOW_RATE = 1e-4
FACTOR = 3.0  # an anchor suits a box that is at most so many times as wide or high, or that part of it
BAD_FIT = 0.9  # anchors fit badly if fewer of the boxes have one that suits them


class Preset(NamedTuple):
    """Values for a kind of pictures."""

    transfer: bool
    flip: bool
    always_fit: bool  # anchors; otherwise only where the published ones fit badly
    epochs: int  # for so many pictures; twice as many for a quarter of them
    pictures: int
    fewest: int  # epochs
    most: int

    def epochs_for(self, pictures: int) -> int:
        """Return the epochs for a number of pictures: the fewer pictures, the more epochs."""
        return min(max(round(self.epochs * (self.pictures / pictures) ** 0.5), self.fewest), self.most)

    def batch_size_for(self, pictures: int, devices: int) -> int:
        """Return the pictures of a step for a number of pictures, a multiple of the devices that share them."""
        seen = self.epochs_for(pictures) * pictures
        size = next((size for size in BATCH_SIZES if seen >= STEPS * size), BATCH_SIZES[-1])
        return -(-size // devices) * devices


PRESETS = {
    "photographs": Preset(True, True, False, 30, 300, 15, 100),
    "scratch": Preset(False, False, True, 20, 4000, 20, 200),
}


def configured_preset() -> Preset:
    """Return what TRAIN_PRESET names."""
    return PRESETS[choose("TRAIN_PRESET", configs.TRAIN_PRESET, PRESETS)]


def resolve(preset: Preset, training: Pictures, classes: int, devices: int = 1) -> str:
    """Replace the constants of configs.py that are "AUTO" by their values for these pictures, and return them in words.

    From then on configs.py says what this training uses, and so does all that is written of it.
    """
    told: dict[str, Any] = {}

    def decide(**values: Any) -> None:
        chosen = {name: value for name, value in values.items() if getattr(configs, name) == AUTO}
        vars(configs).update(chosen)
        told.update(chosen)

    count = len(training.records)
    decide(TRAIN_TRANSFER=preset.transfer, TRAIN_FLIP=preset.flip)
    if count < FEW_PICTURES and knows_classes(classes):
        decide(TRAIN_EPOCHS=preset.fewest, TRAIN_LR_INIT=SLOW_RATE)
    decide(
        TRAIN_EPOCHS=preset.epochs_for(count),
        TRAIN_LR_INIT=LEARNING_RATE,
        TRAIN_BATCH_SIZE=preset.batch_size_for(count, devices),
    )
    if configs.TRAIN_ANCHORS == AUTO:
        decide(TRAIN_ANCHORS=choose_anchors(training, classes, preset.always_fit))
    values = ", ".join(f"{constant} = {value}" for constant, value in told.items())
    return f"TRAIN_PRESET = {configs.TRAIN_PRESET!r}: {values or 'nothing is left to it'}"


def knows_classes(classes: int) -> bool:
    """Return whether the training begins with weights of so many classes, so that it takes their heads over."""
    if not transfers():
        return bool(configs.TRAIN_FROM_CHECKPOINT)  # which is refused if it has other classes
    network = configured_network()
    return classes == (network.cfg.classes if network.cfg else len(read_class_names(configs.YOLO_COCO_CLASSES)))


def choose_anchors(training: Pictures, classes: int, always_fit: bool) -> tuple | None:
    """Return the anchors to train with: those of the checkpoint that the training begins with, fitted ones, or None for
    the network's own, if they fit or if heads that learnt with them are taken over."""
    if configs.TRAIN_FROM_CHECKPOINT:
        made = find(configs.TRAIN_FROM_CHECKPOINT, configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
        return read_model(made).heads.anchors
    if knows_classes(classes):
        return None
    network = configured_network()
    anchors = heads_to_train(network, transfers()).anchors
    size = configured_sizes(network.multiple)[0]
    sizes = box_sizes(training.records, training.sizes, size, configs.YOLO_RESIZE)
    ratio = sizes[:, np.newaxis] / np.array(sum(anchors, ()), float)  # (boxes, anchors, 2)
    suited = np.maximum(ratio, 1 / ratio).max(-1).min(-1) <= FACTOR
    if suited.mean() >= BAD_FIT and not always_fit:
        return None
    try:
        return fit_heads(sizes, [len(head) for head in anchors], seed=0)
    except UserError:  # fewer sizes than anchors
        return None
