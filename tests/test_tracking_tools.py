"""tools/benchmarks/tracking.py and its scenes."""

from deep_sort.matching import iou_matrix
from tools.benchmarks import tracking
from yolov3.checks import UserError

import numpy as np
import pytest


@pytest.fixture
def tools():
    return tracking


@pytest.mark.slow
def test_scenes_are_seeded_and_sound(tools):
    for kind in tools.KINDS:
        scene, again = (tools.make_scene(kind, 5, 60) for _ in range(2))
        np.testing.assert_array_equal(scene.detections, again.detections)
        assert not np.array_equal(scene.detections, tools.make_scene(kind, 6, 60).detections)
        assert (scene.truth[:, 4:6] > 0).all() and (scene.detections[:, 4:6] > 0).all()
        assert set(scene.truth[:, 0]) <= set(scene.frames)


@pytest.mark.parametrize("kind", ["crossings", "missed", "shake", "drops"])
def test_most_of_a_scene_is_followed(tools, kind):
    scene = tools.make_scene(kind, 0, 150)
    found, _ = tools.follow(tools.CONTENDERS["ours"](scene.frame_rate), scene)
    truth = tools.by_frame(scene.truth, scene.frames)
    found = tools.by_frame(found, scene.frames)
    overlaps = [iou_matrix(tools.corners(a), tools.corners(b)) for a, b in zip(truth, found, strict=True)]
    hits = sum((iou > 0.5).any(1).sum() for iou in overlaps)
    assert hits > 0.7 * len(scene.truth)
    assert len(set(np.concatenate([rows[:, 1] for rows in found]))) < 40


def test_files_of_another_kind_are_named(tools, tmp_path):
    with pytest.raises(UserError, match="det.txt is missing"):
        tools.read_scene(tmp_path, 30)
    (tmp_path / "det.txt").write_text("one,two\n")
    with pytest.raises(UserError, match="det.txt is not a MOTChallenge"):
        tools.read_scene(tmp_path, 30)


def test_real_detections(shared, tools):
    pytest.importorskip("trackeval", reason="needs requirements/tracking.txt")
    scene = tools.read_scene(shared / "tracking" / "TUD-Stadtmitte", 25)
    found, _ = tools.follow(tools.CONTENDERS["ours"](25), scene)
    figures = tools.score_tracks(scene.truth, found, scene.frames)
    assert figures["MOTA"] >= 0.706 and figures["IDF1"] >= 0.76
