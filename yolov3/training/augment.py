"""How pictures to train on are changed at random: cropped, zoomed, flipped, recoloured, put together from four.

Random numbers come from the caller. Every box follows its picture exactly: crops are whole pixels. TensorFlow graph
ops only, no Keras.
"""

from typing import NamedTuple

from yolov3.fitting import GREY, resize_bilinear

import tensorflow as tf

MIN_VISIBLE = 0.3  # a box is dropped if less of its area is left in the input,
MIN_SIDE = 2.0  # or if it is narrower or lower than this, pixels of the input
MOSAIC_CUT = (0.2, 0.8)  # where the four pictures of a mosaic meet, fractions of the input
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # its quadrants, y and x


class Augmentation(NamedTuple):
    """How much pictures are changed at random; Darknet's names and meanings."""

    mosaic: float  # 0..1, share of pictures put together from four
    flip: bool  # left to right, half of the pictures; not for digits and text
    jitter: float  # 0..0.4, each side of the crop moves by up to this fraction of the picture
    scale: float  # the crop is zoomed in or out by up to this factor, 1.0: not at all; Darknet's `resize`
    hue: float  # is shifted by up to this fraction of a turn, either way
    saturation: float  # is multiplied or divided by up to this factor, 1.0: not at all
    exposure: float  # likewise, HSV's value


AUGMENTED = Augmentation(mosaic=0.5, flip=True, jitter=0.3, scale=1.5, hue=0.1, saturation=1.5, exposure=1.5)
PLAIN = Augmentation(mosaic=0.0, flip=False, jitter=0.0, scale=1.0, hue=0.0, saturation=1.0, exposure=1.0)


# --- One picture ---------------------------------------------------------------------------------------------------


def choose_crop(shape, placed, size, augmentation, draws):
    """What to show of a picture, and where in the input -> crop and target, int32 (4,) each: top, left, bottom, right.

    shape  the picture's height and width;  placed  its height, width, top and left in the input when nothing is
    changed;  draws  random numbers, (5,). Crop and target are whole pixels: boxes follow exactly.
    """
    # 1. The window of the unchanged input that becomes the new one
    extent, start = tf.cast(placed[:2], tf.float32), tf.cast(placed[2:], tf.float32)  # (2,): y, x
    side = tf.cast(size, tf.float32)
    moves = (2 * draws[:4] - 1) * augmentation.jitter * tf.tile(extent, [2])
    window = (side - moves[:2] + moves[2:]) / augmentation.scale ** (2 * draws[4] - 1)
    window_start = (side + moves[:2] + moves[2:] - window) / 2

    # 2. Where the picture lies in it, and which part of that is inside
    first = (start - window_start) * side / window
    last = first + extent * side / window
    target_first = tf.clip_by_value(tf.cast(tf.round(first), tf.int32), 0, size - 1)
    target_last = tf.clip_by_value(tf.cast(tf.round(last), tf.int32), target_first + 1, size)

    # 3. The part of the picture that is seen there
    def in_picture(place):
        share = (tf.cast(place, tf.float32) - first) / (last - first)
        return tf.cast(tf.round(share * tf.cast(shape, tf.float32)), tf.int32)

    crop_first = tf.clip_by_value(in_picture(target_first), 0, shape - 1)
    crop_last = tf.clip_by_value(in_picture(target_last), crop_first + 1, shape)
    return tf.concat([crop_first, crop_last], 0), tf.concat([target_first, target_last], 0)


def cut_out(picture, crop, target):
    """A picture's crop, uint8 -> as large as its target, float32, 0..1. Bilinear, as fitting.fit."""
    return resize_bilinear(picture[crop[0] : crop[2], crop[1] : crop[3]], target[2:] - target[:2]) / 255


def recolour(image, augmentation, draws):
    """RGB float32 (h, w, 3) -> likewise, its hue, saturation and value changed; draws: random numbers, (3,)."""
    if augmentation[-3:] == PLAIN[-3:]:
        return image
    # tf.image.rgb_to_hsv takes three times as long as these planes
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


def paste(image, boxes, crop, target, size, flip):
    """What was cut out -> the input (S, S, 3) around it; boxes in pixels of the picture -> of the input, unclipped."""
    (top, left, bottom, right), side = tf.unstack(target), tf.cast(size, tf.float32)
    image = tf.pad(image, [(top, size - bottom), (left, size - right), (0, 0)], constant_values=GREY)
    crop, target = tf.cast(crop, tf.float32), tf.cast(target, tf.float32)
    scale = (target[2:] - target[:2]) / (crop[2:] - crop[:2])  # y, x
    x1, y1, x2, y2 = tf.unstack((boxes - xyxy(crop[:2])) * xyxy(scale) + xyxy(target[:2]), axis=-1)
    x1, x2 = tf.where(flip, side - x2, x1), tf.where(flip, side - x1, x2)
    return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image), tf.stack([x1, y1, x2, y2], -1)


def xyxy(yx):
    """(..., 2) y and x -> (..., 4) x, y, x, y."""
    return tf.concat([yx[..., ::-1]] * 2, -1)


# --- A batch -------------------------------------------------------------------------------------------------------


def mosaic(images, boxes, classes, draws, share):
    """A share of the images becomes four quadrants, each a part of an image -> images, truth (B, K, 5).

    images (B, S, S, 3); boxes (B, k, 4) in their pixels, the first of each the picture's outline; classes (B, k);
    draws  random numbers, (B, 11 + max(B - 1, 3)).
    """
    # 1. Quadrants (B, 4): of which image, from where, to where. One that stays whole is its own first quadrant
    count, size = images.shape[0], tf.shape(images)[1]
    side, (low, high) = tf.cast(size, tf.float32), MOSAIC_CUT
    cut = tf.cast((low + (high - low) * draws[:, 1:3]) * side, tf.int32)
    cut = tf.where(draws[:, :1] < share, cut, size)[:, tf.newaxis]  # (B, 1, 2): y, x
    others = 1 + tf.argsort(draws[:, 11:])[:, :3] % max(count - 1, 1)  # three different ones if there are
    source = (tf.range(count)[:, tf.newaxis] + tf.pad(others, [(0, 0), (1, 0)])) % count
    extent = tf.where(tf.constant(CORNERS) == 1, size - cut, cut)  # (B, 4, 2)
    boxes, classes = tf.gather(boxes, source), tf.gather(classes, source)  # (B, 4, k, 4), (B, 4, k)
    start = choose_start(boxes[:, :, 0], extent, size, tf.reshape(draws[:, 3:11], (count, 4, 2)))
    moves = tf.constant(CORNERS) * cut - start

    # 2. Images
    if share > 0:
        images = stitch(images, source, start, extent)

    # 3. Boxes: clipped to what is seen and moved with it; those of which too little is left fall
    first, last = (tf.cast(xyxy(x), tf.float32)[:, :, tf.newaxis] for x in (start, start + extent))  # (B, 4, 1, 4)
    seen = tf.clip_by_value(boxes, first, last)
    sides, whole = seen[..., 2:] - seen[..., :2], boxes[..., 2:] - boxes[..., :2]
    kept = (classes >= 0) & tf.reduce_all(sides >= MIN_SIDE, -1)
    kept &= tf.reduce_prod(sides, -1) >= MIN_VISIBLE * tf.reduce_prod(whole, -1)
    seen = (seen + tf.cast(xyxy(moves), tf.float32)[:, :, tf.newaxis]) / side
    rows = tf.concat([seen, classes[..., tf.newaxis]], -1)
    return images, pack(tf.reshape(rows, (count, -1, 5)), tf.reshape(kept, (count, -1)))


def choose_start(outlines, extent, size, draws):
    """Where the part of its image that a quadrant shows begins, int32 (B, 4, 2), y and x: anywhere, as long as it has
    no grey that it need not have. outlines: the pictures' own, (B, 4, 4)."""
    side, extent = tf.cast(size, tf.float32), tf.cast(extent, tf.float32)
    inside = tf.clip_by_value(outlines, 0, side)
    one, other = inside[..., 1::-1], inside[..., :1:-1] - extent
    start = tf.minimum(one, other) + draws * tf.abs(one - other)
    return tf.cast(tf.round(tf.clip_by_value(start, 0, side - extent)), tf.int32)


def stitch(images, source, start, extent):
    """Puts each image together from four quadrants: of which image, (B, 4), where in it they start and how large they
    are, (B, 4, 2) -> (B, S, S, 3)."""

    def one(quadrants):
        source, start, extent = quadrants
        parts = [
            tf.slice(images, [source[i], start[i, 0], start[i, 1], 0], [1, extent[i, 0], extent[i, 1], 3])
            for i in range(4)
        ]
        image = tf.concat([tf.concat(parts[:2], 2), tf.concat(parts[2:], 2)], 1)[0]
        return tf.ensure_shape(image, images.shape[1:])

    return tf.map_fn(one, (source, start, extent), fn_output_signature=tf.TensorSpec(images.shape[1:]))


def pack(rows, kept):
    """Rows (B, n, 5), which of them count, bool (B, n) -> those (B, K, 5), K the most of any, padded with class -1."""
    order = tf.argsort(tf.cast(~kept, tf.int32), stable=True)
    rows = tf.where(kept[..., tf.newaxis], rows, tf.constant([0.0, 0.0, 0.0, 0.0, -1.0]))
    most = tf.reduce_max(tf.reduce_sum(tf.cast(kept, tf.int32), -1))
    return tf.gather(rows, order[:, : tf.maximum(most, 1)], batch_dims=1)
