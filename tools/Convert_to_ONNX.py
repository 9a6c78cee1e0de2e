"""Convert the SavedModel of tools/Convert_to_pb.py to one ONNX file, in FP32 or FP16.

python tools/Convert_to_ONNX.py               writes checkpoints/{name}-onnx-{mode}-{size}/model.onnx
python tools/Convert_to_ONNX.py --overwrite   replaces a folder that was made from something else
python tools/Convert_to_ONNX.py --triton      adds what Triton Inference Server needs to serve the folder

YOLO_ONNX_QUANTIZE_MODE in yolov3/configs.py is the mode. YOLO_ONNX_OUTPUTS says what the file answers:

    "predictions"  what `serving_default` of the SavedModel does; detection here runs this
    "raw_heads"    what the last convolutions do, for compilers of NPUs that take no more; detection runs this, too
    "boxes"        boxes after suppression, of uint8 pictures (N, H, W, 3): a file that needs no other code

With --triton the folder also holds config.pbtxt and 1/model.onnx: docs/serving.md shows how to serve it.
ONNX Runtime runs the first two, by the best of YOLO_ONNX_PROVIDERS that works. To detect with the result:

    YOLO_FRAMEWORK = "onnx"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-onnx-FP32-416"

It needs: pip install -r requirements/onnx.txt
"""

import _path
from yolov3 import configs
from yolov3.checks import choose, say_it_in_one_line
from yolov3.conversion import configured_outputs, convert, make_parser
from yolov3.runtimes import RUNTIMES
from yolov3.runtimes.onnx import WriteOptions


@say_it_in_one_line
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--triton", action="store_true", help="make the folder a model of Triton Inference Server, too")
    arguments = parser.parse_args()
    mode = choose("YOLO_ONNX_QUANTIZE_MODE", configs.YOLO_ONNX_QUANTIZE_MODE, RUNTIMES["onnx"].modes)
    convert("onnx", mode, WriteOptions(configured_outputs(), arguments.triton), arguments.overwrite)


if __name__ == "__main__":
    main()
