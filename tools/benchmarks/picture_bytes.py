"""Measure what `detect_bytes` costs beside the network: decoding, fitting and suppression, in the graph and outside.

python -m tools.benchmarks.picture_bytes checkpoints/yolov4-tiny-416 photos/
python -m tools.benchmarks.picture_bytes checkpoints/yolov4-608 photos/ --batches 1 --rounds 10 --markdown bytes.md

The pictures are first saved as JPEGs of 640 x 480. Each round calls, in shuffled order, the network alone on a prepared
batch (`serving_default`), `detect_bytes` on the files of the batch, and the same work outside the graph, where OpenCV
decodes and fits and NumPy suppresses. The shares are those of the medians of one run.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

from tools.benchmarks.contenders import greedy_nms
from tools.benchmarks.measuring import describe_machine, markdown, run_in_rounds, timed
from yolov3 import configs
from yolov3.checks import UserError, as_given, check_count, say_it_in_one_line
from yolov3.conversion import read_served
from yolov3.files import check_output, whole_file
from yolov3.images import read_picture
from yolov3.media.sources import Pictures, open_source
from yolov3.runtimes import savedmodel
from yolov3.settings import ScriptParser
from yolov3.sizes import size_name

import cv2
import numpy as np
import tensorflow as tf

JPEG_HEIGHT, JPEG_WIDTH = 480, 640  # pixels
HEADER = "batch|network ms|detect_bytes ms|share of the rest|outside ms|share of the rest|JPEG KB|float32 KB"


def make_jpegs(source: str, count: int) -> list[bytes]:
    """Return `count` JPEG files of 640 x 480, made from the pictures of a folder or glob. Raises UserError."""
    pictures = open_source(source, configs.YOLO_MAX_PIXELS)
    if not isinstance(pictures, Pictures):
        raise UserError(f"{source} is not a picture, folder or glob")
    files = []
    for frame in (read_picture(path, configs.YOLO_MAX_PIXELS) for path in pictures.paths[:count]):
        bgr, size = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), (JPEG_WIDTH, JPEG_HEIGHT)
        resized = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
        files.append(cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return [files[i % len(files)] for i in range(count)]


def outside(serving_default: Callable, files: list[bytes], size: tuple[int, int], about: dict) -> list[tuple]:
    """Detect as a program does that has only the network: with decoding, letterbox and suppression of its own.

    Return the boxes, scores and classes of each file.
    """
    scale = min(size[0] / JPEG_HEIGHT, size[1] / JPEG_WIDTH)
    images = np.full((len(files), *size, 3), 0.5, np.float32)
    height, width = round(JPEG_HEIGHT * scale), round(JPEG_WIDTH * scale)
    left, top = (size[1] - width) // 2, (size[0] - height) // 2
    for image, data in zip(images, files, strict=True):
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image[top : top + height, left : left + width] = cv2.resize(picture, (width, height)) / np.float32(255)
    answers = []
    for rows in serving_default(images=tf.constant(images))["predictions"].numpy():
        which, classes = np.nonzero(rows[:, 4:] > about["score_threshold"])
        boxes, scores = rows[which, :4], rows[which, 4 + classes]
        keep = greedy_nms(boxes + 100 * classes[:, np.newaxis], scores, about["iou_threshold"])[:100]
        answers.append(((boxes[keep] * (size[::-1] * 2) - [left, top] * 2) / scale, scores[keep], classes[keep]))
    return answers


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("checkpoint", help="folder of a SavedModel, or its name under checkpoints/")
    parser.add_argument("source", help="pictures: a folder or glob")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="pictures at a time (1 8)")
    parser.add_argument("--rounds", type=int, default=20, help="timed calls of each contender (20)")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="also write the table to this file")
    arguments = parser.parse_args()
    for option, counts in {"--batches": arguments.batches, "--rounds": [arguments.rounds]}.items():
        for count in counts:
            check_count(option, count, 1)
    if arguments.markdown:
        check_output(arguments.markdown, (".md",))
    return arguments


@say_it_in_one_line
def main() -> None:
    arguments = parse_arguments()
    folder, model, about = read_served(arguments.checkpoint)
    serving_default, detect_bytes = (savedmodel.load(folder, name) for name in ("serving_default", "detect_bytes"))
    files = make_jpegs(as_given(arguments.source), max(arguments.batches))

    rows = []
    for batch in arguments.batches:
        given = tf.constant(files[:batch])
        images, _, _ = savedmodel.read_files(given, model.input_size, model.resize, configs.YOLO_MAX_PIXELS)
        calls = {
            "network": functools.partial(serving_default, images=images),
            "bytes": functools.partial(detect_bytes, image_bytes=given),
            "outside": functools.partial(outside, serving_default, files[:batch], model.input_size, about),
        }
        timers = {name: functools.partial(timed, call) for name, call in calls.items()}
        milliseconds = run_in_rounds(timers, arguments.rounds, f"batch {batch}")
        network, inside, out = (np.median(milliseconds[name]) for name in calls)
        rows.append([str(batch), f"{network:.1f}", f"{inside:.1f}", f"{100 * (1 - network / inside):.1f}%"])
        rows[-1] += [f"{out:.1f}", f"{100 * (1 - network / out):.1f}%"]
        rows[-1] += [f"{sum(map(len, files[:batch])) / batch / 1e3:.0f}", f"{images.numpy().nbytes / batch / 1e3:.0f}"]

    measured = f"{model.name} at {size_name(model.input_size)}, {model.framework} {model.precision}"
    report = f"{measured}\n\n{markdown(HEADER, rows)}\n"
    print(f"\n{describe_machine()}\n\n{report}")
    if arguments.markdown:
        with whole_file(arguments.markdown) as part:
            part.write_text(f"{describe_machine()}\n\n{report}", encoding="utf-8")


if __name__ == "__main__":
    main()
