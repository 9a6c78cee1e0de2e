"""Decode picture files, fit pictures to the network input, and bring boxes back to the pictures.

These are TensorFlow graph ops without Keras; `formats` reads the files that TensorFlow does not decode.

A picture is uint8 (H, W, 3), RGB, upright. A network input is float32 (S, S, 3), RGB, 0..1. "letterbox" keeps the
aspect ratio and pads with grey (pjreddie's Darknet); "stretch" does not (AlexeyAB's Darknet).
"""

import contextlib

from yolov3.checks import UserError, read_file
from yolov3.formats import is_plain_bmp, quiet, read_with_pillow

import tensorflow as tf

RESIZES = ("letterbox", "stretch")
GREY = 0.5
SIGNATURES = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "BMP": b"BM",
    "GIF": b"GIF8",
}
PICTURE_BYTES = 2**29  # of the largest picture file
EXIF_WITHIN = 2**17  # bytes; the Exif segment stands among the first of a JPEG and is under 64 KiB long
EXIF_BEHIND = 100  # other segments at most
GIF_STEPS = 5_000  # of the walk to the end of a GIF's first frame; most files take ten
GIF_RUN = 4096  # blocks of one length that one step takes
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
    try:
        return _decode_picture(data, tf.constant(max_pixels, tf.int64)).numpy()
    except tf.errors.OpError:
        with contextlib.suppress(tf.errors.OpError):
            height, width = _header_size(tf.constant(data)).numpy()
            if int(height) * int(width) > max_pixels:
                size = f"{width} x {height}"
                raise UserError(f"picture {path} is {size}, more than YOLO_MAX_PIXELS = {max_pixels:_} allows") from None
        raise UserError(f"picture {path} is truncated or damaged") from None


def decode_picture(data, max_pixels):
    """Return a JPEG, PNG, BMP or GIF (its first frame), given as a scalar string, as uint8 (H, W, 3), RGB, upright.

    Raises tf.errors.InvalidArgumentError for anything else, for truncated and damaged files and, before a pixel is
    decoded, for more than max_pixels (int64) by the header. The accurate DCT decodes JPEGs as OpenCV does.
    """
    return decode_large_picture(data, max_pixels, None)[0]


def decode_large_picture(data, max_pixels, enough):
    """Return what `decode_picture` does, and int32 (2,), the height and width of the whole upright picture.

    A JPEG whose longer side is over twice `enough` pixels is decoded at a half, a quarter or an eighth of its size, not
    smaller than `enough`, which its DCT makes cheaper.
    """
    size = header_size(data)
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
        return tf.io.decode_image(first_frame(data)[1], 3, expand_animations=False), size

    def bmp():  # one channel is an index into the palette behind the header, a fourth is alpha
        picture = tf.io.decode_bmp(data)

        def coloured():  # the palette: blue, green, red, unused
            start = 14 + tf.io.decode_raw(tf.strings.substr(data, 14, 4), tf.int32)[0]
            palette = tf.io.decode_raw(data, tf.uint8)[start : start + 1024]
            palette = tf.reshape(palette[: tf.size(palette) // 4 * 4], (-1, 4))[:, 2::-1]
            return tf.gather(palette, tf.cast(picture[..., 0], tf.int32))

        return tf.cond(tf.shape(picture)[2] == 1, coloured, lambda: picture[..., :3]), size

    picture, size = tf.switch_case(_format(data), [jpeg, png, bmp, gif])
    return tf.ensure_shape(picture, (None, None, 3)), tf.ensure_shape(size, (2,))


_decode_picture = tf.function(
    decode_picture, input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)], autograph=False
)


def header_size(data):
    """Return int32 (2,), the height and width that the header of a picture file's bytes gives.

    Raises tf.errors.InvalidArgumentError if there is no header.
    """
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 32), tf.uint8), tf.int64)

    def number(at, count, order=1):
        return tf.reduce_sum(header[at : at + count][::order] * [256**i for i in range(count)])

    def size(height, width):
        return tf.cast(tf.minimum(tf.stack([height, width]), 2**31 - 1), tf.int32)

    def bmp():  # a negative height means rows from top to bottom
        height = number(22, 4)
        return size(tf.minimum(height, 2**32 - height), number(18, 4))

    return tf.switch_case(
        _format(data),
        [
            lambda: tf.io.extract_jpeg_shape(data)[:2],
            lambda: size(number(20, 4, -1), number(16, 4, -1)),
            bmp,
            lambda: first_frame(data)[0],
        ],
    )


_header_size = tf.function(header_size, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def first_frame(data):
    """A GIF's bytes -> int32 (2,), the height and width of its first frame, and the bytes without those behind it. The
    decoder would unpack every frame, and frames need not be of the size in the header.

    Fails after GIF_STEPS, which only a file that is made for it needs.
    """
    octets = tf.io.decode_raw(data, tf.uint8)

    def octet(at):
        return tf.cast(tf.gather(octets, tf.minimum(at, tf.size(octets) - 1)), tf.int32)

    def colour_table(flags):
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def is_within(at, steps):
        return (at < tf.size(octets)) & (steps < GIF_STEPS)

    def last_block(at, steps):  # each is its length and so many bytes; the last has none
        def is_other(at, steps):
            return is_within(at, steps) & (octet(at) > 0)

        def next_length(at, steps):  # encoders write runs of blocks of one length
            alike = octet(at + (1 + octet(at)) * tf.range(GIF_RUN)) == octet(at)
            run = tf.argmin(tf.concat([tf.cast(alike, tf.int32), [0]], 0), output_type=tf.int32)
            return at + (1 + octet(at)) * run, steps + 1

        return tf.while_loop(is_other, next_length, [at, steps])

    def is_extension(at, steps):
        return is_within(at, steps) & (octet(at) == 0x21)

    def next_section(at, steps):
        at, steps = last_block(at + 2, steps)
        return at + 1, steps + 1

    frame, steps = tf.while_loop(is_extension, next_section, [13 + colour_table(octet(10)), tf.constant(0)])
    width, height = (octet(frame + i) + 256 * octet(frame + i + 1) for i in (5, 7))
    end, steps = last_block(frame + 11 + colour_table(octet(frame + 9)), steps)
    with tf.control_dependencies([tf.debugging.assert_less(steps, GIF_STEPS)]):
        return tf.stack([height, width]), tf.strings.substr(data, 0, end + 1) + b";"


def _format(data):
    """Return which of SIGNATURES a file's bytes begin with, by index, or 0, whose decoder will refuse them."""
    matches = [tf.strings.substr(data, 0, len(mark)) == mark for mark in SIGNATURES.values()]
    return tf.argmax(tf.cast(tf.stack(matches), tf.int32), output_type=tf.int32)


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


def placement(height, width, size, resize):
    """Return where a picture lies in the network input: int32 (height, width, top, left) in pixels of the input.

    As in Darknet, the longer side fills the input; the other side and the margins are rounded down.
    """
    if resize == "stretch":
        return tf.ones_like(height) * size, tf.ones_like(width) * size, tf.zeros_like(height), tf.zeros_like(width)
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)  # a side may have a hundred million pixels
    longer = tf.maximum(height, width)
    height = tf.cast(tf.maximum(height * size // longer, 1), tf.int32)
    width = tf.cast(tf.maximum(width * size // longer, 1), tf.int32)
    return height, width, (size - height) // 2, (size - width) // 2


def fit(picture, size, resize, whole=None):
    """Return a picture, uint8 (H, W, 3), of any size as network input, float32 (S, S, 3), 0..1.

    whole  height and width of the whole picture, if `decode_large_picture` has decoded it smaller
    """
    whole = tf.shape(picture) if whole is None else whole
    height, width, top, left = placement(whole[0], whole[1], size, resize)
    fitted = resize_bilinear(picture, (height, width)) / 255
    if resize == "letterbox":
        fitted = tf.pad(fitted, [(top, size - height - top), (left, size - width - left), (0, 0)], constant_values=GREY)
    return tf.ensure_shape(fitted, (size, size, 3))


def resize_bilinear(picture, size):
    """Return a picture (H, W, 3), of any dtype, at another size (height, width) as float32 (height, width, 3).

    Corners lie on corners, as in Darknet's `resize_image`: pixel x of the result is at x * (W - 1) / (width - 1) of the
    picture. `tf.image.resize` and OpenCV map by pixel centres instead, which moves one box in twenty.
    """
    return tf.raw_ops.ResizeBilinear(images=picture[tf.newaxis], size=size, align_corners=True)[0]


def unfit(boxes, sizes, size, resize):
    """Return boxes (N, k, 4), xyxy in fractions of the network input, in pixels of their pictures and clipped to them.

    sizes  int32 (N, 2): height and width of each picture
    """
    offset, scale, limit = _placed(sizes, size, resize)
    return tf.clip_by_value((boxes * size - offset) / scale, 0, limit)


def refit(boxes, sizes, size, resize):
    """Return boxes (N, k, 4), xyxy in pixels of their pictures, in fractions of the network input: undo `unfit`."""
    offset, scale, _ = _placed(sizes, size, resize)
    return (boxes * scale + offset) / size


def _placed(sizes, size, resize):
    """Return how pictures lie in the network input, each float32 (N, 1, 4): offset in pixels of the input, scale, and
    the sides of the pictures."""
    height, width, top, left = (
        tf.cast(x, tf.float32)[:, tf.newaxis] for x in placement(sizes[:, 0], sizes[:, 1], size, resize)
    )
    sides = tf.cast(tf.stack([sizes[:, 1], sizes[:, 0]] * 2, -1), tf.float32)[:, tf.newaxis]
    return tf.stack([left, top] * 2, -1), tf.stack([width, height] * 2, -1) / sides, sides


def picture_scale(sizes, size, resize):
    """Return float32 (N, 1, 4), which turns lengths in fractions of the network input into fractions of the pictures,
    whose heights and widths are int32 `sizes` (N, 2)."""
    height, width, _, _ = placement(sizes[:, 0], sizes[:, 1], size, resize)
    return size / tf.cast(tf.stack([width, height] * 2, -1), tf.float32)[:, tf.newaxis]
