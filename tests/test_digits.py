"""tools/Make_digits.py: the same seed the same bytes, boxes that hold the ink, digits that can be read."""

import sys

from tools.digits import glyphs, scenes, video
from yolov3.annotations.format import check_annotations

import cv2
import Make_digits
import numpy as np
import pytest


@pytest.fixture
def make(monkeypatch):
    """make(*arguments): runs the script."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["Make_digits.py", *map(str, arguments)])
        return Make_digits.main()

    return run


def bytes_under(folder):
    return {str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()}


@pytest.fixture
def drawn():
    """100 digits, each alone on a plain background, in all fonts -> (box, difference to the background)."""

    def draw(rng, i):
        row = glyphs.write_row(glyphs.random_lettering(rng, str(i % 10)), rng.uniform(22, 200), rng.uniform(-20, 20))
        plain = np.full((*row.masks.shape[1:], 3), 255, np.uint8)
        style = scenes.Style(np.zeros(3), np.zeros(3), cover=1, edge=None, shadow=0, sheet=None, disc=False)
        return row.boxes[0], 255 - scenes.paint(plain, row, style)[..., 0]

    return [draw(np.random.default_rng([5, i]), i) for i in range(100)]


def test_boxes_are_tight_around_the_ink(drawn):
    for box, difference in drawn:
        x, y, w, h = cv2.boundingRect((difference > 80).astype(np.uint8))
        assert x >= box[0] and y >= box[1] and x + w <= box[2] and y + h <= box[3]  # all that is clearly ink
        x, y, w, h = cv2.boundingRect((difference > 50).astype(np.uint8))
        assert x <= box[0] and y <= box[1] and x + w >= box[2] and y + h >= box[3]  # no side without ink
        x1, y1, x2, y2 = box.astype(int)
        outside = difference.astype(int).copy()
        outside[y1:y2, x1:x2] = 0
        assert outside.max() < 70


def test_digits_stay_upright_enough_and_inside_their_masks(drawn):
    for _, difference in drawn:
        edge = np.concatenate([difference[0], difference[-1], difference[:, 0], difference[:, -1]])
        assert edge.max() == 0
    assert scenes.MAX_ANGLE <= 25


def test_scenes_have_boxes_inside_the_picture_apart_and_readable():
    counts = []
    for i in range(25):
        picture, boxes, classes = scenes.draw_scene(np.random.default_rng([0, 9, i]))
        height, width = picture.shape[:2]
        assert picture.dtype == np.uint8
        assert 320 <= min(height, width) <= max(height, width) <= 640
        assert ((boxes >= 0) & (boxes <= [width, height, width, height])).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= [3, 14]).all()
        assert set(classes.tolist()) <= set(range(10))
        for a in range(len(boxes)):
            for b in range(a):
                assert iou(boxes[a], boxes[b]) < 0.1
        counts.append(len(boxes))
    assert max(counts) <= 8
    assert 2 < np.mean(counts) < 6
    assert len(set(counts)) > 3


def iou(a, b):
    """By counting pixels."""
    canvas = np.zeros((2, 640, 640), bool)
    for layer, (x1, y1, x2, y2) in zip(canvas, (a.astype(int), b.astype(int)), strict=True):
        layer[y1:y2, x1:x2] = True
    return canvas.all(0).sum() / canvas.any(0).sum()


def test_what_drowns_is_not_readable():
    rng = np.random.default_rng(0)
    row = glyphs.write_row(glyphs.random_lettering(rng, "5"), 60, 0)

    def readable(ink, background):
        style = scenes.Style(np.full(3, ink), np.full(3, ink), 1, None, 0, None, False)
        return scenes.is_readable(scenes.paint(background, row, style), row)

    plain = np.full((*row.masks.shape[1:], 3), 120, np.uint8)
    assert readable(250.0, plain)
    assert not readable(140.0, plain)
    noise = rng.integers(0, 255, plain.shape, np.uint8)
    assert not readable(140.0, noise)
    stripes = np.where(np.arange(plain.shape[1])[:, np.newaxis] // 8 % 2, 255, 0) * np.ones_like(plain)
    assert not readable(255.0, stripes.astype(np.uint8))


def test_the_same_seed_gives_the_same_bytes_however_many_processes_draw(make, tmp_path, monkeypatch):
    make("--train", 4, "--test", 2, "--seed", 3, "--output", tmp_path / "a")
    monkeypatch.setattr(Make_digits, "PICTURES_PER_PROCESS", 2)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")  # what the script itself sees to: no TensorFlow in its processes
    make("--train", 4, "--test", 2, "--seed", 3, "--output", tmp_path / "b")
    make("--train", 1, "--test", 1, "--seed", 4, "--output", tmp_path / "c")
    first, again, other = (bytes_under(tmp_path / x) for x in "abc")
    assert first == again
    pictures = {name for name in first if name.endswith(".jpg")}
    assert pictures == {f"train/0000{i}.jpg" for i in range(4)} | {f"test/0000{i}.jpg" for i in range(2)}
    assert len({first[name] for name in pictures}) == 6  # none is in both parts
    assert other["train/00000.jpg"] != first["train/00000.jpg"]


def test_annotations_fit_and_name_ten_digits(make, tmp_path, capsys):
    make("--train", 6, "--test", 0, "--output", tmp_path)
    assert (tmp_path / "digits.names").read_text().split() == list("0123456789")
    assert not (tmp_path / "digits_test.txt").exists()
    checked = check_annotations(tmp_path / "digits_train.txt", 10, 10**6)
    assert checked.problems == []
    assert len(checked.records) == 6
    assert sum(len(x.classes) for x in checked.records) > 6
    assert "6 pictures, " in capsys.readouterr().out


def test_preview_and_video(make, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "SECONDS", 1)
    monkeypatch.setattr(Make_digits, "PREVIEW", (2, 1, 160))
    make("--train", 0, "--test", 0, "--preview", tmp_path / "sheet.png", "--video", tmp_path / "digits.mp4")
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (160, 320, 3)
    capture = cv2.VideoCapture(str(tmp_path / "digits.mp4"))
    frames = [capture.read()[1] for _ in range(25)]
    assert all(frame.shape == (360, 640, 3) for frame in frames)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 2
    assert sorted(x.name for x in tmp_path.iterdir()) == ["digits.mp4", "sheet.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "-1"], "--train is -1, but it must not be negative"),
        (["--seed", "-1"], "--seed is -1"),
        (["--preview", "sheet.txt"], "sheet.txt must end in one of .png"),
        (["--video", "digits.gif"], "digits.gif must end in one of .mp4"),
        (["--output", "/proc/digits"], "cannot be written"),
    ],
)
def test_wrong_arguments_are_one_line(make, arguments, message):
    with pytest.raises(SystemExit) as error:
        make(*arguments)
    assert str(error.value).startswith("error: ")
    assert "\n" not in str(error.value)
    assert message in str(error.value)
