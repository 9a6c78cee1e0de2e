"""Files that are not ordinary JPEGs, or not pictures at all, through the `detect_bytes` of a SavedModel."""

import io
import struct
import sys
from pathlib import Path

from yolov3 import configs
from yolov3.checks import PROJECT
from yolov3.loading import SHIPPED
from yolov3.runtimes import savedmodel

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image  # comes with matplotlib; it writes what OpenCV does not: CMYK, animations

SIZE = 160
DIGITS = PROJECT / "IMAGES" / "digits" / "00000.jpg"
GOOD = DIGITS.read_bytes()
HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not found</body></html>\n"


@pytest.fixture(scope="module")
def detect(tmp_path_factory):
    """detect(files) -> {name: array}."""
    with pytest.MonkeyPatch.context() as patch:
        import Convert_to_pb

        folder = tmp_path_factory.mktemp("checkpoints")
        constants = {"TRAIN_CHECKPOINTS_FOLDER": str(folder), "YOLO_INPUT_SIZE": SIZE, "YOLO_CUSTOM_WEIGHTS": SHIPPED}
        for name, value in constants.items():
            patch.setattr(configs, name, value)
        patch.setattr(sys, "argv", ["script"])
        Convert_to_pb.main.__wrapped__()
    detect_bytes = savedmodel.load(folder / f"yolov4-tiny-digits-{SIZE}", "detect_bytes")
    return lambda files: {
        name: x.numpy() for name, x in detect_bytes(image_bytes=tf.constant(files, tf.string)).items()
    }


def encoded(picture, kind, **options):
    """A PIL picture as a file's bytes."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def assert_same(answers, i, j, pixels):
    """Rows i and j hold the same boxes, up to so many pixels."""
    (valid, other), rows = answers["valid_detections"][[i, j]], [i, j]
    assert valid == other > 0
    assert answers["classes"][i].tolist() == answers["classes"][j].tolist()
    boxes, scores = (answers[name][rows] for name in ("boxes", "scores"))
    np.testing.assert_allclose(boxes[0], boxes[1], atol=pixels)
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02 * pixels)


# --- No pictures ---------------------------------------------------------------------------------------------------

NO_PICTURES = {
    "empty": b"",
    "web page": HTML,
    "text that begins as a BMP does": b"BMW, a maker of cars and of much else besides",
    "a JPEG's first bytes": GOOD[:3],
    "a JPEG without its end": GOOD[: len(GOOD) // 2],
    "a JPEG's last half": GOOD[len(GOOD) // 2 :],
    "a PNG's first bytes": b"\x89PNG\r\n\x1a\n",
    "a GIF's first bytes": b"GIF89a",
    "zeros": bytes(1000),
    "a WebP": b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0" + bytes(24),
}


def test_what_is_no_picture_is_minus_one_and_spoils_no_other(detect):
    answers = detect([GOOD, *NO_PICTURES.values(), GOOD])
    refused = dict(zip(NO_PICTURES, answers["valid_detections"][1:-1].tolist(), strict=True))
    assert refused == dict.fromkeys(NO_PICTURES, -1)
    assert not any(answers[name][1:-1].any() for name in ("boxes", "scores", "classes"))
    assert_same(answers, 0, -1, pixels=0)
    alone = detect([GOOD])
    for name in answers:
        np.testing.assert_allclose(answers[name][0], alone[name][0], atol=1e-3)


def test_no_pictures_give_no_rows(detect):
    shapes = {name: x.shape for name, x in detect([]).items()}
    assert shapes == {"boxes": (0, 100, 4), "scores": (0, 100), "classes": (0, 100), "valid_detections": (0,)}


# --- Unusual pictures ----------------------------------------------------------------------------------------------


def test_a_cmyk_jpeg_is_read_in_its_colours(detect):
    picture = Image.open(DIGITS)
    files = [encoded(x, "JPEG", quality=95, subsampling=0) for x in (picture, picture.convert("CMYK"))]
    assert Image.open(io.BytesIO(files[1])).mode == "CMYK"
    assert_same(detect(files), 0, 1, pixels=2)


def test_a_grey_jpeg_is_a_colour_picture_of_greys(detect):
    grey = Image.open(DIGITS).convert("L")
    files = [encoded(grey, "JPEG", quality=95), encoded(grey, "PNG"), encoded(grey.convert("RGB"), "PNG")]
    answers = detect(files)
    assert_same(answers, 0, 1, pixels=2)
    assert_same(answers, 1, 2, pixels=0)


def test_of_a_png_with_alpha_the_colours_count(detect):
    picture = Image.open(DIGITS)
    alpha = Image.linear_gradient("L").resize(picture.size)
    seen_through = picture.copy()
    seen_through.putalpha(alpha)
    grey = picture.convert("L")
    grey_seen_through = Image.merge("LA", (grey, alpha))
    answers = detect([encoded(x, "PNG") for x in (picture, seen_through, grey, grey_seen_through)])
    assert_same(answers, 0, 1, pixels=0)
    assert_same(answers, 2, 3, pixels=0)


def test_of_an_animated_gif_the_first_frame_counts(detect):
    picture = Image.open(DIGITS).quantize(255)
    black = Image.new("P", picture.size)
    black.putpalette([0, 0, 0])
    animated = {"save_all": True, "duration": 100, "loop": 0}
    files = [encoded(picture, "GIF"), *(encoded(picture, "GIF", append_images=[black] * n, **animated) for n in (1, 3))]
    assert [getattr(Image.open(io.BytesIO(data)), "n_frames", 1) for data in files] == [1, 2, 2]  # equal ones are one
    answers = detect([*files, encoded(black, "GIF", append_images=[picture], **animated)])
    for i in (1, 2):
        assert_same(answers, 0, i, pixels=0)
    assert answers["valid_detections"][3] == 0


# --- Bombs ---------------------------------------------------------------------------------------------------------


def bombs():
    """Whole files of a few hundred KB that are 200 million pixels when decoded, 600 MB."""
    black = np.zeros((10_000, 20_000), np.uint8)
    return {
        "png": cv2.imencode(".png", black, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes(),
        "jpeg": cv2.imencode(".jpg", black, [cv2.IMWRITE_JPEG_QUALITY, 50])[1].tobytes(),
    }


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, to measure memory")
def test_a_bomb_is_refused_before_it_is_decoded(detect):
    files = bombs()
    detect([GOOD] * 3)
    answers, megabytes = watched(lambda: detect([files["png"], GOOD, files["jpeg"]]))
    assert answers["valid_detections"].tolist() == [-1, detect([GOOD])["valid_detections"][0], -1]
    assert megabytes < 150


def watched(call):
    """What call() returns, and how many MB of memory it took at its peak."""

    def kilobytes(name):
        (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
        return int(line.split()[1])

    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    result = call()
    return result, (kilobytes("VmHWM") - before) / 1000


def test_the_frame_of_a_gif_may_have_another_size_than_its_header(detect):
    whole = encoded(Image.open(DIGITS).quantize(255), "GIF")
    others = [whole[:6] + struct.pack("<HH", *size) + whole[10:] for size in ((1000, 999), (300, 200))]
    answers = detect([whole, *others])
    for i in (1, 2):
        assert_same(answers, 0, i, pixels=0)


def test_a_gif_may_have_any_number_of_comments(detect):
    whole = encoded(Image.open(DIGITS).quantize(255), "GIF")
    start = whole.index(b",", 13 + 3 * 2 ** (whole[10] % 8 + 1))
    comments = [b"\x21\xfe\1x\0" * 20_000, b"\x21\xfe\1x\2xy\0" * 20_000, b"\x21\xfe\0"]
    answers = detect([whole, *(whole[:start] + comment + whole[start:] for comment in comments)])
    for i in (1, 2, 3):
        assert_same(answers, 0, i, pixels=0)


def test_a_gif_bomb_is_refused_and_frames_behind_the_first_are_not_decoded(detect):
    large, allowed = (encoded(Image.new("P", size), "GIF") for size in ((20_000, 10_000), (6_000, 5_000)))
    hidden = large[:6] + struct.pack("<HH", 1, 1) + large[10:]
    start = allowed.index(b",", 13 + 3 * 2 ** (allowed[10] % 8 + 1))
    many = allowed[:start] + allowed[start:-1] * 20 + b";"
    detect([GOOD] * 3)
    answers, megabytes = watched(lambda: detect([large, hidden, GOOD]))
    assert answers["valid_detections"][:2].tolist() == [-1, -1] and megabytes < 150
    answers, megabytes = watched(lambda: detect([many, GOOD]))
    assert answers["valid_detections"][0] == 0 and megabytes < 400  # 120 of them are the first frame's
