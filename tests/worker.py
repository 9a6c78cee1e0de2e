"""One worker of a training: python worker.py FOLDER STEPS DEVICES; TF_CONFIG says which. For test_distribution.py.

Trains a small network with fixed first weights on FOLDER/annotations.txt through train.py's own functions and prints
the losses as JSON. With more than one device the CPU is cut into so many, as GPUs would be.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from yolov3 import configs
from yolov3.cfg.network import network_of
from yolov3.checkpoint import ModelSpec
from yolov3.training.callbacks import EpochMeans
from yolov3.training.configured import make_batches
from yolov3.training.trainer import (
    Schedule,
    Trainer,
    choose_strategy,
    from_chief,
    make_network,
    place_among_workers,
    train,
)

import cfgs
import keras
import tensorflow as tf
from oracle import read_annotations

SIZE, CLASSES, BATCH = 96, 2, 4
LEARNING_RATE = 1e-3


def mirrored(devices):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])


def main(folder, steps, devices):
    configs.TRAIN_BATCH_SIZE, configs.TRAIN_DATA_AUG = BATCH, False
    configs.TRAIN_INPUT_SIZE, configs.TRAIN_MULTISCALE = SIZE, (64,)
    network = network_of(cfgs.SMALL, Path("small.cfg"), "small")
    strategy = mirrored(devices) if devices > 1 else choose_strategy(BATCH)
    workers, index = place_among_workers(strategy)
    with strategy.scope():
        parts = make_network(network, CLASSES, None, "FP32", seed=7 + index)  # the first worker's weights count
    trainer = Trainer(*parts, network.heads, BATCH, Schedule(steps, 5, 0, LEARNING_RATE, LEARNING_RATE / 10, 0.99))
    model = ModelSpec("small", False, ("a", "b"), (SIZE, SIZE), "letterbox", network.heads, cfg=cfgs.SMALL)
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    records = read_annotations(Path(folder) / "annotations.txt")
    with strategy.scope():
        trainer.begin()
    train(trainer, make_batches(records, model, strategy), steps, [EpochMeans(), Losses()], strategy)
    with strategy.scope():
        shared = from_chief([0.25 if index == 0 else 0.0, 0.5 if index == 0 else 0.0])
    print(json.dumps({"workers": workers, "index": index, "losses": losses, "shared": [float(x) for x in shared]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
