"""Report everything that is wrong with annotation files, before a training stops at it.

python tools/Check_annotations.py                                   those that configs.py names
python tools/Check_annotations.py mine.txt --classes mine.names
"""

import sys

import _path
from yolov3 import configs
from yolov3.annotations.cli import describe_data_set
from yolov3.annotations.datasets import read_names
from yolov3.annotations.format import check_annotations
from yolov3.checks import as_given, check_path, printable, say_it_in_one_line
from yolov3.settings import ScriptParser, configured_names


@say_it_in_one_line
def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("annotations", nargs="*", help="files (TRAIN_ANNOT_PATH, TRAIN_VAL_PATH, TEST_ANNOT_PATH)")
    parser.add_argument("--classes", metavar="NAMES", help="names file (TRAIN_CLASSES)")
    arguments = parser.parse_args()

    names = read_names(arguments.classes) if arguments.classes else configured_names()
    paths, found = arguments.annotations, False
    if not paths:
        values = {name: getattr(configs, name) for name in ("TRAIN_ANNOT_PATH", "TRAIN_VAL_PATH", "TEST_ANNOT_PATH")}
        paths = [check_path(*one) for one in values.items() if one[1] is not None or one[0] == "TRAIN_ANNOT_PATH"]
    for path in paths:
        checked = check_annotations(as_given(path), len(names), configs.YOLO_MAX_PIXELS)
        print("\n".join([*map(printable, checked.problems), f"{path}: {describe_data_set(checked, names)}"]))
        found = found or bool(checked.problems)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
