"""Every constant of the project: edit this file, then run a script. No logic here.

Paths are relative to the project's root, wherever a script is started. Command line options, where a script has
them, win over the constants.
"""

# --- The network ---------------------------------------------------------------------------------------------------

YOLO_TYPE = "yolov4"  # "yolov3" or "yolov4"
TRAIN_YOLO_TINY = True  # True: the tiny version of that type, eight times faster; False: the full one
YOLO_INPUT_SIZE = 416  # pixels, a multiple of 32; larger sees smaller things and is slower: 320, 416, 512, 608
YOLO_ANCHORS = None  # None: the published ones; or per head, smallest stride first, three (width, height) in pixels

# --- Its weights ---------------------------------------------------------------------------------------------------

# Darknet weights of the four networks. Official ones are downloaded when they are missing.
YOLO_V3_WEIGHTS = "model_data/yolov3.weights"
YOLO_V4_WEIGHTS = "model_data/yolov4.weights"
YOLO_V3_TINY_WEIGHTS = "model_data/yolov3-tiny.weights"
YOLO_V4_TINY_WEIGHTS = "model_data/yolov4-tiny.weights"
YOLO_COCO_CLASSES = "model_data/coco/coco.names"  # the classes of those weights, one name a line

# Weights of your own instead: None, a checkpoint folder, its bare name under checkpoints/, or a .weights file,
# whose classes TRAIN_CLASSES names.
YOLO_CUSTOM_WEIGHTS = None

# --- How it runs ---------------------------------------------------------------------------------------------------

YOLO_FRAMEWORK = "tf"  # "tf": TensorFlow
YOLO_PRECISION = "FP32"  # "FP32", or "BF16": bfloat16 on CPUs that have it, mixed precision on GPUs
YOLO_RESIZE = "letterbox"  # "letterbox": keep the aspect ratio, pad with grey; "stretch": fill the input
YOLO_MAX_PIXELS = 120_000_000  # a picture file with more is refused before it is decoded

# --- Detection -----------------------------------------------------------------------------------------------------

DETECT_SOURCE = "IMAGES"  # picture, folder, glob, video, camera index or stream, when none is named
DETECT_OUTPUT = "results"  # folder for annotated pictures and videos, when no --output is named; "" for none
YOLO_SCORE_THRESHOLD = 0.3  # 0..1, a box must exceed it
YOLO_IOU_THRESHOLD = 0.45  # 0..1, boxes of one class that overlap more are one

# --- Your own model ------------------------------------------------------------------------------------------------

TRAIN_CLASSES = "model_data/digits/digits.names"  # its classes, one name a line
TRAIN_ANNOT_PATH = "model_data/digits/digits_train.txt"  # its pictures and boxes: path x1,y1,x2,y2,class ... a line
TEST_ANNOT_PATH = "model_data/digits/digits_test.txt"  # those it is measured on, in the same format
TRAIN_MODEL_NAME = "yolov4_custom"  # its checkpoint: checkpoints/{TRAIN_MODEL_NAME}, and _Tiny for a tiny one
TRAIN_CHECKPOINTS_FOLDER = "checkpoints"
