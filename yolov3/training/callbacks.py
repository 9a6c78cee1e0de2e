"""Do what goes with the steps of a training, as Keras callbacks: validation, checkpoints and TensorBoard's logs.

Of several workers only the chief writes.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from yolov3.annotations.format import Record
from yolov3.boxes import decode
from yolov3.checkpoint import ModelSpec, write_checkpoint
from yolov3.checks import UserError, project_path
from yolov3.darknet import get_arrays
from yolov3.detector import Detector
from yolov3.evaluation import evaluate
from yolov3.images import read_picture
from yolov3.media.drawing import draw_detections
from yolov3.networks import Heads
from yolov3.training.backup import Backup
from yolov3.training.loss import TERMS, count_objects, yolo_loss
from yolov3.training.trainer import Trainer, from_chief

import keras
import numpy as np
import tensorflow as tf

PICTURES = 4  # pictures of the validation set that TensorBoard shows with their detections
PICTURE_SCORE = 0.3  # detections with a higher score are drawn on them
LOG_EVERY = 10  # steps


class EpochMeans(keras.callbacks.Callback):
    """Replace the loss of an epoch's last step by the mean of all its steps, for all callbacks after this one."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        for name, value in logs.items():
            logs[name] = float(np.squeeze(value))  # with several devices their shape is (1,)
        self.steps.append(dict(logs))

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        logs.update({name: float(np.mean([step[name] for step in self.steps])) for name in self.steps[0]})


class TerminateOnNaN(keras.callbacks.TerminateOnNaN):
    """Raise UserError if the loss is not finite. Keras' own ends the epoch as usual, and its weights would be kept."""

    def on_batch_end(self, batch: int, logs: dict) -> None:
        super().on_batch_end(batch, logs)
        if self.model.stop_training:
            raise UserError(
                f"the loss is not a number any more at step {self.model.steps_done}: lower TRAIN_LR_INIT in "
                "yolov3/configs.py and begin anew with --overwrite; checkpoints are as they were"
            )


class Validation(keras.callbacks.Callback):
    """Add AP50 and AP of the averaged weights, in percent, and their loss per object to the logs of each epoch.

    detector  with the averaged weights, on the pictures of records and their sizes
    losses    on the batches, as `averaged_losses` returns them
    """

    def __init__(
        self,
        detector: Detector,
        records: list[Record],
        sizes: list[tuple[int, int]],
        losses: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        batches: Iterable[tuple[tf.Tensor, tf.Tensor]],
        thresholds: tuple[float, float],
        batch_size: int,
        max_pixels: int,
        is_chief: bool,
    ):
        super().__init__()
        self.detector, self.records, self.sizes, self.thresholds = detector, records, sizes, thresholds
        self.losses, self.batches = losses, batches
        self.batch_size, self.max_pixels, self.is_chief = batch_size, max_pixels, is_chief

    def on_epoch_end(self, epoch: int | None, logs: dict) -> None:
        measured = np.zeros(2 + len(TERMS))
        if self.is_chief:
            data = self.records, self.sizes, self.detector.names
            scores = evaluate(self.detector, *data, *self.thresholds, self.batch_size, self.max_pixels, progress=False)
            *terms, objects = np.sum([self.losses(*batch).numpy() for batch in self.batches], 0)
            measured = np.nan_to_num([100 * scores.AP50, 100 * scores.AP, *(x / max(objects, 1) for x in terms)])
        AP50, AP, *terms = (float(x) for x in from_chief(measured))
        logs |= {"AP50": AP50, "AP": AP, "val_loss": sum(terms)}
        logs |= {f"val_{name}": term for name, term in zip(TERMS, terms, strict=True)}


class Keep(keras.callbacks.Callback):
    """Write the averaged weights after each epoch, as FOLDER_last and, if AP is the best so far, as FOLDER.

    AP chooses. AP50 depends more on chance if there are few pictures: in a training on blood cells, AP50 chose an epoch
    that is 1.3 AP50 and 3.3 AP worse on other pictures than the last epoch.
    patience  epochs without a better AP after which the training ends; 0: it is never ended early
    """

    def __init__(self, folder: str | Path, spec: ModelSpec, made_from: str, backup: Backup, patience: int):
        super().__init__()
        self.folder, self.spec, self.made_from = folder, spec, made_from
        self.backup, self.patience = backup, patience

    def on_epoch_end(self, epoch: int | None, logs: dict) -> None:
        before = self.backup.progress
        is_best = logs["AP"] > before["best_AP"]
        if self.backup.is_chief:
            average = self.model.averages()
            arrays = list(get_arrays(self.model.network, lambda variable: average[id(variable)].numpy()))
            for folder in [f"{self.folder}_last", self.folder][: 1 + is_best]:
                write_checkpoint(folder, self.spec, arrays, self.made_from)
        self.backup.progress = {  # set only when all is written, so that an interrupted validation is repeated
            "best_AP": max(logs["AP"], before["best_AP"]),
            "epochs_since_best": 0 if is_best else before["epochs_since_best"] + 1,
            "measured_step": self.model.steps_done,
        }
        self.backup.save()
        thawed = self.model.steps_done > self.model.schedule.freeze
        if self.patience and thawed and self.backup.progress["epochs_since_best"] >= self.patience:
            print(f"AP has not risen for {self.patience} epochs: training ends")
            self.model.stop_training = True


class TensorBoard(keras.callbacks.Callback):
    """Log loss terms per object and learning rate every few steps; AP50 and AP in percent, the loss on pictures that
    are not trained on, and pictures with their detections every epoch.

    Keras' own callback would count steps from 0 again when a training is resumed.
    """

    def __init__(self, folder: str | Path, validation: Validation):
        super().__init__()
        self.folder, self.validation = folder, validation
        self.writer = tf.summary.create_file_writer(str(project_path(folder)))

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        step = self.model.steps_done
        if step % LOG_EVERY == 0:
            self.write({**{f"loss/{x}": logs[x] for x in logs}, "learning_rate": self.model.learning_rate()}, step)

    def on_epoch_end(self, epoch: int | None, logs: dict) -> None:
        step = self.model.steps_done
        self.write({f"validation/{name}": logs[name] for name in ("AP50", "AP", "val_loss")}, step)
        for i, record in enumerate(self.validation.records[:PICTURES]):
            picture = read_picture(record.picture, self.validation.max_pixels)
            (found,) = self.validation.detector([picture], PICTURE_SCORE)
            with self._writing():
                tf.summary.image(f"found/{i}", draw_detections(picture, found)[np.newaxis], step)
        with self._writing():
            self.writer.flush()

    def write(self, scalars: dict[str, float], step: int) -> None:
        """Log some numbers by name."""
        with self._writing():
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step)

    @contextlib.contextmanager
    def _writing(self):
        """Turn TensorFlow's errors into a UserError that names the folder.

        A full disk raises the error class of a GPU's full memory, a limit of file sizes that of a dataset's end.
        """
        try:
            with self.writer.as_default():
                yield
        except tf.errors.OpError as error:
            full = isinstance(error, (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError))
            reason = "the disk, a quota or a limit of file sizes is full" if full else type(error).__name__
            raise UserError(f"TRAIN_LOGDIR: {self.folder} cannot be written: {reason}") from None


def averaged_network(trainer: Trainer, size: tuple[int, int]) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Return a network for `Detector`, which takes float32 (N, h, w, 3), with the averaged weights of a Trainer. It
    answers its raw heads, too.

    It reads the weights at each call, so its answers are always those of the latest step.
    """
    average = trainer.averages()
    weights = [
        [average[id(variable)] for variable in variables]
        for variables in (trainer.network.trainable_variables, trainer.network.non_trainable_variables)
    ]

    @tf.function(input_signature=[tf.TensorSpec((None, *size, 3))], autograph=False)
    def network(images):
        raw_heads, _ = trainer.network.stateless_call(*weights, images, training=False)
        raw_heads = tf.nest.flatten(raw_heads)  # Keras gives a single one without a list
        return {"predictions": decode(raw_heads, trainer.heads), "raw_heads": raw_heads}

    return network


def averaged_losses(
    network: Callable, size: tuple[int, int], heads: Heads
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return a function of a batch that returns the terms of an averaged network's loss, summed over the batch, and
    the number of its objects."""

    @tf.function(input_signature=[tf.TensorSpec((None, *size, 3)), tf.TensorSpec((None, None, 5))], autograph=False)
    def losses(images, truth):
        terms = yolo_loss(network(images)["raw_heads"], truth, heads)
        return tf.stack([*(tf.reduce_sum(terms[name]) for name in TERMS), count_objects(truth)])

    return losses
