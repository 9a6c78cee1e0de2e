"""Show how a training goes, as Keras callbacks: lines on the terminal, results.csv and results.png.

Losses are per object, AP50 and AP in percent.
"""

import csv
import io
import time
from pathlib import Path

from yolov3.files import whole_file
from yolov3.training.backup import Backup
from yolov3.training.charts import draw_results
from yolov3.training.loss import TERMS

import keras
from tqdm import tqdm

LOSSES = ("loss", *TERMS)
COLUMNS = ("epoch", *LOSSES, *(f"val_{name}" for name in LOSSES), "AP50", "AP", "learning_rate", "seconds")
DRAWN_EVERY = 60  # seconds between drawings of results.png, at least


class Progress(keras.callbacks.Callback):
    """Print that the first step is compiled, a bar within each epoch, and a line with the time left after it."""

    def __init__(self, backup: Backup, steps_per_epoch: int):
        super().__init__()
        self.backup, self.steps_per_epoch = backup, steps_per_epoch
        self.compiled = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.began, self.first_ended, self.last_ended, self.steps = time.monotonic(), 0.0, 0.0, 0
        done = self.model.steps_done % self.steps_per_epoch
        self.bar = tqdm(total=self.steps_per_epoch, initial=done, unit=" steps", leave=False, disable=None)
        self.bar.set_description(f"epoch {epoch + 1} of {self._epochs()}")

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if not self.compiled:
            tqdm.write("compiling the training step: the first step takes longer, a minute or so on a CPU")
            self.compiled = True

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        self.steps += 1
        self.last_ended = time.monotonic()
        self.first_ended = self.first_ended or self.last_ended
        self.bar.set_postfix_str(f"loss {float(logs['loss']):.2f} per object", refresh=False)
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        self.bar.close()
        logs["seconds"] = self._seconds_of_an_epoch()
        left = (self.model.schedule.steps - self.model.steps_done) / self.steps_per_epoch * logs["seconds"]
        best = ", the best so far" if self.backup.progress["epochs_since_best"] == 0 else ""
        print(
            f"epoch {epoch + 1} of {self._epochs()}: loss {logs['loss']:.2f} per object, {logs['val_loss']:.2f} on "
            f"pictures not trained on, AP50 {logs['AP50']:.1f}, AP {logs['AP']:.1f}{best}; "
            f"{in_words(time.monotonic() - self.began)}{f', {in_words(left)} left' if left else ''}",
            flush=True,
        )

    def _epochs(self):
        return round(self.model.schedule.steps / self.steps_per_epoch)

    def _seconds_of_an_epoch(self):
        """Return how long a whole epoch takes, its validation included, from this one, without what is compiled."""
        now = time.monotonic()
        if self.steps < 2:
            return now - self.began
        a_step = (self.last_ended - self.first_ended) / (self.steps - 1)
        return a_step * self.steps_per_epoch + now - self.last_ended


def in_words(seconds: float) -> str:
    """Return a length of time as a person says it: 36 s, 22 min, 3 h 20 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class Results(keras.callbacks.Callback):
    """Write results.csv, with a row for each epoch, and draw it as results.png.

    A training that goes on keeps the rows of the epochs before.
    """

    def __init__(self, folder: Path, steps_per_epoch: int, goes_on: bool):
        super().__init__()
        self.folder, self.steps_per_epoch = folder, steps_per_epoch
        self.rows = read_results(folder / "results.csv") if goes_on else []
        self.drawn_at = time.monotonic()

    def on_epoch_end(self, epoch: int | None, logs: dict) -> None:
        number = self.model.steps_done // self.steps_per_epoch
        row = {"epoch": number, "learning_rate": self.model.learning_rate()}
        row |= {name: logs[name] for name in COLUMNS if name in logs}
        self.rows = [old for old in self.rows if old["epoch"] < number] + [row]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([f"{row[name]:.6g}" if name in row else "" for name in COLUMNS] for row in self.rows)
        with whole_file(self.folder / "results.csv") as part:
            part.write_text(text.getvalue(), encoding="utf-8")
        if time.monotonic() - self.drawn_at > DRAWN_EVERY or self.model.steps_done == self.model.schedule.steps:
            self.draw()

    def draw(self) -> None:
        """Draw results.png."""
        draw_results(self.folder / "results.png", self.rows)
        self.drawn_at = time.monotonic()


def read_results(file: Path) -> list[dict[str, float]]:
    """Return the rows of a results.csv that can be read, numbers by the names of their columns."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return []
    found = []
    for row in rows:
        try:
            numbers = {name: float(row[name]) for name in COLUMNS if row[name]}
            found.append(numbers | {"epoch": int(numbers["epoch"])})
        except (KeyError, TypeError, ValueError):
            continue
    return found
