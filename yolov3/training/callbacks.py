"""What happens beside the steps of a training: validation, the checkpoints that are kept, backups to resume from, and
what TensorBoard shows. Keras callbacks; of several workers only the chief writes.
"""

import contextlib
import json
import math
import time

from yolov3.boxes import decode
from yolov3.checkpoint import read_arrays, write_checkpoint
from yolov3.checks import UserError, project_path
from yolov3.darknet import get_arrays
from yolov3.evaluation import evaluate
from yolov3.files import whole_file
from yolov3.images import read_picture
from yolov3.media.drawing import draw_detections
from yolov3.training.trainer import from_chief

import keras
import numpy as np
import tensorflow as tf

PICTURES = 4  # of the validation set, shown in TensorBoard with what is found on them
PICTURE_SCORE = 0.3  # what a box must exceed to be drawn there
LOG_EVERY = 10  # steps


class EpochMeans(keras.callbacks.Callback):
    """Puts the mean of an epoch's steps in place of its last step's loss, for all callbacks after this one."""

    def on_epoch_begin(self, epoch, logs=None):
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        for name, value in logs.items():
            logs[name] = float(np.squeeze(value))  # with several devices they have a shape of (1,)
        self.steps.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: float(np.mean([step[name] for step in self.steps])) for name in self.steps[0]})


class TerminateOnNaN(keras.callbacks.TerminateOnNaN):
    """Keras' stops as if the epoch had ended well, and its broken weights would be kept."""

    def on_batch_end(self, batch, logs=None):
        super().on_batch_end(batch, logs)
        if self.model.stop_training:
            raise UserError(
                f"the loss is not a number any more at step {self.model.steps_done}: lower TRAIN_LR_INIT in "
                "yolov3/configs.py and begin anew with --overwrite; checkpoints are as they were"
            )


class Validation(keras.callbacks.Callback):
    """After each epoch: AP50 and AP of the detector, 0..1, into the logs."""

    def __init__(self, detector, records, sizes, thresholds, batch_size, max_pixels, is_chief):
        super().__init__()
        self.detector, self.records, self.sizes, self.thresholds = detector, records, sizes, thresholds
        self.batch_size, self.max_pixels, self.is_chief = batch_size, max_pixels, is_chief

    def on_epoch_end(self, epoch, logs=None):
        measured = np.zeros(2)
        if self.is_chief:
            scores = evaluate(
                self.detector,
                self.records,
                self.sizes,
                self.detector.names,
                *self.thresholds,
                self.batch_size,
                self.max_pixels,
                progress=False,
            )
            measured = np.nan_to_num([scores.AP50, scores.AP])
        logs["AP50"], logs["AP"] = (float(x) for x in from_chief(measured))


class Keep(keras.callbacks.Callback):
    """Writes the averaged weights after each epoch: FOLDER when its AP50 is the best so far, and FOLDER_last.

    patience  epochs without a better one after which training ends; 0: it does not.
    """

    def __init__(self, folder, model, made_from, backup, patience):
        super().__init__()
        self.folder, self.about, self.made_from = folder, model, made_from
        self.backup, self.patience = backup, patience

    def on_epoch_end(self, epoch, logs=None):
        before = self.backup.progress
        is_best = logs["AP50"] > before["best_AP50"]
        if self.backup.is_chief:
            average = self.model.averages()
            arrays = list(get_arrays(self.model.network, lambda variable: average[id(variable)].numpy()))
            for folder in [f"{self.folder}_last", self.folder][: 1 + is_best]:
                write_checkpoint(folder, self.about, arrays, self.made_from)
        self.backup.progress = {  # not before all that is written: interrupted, it is done again
            "best_AP50": max(logs["AP50"], before["best_AP50"]),
            "epochs_since_best": 0 if is_best else before["epochs_since_best"] + 1,
            "measured_step": self.model.steps_done,
        }
        self.backup.save()
        thawed = self.model.steps_done > self.model.schedule.freeze
        if self.patience and thawed and self.backup.progress["epochs_since_best"] >= self.patience:
            print(f"AP50 has not risen for {self.patience} epochs: training ends")
            self.model.stop_training = True


class Backup(keras.callbacks.Callback):
    """Keeps all that training needs to go on at its very step in one .npz: weights, their average, optimizer, step,
    best AP50. It is written beside the old one, which becomes NAME.previous.npz when the new one is whole.

    Keras' BackupAndRestore begins the epoch again and takes the averaged weights for the weights.
    """

    def __init__(self, trainer, path, settings, seconds, is_chief):
        super().__init__()
        self.set_model(trainer)  # it may be asked to save before `fit` begins
        self.file = project_path(path)
        self.previous = self.file.with_suffix(".previous.npz")
        self.settings = json.loads(json.dumps(settings))  # of the training; tuples become lists, as when read back
        self.seconds, self.is_chief = seconds, is_chief
        self.saved_at = time.monotonic()
        self.progress = {"best_AP50": -1.0, "epochs_since_best": 0, "measured_step": 0}

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self.saved_at > self.seconds and math.isfinite(logs["loss"]):
            self.save()

    def save(self):
        """Writes the state as it is between two steps."""
        self.saved_at = time.monotonic()
        if not self.is_chief:
            return
        arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in state_of(self.model)}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return  # a gradient was no number: the loss will not be one either
        about = {"settings": self.settings, "progress": self.progress, "step": self.model.steps_done}
        with whole_file(self.file) as part:
            with part.open("wb") as file:
                np.savez(file, about=json.dumps(about), **arrays)
            if self.file.exists():
                self.file.replace(self.previous)

    def read(self):
        """Return the newest whole backup, {name: array}; None without any. Raises UserError if it is of another
        training."""
        network = self.model.network.variables
        shapes = {f"{kind}/{i}": tuple(x.shape) for kind in ("network", "average") for i, x in enumerate(network)}
        optimizers = {(), *shapes.values()}
        for file in (self.file, self.previous):
            if not file.exists():
                continue
            try:
                with np.load(file) as stored:
                    about = json.loads(str(stored["about"]))
                settings, progress, step = (about[name] for name in ("settings", "progress", "step"))
                self._check_settings(file, dict(settings))
                self._check_progress(step, progress)
                state = read_arrays(file, {**shapes, "about": ()}, optimizers)
            except UserError:
                raise
            except Exception as error:  # zipfile, zlib, json and NumPy have some ten classes for damage
                print(f"{file} is damaged ({str(error) or type(error).__name__}): trying the one before it")
                if self.is_chief:
                    file.unlink()  # or the next save would put it in the place of the good one
                continue
            del state["about"]
            self.progress, self.read_from = progress, file
            return state | {"step": step}
        return None

    def _check_settings(self, file, settings):
        """Raise UserError if a backup is of a training with other settings."""
        for name, value in settings.items():
            if self.settings.get(name) == value:
                continue
            remedy = "set that back to go on, or give --overwrite to begin anew"
            if name == "TRAIN_EPOCHS":
                remedy += (
                    "; for more epochs let this training end, then begin one with TRAIN_FROM_CHECKPOINT = "
                    f"{file.name.removesuffix('_backup.npz')!r} and another TRAIN_MODEL_NAME"
                )
            raise UserError(
                f"{file} is of an unfinished training with {name} = {value!r}, not {self.settings.get(name)!r}: "
                f"{remedy}"
            )

    def _check_progress(self, step, progress):
        """Raise ValueError unless the step is one of this training, and its progress has the numbers of ours."""
        if type(step) is not int or not 0 <= step <= self.model.schedule.steps:
            raise ValueError(f"step {step!r} is not one of {self.model.schedule.steps}")
        if set(progress) != set(self.progress) or not all(math.isfinite(x) for x in progress.values()):
            raise ValueError("its progress is not readable")

    def restore(self, state):
        """Put what `read` returned into the Trainer. A stage begins with an optimizer of its own, so there it has none.
        Raises UserError, before anything is assigned, if the optimizer is another one."""
        trainer = self.model
        trainer.begin(state["step"])
        begins_stage = state["step"] == trainer.schedule.freeze
        variables = dict(state_of(trainer))
        if begins_stage:
            variables = {name: x for name, x in variables.items() if not name.startswith("optimizer/")}
        for name, variable in variables.items():
            if name not in state or state[name].shape != tuple(variable.shape):
                raise UserError(
                    f"{self.read_from} is of another optimizer ({name} does not fit), perhaps of another version of "
                    "Keras: go on with that version, or give --overwrite to begin anew"
                )
        for name, variable in variables.items():
            variable.assign(state[name])

    def discard(self):
        """Removes the backups: the training is done."""
        if self.is_chief:
            self.previous.unlink(missing_ok=True)  # first: alone it would be gone on with
            self.file.unlink(missing_ok=True)


def state_of(trainer):
    """(name, variable) of all that a training changes, but its step."""
    groups = {
        "network": trainer.network.variables,
        "average": trainer.average,
        "optimizer": trainer.optimizer.variables,
    }
    return [(f"{group}/{i}", variable) for group, variables in groups.items() for i, variable in enumerate(variables)]


class TensorBoard(keras.callbacks.Callback):
    """Loss terms and learning rate every few steps; AP50 and pictures with what is found on them every epoch.

    Keras' own counts its steps from 0 again after a resume.
    """

    def __init__(self, folder, validation):
        super().__init__()
        self.folder, self.validation = folder, validation
        self.writer = tf.summary.create_file_writer(str(project_path(folder)))

    def on_train_batch_end(self, batch, logs=None):
        step = self.model.steps_done
        if step % LOG_EVERY == 0:
            self.write({**{f"loss/{x}": logs[x] for x in logs}, "learning_rate": self.model.learning_rate()}, step)

    def on_epoch_end(self, epoch, logs=None):
        step = self.model.steps_done
        self.write({f"validation/{name}": logs[name] for name in ("AP50", "AP")}, step)
        for i, record in enumerate(self.validation.records[:PICTURES]):
            picture = read_picture(record.picture, self.validation.max_pixels)
            (found,) = self.validation.detector([picture], PICTURE_SCORE)
            with self._writing():
                tf.summary.image(f"found/{i}", draw_detections(picture, found)[np.newaxis], step)
        with self._writing():
            self.writer.flush()

    def write(self, scalars, step):
        with self._writing():
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step)

    @contextlib.contextmanager
    def _writing(self):
        """Turn TensorFlow's errors into a UserError that names the folder.

        Those of a full disk have the class of a GPU's full memory, those of a file-size limit that of a dataset's end.
        """
        try:
            with self.writer.as_default():
                yield
        except tf.errors.OpError as error:
            full = isinstance(error, (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError))
            reason = "the disk, a quota or a limit of file sizes is full" if full else type(error).__name__
            raise UserError(f"TRAIN_LOGDIR: {self.folder} cannot be written: {reason}") from None


def averaged_network(trainer, size):
    """The averaged weights of a Trainer as a network for `Detector`: float32 (N, S, S, 3) -> predictions.

    They are read at each call, so it always is the network of the latest step.
    """
    average = trainer.averages()
    weights = [
        [average[id(variable)] for variable in variables]
        for variables in (trainer.network.trainable_variables, trainer.network.non_trainable_variables)
    ]

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3))], autograph=False)
    def network(images):
        raw_heads, _ = trainer.network.stateless_call(*weights, images, training=False)
        return {"predictions": decode(tf.nest.flatten(raw_heads), trainer.heads)}

    return network
