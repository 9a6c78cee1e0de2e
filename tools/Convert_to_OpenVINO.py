"""The SavedModel of tools/Convert_to_pb.py for OpenVINO, on CPUs: FP32, BF16, or INT8, several times as fast.

python tools/Convert_to_OpenVINO.py               checkpoints/{type}[-tiny]-openvino-{mode}-{size}
python tools/Convert_to_OpenVINO.py --overwrite   also over one that was made from something else

YOLO_OPENVINO_QUANTIZE_MODE in yolov3/configs.py is the mode: FP32, BF16 or INT8. INT8 is calibrated on real pictures,
YOLO_CALIBRATION_COUNT of YOLO_CALIBRATION_IMAGES. Then, to detect with it:

    YOLO_FRAMEWORK = "openvino"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-openvino-INT8-416"

Needs: pip install -r requirements-openvino.txt
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from any directory

import yolov3  # noqa: E402, F401  before TensorFlow, which it keeps quiet

# isort: split
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from targets import (  # noqa: E402
    TOLERANCE,
    calibration_inputs,
    check_same,
    destination,
    folder_size,
    in_project,
    made_from,
    parse_arguments,
    read_source,
    sample_images,
)

from yolov3 import configs, savedmodel  # noqa: E402
from yolov3.checkpoint import write_about, written_whole  # noqa: E402
from yolov3.cli import check_names, read_pictures  # noqa: E402
from yolov3.detector import Detector  # noqa: E402
from yolov3.evaluation import evaluate  # noqa: E402
from yolov3.frameworks import Runtime, import_openvino, in_place, openvino_network  # noqa: E402
from yolov3.quantisation import import_nncf, quantise, quantise_within, read_saved_model  # noqa: E402
from yolov3.settings import UserError, check_amount, choose, read_class_names, say_it_in_one_line  # noqa: E402

MODES = ("INT8", "BF16", "FP32")


def quantised(graph, model, inputs, max_drop=None):
    """openvino.Model -> in INT8, losing no more than max_drop points of AP50 on the test set if that is given."""
    if max_drop is None:
        return quantise(graph, inputs)
    check_names(model.classes, read_class_names(configs.TRAIN_CLASSES))
    checked = read_pictures(configs.TEST_ANNOT_PATH, len(model.classes))
    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD

    def ap50(compiled):
        def network(images):
            return {output.any_name: tf.constant(x) for output, x in compiled([in_place(images)]).items()}

        detector = Detector(network, model, *thresholds)
        scores = evaluate(detector, checked.records, checked.sizes, model.classes, *thresholds)
        print(f"AP50 {100 * scores.AP50:.2f}")
        return 100 * scores.AP50

    return quantise_within(graph, inputs, ap50, max_drop)


def write_openvino(folder, source, target, inputs=None, facts=(), max_drop=None):
    """A SavedModel folder -> an OpenVINO folder, target its Model, checked; how far it is off TensorFlow on a picture,
    at worst, and MB. INT8 needs the inputs to calibrate on, and facts of them for model.json."""
    graph = read_saved_model(source)
    if target.precision == "INT8":
        try:
            graph = quantised(graph, target, inputs, max_drop)
        except RuntimeError as error:  # NNCF's own
            raise UserError(f"NNCF does not take {source}: {str(error).strip().splitlines()[0]}") from None
    with written_whole(folder) as part:
        try:
            import_openvino().save_model(graph, part / "model.xml", compress_to_fp16=target.precision == "BF16")
        except RuntimeError as error:  # a full disk, in OpenVINO's words
            raise OSError(None, str(error).strip().splitlines()[-1]) from None
        write_about(part, target, made_from(source), **dict(facts))
        images = sample_images(target)
        expected = savedmodel.load(source)(images=images)["predictions"]
        answers = openvino_network(target, part, Runtime())(images)["predictions"]
        tolerance = TOLERANCE if target.precision == "FP32" else np.inf
        return check_same(answers, expected, folder, tolerance), folder_size(part)


@say_it_in_one_line
def main():
    # 1. What to convert, and whether all that it takes is there
    overwrite, started = parse_arguments(__doc__).overwrite, time.monotonic()
    mode = choose("YOLO_OPENVINO_QUANTIZE_MODE", configs.YOLO_OPENVINO_QUANTIZE_MODE, MODES)
    max_drop = configs.YOLO_OPENVINO_MAX_DROP
    if max_drop is not None:
        check_amount("YOLO_OPENVINO_MAX_DROP", max_drop)
    import_openvino()
    if mode == "INT8":
        import_nncf()
    source, model = read_source()
    target, folder = destination(source, model, "openvino", mode, overwrite)
    inputs, facts = calibration_inputs(model) if mode == "INT8" else (None, {})

    # 2. The graph, in the wanted precision, written and read back
    worst, size = write_openvino(folder, source, target, inputs, facts, max_drop)
    print(f"{in_project(source)}: {model.name}, {len(model.classes)} classes, {model.input_size} pixels")
    print("".join(f"{name.replace('_', ' ')}: {fact}\n" for name, fact in facts.items()), end="")
    print(f"within {worst:.1g} of TensorFlow on a picture; {size:.1f} MB, {time.monotonic() - started:.0f} s")
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
