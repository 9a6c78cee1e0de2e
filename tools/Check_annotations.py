"""Finds what is wrong with annotation files, before a training does.

python tools/Check_annotations.py                                   TRAIN_ANNOT_PATH and TEST_ANNOT_PATH of configs.py
python tools/Check_annotations.py mine.txt --classes mine.names
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from any directory

from conversion import describe, shell_path  # noqa: E402

from yolov3 import configs  # noqa: E402
from yolov3.annotations import check_annotations  # noqa: E402
from yolov3.settings import read_class_names, say_it_in_one_line  # noqa: E402


@say_it_in_one_line
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [configs.TRAIN_ANNOT_PATH, configs.TEST_ANNOT_PATH]
    parser.add_argument("annotations", nargs="*", default=default, help=f"annotation files ({' '.join(default)})")
    parser.add_argument("--classes", metavar="NAMES", default=configs.TRAIN_CLASSES, help="names file (%(default)s)")
    arguments = parser.parse_args()

    names, found = read_class_names(shell_path(arguments.classes)), False
    for path in arguments.annotations:
        checked = check_annotations(shell_path(path), len(names), configs.YOLO_MAX_PIXELS)
        print("\n".join([*checked.problems, f"{path}: {describe(checked, names)}"]))
        found = found or bool(checked.problems)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
