"""Whether a SavedModel answers the same under another TensorFlow; needs nothing else of the project, nor pytest.

python tests/answers.py checkpoints/yolov4-tiny-digits-416 --write answers.npz    under the TensorFlow that converted it
python tests/answers.py checkpoints/yolov4-tiny-digits-416 --check answers.npz    under another one, 2.10.1 for example
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

PICTURES = Path(__file__).resolve().parent.parent / "IMAGES/digits"


def answers(folder):
    """What both signatures answer, {name: array}; one of the files is broken."""
    loaded = tf.saved_model.load(folder)
    size = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))["input_size"]
    images = np.linspace(0, 1, 2 * size * size * 3, dtype=np.float32).reshape(2, size, size, 3)
    files = [(PICTURES / f"{i:05d}.jpg").read_bytes() for i in range(4)]
    files[1] = files[1][:3000]
    found = loaded.signatures["detect_bytes"](image_bytes=tf.constant(files))
    found["predictions"] = loaded.signatures["serving_default"](images=tf.constant(images))["predictions"]
    return {name: x.numpy() for name, x in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--write", metavar="FILE")
    way.add_argument("--check", metavar="FILE")
    arguments = parser.parse_args()
    ours = answers(arguments.folder)
    assert ours["valid_detections"][1] == -1 and ours["valid_detections"].sum() > 3
    if arguments.write:
        np.savez(arguments.write, **ours)
        return
    with np.load(arguments.check) as theirs:
        assert set(ours) == set(theirs)
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name], rtol=1e-4, atol=1e-2 if name == "boxes" else 1e-4)
    print(f"TensorFlow {tf.__version__} answers the same")


if __name__ == "__main__":
    main()
