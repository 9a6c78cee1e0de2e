"""Pascal VOC, Darknet and COCO to annotation files: as a person runs the converters, against hand-worked cases."""

import importlib
import json
import sys

from yolov3.annotations.format import check_annotations
from yolov3.checks import read_class_names

import cv2
import numpy as np
import pytest
from oracle import read_annotations


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """convert(script, *arguments) -> exit code; writes out.txt and out.names."""

    def run(script, *arguments):
        options = ["--output", tmp_path / "out.txt"]
        monkeypatch.setattr(sys, "argv", [script, *map(str, [*arguments, *options])])
        return importlib.import_module(script).main()

    return run


def picture_file(path, width=100, height=80):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return path


def text_file(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def voc(filename, *things):
    """A Pascal VOC XML; things: (name, difficult, xmin, ymin, xmax, ymax)."""
    sides = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    objects = [
        f"<object><name>{name}</name>{part}<difficult>{difficult}</difficult>{sides.format(*box)}</object>"
        for name, difficult, *box in things
    ]
    return f"<annotation><filename>{filename}</filename>{''.join(objects)}</annotation>"


def left_out(text):
    return [line for line in text.splitlines() if line.startswith("left out: ")]


def lines(path):
    return path.read_text().splitlines()


def assert_one_line_error(error, *parts):
    assert str(error.value).startswith("error: ")
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


# --- Pascal VOC ------------------------------------------------------------------------------------------------------


def test_xml_beside_its_pictures(convert, tmp_path, capsys):
    for name in ("a b.jpg", "b.png", "c.JPG"):
        picture_file(tmp_path / "in" / name)
    text_file(tmp_path / "in/a b.xml", voc("a b.jpg", ("dog", 0, 1, 2, 30, 40), ("cat", 1, 5, 6, 7, 8)))
    text_file(tmp_path / "in/b.xml", voc("C:\\photos\\b.png"))
    text_file(tmp_path / "in/c.xml", voc("c", ("dog", 0, 10, 10, 101, 50)))
    assert convert("XML_to_YOLOv3", tmp_path / "in") == 0
    assert lines(tmp_path / "out.txt") == ["in/a b.jpg 1,2,30,40,1 5,6,7,8,0", "in/b.png", "in/c.JPG 10,10,100,50,1"]
    assert lines(tmp_path / "out.names") == ["cat", "dog"]
    assert "3 pictures, 1 of them background, 3 boxes\n  cat: 1\n  dog: 2\n1 boxes clipped" in capsys.readouterr().out


def test_a_vocdevkit_by_set_and_without_the_difficult(convert, tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("one", "two", "three"):
        picture_file(root / "JPEGImages" / f"{name}.jpg")
        thing = voc(f"{name}.jpg", ("dog", 0, 1, 2, 3, 4), ("dog", 1, 5, 6, 7, 8))
        text_file(root / "Annotations" / f"{name}.xml", thing)
    text_file(root / "ImageSets/Main/train.txt", "one\ntwo  1\n")
    names = text_file(tmp_path / "voc.names", "cat\ndog\n")
    arguments = "--set", "train", "--classes", names, "--skip-difficult"
    assert convert("XML_to_YOLOv3", tmp_path / "VOCdevkit", *arguments) == 0
    folder = "VOCdevkit/VOC2012/JPEGImages"
    assert lines(tmp_path / "out.txt") == [f"{folder}/one.jpg 1,2,3,4,1", f"{folder}/two.jpg 1,2,3,4,1"]
    assert lines(tmp_path / "out.names") == ["cat", "dog"]
    with pytest.raises(SystemExit) as error:
        convert("XML_to_YOLOv3", tmp_path / "VOCdevkit", "--set", "val")
    assert_one_line_error(error, "--set val", "has no ImageSets/Main/val.txt")


def test_what_is_wrong_with_xml_is_reported_and_the_rest_converted(convert, tmp_path, capsys):
    picture_file(tmp_path / "in/good.png")
    box = ("dog", 0, 1, 2, 30, 40)
    text_file(tmp_path / "in/bad.xml", "<annotation><object>")
    text_file(tmp_path / "in/gone.xml", voc("gone.png", box))
    text_file(tmp_path / "in/good.xml", voc("good.png", box, ("cow", 0, 1, 2, 3, 4), ("dog", 0, 1, 2, 300, 4)))
    picture_file(tmp_path / "in/other.png")
    picture_file(tmp_path / "in/word.png")
    text_file(tmp_path / "in/word.xml", voc("word.png", ("dog", 0, "one", 2, 3, 4)))
    text_file(tmp_path / "in/unnamed.xml", voc("other.png", ("", 0, 1, 2, 3, 4)))
    text_file(tmp_path / "in/second.xml", voc("good.png", box))
    names = text_file(tmp_path / "my.names", "dog\n")
    assert convert("XML_to_YOLOv3", tmp_path / "in", "--classes", names) == 0
    assert lines(tmp_path / "out.txt") == ["in/good.png 1,2,30,40,0", "in/other.png", "in/word.png"]
    said = capsys.readouterr()
    parts = (
        "bad.xml is not XML",
        "gone.xml has no picture gone.png",
        "unnamed.xml object 1 is without name",
        "word.xml object 1 has a bndbox that is not four numbers",
        "1 boxes of cow: not in",
        "good.xml: box 1,2,300,4,0 is outside the picture of 100 x 80",
        "second.xml: picture ",
    )
    for line, part in zip(left_out(said.err), parts, strict=True):
        assert part in line
    assert "7 problems" in said.out


def test_folders_without_anything_to_convert(convert, tmp_path):
    picture_file(tmp_path / "in/a.png")
    for script, source, part in (
        ("XML_to_YOLOv3", tmp_path / "nowhere", "nowhere is missing"),
        ("XML_to_YOLOv3", tmp_path / "in", "holds no XML files"),
        ("Darknet_to_YOLOv3", tmp_path / "in", "name the classes' file with --classes"),
    ):
        with pytest.raises(SystemExit) as error:
            convert(script, source)
        assert_one_line_error(error, part)
    names = text_file(tmp_path / "in/classes.txt", "dog\n")
    with pytest.raises(SystemExit) as error:
        convert("Darknet_to_YOLOv3", tmp_path / "in", "--classes", names)
    assert_one_line_error(error, "holds no picture that can be used: nothing is written")
    assert not (tmp_path / "out.txt").exists()


# --- Darknet ---------------------------------------------------------------------------------------------------------


def test_darknet_labels_by_folder_and_by_list(convert, tmp_path):
    root = tmp_path / "data"
    for name in ("images/train/a.png", "images/train/b.png", "obj/c.png"):
        picture_file(root / name)
    text_file(root / "labels/train/a.txt", "1 0.5 0.5 0.2 0.25\n0 0.05 0.1 0.1 0.2\n")
    text_file(root / "labels/train/b.txt", "")
    text_file(root / "obj/c.txt", "1 0.9 0.5 0.2 0.5\r\n")
    text_file(root / "obj.names", "cat\ndog\n")
    assert convert("Darknet_to_YOLOv3", root) == 0
    expected = ["data/images/train/a.png 40,30,60,50,1 0,0,10,16,0", "data/images/train/b.png"]
    assert lines(tmp_path / "out.txt") == [*expected, "data/obj/c.png 80,20,100,60,1"]
    assert lines(tmp_path / "out.names") == ["cat", "dog"]

    text_file(root / "train.txt", "data/images/train/a.png\nimages/train/b.png\n")
    assert convert("Darknet_to_YOLOv3", root / "train.txt") == 0
    assert lines(tmp_path / "out.txt") == expected


def test_what_is_wrong_with_darknet_labels_is_reported(convert, tmp_path, capsys):
    for name in "abcde":
        picture_file(tmp_path / f"in/{name}.png")
    text_file(tmp_path / "in/a.txt", "0 0.5 0.5 0.2 0.25")
    text_file(tmp_path / "in/b.txt", "0 0.5 0.5 0.2")
    text_file(tmp_path / "in/c.txt", "0.5 0.5 0.5 0.2 0.2")
    text_file(tmp_path / "in/d.txt", "7 0.5 0.5 0.2 0.2")
    names = text_file(tmp_path / "my.names", "dog\n")
    assert convert("Darknet_to_YOLOv3", tmp_path / "in", "--classes", names) == 0
    assert lines(tmp_path / "out.txt") == ["in/a.png 40,30,60,50,0", "in/b.png", "in/c.png", "in/d.png"]
    parts = ("b.txt:1: '0 0.5 0.5 0.2' is not `class x y width height`", "c.txt:1: class 0.5 is not a whole number")
    parts = (*parts, "e.txt are missing", "has an unknown class: there are 1, from 0")
    for line, part in zip(left_out(capsys.readouterr().err), parts, strict=True):
        assert part in line


def test_darknet_labels_of_photographs(convert, tmp_path, shared, capsys):
    """Against pixels computed from the label files by themselves, with OpenCV's picture sizes."""
    root = shared / "coco64"
    code = convert("Darknet_to_YOLOv3", root, "--classes", shared / "darknet/coco.names")
    records = read_annotations(tmp_path / "out.txt")
    rows = 0
    for record in records:
        height, width = cv2.imread(str(record.picture)).shape[:2]
        labels = np.loadtxt(root / "labels" / f"{record.picture.stem}.txt", ndmin=2).reshape(-1, 5)
        x, y, w, h = (labels[:, 1:] * [width, height, width, height]).T
        expected = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        np.testing.assert_allclose(record.boxes, expected.clip(0, [width, height] * 2), atol=0.006)
        assert record.classes.tolist() == labels[:, 0].tolist()
        rows += len(labels)
    assert (len(records), rows, code) == (64, 461, 0), capsys.readouterr()
    assert check_annotations(tmp_path / "out.txt", 80, 10**7).problems == []
    assert read_class_names(tmp_path / "out.names") == read_class_names(shared / "darknet/coco.names")


# --- COCO ------------------------------------------------------------------------------------------------------------


def coco(path, **changes):
    content = {
        "images": [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "sub/a.png"}],
        "categories": [{"id": 90, "name": "tooth brush"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"image_id": 3, "category_id": 90, "bbox": [1, 2, 30.5, 40], "iscrowd": 0},
            {"image_id": 3, "category_id": 18, "bbox": [0, 0, 10, 10]},
            {"image_id": 3, "category_id": 18, "bbox": [0, 0, 50, 50], "iscrowd": 1},
        ],
    }
    return text_file(path, json.dumps({**content, **changes}))


def test_coco_skips_crowds_and_closes_gaps_between_category_ids(convert, tmp_path):
    for name in ("b.png", "sub/a.png"):
        picture_file(tmp_path / "val" / name)
    assert convert("COCO_to_YOLOv3", coco(tmp_path / "instances.json"), tmp_path / "val") == 0
    assert lines(tmp_path / "out.txt") == ["val/b.png", "val/sub/a.png 1,2,31.5,42,1 0,0,10,10,0"]
    assert lines(tmp_path / "out.names") == ["dog", "tooth brush"]


def test_what_is_wrong_with_coco_is_reported(convert, tmp_path, capsys):
    picture_file(tmp_path / "val/sub/a.png")
    boxes = [(3, 18, [0, 0, 10, 10]), (3, 18, [5, 5, 0, 10]), (3, 1, [0, 0, 10, 10]), (9, 18, [0, 0, 10, 10])]
    annotations = [{"image_id": i, "category_id": c, "bbox": box} for i, c, box in boxes]
    source = coco(tmp_path / "instances.json", annotations=annotations)
    assert convert("COCO_to_YOLOv3", source, tmp_path / "val") == 0
    assert lines(tmp_path / "out.txt") == ["val/sub/a.png 0,0,10,10,0"]
    parts = ("its category 1 is not listed", "its picture 9 is not listed", "b.png is missing", "5,15,0 has no area")
    for line, part in zip(left_out(capsys.readouterr().err), parts, strict=True):
        assert part in line


def test_files_that_are_not_coco(convert, tmp_path):
    (tmp_path / "val").mkdir()
    for text in ("{", "{}", "[" * 10**5, '{"images": 3}', '{"images": [], "categories": 1, "annotations": []}'):
        with pytest.raises(SystemExit) as error:
            convert("COCO_to_YOLOv3", text_file(tmp_path / "x.json", text), tmp_path / "val")
        assert_one_line_error(error, "x.json is not a COCO file of boxes")
    with pytest.raises(SystemExit) as error:
        convert("COCO_to_YOLOv3", coco(tmp_path / "x.json"), tmp_path / "nowhere")
    assert_one_line_error(error, "picture folder", "nowhere is missing")


# --- Divided -----------------------------------------------------------------------------------------------------


def test_a_split_is_a_share_of_the_pictures_the_same_each_time_with_its_counts(convert, tmp_path, capsys):
    for i in range(20):
        picture_file(tmp_path / "in" / f"{i}.png")
        things = [("cat", 0, 1, 1, 50, 50)] if i < 10 else [("dog", 0, 1, 1, 50, 50)] if i < 15 else []
        text_file(tmp_path / "in" / f"{i}.xml", voc(f"{i}.png", *things))
    assert convert("XML_to_YOLOv3", tmp_path / "in", "--split", 0.8) == 0
    said = capsys.readouterr().out
    parts = [lines(tmp_path / f"out_{part}.txt") for part in ("train", "test")]
    assert [len(part) for part in parts] == [16, 4] and len(set(sum(parts, []))) == 20
    assert sum(" " not in line for line in parts[1]) == 1  # a fifth of the five without boxes
    told = [[sum(line.endswith(f",{i}") for line in part) for i in (0, 1)] for part in parts]
    for name, part, (cats, dogs) in zip(("train", "test"), parts, told, strict=True):
        background = len(part) - cats - dogs
        expected = (
            f"{len(part)} pictures, {background} of them background, {cats + dogs} boxes\n  cat: {cats}\n  dog: {dogs}"
        )
        assert f"out_{name}.txt: {expected}\n" in said
    assert lines(tmp_path / "out.names") == ["cat", "dog"] and not (tmp_path / "out.txt").exists()
    assert convert("XML_to_YOLOv3", tmp_path / "in", "--split", 0.8) == 0
    assert [lines(tmp_path / f"out_{part}.txt") for part in ("train", "test")] == parts


def test_a_split_that_cannot_be_is_one_line_and_writes_nothing(convert, tmp_path):
    picture_file(tmp_path / "in" / "1.png")
    text_file(tmp_path / "in" / "1.xml", voc("1.png", ("cat", 0, 1, 1, 50, 50)))
    for share, said in (
        (0.5, "takes at least two pictures with boxes"),
        (1, "between 0 and 1"),
        (80, "between 0 and 1"),
    ):
        with pytest.raises(SystemExit) as error:
            convert("XML_to_YOLOv3", tmp_path / "in", "--split", share)
        assert_one_line_error(error, f"--split {share}", said)
    with pytest.raises(SystemExit) as error:
        convert("XML_to_YOLOv3", tmp_path / "in", "--split", 0.5, "--names", tmp_path / "out_test.txt")
    assert_one_line_error(error, "--output and --names are both")
    assert not list(tmp_path.glob("out*"))
