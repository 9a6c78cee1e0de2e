"""The first frame of a GIF, cut out of the file: TensorFlow graph ops, no Keras."""

import math

import tensorflow as tf

EXTENSION, GRAPHIC_CONTROL = 0x21, 0xF9
GRAPHIC_CONTROL_BYTES = 8  # of the extension that says which colour is transparent
RUN = 4096  # blocks of one length that one step of the walk takes
WINDOW = 2**14  # bytes of other blocks that it takes
SHORTEST_STEP, LONGEST_STEP = 2, 256  # from a block to the next one


def first_frame(data):
    """A GIF's bytes -> int32 (2,), the height and width of its first frame, and the bytes of a GIF of it alone.

    Frames need not be of the size in the header. The decoder would unpack every one of them, and refuses empty
    comments; of what stands before the frame, it needs which colour is transparent.
    """
    octets = tf.io.decode_raw(data, tf.uint8)
    header = 13 + _colour_table(_octet(octets, 10))
    octets = tf.concat([tf.zeros(1, tf.uint8), octets[header:]], 0)  # the header, as if an empty block ended it

    control = 1 + _last_block(octets, 0, lambda label: label != GRAPHIC_CONTROL)  # or the frame, if there is none
    frame = 1 + _last_block(octets, control - 1, lambda label: True)
    height, width = (_octet(octets, frame + i) + 256 * _octet(octets, frame + i + 1) for i in (7, 5))
    pixels = frame + 11 + _colour_table(_octet(octets, frame + 9))
    end = _last_block(octets, pixels, lambda label: False)

    def cut(start, count):
        return tf.strings.substr(data, header + start - 1, count)

    transparency = cut(control, tf.where(control < frame, GRAPHIC_CONTROL_BYTES, 0))
    return tf.stack([height, width]), cut(1 - header, header) + transparency + cut(frame, end + 1 - frame) + b";"


def _octet(octets, at):
    return tf.cast(tf.gather(octets, tf.minimum(at, tf.size(octets) - 1)), tf.int32)


def _colour_table(flags):
    return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)


def _last_block(octets, at, passes):
    """Return the place of the empty block that ends those from `at` on, and the extensions behind them whose label
    `passes`.

    A block is its length and so many bytes. There may be too many of them for a step each: encoders write runs of
    blocks of one length; through others the walk is by doubling, from every byte of a window as if a block began there
    to where 2, 4, 8 ... blocks lead.
    """

    def behind(at):  # the next block; the same one if it is the last, or beyond the file
        length = _octet(octets, at)
        extends = (_octet(octets, at + 1) == EXTENSION) & passes(_octet(octets, at + 2))
        step = tf.where(length > 0, 1 + length, tf.where(extends, 3, 0))
        return tf.where(at < tf.size(octets), at + step, at)

    def is_another(at):
        return behind(at) > at

    def run_and_window(at):
        step = behind(at) - at
        run = at + step * tf.range(RUN)
        others = tf.cast(behind(run) - run != step, tf.int32)
        start = at + step * tf.argmax(tf.concat([others, [1]], 0), output_type=tf.int32)

        window = tf.range(WINDOW)
        outside = tf.range(WINDOW, WINDOW + LONGEST_STEP)  # where they lead is not known yet
        to = tf.concat([behind(start + window) - start, outside], 0)
        for _ in range(math.ceil(math.log2(WINDOW / SHORTEST_STEP))):
            to = tf.gather(to, to)  # twice as far
        return [start + to[0]]

    return tf.while_loop(is_another, run_and_window, [at])[0]
