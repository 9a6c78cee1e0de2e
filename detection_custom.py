"""Detect with a model of your own: YOLO_CUSTOM_WEIGHTS or, while that is None, the one you trained,
checkpoints/{TRAIN_MODEL_NAME}. Until it is there, the digits model that comes along.

    python detection_custom.py [SOURCE] [--output PATH] [--json PATH] [--only NAME,NAME] [--show]

SOURCE is DETECT_CUSTOM_SOURCE in yolov3/configs.py if left out; the options are those of detection_demo.py. A
checkpoint folder brings its class names; for a Darknet .weights file TRAIN_CLASSES names them.
"""

import sys

from yolov3 import configs
from yolov3.checks import say_it_in_one_line
from yolov3.cli import detect_from_command_line
from yolov3.loading import custom_weights


@say_it_in_one_line
def main():
    return detect_from_command_line(
        __doc__, configs.DETECT_CUSTOM_SOURCE, weights=custom_weights(), framework=configs.YOLO_FRAMEWORK
    )


if __name__ == "__main__":
    sys.exit(main())
