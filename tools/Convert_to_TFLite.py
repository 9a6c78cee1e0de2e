"""Convert the SavedModel of tools/Convert_to_pb.py to a TFLite file for phones, Raspberry Pis and CPUs.

python tools/Convert_to_TFLite.py               writes checkpoints/{name}-tflite-{mode}-{size}/model.tflite
python tools/Convert_to_TFLite.py --overwrite   replaces a folder that was made from something else

YOLO_TFLITE_QUANTIZE_MODE in yolov3/configs.py is the mode: FP32, FP16 or INT8. INT8 takes uint8 pictures and answers
the raw heads. It is calibrated on real pictures: YOLO_CALIBRATION_COUNT of those in YOLO_CALIBRATION_IMAGES, or of the
pictures to train on. To detect with the result:

    YOLO_FRAMEWORK = "tflite"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-tflite-INT8-416"

It needs: pip install -r requirements/tflite.txt
"""

import _path
from yolov3 import configs
from yolov3.checks import choose, say_it_in_one_line
from yolov3.conversion import convert, make_parser
from yolov3.runtimes import RUNTIMES


@say_it_in_one_line
def main() -> None:
    overwrite = make_parser(__doc__).parse_args().overwrite
    mode = choose("YOLO_TFLITE_QUANTIZE_MODE", configs.YOLO_TFLITE_QUANTIZE_MODE, RUNTIMES["tflite"].modes)
    convert("tflite", mode, None, overwrite)


if __name__ == "__main__":
    main()
