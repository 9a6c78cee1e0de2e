"""What `detect_bytes` costs beside the network: files decoded, fitted and suppressed in the graph, and outside it.

python -m tools.benchmarks.picture_bytes checkpoints/yolov4-tiny-416 photos/
python -m tools.benchmarks.picture_bytes checkpoints/yolov4-608 photos/ --batches 1 --rounds 10 --markdown bytes.md

The pictures are made JPEGs of 640 x 480 first. Each round calls, in shuffled order, the network alone on a ready batch
(`serving_default`), `detect_bytes` on the batch's files, and the same outside the graph: OpenCV decodes and fits,
NumPy suppresses. Shares are those of medians of one run.
"""

import argparse
import functools
from pathlib import Path

from tools.benchmarks.contenders import greedy_nms
from tools.benchmarks.measuring import describe_machine, run_in_rounds, table, timed
from yolov3 import configs
from yolov3.checks import UserError, as_given, check_count, say_it_in_one_line
from yolov3.conversion import read_served
from yolov3.files import check_output, whole_file
from yolov3.images import read_picture
from yolov3.media.sources import Pictures, open_source
from yolov3.runtimes import savedmodel

import cv2
import numpy as np
import tensorflow as tf

JPEG_SIZE = 640, 480  # pixels, width and height
HEADER = "batch|network ms|detect_bytes ms|share of the rest|outside, ms|share|KB in as JPEG|as float32"


def read_files(source, count):
    """`count` JPEGs of 640 x 480, made from the pictures of a folder or glob -> list of bytes."""
    pictures = open_source(source, configs.YOLO_MAX_PIXELS)
    if not isinstance(pictures, Pictures):
        raise UserError(f"{source} is not a picture, folder or glob")
    files = []
    for frame in (read_picture(path, configs.YOLO_MAX_PIXELS) for path in pictures.paths[:count]):
        resized = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), JPEG_SIZE, interpolation=cv2.INTER_AREA)
        files.append(cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return [files[i % len(files)] for i in range(count)]


def outside(serving_default, files, size, about):
    """What a program does that has only the network: its own decoding, letterbox and suppression."""
    images, scale = np.full((len(files), size, size, 3), 0.5, np.float32), size / max(JPEG_SIZE)
    width, height = (round(side * scale) for side in JPEG_SIZE)
    left, top = (size - width) // 2, (size - height) // 2
    for image, data in zip(images, files, strict=True):
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image[top : top + height, left : left + width] = cv2.resize(picture, (width, height)) / np.float32(255)
    answers = []
    for rows in serving_default(images=tf.constant(images))["predictions"].numpy():
        which, classes = np.nonzero(rows[:, 4:] > about["score_threshold"])
        boxes, scores = rows[which, :4], rows[which, 4 + classes]
        keep = greedy_nms(boxes + 100 * classes[:, np.newaxis], scores, about["iou_threshold"])[:100]
        answers.append(((boxes[keep] * size - [left, top] * 2) / scale, scores[keep], classes[keep]))
    return answers


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder with a SavedModel, or its name under checkpoints/")
    parser.add_argument("source", help="pictures: a folder or glob")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="pictures at a time (1 8)")
    parser.add_argument("--rounds", type=int, default=20, help="timed calls of each (20)")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table there too")
    arguments = parser.parse_args()
    for option, counts in {"--batches": arguments.batches, "--rounds": [arguments.rounds]}.items():
        for count in counts:
            check_count(option, count, 1)
    if arguments.markdown:
        check_output(arguments.markdown, (".md",))
    return arguments


@say_it_in_one_line
def main():
    arguments = parse_arguments()
    folder, model, about = read_served(arguments.checkpoint)
    serving_default, detect_bytes = (savedmodel.load(folder, name) for name in ("serving_default", "detect_bytes"))
    files = read_files(as_given(arguments.source), max(arguments.batches))

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

    report = f"{model.name} at {model.input_size}, {model.framework} {model.precision}\n\n{table(HEADER, rows)}\n"
    print(f"\n{describe_machine()}\n\n{report}")
    if arguments.markdown:
        with whole_file(arguments.markdown) as part:
            part.write_text(f"{describe_machine()}\n\n{report}", encoding="utf-8")


if __name__ == "__main__":
    main()
