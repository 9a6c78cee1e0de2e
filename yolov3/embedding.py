"""Pool the embeddings that tell objects apart from the detector's own feature map, without a second network.

These are TensorFlow graph ops without Keras.
"""

import tensorflow as tf

BANDS = 4  # of a box, from top to bottom, each with a mean of its own: head, shirt, ...
SAMPLES = (8, 4)  # points, down and across, at which the map is read
MARGINS = (0.1, 0.25)  # shares of a box's height and width left out at each side, where other objects are seen


def pool(features, boxes, pictures):
    """Return the embeddings (n, C) of boxes: the means of four bands of each box, less the mean of the whole map, which
    all objects share.

    features  (N, h, w, C): the maps, as `layers.embedding_map` makes them
    boxes     (n, 4): xyxy in fractions of the map
    pictures  int32 (n,): the index of the map that each box belongs to
    """
    maps = tf.nn.depth_to_space(features, 2)  # (N, 2h, 2w, C/4)
    height, width = tf.unstack(tf.cast(tf.shape(maps)[1:3], tf.float32))
    sides = tf.stack([height, width] * 2)
    x1, y1, x2, y2 = tf.unstack(tf.clip_by_value(boxes, 0, 1), axis=-1)
    off_y, off_x = (y2 - y1) * MARGINS[0], (x2 - x1) * MARGINS[1]
    points = tf.stack([y1 + off_y, x1 + off_x, y2 - off_y, x2 - off_x], -1)  # the first and the last sample
    points = tf.clip_by_value((points * sides - 0.5) / tf.maximum(sides - 1, 1), 0, 1)  # a cell is at its middle
    samples = tf.image.crop_and_resize(maps, points, pictures, SAMPLES)  # (n, down, across, C/4)
    bands = tf.reshape(samples, (-1, BANDS, SAMPLES[0] // BANDS * SAMPLES[1], maps.shape[-1]))
    means = tf.gather(tf.reduce_mean(maps, (1, 2)), pictures)[:, tf.newaxis]
    return tf.reshape(tf.reduce_mean(bands, 2) - means, (-1, BANDS * maps.shape[-1]))
