"""Draw pictures of digits to train on: 0 to 9 in many styles, sizes and colours on cluttered backgrounds.

python tools/Make_digits.py                                       4,000 to train and 500 to test: model_data/digits/
python tools/Make_digits.py --train 0 --test 0 --preview sheet.png --video digits.mp4

It writes JPEGs into train/ and test/, the annotation files digits_train.txt and digits_test.txt, and digits.names. The
same seed gives the same bytes, however many processes draw.
"""

import argparse
import functools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import _path

import cv2
import numpy as np
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # keeps yolov3 from importing TensorFlow, which is not needed here

from tools.digits.glyphs import DIGITS
from tools.digits.scenes import draw_scene
from tools.digits.video import FPS, draw_frames
from yolov3.annotations.format import Record, write_annotations
from yolov3.checks import UserError, project_path, say_it_in_one_line
from yolov3.files import check_output, check_writable, whole_file
from yolov3.media.outputs import write_picture
from yolov3.media.video import CODECS, VideoFile
from yolov3.settings import ScriptParser

OUTPUT = "model_data/digits"
PARTS = ("train", "test")  # each is part of the seed, so that no picture is in both
QUALITY = 60, 95  # of the JPEGs
PICTURES_PER_PROCESS = 50  # at least, or starting another process takes longer than drawing them
PREVIEW = 6, 4, 320  # columns and rows of the contact sheet, and the side of a picture in pixels
VIDEO_SEED = 9  # added to the user's seed; differs from the numbers of PARTS


def draw_file(index: int, seed: int, part: str, folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Draw a picture into the folder. Return its path, boxes float32 (n, 4) and classes int32 (n,)."""
    rng = np.random.default_rng([seed, PARTS.index(part), index])
    picture, boxes, classes = draw_scene(rng)
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
    path = folder / f"{index:05d}.jpg"
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    with whole_file(path) as file:
        file.write_bytes(data)
    return path, boxes, classes


def draw_files(count: int, seed: int, part: str, folder: Path) -> list[tuple[Path, np.ndarray, np.ndarray]]:
    """Draw `count` pictures on all cores. Return what `draw_file` returns for each."""
    draw = functools.partial(draw_file, seed=seed, part=part, folder=folder)
    show = functools.partial(tqdm, total=count, unit=" pictures", desc=part, disable=None)
    workers = min(os.cpu_count() or 1, -(-count // PICTURES_PER_PROCESS))
    if workers < 2:
        return list(show(map(draw, range(count))))
    spawn = multiprocessing.get_context("spawn")  # works alike on every system; a forked process may inherit locks
    with ProcessPoolExecutor(workers, spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(show(pool.map(draw, range(count), chunksize=10)))


def draw_preview(path: Path, seed: int) -> None:
    """Write a contact sheet of the first pictures of a seed, with their boxes and digits drawn in."""
    columns, rows, side = PREVIEW
    sheet = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for i in range(columns * rows):
        picture, boxes, classes = draw_scene(np.random.default_rng([seed, 0, i]))
        scale = side / max(picture.shape)
        picture = cv2.resize(picture, None, None, scale, scale, cv2.INTER_AREA)[:side, :side]
        for (x1, y1, x2, y2), digit in zip((boxes * scale).round().astype(int).tolist(), classes, strict=True):
            cv2.rectangle(picture, (x1 - 1, y1 - 1), (x2, y2), (255, 0, 0))
            at = x1, y1 - 3 if y1 > 12 else y2 + 11
            for colour, pen in (((255, 255, 255), 3), ((255, 0, 0), 1)):
                cv2.putText(picture, str(digit), at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, pen, cv2.LINE_AA)
        top, left = i // columns * side, i % columns * side
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    write_picture(path, sheet)


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--train", type=int, default=4000, metavar="N", help="pictures to train on (%(default)s)")
    parser.add_argument("--test", type=int, default=500, metavar="N", help="pictures to test on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"folder to write ({OUTPUT})")
    parser.add_argument("--preview", type=Path, metavar="PATH", help="also write a contact sheet, .png")
    parser.add_argument("--video", type=Path, metavar="PATH", help="also write a sample video of moving digits, .mp4")
    arguments = parser.parse_args()
    for option in ("train", "test", "seed"):
        if getattr(arguments, option) < 0:
            raise UserError(f"--{option} is {getattr(arguments, option)}, but it must not be negative")
    for path, suffixes in ((arguments.preview, (".png",)), (arguments.video, tuple(CODECS))):
        if path:
            check_output(path, suffixes)
    return arguments


@say_it_in_one_line
def main() -> None:
    arguments = parse_arguments()
    output = (arguments.output or project_path(OUTPUT)).absolute()
    for part in PARTS:
        if count := getattr(arguments, part):
            check_writable(output / part)
            drawn = draw_files(count, arguments.seed, part, output / part)
            write_annotations(output / f"digits_{part}.txt", [Record(*one) for one in drawn])
            with whole_file(output / "digits.names") as names:
                names.write_text("".join(f"{digit}\n" for digit in DIGITS), encoding="utf-8")
            boxes = sum(len(classes) for _, _, classes in drawn)
            print(f"{count} pictures, {boxes} digits: {output / f'digits_{part}.txt'}")
    if arguments.preview:
        draw_preview(arguments.preview, arguments.seed)
        print(f"written: {arguments.preview}")
    if arguments.video:
        with closing(VideoFile(arguments.video, FPS)) as video:
            for frame in draw_frames(np.random.default_rng([arguments.seed, VIDEO_SEED])):
                video.write(frame)
        print(f"written: {arguments.video}")


if __name__ == "__main__":
    main()
