"""The SavedModel of tools/Convert_to_pb.py as one ONNX file, in FP32 or FP16: TensorRT, DeepStream, Triton, NPUs.

python tools/Convert_to_ONNX.py               checkpoints/{type}[-tiny]-onnx-{mode}-{size}/model.onnx
python tools/Convert_to_ONNX.py --overwrite   also over one that was made from something else

YOLO_ONNX_QUANTIZE_MODE in yolov3/configs.py is the mode, YOLO_ONNX_OUTPUTS what the file answers:

    "predictions"  what `serving_default` of the SavedModel answers; this is what detection here runs
    "raw_heads"    the last convolutions, for compilers of NPUs that take no more
    "boxes"        the boxes after suppression, from uint8 pictures (N, H, W, 3): a file that needs no code of ours

ONNX Runtime runs the first two by the best of YOLO_ONNX_PROVIDERS that is there:

    YOLO_FRAMEWORK = "onnx"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-onnx-FP32-416"

Needs: pip install -r requirements/onnx.txt
"""

import _path
from yolov3 import configs
from yolov3.checks import choose, say_it_in_one_line
from yolov3.conversion import configured_outputs, convert, make_parser
from yolov3.runtimes import RUNTIMES
from yolov3.runtimes.onnx import WriteOptions


@say_it_in_one_line
def main():
    overwrite = make_parser(__doc__).parse_args().overwrite
    mode = choose("YOLO_ONNX_QUANTIZE_MODE", configs.YOLO_ONNX_QUANTIZE_MODE, RUNTIMES["onnx"].modes)
    convert("onnx", mode, WriteOptions(configured_outputs()), overwrite)


if __name__ == "__main__":
    main()
