"""Picture files in, network inputs out, boxes back: OpenCV and Darknet's integers are the oracles."""

import struct
import time
import zlib

from yolov3.checks import UserError
from yolov3.fitting import FIXED_RESIZES, fit, picture_scale, placement, refit, unfit
from yolov3.images import read_picture

import cv2
import numpy as np
import pytest
import tensorflow as tf
from oracle import darknet_placement, resize_image

MAX_PIXELS = 120_000_000


def scene(height, width, channels=3, dtype=np.uint8):
    """A picture with edges and gradients, in OpenCV's order of channels."""
    coarse = np.random.RandomState(height).randint(0, 256, (5, 7, channels)).astype(np.float32)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    picture[height // 3 : height // 2, width // 4 : width // 2] = 255 - picture[:1, :1]
    return np.clip(picture * (np.iinfo(dtype).max / 255), 0, np.iinfo(dtype).max).astype(dtype)


def encoded(suffix, picture, *options):
    done, data = cv2.imencode(suffix, picture, options)
    assert done
    return data.tobytes()


def read(path):
    return read_picture(path, MAX_PIXELS)


def refusal(path, max_pixels=MAX_PIXELS):
    """The message with which a file is refused; it is one line and names the file."""
    with pytest.raises(UserError) as error:
        read_picture(path, max_pixels)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- Decoding ------------------------------------------------------------------------------------------------------

SHADES = scene(47, 61)
FILES = {
    "colour.jpg": encoded(".jpg", SHADES),
    "best.jpg": encoded(".jpg", SHADES, cv2.IMWRITE_JPEG_QUALITY, 100),
    "worst.jpg": encoded(".jpg", SHADES, cv2.IMWRITE_JPEG_QUALITY, 5),
    "progressive.jpg": encoded(".jpg", SHADES, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "grey.jpg": encoded(".jpg", SHADES[..., 0]),
    "colour.png": encoded(".png", SHADES),
    "grey.png": encoded(".png", SHADES[..., 0]),
    "black and white.png": encoded(".png", (SHADES[..., 0] > 99).astype(np.uint8), cv2.IMWRITE_PNG_BILEVEL, 1),
    "alpha.png": encoded(".png", scene(47, 61, 4)),
    "16 bit.png": encoded(".png", scene(47, 61, 3, np.uint16)),
    "16 bit grey.png": encoded(".png", scene(47, 61, 1, np.uint16)),
    "colour.bmp": encoded(".bmp", SHADES),
    "grey.bmp": encoded(".bmp", SHADES[..., 0]),
    "alpha.bmp": encoded(".bmp", scene(47, 61, 4)),
    "one pixel.jpg": encoded(".jpg", SHADES[:1, :1]),
    "one pixel.png": encoded(".png", SHADES[:1, :1]),
    "one pixel.bmp": encoded(".bmp", SHADES[:1, :1]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_decoded_exactly_as_opencv_does(name, tmp_path):
    file = tmp_path / name
    file.write_bytes(FILES[name])
    picture = read(file)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, cv2.imread(str(file))[..., ::-1])


def test_real_photographs_are_decoded_exactly_as_opencv_does(shared):
    for file in sorted((shared / "images").glob("*.jpg")):
        np.testing.assert_array_equal(read(file), cv2.imread(str(file))[..., ::-1])


def test_the_name_of_a_file_does_not_matter(tmp_path):
    (tmp_path / "really.png").write_bytes(FILES["colour.jpg"])
    np.testing.assert_array_equal(read(tmp_path / "really.png"), cv2.imread(str(tmp_path / "really.png"))[..., ::-1])


def test_a_bmp_stored_from_top_to_bottom_is_upright(tmp_path):
    picture = scene(8, 4)  # rows of 12 bytes need no filling
    header = struct.pack("<2sIHHI", b"BM", 54 + picture.size, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, 4, -8, 1, 24, 0, picture.size, 0, 0, 0, 0)
    (tmp_path / "x.bmp").write_bytes(header + picture.tobytes())
    np.testing.assert_array_equal(read(tmp_path / "x.bmp"), picture[..., ::-1])


def test_the_palette_of_a_bmp_is_honoured(tmp_path):
    """Or refused; its indices are never taken for shades of grey."""
    palette = np.random.RandomState(0).randint(0, 256, (5, 3)).astype(np.uint8)  # blue, green, red
    indices = np.arange(32).reshape(8, 4).astype(np.uint8) % 5
    entries = b"".join(colour.tobytes() + b"\0" for colour in palette)
    header = struct.pack("<2sIHHI", b"BM", 54 + 20 + 32, 0, 0, 54 + 20)
    header += struct.pack("<IiiHHIIiiII", 40, 4, 8, 1, 8, 0, 32, 0, 0, 5, 0)
    (tmp_path / "x.bmp").write_bytes(header + entries + indices[::-1].tobytes())
    expected = cv2.imread(str(tmp_path / "x.bmp"))[..., ::-1]
    np.testing.assert_array_equal(expected, palette[indices][..., ::-1])
    try:
        picture = read(tmp_path / "x.bmp")
    except UserError:
        return
    np.testing.assert_array_equal(picture, expected)


def gif(*frames, size=None):
    """Frames of indices 0..3 into black, red, green, white -> a GIF."""
    height, width = size or frames[0].shape
    data = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x91, 0, 0) + bytes.fromhex("000000 ff0000 00ff00 ffffff")
    for frame in frames:
        codes = [code for index in frame.ravel() for code in (4, index)] + [5]  # a reset before each: always 3 bits
        bits = sum(int(code) << (3 * i) for i, code in enumerate(codes))
        packed = bits.to_bytes(len(codes) * 3 // 8 + 1, "little")
        data += b"," + struct.pack("<HHHHB", 0, 0, frame.shape[1], frame.shape[0], 0) + b"\2"
        data += bytes([len(packed)]) + packed + b"\0"
    return data + b";"


def test_of_a_gif_the_first_frame_is_read(tmp_path):
    first, second = np.arange(15).reshape(3, 5) % 4, np.ones((3, 5), int)
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 255)])
    for name, frames in {"still.gif": [first], "moving.gif": [first, second]}.items():
        (tmp_path / name).write_bytes(gif(*frames))
        np.testing.assert_array_equal(read(tmp_path / name), colours[first])


def comments(*blocks):
    """A GIF's comment of such blocks."""
    return b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


SHORT = np.random.default_rng(0).integers(0, 9, (30_000, 3)).tolist()  # lengths of blocks
COMMENTS = {
    "of one long": comments(*[b"x"] * 200_000),
    "of blocks of two lengths": comments(*[b"x", b"yz"] * 50_000),
    "short": comments(b"x") * 100_000,
    "empty": comments() * 100_000,
    "of any length": b"".join(comments(*(b"!" * length for length in lengths if length)) for lengths in SHORT),
}


@pytest.mark.parametrize("name", COMMENTS)
def test_comments_before_the_frame_of_a_gif_cost_no_time(name, tmp_path):
    """Block by block these would take minutes."""
    whole, start = gif(np.ones((3, 5), int)), 13 + 12
    (tmp_path / "x.gif").write_bytes(whole[:start] + COMMENTS[name] + whole[start:])
    read(tmp_path / "x.gif")
    started = time.monotonic()
    np.testing.assert_array_equal(read(tmp_path / "x.gif"), np.full((3, 5, 3), (255, 0, 0)))
    assert time.monotonic() - started < 20
    (tmp_path / "y.gif").write_bytes(whole[:start] + COMMENTS[name])
    assert "truncated or damaged" in refusal(tmp_path / "y.gif")


def test_which_colour_of_a_gif_is_transparent_is_said_anywhere_before_its_frame(tmp_path):
    whole, start = gif(np.array([[1, 2], [3, 0]])), 13 + 12
    control, comment = bytes.fromhex("21f904 01 0000 01 00"), comments(b"x", bytes.fromhex("21f904 01 0000 02 00"))
    for extensions in (control, comment + control, control + comment, comment + control + comment * 3000):
        (tmp_path / "x.gif").write_bytes(whole[:start] + extensions + whole[start:])
        np.testing.assert_array_equal(read(tmp_path / "x.gif")[..., 1], [[0, 255], [255, 0]])
        np.testing.assert_array_equal(read(tmp_path / "x.gif")[..., 0], [[0, 0], [255, 0]])


def test_tiny_segments_of_a_jpeg_cost_no_time(tmp_path):
    jpeg, tiny = FILES["colour.jpg"], b"\xff\xe2\0\2"
    for name, segments, height in [("few.jpg", tiny * 90, 61), ("many.jpg", tiny * 30_000, 47)]:
        (tmp_path / name).write_bytes(jpeg[:2] + segments + exif(6, True) + jpeg[2:])
        assert read(tmp_path / name).shape[0] == height  # EXIF behind thousands of segments does not count


# --- EXIF ----------------------------------------------------------------------------------------------------------


def exif(orientation, little):
    """An APP1 segment with two tags, the second of them the orientation."""
    order = "<" if little else ">"
    tiff = (b"II*\0" if little else b"MM\0*") + struct.pack(order + "IH", 8, 2)
    tiff += struct.pack(order + "HHII", 0x010E, 2, 4, 0) + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + tiff + struct.pack(order + "I", 0)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("little", [True, False], ids=["Intel", "Motorola"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_a_jpeg_is_turned_upright_as_opencv_does(orientation, little, tmp_path):
    file, jpeg = tmp_path / "turned.jpg", FILES["colour.jpg"]
    file.write_bytes(jpeg[:2] + exif(orientation, little) + jpeg[2:])
    picture = read(file)
    assert picture.shape == ((61, 47, 3) if 5 <= orientation <= 8 else (47, 61, 3))
    np.testing.assert_array_equal(picture, cv2.imread(str(file))[..., ::-1])


def test_exif_behind_another_segment_counts_and_damaged_exif_does_not(tmp_path):
    file, jpeg = tmp_path / "x.jpg", FILES["colour.jpg"]
    assert jpeg[2:4] == b"\xff\xe0"  # the JFIF segment
    behind = 4 + int.from_bytes(jpeg[4:6], "big")
    file.write_bytes(jpeg[:behind] + exif(6, True) + jpeg[behind:])
    assert read(file).shape == (61, 47, 3)
    good = exif(6, True)
    for damaged in (good[:10] + b"XXXX" + good[14:], good[:14] + b"\xff\xff\xff\x7f" + good[18:]):
        file.write_bytes(jpeg[:2] + damaged + jpeg[2:])
        assert read(file).shape == (47, 61, 3)


# --- Refusals ------------------------------------------------------------------------------------------------------


def test_a_cut_jpeg_is_refused_though_opencv_takes_it(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(FILES["colour.jpg"][: len(FILES["colour.jpg"]) // 2])
    assert cv2.imread(str(tmp_path / "cut.jpg")) is not None
    assert refusal(tmp_path / "cut.jpg").endswith("cut.jpg is truncated or damaged")


@pytest.mark.parametrize("name", [*FILES, "still.gif"])
def test_a_cut_file_is_refused_wherever_it_is_cut(name, tmp_path):
    whole = gif(np.ones((20, 20), int)[:4]) if name.endswith("gif") else FILES[name]
    for length in (8, 20, 30, len(whole) // 2, len(whole) - 20):
        (tmp_path / name).write_bytes(whole[:length])
        assert "truncated or damaged" in refusal(tmp_path / name)


def test_a_damaged_png_is_refused(tmp_path):
    data = bytearray(FILES["colour.png"])
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.png").write_bytes(data)
    assert "truncated or damaged" in refusal(tmp_path / "x.png")


def test_what_is_no_picture_is_refused_with_the_reason(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    assert refusal(tmp_path / "empty.jpg").endswith("is empty")
    assert "must be JPEG, PNG, BMP, GIF" in refusal(tmp_path / "text.jpg")
    assert refusal(tmp_path / "folder.jpg").endswith("folder.jpg is a folder, not a file")
    assert refusal(tmp_path / "none.jpg").endswith("none.jpg is missing")


def huge_headers():
    """Files that claim to be huge and hold nothing: decoding them would fail, or take gigabytes first."""
    size = struct.pack(">II", 100_000, 100_000)
    chunk = b"IHDR" + size + bytes((8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    jpeg = bytearray(FILES["colour.jpg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)  # libjpeg ends at 65,500
    small = gif(np.zeros((1, 1), int))
    at = small.index(b",") + 5  # the size of its frame; that in the header decides nothing
    bmp = bytearray(FILES["colour.bmp"])
    bmp[18:26] = struct.pack("<ii", 100_000, -100_000)
    return {
        "png": (png, "100000 x 100000"),
        "jpeg": (bytes(jpeg), "65000 x 65000"),
        "bmp": (bytes(bmp), "100000 x 100000"),
        "gif": (small[:at] + struct.pack("<HH", 65535, 65535) + small[at + 4 :], "65535 x 65535"),
    }


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "gif"])
def test_too_many_pixels_are_refused_by_the_header_alone(kind, tmp_path):
    data, size = huge_headers()[kind]
    (tmp_path / "huge").write_bytes(data)
    assert refusal(tmp_path / "huge").endswith(f"is {size}, more than YOLO_MAX_PIXELS = 120_000_000 allows")


def test_the_pixel_limit_is_sharp(tmp_path):
    (tmp_path / "x.png").write_bytes(FILES["colour.png"])
    assert read_picture(tmp_path / "x.png", 47 * 61).shape == (47, 61, 3)
    assert "is 61 x 47, more than" in refusal(tmp_path / "x.png", 47 * 61 - 1)


# --- Fitting -------------------------------------------------------------------------------------------------------

SIZES = [(1, 1), (1, 10000), (10000, 1), (375, 500), (500, 333), (416, 416), (97, 96), (427, 640), (1080, 1920), (7, 3)]


@pytest.mark.parametrize("resize", FIXED_RESIZES)
@pytest.mark.parametrize("size", [(96, 96), (416, 416), (256, 416), (96, 64)])
def test_a_picture_lies_where_darknet_puts_it(resize, size):
    for height, width in SIZES:
        placed = [int(x) for x in placement(tf.constant(height), tf.constant(width), size, resize)]
        assert placed == list(darknet_placement(height, width, size, resize)), (height, width)


@pytest.mark.parametrize("resize", FIXED_RESIZES)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("size", [(96, 96), (64, 96)])
def test_fit_is_darknets_bilinear_resize_with_grey_around(resize, shape, size):
    picture = scene(*shape)
    height, width, top, left = darknet_placement(*shape, size, resize)
    expected = np.full((*size, 3), 0.5, np.float32)
    resized = resize_image(picture, height, width)
    expected[top : top + height, left : left + width] = resized / 255
    fitted = fit(picture, size, resize).numpy()
    assert fitted.dtype == np.float32
    np.testing.assert_allclose(fitted, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("resize", FIXED_RESIZES)
@pytest.mark.parametrize("size", [(416, 416), (256, 416), (96, 64)])
def test_unfit_is_the_inverse_of_fit(resize, size):
    random = np.random.RandomState(1)
    boxes, fitted = [], []
    for height, width in SIZES:
        corners = np.sort(random.rand(20, 2, 2), 1).reshape(20, 4) * (width, height, width, height)
        new_height, new_width, top, left = darknet_placement(height, width, size, resize)
        x, y = corners[:, 0::2] * new_width / width + left, corners[:, 1::2] * new_height / height + top
        boxes.append(corners)
        fitted.append(np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], -1) / [*size[::-1], *size[::-1]])
    back = unfit(tf.constant(fitted, tf.float32), tf.constant(SIZES), size, resize).numpy()
    for ours, expected, (height, width) in zip(back, boxes, SIZES, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * max(height, width) + 1e-5)


@pytest.mark.parametrize("size", [(416, 416), (320, 416)])
def test_a_rectangle_is_the_letterbox_without_whole_cells_of_grey(size):
    for shape in [(720, 1280), (480, 640), (640, 480), (300, 300), (1, 900), (375, 500)]:
        height, width, top, left = darknet_placement(*shape, size, "letterbox")
        picture = scene(*shape)
        fitted = fit(picture, size, "rectangle").numpy()
        rows, columns = fitted.shape[:2]
        assert (rows, columns) == (-(-height // 32) * 32, -(-width // 32) * 32)
        up, before = (rows - height) // 2, (columns - width) // 2
        whole = fit(picture, size, "letterbox").numpy()
        np.testing.assert_array_equal(
            fitted[up : up + height, before : before + width], whole[top : top + height, left : left + width]
        )
        sizes, box = tf.constant([shape]), tf.constant([[[0.0, 0.0, shape[1], shape[0]]]])
        inside = refit(box, sizes, size, "rectangle").numpy()[0, 0] * [columns, rows, columns, rows]
        np.testing.assert_allclose(inside, [before, up, before + width, up + height], atol=1e-3)
        np.testing.assert_allclose(
            unfit(refit(box, sizes, size, "rectangle"), sizes, size, "rectangle"), box, atol=1e-2
        )
        scale = picture_scale(sizes, size, "rectangle").numpy()[0, 0, :2]
        np.testing.assert_allclose(scale, [columns / width, rows / height], rtol=1e-6)
    assert fit(scene(100, 300), (192, 192), "rectangle", multiple=64).shape == (64, 192, 3)


def test_boxes_are_clipped_to_the_picture():
    whole = tf.constant([[[-0.2, -9, 1.3, 9]]] * 2)
    for resize in FIXED_RESIZES:
        boxes = unfit(whole, tf.constant([(375, 500), (10000, 1)]), (416, 416), resize).numpy()
        np.testing.assert_array_equal(boxes, [[[0, 0, 500, 375]], [[0, 0, 1, 10000]]])


def test_a_box_in_the_grey_margin_has_no_area():
    margin = tf.constant([[[0.1, 0.0, 0.9, 0.1]]])  # 500 x 375 in 416: the picture begins at row 52 of 416
    x1, y1, x2, y2 = unfit(margin, tf.constant([(375, 500)]), (416, 416), "letterbox").numpy()[0, 0]
    assert (y1, y2) == (0, 0)


def test_picture_scale_turns_lengths_into_fractions_of_the_picture():
    sizes = tf.constant([(375, 500), (500, 333), (416, 416)])
    letterbox = picture_scale(sizes, (416, 416), "letterbox").numpy()
    assert letterbox.shape == (3, 1, 4)
    np.testing.assert_allclose(letterbox[:, 0, :2], [(1, 416 / 312), (416 / 277, 1), (1, 1)], rtol=1e-6)
    np.testing.assert_array_equal(letterbox[..., :2], letterbox[..., 2:])
    np.testing.assert_array_equal(picture_scale(sizes, (416, 416), "stretch").numpy(), np.ones((3, 1, 4)))
    wide = picture_scale(sizes, (256, 416), "letterbox").numpy()[:, 0, :2]
    np.testing.assert_allclose(wide, [(416 / 341, 1), (416 / 170, 1), (416 / 256, 1)], rtol=1e-6)
