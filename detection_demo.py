"""Detect with the configured model on a picture, a folder or glob, a video, a camera or a stream.

python detection_demo.py                            detects on DETECT_SOURCE in yolov3/configs.py
python detection_demo.py street.jpg                 writes the annotated picture to results/
python detection_demo.py street.mp4 --output out.mp4 --json boxes.jsonl
python detection_demo.py 0 --show                   detects on camera 0, in a window; q quits
python detection_demo.py photos/ --only person,dog  keeps these classes only
"""

import sys

from yolov3 import configs
from yolov3.checks import say_it_in_one_line
from yolov3.cli import detect_from_command_line
from yolov3.settings import ScriptParser


@say_it_in_one_line
def main() -> int:
    parser = ScriptParser(__doc__)
    return detect_from_command_line(parser, configs.DETECT_SOURCE)


if __name__ == "__main__":
    sys.exit(main())
