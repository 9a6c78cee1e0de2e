"""tools/Make_samples.py: the scene and the video that come along are what it draws from the photographs."""

import sys

from yolov3.checks import PROJECT

import cv2
import numpy as np
import pytest


@pytest.mark.slow
def test_what_comes_along_is_what_is_drawn(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(PROJECT / "tools")
    import Make_samples

    monkeypatch.setattr(sys, "argv", ["Make_samples.py", "--output", str(tmp_path)])
    Make_samples.main()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["passing.mp4", "scene.jpg"]
    drawn, shipped = (cv2.imread(str(folder / "scene.jpg")).astype(int) for folder in (tmp_path, PROJECT / "IMAGES"))
    assert np.abs(drawn - shipped).mean() < 2  # JPEG encoders differ
    drawn, shipped = (cv2.VideoCapture(str(folder / "passing.mp4")) for folder in (tmp_path, PROJECT / "IMAGES"))
    count = Make_samples.SECONDS * Make_samples.FPS
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == shipped.get(cv2.CAP_PROP_FRAME_COUNT) == count
    for _ in range(count):
        ours, theirs = (video.read()[1].astype(int) for video in (drawn, shipped))
        assert ours.shape == (360, 640, 3) and np.abs(ours - theirs).mean() < 4
