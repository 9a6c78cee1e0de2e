"""Train a network: the step that Keras' `fit` repeats, the learning rate, precision, devices and machines.

Nothing here reads configs.py or writes a file; callbacks.py writes what is kept of a training.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from yolov3.checks import UserError, choose
from yolov3.darknet import convolutions, heads_of
from yolov3.networks import Heads, Network
from yolov3.runtimes.common import cpu_flags
from yolov3.training.loss import count_objects, yolo_loss
from yolov3.yolov4 import model_name

import keras
import numpy as np
import tensorflow as tf

POLICIES = {"FP32": "float32", "BF16": "mixed_bfloat16", "FP16": "mixed_float16"}
PRECISIONS = ("AUTO", *POLICIES)
OBJECTNESS = 0.01  # what new heads predict in every cell, since most are empty (Lin et al. 2017, "Focal Loss")
MAX_GRADIENT = 10.0  # largest norm of all gradients of a step together
WEIGHT_DECAY = 5e-4  # of kernels, as `decay` in yolov4.cfg
EMA_START = 10  # the first steps of the average forget faster: it keeps at most (1 + step) / (10 + step) of itself


# Keras' CosineDecay with warm-up cannot give these rates: it is at lr_init for one step, this for two, the last of the
# warm-up and the first of the cosine. That makes up to 1 % of lr_init in 100 steps, 0.03 % in 3,000.
class Schedule(NamedTuple):
    """Say how long and how fast to learn. Lengths are in steps, not epochs."""

    steps: int  # of the whole training
    warm_up: int  # the first steps, in which the learning rate rises to lr_init
    freeze: int  # the first steps, in which the backbone does not learn
    lr_init: float
    lr_end: float
    ema: float  # 0..1, share of the averaged weights that a step keeps
    backbone: int = 0  # convolutions that do not change while the backbone is frozen

    def learning_rate(self, step: int | tf.Tensor) -> tf.Tensor:
        """Return the rate of a step: it rises linearly, then falls along half a cosine (Loshchilov 2017)."""
        step = tf.cast(step, tf.float32)
        rising = (step + 1) / max(self.warm_up, 1)
        done = (step - self.warm_up) / max(self.steps - 1 - self.warm_up, 1)
        falling = (1 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0))) / 2
        return tf.where(
            step < self.warm_up, rising * self.lr_init, self.lr_end + falling * (self.lr_init - self.lr_end)
        )


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Give a Schedule's rates to an optimizer that is made anew at step `first` and counts its own steps from 0."""

    def __init__(self, schedule: Schedule, first: int):
        self.schedule, self.first = schedule, first

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self.schedule.learning_rate(tf.cast(step, tf.int64) + self.first)


class Trainer(keras.Model):
    """Train on batches (images float32 (B, h, w, 3), truth float32 (B, K, 5)), as dataset.py makes them.

    network  the network that learns
    average  a tf.Variable for each variable of the network: its exponential moving average, which validation and the
             checkpoints take
    step     tf.Variable, int64: the steps done, those before an interruption included
    """

    def __init__(
        self,
        network: keras.Model,
        average: list[tf.Variable],
        step: tf.Variable,
        heads: Heads,
        global_batch: int,
        schedule: Schedule,
    ):
        super().__init__()
        self.network, self.average, self.step = network, average, step
        self.heads, self.global_batch, self.schedule = heads, global_batch, schedule

    def train_step(self, batch: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Learn from this replica's part of a batch. Return the loss and its terms by name, per object of the batch.

        What is minimised is the mean over the pictures, to which one with many objects adds much.
        """
        # 1. Loss and gradients
        images, truth = batch
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            raw_heads = tf.nest.flatten(self.network(images, training=True))  # Keras gives a single one without a list
            terms = yolo_loss(raw_heads, truth, self.heads)
            terms = {name: tf.reduce_sum(term) / self.global_batch for name, term in terms.items()}
            scaled = self.optimizer.scale_loss(sum(terms.values()))
        gradients, objects = tape.gradient(scaled, variables), count_objects(truth)

        # 2. Sums over all replicas, so that the gradients are clipped as on a single device
        replica = tf.distribute.get_replica_context()
        count = replica.num_replicas_in_sync
        if count > 1:
            terms, gradients, objects = replica.all_reduce(tf.distribute.ReduceOp.SUM, (terms, gradients, objects))
            gradients = [gradient / count for gradient in gradients]  # the optimizer adds them up again

        # 3. The weights, their average, and the number of steps done
        self.optimizer.apply(gradients, variables)
        done = tf.cast(self.step, tf.float32)
        keep = tf.minimum(self.schedule.ema, (1 + done) / (EMA_START + done))
        for average, variable in zip(self.average, self.network.variables, strict=True):
            average.assign(average * keep + tf.convert_to_tensor(variable) * (1 - keep))
        self.step.assign_add(1)

        logs = {name: term * self.global_batch / tf.maximum(objects, 1.0) for name, term in terms.items()}
        logs = {"loss": sum(logs.values()), **logs}
        # With several workers Keras 3's `fit` reduces logs along their first axis, so they need one (keras#20585)
        return {name: value[tf.newaxis] for name, value in logs.items()} if count > 1 else logs

    @property
    def steps_done(self) -> int:
        return int(self.step.numpy())

    def averages(self) -> dict[int, tf.Variable]:
        """Return the averages of the network's variables by the id() of each variable."""
        return dict(zip(map(id, self.network.variables), self.average, strict=True))

    def begin(self, step: int = 0) -> None:
        """Get ready for a step, with the weights as the first average. Called in the strategy's scope."""
        self.step.assign(step)
        for average, variable in zip(self.average, self.network.variables, strict=True):
            average.assign(tf.convert_to_tensor(variable))
        self.prepare()

    def prepare(self) -> None:
        """Make the optimizer of what learns from this step on: everything, or everything but the backbone.

        Called in the strategy's scope.
        """
        frozen = self.steps_done < self.schedule.freeze
        freeze_backbone(self.network, self.schedule.backbone if frozen else 0)
        optimizer = keras.optimizers.AdamW(
            LearningRate(self.schedule, 0 if frozen else self.schedule.freeze),
            weight_decay=WEIGHT_DECAY,
            global_clipnorm=MAX_GRADIENT / tf.distribute.get_strategy().num_replicas_in_sync,  # of a replica's share
        )
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        if self.network.layers[1].compute_dtype == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(self.network.trainable_variables)
        self.compile(optimizer=optimizer, jit_compile=False)

    def learning_rate(self) -> float:
        """Return the learning rate of the last step."""
        return float(self.schedule.learning_rate(self.steps_done - 1))


def make_network(
    network: Network, classes: int, input_size: tuple[int, int] | None, precision: str, seed: int
) -> tuple[keras.Model, list[tf.Variable], tf.Variable]:
    """Return a new model of that network and number of classes, its average and its step, to make a Trainer of.

    input_size  (height, width), or None for any
    seed        of the random first weights
    Called in the strategy's scope, in which variables must be made. The Trainer itself must be made outside of it:
    inside, Keras 3 cannot train with several workers.
    """
    keras.utils.set_random_seed(seed)
    with in_precision(precision):
        images = keras.Input((*(input_size or (None, None)), 3), name="images")
        raw_heads, _ = network.build(images, classes)
        model = keras.Model(images, raw_heads, name=model_name(network))
    for _, norm in convolutions(model):
        if norm:
            norm.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    of_anchor = [0.0] * 4 + [math.log(OBJECTNESS / (1 - OBJECTNESS))] + [0.0] * classes
    for head in heads_of(model):
        head.bias.assign(tf.tile(of_anchor, [head.anchors]))

    first = tf.VariableAggregation.ONLY_FIRST_REPLICA  # all replicas compute the same values
    average = [tf.Variable(variable, trainable=False, aggregation=first) for variable in model.variables]
    return model, average, tf.Variable(0, trainable=False, dtype=tf.int64, aggregation=first)


def freeze_backbone(network: keras.Model, frozen: int) -> None:
    """Set that so many convolutions, and their normalisations, are frozen; the others learn."""
    for i, (conv, norm) in enumerate(convolutions(network)):
        conv.trainable = i >= frozen
        if norm:
            norm.trainable = conv.trainable


def train(
    trainer: Trainer,
    batches: Callable[[int], tf.data.Dataset],
    steps_per_epoch: int,
    callbacks: list[keras.callbacks.Callback],
    strategy: tf.distribute.Strategy,
) -> None:
    """Call Keras' `fit` for each stage in turn: the rest of an interrupted epoch, the frozen epochs, the others.

    batches  a function of the first step that returns the endless batches from there on
    """
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
                shuffle=False,  # the batches are shuffled already
                verbose=0,  # `progress.Progress` shows what Keras does not: the time left, a loss per object
            )


# --- Precision -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_precision(precision: str) -> Iterator[None]:
    """Let networks made inside compute in "FP32", "BF16" or "FP16". Their variables and heads stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def training_precision(wanted: str) -> str:
    """Return "FP32", "BF16" or "FP16" for a value of TRAIN_PRECISION. "AUTO" takes the fastest on this machine."""
    if choose("TRAIN_PRECISION", wanted, PRECISIONS) != "AUTO":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = min(tf.config.experimental.get_device_details(x).get("compute_capability", (0, 0)) for x in gpus)
        return "BF16" if capability >= (8, 0) else "FP16" if capability >= (7, 0) else "FP32"
    return "BF16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "FP32"


# --- Devices and machines --------------------------------------------------------------------------------------------


def choose_strategy(global_batch: int | None) -> tf.distribute.Strategy:
    """Return the strategy for the machines in TF_CONFIG, or for all GPUs of this one, or for its only device.

    Called before TensorFlow does anything else. Raises UserError if the devices cannot share the global batch equally;
    None is a batch that is yet to be chosen.
    """
    config = os.environ.get("TF_CONFIG")
    if config:
        try:
            json.loads(config)["cluster"]["worker"]
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"TF_CONFIG does not say which worker this is ({error}): see docs/training.md") from None
    elif len(tf.config.list_physical_devices("GPU")) > 1:
        strategy = tf.distribute.MirroredStrategy()
    else:
        strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if global_batch and global_batch % replicas:
        raise UserError(f"TRAIN_BATCH_SIZE = {global_batch} cannot be shared by {replicas} devices: use a multiple")
    return strategy


def place_among_workers(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Return the number of workers and the index of this one: (1, 0) if it is alone. Index 0 is the chief."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 1, 0
    chiefs = resolver.cluster_spec().as_dict().get("chief", [])
    workers = len(chiefs) + resolver.cluster_spec().num_tasks("worker")
    return workers, resolver.task_id + (len(chiefs) if resolver.task_type == "worker" else 0)


def as_distributed(share: tf.data.Dataset, replica_batch: int, strategy: tf.distribute.Strategy) -> Any:
    """Return a worker's share of the batches as `fit` takes it: divided among the devices of this worker."""
    if strategy.num_replicas_in_sync == 1:
        return share
    return strategy.distribute_datasets_from_function(lambda _: share.rebatch(replica_batch))


def from_chief(values: np.ndarray | list[float]) -> np.ndarray | list[float]:
    """Return the chief's values in every process; the other workers pass zeros."""
    strategy = tf.distribute.get_strategy()
    workers, _ = place_among_workers(strategy)
    if workers == 1:
        return values
    total = strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(values)), None)
    return total.numpy() * workers / strategy.num_replicas_in_sync  # every device of the chief has added them
