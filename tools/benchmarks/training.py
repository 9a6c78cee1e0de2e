"""Measure how fast train.py trains and how much memory it takes, beside the same training step alone.

python -m tools.benchmarks.training                        the configured network, on the pictures of TRAIN_ANNOT_PATH
python -m tools.benchmarks.training mine.txt --batch 8     other pictures, another batch size
python -m tools.benchmarks.training --markdown bench.md

In each round every contender of one precision does --steps steps, in shuffled order. The first round is not counted.
Peak memory is that of a whole process, including Python and its libraries, which trains a few steps.
"""

import argparse
import dataclasses
import functools
import gc
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tools.benchmarks.measuring import describe_machine, markdown, measure_memory, run_in_rounds
from yolov3 import checks, configs, layers
from yolov3.annotations.cli import read_pictures
from yolov3.annotations.format import Record
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError
from yolov3.dataset import training_batches
from yolov3.files import check_output, whole_file
from yolov3.runtimes.tf import allow_memory_growth
from yolov3.settings import ScriptParser, configured_names
from yolov3.sizes import size_name, size_of
from yolov3.training.augment import AUGMENTED
from yolov3.training.backup import Backup
from yolov3.training.callbacks import EpochMeans, TensorBoard, TerminateOnNaN
from yolov3.training.configured import Pictures, configured_spec
from yolov3.training.loss import yolo_loss
from yolov3.training.presets import configured_preset, resolve
from yolov3.training.trainer import MAX_GRADIENT, WEIGHT_DECAY, Schedule, Trainer, make_network

import keras
import numpy as np
import tensorflow as tf

Run = Callable[[int], float]  # does so many steps and returns the milliseconds of one
SCHEDULE = Schedule(steps=10**6, warm_up=0, freeze=0, lr_init=1e-4, lr_end=1e-4, ema=0.998)  # any takes as long
UNTIMED = 3  # steps of each round before the clock starts, in which the pipeline fills its buffers
MEMORY_STEPS = 3  # timed steps of the process whose peak memory is measured
TRAIN, BARE, PLAIN = "train.py", "bare step, one cached batch", "plain Keras step, one cached batch"
BUDGETS = {"FP32": 0.9, "BF16": 0.8}  # least ratio of the steps a second of train.py to those of the bare step


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSetup:
    """Hold all that the contenders need."""

    model: ModelSpec
    records: list[Record]
    batch: int  # pictures in a batch

    def batches(self) -> tf.data.Dataset:
        """Return what train.py trains on: augmented batches without end."""
        augmentation = AUGMENTED._replace(mosaic=configs.TRAIN_MOSAIC, flip=configs.TRAIN_FLIP is True)
        return training_batches(
            self.records, [self.model.input_size], self.batch, self.model.resize, augmentation, configs.TRAIN_SEED
        )

    @functools.cached_property
    def cached_batch(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return one batch, always the same."""
        return next(iter(self.batches()))


# --- Contenders: each returns a function that does so many steps and returns the milliseconds of one -----------------


@functools.cache
def make_trainer(setup: TrainingSetup, precision: str) -> Trainer:
    """Return the Trainer of a precision, made once."""
    model = setup.model
    parts = make_network(model.network, len(model.classes), model.input_size, precision, configs.TRAIN_SEED)
    trainer = Trainer(*parts, model.heads, setup.batch, SCHEDULE)
    trainer.begin()
    return trainer


class Clock(keras.callbacks.Callback):
    """Note when each step ends."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.ends = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.ends.append(time.perf_counter())


class NoValidation(keras.callbacks.Callback):
    """Take the place of Validation, since the end of an epoch is not measured."""

    records = ()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs.update(AP50=0.0, AP=0.0, val_loss=0.0)


def train_py(setup: TrainingSetup, precision: str) -> Run:
    """Return `fit` with all that train.py does at each step, and a step's share of the backups."""
    trainer, batches = make_trainer(setup, precision), setup.batches()

    def run(steps):
        clock, validation = Clock(), NoValidation()
        with tempfile.TemporaryDirectory() as folder:
            backup = Backup(trainer, f"{folder}/backup.npz", {}, math.inf, is_chief=True)
            board = TensorBoard(f"{folder}/log", validation)
            callbacks = [EpochMeans(), TerminateOnNaN(), backup, validation, board, clock]
            trainer.fit(batches, steps_per_epoch=UNTIMED + steps, callbacks=callbacks, verbose=0, shuffle=False)
            board.writer.close()
            started = time.perf_counter()
            backup.save()
            share = (time.perf_counter() - started) / max(configs.TRAIN_BACKUP_SECONDS, 1)
        return 1000 * (clock.ends[-1] - clock.ends[UNTIMED - 1]) / steps * (1 + share)

    return run


def repeated(step: Callable, batch: tuple[tf.Tensor, tf.Tensor]) -> Run:
    """Return a step that is repeated on one batch."""
    step = tf.function(step, autograph=False)

    def run(steps):
        for _ in range(UNTIMED):
            loss = step(batch)
        float(loss)  # waits for a GPU
        started = time.perf_counter()
        for _ in range(steps):
            loss = step(batch)
        float(loss)
        return 1000 * (time.perf_counter() - started) / steps

    return run


def bare_step(setup: TrainingSetup, precision: str) -> Run:
    """Return the training step of train.py alone."""
    trainer = make_trainer(setup, precision)
    return repeated(lambda batch: trainer.train_step(batch)["loss"], setup.cached_batch)


def plain_step(setup: TrainingSetup, precision: str) -> Run:
    """Return a simple training step, with Keras' normalisation and without averaged weights."""
    network = keras.models.clone_model(make_trainer(setup, precision).network, clone_function=as_keras_has_it)
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=WEIGHT_DECAY, global_clipnorm=MAX_GRADIENT)
    optimizer.build(network.trainable_variables)

    def step(batch):
        images, truth = batch
        with tf.GradientTape() as tape:
            terms = yolo_loss(network(images, training=True), truth, setup.model.heads)
            loss = tf.reduce_mean(sum(terms.values()))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply(gradients, network.trainable_variables)
        return loss

    return repeated(step, setup.cached_batch)


def as_keras_has_it(layer: keras.Layer) -> keras.Layer:
    """Return a copy of a layer, with Keras' normalisation in place of ours."""
    kind = keras.layers.BatchNormalization if isinstance(layer, layers.BatchNormalization) else type(layer)
    return kind.from_config(layer.get_config())


CONTENDERS = {TRAIN: train_py, BARE: bare_step, PLAIN: plain_step}


# --- Measuring -------------------------------------------------------------------------------------------------------


def train_a_little(setup: TrainingSetup, make: Callable[[TrainingSetup, str], Run], precision: str) -> None:
    """Train a few steps."""
    allow_memory_growth()
    make(setup, precision)(MEMORY_STEPS)


def measure_contenders(setup: TrainingSetup, precision: str, rounds: int, steps: int) -> dict[str, tuple[float, float]]:
    """Return {contender: (median ms a step, peak MB)}. Raises UserError if one cannot train."""
    memory = {name: measure_memory(train_a_little, setup, make, precision) for name, make in CONTENDERS.items()}
    if broken := [f"{name}, {precision}: {why}" for name, (_, why) in memory.items() if why]:
        raise UserError(f"{broken[0]} Try a smaller --batch or --size")
    calls = {name: functools.partial(make(setup, precision), steps) for name, make in CONTENDERS.items()}
    milliseconds = run_in_rounds(calls, 1 + rounds, precision)
    return {name: (np.median(values[1:]), memory[name][0]) for name, values in milliseconds.items()}


def read_setup(arguments: argparse.Namespace) -> TrainingSetup:
    """Return the TrainingSetup that the constants and the command line describe. Raises UserError."""
    path = arguments.annotations.absolute() if arguments.annotations else configs.TRAIN_ANNOT_PATH
    classes = len(configured_names())
    checked = read_pictures(path, classes)
    resolve(configured_preset(), Pictures(checked.records, checked.sizes), classes)
    model = configured_spec()
    if arguments.size:
        model = dataclasses.replace(model, input_size=checks.check_input_size(arguments.size))
    return TrainingSetup(model, checked.records, arguments.batch or configs.TRAIN_BATCH_SIZE)


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("annotations", nargs="?", type=Path, help="annotation file (TRAIN_ANNOT_PATH)")
    parser.add_argument("--precisions", nargs="+", default=list(BUDGETS), help=", ".join(BUDGETS))
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are counted (5)")
    parser.add_argument("--steps", type=int, default=10, help="steps of each contender in a round (10)")
    parser.add_argument("--batch", type=int, help="pictures (TRAIN_BATCH_SIZE)")
    parser.add_argument("--size", type=size_of, help="network input, pixels: 416 or 256x416 (TRAIN_INPUT_SIZE)")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="also write the tables to this file")
    arguments = parser.parse_args()

    for precision in arguments.precisions:
        checks.choose("--precisions", precision, BUDGETS)
    for name in ("rounds", "steps", "batch"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UserError(f"--{name} is {value}, but it must be at least 1")
    if arguments.markdown:
        check_output(arguments.markdown, (".md",))
    return arguments


@checks.say_it_in_one_line
def main() -> None:
    arguments = parse_arguments()
    allow_memory_growth()
    setup = read_setup(arguments)
    rows, budgets = [], []
    for precision in arguments.precisions:
        figures = measure_contenders(setup, precision, arguments.rounds, arguments.steps)
        make_trainer.cache_clear()
        gc.collect()
        for name, (median, peak) in figures.items():
            rows.append([name, precision, f"{median:.1f}", f"{1000 * setup.batch / median:.1f}", f"{peak:.0f}"])
        ratio, least = figures[BARE][0] / figures[TRAIN][0], BUDGETS[precision]
        met = "yes" if ratio >= least else "NO"
        budgets.append([f"{TRAIN} / {BARE}", precision, f"{ratio:.2f}", f"at least {least:.2f}", met])

    model = setup.model
    report = (
        f"{describe_machine()}\n\n{model.name} at {size_name(model.input_size)}, {len(model.classes)} classes, batch "
        f"{setup.batch}, {arguments.rounds} rounds of {arguments.steps} steps; peak memory of the whole process\n\n"
        f"{markdown('contender|precision|median ms a step|pictures/s|peak MB', rows)}\n\n"
        f"{markdown('ratio of step rates|precision|measured|budget|met', budgets)}\n"
    )
    print(f"\n{report}")
    if arguments.markdown:
        with whole_file(arguments.markdown) as part:
            part.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
