"""Draw the samples for detection and tracking, a scene and a video, from the photographs in IMAGES/.

python tools/Make_samples.py                    writes IMAGES/scene.jpg and IMAGES/passing.mp4
python tools/Make_samples.py --output FOLDER    writes them elsewhere

The scene shows the photographs side by side. The video shows them as framed pictures that drift along a plain wall and
pass in front of one another.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import _path
from yolov3.checks import project_path, say_it_in_one_line
from yolov3.files import check_writable
from yolov3.images import read_picture
from yolov3.media.outputs import write_picture
from yolov3.media.video import VideoFile
from yolov3.settings import ScriptParser

import cv2
import numpy as np

OUTPUT = "IMAGES"
PHOTOGRAPHS = "astronaut", "chelsea", "coffee"  # from left to right
SCENE_HEIGHT = 360  # pixels
HEIGHT, WIDTH = 360, 640  # of the video, pixels
FPS = 25
SECONDS = 7
WALL = (238, 236, 232), (218, 216, 212)  # RGB at the top and at the bottom
FRAME, FRAME_PIXELS = (252, 252, 250), 6  # RGB and width of the frames
SHADOW, SHADOW_PIXELS = 0.3, 7  # how much darker the wall is there, 0..1, and how far it reaches


class Framed(NamedTuple):
    """Hold a photograph that drifts across the wall. Places are those of its centre, x and y in pixels."""

    photograph: str
    columns: slice  # the part of the photograph that is shown
    rows: slice
    height: int  # pixels
    start: tuple
    end: tuple


HUNG = (  # from back to front
    Framed("chelsea", slice(20, 395), slice(None), 160, (517, 268), (149, 271)),
    Framed("coffee", slice(90, 550), slice(None), 165, (149, 94.5), (517, 93)),
    Framed("astronaut", slice(20, None), slice(430), 170, (100, 240), (540, 255)),
)


def read_photograph(name: str, height: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    """Return a photograph of the project, or a part of it, scaled to a height in pixels: uint8 (height, W, 3), RGB."""
    picture = read_picture(f"IMAGES/{name}.jpg", 10**8)[rows, columns]
    width = round(picture.shape[1] * height / picture.shape[0])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def draw_photographs() -> np.ndarray:
    """Return the photographs side by side, uint8 (H, W, 3), RGB."""
    return np.concatenate([read_photograph(name, SCENE_HEIGHT) for name in PHOTOGRAPHS], 1)


def draw_passing() -> Iterator[np.ndarray]:
    """Yield the frames of the video, uint8 (H, W, 3), RGB."""
    wall = np.linspace(*WALL, HEIGHT)[:, np.newaxis].repeat(WIDTH, 1).round().astype(np.uint8)
    border = (FRAME_PIXELS,) * 4
    pictures = [
        cv2.copyMakeBorder(
            read_photograph(hung.photograph, hung.height, hung.rows, hung.columns),
            *border,
            cv2.BORDER_CONSTANT,
            value=FRAME,
        )
        for hung in HUNG
    ]
    for share in np.linspace(0, 1, SECONDS * FPS):
        frame = wall.copy()
        for hung, picture in zip(HUNG, pictures, strict=True):
            centre = np.array(hung.start) * (1 - share) + np.array(hung.end) * share
            hang(frame, picture, centre - np.array(picture.shape[1::-1]) / 2)
        yield frame


def hang(frame: np.ndarray, picture: np.ndarray, corner: np.ndarray) -> None:
    """Draw a picture with its shadow into a frame. Its upper left corner, x and y in pixels, may be fractional."""
    height, width = picture.shape[:2]
    left, top = np.round(corner).astype(int).tolist()
    dark = np.zeros(frame.shape[:2], np.float32)
    dark[max(top + SHADOW_PIXELS, 0) : top + height + SHADOW_PIXELS, max(left, 0) : left + width] = SHADOW
    frame[:] = frame * (1 - cv2.GaussianBlur(dark, None, SHADOW_PIXELS))[..., np.newaxis]
    shift = np.array([[1, 0, corner[0]], [0, 1, corner[1]]])
    cv2.warpAffine(picture, shift, (WIDTH, HEIGHT), frame, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)


@say_it_in_one_line
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"folder to write ({OUTPUT})")
    output = (parser.parse_args().output or project_path(OUTPUT)).absolute()
    check_writable(output)
    write_picture(output / "scene.jpg", draw_photographs())
    with closing(VideoFile(output / "passing.mp4", FPS)) as video:
        for frame in draw_passing():
            video.write(frame)
    print(f"written: {output / 'scene.jpg'}\nwritten: {output / 'passing.mp4'}")


if __name__ == "__main__":
    main()
