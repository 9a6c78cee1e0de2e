"""What a network is trained on: fitting.fit, colorsys and rectangles that can be found again are the oracles.

Building a pipeline takes half a second, so tests share them where they can.
"""

import colorsys

from yolov3.annotations.format import Record
from yolov3.checks import UserError
from yolov3.dataset import SIZE_STEPS, readable, shuffled, training_batches
from yolov3.fitting import FIXED_RESIZES, fit, unfit
from yolov3.images import read_picture
from yolov3.training.augment import AUGMENTED, PLAIN, mosaic, recolour

import cv2
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

MOVED = AUGMENTED._replace(mosaic=0.0, hue=0.0, saturation=1.0, exposure=1.0)
GREY = 0.5


def write(folder, name, picture):
    """RGB uint8 -> its file, without loss."""
    path = folder / name
    assert cv2.imwrite(str(path), picture[..., ::-1])
    return path


def record(path, *rows):
    """Rows of x1, y1, x2, y2, class."""
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return Record(path, rows[:, :4], rows[:, 4].astype(np.int32))


def batches(records, count, sizes=(96,), batch_size=4, resize="letterbox", augmentation=PLAIN, seed=0, **options):
    """The first `count` batches as NumPy arrays."""
    data = training_batches(records, sizes, batch_size, resize, augmentation, seed, **options)
    return list(data.take(count).as_numpy_iterator())


def boxes_of(rows):
    return rows[rows[:, 4] >= 0]


def shades(count, folder):
    """Pictures of one shade each, 10, 20, 30 ..., that tell which they are, with one box of class i each."""
    return [
        record(write(folder, f"{i}.png", np.full((32, 32, 3), 10 * (i + 1), np.uint8)), (4, 4, 28, 28, i))
        for i in range(count)
    ]


def which(images):
    """The pictures of `shades` that images show."""
    return np.round(images[:, 16, 16, 0] * 25.5).astype(int) - 1


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Pictures of several shapes; 0 to 3 boxes each."""
    folder, random, records = tmp_path_factory.mktemp("scenes"), np.random.RandomState(0), []
    for i, (height, width) in enumerate([(96, 150), (150, 96), (120, 120), (61, 200), (300, 170), (40, 30), (20, 160)]):
        picture = cv2.resize(random.randint(0, 256, (5, 6, 3)).astype(np.uint8), (width, height))
        first = random.uniform(0, 0.5, (i % 4, 2)) * [width, height]
        rows = np.hstack([first, first + [width / 3, height / 3], np.full((i % 4, 1), i)])
        records.append(record(write(folder, f"{i}.png", picture), *rows))
    return records


# --- As they are -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", FIXED_RESIZES)
@pytest.mark.parametrize("size", [(96, 96), (64, 96)])
def test_plain_pictures_are_what_the_detector_sees_and_their_boxes_come_back(resize, size, scenes):
    images, truth = batches(scenes, 1, (size,), len(scenes), resize)[0]
    assert images.dtype == truth.dtype == np.float32
    assert truth.shape == (len(scenes), max(len(item.classes) for item in scenes), 5)
    assert (truth[truth[..., 4] < 0] == [0, 0, 0, 0, -1]).all()
    for item in scenes:
        picture = read_picture(item.picture, 10**6)
        expected = fit(picture, size, resize).numpy()
        (row,) = (i for i, image in enumerate(images) if np.array_equal(image, expected))
        boxes = boxes_of(truth[row])
        back = unfit(boxes[np.newaxis, :, :4], np.array([picture.shape[:2]]), size, resize)[0]
        np.testing.assert_allclose(back, item.boxes, atol=0.001)
        np.testing.assert_array_equal(boxes[:, 4], item.classes)


@pytest.mark.slow
def test_pictures_without_boxes_are_background(tmp_path):
    records = [record(item.picture) for item in shades(3, tmp_path)]
    images, truth = batches(records, 1, augmentation=AUGMENTED)[0]
    np.testing.assert_array_equal(truth, [[[0, 0, 0, 0, -1]]] * 4)
    assert np.isfinite(images).all()


@pytest.mark.slow
def test_a_data_set_of_one_picture_will_do_and_a_batch_of_one(tmp_path):
    for images, truth in batches(shades(1, tmp_path), 8, batch_size=1, augmentation=AUGMENTED):
        assert images.shape == (1, 96, 96, 3)
        assert set(truth[..., 4].ravel()) <= {-1, 0}


@pytest.mark.parametrize("wrong", [{"sizes": (100,)}, {"resize": "crop"}])
def test_wrong_sizes_and_resizes_are_refused(wrong, scenes):
    with pytest.raises(UserError):
        batches(scenes, 1, **wrong)


# --- Order -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [3, 16])  # not whole epochs; more than there is
def test_every_picture_comes_once_an_epoch_each_time_in_another_order(batch_size, tmp_path):
    images = np.concatenate([x for x, _ in batches(shades(7, tmp_path), -(-42 // batch_size), (32,), batch_size)])
    epochs = which(images)[:42].reshape(6, 7)
    np.testing.assert_array_equal(np.sort(epochs), [range(7)] * 6)
    assert len({tuple(epoch) for epoch in epochs}) == 6


@pytest.mark.slow
def test_going_on_at_a_step_is_bit_for_bit_as_if_never_interrupted(scenes):
    """Through mosaics and changes of size, and across epochs."""
    options = {"sizes": (32, (64, 96)), "batch_size": 3, "augmentation": AUGMENTED}
    whole = batches(scenes, 6 * SIZE_STEPS, **options)
    stages = np.reshape([len(images[0]) for images, _ in whole], (6, SIZE_STEPS))
    assert (stages == stages[:, :1]).all() and set(stages[:, 0]) == {32, 64}
    step = 1 + int(np.argmax(np.diff(stages[:, 0]) != 0))  # a change of size
    step = step * SIZE_STEPS - 1
    resumed = batches(scenes, 3, first_step=step, **options)
    for expected, found in zip(whole[step : step + 3], resumed, strict=True):
        np.testing.assert_array_equal(expected[0], found[0])
        np.testing.assert_array_equal(expected[1], found[1])


def test_every_seed_and_epoch_has_an_order_of_its_own():
    @tf.function
    def order(seed):
        return tf.map_fn(lambda number: shuffled(seed, number, 6), tf.range(300 * 6, dtype=tf.int64))

    orders = np.concatenate([np.reshape(order(seed), (300, 6)) for seed in (0, 1)])
    assert (np.sort(orders) == range(6)).all()
    assert len(np.unique(orders, axis=0)) > 350  # 720 there are, 407 of which 600 draws find


@pytest.mark.slow
def test_the_parts_of_a_batch_are_together_the_batch(scenes):
    whole = batches(scenes, 3, batch_size=6, augmentation=MOVED)
    parts = [batches(scenes, 3, batch_size=3, augmentation=MOVED, shard=(i, 2)) for i in range(2)]
    for (images, truth), *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(images, np.concatenate([half for half, _ in halves]))
        rows = [boxes for _, half in halves for boxes in half]
        for expected, found in zip(truth, rows, strict=True):
            np.testing.assert_array_equal(boxes_of(expected), boxes_of(found))


# --- Damaged pictures ------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """Ten shades; of the first four one's file is cut short, one is text, one is empty, one is gone."""
    records = shades(10, tmp_path)
    noise = np.random.RandomState(0).randint(0, 256, (80, 80, 3)).astype(np.uint8)
    cut = cv2.imencode(".jpg", noise)[1].tobytes()[:-3000]
    for item, data in zip(records[:3], (cut, b"picture", b""), strict=True):
        item.picture.write_bytes(data)
    records[3].picture.unlink()
    return records


def test_a_picture_that_cannot_be_decoded_is_grey_without_boxes_and_the_others_keep_their_places(damaged):
    images, truth = (np.concatenate(parts) for parts in zip(*batches(damaged, 5, (32,)), strict=True))
    expected = np.array([shuffled(0, tf.constant(number, tf.int64), 10) for number in range(20)])
    broken = expected < 4
    np.testing.assert_allclose(images[broken], GREY, atol=0.003)
    np.testing.assert_array_equal(truth[broken], [[[0, 0, 0, 0, -1]]] * 8)
    np.testing.assert_array_equal(which(images[~broken]), expected[~broken])
    np.testing.assert_array_equal(truth[~broken, 0, 4], expected[~broken])


def test_pictures_of_rare_formats_are_trained_on_with_their_boxes(tmp_path):
    records = shades(6, tmp_path)
    for item, kind in zip(records, ("WEBP", "TIFF", "PPM", "GIF", "BMP", "PNG"), strict=True):
        PIL.Image.open(item.picture).save(item.picture, kind, lossless=True)
    assert len(readable(records)[0]) == 6
    images, truth = (np.concatenate(parts) for parts in zip(*batches(records, 1, (32,), 6), strict=True))
    np.testing.assert_array_equal(which(images), truth[:, 0, 4])
    assert sorted(which(images)) == list(range(6))


def test_pictures_that_cannot_be_decoded_are_named(damaged):
    good, problems = readable(damaged)
    assert [item.picture for item in good] == [item.picture for item in damaged[4:]]
    for item, problem in zip(damaged[:4], problems, strict=True):
        assert str(item.picture) in problem
    with pytest.raises(UserError, match="none of the pictures"):
        readable(damaged[:4])
    assert len(readable(damaged[4:], max_pixels=32 * 32)[0]) == 6
    with pytest.raises(UserError, match="YOLO_MAX_PIXELS"):
        readable(damaged[4:], max_pixels=32 * 32 - 1)


# --- Boxes follow their pictures -------------------------------------------------------------------------------------

COLOURS = np.array([colorsys.hsv_to_rgb(i / 12, 1, 1) for i in range(12)])


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory):
    """White pictures of several shapes with three rectangles each, apart, of all different colours; the class tells
    which. The first is in the left half of its picture, the second in the right."""
    folder, random, records = tmp_path_factory.mktemp("rectangles"), np.random.RandomState(1), []
    for i, (height, width) in enumerate([(240, 370), (370, 240), (480, 200), (700, 650)]):
        picture, rows = np.full((height, width, 3), 255, np.uint8), []
        for j in range(3):
            top = height // 2 * (j // 2) + random.randint(4, height // 8)
            left = width // 2 * (j % 2) + random.randint(4, width // 8)
            bottom, right = (
                top + random.randint(height // 6, height // 3),
                left + random.randint(width // 6, width // 3),
            )
            picture[top:bottom, left:right] = np.round(COLOURS[3 * i + j] * 255)
            rows.append((left, top, right, bottom, 3 * i + j))
        records.append(record(write(folder, f"{i}.png", picture), *rows))
    return records


def find(image):
    """For each colour its areas, pure or mixed with less than half white: xyxy in pixels, and how many pixels."""
    hue = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0]
    labels = np.where(image.min(-1) < 0.5, np.round(hue / 30) % len(COLOURS), -1)
    areas = []
    for i in range(len(COLOURS)):
        count, _, stats, _ = cv2.connectedComponentsWithStats((labels == i).astype(np.uint8), connectivity=4)
        areas.append([((x, y, x + w, y + h), pixels) for x, y, w, h, pixels in stats[1:count]])
    return areas


@pytest.mark.parametrize(
    ("resize", "size"),
    [
        ("letterbox", (192, 288)),
        pytest.param("letterbox", (256, 256), marks=pytest.mark.slow),
        pytest.param("stretch", (256, 256), marks=pytest.mark.slow),
    ],
)
def test_boxes_follow_their_pictures_to_a_pixel(resize, size, rectangles):
    """A batch is an epoch here: the quadrants of a mosaic are four pictures."""
    compared = 0
    for images, truth in batches(rectangles, 40, (size,), 4, resize, MOVED._replace(mosaic=0.5)):
        for image, rows in zip(images, truth, strict=True):
            for i, found in enumerate(find(image)):
                boxes = rows[rows[:, 4] == i, :4] * [*size[::-1], *size[::-1]]
                if len(boxes):
                    (box,), ((place, area),) = boxes, found
                    np.testing.assert_allclose(box, place, atol=1)
                    assert area >= (place[2] - place[0]) * (place[3] - place[1]) - 4  # corners are mixed twice
                    compared += 1
                else:
                    assert len(found) <= 1  # less than MIN_VISIBLE of one
    assert compared > 300


def mirrored(batch):
    """Of the plain pictures of `rectangles` in a batch, which are seen from behind."""
    places = [[rows[rows[:, 4] % 3 == i, 0] for i in range(2)] for rows in batch[1]]
    return [bool(first > second) for first, second in places if len(first) == len(second) == 1]


@pytest.mark.slow
def test_half_of_the_pictures_are_flipped_and_none_where_it_is_off(rectangles):
    on, off = (
        sum(map(mirrored, batches(rectangles, 25, augmentation=MOVED._replace(flip=flip))), [])
        for flip in (True, False)
    )
    assert len(off) > 40 and not any(off)
    assert 0.3 < np.mean(on) < 0.7


def test_boxes_of_which_little_is_left_are_dropped():
    """A mosaic of four times the left upper quarter, about: the middle is at 49 or 50."""
    draws = np.zeros((1, 14), np.float32)
    draws[0, 1:3] = 0.5
    boxes = [(0, 0, 100, 100), (30, 10, 70, 20), (45, 10, 65, 20), (10, 10, 11.9, 40), (20, 20, 22.1, 40)]
    classes = np.array([[-1, 0, 1, 2, 3]], np.float32)
    images, truth = mosaic(tf.zeros((1, 100, 100, 3)), np.array([boxes], np.float32), classes, draws, 1.0)
    assert images.shape == (1, 100, 100, 3)
    rows = truth.numpy()[0]
    np.testing.assert_array_equal(rows[:, 4], [0, 3] * 4)
    middle = np.round(rows[0, 2] * 100)
    assert middle in (49, 50)
    np.testing.assert_allclose(rows[1, :4] * 100, (20, 20, 22.1, 40), atol=1e-3)
    np.testing.assert_allclose(rows[6, :4] * 100, np.add((30, 10, 50, 20), middle), atol=1 + 1e-3)


def test_mosaics_of_letterboxed_pictures_hold_no_grey_they_need_not_have():
    images = np.full((8, 100, 100, 3), GREY, np.float32)
    images[:, 10:90] = 1.0
    boxes, classes = np.tile(np.float32([0, 10, 100, 90]), (8, 1, 1)), -np.ones((8, 1), np.float32)
    draws = np.random.RandomState(0).rand(8, 18).astype(np.float32)
    mosaics, _ = mosaic(images, boxes, classes, draws, 1.0)
    assert (mosaics.numpy() == 1).all()


# --- Colours ---------------------------------------------------------------------------------------------------------

SAMPLES = np.vstack([np.random.RandomState(0).rand(60, 3), np.eye(3), 1 - np.eye(3), [[0] * 3, [0.5] * 3, [1] * 3]])


@pytest.mark.parametrize("draws", [(0.0, 0.0, 0.0), (0.99, 0.99, 0.99), (0.2, 0.9, 0.4), (0.5, 0.5, 0.5)])
def test_colours_change_as_colorsys_says(draws):
    image = SAMPLES[np.newaxis].astype(np.float32)
    changed = recolour(tf.constant(image), AUGMENTED, tf.constant(draws)).numpy()[0]
    turn, power = (2 * draws[0] - 1) * AUGMENTED.hue, 2 * np.array(draws[1:]) - 1
    factors = np.array([AUGMENTED.saturation, AUGMENTED.exposure]) ** power
    for before, after in zip(SAMPLES, changed, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        saturation, value = np.minimum(np.array([saturation, value]) * factors, 1)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1e-5)


@pytest.mark.slow
def test_colours_stay_in_range_and_padding_stays_grey(scenes):
    coloured = PLAIN._replace(hue=0.5, saturation=9.0, exposure=9.0)
    ((images, _),) = batches([scenes[3]], 1, augmentation=coloured)  # of 61 x 200
    assert images.min() >= 0 and images.max() <= 1
    assert (images[:, :33] == GREY).all() and (images[:, -33:] == GREY).all()
    assert len({image[48, 48].tobytes() for image in images}) == 4
