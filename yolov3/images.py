"""Picture files -> pictures, and these -> network inputs and back. TensorFlow graph ops only, no Keras; see `formats`.

A picture is uint8 (H, W, 3), RGB, upright. A network input is float32 (S, S, 3), RGB, 0..1. "letterbox" keeps the
aspect ratio and pads with grey (pjreddie's Darknet); "stretch" does not (AlexeyAB's Darknet).
"""

from yolov3.checks import UserError, read_file
from yolov3.formats import is_plain_bmp, quiet, read_with_pillow
from yolov3.gif import first_frame

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
ORIENTATION = 0x0112  # EXIF tag
MIRRORED = (2, 3, 6, 7)  # orientations to flip left to right, after transposing those from 5 on
UPSIDE_DOWN = (3, 4, 7, 8)  # orientations to flip top to bottom, likewise


def read_picture(path, max_pixels):
    """A picture file -> NumPy uint8 (H, W, 3), RGB, upright by its EXIF orientation.

    Raises UserError with the reason: missing, empty, of another format, over max_pixels, truncated or damaged.
    """
    return picture_of(read_file(path, PICTURE_BYTES, "picture"), path, max_pixels)


@quiet()
def picture_of(data, path, max_pixels):
    """The bytes of a picture file -> as `read_picture`, wherever they come from; `path` is for the reason alone."""
    if not data:
        raise UserError(f"picture {path} is empty")
    if not data.startswith(tuple(SIGNATURES.values())) or data.startswith(SIGNATURES["BMP"]) and not is_plain_bmp(data):
        return read_with_pillow(data, path, max_pixels)
    try:
        (height, width), data = (x.numpy() for x in _header(tf.constant(data)))
        if int(height) * int(width) > max_pixels:
            raise UserError(f"picture {path} is {width} x {height}, more than YOLO_MAX_PIXELS = {max_pixels:_} allows")
        return _decode_picture(data, tf.constant(max_pixels, tf.int64)).numpy()
    except tf.errors.OpError:
        raise UserError(f"picture {path} is truncated or damaged") from None


def decode_picture(data, max_pixels):
    """The bytes of a JPEG, PNG, BMP or GIF (first frame), a scalar string -> uint8 (H, W, 3), RGB, upright.

    Fails with tf.errors.InvalidArgumentError on anything else, on truncated and damaged files, and, before a pixel
    is decoded, on more than max_pixels (int64) by the header. The accurate DCT decodes JPEGs as OpenCV does.
    """
    return decode_large_picture(data, max_pixels, None)[0]


def decode_large_picture(data, max_pixels, enough):
    """Like `decode_picture`, but a JPEG whose longer side is over twice `enough` pixels is decoded at a half, a quarter
    or an eighth of its size, no smaller than `enough`: cheaper, by its DCT. -> picture, and int32 (2,), the height and
    width of the whole upright picture."""
    size, data = header(data)
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

    picture, size = tf.switch_case(_format(data), [jpeg, png, bmp, gif])
    return tf.ensure_shape(picture, (None, None, 3)), tf.ensure_shape(size, (2,))


_decode_picture = tf.function(
    decode_picture, input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)], autograph=False
)


def header(data):
    """A picture file's bytes -> int32 (2,), height and width, from the header alone, and the bytes to decode: of a GIF
    those of its first frame. Fails if there is no header."""
    octets = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 32), tf.uint8), tf.int64)

    def number(at, count, order=1):
        return tf.reduce_sum(octets[at : at + count][::order] * [256**i for i in range(count)])

    def size(height, width):
        return tf.cast(tf.minimum(tf.stack([height, width]), 2**31 - 1), tf.int32)

    def bmp():  # a negative height means rows from top to bottom
        height = number(22, 4)
        return size(tf.minimum(height, 2**32 - height), number(18, 4)), data

    return tf.switch_case(
        _format(data),
        [
            lambda: (tf.io.extract_jpeg_shape(data)[:2], data),
            lambda: (size(number(20, 4, -1), number(16, 4, -1)), data),
            bmp,
            lambda: first_frame(data),
        ],
    )


_header = tf.function(header, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def _format(data):
    """Index into SIGNATURES of a file's bytes; 0, whose decoder will refuse them, if it is none of these."""
    matches = [tf.strings.substr(data, 0, len(mark)) == mark for mark in SIGNATURES.values()]
    return tf.argmax(tf.cast(tf.stack(matches), tf.int32), output_type=tf.int32)


def exif_orientation(data):
    """A JPEG's bytes -> its EXIF orientation, int32 1..8; 1, upright, where there is none."""
    octets = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, EXIF_WITHIN), tf.uint8), tf.int32)

    def number(at, count, little=False):
        """`count` octets from each position in `at`; positions past the end read the last octet."""
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
    """A picture as stored -> as it should be seen."""

    def turn(condition, change, picture):
        return tf.cond(condition, lambda: change(picture), lambda: picture)

    def one_of(orientations):
        return tf.reduce_any(orientation == tf.constant(orientations))

    picture = turn(orientation >= 5, lambda x: tf.transpose(x, (1, 0, 2)), picture)
    picture = turn(one_of(MIRRORED), lambda x: x[:, ::-1], picture)
    return turn(one_of(UPSIDE_DOWN), lambda x: x[::-1], picture)


def placement(height, width, size, resize):
    """Where a picture lies in the network input: int32 (height, width, top, left) in pixels of the input.

    Darknet's integers: the longer side fills the input, the other is rounded down, the margins too.
    """
    if resize == "stretch":
        return tf.ones_like(height) * size, tf.ones_like(width) * size, tf.zeros_like(height), tf.zeros_like(width)
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)  # a side may have a hundred million pixels
    longer = tf.maximum(height, width)
    height = tf.cast(tf.maximum(height * size // longer, 1), tf.int32)
    width = tf.cast(tf.maximum(width * size // longer, 1), tf.int32)
    return height, width, (size - height) // 2, (size - width) // 2


def fit(picture, size, resize, whole=None):
    """A picture, uint8 (H, W, 3), of any size -> network input, float32 (S, S, 3), 0..1.

    whole  height and width that the picture would have but for `decode_large_picture`
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
    """Boxes (N, k, 4) xyxy in fractions of the network input -> in pixels of pictures of int32 sizes (N, 2), height
    and width, clipped to them. The inverse of `fit`."""
    offset, scale, limit = _placed(sizes, size, resize)
    return tf.clip_by_value((boxes * size - offset) / scale, 0, limit)


def refit(boxes, sizes, size, resize):
    """Boxes (N, k, 4) xyxy in pixels of pictures of int32 sizes (N, 2), height and width -> in fractions of the network
    input. The inverse of `unfit`."""
    offset, scale, _ = _placed(sizes, size, resize)
    return (boxes * scale + offset) / size


def _placed(sizes, size, resize):
    """How pictures lie in the network input: float32 (N, 1, 4), offset in its pixels, scale, and their own sides."""
    height, width, top, left = (
        tf.cast(x, tf.float32)[:, tf.newaxis] for x in placement(sizes[:, 0], sizes[:, 1], size, resize)
    )
    sides = tf.cast(tf.stack([sizes[:, 1], sizes[:, 0]] * 2, -1), tf.float32)[:, tf.newaxis]
    return tf.stack([left, top] * 2, -1), tf.stack([width, height] * 2, -1) / sides, sides


def picture_scale(sizes, size, resize):
    """float32 (N, 1, 4): turns lengths in fractions of the network input into fractions of pictures of int32 sizes
    (N, 2), height and width."""
    height, width, _, _ = placement(sizes[:, 0], sizes[:, 1], size, resize)
    return size / tf.cast(tf.stack([width, height] * 2, -1), tf.float32)[:, tf.newaxis]
