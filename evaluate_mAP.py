"""Measure a detector on annotated pictures: COCO's AP, a row for each class, precision-recall curves, speed.

python evaluate_mAP.py                YOLO_CUSTOM_WEIGHTS, or your trained model in place of ours, on TEST_ANNOT_PATH
python evaluate_mAP.py mine.txt       on other pictures, annotated with the same classes, those of TRAIN_CLASSES
python evaluate_mAP.py --output out/  where the results go; results/evaluation if left out

Writes precision_recall.png, detections.json (COCO's results) and truth.json (COCO's annotations, with the same ids).
Thresholds, input size and batch size are TEST_... in yolov3/configs.py.
"""

import argparse
import sys

from yolov3 import configs
from yolov3.annotations import check_annotations
from yolov3.detector import custom_weights
from yolov3.evaluation import draw_curves, evaluate, table, write_json
from yolov3.outputs import check_writable
from yolov3.settings import UserError, project_path, read_class_names, say_it_in_one_line, shell_path
from yolov3.utils import Load_Yolo_model

OUTPUT = "results/evaluation"


@say_it_in_one_line
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", nargs="?", help="annotation file (TEST_ANNOT_PATH)")
    parser.add_argument("--output", metavar="FOLDER", help=f"folder for the results ({OUTPUT})")
    arguments = parser.parse_args()
    annotations = configs.TEST_ANNOT_PATH
    if arguments.annotations is not None:
        annotations = shell_path(arguments.annotations).absolute()
    output = project_path(OUTPUT) if arguments.output is None else shell_path(arguments.output)
    check_writable(output)

    thresholds = configs.TEST_SCORE_THRESHOLD, configs.TEST_IOU_THRESHOLD
    weights = custom_weights() if configs.YOLO_CUSTOM_WEIGHTS else None  # None: Darknet's
    detector = Load_Yolo_model(weights, input_size=configs.TEST_INPUT_SIZE)
    if read_class_names(configs.TRAIN_CLASSES) != detector.names:
        raise UserError(
            f"{annotations} is annotated with the classes of TRAIN_CLASSES = {configs.TRAIN_CLASSES!r}, but the model "
            f"has others ({', '.join(detector.names[:3])} ...): name matching ones in yolov3/configs.py"
        )
    checked = check_annotations(annotations, len(detector.names), configs.YOLO_MAX_PIXELS)
    for problem in checked.problems:
        print(f"left out: {problem}", file=sys.stderr)
    scores = evaluate(detector, checked, *thresholds, configs.TEST_BATCH_SIZE, configs.YOLO_MAX_PIXELS)
    for problem in scores.problems:
        print(f"left out: {problem}", file=sys.stderr)

    print(f"{table(scores)}\n\n{len(scores.truth['images'])} pictures, {scores.images_per_second:.1f} a second")
    write_json(output / "detections.json", scores.found)
    write_json(output / "truth.json", scores.truth)
    draw_curves(output / "precision_recall.png", scores)
    print(f"written: {output}")


if __name__ == "__main__":
    sys.exit(main())
