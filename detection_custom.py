"""Detect with a model of your own: YOLO_CUSTOM_WEIGHTS or, while that is the model we ship, the one you trained,
checkpoints/{TRAIN_MODEL_NAME}, as soon as it is there.

    python detection_custom.py [SOURCE] [--output PATH] [--json PATH] [--only NAME,NAME] [--show]

SOURCE and options are those of detection_demo.py. A checkpoint folder brings its class names; for a Darknet
.weights file TRAIN_CLASSES names them.
"""

import sys

from yolov3 import configs
from yolov3.checks import say_it_in_one_line
from yolov3.cli import detect_from_command_line
from yolov3.loading import custom_weights
from yolov3.utils import Load_Yolo_model


@say_it_in_one_line
def main():
    return detect_from_command_line(
        __doc__, lambda: Load_Yolo_model(custom_weights(), framework=configs.YOLO_FRAMEWORK)
    )


if __name__ == "__main__":
    sys.exit(main())
