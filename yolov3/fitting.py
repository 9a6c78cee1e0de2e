"""Fit pictures to the network input, and bring boxes back to the pictures.

These are TensorFlow graph ops without Keras. A picture is uint8 (H, W, 3), RGB. A network input is float32 (h, w, 3),
RGB, 0..1. "letterbox" keeps the aspect ratio and pads with grey (pjreddie's Darknet); "stretch" does not (AlexeyAB's).
"rectangle" is "letterbox" in the smallest input that holds the picture, of sides that are a `multiple` of some pixels.
`size` is the height and width of the network input everywhere; of "rectangle", the largest.
"""

from yolov3.checks import UserError

import tensorflow as tf

FIXED_RESIZES = ("letterbox", "stretch")  # with which all pictures have an input of one size
RESIZES = (*FIXED_RESIZES, "rectangle")
GREY = 0.5


def check_fixed(resize: str, why: str) -> None:
    """Raise UserError if the size of the network input would go by the picture; `why` says what does not allow that."""
    if resize not in FIXED_RESIZES:
        remedy = 'set YOLO_RESIZE = "letterbox", and YOLO_INPUT_SIZE = (height, width) for pictures of one shape'
        raise UserError(f'YOLO_RESIZE = "rectangle" is for weights that are run by "tf": {why}', remedy)


def placement(height, width, size, resize, multiple=32):
    """Return where a picture lies in the network input: int32 (height, width, top, left) in pixels of the input.

    As in Darknet, one side fills the input; the other side and the margins are rounded down.
    """
    if resize == "stretch":
        none = tf.zeros_like(height)
        return none + size[0], none + size[1], none, none
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)  # a side may have a hundred million pixels
    fitted_height = tf.cast(tf.clip_by_value(height * size[1] // width, 1, size[0]), tf.int32)
    fitted_width = tf.cast(tf.clip_by_value(width * size[0] // height, 1, size[1]), tf.int32)
    input_height, input_width = input_around(fitted_height, fitted_width, size, resize, multiple)
    return fitted_height, fitted_width, (input_height - fitted_height) // 2, (input_width - fitted_width) // 2


def input_around(height, width, size, resize, multiple):
    """Return height and width of the network input that a picture lies in, of which it fills so many pixels."""
    if resize != "rectangle":
        return size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def fit(picture, size, resize, whole=None, multiple=32):
    """Return a picture, uint8 (H, W, 3), of any size as network input, float32 (h, w, 3), 0..1.

    whole  height and width of the whole picture, if `decode_large_picture` has decoded it smaller
    """
    whole = tf.shape(picture) if whole is None else whole
    height, width, top, left = placement(whole[0], whole[1], size, resize, multiple)
    fitted = resize_bilinear(picture, (height, width)) / 255
    if resize == "stretch":
        return tf.ensure_shape(fitted, (*size, 3))
    full_height, full_width = input_around(height, width, size, resize, multiple)
    margins = (top, full_height - height - top), (left, full_width - width - left), (0, 0)
    fitted = tf.pad(fitted, margins, constant_values=GREY)
    return tf.ensure_shape(fitted, (None, None, 3) if resize == "rectangle" else (*size, 3))


def resize_bilinear(picture, size):
    """Return a picture (H, W, 3), of any dtype, at another size (height, width) as float32 (height, width, 3).

    Corners lie on corners, as in Darknet's `resize_image`: pixel x of the result is at x * (W - 1) / (width - 1) of the
    picture. `tf.image.resize` and OpenCV map by pixel centres instead, which moves one box in twenty.
    """
    return tf.raw_ops.ResizeBilinear(images=picture[tf.newaxis], size=size, align_corners=True)[0]


def unfit(boxes, sizes, size, resize, multiple=32):
    """Return boxes (N, k, 4), xyxy in fractions of the network input, in pixels of their pictures and clipped to them.

    sizes  int32 (N, 2): height and width of each picture
    """
    offset, scale, limit, sides = _placed(sizes, size, resize, multiple)
    return tf.clip_by_value((boxes * sides - offset) / scale, 0, limit)


def refit(boxes, sizes, size, resize, multiple=32):
    """Return boxes (N, k, 4), xyxy in pixels of their pictures, in fractions of the network input: undo `unfit`."""
    offset, scale, _, sides = _placed(sizes, size, resize, multiple)
    return (boxes * scale + offset) / sides


def picture_scale(sizes, size, resize, multiple=32):
    """Return float32 (N, 1, 4), which turns lengths in fractions of the network input into fractions of the pictures,
    whose heights and widths are int32 `sizes` (N, 2)."""
    height, width, _, _ = placement(sizes[:, 0], sizes[:, 1], size, resize, multiple)
    return _xyxy(*input_around(height, width, size, resize, multiple)) / _xyxy(height, width)


def _placed(sizes, size, resize, multiple):
    """Return how pictures lie in the network input, each float32 (N, 1, 4): offset in pixels of the input, scale, and
    the sides of the pictures and of the input."""
    height, width, top, left = placement(sizes[:, 0], sizes[:, 1], size, resize, multiple)
    pictures = _xyxy(sizes[:, 0], sizes[:, 1])
    inputs = _xyxy(*input_around(height, width, size, resize, multiple))
    return _xyxy(top, left), _xyxy(height, width) / pictures, pictures, inputs


def _xyxy(down, across):
    """Return float32 (..., 1, 4), by which xyxy are multiplied, divided or moved, of numbers for y and x."""
    return tf.cast(tf.stack([across, down] * 2, -1), tf.float32)[..., tf.newaxis, :]
