"""What several test files share."""

import signal
import sys
from pathlib import Path

from yolov3 import configs  # before anything imports TensorFlow: yolov3 sets TF_CPP_MIN_LOG_LEVEL
from yolov3.settings import constants

import cv2
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared" / "data"
LONGEST = ("cluster", "train", "convert", "onnx", "cfg_networks", "serving_ray", "benchmark", "distribution", "serving")

signal.signal(signal.SIGINT, signal.default_int_handler)  # where it is ignored, as in a shell's background jobs


def pytest_configure(config):
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of most tests


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that in the end no worker waits for another."""
    rank = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(autouse=True)
def same_constants():
    """Put configs.py back as it was: --set, --config and presets change it."""
    before = constants()
    yield
    vars(configs).update(before)


@pytest.fixture(scope="session")
def shared():
    """The folder of real files that are not part of the project; a test that asks for it is skipped without them."""
    if not SHARED.exists():
        pytest.skip(f"needs {SHARED}: Darknet's cfgs and pictures, trained weights, photographs with labels")
    return SHARED


@pytest.fixture(scope="session")
def shipped_saved_model(tmp_path_factory):
    """The shipped model as tools/Convert_to_pb.py converts it for 160 x 160 pixels, whatever type is configured.

    Nobody writes into this folder: who must copies it.
    """
    from yolov3 import configs
    from yolov3.loading import SHIPPED

    import Convert_to_pb

    folder = tmp_path_factory.mktemp("shipped")
    constants = {"TRAIN_CHECKPOINTS_FOLDER": str(folder), "YOLO_INPUT_SIZE": 160, "YOLO_CUSTOM_WEIGHTS": SHIPPED}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (constants | {"YOLO_TYPE": "yolov3", "TRAIN_YOLO_TINY": False}).items():
            patch.setattr(configs, name, value)
        patch.setattr(sys, "argv", ["Convert_to_pb.py"])
        Convert_to_pb.main.__wrapped__()
    (saved,) = folder.iterdir()
    return saved


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
