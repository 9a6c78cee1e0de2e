"""The configured model as a SavedModel: JPEG bytes in, boxes out, in one graph, for TensorFlow 2.10 and newer.

python tools/Convert_to_pb.py                  checkpoints/{type}[-tiny]-{size}
python tools/Convert_to_pb.py --overwrite      also over one that was made from other weights
python tools/Convert_to_pb.py --version 1      in a subfolder of that name, as TensorFlow Serving looks for it

What is converted is what YOLO_CUSTOM_WEIGHTS in yolov3/configs.py names, or Darknet's weights of the type. Signatures:

    serving_default  images float32 (N, S, S, 3), RGB, 0..1 -> predictions float32 (N, boxes, 4 + classes); with
                     YOLO_FEATURES also features float32 (N, S/16, S/16, C), by which object_tracker.py tells objects
    detect_bytes     image_bytes string (N,), picture files -> boxes (N, 100, 4) in pixels, scores, classes,
                     valid_detections; by YOLO_SCORE_THRESHOLD, YOLO_IOU_THRESHOLD and YOLO_RESIZE as they are now

It is loaded again and tried on a picture before it gets its name. The other converters begin with it.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from any directory

import yolov3  # noqa: E402, F401  before TensorFlow, which it keeps quiet

# isort: split
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from targets import PICTURE, TOLERANCE, check_same, folder_size, in_project, sample_images  # noqa: E402

from yolov3 import configs, savedmodel  # noqa: E402
from yolov3.boxes import decode  # noqa: E402
from yolov3.checkpoint import check_replaceable, is_weights, write_about, written_whole  # noqa: E402
from yolov3.detector import SHIPPED, configured_model, custom_weights  # noqa: E402
from yolov3.frameworks import freeze, keras_network  # noqa: E402
from yolov3.settings import UserError, check_count, check_threshold, project_path, say_it_in_one_line  # noqa: E402


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was made from something else")
    parser.add_argument("--version", type=int, help="put the SavedModel into a subfolder of that number")
    arguments = parser.parse_args()
    if arguments.version is not None:
        check_count("--version", arguments.version, 1)
    return arguments


def write_saved_model(folder, model, weights, score_threshold, iou_threshold, version=None):
    """A Model and its weights -> a SavedModel folder, checked; how far it is off the Keras model, at worst, and MB."""
    network = keras_network(model, weights)
    thresholds = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    with written_whole(folder) as part:
        place = part / str(version) if version else part
        for other in folder.glob("*/saved_model.pb") if version else ():  # a server changes over from one to another
            if other.parent.name not in (place.name, "variables"):
                shutil.copytree(other.parent, part / other.parent.name)
        savedmodel.save(place, freeze(network, model.heads), model, **thresholds, max_pixels=configs.YOLO_MAX_PIXELS)
        write_about(part, model, in_project(weights), **thresholds, max_pixels=configs.YOLO_MAX_PIXELS)

        def predict(images):
            return decode(network(images)[: len(model.heads.strides)], model.heads)

        images = sample_images(model)
        answers = savedmodel.load_network(part, model)(images)["predictions"]
        worst = check_same(answers, predict(images), folder)
        check_bytes(part, model, predict, score_threshold, iou_threshold, folder)
        return worst, folder_size(part)


def check_bytes(part, model, predict, score_threshold, iou_threshold, folder):
    """Refuses a SavedModel whose `detect_bytes` does not find on the sample's file what `predict` says is there."""
    files = tf.constant([project_path(PICTURE).read_bytes()])
    images, sizes, readable = savedmodel.read_files(files, model.input_size, model.resize, configs.YOLO_MAX_PIXELS)
    found = savedmodel.load(part, "detect_bytes")(image_bytes=files)
    if not readable:  # YOLO_MAX_PIXELS is smaller
        return
    _, scores, _, valid = savedmodel.finish(predict(images), sizes, score_threshold, iou_threshold, model)
    if found["valid_detections"] != valid or not np.allclose(found["scores"], scores, atol=TOLERANCE):
        raise UserError(f"{folder} would find something else on the file {PICTURE}: it is not written")


@say_it_in_one_line
def main():
    # 1. What to convert, and whether its place is free
    arguments, started = parse_arguments(), time.monotonic()
    constants = ("YOLO_SCORE_THRESHOLD", "YOLO_IOU_THRESHOLD")
    thresholds = [check_threshold(constant, getattr(configs, constant)) for constant in constants]
    check_count("YOLO_MAX_PIXELS", configs.YOLO_MAX_PIXELS, 1)
    named = configs.YOLO_CUSTOM_WEIGHTS
    model, weights = configured_model(named, framework=None if named else "tf")
    if weights.is_dir() and not is_weights(weights):
        raise UserError(f"{weights} is a conversion already: name in YOLO_CUSTOM_WEIGHTS what it was made from")
    if named in (None, "", SHIPPED) and (trained := custom_weights()) != SHIPPED:
        trained = in_project(trained)
        print(f"converting {in_project(weights)}, not {trained}: name what you have trained in YOLO_CUSTOM_WEIGHTS")
    folder = project_path(configs.TRAIN_CHECKPOINTS_FOLDER) / model.folder_name
    check_replaceable(folder, None if arguments.overwrite else in_project(weights))

    # 2. The graph, written and read back
    worst, size = write_saved_model(folder, model, weights, *thresholds, arguments.version)
    print(
        f"{in_project(weights)}: {model.name}, {len(model.classes)} classes, {model.input_size} pixels, {model.resize}"
    )
    print(f"detect_bytes answers with scores over {thresholds[0]:g}, suppression at IoU {thresholds[1]:g}")
    print(f"checked: within {worst:.1g} of the Keras model; {size:.1f} MB, {time.monotonic() - started:.0f} s")
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
