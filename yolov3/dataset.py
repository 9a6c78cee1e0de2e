"""Make endless batches to train on from annotated pictures, which are shuffled, changed and combined at random.

Random numbers depend only on the seed and the number of the sample, so that a training that goes on at a step gets
exactly the batches of one that was not interrupted. These are TensorFlow graph ops without Keras.
"""

from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool

from yolov3.annotations.format import Record
from yolov3.checks import UserError, check_input_size, choose
from yolov3.fitting import FIXED_RESIZES, placement
from yolov3.images import SIGNATURES, decode_picture, picture_of, read_picture
from yolov3.training.augment import Augmentation, choose_crop, cut_out, mosaic, paste, recolour

import numpy as np
import tensorflow as tf
from tqdm import tqdm

MAX_PIXELS = 120_000_000  # a picture with more is not decoded
SIZE_STEPS = 10  # steps between changes of the input size, as in Darknet
PURPOSES = ("size", "order", "place", "colour", "mosaic")  # of random numbers; each has its own sequence


@tf.autograph.experimental.do_not_convert  # there is nothing to convert; looking for it took 1.1 s at every start
def training_batches(
    records: Sequence[Record],
    input_sizes: Sequence[int | tuple[int, int]],
    batch_size: int,
    resize: str,
    augmentation: Augmentation,
    seed: int,
    first_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    max_pixels: int = MAX_PIXELS,
) -> tf.data.Dataset:
    """Return endless batches: images, float32 (B, h, w, 3), RGB, 0..1, and truth, float32 (B, K, 5).

    Rows of truth are x1, y1, x2, y2 in fractions of the network input, then the class; rows of class -1 are padding.
    input_sizes  pixels, or (height, width); of several, one is chosen at random every SIZE_STEPS steps
    shard        (index, count): which part of each step's batch to return, if `count` workers share it
    batch_size   samples of this part
    Of n pictures each comes once in n samples. One that cannot be decoded comes grey and without boxes.
    """
    choose("YOLO_RESIZE", resize, FIXED_RESIZES)
    sizes = [check_input_size(size) for size in input_sizes]
    static = sizes[0] if len(sizes) == 1 else (None, None)
    load = loader(records, max_pixels)

    def sample(row):
        """Return an image (h, w, 3), boxes (1 + k, 4) in its pixels, not clipped, classes (1 + k,), and draws."""
        step = row // batch_size
        number = (step * shard[1] + shard[0]) * batch_size + row % batch_size
        which = tf.cast(uniform(seed, "size", step // SIZE_STEPS, 1)[0] * len(sizes), tf.int32)
        picture, boxes, classes = load(shuffled(seed, number, len(records)))
        shape, size = tf.shape(picture)[:2], tf.constant(sizes)[which]
        placed = tf.stack([tf.stack(placement(shape[0], shape[1], size, resize)) for size in sizes])[which]

        draws = uniform(seed, "place", number, 6)
        crop, target = choose_crop(shape, placed, size, augmentation, draws)
        image = recolour(cut_out(picture, crop, target), augmentation, uniform(seed, "colour", number, 3))
        image, boxes = paste(image, boxes, crop, target, size, augmentation.flip & (draws[5] < 0.5))
        draws = uniform(seed, "mosaic", number, 11 + max(batch_size - 1, 3))
        return tf.ensure_shape(image, (*static, 3)), boxes, classes, draws

    def finish(*batch):
        return mosaic(*batch, augmentation.mosaic)

    samples = tf.data.Dataset.counter(first_step * batch_size).map(sample, tf.data.AUTOTUNE, deterministic=True)
    batches = samples.padded_batch(batch_size, padding_values=(0.0, 0.0, -1.0, 0.0), drop_remainder=True)
    return batches.map(finish, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def readable(records: Sequence[Record], max_pixels: int = MAX_PIXELS) -> tuple[list[Record], list[str]]:
    """Decode every picture once. Return the records whose pictures can be read, and what is wrong with the others.

    Raises UserError if none can be read.
    """

    def problem_of(record):
        try:
            read_picture(record.picture, max_pixels)
        except UserError as error:
            return str(error)
        return None

    with ThreadPool() as threads:
        progress = tqdm(threads.imap(problem_of, records), total=len(records), unit=" pictures", disable=None, delay=1)
        answers = list(progress)
    good = [record for record, answer in zip(records, answers, strict=True) if answer is None]
    problems = [answer for answer in answers if answer is not None]
    if not good:
        raise UserError(f"none of the pictures to train on can be read: {problems[0]}")
    return good, problems


# --- Random numbers ------------------------------------------------------------------------------------------------


def key(seed: int, purpose: str, number: tf.Tensor) -> tf.Tensor:
    """Return the seed, int64 (2,), of what is drawn for a purpose and the number of a sample or an epoch."""
    return tf.stack([tf.constant(seed, tf.int64), number * len(PURPOSES) + PURPOSES.index(purpose)])


def uniform(seed: int, purpose: str, number: tf.Tensor, count: int) -> tf.Tensor:
    """Return random numbers, float32 (count,), from 0 to less than 1."""
    return tf.random.stateless_uniform((count,), key(seed, purpose, number), alg="philox")


def shuffled(seed: int, number: tf.Tensor, count: int) -> tf.Tensor:
    """Return which of `count` pictures a sample shows: every epoch shows all of them, in an order of its own."""
    # index_shuffle uses only the lowest bits of its seed: with epoch numbers, orders would repeat after 256
    order = key(seed, "order", number // count)
    order = tf.random.stateless_uniform((2,), order, None, None, tf.int64, alg="philox")
    return tf.random.experimental.index_shuffle(number % count, order, tf.constant(count - 1, tf.int64))


# --- Pictures ------------------------------------------------------------------------------------------------------


def loader(records: Sequence[Record], max_pixels: int) -> Callable:
    """Return a function that loads the record of a number.

    It returns the picture, uint8 (H, W, 3), boxes, float32 (1 + k, 4), and classes, float32 (1 + k,). The first box is
    the outline of the picture, with class -1.
    """
    with tf.device("CPU"):  # tf.data cannot use tensors on a GPU
        paths = tf.constant([str(record.picture) for record in records])
        boxes = tf.constant(np.concatenate([record.boxes for record in records]), tf.float32)
        classes = tf.constant(np.concatenate([record.classes for record in records]), tf.float32)
        starts = tf.constant(np.cumsum([0, *(len(record.classes) for record in records)]))

    def load(number):
        picture, decoded = decode_or_grey(paths[number], max_pixels)
        start = starts[number]
        end = tf.where(decoded, starts[number + 1], start)
        height, width = tf.unstack(tf.cast(tf.shape(picture)[:2], tf.float32))
        outline = tf.stack([[0.0, 0.0, width, height]])
        return picture, tf.concat([outline, boxes[start:end]], 0), tf.concat([[-1.0], classes[start:end]], 0)

    return load


@tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)], autograph=False)
def read(path: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    """Return the picture in a file, uint8 (H, W, 3). Raises one of tf.errors if it cannot be read.

    Only JPEG and PNG are decoded in the graph: with the other formats every training would start 0.8 seconds later.
    """
    data = tf.io.read_file(path)

    def by_python():
        inputs = [data, path, max_pixels]
        picture = tf.numpy_function(lambda *x: picture_of(x[0], x[1].decode(), int(x[2])), inputs, tf.uint8)
        return tf.ensure_shape(picture, (None, None, 3))

    def in_graph(name, otherwise):
        kind, mark = list(SIGNATURES).index(name), SIGNATURES[name]
        begins_so = tf.strings.substr(data, 0, len(mark)) == mark
        return tf.cond(begins_so, lambda: decode_picture(data, max_pixels, kind), otherwise)

    return in_graph("JPEG", lambda: in_graph("PNG", by_python))


def decode_or_grey(path: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the picture in a file and True, or a grey one and False.

    The picture goes through a dataset of its own, since graphs have no other way to handle an error.
    """
    grey = tf.data.Dataset.from_tensors((tf.fill((1, 1, 3), tf.constant(128, tf.uint8)), False))
    picture = tf.data.Dataset.from_tensors(path).map(lambda path: (read(path, max_pixels), True))
    return picture.ignore_errors().concatenate(grey).take(1).get_single_element()
