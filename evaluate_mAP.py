"""Measure a detector on annotated pictures: COCO's AP, a row for each class, precision-recall curves, speed.

python evaluate_mAP.py                   the model that detection_custom.py uses, on TEST_ANNOT_PATH
python evaluate_mAP.py mine.txt          on other pictures, annotated with the same classes
python evaluate_mAP.py --weights PATH    a checkpoint folder, its bare name, or a .weights file
python evaluate_mAP.py --output FOLDER   where the results go; results/evaluation if left out

Annotations number the classes of TRAIN_CLASSES. The model must have the same names in the same order: else one class
would be measured by another's boxes. Thresholds, input size and batch size are TEST_... in yolov3/configs.py. The
table tells precision and recall of each class for the score threshold that gives its best F1, at IoU 0.5.

Writes precision_recall.png, detections.json (COCO's results) and truth.json (COCO's annotations, with the same ids):
    truth = COCO("truth.json"); COCOeval(truth, truth.loadRes("detections.json"), "bbox")
"""

import argparse
import sys

from yolov3 import configs
from yolov3.annotation_cli import check_names, read_pictures, tell_left_out
from yolov3.checks import (
    as_given,
    check_threshold,
    project_path,
    read_class_names,
    say_it_in_one_line,
    shell_path,
)
from yolov3.evaluation import evaluate
from yolov3.files import check_writable
from yolov3.loading import custom_weights
from yolov3.report import draw_curves, table, write_coco_json
from yolov3.utils import Load_Yolo_model

OUTPUT = "results/evaluation"
DRAWN, SAMPLES = "model_data/digits/digits_test.txt", "IMAGES/digits/digits.txt"  # the samples come with the project


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", nargs="?", metavar="ANNOTATIONS", help="annotation file (TEST_ANNOT_PATH)")
    parser.add_argument("--weights", metavar="PATH", help="model to measure (that of detection_custom.py)")
    parser.add_argument("--output", metavar="FOLDER", help=f"folder for the results ({OUTPUT})")
    arguments = parser.parse_args()
    annotations = default_annotations() if arguments.annotations is None else arguments.annotations
    arguments.annotations = as_given(annotations)
    arguments.framework = configs.YOLO_FRAMEWORK if arguments.weights is None else None  # that of the folder
    arguments.weights = custom_weights() if arguments.weights is None else as_given(arguments.weights)
    arguments.output = project_path(OUTPUT) if arguments.output is None else shell_path(arguments.output).absolute()
    return arguments


def default_annotations():
    """TEST_ANNOT_PATH; as cloned, before its digits are drawn, the samples."""
    if configs.TEST_ANNOT_PATH != DRAWN or project_path(DRAWN).exists():
        return configs.TEST_ANNOT_PATH
    print(f"{DRAWN} is not there yet (python tools/Make_digits.py draws it): measuring on {SAMPLES}")
    return SAMPLES


@say_it_in_one_line
def main():
    # 1. What to measure, and on what
    arguments = parse_arguments()
    sys.stdout.reconfigure(errors="backslashreplace")  # names need not be what the terminal can show
    check_writable(arguments.output)
    constants = ("TEST_SCORE_THRESHOLD", "TEST_IOU_THRESHOLD")
    thresholds = [check_threshold(constant, getattr(configs, constant)) for constant in constants]
    names = read_class_names(configs.TRAIN_CLASSES)
    checked = read_pictures(arguments.annotations, len(names))
    detector = Load_Yolo_model(arguments.weights, input_size=configs.TEST_INPUT_SIZE, framework=arguments.framework)
    check_names(detector.names, names)

    # 2. Measuring
    model, batch_size = detector.spec, configs.TEST_BATCH_SIZE
    runtime = f"{model.framework} {model.precision}"
    print(f"{arguments.annotations}, by {model.name} at {model.input_size} pixels, {model.resize}, {runtime}")
    data = checked.records, checked.sizes, names
    scores = evaluate(detector, *data, *thresholds, batch_size, configs.YOLO_MAX_PIXELS)
    tell_left_out(scores.problems)

    # 3. The results
    pictures, boxes = len(scores.truth["images"]), len(scores.truth["annotations"])
    print(f"{pictures} pictures with {boxes} boxes; {len(scores.detections)} found, of scores over {thresholds[0]:g}")
    print(f"{scores.images_per_second:.1f} images per second, detection alone, batches of {batch_size}")
    print(f"\n{table(scores)}\n")
    write_coco_json(arguments.output, scores)
    draw_curves(arguments.output / "precision_recall.png", scores)
    print(f"written: detections.json, truth.json and precision_recall.png in {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
