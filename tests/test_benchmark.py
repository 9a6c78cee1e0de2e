"""tools/Benchmark.py as a person runs it: its tables, its chart, and what it says to wrong arguments."""

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = PROJECT / "tools/Benchmark.py"
CFG_FOLDER = PROJECT.parent / "shared/data/darknet"


def benchmark(*arguments, cwd):
    """As from a shell: without what importing yolov3 in another test has left in the environment."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, cwd=cwd, env=shell, capture_output=True, text=True, timeout=120)


def test_measures_every_contender_and_writes_markdown_and_chart(tmp_path):
    options = "--types yolov4-tiny --sizes 64 --precisions FP32 --rounds 2 --random --markdown out.md --png out.png"
    result = benchmark(*options.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = (tmp_path / "out.md").read_text()
    assert report in result.stdout
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()]
    figures = {row[0]: row[3:] for row in rows if len(row) == 7 and row[1:3] == ["yolov4-tiny", "64"]}
    *ours, opencv = figures
    assert ours == ["tf FP32", "tf FP32 network alone", "Keras predict + NumPy NMS"]
    assert opencv == ("OpenCV DNN" if CFG_FOLDER.is_dir() else "OpenCV DNN: not available: no cfg folder")
    assert all(float(x) > 0 for row in figures.values() for x in row if row[0] != "-")

    (budget,) = (row for row in rows if row and row[0] == "tf FP32 / tf FP32 network alone")
    assert float(budget[3]) > 0 and budget[5] in ("yes", "NO")
    assert re.search(r"cores.*Python \d.*TensorFlow \d.*OpenCV \d", report)


def test_wrong_arguments_are_told_in_one_line_before_the_work(tmp_path):
    result = benchmark("--types", "yolov5", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "yolov5" in result.stderr and "'yolov4-tiny'" in result.stderr
