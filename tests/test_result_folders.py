"""--csv, --txt and --crops: what other programs and our own converter read of them, and what they never replace."""

import csv
import importlib
import sys

from yolov3.annotations.format import check_annotations
from yolov3.checks import UserError
from yolov3.detect import Job
from yolov3.detector import Detections
from yolov3.media.outputs import as_folder

import cv2
import numpy as np
import pytest

NAMES = ("cat", "a/b")
BOXES = np.array([[10.25, 20.5, 30.75, 40.5], [0, 0, 80, 48]], np.float32)


class FindsTwo:
    """Stands for a detector: the same two boxes in every frame but a black one."""

    spec = type("Spec", (), {"input_size": (64, 64)})
    names = NAMES

    def __call__(self, frames, *thresholds):
        n = 2 if frames[0].any() else 0
        return [Detections(BOXES[:n], np.array([0.9, 0.5], np.float32)[:n], np.array([1, 0], np.int32)[:n], NAMES)]


@pytest.fixture
def photos(tmp_path):
    """Three pictures of grey that rises to the right, two of them of one name, and a black one."""
    folder = tmp_path / "photos" / "images"
    folder.mkdir(parents=True)
    for i, name in enumerate(("1.png", "1.bmp", "2, wide.png")):
        grey = np.broadcast_to(np.arange(80)[:, np.newaxis] * 2 + 9 * i + 1, (48, 80, 3))
        cv2.imwrite(str(folder / name), grey.astype(np.uint8))
    cv2.imwrite(str(folder / "black.png"), np.zeros((48, 80, 3), np.uint8))
    return folder


def test_labels_are_read_again_as_the_boxes_they_were(photos, monkeypatch, tmp_path):
    labels = photos.parent / "labels"
    Job(photos, txt=labels).run(FindsTwo())
    assert {x.name for x in labels.iterdir()} == {"1.txt", "1-2.txt", "2, wide.txt", "black.txt", "classes.txt"}
    assert (labels / "black.txt").read_text() == ""
    label, *numbers, score = (labels / "1.txt").read_text().split("\n")[0].split()
    assert (label, score) == ("1", "0.900000")
    assert [float(x) for x in numbers] == pytest.approx([20.5 / 80, 30.5 / 48, 20.5 / 80, 20 / 48], abs=1e-6)

    monkeypatch.setattr(sys, "argv", ["Darknet_to_YOLOv3", str(photos.parent), "--output", str(tmp_path / "out.txt")])
    assert importlib.import_module("Darknet_to_YOLOv3").main() == 0
    assert (tmp_path / "out.names").read_text() == "cat\na/b\n"
    for record in check_annotations(tmp_path / "out.txt", 2, 10**6).records:
        expected = BOXES if record.picture.name != "black.png" else BOXES[:0]
        np.testing.assert_allclose(record.boxes, expected, atol=1e-3)
        assert record.classes.tolist() == [1, 0][: len(expected)]


def test_labels_of_a_person_and_classes_of_another_model_stay(photos, capsys):
    labels = photos.parent / "labels"
    labels.mkdir()
    (labels / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    for _ in range(2):  # its own labels it replaces
        Job(photos, txt=labels).run(FindsTwo())
        assert "1 files that were there, made by a person, are left as they are" in capsys.readouterr().err
    assert (labels / "1.txt").read_text() == "0 0.5 0.5 0.2 0.2\n"
    assert len((labels / "2, wide.txt").read_text().splitlines()) == 2
    (labels / "classes.txt").write_text("dog\n")
    with pytest.raises(UserError, match="classes.txt names other classes than the model"):
        Job(photos, txt=labels).run(FindsTwo())
    assert (labels / "classes.txt").read_text() == "dog\n"


def test_a_table_has_a_row_for_each_box(photos, tmp_path):
    Job(photos, csv=tmp_path / "boxes.csv").run(FindsTwo())
    with (tmp_path / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows[-2:]] == [str(photos / "2, wide.png")] * 2
    assert len(rows) == 6 and [row["class"] for row in rows[:2]] == ["a/b", "cat"]
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2")] == [10.25, 20.5, 30.75, 40.5]


def test_crops_are_the_pixels_of_the_boxes_in_a_folder_of_their_class(photos, tmp_path):
    Job(photos, crops=tmp_path / "crops").run(FindsTwo())
    found = sorted(str(x.relative_to(tmp_path / "crops")) for x in tmp_path.rglob("*.jpg"))
    names = ["1", "1-2", "2, wide"]
    assert found == sorted([*(f"a_b/{name}-1.jpg" for name in names), *(f"cat/{name}-2.jpg" for name in names)])
    crop, whole = (cv2.imread(str(x)) for x in (tmp_path / "crops/a_b/2, wide-1.jpg", photos / "2, wide.png"))
    assert crop.shape == (21, 21, 3)
    assert np.abs(crop.astype(float) - whole[20:41, 10:31]).max() <= 3  # it is a JPEG


@pytest.mark.parametrize(("name", "folder"), [("..", "_"), ("a/../b", "a_.._b"), ("x" * 300, "x" * 255), ("a ", "a")])
def test_a_class_name_never_leads_out_of_the_folder(name, folder):
    assert as_folder(name) == folder


def test_folders_of_results_are_checked_before_any_work(photos, tmp_path):
    with pytest.raises(UserError, match="photos holds .*, which is to be read: name another folder"):
        Job(photos, crops=photos.parent)
    (tmp_path / "file").write_text("")
    for kind in ("txt", "crops"):
        with pytest.raises(UserError, match="output folder .*file cannot be written"):
            Job(photos, **{kind: tmp_path / "file"})
