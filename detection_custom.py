"""Detect with a model trained on your own classes.

It is YOLO_CUSTOM_WEIGHTS or, if that is None, what you trained: checkpoints/{TRAIN_MODEL_NAME}. Until that exists, the
digits model of this project is used.

    python detection_custom.py [SOURCE] [--output PATH] [--json PATH] [--only NAME,NAME] [--show]

If SOURCE is left out, it is DETECT_CUSTOM_SOURCE in yolov3/configs.py. The options are those of detection_demo.py. A
checkpoint folder holds its class names; those of a Darknet .weights file are TRAIN_CLASSES.
"""

import sys

from yolov3 import configs
from yolov3.checks import say_it_in_one_line
from yolov3.cli import detect_from_command_line
from yolov3.loading import custom_weights
from yolov3.settings import ScriptParser


@say_it_in_one_line
def main() -> int:
    parser = ScriptParser(__doc__)
    return detect_from_command_line(
        parser, configs.DETECT_CUSTOM_SOURCE, weights=custom_weights(), framework=configs.YOLO_FRAMEWORK
    )


if __name__ == "__main__":
    sys.exit(main())
