"""Keep what an interrupted training goes on from, as a Keras callback. Of several workers only the chief writes."""

import json
import math
import time
from pathlib import Path

from yolov3.checkpoint import MOST_JSON, check_shapes, read_arrays, read_headers
from yolov3.checks import UserError, project_path
from yolov3.files import whole_file
from yolov3.training.trainer import Trainer

import keras
import numpy as np
import tensorflow as tf

OPTIMIZERS_ARRAYS = 4  # for each variable of the network, at most


class Misfit(ValueError):
    """Say that a backup is whole, but of another optimizer than that of this training."""


class Backup(keras.callbacks.Callback):
    """Keep all that a training needs to go on at the same step in one .npz: weights, their average, optimizer, step,
    best AP. It is written beside the old one, which becomes NAME.previous.npz when the new one is whole.

    Keras' BackupAndRestore would begin the epoch again and take the averaged weights for the weights.
    """

    def __init__(self, trainer: Trainer, path: str | Path, settings: dict, seconds: float, is_chief: bool):
        super().__init__()
        self.set_model(trainer)  # since `save` may be called before `fit`
        self.file = project_path(path)
        self.previous = project_path(self.file.with_suffix(".previous.npz"))
        for file in (self.file, self.previous):
            if file.exists() and not file.is_file():
                raise UserError(f"{file} is not a file: move it away, its place is that of the training's backup")
        self.settings = json.loads(json.dumps(settings))  # turns tuples into lists, as they are when read back
        self.seconds, self.is_chief = seconds, is_chief
        self.saved_at = time.monotonic()
        self.progress = {"best_AP": -1.0, "epochs_since_best": 0, "measured_step": 0}

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if time.monotonic() - self.saved_at > self.seconds and math.isfinite(logs["loss"]):
            self.save()

    def save(self) -> None:
        """Write the present state, between two steps, unless it holds numbers that are not finite."""
        self.saved_at = time.monotonic()
        if not self.is_chief:
            return
        arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in state_of(self.model).items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return  # a gradient was not finite, so the next loss will not be either
        steps = {"step": self.model.steps_done, "steps": self.model.schedule.steps}
        about = {"settings": self.settings, "progress": self.progress, **steps}
        with whole_file(self.file) as part:
            with part.open("wb") as file:
                np.savez(file, about=json.dumps(about), **arrays)
            if self.file.exists():
                self.file.replace(self.previous)

    def resume(self) -> Path | None:
        """Put the newest backup that is whole and fits into the Trainer. Return its file, or None if there is not one.

        It is called within the scope of the strategy. Raises UserError, before anything is assigned, if a backup
        belongs to a training with other settings, or if the whole ones belong to another optimizer.
        """
        files, misfits = [file for file in (self.file, self.previous) if file.exists()], []
        for file in files:
            then = f"trying {self.previous.name}" if file != files[-1] else "there is not another"
            try:
                self._restore(file)
            except UserError:
                raise
            except PermissionError as error:
                raise UserError(f"{file} cannot be read: {error.strerror}") from None
            except Misfit as error:
                print(f"{file} does not fit ({error}): {then}")
                misfits.append(file)
            except Exception as error:  # zipfile, zlib, json and NumPy raise some ten classes for damage
                print(f"{file} is damaged ({str(error) or type(error).__name__}): {then}")
                self._remove([file])
            else:
                self._remove(misfits)
                return file
        if misfits:
            raise UserError(
                f"{misfits[0]} holds another optimizer, perhaps that of another version of Keras: go on with that "
                "version, or give --overwrite to begin anew"
            )
        return None

    def _restore(self, file):
        """Put a backup into the Trainer. All of it is checked and read before anything is assigned.

        A stage of the training begins with a new optimizer: there the optimizer of the stage before is left out.
        """
        # 1. What it holds, by the headers
        trainer, network = self.model, self.model.network.variables
        headers = read_headers(file, (2 + OPTIMIZERS_ARRAYS) * len(network) + 10)
        shape, dtype = headers.pop("about", ((), np.dtype("O")))
        if shape != () or dtype.kind != "U" or dtype.itemsize > MOST_JSON:
            raise ValueError("it does not say to which training it belongs")
        optimizers = {name: header for name, header in headers.items() if name.startswith("optimizer/")}
        shapes = {f"{kind}/{i}": tuple(x.shape) for kind in ("network", "average") for i, x in enumerate(network)}
        check_shapes({name: header for name, header in headers.items() if name not in optimizers}, shapes)

        # 2. The training it belongs to, and where that stopped
        about = json.loads(str(read_arrays(file, ["about"])["about"]))
        settings, progress, step, steps = (about[name] for name in ("settings", "progress", "step", "steps"))
        self._check_progress(step, steps, progress)
        self._check_settings(file, dict(settings))
        if step > trainer.schedule.steps:
            raise UserError(
                f"{file} has done {step} steps, but TRAIN_EPOCHS makes {trainer.schedule.steps}: raise it to go on, or "
                "give --overwrite to begin anew"
            )

        # 3. The rest
        trainer.begin(step)
        variables = state_of(trainer)
        if step == trainer.schedule.freeze:
            variables = {name: variable for name, variable in variables.items() if name in shapes}
        else:
            try:
                wanted = {name: tuple(x.shape) for name, x in variables.items() if name not in shapes}
                check_shapes(optimizers, wanted)
            except ValueError as error:
                raise Misfit(error) from None
        arrays = read_arrays(file, variables)
        for name, variable in variables.items():
            variable.assign(arrays[name].astype(keras.backend.standardize_dtype(variable.dtype)))
        self.progress = progress

    def _check_settings(self, file, settings):
        """Raise UserError if a backup belongs to a training with other settings."""
        for name, value in settings.items():
            if self.settings.get(name) == value:
                continue
            raise UserError(
                f"{file} belongs to a training with {name} = {value!r}, not {self.settings.get(name)!r}: set that back "
                "to go on, or give --overwrite to begin anew"
            )

    def _check_progress(self, step, steps, progress):
        """Raise ValueError if no training has such a step, or if the progress is not complete."""
        if not (type(step) is type(steps) is int and 0 <= step <= steps):
            raise ValueError(f"step {step!r} is not one of {steps!r}")
        if set(progress) != set(self.progress) or not all(math.isfinite(x) for x in progress.values()):
            raise ValueError("its progress cannot be read")

    def finish(self) -> None:
        """Keep only the newest backup, from which the training goes on if it is given more epochs."""
        self._remove([self.previous])

    def discard(self) -> None:
        """Remove the backups."""
        self._remove([self.previous, self.file])  # the older one first: left alone, the next training would resume it

    def _remove(self, files):
        for file in files if self.is_chief else ():
            file.unlink(missing_ok=True)


def state_of(trainer: Trainer) -> dict[str, tf.Variable]:
    """Return {name: variable} of all that a training changes, except its step."""
    groups = {
        "network": trainer.network.variables,
        "average": trainer.average,
        "optimizer": trainer.optimizer.variables,
    }
    return {f"{group}/{i}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}
