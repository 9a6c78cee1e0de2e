"""Convert the SavedModel of tools/Convert_to_pb.py for TensorRT on an NVIDIA GPU, in INT8, FP16 or FP32.

python tools/Convert_to_TRT.py               writes checkpoints/{name}-trt-{mode}-{size}
python tools/Convert_to_TRT.py --overwrite   replaces a folder that was made from something else

YOLO_TRT_QUANTIZE_MODE in yolov3/configs.py is the mode. INT8 is calibrated on real pictures: YOLO_CALIBRATION_COUNT of
those in YOLO_CALIBRATION_IMAGES, or of the pictures to train on. YOLO_TRT_BACKEND says how:

    "onnx"   an ONNX file, written on any machine; TensorRT builds its engines from it when it is first run
    "tftrt"  TF-TRT, which TensorFlow 2.17 was the last to have: engines for the GPU of this machine, built in minutes
    None     "tftrt" where TensorFlow has it, otherwise "onnx"

Engines are for batches of YOLO_TRT_BATCH_SIZES. To detect with the result:

    YOLO_FRAMEWORK = "trt"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-trt-INT8-416"

It needs: pip install -r requirements/onnx.txt to write the ONNX file and requirements/onnx-gpu.txt to run it, or
requirements/trt.txt for TF-TRT.
"""

import _path
from yolov3 import configs
from yolov3.checks import choose, say_it_in_one_line
from yolov3.conversion import configured_trt_options, convert, make_parser
from yolov3.runtimes import RUNTIMES


@say_it_in_one_line
def main() -> None:
    overwrite = make_parser(__doc__).parse_args().overwrite
    mode = choose("YOLO_TRT_QUANTIZE_MODE", configs.YOLO_TRT_QUANTIZE_MODE, RUNTIMES["trt"].modes)
    convert("trt", mode, configured_trt_options(), overwrite)


if __name__ == "__main__":
    main()
