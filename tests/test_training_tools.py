"""tools/benchmarks/training.py and tools/benchmarks/plot_training.py as a person runs them."""

import sys

from tools.benchmarks import plot_training, training
from yolov3.checks import UserError

import cfgs
import cv2
import numpy as np
import pytest
import tensorflow as tf

PNG = b"\x89PNG\r\n\x1a\n"


def run(monkeypatch, tool, *arguments):
    """A tool's main(), as with that command line."""
    monkeypatch.setattr(sys, "argv", [tool.__name__, *map(str, arguments)])
    tool.main()


# --- training.py -------------------------------------------------------------------------------------------


@pytest.fixture
def benchmark():
    return training


@pytest.mark.slow
def test_measures_training_beside_the_bare_step(tmp_path, benchmark, monkeypatch, capsys):
    lines = []
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((48, 64, 3), 60 * i, np.uint8))
        lines.append(f"{i}.png 4,4,40,30,{i}")
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    monkeypatch.setattr(benchmark, "measure_memory", lambda *_: (1.0, ""))  # test_benchmark.py has that
    (tmp_path / "small.cfg").write_text(cfgs.SMALL)
    options = f"--set YOLO_CFG={tmp_path}/small.cfg --set TRAIN_TRANSFER=False --size 64 --batch 2 --precisions FP32"
    more = "--rounds 1 --steps 1 --markdown"
    run(monkeypatch, benchmark, tmp_path / "mine.txt", *options.split(), *more.split(), tmp_path / "out.md")
    report = (tmp_path / "out.md").read_text()
    assert report in capsys.readouterr().out

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("|")]
    contenders, (ratio,) = rows[2:5], rows[7:]
    assert [row[:2] for row in contenders] == [
        ["train.py", "FP32"],
        ["bare step, one cached batch", "FP32"],
        ["plain Keras step, one cached batch", "FP32"],
    ]
    train, bare = (float(row[2]) for row in contenders[:2])
    assert all(float(x) > 0 for row in contenders for x in row[2:])
    assert float(ratio[2]) == pytest.approx(bare / train, abs=0.02) and ratio[4] in ("yes", "NO")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["missing.txt"], "missing.txt"), (["--precisions", "INT8"], "INT8"), (["--steps", "0"], "0")],
)
def test_the_benchmark_tells_wrong_arguments(benchmark, monkeypatch, arguments, word):
    with pytest.raises(SystemExit, match=word):
        run(monkeypatch, benchmark, *arguments)


# --- plot_training.py ------------------------------------------------------------------------------------------------


@pytest.fixture
def plot():
    return plot_training


def write_events(folder, name, values):
    """An event file of the loss: {step: value}."""
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=name)
    with writer.as_default():
        for step, value in values.items():
            tf.summary.scalar("loss/loss", value, step)
    writer.close()
    (written,) = folder.glob(f"*{name}")
    return written.rename(folder / f"events.out.tfevents.{name}")


def test_a_resumed_training_replaces_what_it_did_again(tmp_path, plot):
    write_events(tmp_path, "1", {10: 5.0, 20: 4.0, 30: 3.0, 40: 2.5})
    write_events(tmp_path, "2", {30: 3.5, 50: 1.0})
    assert plot.read_curves(tmp_path)["loss/loss"] == {10: 5.0, 20: 4.0, 30: 3.5, 50: 1.0}


def test_reads_the_log_of_a_training_that_was_killed_while_writing(tmp_path, plot):
    file = write_events(tmp_path, "1", {10: 5.0, 20: 4.0})
    file.write_bytes(file.read_bytes()[:-5])
    assert plot.read_curves(tmp_path)["loss/loss"] == {10: 5.0}


def test_a_log_without_a_training_is_told(tmp_path, plot):
    with pytest.raises(UserError, match="no curves"):
        plot.read_curves(tmp_path)


def test_smoothing_keeps_length_and_a_straight_middle(plot):
    smoothed = plot.smooth(np.arange(200.0))
    assert smoothed.shape == (200,)
    assert smoothed[50:150] == pytest.approx(np.arange(50, 150))
    assert plot.smooth(np.array([3.0, 1.0])) == pytest.approx([3, 1])  # too few to smooth


def test_draws_what_is_there(tmp_path, plot, monkeypatch):
    write_events(tmp_path, "1", {10: 5.0, 20: 4.0})
    run(monkeypatch, plot, tmp_path, "--png", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_a_missing_log_is_told(tmp_path, plot, monkeypatch):
    with pytest.raises(SystemExit, match="error: log folder .*nowhere is missing"):
        run(monkeypatch, plot, tmp_path / "nowhere", "--png", tmp_path / "curves.png")
