"""What several test files share."""

from pathlib import Path

import yolov3  # noqa: F401  before anything imports TensorFlow: it sets TF_CPP_MIN_LOG_LEVEL

import cv2
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """The folder of real files that are not part of the project; a test that asks for it is skipped without them."""
    if not SHARED.exists():
        pytest.skip(f"needs {SHARED}: Darknet's cfgs and pictures, trained weights, photographs with labels")
    return SHARED


def draw_red_and_green(folder):
    """Eight pictures with a red or a green box each -> their lines for an annotation file in the folder."""
    lines = []
    for i in range(8):
        picture = np.full((60, 80, 3), 90, np.uint8)
        x, y = 5 * i, 3 * i
        cv2.rectangle(picture, (x, y), (x + 29, y + 24), (0, 0, 255) if i % 2 else (0, 255, 0), -1)
        cv2.imwrite(str(folder / f"{i}.png"), picture)
        lines.append(f"{i}.png {x},{y},{x + 30},{y + 25},{i % 2}")
    return lines
