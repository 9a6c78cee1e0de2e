"""Change the pictures of a training at random: crop, zoom, flip and recolour them, and put four together in one.

The caller gives the random numbers. Crops are of whole pixels, so that every box follows its picture exactly. These
are TensorFlow graph ops without Keras.
"""

from typing import NamedTuple

from yolov3.fitting import GREY, resize_bilinear

import tensorflow as tf

MIN_VISIBLE = 0.3  # a box is dropped if less than this share of its area is left in the input
MIN_SIDE = 2.0  # and if it is narrower or lower than this many pixels of the input
MOSAIC_CUT = (0.2, 0.8)  # range of the point where the four pictures of a mosaic meet, fractions of the input
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # the quadrants of a mosaic, y and x


class Augmentation(NamedTuple):
    """Say how much pictures are changed at random, with Darknet's names and meanings."""

    mosaic: float  # 0..1, share of the pictures that are put together from four
    flip: bool  # half of the pictures are flipped left to right; False for digits and text
    jitter: float  # 0..0.4, each side of the crop moves by up to this fraction of the picture
    scale: float  # the crop is zoomed in or out by up to this factor, 1.0: not at all; Darknet's `resize`
    hue: float  # the hue is shifted by up to this fraction of a turn, either way
    saturation: float  # the saturation is multiplied or divided by up to this factor, 1.0: not at all
    exposure: float  # HSV's value is multiplied or divided by up to this factor, 1.0: not at all


AUGMENTED = Augmentation(mosaic=0.5, flip=True, jitter=0.3, scale=1.5, hue=0.1, saturation=1.5, exposure=1.5)
PLAIN = Augmentation(mosaic=0.0, flip=False, jitter=0.0, scale=1.0, hue=0.0, saturation=1.0, exposure=1.0)


# --- One picture ---------------------------------------------------------------------------------------------------


def choose_crop(
    shape: tf.Tensor, placed: tf.Tensor, size: tf.Tensor, augmentation: Augmentation, draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which part of a picture to show, and where in the input: int32 (4,) each, top, left, bottom, right.

    shape   height and width of the picture
    placed  its height, width, top and left in the input if nothing is changed
    size    height and width of the input
    draws   random numbers (5,)
    """
    # 1. The window of the unchanged input that becomes the new input
    extent, start = tf.cast(placed[:2], tf.float32), tf.cast(placed[2:], tf.float32)  # (2,): y, x
    sides = tf.cast(size, tf.float32)
    moves = (2 * draws[:4] - 1) * augmentation.jitter * tf.tile(extent, [2])
    window = (sides - moves[:2] + moves[2:]) / augmentation.scale ** (2 * draws[4] - 1)
    window_start = (sides + moves[:2] + moves[2:] - window) / 2

    # 2. Where the picture lies in the window, and which part of that is inside
    first = (start - window_start) * sides / window
    last = first + extent * sides / window
    target_first = tf.clip_by_value(tf.cast(tf.round(first), tf.int32), 0, size - 1)
    target_last = tf.clip_by_value(tf.cast(tf.round(last), tf.int32), target_first + 1, size)

    # 3. The part of the picture that is seen there
    def in_picture(place):
        share = (tf.cast(place, tf.float32) - first) / (last - first)
        return tf.cast(tf.round(share * tf.cast(shape, tf.float32)), tf.int32)

    crop_first = tf.clip_by_value(in_picture(target_first), 0, shape - 1)
    crop_last = tf.clip_by_value(in_picture(target_last), crop_first + 1, shape)
    return tf.concat([crop_first, crop_last], 0), tf.concat([target_first, target_last], 0)


def cut_out(picture: tf.Tensor, crop: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the crop of a uint8 picture, resized to its target as in fitting.fit: bilinear, float32, 0..1."""
    return resize_bilinear(picture[crop[0] : crop[2], crop[1] : crop[3]], target[2:] - target[:2]) / 255


def recolour(image: tf.Tensor, augmentation: Augmentation, draws: tf.Tensor) -> tf.Tensor:
    """Return an image, RGB float32 (h, w, 3), with hue, saturation and value changed by random numbers (3,)."""
    if augmentation[-3:] == PLAIN[-3:]:
        return image
    # tf.image.rgb_to_hsv takes three times as long as this
    red, green, blue = tf.unstack(tf.transpose(image, (2, 0, 1)))
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    not_red = tf.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    hue = tf.math.divide_no_nan(tf.where(value == red, green - blue, not_red), 6 * chroma)
    saturation = tf.math.divide_no_nan(chroma, value)

    draws = 2 * draws - 1
    hue += draws[0] * augmentation.hue
    saturation = tf.minimum(saturation * augmentation.saturation ** draws[1], 1)
    value = tf.minimum(value * augmentation.exposure ** draws[2], 1)
    return tf.image.hsv_to_rgb(tf.transpose(tf.stack([hue - tf.floor(hue), saturation, value]), (1, 2, 0)))


def paste(
    image: tf.Tensor, boxes: tf.Tensor, crop: tf.Tensor, target: tf.Tensor, size: tf.Tensor, flip: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the input, of a size (height, width), with what was cut out at its target, and the boxes of the picture in
    pixels of it.

    The boxes are not clipped.
    """
    (top, left, bottom, right), (height, width) = tf.unstack(target), tf.unstack(size)
    image = tf.pad(image, [(top, height - bottom), (left, width - right), (0, 0)], constant_values=GREY)
    crop, target = tf.cast(crop, tf.float32), tf.cast(target, tf.float32)
    scale = (target[2:] - target[:2]) / (crop[2:] - crop[:2])  # y, x
    x1, y1, x2, y2 = tf.unstack((boxes - xyxy(crop[:2])) * xyxy(scale) + xyxy(target[:2]), axis=-1)
    width = tf.cast(width, tf.float32)
    x1, x2 = tf.where(flip, width - x2, x1), tf.where(flip, width - x1, x2)
    return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image), tf.stack([x1, y1, x2, y2], -1)


def xyxy(yx: tf.Tensor) -> tf.Tensor:
    """Return x, y, x, y (..., 4) of y and x (..., 2)."""
    return tf.concat([yx[..., ::-1]] * 2, -1)


# --- A batch -------------------------------------------------------------------------------------------------------


def mosaic(
    images: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, draws: tf.Tensor, share: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return images (B, h, w, 3), a share of them put together from parts of four, and their truth (B, K, 5).

    boxes    (B, k, 4) in pixels of the images; the first of each is the outline of the picture
    classes  (B, k)
    draws    random numbers (B, 11 + max(B - 1, 3))
    """
    # 1. Quadrants (B, 4): part of which image, from where, to where. The first quadrant fills an image that stays whole
    count, size = images.shape[0], tf.shape(images)[1:3]
    sides, (low, high) = tf.cast(size, tf.float32), MOSAIC_CUT
    cut = tf.cast((low + (high - low) * draws[:, 1:3]) * sides, tf.int32)
    cut = tf.where(draws[:, :1] < share, cut, size)[:, tf.newaxis]  # (B, 1, 2): y, x
    others = 1 + tf.argsort(draws[:, 11:])[:, :3] % max(count - 1, 1)  # different ones if the batch has enough
    source = (tf.range(count)[:, tf.newaxis] + tf.pad(others, [(0, 0), (1, 0)])) % count
    extent = tf.where(tf.constant(CORNERS) == 1, size - cut, cut)  # (B, 4, 2)
    boxes, classes = tf.gather(boxes, source), tf.gather(classes, source)  # (B, 4, k, 4), (B, 4, k)
    start = choose_start(boxes[:, :, 0], extent, size, tf.reshape(draws[:, 3:11], (count, 4, 2)))
    moves = tf.constant(CORNERS) * cut - start

    # 2. Images
    if share > 0:
        images = stitch(images, source, start, extent)

    # 3. Boxes: clipped to the visible parts and moved with them; those of which too little is left are dropped
    first, last = (tf.cast(xyxy(x), tf.float32)[:, :, tf.newaxis] for x in (start, start + extent))  # (B, 4, 1, 4)
    seen = tf.clip_by_value(boxes, first, last)
    left, whole = seen[..., 2:] - seen[..., :2], boxes[..., 2:] - boxes[..., :2]
    kept = (classes >= 0) & tf.reduce_all(left >= MIN_SIDE, -1)
    kept &= tf.reduce_prod(left, -1) >= MIN_VISIBLE * tf.reduce_prod(whole, -1)
    seen = (seen + tf.cast(xyxy(moves), tf.float32)[:, :, tf.newaxis]) / xyxy(sides)
    rows = tf.concat([seen, classes[..., tf.newaxis]], -1)
    return images, pack(tf.reshape(rows, (count, -1, 5)), tf.reshape(kept, (count, -1)))


def choose_start(outlines: tf.Tensor, extent: tf.Tensor, size: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Return where the part of an image that a quadrant shows begins, int32 (B, 4, 2), y and x.

    It is chosen at random, but so that the quadrant shows as little as possible of the grey around the picture.
    outlines  (B, 4, 4), of the pictures in their images
    size      height and width of the images
    """
    sides, extent = tf.cast(size, tf.float32), tf.cast(extent, tf.float32)
    inside = tf.clip_by_value(outlines, 0, xyxy(sides))
    one, other = inside[..., 1::-1], inside[..., :1:-1] - extent
    start = tf.minimum(one, other) + draws * tf.abs(one - other)
    return tf.cast(tf.round(tf.clip_by_value(start, 0, sides - extent)), tf.int32)


def stitch(images: tf.Tensor, source: tf.Tensor, start: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """Return images (B, h, w, 3) put together from four quadrants.

    source         (B, 4): the image that each quadrant is a part of
    start, extent  (B, 4, 2): where the part begins in that image, and its size
    """

    def one(quadrants):
        source, start, extent = quadrants
        parts = [
            tf.slice(images, [source[i], start[i, 0], start[i, 1], 0], [1, extent[i, 0], extent[i, 1], 3])
            for i in range(4)
        ]
        image = tf.concat([tf.concat(parts[:2], 2), tf.concat(parts[2:], 2)], 1)[0]
        return tf.ensure_shape(image, images.shape[1:])

    return tf.map_fn(one, (source, start, extent), fn_output_signature=tf.TensorSpec(images.shape[1:]))


def pack(rows: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Return those rows (B, n, 5) that are kept, bool (B, n), as (B, K, 5): as many as the image with most has, the
    others padded with rows of class -1."""
    order = tf.argsort(tf.cast(~kept, tf.int32), stable=True)
    rows = tf.where(kept[..., tf.newaxis], rows, tf.constant([0.0, 0.0, 0.0, 0.0, -1.0]))
    most = tf.reduce_max(tf.reduce_sum(tf.cast(kept, tf.int32), -1))
    return tf.gather(rows, order[:, : tf.maximum(most, 1)], batch_dims=1)
