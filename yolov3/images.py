"""Decode picture files: JPEG, PNG, BMP and GIF by TensorFlow, the others by Pillow (`formats`).

These are TensorFlow graph ops without Keras, so that a SavedModel decodes as the detector does. A picture is uint8
(H, W, 3), RGB, upright.
"""

import contextlib
import functools

from yolov3.checks import UserError, read_file
from yolov3.formats import is_plain_bmp, quiet, read_with_pillow
from yolov3.gif import first_frame

import tensorflow as tf

SIGNATURES = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "BMP": b"BM",
    "GIF": b"GIF8",
}
PICTURE_BYTES = 2**29  # of the largest picture file
EXIF_WITHIN = 2**17  # bytes; the Exif segment stands among the first of a JPEG and is under 64 KiB long
EXIF_BEHIND = 100  # other segments at most
ORIENTATION = 0x0112  # EXIF tag
MIRRORED = (2, 3, 6, 7)  # orientations to flip left to right, after transposing those from 5 on
UPSIDE_DOWN = (3, 4, 7, 8)  # orientations to flip top to bottom, likewise


def read_picture(path, max_pixels):
    """Return a picture file as NumPy uint8 (H, W, 3), RGB, upright by its EXIF orientation.

    Raises UserError if it is missing, empty, truncated, damaged, of another format or over max_pixels.
    """
    return picture_of(read_file(path, PICTURE_BYTES, "picture"), path, max_pixels)


@quiet()
def picture_of(data, path, max_pixels):
    """Return what `read_picture` does from the bytes of a file. Messages call them by `path`."""
    if not data:
        raise UserError(f"picture {path} is empty")
    if not data.startswith(tuple(SIGNATURES.values())) or data.startswith(SIGNATURES["BMP"]) and not is_plain_bmp(data):
        return read_with_pillow(data, path, max_pixels)
    kind = next(i for i, mark in enumerate(SIGNATURES.values()) if data.startswith(mark))
    try:
        return _decoder(kind)(data, tf.constant(max_pixels, tf.int64)).numpy()
    except tf.errors.OpError:
        with contextlib.suppress(tf.errors.OpError):
            height, width = _header_reader(kind)(data).numpy()
            if int(height) * int(width) > max_pixels:
                size = f"{width} x {height}"
                raise UserError(
                    f"picture {path} is {size}, more than YOLO_MAX_PIXELS = {max_pixels:_} allows"
                ) from None
        raise UserError(f"picture {path} is truncated or damaged") from None


def decode_picture(data, max_pixels, kind):
    """Return a JPEG, PNG, BMP or GIF (its first frame), given as a scalar string, as uint8 (H, W, 3), RGB, upright.

    Raises tf.errors.InvalidArgumentError for anything else, for truncated and damaged files and, before a pixel is
    decoded, for more than max_pixels (int64) by the header. The accurate DCT decodes JPEGs as OpenCV does.
    kind  the format, as an index into SIGNATURES
    """
    return decode_large_picture(data, max_pixels, None, kind)[0]


def decode_large_picture(data, max_pixels, enough, kind=None):
    """Return what `decode_picture` does, and int32 (2,), the height and width of the whole upright picture.

    A JPEG whose longer side is over twice `enough` pixels is decoded at a half, a quarter or an eighth of its size, not
    smaller than `enough`, which its DCT makes cheaper.
    kind  the format, as an index into SIGNATURES; None if it is not known when the graph is made
    """
    size, data = header(data, kind)
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    with tf.control_dependencies([tf.debugging.assert_less_equal(pixels, max_pixels)]):
        data = tf.identity(data)

    def jpeg():
        def at(ratio):
            return lambda: tf.io.decode_jpeg(data, 3, ratio=ratio, dct_method="INTEGER_ACCURATE")

        orientation = exif_orientation(data)
        whole = tf.where(orientation >= 5, size[::-1], size)
        if enough is None:
            return upright(at(1)(), orientation), whole
        times = tf.reduce_max(size) // enough
        choice = tf.reduce_sum(tf.cast(times >= [2, 4, 8], tf.int32))
        return upright(tf.switch_case(choice, [at(1), at(2), at(4), at(8)]), orientation), whole

    def png():
        return tf.io.decode_png(data, 3), size

    def gif():
        return tf.io.decode_image(data, 3, expand_animations=False), size

    def bmp():  # one channel is an index into the palette behind the header, a fourth is alpha
        picture = tf.io.decode_bmp(data)

        def coloured():  # the palette: blue, green, red, unused
            start = 14 + tf.io.decode_raw(tf.strings.substr(data, 14, 4), tf.int32)[0]
            palette = tf.io.decode_raw(data, tf.uint8)[start : start + 1024]
            palette = tf.reshape(palette[: tf.size(palette) // 4 * 4], (-1, 4))[:, 2::-1]
            return tf.gather(palette, tf.cast(picture[..., 0], tf.int32))

        return tf.cond(tf.shape(picture)[2] == 1, coloured, lambda: picture[..., :3]), size

    picture, size = _by_format(data, kind, [jpeg, png, bmp, gif])
    return tf.ensure_shape(picture, (None, None, 3)), tf.ensure_shape(size, (2,))


@functools.cache
def _decoder(kind):
    """Return `decode_picture` for one format as a graph. One for all formats would take twice as long to make, half a
    second on 2 cores, which everybody waits for who detects on one picture."""
    signature = [tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)]
    return tf.function(lambda *x: decode_picture(*x, kind), input_signature=signature, autograph=False)


def header(data, kind=None):
    """Return int32 (2,), the height and width that the header of a picture file's bytes gives, and the bytes to decode:
    of a GIF those of its first frame.

    Raises tf.errors.InvalidArgumentError if there is no header.
    """
    octets = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 32), tf.uint8), tf.int64)

    def number(at, count, order=1):
        return tf.reduce_sum(octets[at : at + count][::order] * [256**i for i in range(count)])

    def size(height, width):
        return tf.cast(tf.minimum(tf.stack([height, width]), 2**31 - 1), tf.int32)

    def bmp():  # a negative height means rows from top to bottom
        height = number(22, 4)
        return size(tf.minimum(height, 2**32 - height), number(18, 4)), data

    return _by_format(
        data,
        kind,
        [
            lambda: (tf.io.extract_jpeg_shape(data)[:2], data),
            lambda: (size(number(20, 4, -1), number(16, 4, -1)), data),
            bmp,
            lambda: first_frame(data),
        ],
    )


@functools.cache
def _header_reader(kind):
    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(lambda data: header(data, kind)[0], input_signature=signature, autograph=False)


def _by_format(data, kind, branches):
    """Return the answer of the branch for the format of a file's bytes: `kind`, or that of the signature that they
    begin with; without one, the first branch, whose decoder will refuse them."""
    if kind is not None:
        return branches[kind]()
    matches = [tf.strings.substr(data, 0, len(mark)) == mark for mark in SIGNATURES.values()]
    return tf.switch_case(tf.argmax(tf.cast(tf.stack(matches), tf.int32), output_type=tf.int32), branches)


def exif_orientation(data):
    """Return the EXIF orientation of a JPEG's bytes, int32 1..8; 1, upright, if the file does not tell it."""
    octets = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, EXIF_WITHIN), tf.uint8), tf.int32)

    def number(at, count, little=False):
        """Return the number in the `count` octets from each position in `at`. Past the end, the last octet is read."""
        places = at[..., tf.newaxis] + (tf.range(count)[::-1] if little else tf.range(count))
        read = tf.gather(octets, tf.clip_by_value(places, 0, tf.size(octets) - 1))
        return tf.reduce_sum(read * [256 ** (count - 1 - i) for i in range(count)], -1)

    def is_exif(segment):  # marker APP1, then "Exif" behind the length
        return (number(segment, 2) == 0xFFE1) & (number(segment + 4, 4) == 0x45786966)

    def is_other(segment):  # any marker but the one that begins the picture data
        marker = number(segment, 2)
        return (marker >= 0xFFC0) & (marker != 0xFFDA) & (segment < tf.size(octets)) & ~is_exif(segment)

    def behind(segment):
        return [segment + 2 + number(segment + 2, 2)]

    segment = tf.while_loop(is_other, behind, [tf.constant(2)], maximum_iterations=EXIF_BEHIND)[0]

    def orientation(little):
        tiff = segment + 10
        directory = tiff + number(tiff + 4, 4, little)
        entries = directory + 2 + 12 * tf.range(number(directory, 2, little))
        values = tf.boolean_mask(number(entries + 8, 2, little), number(entries, 2, little) == ORIENTATION)
        value = tf.concat([values, [1]], 0)[0]
        return tf.where((value >= 1) & (value <= 8), value, 1)

    def either_endian():
        intel = number(segment + 10, 2) == 0x4949
        return tf.cond(intel, lambda: orientation(True), lambda: orientation(False))

    return tf.cond(is_exif(segment), either_endian, lambda: tf.constant(1))


def upright(picture, orientation):
    """Return a picture turned and mirrored from how it is stored to how it should be seen."""

    def turn(condition, change, picture):
        return tf.cond(condition, lambda: change(picture), lambda: picture)

    def one_of(orientations):
        return tf.reduce_any(orientation == tf.constant(orientations))

    picture = turn(orientation >= 5, lambda x: tf.transpose(x, (1, 0, 2)), picture)
    picture = turn(one_of(MIRRORED), lambda x: x[:, ::-1], picture)
    return turn(one_of(UPSIDE_DOWN), lambda x: x[::-1], picture)
