"""The SavedModel of tools/Convert_to_pb.py as a TFLite file for phones, Raspberry Pis and CPUs: FP32, FP16 or INT8.

python tools/Convert_to_TFLite.py               checkpoints/{type}[-tiny]-tflite-{mode}-{size}/model.tflite
python tools/Convert_to_TFLite.py --overwrite   also over one that was made from something else

YOLO_TFLITE_QUANTIZE_MODE in yolov3/configs.py is the mode. INT8 is calibrated on real pictures, YOLO_CALIBRATION_COUNT
of YOLO_CALIBRATION_IMAGES; it takes uint8 pictures and answers the raw heads. Then, to detect with it:

    YOLO_FRAMEWORK = "tflite"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-tflite-INT8-416"

Needs: pip install -r requirements/tflite.txt
"""

import _path
from yolov3 import configs
from yolov3.checks import choose, say_it_in_one_line
from yolov3.conversion import convert, make_parser
from yolov3.runtimes import RUNTIMES


@say_it_in_one_line
def main():
    overwrite = make_parser(__doc__).parse_args().overwrite
    mode = choose("YOLO_TFLITE_QUANTIZE_MODE", configs.YOLO_TFLITE_QUANTIZE_MODE, RUNTIMES["tflite"].modes)
    convert("tflite", mode, None, overwrite)


if __name__ == "__main__":
    main()
