"""Trains a network: the step that Keras' `fit` repeats, the learning rate, precision, devices and machines.

Nothing here reads configs.py or writes a file; what is written while training is the callbacks' work (callbacks.py).
"""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import UserError, choose
from yolov3.darknet import convolutions, heads_of
from yolov3.training.loss import DEFAULTS, yolo_loss
from yolov3.yolov4 import model_name

import keras
import tensorflow as tf

POLICIES = {"FP32": "float32", "BF16": "mixed_bfloat16", "FP16": "mixed_float16"}
PRECISIONS = ("AUTO", *POLICIES)
OBJECTNESS = 0.01  # what fresh heads answer everywhere: most cells are empty (Lin et al. 2017, "Focal Loss")
MAX_GRADIENT = 10.0  # norm of all gradients of a step together
WEIGHT_DECAY = 5e-4  # of kernels, yolov4.cfg's `decay`
EMA_START = 10  # the average's first steps forget faster: (1 + step) / (10 + step)


class Schedule(NamedTuple):
    """How long and how fast to learn. Steps, not epochs."""

    steps: int  # all of them
    warm_up: int  # the first of them, from nothing to lr_init
    freeze: int  # the first of them, with the backbone as it is
    lr_init: float
    lr_end: float
    ema: float  # 0..1, how much of the averaged weights a step keeps
    backbone: int = 0  # convolutions that stay as they are while it is frozen

    def learning_rate(self, step):
        """Of a step, a number or a tensor: rises in a line, then falls along half a cosine (Loshchilov 2017)."""
        step = tf.cast(step, tf.float32)
        rising = (step + 1) / max(self.warm_up, 1)
        done = (step - self.warm_up) / max(self.steps - 1 - self.warm_up, 1)
        falling = (1 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0))) / 2
        return tf.where(
            step < self.warm_up, rising * self.lr_init, self.lr_end + falling * (self.lr_init - self.lr_end)
        )


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A Schedule for an optimizer that is made anew at step `first`."""

    def __init__(self, schedule, first):
        self.schedule, self.first = schedule, first

    def __call__(self, step):
        return self.schedule.learning_rate(tf.cast(step, tf.int64) + self.first)


class Trainer(keras.Model):
    """What `fit` trains: takes batches (images float32 (B, S, S, 3), truth float32 (B, K, 5)) as dataset.py makes them.

    network  what learns; average  a tf.Variable for each of its variables, their exponential moving average, which is
    what validation sees and what is kept in the end; step  tf.Variable, int64, the steps done, over all runs.
    """

    def __init__(self, network, average, step, heads, global_batch, schedule, options=DEFAULTS):
        super().__init__()
        self.network, self.average, self.step = network, average, step
        self.heads, self.global_batch, self.schedule, self.options = heads, global_batch, schedule, options

    def train_step(self, batch):
        """One step on this replica's part of the batch -> {name: loss terms of the whole batch, a picture's mean}."""
        # 1. Loss and gradients
        images, truth = batch
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            raw_heads = tf.nest.flatten(self.network(images, training=True))  # Keras gives a single one without a list
            terms = yolo_loss(raw_heads, truth, self.heads, self.options)
            terms = {name: tf.reduce_sum(term) / self.global_batch for name, term in terms.items()}
            scaled = self.optimizer.scale_loss(sum(terms.values()))
        gradients = tape.gradient(scaled, variables)

        # 2. Of all replicas together, so that clipping sees what a single device would see
        replica = tf.distribute.get_replica_context()
        count = replica.num_replicas_in_sync
        if count > 1:
            terms, gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, (terms, gradients))
            gradients = [gradient / count for gradient in gradients]  # the optimizer adds them up once more

        # 3. Weights, their average, the count
        self.optimizer.apply(gradients, variables)
        done = tf.cast(self.step, tf.float32)
        keep = tf.minimum(self.schedule.ema, (1 + done) / (EMA_START + done))
        for average, variable in zip(self.average, self.network.variables, strict=True):
            average.assign(average * keep + tf.convert_to_tensor(variable) * (1 - keep))
        self.step.assign_add(1)

        logs = {"loss": sum(terms.values()), **terms}
        # Keras 3's fit reduces the logs of several workers along an axis (keras#20585)
        return {name: value[tf.newaxis] for name, value in logs.items()} if count > 1 else logs

    @property
    def steps_done(self):
        return int(self.step.numpy())

    def averages(self):
        """{id of a variable of the network: its average}."""
        return dict(zip(map(id, self.network.variables), self.average, strict=True))

    def begin(self, step=0):
        """Makes ready for that step. From the first on, the average is what the network is. Called in scope."""
        self.step.assign(step)
        for average, variable in zip(self.average, self.network.variables, strict=True):
            average.assign(tf.convert_to_tensor(variable))
        self.prepare()

    def prepare(self):
        """Makes the optimizer for what learns from this step on: all, or all but the backbone. Called in scope."""
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

    def learning_rate(self):
        """Of the last step."""
        return float(self.schedule.learning_rate(self.steps_done - 1))


def make_network(network, classes, input_size, precision, seed):
    """What a Trainer is made of -> network, average, step. Fresh weights, for that number of classes.

    network     a networks.Network

    input_size  pixels, or None for any
    seed        of the first weights
    Called inside `strategy.scope()`, where variables have to be made; the Trainer itself is made outside of it, where
    alone Keras 3 can train with several workers.
    """
    keras.utils.set_random_seed(seed)
    with in_precision(precision):
        images = keras.Input((input_size, input_size, 3), name="images")
        raw_heads, _ = network.build(images, classes)
        model = keras.Model(images, raw_heads, name=model_name(network))
    for _, norm in convolutions(model):
        if norm:
            norm.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    of_anchor = [0.0] * 4 + [math.log(OBJECTNESS / (1 - OBJECTNESS))] + [0.0] * classes
    for head in heads_of(model):
        head.bias.assign(tf.tile(of_anchor, [head.anchors]))

    first = tf.VariableAggregation.ONLY_FIRST_REPLICA  # all replicas compute the same
    average = [tf.Variable(variable, trainable=False, aggregation=first) for variable in model.variables]
    return model, average, tf.Variable(0, trainable=False, dtype=tf.int64, aggregation=first)


def freeze_backbone(network, frozen):
    """So many convolutions, and their normalisations, do not learn; the others do."""
    for i, (conv, norm) in enumerate(convolutions(network)):
        conv.trainable = i >= frozen
        if norm:
            norm.trainable = conv.trainable


# --- Precision -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_precision(precision):
    """Networks made inside compute in "FP32", "BF16" or "FP16"; their variables and heads are float32 all the same."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def training_precision(wanted):
    """TRAIN_PRECISION -> "FP32", "BF16" or "FP16"; "AUTO" takes what this machine is fast in."""
    if choose("TRAIN_PRECISION", wanted, PRECISIONS) != "AUTO":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = min(tf.config.experimental.get_device_details(x).get("compute_capability", (0, 0)) for x in gpus)
        return "BF16" if capability >= (8, 0) else "FP16" if capability >= (7, 0) else "FP32"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "BF16" if "avx512_bf16" in flags or "amx_bf16" in flags else "FP32"


# --- Devices and machines --------------------------------------------------------------------------------------------


def choose_strategy(global_batch):
    """A tf.distribute strategy: the machines in TF_CONFIG, else all GPUs here, else the one device there is.

    Called before TensorFlow does anything else. Raises UserError if it cannot share out the global batch.
    """
    config = os.environ.get("TF_CONFIG")
    if config:
        try:
            json.loads(config)["cluster"]["worker"]
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"TF_CONFIG names no place among workers ({error}): see README, several machines") from None
    elif len(tf.config.list_physical_devices("GPU")) > 1:
        strategy = tf.distribute.MirroredStrategy()
    else:
        strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if global_batch % replicas:
        raise UserError(f"TRAIN_BATCH_SIZE = {global_batch} cannot be shared by {replicas} devices: make it a multiple")
    return strategy


def place_among_workers(strategy):
    """(number of workers, index of this one): (1, 0) when it is alone. Number 0, the chief, writes what all share."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 1, 0
    chiefs = resolver.cluster_spec().as_dict().get("chief", [])
    workers = len(chiefs) + resolver.cluster_spec().num_tasks("worker")
    return workers, resolver.task_id + (len(chiefs) if resolver.task_type == "worker" else 0)


def as_distributed(share, replica_batch, strategy):
    """A worker's dataset of its shares of the batches -> what `fit` takes: a piece for each of its devices in turn."""
    if strategy.num_replicas_in_sync == 1:
        return share
    return strategy.distribute_datasets_from_function(lambda _: share.rebatch(replica_batch))


def from_chief(values):
    """Floats that the chief knows and others hold as zeros -> NumPy, the chief's, in every process."""
    strategy = tf.distribute.get_strategy()
    workers, _ = place_among_workers(strategy)
    if workers == 1:
        return values
    total = strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(values)), None)
    return total.numpy() * workers / strategy.num_replicas_in_sync  # each device of the chief has said it
