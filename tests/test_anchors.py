"""Anchors, and tools/Anchors.py: fits against hand-worked cases and against an exhaustive search."""

import importlib
import itertools
import re
import sys

from yolov3 import anchors
from yolov3.checks import UserError

import cv2
import numpy as np
import pytest


def test_iou_of_sizes_by_hand():
    iou = anchors.iou_of_sizes(np.array([[10.0, 10], [4, 20]]), np.array([[10.0, 10], [20, 10], [2, 5]]))
    np.testing.assert_allclose(iou, [[1, 0.5, 0.1], [40 / 140, 40 / 240, 10 / 80]])


def test_box_sizes_are_those_in_the_letterboxed_input():
    records = [type("R", (), {"boxes": np.float32([[0, 0, 640, 480], [64, 48, 128, 96]])})]
    sizes = anchors.box_sizes(records, [(480, 640)], 416, "letterbox")
    np.testing.assert_allclose(sizes, [[416, 312], [41.6, 31.2]], rtol=1e-6)
    sizes = anchors.box_sizes(records, [(480, 640)], 416, "stretch")
    np.testing.assert_allclose(sizes, [[416, 416], [41.6, 41.6]], rtol=1e-6)


def test_finds_the_sizes_that_boxes_gather_about():
    rng = np.random.default_rng(1)
    truth = np.array([(10, 14), (23, 60), (80, 40), (60, 120), (200, 150), (300, 390)])
    sizes = np.concatenate([size * rng.uniform(0.95, 1.05, (100, 2)) for size in truth])
    found = anchors.fit_anchors(sizes, 6, seed=0)
    np.testing.assert_allclose(found, sorted(truth.tolist(), key=np.prod), rtol=0.03, atol=1)
    assert found == anchors.fit_anchors(sizes, 6, seed=0)


def test_is_as_good_as_the_best_choice_of_boxes():
    """No two of the boxes themselves, of all pairs, make better anchors than those found."""
    sizes = np.random.default_rng(2).uniform(10, 200, (40, 2))
    best = max(anchors.mean_iou(sizes, pair) for pair in itertools.combinations(sizes, 2))
    assert anchors.mean_iou(sizes, anchors.fit_anchors(sizes, 2, seed=0)) > best - 0.01


def test_too_few_sizes_are_one_line():
    with pytest.raises(UserError, match="6 anchors need boxes of at least 6 different sizes, but there are 2"):
        anchors.fit_anchors(np.array([[10.0, 10], [20, 20]] * 9), 6, seed=0)


def test_the_script_prints_a_line_for_configs_that_beats_the_published_anchors(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(3)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((416, 416, 3), np.uint8))
    corners = [(x, y, x + w, y + h, 0) for x, y, w, h in rng.integers(2, 200, (60, 4)).tolist()]
    text = " ".join(",".join(map(str, box)) for box in corners)
    (tmp_path / "set.txt").write_text(f"a.png {text}\n")
    (tmp_path / "my.names").write_text("thing\n")
    options = ["--classes", str(tmp_path / "my.names"), "--size", "416", "--heads"]
    for heads in (2, 3):
        monkeypatch.setattr(sys, "argv", ["Anchors.py", str(tmp_path / "set.txt"), *options, str(heads)])
        importlib.import_module("Anchors").main()
        out = capsys.readouterr().out
        before, after = map(float, re.findall(r"\b0\.\d{3}", out))
        assert after > before
        found = eval(re.search(r"(?m)^TRAIN_ANCHORS = (.*)$", out)[1])
        assert np.shape(found) == (heads, 3, 2)
        areas = np.prod(found, -1).ravel()
        assert (np.diff(areas) >= 0).all()
    (tmp_path / "set.txt").write_text("a.png\n")
    with pytest.raises(SystemExit, match="^error: 9 anchors need boxes of at least 9 different sizes, .* 0$"):
        importlib.import_module("Anchors").main()
