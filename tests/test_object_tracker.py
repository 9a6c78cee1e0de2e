"""object_tracker.py: from a video to numbered boxes, trails, counts, and files of them."""

import json
import sys
from dataclasses import fields

import detection_demo
import object_tracker
from deep_sort import Tracker, TrackerOptions
from yolov3 import configs
from yolov3.checks import PROJECT, UserError
from yolov3.detector import Detections
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.media.drawing import draw_tracks
from yolov3.media.sources import Frame
from yolov3.tracking.follower import Follower

import cv2
import numpy as np
import pytest

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The first 24 frames of the digits' video."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    capture = cv2.VideoCapture(str(PROJECT / "IMAGES" / "digits.mp4"))
    size = tuple(int(capture.get(x)) for x in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    for _ in range(24):
        writer.write(capture.read()[1])
    writer.release()
    return path


@pytest.fixture
def track(monkeypatch, tmp_path):
    """track(arguments ..., constants ...) -> exit code, as from the command line."""

    def run(*arguments, **constants):
        for name, value in {"DETECT_OUTPUT": str(tmp_path), "YOLO_CUSTOM_WEIGHTS": SHIPPED, **constants}.items():
            monkeypatch.setattr(configs, name, value)
        monkeypatch.setattr(sys, "argv", ["object_tracker.py", *map(str, arguments)])
        return object_tracker.main.__wrapped__()

    return run


def detections(*boxes, classes=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.zeros(len(boxes), np.int32) if classes is None else np.array(classes)
    return Detections(boxes, np.full(len(boxes), 0.9, np.float32), classes, NAMES)


def frame(i, width=200, height=100):
    return Frame("a video", i, np.zeros((height, width, 3), np.uint8), i / 25)


@pytest.mark.parametrize("embedder", ["none", "detector"])
def test_a_video_becomes_numbered_boxes_in_every_file(track, clip, tmp_path, capsys, embedder):
    video, lines, mot = tmp_path / "out.mp4", tmp_path / "tracks.jsonl", tmp_path / "tracks.txt"
    arguments = clip, "--output", video, "--json", lines, "--mot", mot
    assert track(*arguments, TRACKER_EMBEDDER=embedder) == 0
    said = capsys.readouterr().out
    assert "24 frames" in said and "detection" in said and "seen: " in said and f"written: {mot}" in said
    lines = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(24))
    rows = np.loadtxt(mot, delimiter=",")
    for line in lines:
        theirs = rows[rows[:, 0] == line["frame"] + 1]
        assert theirs[:, 1].tolist() == line["numbers"] and len(set(line["numbers"])) == len(line["numbers"])
        boxes = np.array(line["boxes"]).reshape(-1, 4)
        np.testing.assert_allclose(theirs[:, 2:6], np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]), atol=0.02)
    first = dict(zip(lines[0]["numbers"], lines[0]["classes"], strict=True))
    last = dict(zip(lines[-1]["numbers"], lines[-1]["classes"], strict=True))
    assert len(first) >= 3 and all(last.get(number) == label for number, label in first.items() if number in last)
    assert len(set(first) & set(last)) >= 3  # a second later they are still who they were
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 24


@pytest.mark.slow
def test_as_cloned_objects_of_80_classes_keep_their_numbers_while_they_pass(track, tmp_path, capsys):
    lines, mot = tmp_path / "tracks.jsonl", tmp_path / "tracks.txt"
    assert track("--json", lines, "--mot", mot, YOLO_CUSTOM_WEIGHTS=None) == 0
    assert "seen: 1 x cat, 1 x cup, 1 x person\n" in capsys.readouterr().out
    lines = [json.loads(line) for line in lines.read_text().splitlines()]
    assert set(lines[0]["classes"]) == set(lines[-1]["classes"]) == {"cat", "cup", "person"}


@pytest.mark.slow
def test_nothing_found_says_by_which_threshold_and_model(track, tmp_path, capsys, monkeypatch):
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((60, 80, 3), 127, np.uint8))
    assert track(grey, DETECT_OUTPUT="", TRACKER_EMBEDDER="none", TRACKER_HIGH_SCORE=0.45) == 0
    said = "0 boxes with a score over 0.45 (yolov4-tiny, 10 classes): lower TRACKER_HIGH_SCORE in yolov3/configs.py"
    assert said in capsys.readouterr().out
    monkeypatch.setattr(configs, "YOLO_SCORE_THRESHOLD", 0.25)
    monkeypatch.setattr(sys, "argv", ["detection_demo.py", str(grey), "--only", "9,1"])
    assert detection_demo.main.__wrapped__() == 0
    said = "0 boxes of 9, 1 with a score over 0.25 (yolov4-tiny, 10 classes): lower YOLO_SCORE_THRESHOLD"
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_some_classes_only(track, clip, tmp_path):
    assert track(clip, "--only", "9", "--json", tmp_path / "a.jsonl") == 0
    labels = [name for line in (tmp_path / "a.jsonl").read_text().splitlines() for name in json.loads(line)["classes"]]
    assert set(labels) == {"9"}


@pytest.mark.slow
def test_the_tutorials_call(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "TRACKER_EMBEDDER", "none")
    yolo = Load_Yolo_model(SHIPPED)
    summary = object_tracker.Object_tracking(yolo, clip, tmp_path / "out.mp4", input_size=416, Track_only=["9", "5"])
    assert summary.frames == 24 and set(summary.found.counts) <= {"9", "5"} and (tmp_path / "out.mp4").exists()
    monkeypatch.setattr(configs, "TRACKER_EMBEDDER", "detector")
    with pytest.raises(UserError, match=r"needs a detector with features: Load_Yolo_model\(features=True\)"):
        object_tracker.Object_tracking(yolo, clip)


@pytest.mark.slow
def test_class_agnostic_tracking_detects_across_classes(clip, monkeypatch):
    """Also with a detector that was loaded without; what the caller holds stays as it is."""
    for name, value in {"TRACKER_EMBEDDER": "none", "TRACKER_CLASS_AGNOSTIC": True, "TRACKER_LOW_SCORE": 0.01}.items():
        monkeypatch.setattr(configs, name, value)
    yolo, used = Load_Yolo_model(SHIPPED, iou_threshold=0.2), []
    monkeypatch.setattr(object_tracker.Job, "run", lambda job, detector, *rest: used.append((detector, *rest)))
    object_tracker.Object_tracking(yolo, clip)
    (across, _, _, threshold, _), frames = used[0], [cv2.VideoCapture(str(clip)).read()[1][..., ::-1].copy()]
    (found,), (per_class,) = across(frames, threshold), yolo(frames, threshold)
    assert 0 < len(found) < len(per_class) and not yolo.class_agnostic
    assert across.iou_threshold == 0.2


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TRACKER_HIGH_SCORE", 2, "TRACKER_HIGH_SCORE = 2 must be a number, from 0 to 1"),
        ("TRACKER_BUDGET", 0, "TRACKER_BUDGET = 0 must be"),
        ("TRACKER_CLASS_AGNOSTIC", "yes", "TRACKER_CLASS_AGNOSTIC = 'yes' must be True or False"),
        ("TRACKER_TRAIL", -1, "TRACKER_TRAIL = -1 must be a whole number"),
        ("TRACKER_EMBEDDER", "mars.pb", "mars.pb is missing"),
    ],
)
def test_wrong_constants_are_named(track, clip, name, value, reason):
    with pytest.raises(UserError, match=reason):
        track(clip, **{name: value})


def test_every_option_of_the_tracker_is_a_constant_with_its_default():
    for field in fields(TrackerOptions):
        assert getattr(configs, f"TRACKER_{field.name.upper()}") == field.default


def test_a_follower_counts_and_remembers_where_things_were():
    follow = Follower(Tracker(), trail=5)
    for i in range(8):
        tracks = follow(frame(i), detections([10 + i, 10, 30 + i, 50], [100, 20 - i / 9, 140, 60], classes=[0, 1]))
    assert tracks.numbers.tolist() == [1, 2] and tracks.labels == ["cat", "dog"]
    assert tracks.counts == {"cat": 1, "dog": 1}
    assert len(tracks.trails[0]) == 5
    np.testing.assert_allclose(tracks.trails[0][-1], [27, 50], atol=2)  # between its feet
    for i in range(8, 100):
        tracks = follow(frame(i), detections())
    assert len(tracks) == 0 and not follow.trails and tracks.counts == {"cat": 1, "dog": 1}


def test_motion_only_ignores_embeddings():
    for embed, size in ((None, 0), ("detector", 1)):
        follow = Follower(Tracker(), embed)
        found = detections([10, 10, 30, 50])
        follow(frame(0), Detections(found.boxes, found.scores, found.classes, NAMES, np.ones((1, 8), np.float32)))
        assert [len(gallery) for gallery in follow.tracker.tracks["gallery"]] == [size]


def test_a_trail_begins_where_its_track_was_found_again():
    follow = Follower(Tracker(coast=0), trail=20)
    for i in range(40):
        found = detections(*([] if 5 <= i < 15 else [[10, 10, 30, 50]]))
        tracks = follow(frame(i), found)
        if i == 17:
            assert len(tracks.trails[0]) == 3
    assert len(tracks.trails[0]) == 20 and tracks.numbers.tolist() == [1]


def test_a_picture_that_cannot_be_read_leaves_a_gap_in_the_frame_numbers(track, tmp_path):
    whole = (PROJECT / "IMAGES" / "digits" / "00000.jpg").read_bytes()
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(whole[:9000] if name == "b" else whole)
    assert track(tmp_path, "--output", tmp_path / "out", "--mot", tmp_path / "a.txt", TRACKER_EMBEDDER="none") == 1
    assert set(np.loadtxt(tmp_path / "a.txt", delimiter=",")[:, 0]) == {1, 3, 4}


def test_a_video_that_changes_its_size_keeps_its_numbers():
    follow = Follower(Tracker())
    for i in range(5):
        follow(frame(i), detections([10, 10, 30, 50]))
    tracks = follow(frame(5, 400, 200), detections([20, 20, 60, 100]))
    assert (len(tracks.only(("dog",))), tracks.only(("cat",)).numbers.tolist()) == (0, [1])  # one more column of many
    assert tracks.numbers.tolist() == [1]
    np.testing.assert_allclose(tracks.boxes[0], [20, 20, 60, 100], atol=2)
    np.testing.assert_allclose(tracks.trails[0][0], [40, 100], atol=2)


def test_what_is_drawn_has_boxes_trails_and_counts():
    trail = np.array([[20, 90], [60, 90], [100, 90]])
    boxes = np.array([[80, 40, 120, 90]], np.float32)
    one = np.ones(1, np.int32)
    tracks = Detections(boxes, np.ones(1, np.float32), one, NAMES, None, one, [trail], {"dog": 3})
    picture = draw_tracks(np.zeros((120, 300, 3), np.uint8), tracks, (0, 250, 0))
    assert (picture[90, 119] == (0, 250, 0)).all()
    old, new = picture[90, 30].astype(int), picture[90, 78].astype(int)
    assert 0 < old[1] < new[1]  # a trail fades
    assert picture[:20, :60].any()  # the counts
    nothing = Detections(boxes[:0], boxes[:0, 0], one[:0], NAMES, None, one[:0], [], {})
    draw_tracks(np.zeros((60, 80, 3), np.uint8), nothing)
