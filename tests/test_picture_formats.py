"""Pictures as phones, scanners and web pages give them, beyond JPEG, PNG, BMP and GIF."""

import importlib.util
import io
import os
import struct

from yolov3.checks import UserError
from yolov3.formats import HEAD_BYTES, looks_like_picture, quiet
from yolov3.images import read_picture

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

MAX_PIXELS = 10**6
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def scene(height=48, width=62):
    """A smooth picture, RGB, that lossy formats keep within a few levels."""
    coarse = np.random.RandomState(0).randint(0, 256, (3, 4, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


SCENE = scene()


def saved(kind, picture=SCENE, **options):
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(kind, exif=exif)


FILES = {  # bytes, and by how many levels at most a pixel may differ
    "lossy.webp": (saved("WEBP", quality=95), 24),
    "lossless.webp": (saved("WEBP", lossless=True), 0),
    "x.avif": (saved("AVIF", quality=95), 24),
    "x.tif": (saved("TIFF"), 0),
    "lzw.tiff": (saved("TIFF", compression="tiff_lzw"), 0),
    "deflate.tiff": (saved("TIFF", compression="tiff_adobe_deflate"), 0),
    "x.jp2": (saved("JPEG2000"), 0),
    "x.j2k": (saved("JPEG2000", no_jp2=True), 0),
    "x.ppm": (saved("PPM"), 0),
}


def read(path, data):
    path.write_bytes(data)
    return read_picture(path, MAX_PIXELS)


def refusal(path, data, max_pixels=MAX_PIXELS):
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_picture(path, max_pixels)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value).partition(str(path))[2].strip()


# --- What Pillow reads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_picture_of_another_format_is_read(name, tmp_path):
    data, levels = FILES[name]
    for path in (tmp_path / name, tmp_path / "without-suffix"):  # its name does not matter
        picture = read(path, data)
        assert picture.dtype == np.uint8
        np.testing.assert_allclose(picture.astype(int), SCENE, atol=levels)
    assert looks_like_picture(data[:HEAD_BYTES])


@pytest.mark.parametrize("name", FILES)
def test_a_picture_of_another_format_is_refused_when_cut(name, tmp_path):
    data, _ = FILES[name]
    for length in (len(data) - 1 if name == "x.ppm" else len(data) * 9 // 10, len(data) // 2, 40):
        assert refusal(tmp_path / name, data[:length]) == "is truncated or damaged"


@pytest.mark.parametrize("name", FILES)
def test_a_picture_of_another_format_is_refused_by_its_header_when_too_large(name, tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", None)  # nothing may be decoded
    assert refusal(tmp_path / name, FILES[name][0], 62 * 48 - 1).startswith("is 62 x 48, more than YOLO_MAX_PIXELS")


@pytest.mark.filterwarnings("error")  # Pillow's own warnings do not reach the user
def test_a_decompression_bomb_is_refused_without_pillows_warning(tmp_path):
    for side in (10_000, 15_000):  # Pillow warns of the first and refuses the second
        data = saved("TIFF", Image.new("1", (side, side)), compression="group4")
        assert refusal(tmp_path / "x.tif", data).startswith(f"is {side} x {side}, more than YOLO_MAX_PIXELS")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "AVIF"])
def test_a_picture_of_another_format_is_upright_by_its_exif(kind, orientation, tmp_path):
    (tmp_path / "x.jpg").write_bytes(turned("JPEG", orientation))
    expected = cv2.imread(str(tmp_path / "x.jpg"))[..., ::-1].astype(int)
    picture = read(tmp_path / "x", turned(kind, orientation))
    assert picture.shape == expected.shape
    assert abs(picture - expected).mean() < 5


def test_pixels_of_other_kinds_are_read_or_refused_and_never_clipped(tmp_path):
    grey = np.arange(0, 65536, 16, np.uint16).reshape(64, 64)
    for kind in ("TIFF", "JPEG2000"):
        picture = read(tmp_path / "16", saved(kind, grey))
        np.testing.assert_array_equal(picture, np.repeat((grey >> 8).astype(np.uint8)[..., np.newaxis], 3, 2))
    alpha = Image.fromarray(np.dstack([SCENE, SCENE[..., 0]]))
    for kind in ("TIFF", "JPEG2000"):
        np.testing.assert_array_equal(read(tmp_path / "alpha", saved(kind, alpha)), SCENE)
    assert "pixels of a kind" in refusal(tmp_path / "float.tif", saved("TIFF", SCENE[..., 0].astype(np.float32)))
    assert read(tmp_path / "cmyk.tif", saved("TIFF", Image.fromarray(SCENE).convert("CMYK"))).shape == SCENE.shape


# --- BMPs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_a_bmp_of_few_colours_is_read_as_opencv_does(mode, tmp_path):
    picture = read(tmp_path / "x.bmp", saved("BMP", Image.fromarray(SCENE).convert(mode)))
    np.testing.assert_array_equal(picture, cv2.imread(str(tmp_path / "x.bmp"))[..., ::-1])


def bmp_of_4_bits(header_bytes):
    """A 4-bit BMP, 4 x 2, with a Windows (40) or an OS/2 (12) header -> bytes, and its pixels."""
    palette = np.random.RandomState(1).randint(0, 256, (16, 3)).astype(np.uint8)
    windows = header_bytes == 40
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 4, 0, 8, 0, 0, 16, 0) if windows else b""
    header = header or struct.pack("<IHHHH", 12, 4, 2, 1, 4)
    colours = b"".join(bgr.tobytes() + b"\0" * windows for bgr in palette)
    start = 14 + len(header) + len(colours)
    rows = bytes.fromhex("01230000 cdef0000")  # from the lowest up
    data = struct.pack("<2sIHHI", b"BM", start + 8, 0, 0, start) + header + colours + rows
    return data, palette[[[12, 13, 14, 15], [0, 1, 2, 3]]][..., ::-1]


@pytest.mark.parametrize("header_bytes", [12, 40])
def test_a_bmp_of_4_bits_with_a_header_of_windows_or_os2_is_read(header_bytes, tmp_path):
    data, pixels = bmp_of_4_bits(header_bytes)
    np.testing.assert_array_equal(read(tmp_path / "x.bmp", data), pixels)
    assert refusal(tmp_path / "x.bmp", data[:-3]) == "is truncated or damaged"
    assert refusal(tmp_path / "x.bmp", data, 7).startswith("is 4 x 2, more than")


def test_bmps_of_other_people_are_read(shared, tmp_path):
    folder = shared.parent / "failing" / "bmp-honest"
    if not folder.exists():
        pytest.skip("needs BMPs of other people")
    for path in folder.glob("*.bmp"):
        np.testing.assert_array_equal(read_picture(path, MAX_PIXELS), cv2.imread(str(path))[..., ::-1])


# --- What is told ---------------------------------------------------------------------------------------------------


def raw_picture():
    """A TIFF as a DNG is one: a preview with the tag of its version."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\1\4\0\0"
    tags.tagtype[50706] = 1
    return saved("TIFF", tiffinfo=tags)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.jxl", b"\xff\x0a" + bytes(30), "is a JPEG XL, which cannot be read: save it as"),
        ("y.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30), "is a JPEG XL, which cannot be read: save it as"),
        ("x.dng", raw_picture(), "is a raw picture of a camera, which cannot be read"),
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing, which cannot be read"),
        ("x.psd", b"8BPS\0\1" + bytes(30), "is a Photoshop file, which cannot be read"),
    ],
)
def test_a_format_that_cannot_be_read_is_named(name, data, reason, tmp_path):
    assert refusal(tmp_path / name, data).startswith(reason)
    assert looks_like_picture(data[:HEAD_BYTES])


def test_a_heic_is_read_with_pi_heif_or_told_what_it_needs(tmp_path):
    is_there = importlib.util.find_spec("pi_heif") is not None
    reason = "is truncated or damaged" if is_there else "is a HEIC, which needs pi-heif: pip install -r requirements"
    assert refusal(tmp_path / "x.heic", HEIC).startswith(reason)
    assert looks_like_picture(HEIC[:HEAD_BYTES])


def test_text_and_videos_do_not_look_like_pictures():
    for head in (b"BMW sales of the year, and of others", b"\0\0\0\x18ftypisom\0\0\0\0isommp41", b""):
        assert not looks_like_picture(head[:HEAD_BYTES])


def test_warnings_of_the_decoders_do_not_reach_the_user_and_those_of_others_do(tmp_path, capfd):
    jpeg = saved("JPEG")
    damaged = jpeg[:20] + b"12345" + jpeg[20:]  # "extraneous bytes before marker"
    assert read(tmp_path / "x.jpg", damaged).shape == SCENE.shape
    refusal(tmp_path / "y.jpg", jpeg[: len(jpeg) // 2])
    height = jpeg.index(b"\xff\xc0") + 5
    refusal(tmp_path / "z.jpg", jpeg[:height] + b"\0\0" + jpeg[height + 2 :])  # "empty JPEG image"
    assert capfd.readouterr().err == ""
    with quiet(), quiet():
        os.write(2, b"Corrupt JPEG data: 5 extraneous bytes before marker 0xe0\nthe disk is full\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "the disk is full\nafter\n"
