"""What people bring to the annotation converters: files of other machines and programs, and files with faults."""

import contextlib
import importlib
import json
import os
import signal
import struct
import sys
from pathlib import Path

from yolov3 import configs
from yolov3.annotations.datasets import read_names
from yolov3.annotations.format import Size, check_annotations, parse_line, read_size, usable_boxes
from yolov3.annotations.picture_sizes import turned
from yolov3.checks import UserError, class_names, read_class_names

import cv2
import numpy as np
import pytest


@contextlib.contextmanager
def alarm(seconds=20):
    """Fail what takes minutes where it should take milliseconds."""

    def stop(*_):
        raise AssertionError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def convert(monkeypatch, tmp_path, capsys):
    """convert(script, *arguments) -> lines written to out.txt, and what was told."""

    def run(script, *arguments, output="out.txt"):
        options = ["--output", tmp_path / output] if output else []
        monkeypatch.setattr(sys, "argv", [script, *map(str, [*arguments, *options])])
        assert importlib.import_module(script).main() == 0
        return (tmp_path / (output or "out.txt")).read_text().splitlines(), capsys.readouterr().err

    return run


def picture_file(path, width=100, height=80, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1].tobytes()
    if orientation:
        exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    path.write_bytes(data)
    return path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def voc(filename="", size="", name="box", box=(30, 40, 90, 70)):
    sides = "".join(f"<{s}>{x}</{s}>" for s, x in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    thing = f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"
    size = size and "<size><width>{}</width><height>{}</height></size>".format(*size)
    return f"<annotation><filename>{filename}</filename>{size}{thing}</annotation>"


def coco(path, annotations, images=None, names=("box",)):
    content = {
        "images": [{"id": 1, "file_name": "1.png"}] if images is None else images,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [{"image_id": 1, "category_id": 1, **x} if isinstance(x, dict) else x for x in annotations],
    }
    return write(path, json.dumps(content))


# --- Nothing that was read is lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["same", "link", "hard link", "names"])
def test_no_output_falls_on_an_input(convert, tmp_path, kind):
    picture_file(tmp_path / "in/1.png")
    label, names = write(tmp_path / "in/1.txt", "0 0.5 0.5 0.2 0.2\n"), write(tmp_path / "in/obj.names", "box\n")
    listed = write(tmp_path / "in/list.txt", "1.png\n")
    xml, boxes = write(tmp_path / "xml/1.xml", voc()), coco(tmp_path / "in/boxes.json", [{"bbox": [1, 1, 9, 9]}])
    picture_file(tmp_path / "xml/1.png")
    for script, victim, arguments in (
        ("Darknet_to_YOLOv3", label, [tmp_path / "in"]),
        ("Darknet_to_YOLOv3", listed, [listed]),
        ("Darknet_to_YOLOv3", names, [tmp_path / "in"]),
        ("Darknet_to_YOLOv3", tmp_path / "in/1.png", [tmp_path / "in"]),
        ("XML_to_YOLOv3", xml, [tmp_path / "xml"]),
        ("COCO_to_YOLOv3", boxes, [boxes, tmp_path / "in"]),
        ("COCO_to_YOLOv3", names, [boxes, tmp_path / "in", "--classes", names]),
    ):
        before, output = victim.read_bytes(), victim
        arguments = [*arguments, "--names", tmp_path / "o.names"]
        if kind in ("link", "hard link"):
            output = tmp_path / "other.txt"
            output.unlink(missing_ok=True)
            output.symlink_to(victim) if kind == "link" else os.link(victim, output)
        if kind == "names":
            arguments, output = (
                [*arguments, "--names", victim.parent / ".." / victim.parent.name / victim.name],
                "o.txt",
            )
        with pytest.raises(SystemExit, match="^error: output .* is an input: name another file with --"):
            convert(script, *arguments, output=output)
        assert victim.read_bytes() == before


def test_the_default_output_does_not_fall_on_the_source_either(convert, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("yolov3.annotations.cli"), "project_path", lambda x: tmp_path / x)
    picture_file(tmp_path / "model_data/1.png")
    write(tmp_path / "model_data/1.txt", "")
    write(tmp_path / "model_data/my.names", "box\n")
    source = write(tmp_path / "model_data/train.txt", "1.png\n")
    with pytest.raises(SystemExit, match="^error: output .*train.txt is an input"):
        convert("Darknet_to_YOLOv3", source, output=None)
    assert source.read_text() == "1.png\n"


def test_names_and_annotations_are_both_written_or_neither(convert, tmp_path, monkeypatch):
    picture_file(tmp_path / "in/1.png")
    write(tmp_path / "in/1.txt", "0 0.5 0.5 0.2 0.2\n")
    names = write(tmp_path / "in/classes.txt", "box\n")
    write(tmp_path / "out.names", "older\n")
    write(tmp_path / "out.txt", "older\n")

    write_text = Path.write_text

    def full_disk(path, text, **how):
        if path.suffix == ".txt":
            raise OSError(28, "No space left on device")
        return write_text(path, text, **how)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(SystemExit, match="^error: output .* cannot be written: No space left"):
        convert("Darknet_to_YOLOv3", tmp_path / "in", "--classes", names)
    assert {x.name: x.read_text() for x in tmp_path.glob("out*")} == {"out.names": "older\n", "out.txt": "older\n"}
    assert not list(tmp_path.glob(".*"))


# --- Class names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("cat\n\ndog\n", "line 2 is blank"),
        ("\ncat\n", "line 1 is blank"),
        ("cat\ndog\ncat \n", "line 3 repeats 'cat' of line 1"),
        ("cat\nd\0og\n", "line 2, 'd\\x00og', has a line end or control character"),
        ("cat\nd\u2028og\n", "line 2, 'd\\u2028og'"),
        ("# comment\nnames:\n- box\n- disc\nnc: 2\n", "is not a class names file"),
        ("classes = 1\ntrain = data/train.txt\n", "is not a class names file"),
        ('{"categories": []}', "is not a class names file"),
        ("0 0.5 0.5 0.2 0.2\n", "is not a class names file"),
        ("a b.jpg 1,2,3,4,0\nc.jpg\n", "is not a class names file"),
    ],
)
def test_a_names_file_that_would_shift_classes_is_refused(tmp_path, text, part):
    with pytest.raises(UserError) as error:
        read_class_names(write(tmp_path / "x.names", text))
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_million_names_are_read_in_a_moment(tmp_path):
    with alarm():
        assert len(read_class_names(write(tmp_path / "x.names", "\n".join(map(str, range(10**6)))))) == 10**6
        with pytest.raises(UserError, match="repeats"):
            class_names(["x", *map(str, range(10**6)), "x"])


def test_names_of_data_yaml_and_obj_data(tmp_path):
    for text in (
        "names: [no, 1.10]\nnc: 2\n",
        "path: x\nnames:\n  1: '1.10'\n  0: no\n",
        "\ufeffnames:\r\n- no\r\n- 1.10\r\n",
    ):
        assert read_names(write(tmp_path / "data.yaml", text)) == ("no", "1.10")
    write(tmp_path / "obj.names", "cat\ndog\n")
    assert read_names(write(tmp_path / "obj.data", "classes=2\nnames = data/obj.names\n")) == ("cat", "dog")
    for text in ("names: {0: a, 2: b}", "names: [a, a]", "names: [a, '']", "names: 3", "nc: 3", "a: [", "[" * 10**4):
        with pytest.raises(UserError, match=r"data\.yaml"):
            read_names(write(tmp_path / "data.yaml", text))


def test_sets_converted_apart_number_their_classes_alike(convert, tmp_path, monkeypatch):
    names = write(tmp_path / "my.names", "cat\ndog\n")
    for name in ("dog", "cat"):
        picture_file(tmp_path / f"{name}/1.png")
        write(tmp_path / f"{name}/1.xml", voc(name=name))
    boxes = coco(tmp_path / "dog.json", [{"bbox": [1, 1, 9, 9]}], names=["dog"])
    monkeypatch.setattr(configs, "TRAIN_CLASSES", str(names))
    assert "the classes differ from TRAIN_CLASSES" in convert("XML_to_YOLOv3", tmp_path / "dog")[1]
    for script, *arguments in (["XML_to_YOLOv3", tmp_path / "dog"], ["COCO_to_YOLOv3", boxes, tmp_path / "dog"]):
        written, told = convert(script, *arguments, "--classes", names)
        assert written[0].endswith(",1")
        assert not told


def test_names_of_coco_that_shift_classes(convert, tmp_path):
    picture_file(tmp_path / "1.png")
    box = [{"bbox": [1, 1, 9, 9]}]
    for names, part in (([" ", "c"], "category 1 does not have a name"), (["c"] * 2, "repeats 'c'")):
        both = [*box, {"bbox": [1, 1, 9, 9], "category_id": 2}]
        with pytest.raises(SystemExit, match=f"^error: .*{part}"):
            convert("COCO_to_YOLOv3", coco(tmp_path / "x.json", both, names=names), tmp_path)
    convert("COCO_to_YOLOv3", coco(tmp_path / "x.json", box, names=["a\nb", "c"]), tmp_path)
    assert (tmp_path / "out.names").read_text() == "a b\nc\n"
    convert("COCO_to_YOLOv3", coco(tmp_path / "x.json", box, names=["c", "c"]), tmp_path)  # as Roboflow groups them
    assert (tmp_path / "out.names").read_text() == "c\n"


# --- Records with faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "box"),
    [
        ({"bbox": []}, None),
        ({"bbox": None}, None),
        ({}, None),
        ({"bbox": [None] * 4}, None),
        ({"bbox": [1, 2, 3]}, None),
        ({"bbox": [1, 2, 3, 4, 5]}, None),
        ({"bbox": [1, 2, 3, 10**400]}, None),
        ({"bbox": [1, 2, 3, float("nan")]}, None),
        ({"bbox": {"x": 1}}, None),
        ("x", None),
        ([], None),
        ({"bbox": [1, 2, 3, 4], "category_id": [1]}, None),
        ({"bbox": [1, 2, 3, 4], "category_id": 7}, None),
        ({"bbox": [1, 2, 3, 4], "image_id": {}}, None),
        ({"bbox": [], "segmentation": {"counts": "x", "size": [1, 1]}}, None),
        ({"bbox": [], "segmentation": [[10, 20, 30, "x"]]}, None),
        ({"bbox": [], "segmentation": [[10, 20, 30, 20, 30, 45], [5, 21, 6, 21, 6, 22]]}, "5,20,30,45,0"),
        ({"bbox": [1, 2, 3, 4], "image_id": "1", "category_id": "1"}, "1,2,4,6,0"),
    ],
)
def test_one_annotation_of_coco_costs_itself_and_is_told(convert, tmp_path, annotation, box):
    picture_file(tmp_path / "1.png")
    if isinstance(annotation, dict):
        annotation = {"id": 77, **annotation}
    source = coco(tmp_path / "x.json", [{"bbox": [40, 30, 20, 20]}, annotation])
    written, told = convert("COCO_to_YOLOv3", source, tmp_path)
    assert written == [f"1.png 40,30,60,50,0{f' {box}' if box else ''}"]
    assert ("left out: annotation" in told) == (box is None)
    if isinstance(annotation, dict) and not box:
        assert "annotation 77: " in told
    if not box:
        with pytest.raises(SystemExit, match="nothing is written"):
            convert("COCO_to_YOLOv3", coco(tmp_path / "x.json", [annotation]), tmp_path)


@pytest.mark.parametrize("name", ["a\0.jpg", None, 5, "\ud800.png", "x" * 5000, "", [], "gone.png"])
def test_one_image_of_coco_costs_itself(convert, tmp_path, name):
    picture_file(tmp_path / "sub/1.png")
    images = [
        {"id": 9, "file_name": name},
        {"id": "1", "file_name": "D:\\set\\sub\\1.png"},
        "x",
        {"file_name": "1.png"},
    ]
    source = coco(tmp_path / "x.json", [{"bbox": [40, 30, 20, 20]}], images)
    written, told = convert("COCO_to_YOLOv3", source, tmp_path)
    assert written == ["sub/1.png 40,30,60,50,0"]
    assert "left out: image 9" in told
    assert told.isascii()


@pytest.mark.parametrize(
    "data",
    [
        voc(name="größe").encode("utf-16"),
        b"\xef\xbb\xbf" + voc(name="größe").encode(),
        b'<?xml version="1.0" encoding="latin-1"?>' + voc(name="größe").encode("latin-1"),
        b'<?xml version="1.0" encoding="cp1252"?>\r\n' + voc(name="größe").encode("cp1252"),
        '<?xml version="1.0" encoding="gbk"?>猫'.encode("gbk").replace("猫".encode("gbk"), b"")
        + voc(name="größe").replace("größe", "猫").encode("gbk"),
    ],
)
def test_xml_in_the_encodings_that_people_have(convert, tmp_path, data):
    picture_file(tmp_path / "in/1.png")
    write(tmp_path / "in/1.xml", data)
    assert convert("XML_to_YOLOv3", tmp_path / "in")[0] == ["in/1.png 30,40,90,70,0"]
    assert (tmp_path / "out.names").read_text(encoding="utf-8") in ("größe\n", "猫\n")


@pytest.mark.parametrize(
    "data",
    [
        b'<?xml version="1.0" encoding="foo-8"?><annotation/>',
        b'<?xml version="1.0" encoding="rot13"?><annotation/>',
        voc(name="größe").encode("latin-1"),
        b"",
        b"\0" * 100,
        b"<annotation><object></annotation>",
    ],
)
def test_one_xml_that_cannot_be_read_costs_itself(convert, tmp_path, data):
    picture_file(tmp_path / "in/1.png")
    write(tmp_path / "in/1.xml", voc())
    picture_file(tmp_path / "in/bad.png")
    write(tmp_path / "in/bad.xml", data)
    written, told = convert("XML_to_YOLOv3", tmp_path / "in")
    assert written == ["in/1.png 30,40,90,70,0"]
    assert "bad.xml is not XML that can be read" in told


def test_xml_files_that_quarrel_about_a_picture_are_told(convert, tmp_path):
    for name in "12":
        picture_file(tmp_path / f"in/{name}.png")
    write(tmp_path / "in/1.xml", voc("2.png"))
    write(tmp_path / "in/2.xml", voc("2.png"))
    write(tmp_path / "in/copy.xml", voc("2.png", box=(1, 1, 9, 9)))
    written, told = convert("XML_to_YOLOv3", tmp_path / "in")
    assert written == ["in/2.png 30,40,90,70,0"]
    assert "1.xml names picture 2.png, but 1.png is there, too" in told
    assert "copy.xml: picture " in told


def test_one_line_of_labels_costs_itself(convert, tmp_path):
    picture_file(tmp_path / "in/1.png")
    names = write(tmp_path / "my.names", "box\n")
    bad = ["0 0.5 0.5 0.2", "x 0.5 0.5 0.2 0.2", "0 nan 0.5 0.2 0.2", "0 0.5 0.5 0.2 0.2 1.9", "0.5 0.5 0.5 0.2 0.2"]
    bad += ["9" * 40_000, "1e400 0.5 0.5 0.2 0.2", "9 0.5 0.5 0.2 0.2", "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1", "\0"]
    good = ["0 0.5 0.5 0.2 0.25", "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6"]
    write(tmp_path / "in/1.txt", "\ufeff" + "\r\n".join([*good, *bad]))
    written, told = convert("Darknet_to_YOLOv3", tmp_path / "in", "--classes", names)
    assert written == ["in/1.png 40,30,60,50,0 10,8,50,48,0"]
    assert told.count("left out: ") == len(bad)
    assert max(map(len, told.splitlines())) < 500
    assert "1 polygons became" in told
    assert "1.txt:3: " in told


def test_names_that_an_annotation_file_cannot_hold_cost_their_picture(convert, tmp_path):
    for name in ("1.png", "bad\udcff.png", "line\nend.png", "u\u2028x.png"):
        picture_file(tmp_path / f"in/{name}")
        write((tmp_path / f"in/{name}").with_suffix(".txt"), "0 0.5 0.5 0.2 0.25\n")
    names = write(tmp_path / "my.names", "box\n")
    written, told = convert("Darknet_to_YOLOv3", tmp_path / "in", "--classes", names)
    assert written == ["in/1.png 40,30,60,50,0"]
    assert told.count("rename the picture") == 3
    assert "line\\nend.png" in told


# --- Where data sets lie ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("images", {"images/1.txt": "", "images/classes.txt": "box"}),  # labels beside their pictures
        (".", {"images/1.txt": "", "classes.txt": "box"}),
        ("train.txt", {"labels/1.txt": "", "obj.names": "box", "train.txt": "data/obj/images/1.png\n"}),
        ("train.txt", {"labels/1.txt": "", "obj.names": "box", "train.txt": "D:\\set\\images\\1.png\r\n"}),
        ("train.txt", {"labels/1.txt": "", "obj.names": "box", "train.txt": "\ufeff/content/set/images/1.png"}),
        (
            "obj.data",
            {
                "labels/1.txt": "",
                "n.names": "box",
                "l.txt": "images/1.png",
                "obj.data": "train=data/l.txt\nnames=data/n.names",
            },
        ),
        ("data.yaml", {"labels/1.txt": "", "data.yaml": "train: ../train/images\nnames: [box]"}),
        ("data.yaml", {"labels/1.txt": "", "data.yaml": "path: ../datasets/x\ntrain: images\nnames: {0: box}"}),
        ("images", {"labels/1.txt": "", "data.yaml": "train: images\nnames: [box]"}),
    ],
)
def test_layouts_of_darknet_yolov5_and_roboflow(convert, tmp_path, source, files):
    picture_file(tmp_path / "set/images/1.png")
    for name, text in files.items():
        write(tmp_path / "set" / name, text or "0 0.5 0.5 0.2 0.25\n")
    assert convert("Darknet_to_YOLOv3", tmp_path / "set" / source)[0] == ["set/images/1.png 40,30,60,50,0"]
    assert (tmp_path / "out.names").read_text() == "box\n"


def test_a_missing_picture_is_called_so_and_costs_its_line(convert, tmp_path):
    picture_file(tmp_path / "1.png")
    write(tmp_path / "1.txt", "0 0.5 0.5 0.2 0.25\n")
    names = write(tmp_path / "my.names", "box\n")
    bad = ["E:\\gone.png", "a\0b.png", "x" * 5000]
    source = write(tmp_path / "list.txt", "\n".join(["1.png", *bad]))
    written, told = convert("Darknet_to_YOLOv3", source, "--classes", names)
    assert written == ["1.png 40,30,60,50,0"]
    assert "list.txt:2: picture E:\\gone.png is missing" in told
    assert told.count("is missing: give the folder") == 3


# --- Boxes and the pictures they were drawn on -----------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_boxes_lie_where_opencv_turns_their_object(tmp_path, orientation):
    path = picture_file(tmp_path / "1.jpg", 160, 120, orientation)
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[40:100, 32:88] = 255
    data, marked = path.read_bytes(), cv2.imencode(".jpg", picture)[1].tobytes()
    path.write_bytes(data[:38] + marked[2:])  # the EXIF of one, the picture of the other
    rows, columns = np.nonzero(cv2.imread(str(path))[..., 0] > 128)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    found = turned(np.array([[32.0, 40, 88, 100]]), Size(120, 160), orientation)
    np.testing.assert_allclose(found, [expected], atol=2)


@pytest.mark.parametrize(
    ("declared", "orientation", "box", "told"),
    [
        ((160, 120), 6, "50,30,80,90,0", "annotated as they are stored"),
        ((120, 160), 6, "30,40,90,70,0", ""),
        ((80, 60), 1, "60,80,160,120,0", "were resized"),
        ((80, 60), 6, "0,60,40,160,0", "resized since they were annotated, as stored"),
        ((160, 120), 1, "30,40,90,70,0", ""),
        ((0, 0), 1, "30,40,90,70,0", ""),
        ((0, 0), 6, "30,40,90,70,0", "taken as upright"),
        (("x", ""), 1, "30,40,90,70,0", ""),
        ("", 1, "30,40,90,70,0", ""),
        ((160, 100), 1, None, "is 160 x 120, but its boxes are for one of 160 x 100"),
    ],
)
def test_the_declared_size_tells_how_boxes_lie(convert, tmp_path, declared, orientation, box, told):
    picture_file(tmp_path / "in/1.jpg", 160, 120, orientation)
    picture_file(tmp_path / "in/2.jpg", 160, 120)
    write(tmp_path / "in/1.xml", voc("1.jpg", declared))
    write(tmp_path / "in/2.xml", voc("2.jpg"))
    written, said = convert("XML_to_YOLOv3", tmp_path / "in")
    assert written == [*([f"in/1.jpg {box}"] if box else []), "in/2.jpg 30,40,90,70,0"]
    said = [line for line in said.splitlines() if "TRAIN_CLASSES" not in line]
    assert len(said) == bool(told)
    assert told in "".join(said)


# --- Nothing is quadratic --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["1" * 40_000, "1," * 20_000, "1." * 20_000, "-" * 40_000, "1e" * 20_000, " 1,2" * 9_999]
)
def test_a_line_of_many_digits_is_read_in_a_moment(tmp_path, word):
    with alarm():
        for line in (f"a.jpg {word}", f"{word} a.jpg", f"a.jpg 1,2,3,4,0 {word}"):
            with contextlib.suppress(ValueError):
                parse_line(line, tmp_path)
            with contextlib.suppress(UserError):
                check_annotations(write(tmp_path / "x.txt", line), 1, 10**6)


def test_many_boxes_in_a_picture_are_checked_in_a_moment(convert, tmp_path):
    corners = np.random.default_rng(0).uniform(0, 50, (20_000, 2))
    boxes = np.concatenate([corners, corners + 20], 1)
    with alarm():
        kept, _, reasons, _ = usable_boxes(boxes, np.zeros(len(boxes), int), (80, 100), 1)
        assert len(kept) == len(boxes)
        assert not reasons
        picture_file(tmp_path / "1.png")
        annotations = [{"bbox": [*corner, 20, 20], "category_id": i % 3} for i, corner in enumerate(corners.tolist())]
        written, told = convert("COCO_to_YOLOv3", coco(tmp_path / "x.json", annotations), tmp_path)
        assert told.count("is not listed") == sum(i % 3 != 1 for i in range(20_000))


def test_what_is_not_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with alarm():
        for read in (read_class_names, lambda x: check_annotations(x, 1, 9), lambda x: read_size(x, 9), read_names):
            for path in (tmp_path / "pipe", "/dev/zero"):
                with pytest.raises(UserError, match="not a file"):
                    read(path)
