"""Every constant of the project: edit this file, then run a script. No logic here.

For one run, every script takes --set NAME=VALUE and --config mine.py, a file of the constants that differ, in place of
an edit. Paths are relative to the project's root, wherever a script is started. Command line options, where a script
has them, win over the constants.
"""

# --- The network ---------------------------------------------------------------------------------------------------

# Darknet's weights and training go by these; a checkpoint folder says itself what it is.
YOLO_TYPE = "yolov3"  # "yolov3" or "yolov4"
TRAIN_YOLO_TINY = True  # True: the tiny version of that type, eight times faster; False: the full one
YOLO_CFG = None  # a Darknet .cfg: any other network, in place of these two; None: them, or the .cfg beside .weights
YOLO_INPUT_SIZE = 416  # pixels, a multiple of 32, or (height, width): 320, 608, (256, 416); larger sees smaller things
YOLO_ANCHORS = None  # None: the published ones; or per head, smallest stride first, three (width, height) in pixels

# --- Its weights ---------------------------------------------------------------------------------------------------

# Darknet weights of the four networks. Those of yolov3-tiny come along; others are downloaded when they are missing.
# Those of YOLO_CFG lie beside it under the same name, or are named in YOLO_CUSTOM_WEIGHTS.
YOLO_V3_WEIGHTS = "model_data/yolov3.weights"
YOLO_V4_WEIGHTS = "model_data/yolov4.weights"
YOLO_V3_TINY_WEIGHTS = "model_data/yolov3-tiny.weights"
YOLO_V4_TINY_WEIGHTS = "model_data/yolov4-tiny.weights"
YOLO_COCO_CLASSES = "model_data/coco/coco.names"  # the classes of those weights, one name a line

# What tools/Convert_to_TRT.py, _ONNX.py, _TFLite.py and _OpenVINO.py make; up here, so that YOLO_CUSTOM_WEIGHTS can be
# f"checkpoints/{YOLO_TYPE}-trt-{YOLO_TRT_QUANTIZE_MODE}-{YOLO_INPUT_SIZE}"
YOLO_TRT_QUANTIZE_MODE = "INT8"  # "INT8", "FP16" or "FP32"
YOLO_ONNX_QUANTIZE_MODE = "FP32"  # "FP32", or "FP16": half the size, for GPUs and NPUs
YOLO_TFLITE_QUANTIZE_MODE = "INT8"  # "INT8", "FP16" or "FP32"
YOLO_OPENVINO_QUANTIZE_MODE = "INT8"  # "INT8", "BF16" (CPUs with AVX512-BF16 or AMX) or "FP32"

# The weights to detect with: a checkpoint folder, its bare name under checkpoints/, or a .weights file, whose classes
# TRAIN_CLASSES names. None: the Darknet weights above; in detection_custom.py the model you trained or, until there is
# one, model_data/yolov4-tiny-digits.
YOLO_CUSTOM_WEIGHTS = None

# --- How it runs ---------------------------------------------------------------------------------------------------

# "tf": TensorFlow; "openvino": Intel's, on CPUs; "onnx": ONNX Runtime; "tflite": LiteRT, on CPUs; "trt": TensorRT, on
# NVIDIA's GPUs; "neuron": AWS
YOLO_FRAMEWORK = "tf"
YOLO_PRECISION = "FP32"  # of "tf": "FP32", or "BF16": bfloat16 on CPUs that have it, mixed precision on GPUs
YOLO_OPENVINO_HINT = "LATENCY"  # "LATENCY": a picture on all cores; "THROUGHPUT": a picture for each core
YOLO_OPENVINO_THREADS = 0  # CPU threads; 0: as many as OpenVINO finds useful
YOLO_ONNX_PROVIDERS = (  # of ONNX Runtime, best first: the first one that works here runs "onnx" and "trt"
    "TensorrtExecutionProvider",
    "NvTensorRTRTXExecutionProvider",
    "CUDAExecutionProvider",
    "OpenVINOExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "CPUExecutionProvider",
)
YOLO_ONNX_THREADS = 0  # CPU threads; 0: as many as ONNX Runtime finds useful
YOLO_TFLITE_THREADS = 0  # CPU threads; 0: as many as the CPU has
YOLO_RESIZE = "letterbox"  # keep the aspect ratio, pad with grey; "stretch": fill the input; "rectangle": pad least
YOLO_FEATURES = False  # True: conversions also answer the features that TRACKER_EMBEDDER = "detector" needs
YOLO_MAX_PIXELS = 120_000_000  # a picture file with more is refused before it is decoded

# --- Detection -----------------------------------------------------------------------------------------------------

DETECT_SOURCE = "IMAGES/scene.jpg"  # picture, folder, glob, video, camera index or stream, when none is named
DETECT_CUSTOM_SOURCE = "IMAGES/digits"  # the same for detection_custom.py
DETECT_OUTPUT = "results"  # folder for annotated pictures and videos, when no --output is named; "" for none
YOLO_SCORE_THRESHOLD = 0.3  # 0..1, a box must exceed it; object_tracker.py goes by TRACKER_..._SCORE instead
YOLO_IOU_THRESHOLD = 0.45  # 0..1, boxes of one class that overlap more are one
YOLO_CLASS_AGNOSTIC = False  # True: boxes of different classes, too, so that a lorry is not a car and a truck

# --- Tracking ------------------------------------------------------------------------------------------------------

# object_tracker.py: Deep SORT. A frame here lasts 1 / TRACKER_FRAME_RATE seconds, whatever the rate of a video.
TRACKER_SOURCE = "IMAGES/passing.mp4"  # video, camera index or stream, when none is named
TRACKER_EMBEDDER = "detector"  # which embedding tells objects apart: "detector", "none", or a .pb or .onnx file
TRACKER_CLASS_AGNOSTIC = False  # True: YOLO_CLASS_AGNOSTIC, and a track may change its class; False: it never does
TRACKER_TRAIL = 45  # frames that the trail drawn behind an object goes back; 0: no trails
TRACKER_FRAME_RATE = 30.0  # frames a second: the unit of the lengths of time below
TRACKER_HIGH_SCORE = 0.4  # 0..1: detections of at least this score are matched first and start tracks
TRACKER_LOW_SCORE = 0.1  # 0..1: detections between the two scores prolong tracks; lower ones are ignored
TRACKER_CONFIRM_HITS = 3  # detections until a track is shown; those of the very first frame are shown at once
TRACKER_CONFIRM_MISSES = 1  # frames that a track may be unseen before it is confirmed
TRACKER_MAX_UNSEEN = 60  # frames: a track that is unseen for longer ends
TRACKER_COAST = 1  # frames: a track that is unseen for no longer is still shown, at its predicted place
TRACKER_FRESH = 5  # frames: tracks that were seen this recently are matched before the others
TRACKER_MIN_IOU = 0.2  # 0..1: least overlap of prediction and detection (IoU times the IoU of the heights alone)
TRACKER_LOW_IOU = 0.4  # 0..1: least IoU of prediction and detection for detections of low score
TRACKER_FOUND_IOU = 0.4  # 0..1: least IoU with the place where a lost track was last seen
TRACKER_SMOOTH = 0.5  # 0..1: the Kalman filter's share of a box that is shown; the rest is as detected
TRACKER_MAX_DISTANCE = 0.12  # 0..2: largest cosine distance of the embeddings of one object
TRACKER_STRANGE_DISTANCE = 0.25  # 0..2: embeddings further apart are of two objects, whatever their overlap
TRACKER_BUDGET = 50  # embeddings that a track remembers
TRACKER_MEASUREMENT_NOISE = 0.1  # box heights: standard deviation of a detection's centre and height
TRACKER_POSITION_NOISE = 0.02  # box heights: what one frame adds to the standard deviation of the place
TRACKER_VELOCITY_NOISE = 1 / 200  # box heights a frame: what one frame adds to that of the velocity

# --- Conversion ----------------------------------------------------------------------------------------------------

# tools/Convert_to_pb.py writes checkpoints/{name}-{size}; the others convert that folder further, to
# checkpoints/{name}-{framework}-{mode}-{size}. The name of a model that you have trained is that of its folder; of
# Darknet's weights it is {type}[-tiny]. The size is 416, or 256x416 for (256, 416).
YOLO_TRT_BACKEND = None  # "onnx": the file that TensorRT takes; "tftrt": TensorFlow 2.17; None: what this one has
YOLO_TRT_WORKSPACE = 2048  # MB of GPU memory that TensorRT may use beside weights and pictures; more can be faster
YOLO_TRT_BATCH_SIZES = (1,)  # pictures at a time that engines are built for; the detector fills batches up to these
YOLO_TRT_MIN_SEGMENT = 3  # of "tftrt": operations in a row, fewer stay in TensorFlow
YOLO_TRT_PORTABLE = False  # of "tftrt", True: without engines, which each GPU then builds at first use: minutes
YOLO_ONNX_OUTPUTS = "predictions"  # "predictions"; "raw_heads": for NPUs; "boxes": suppressed, of uint8 pictures
YOLO_OPENVINO_MAX_DROP = None  # AP50 points INT8 may lose on the test set; layers go back to FP32; None: any

# INT8 is calibrated on real pictures, like those it will see.
YOLO_CALIBRATION_IMAGES = None  # folder, glob or annotation file; None: TRAIN_ANNOT_PATH, for a model of its classes
YOLO_CALIBRATION_COUNT = 100  # pictures, chosen at random from these; as many as there are if there are fewer

# AWS Neuron: tools/Convert_to_Neuron.py, checkpoints/{name}-neuron-{size}
NEURON_CHIP = "inf2"  # "inf1", "inf2", "trn1"; "cpu": all but the compiler, to try on any machine
NEURON_BATCH_SIZE = 1  # pictures at a time on the chip
NEURON_DYNAMIC_BATCH_SIZE = True  # requests may have any number of pictures
NEURON_AUTO_CAST = "matmult"  # what the chip may calculate in bfloat16: "none", "matmult" or "all"
NEURON_TRANSFER = "float16"  # of pictures and scores between host and chip: "float32", "float16" or "bfloat16"

# --- Your own model ------------------------------------------------------------------------------------------------

# As cloned they name drawn digits. model_data/yolov4-tiny-digits was made by these constants, YOLO_TYPE = "yolov4" and
# TRAIN_PRESET = "scratch".
TRAIN_CLASSES = "model_data/digits/digits.names"  # its classes, one name a line
TRAIN_ANNOT_PATH = "model_data/digits/digits_train.txt"  # its pictures and boxes: path x1,y1,x2,y2,class ... a line
TRAIN_VAL_PATH = None  # those that choose the best epoch, in the same format; None: a part of TRAIN_ANNOT_PATH
TRAIN_VAL_SPLIT = 0.1  # 0..1, how large that part is; TRAIN_SEED says which pictures are in it
TEST_ANNOT_PATH = "model_data/digits/digits_test.txt"  # those the result is measured on; None: it is not
TRAIN_MODEL_NAME = "yolo_custom"  # its checkpoint: checkpoints/{TRAIN_MODEL_NAME}, and _Tiny for a tiny one
TRAIN_CHECKPOINTS_FOLDER = "checkpoints"

# --- Training ------------------------------------------------------------------------------------------------------

# What "AUTO" means here: "photographs", whose classes may be any, or "scratch": drawings, digits, and all for which
# photographs of things teach nothing. train.py prints what it has chosen.
TRAIN_PRESET = "photographs"
TRAIN_TRANSFER = "AUTO"  # True: begin with the Darknet weights of the type; False: do not. "AUTO": for photographs
TRAIN_FROM_CHECKPOINT = None  # begin with all weights of a checkpoint folder or its bare name; None: do not
TRAIN_FREEZE_EPOCHS = 0  # the first so many leave the backbone as it is; for few pictures and TRAIN_TRANSFER

TRAIN_INPUT_SIZE = 416  # pixels, a multiple of 32, or (height, width)
TRAIN_MULTISCALE = None  # None, or more input sizes to change to every ten steps: (320, 352, 384, 448)
TRAIN_ANCHORS = "AUTO"  # what tools/Anchors.py prints; None: published; "AUTO": fitted, for photographs only if need be
TRAIN_BATCH_SIZE = "AUTO"  # pictures a step, on all devices together; "AUTO": 16, 8 or 4, the fewer pictures there are
TRAIN_EPOCHS = "AUTO"  # rounds through the pictures; "AUTO": 30 for 300 photographs, 15 for thousands; scratch: from 20
TRAIN_WARMUP_EPOCHS = 1  # the first of them, with a learning rate that rises from nothing
TRAIN_LR_INIT = "AUTO"  # the learning rate after that; "AUTO": 1e-3, or 1e-4 for a few pictures of the weights' classes
TRAIN_LR_END = 1e-5  # and in the end
TRAIN_EMA = 0.998  # 0..1, how much of the averaged weights, which are what is kept, a step leaves as they were
TRAIN_PATIENCE = 0  # epochs without a better AP after which training ends early; 0: never
TRAIN_PRECISION = "AUTO"  # "FP32", "BF16", "FP16", or "AUTO": what the hardware is fast in
TRAIN_SEED = 0  # of the first weights and of the data: the same, however often a training is interrupted

TRAIN_DATA_AUG = True  # False: every picture as it is
TRAIN_MOSAIC = 0.5  # 0..1, share of pictures put together from four
TRAIN_FLIP = "AUTO"  # True: half of the pictures left to right, not for digits, text or signs; "AUTO": for photographs

TRAIN_LOGDIR = "log"  # for TensorBoard: tensorboard --logdir log
TRAIN_BACKUP_SECONDS = 60  # how often the state of a training is saved; at most so much is lost when it is killed

# --- Evaluation ----------------------------------------------------------------------------------------------------

TEST_SCORE_THRESHOLD = 0.001  # 0..1; AP counts what is found at any score
TEST_IOU_THRESHOLD = 0.45  # 0..1, of suppression
TEST_INPUT_SIZE = None  # pixels, a multiple of 32, or (height, width); None: YOLO_INPUT_SIZE
TEST_BATCH_SIZE = 4  # pictures detected at a time
