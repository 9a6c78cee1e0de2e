"""What several test files share."""

from pathlib import Path

import pytest

import yolov3  # noqa: F401  before anything imports TensorFlow: it sets TF_CPP_MIN_LOG_LEVEL

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """The folder of real files that are no part of the project; a test that asks for it is skipped without them."""
    if not SHARED.exists():
        pytest.skip(f"needs {SHARED}: Darknet's cfgs and pictures, trained weights, photographs with labels")
    return SHARED
