"""Save the state of a training, so that it goes on at the step where it was interrupted.

Of several workers only the chief writes.
"""

import json
import math
import time
from pathlib import Path

from yolov3.checkpoint import read_arrays
from yolov3.checks import UserError, project_path
from yolov3.files import whole_file
from yolov3.training.trainer import Trainer

import keras
import numpy as np
import tensorflow as tf


class Backup(keras.callbacks.Callback):
    """Keep all that a training needs to go on at the same step in one .npz: weights, their average, optimizer, step,
    best AP50. It is written beside the old one, which becomes NAME.previous.npz when the new one is whole.

    Keras' BackupAndRestore would begin the epoch again and take the averaged weights for the weights.
    """

    def __init__(self, trainer: Trainer, path: str | Path, settings: dict, seconds: float, is_chief: bool):
        super().__init__()
        self.set_model(trainer)  # since `save` may be called before `fit`
        self.file = project_path(path)
        self.previous = self.file.with_suffix(".previous.npz")
        self.settings = json.loads(json.dumps(settings))  # turns tuples into lists, as they are when read back
        self.seconds, self.is_chief = seconds, is_chief
        self.saved_at = time.monotonic()
        self.progress = {"best_AP50": -1.0, "epochs_since_best": 0, "measured_step": 0}

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if time.monotonic() - self.saved_at > self.seconds and math.isfinite(logs["loss"]):
            self.save()

    def save(self) -> None:
        """Write the present state, between two steps, unless it holds numbers that are not finite."""
        self.saved_at = time.monotonic()
        if not self.is_chief:
            return
        arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in state_of(self.model)}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return  # a gradient was not finite, so the next loss will not be either
        about = {"settings": self.settings, "progress": self.progress, "step": self.model.steps_done}
        with whole_file(self.file) as part:
            with part.open("wb") as file:
                np.savez(file, about=json.dumps(about), **arrays)
            if self.file.exists():
                self.file.replace(self.previous)

    def read(self) -> dict | None:
        """Return the newest whole backup, {name: array}, or None. Raises UserError if it is of another training."""
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
            except Exception as error:  # zipfile, zlib, json and NumPy raise some ten classes for damage
                print(f"{file} is damaged ({str(error) or type(error).__name__}): trying the previous one")
                if self.is_chief:
                    file.unlink()  # otherwise the next save would replace the good one with it
                continue
            del state["about"]
            self.progress, self.read_from = progress, file
            return state | {"step": step}
        return None

    def _check_settings(self, file, settings):
        """Raise UserError if a backup belongs to a training with other settings."""
        for name, value in settings.items():
            now = self.settings.get(name)
            if now == value:
                continue
            remedy = "set that back to go on, or give --overwrite to begin anew"
            if name == "TRAIN_EPOCHS":
                remedy += (
                    "; for more epochs let this training end, then begin one with TRAIN_FROM_CHECKPOINT = "
                    f"{file.name.removesuffix('_backup.npz')!r} and another TRAIN_MODEL_NAME"
                )
            raise UserError(f"{file} belongs to an unfinished training with {name} = {value!r}, not {now!r}: {remedy}")

    def _check_progress(self, step, progress):
        """Raise ValueError if this training does not have such a step, or if the progress is not complete."""
        if type(step) is not int or not 0 <= step <= self.model.schedule.steps:
            raise ValueError(f"step {step!r} is not one of the {self.model.schedule.steps}")
        if set(progress) != set(self.progress) or not all(math.isfinite(x) for x in progress.values()):
            raise ValueError("its progress cannot be read")

    def restore(self, state: dict) -> None:
        """Put what `read` returned into the Trainer; the optimizer is left out where a stage begins with a new one.
        Raises UserError, before anything is assigned, if the optimizer is of another kind."""
        trainer = self.model
        trainer.begin(state["step"])
        begins_stage = state["step"] == trainer.schedule.freeze
        variables = dict(state_of(trainer))
        if begins_stage:
            variables = {name: x for name, x in variables.items() if not name.startswith("optimizer/")}
        for name, variable in variables.items():
            if name not in state or state[name].shape != tuple(variable.shape):
                raise UserError(
                    f"{self.read_from} holds another optimizer ({name} does not fit), perhaps that of another Keras "
                    "version: go on with that version, or give --overwrite to begin anew"
                )
        for name, variable in variables.items():
            variable.assign(state[name])

    def discard(self) -> None:
        """Remove the backups."""
        if self.is_chief:
            self.previous.unlink(missing_ok=True)  # first: left alone, it would be restored by the next training
            self.file.unlink(missing_ok=True)


def state_of(trainer: Trainer) -> list[tuple[str, tf.Variable]]:
    """Return the names and variables of all that a training changes, except its step."""
    groups = {
        "network": trainer.network.variables,
        "average": trainer.average,
        "optimizer": trainer.optimizer.variables,
    }
    return [(f"{group}/{i}", variable) for group, variables in groups.items() for i, variable in enumerate(variables)]
