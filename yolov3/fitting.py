"""Fit pictures to the network input, and bring boxes back to the pictures.

These are TensorFlow graph ops without Keras. A picture is uint8 (H, W, 3), RGB. A network input is float32 (h, w, 3),
RGB, 0..1. "letterbox" keeps the aspect ratio and pads with grey (pjreddie's Darknet); "stretch" does not (AlexeyAB's).
`size` is the height and width of the network input everywhere.
"""

import tensorflow as tf

RESIZES = ("letterbox", "stretch")
GREY = 0.5


def placement(height, width, size, resize):
    """Return where a picture lies in the network input: int32 (height, width, top, left) in pixels of the input.

    As in Darknet, one side fills the input; the other side and the margins are rounded down.
    """
    if resize == "stretch":
        none = tf.zeros_like(height)
        return none + size[0], none + size[1], none, none
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)  # a side may have a hundred million pixels
    fitted_height = tf.cast(tf.clip_by_value(height * size[1] // width, 1, size[0]), tf.int32)
    fitted_width = tf.cast(tf.clip_by_value(width * size[0] // height, 1, size[1]), tf.int32)
    return fitted_height, fitted_width, (size[0] - fitted_height) // 2, (size[1] - fitted_width) // 2


def fit(picture, size, resize, whole=None):
    """Return a picture, uint8 (H, W, 3), of any size as network input, float32 (h, w, 3), 0..1.

    whole  height and width of the whole picture, if `decode_large_picture` has decoded it smaller
    """
    whole = tf.shape(picture) if whole is None else whole
    height, width, top, left = placement(whole[0], whole[1], size, resize)
    fitted = resize_bilinear(picture, (height, width)) / 255
    if resize == "letterbox":
        margins = (top, size[0] - height - top), (left, size[1] - width - left), (0, 0)
        fitted = tf.pad(fitted, margins, constant_values=GREY)
    return tf.ensure_shape(fitted, (*size, 3))


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
    return tf.clip_by_value((boxes * _sides(size) - offset) / scale, 0, limit)


def refit(boxes, sizes, size, resize):
    """Return boxes (N, k, 4), xyxy in pixels of their pictures, in fractions of the network input: undo `unfit`."""
    offset, scale, _ = _placed(sizes, size, resize)
    return (boxes * scale + offset) / _sides(size)


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
    return _sides(size) / tf.cast(tf.stack([width, height] * 2, -1), tf.float32)[:, tf.newaxis]


def _sides(size):
    """Return width, height, width and height, by which xyxy are multiplied and divided."""
    return tf.constant([size[1], size[0]] * 2, tf.float32)
