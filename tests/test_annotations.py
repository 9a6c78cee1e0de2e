"""Annotation files: what is read, what is written, and what is found to be wrong with them."""

import importlib
import struct
import sys

from yolov3.annotations.format import Record, check_annotations, read_size, usable_boxes, write_annotations
from yolov3.checks import PROJECT, UserError

import cv2
import numpy as np
import pytest
from oracle import read_annotations

MAX_PIXELS = 10**6


def picture_file(path, width=80, height=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return path


def with_exif(path, orientation, padding=0):
    """Puts an EXIF orientation into a JPEG, and comments of that many bytes before its picture."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + bytes(60_000)
    data = path.read_bytes()
    app1 = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path.write_bytes(data[:2] + app1 + comment * (padding // 60_000) + data[2:])
    return path


def annotations(folder, *lines):
    path = folder / "set.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_reads_paths_with_spaces_floats_and_background(tmp_path):
    path = annotations(tmp_path, "\ufeffmy 1 picture.jpg 1,2,30,40,0 5.5,6,7.25,8,2", "", "empty one.png  ")
    first, second = read_annotations(path)
    assert first.picture.name == "my 1 picture.jpg"
    assert first.boxes.tolist() == [[1, 2, 30, 40], [5.5, 6, 7.25, 8]]
    assert first.classes.tolist() == [0, 2]
    assert (first.boxes.dtype, first.classes.dtype) == (np.float32, np.int32)
    assert second.picture.name == "empty one.png"
    assert second.boxes.shape == (0, 4)
    assert second.classes.shape == (0,)


def test_relative_pictures_are_the_projects_or_else_beside_the_file(tmp_path):
    picture_file(tmp_path / "a" / "mine.png")
    path = annotations(tmp_path, "IMAGES/chelsea.jpg", "a/mine.png", "nowhere.png")
    pictures = [record.picture for record in read_annotations(path)]
    assert pictures == [PROJECT / "IMAGES/chelsea.jpg", tmp_path / "a/mine.png", PROJECT / "nowhere.png"]


def test_what_is_written_is_read_back_and_can_be_moved_with_its_pictures(tmp_path):
    inside, outside = picture_file(tmp_path / "set" / "in side.png"), picture_file(tmp_path / "out.png")
    boxes, classes = np.float32([[1, 2, 3.25, 4], [0, 0, 80, 60]]), np.int32([4, 0])
    records = [
        Record(inside, boxes, classes),
        Record(outside, boxes[:0], classes[:0]),
        Record(PROJECT / "IMAGES/chelsea.jpg", boxes[:1], classes[:1]),
    ]
    write_annotations(tmp_path / "set" / "all.txt", records)
    assert (tmp_path / "set" / "all.txt").read_text() == (
        f"in side.png 1,2,3.25,4,4 0,0,80,60,0\n{outside}\nIMAGES/chelsea.jpg 1,2,3.25,4,4\n"
    )
    for record, again in zip(records, read_annotations(tmp_path / "set" / "all.txt"), strict=True):
        assert record.picture == again.picture
        assert (record.boxes == again.boxes).all()
        assert (record.classes == again.classes).all()
    (tmp_path / "set").rename(tmp_path / "moved")
    assert read_annotations(tmp_path / "moved" / "all.txt")[0].picture == tmp_path / "moved" / "in side.png"


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path):
    path = annotations(tmp_path, "before")
    with pytest.raises(AttributeError):
        write_annotations(path, [Record(tmp_path / "a.png", np.zeros((0, 4)), np.zeros(0, int)), None])
    assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [("set.txt", "before\n")]
    with pytest.raises(UserError, match="cannot be written"):
        write_annotations(path / "below.txt", [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg 1,2,3,4", "'1,2,3,4' is not a box"),
        ("a.jpg 1,2,3,4,0 1,2,3", "'1,2,3' is not a box"),
        ("a.jpg 1,2,3,4 1,2,3,4,0", "'1,2,3,4' is not a box"),
        ("a.jpg 1,2,3,4,0 and more", "'and' is not a box"),
        ("1,2,3,4,0", "the path of the picture is missing"),
        ("a.jpg 1,2,3,4,0.5", "not a whole number"),
        ("a.jpg 1,2,3,4,nan", "not a whole number"),
        ("a.jpg 1,nan,3,4,0", "box 1,nan,3,4,0 has a side that is not a number"),
        ("a.jpg 3,2,1,4,0", "has x2 < x1"),
        ("a.jpg 1,2,3,4,7", "box 1,2,3,4,7 has an unknown class: there are 3, from 0"),
        ("a.jpg 1,2,3,4,-1", "has an unknown class"),
    ],
)
def test_a_line_that_is_wrong_in_itself_is_named(tmp_path, line, message):
    for name in ("fine.jpg", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((9, 9, 3), np.uint8))
    (problem,) = check_annotations(annotations(tmp_path, "fine.jpg 1,2,3,4,0", line), 3, MAX_PIXELS).problems
    assert "set.txt line 2: " in problem and message in problem
    assert "\n" not in problem


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(UserError, match="missing.txt is missing"):
        check_annotations(tmp_path / "missing.txt", 1, MAX_PIXELS)
    with pytest.raises(UserError, match="set.txt is empty"):
        check_annotations(annotations(tmp_path, "  ", ""), 1, MAX_PIXELS)
    with pytest.raises(UserError, match="cannot be read"):
        check_annotations(tmp_path, 1, MAX_PIXELS)
    with pytest.raises(UserError, match="no picture that can be used; .* line 1: picture .*x.jpg is missing"):
        check_annotations(annotations(tmp_path, "x.jpg 1,2,3,4,0", "y.jpg"), 1, MAX_PIXELS)


def test_boxes_are_kept_clipped_or_reported():
    cases = [  # of a picture of 200 x 100 pixels, 2 classes: what is partly outside is clipped if its centre is inside
        ([10, 10, 50, 50], 1, None),
        ([-4, 0, 50, 103], 0, "clipped"),
        ([-49, 0, 51, 50], 0, "clipped"),
        ([-51, 0, 49, 50], 0, "is outside the picture of 200 x 100 pixels"),
        ([10, 60, 50, 150], 0, "is outside"),
        ([300, 10, 350, 50], 0, "is outside"),
        ([10, 10, 10, 50], 0, "has no area"),
        ([201, 10, 203, 50], 0, "is outside"),
        ([50, 10, 10, 50], 0, "has x2 < x1 or y2 < y1"),
        ([10, 10, 50, 50], 1, "appears twice"),
        ([10, 10, 50, 50], 0, None),  # the same box, of another class
        ([10, 10, np.inf, 50], 0, "is not a number"),
        ([10, 10, 50, 51], 2, "has an unknown class"),
    ]
    boxes, classes = np.float32([x[0] for x in cases]), np.int32([x[1] for x in cases])
    kept, kept_classes, reasons, clipped = usable_boxes(boxes, classes, (100, 200), 2)
    assert kept.tolist() == [[10, 10, 50, 50], [0, 0, 50, 100], [0, 0, 51, 50], [10, 10, 50, 50]]
    assert kept_classes.tolist() == [1, 0, 0, 0]
    assert clipped == 2
    expected = [x[2] for x in cases if x[2] not in (None, "clipped")]
    for reason, part in zip(reasons, expected, strict=True):
        assert part in reason


def test_sizes_come_from_headers_and_are_those_of_the_upright_picture(tmp_path):
    for suffix in ("jpg", "png", "bmp"):
        assert read_size(picture_file(tmp_path / f"a.{suffix}"), MAX_PIXELS)[:2] == (60, 80)
    for orientation in (1, 3, 6, 8):
        turned = with_exif(picture_file(tmp_path / "turned.jpg"), orientation)
        assert read_size(turned, MAX_PIXELS)[:2] == cv2.imread(str(turned)).shape[:2]
    far_behind = with_exif(picture_file(tmp_path / "far.jpg"), 6, padding=240_000)
    assert read_size(far_behind, MAX_PIXELS)[:2] == (80, 60)


def test_everything_wrong_is_found_with_its_line_and_the_rest_is_kept(tmp_path):
    picture_file(tmp_path / "good one.png")
    with_exif(picture_file(tmp_path / "tall.jpg"), 6)
    picture_file(tmp_path / "large.png", 2000, 600)
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    path = annotations(
        tmp_path,
        "good one.png -2,0,50,50,0 20,20,190,30,0 3,3,9,9,1",  # 1: one clipped, one outside
        "missing.png 1,2,3,4,0",
        "text.jpg 1,2,3,4,0",
        "",
        "empty.jpg",
        "large.png 1,2,3,4,0",
        "tall.jpg 0,0,60,80,0",  # 7: right for the upright picture only
        "good one.png 1,2,3,4,0",
        "good one.png 1,2,3,4",
    )
    checked = check_annotations(path, 2, MAX_PIXELS)
    assert [record.picture.name for record in checked.records] == ["good one.png", "tall.jpg"]
    assert checked.records[0].boxes.tolist() == [[0, 0, 50, 50], [3, 3, 9, 9]]
    assert checked.sizes == [(60, 80), (80, 60)]
    assert checked.clipped == 1
    expected = {
        1: "box 20,20,190,30,0 is outside the picture of 80 x 60 pixels",
        2: "missing.png is missing",
        3: "is not a picture that can be read",
        5: "is not a picture that can be read",
        6: "is 2000 x 600, more than YOLO_MAX_PIXELS",
        8: "is already on line 1",
        9: "'1,2,3,4' is not a box",
    }
    assert len(checked.problems) == len(expected)
    for problem, (line, part) in zip(checked.problems, expected.items(), strict=True):
        assert problem.startswith(f"{path} line {line}: ")
        assert part in problem


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["Check_annotations.py", *map(str, arguments)])
    return importlib.import_module("Check_annotations").main()


def test_the_script_prints_problems_and_a_summary(tmp_path, monkeypatch, capsys):
    names = tmp_path / "my.names"
    names.write_text("cat\ndog\n")
    picture_file(tmp_path / "a.png")
    annotations(tmp_path, "a.png 1,2,3,4,1 -1,2,9,9,1")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "set.txt", "--classes", "my.names") == 0  # as the shell gives them
    assert capsys.readouterr().out == (
        "set.txt: 1 pictures, 0 of them background, 2 boxes\n  cat: 0\n  dog: 2\n"
        "1 boxes clipped to their picture, 0 problems\n"
    )
    bad = annotations(tmp_path, "a.png 1,2,3,4,1", "b.png")
    assert run(monkeypatch, bad, "--classes", names) == 1
    assert "line 2: picture " in capsys.readouterr().out.splitlines()[0]
    with pytest.raises(SystemExit, match="^error: class names file .*other.names is missing.*$"):
        run(monkeypatch, bad, "--classes", tmp_path / "other.names")
