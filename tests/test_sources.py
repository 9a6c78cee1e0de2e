"""What a path names: opened once for all kinds of files, in the order that people mean, and told when passed over."""

import os
from pathlib import Path

from yolov3.checks import UserError, as_given, read_class_names, read_file
from yolov3.images import read_picture
from yolov3.media.sources import Pictures, open_source

import cv2
import numpy as np
import pytest

MAX_PIXELS = 10**8


def write_pictures(folder, *names):
    for i, name in enumerate(names):
        (folder / name).write_bytes(cv2.imencode(".png", np.full((4, 6, 3), i, np.uint8))[1].tobytes())


def special_files(folder):
    """Make what is not a regular file of a usual size -> {path: what it is told to be}."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zeros.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    with (folder / "sparse.jpg").open("wb") as file:
        file.truncate(40 * 10**9)
    told = {"pipe": "is a pipe", "zeros": "is a device", "folder": "is a folder", "sparse": "is larger than"}
    return {folder / f"{name}.jpg": reason for name, reason in told.items()}


# --- What a path names ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have a name")
@pytest.mark.parametrize("read", [read_class_names, lambda path: read_picture(path, MAX_PIXELS)])
def test_only_regular_files_of_a_usual_size_are_opened(read, tmp_path):
    for path, reason in special_files(tmp_path).items():
        with pytest.raises(UserError, match=f"{path.name} {reason}"):
            read(path)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "none.jpg", "file/below", "x\udcff.jpg"])
def test_a_name_that_no_file_has_is_told_in_one_line(name, tmp_path):
    (tmp_path / "file").touch()
    for path in (name, str(tmp_path / name)):
        assert as_given(path) == path
        with pytest.raises(UserError, match="^names .*(missing|cannot be read)") as error:
            read_file(path, 10, "names")
        assert "\n" not in str(error.value)
        with pytest.raises(UserError):
            open_source(path, MAX_PIXELS)


def test_a_file_may_have_as_many_bytes_as_its_kind_and_not_one_more(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 5, "list") == b"12345"
    with pytest.raises(UserError, match="list .*a is larger than the 4 bytes"):
        read_file(tmp_path / "a", 4, "list")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have a name")
def test_a_folder_with_a_pipe_a_device_and_a_huge_file_gives_its_pictures(tmp_path, capsys):
    special_files(tmp_path)
    write_pictures(tmp_path, "a.jpg", "z.jpg")
    pictures = open_source(tmp_path, MAX_PIXELS)
    assert isinstance(pictures, Pictures)
    assert [Path(frame.source).name for frame in pictures.frames()] == ["a.jpg", "z.jpg"]
    assert capsys.readouterr().err.count("left out") == 4
    assert pictures.problems(True) == ["4 of 6 pictures could not be read"]
