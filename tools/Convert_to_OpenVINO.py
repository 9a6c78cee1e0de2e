"""Convert the SavedModel of tools/Convert_to_pb.py for OpenVINO on CPUs. INT8 is several times as fast as FP32.

python tools/Convert_to_OpenVINO.py               writes checkpoints/{name}-openvino-{mode}-{size}
python tools/Convert_to_OpenVINO.py --overwrite   replaces a folder that was made from something else

YOLO_OPENVINO_QUANTIZE_MODE in yolov3/configs.py is the mode: FP32, BF16 or INT8. INT8 is calibrated on real pictures:
YOLO_CALIBRATION_COUNT of those in YOLO_CALIBRATION_IMAGES, or of the pictures to train on. To detect with the result:

    YOLO_FRAMEWORK = "openvino"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-openvino-INT8-416"

It needs: pip install -r requirements/openvino.txt
"""

from collections.abc import Callable

import _path
from yolov3 import configs
from yolov3.annotations.cli import check_names, read_pictures
from yolov3.checks import check_amount, choose, say_it_in_one_line
from yolov3.conversion import convert, make_parser, read_source
from yolov3.detector import Detector
from yolov3.evaluation import evaluate
from yolov3.runtimes import RUNTIMES
from yolov3.runtimes.openvino import ANY_DROP, WriteOptions
from yolov3.settings import configured_names


def accuracy_measure() -> Callable[[Callable], float]:
    """Return a function that measures AP50, in percent, of a network of the configured model on TEST_ANNOT_PATH."""
    _, spec = read_source()
    check_names(spec.classes, configured_names())
    checked = read_pictures(configs.TEST_ANNOT_PATH, len(spec.classes))
    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD

    def measure(network):
        detector = Detector(network, spec, *thresholds)
        scores = evaluate(detector, checked.records, checked.sizes, spec.classes, *thresholds)
        print(f"AP50 {100 * scores.AP50:.2f}")
        return 100 * scores.AP50

    return measure


@say_it_in_one_line
def main() -> None:
    overwrite = make_parser(__doc__).parse_args().overwrite
    constant, max_drop = "YOLO_OPENVINO_QUANTIZE_MODE", configs.YOLO_OPENVINO_MAX_DROP
    mode = choose(constant, getattr(configs, constant), RUNTIMES["openvino"].modes)
    options = ANY_DROP
    if max_drop is not None:
        check_amount("YOLO_OPENVINO_MAX_DROP", max_drop)
    if max_drop is not None and mode == "INT8":
        options = WriteOptions(max_drop, accuracy_measure())
    convert("openvino", mode, options, overwrite)


if __name__ == "__main__":
    main()
