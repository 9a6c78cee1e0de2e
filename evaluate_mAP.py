"""Measure a detector on annotated pictures: COCO's AP, a row for each class, precision-recall curves, speed.

python evaluate_mAP.py                   the model that detection_custom.py uses, on TEST_ANNOT_PATH
python evaluate_mAP.py coco64.txt        the model that has the classes of these annotations, on their pictures
python evaluate_mAP.py --weights PATH    a checkpoint folder, its bare name, or a .weights file
python evaluate_mAP.py --output FOLDER   where the results go; results/evaluation if left out

Class numbers in TEST_ANNOT_PATH are those of TRAIN_CLASSES. In other annotations they are those of the .names file
beside them, which the converters in tools/ write; without such a file, those of TRAIN_CLASSES or YOLO_COCO_CLASSES,
whichever the model has.

The model is that of --weights, or else YOLO_CUSTOM_WEIGHTS. If this is None, annotations with the classes of
YOLO_COCO_CLASSES measure Darknet's weights, as detection_demo.py uses them, and all others your own model, as
detection_custom.py uses it. Its class names must be the annotated ones in the same order; otherwise detections of one
class would be compared with boxes of another. Thresholds, input size and batch size are TEST_... in yolov3/configs.py.
The table gives precision and recall of each class at IoU 0.5, at the score threshold with its best F1.

Draws curves of precision and recall, F1 by the score threshold, the confusion matrix, and pictures with truth and
detections side by side. Writes detections.json (COCO's results) and truth.json (COCO's annotations, with the same ids):
    truth = COCO("truth.json"); COCOeval(truth, truth.loadRes("detections.json"), "bbox")
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from yolov3 import configs
from yolov3.annotations.cli import check_names, read_pictures, tell_left_out
from yolov3.annotations.format import largest_class
from yolov3.checkpoint import ModelSpec
from yolov3.checks import (
    UserError,
    as_given,
    check_input_size,
    check_threshold,
    project_path,
    read_class_names,
    say_it_in_one_line,
    shell_path,
)
from yolov3.evaluation import evaluate
from yolov3.files import check_writable
from yolov3.loading import SHIPPED, Load_Yolo_model, configured_model, custom_weights
from yolov3.report import draw_report, table, write_coco_json
from yolov3.settings import ScriptParser, configured_names, write_settings

OUTPUT = "results/evaluation"
DRAWN, SAMPLES = "model_data/digits/digits_test.txt", "IMAGES/digits/digits.txt"  # the samples come with the project


def parse_arguments() -> argparse.Namespace:
    """Return the command line with what it leaves out filled in."""
    parser = ScriptParser(__doc__)
    parser.add_argument("annotations", nargs="?", metavar="ANNOTATIONS", help="annotation file (TEST_ANNOT_PATH)")
    parser.add_argument("--weights", metavar="PATH", help="model to measure (that of detection_custom.py)")
    parser.add_argument("--output", metavar="FOLDER", help=f"folder for the results ({OUTPUT})")
    arguments = parser.parse_args()
    arguments.names_file = configs.TRAIN_CLASSES
    if arguments.annotations is None:
        arguments.annotations = default_annotations()
    else:
        arguments.annotations = as_given(arguments.annotations)
        arguments.names_file = names_beside(project_path(arguments.annotations))
    arguments.framework = configs.YOLO_FRAMEWORK if arguments.weights is None else None  # None: that of the folder
    arguments.weights = choose_weights(arguments) if arguments.weights is None else as_given(arguments.weights)
    arguments.output = project_path(OUTPUT) if arguments.output is None else shell_path(arguments.output).absolute()
    return arguments


def default_annotations() -> str:
    """Return TEST_ANNOT_PATH, or the samples that come with the project if its digits have not been drawn yet."""
    if configs.TEST_ANNOT_PATH is None:
        raise UserError("TEST_ANNOT_PATH = None: name an annotation file there, or on the command line")
    if configs.TEST_ANNOT_PATH != DRAWN or project_path(DRAWN).exists():
        return configs.TEST_ANNOT_PATH
    print(f"{DRAWN} is not there yet (python tools/Make_digits.py draws it): measuring on {SAMPLES}")
    return SAMPLES


def names_beside(file: Path) -> Path | None:
    """Return the names file of an annotation file: the one named like it (mine.names for mine_test.txt, too), or the
    only one beside it."""
    named = file.with_suffix(".names"), file.with_name(f"{file.stem.rpartition('_')[0]}.names")
    others = list(file.parent.glob("*.names"))
    return next((one for one in named if one.exists()), others[0] if len(others) == 1 else None)


def choose_weights(arguments: argparse.Namespace) -> str | Path | None:
    """Return the weights to measure if none are named; None means Darknet's, as detection_demo.py uses them."""
    own = custom_weights()
    if configs.YOLO_CUSTOM_WEIGHTS:
        return own
    ours, coco = configured_names("TRAIN_CLASSES"), configured_names("YOLO_COCO_CLASSES")
    if arguments.names_file is None:  # with the weights we ship, class numbers that digits do not have are COCO's
        means_coco = own == SHIPPED and largest_class(arguments.annotations) >= len(ours)
    else:
        annotated = read_class_names(arguments.names_file)
        means_coco = annotated == coco and (annotated != ours or own == SHIPPED)
    return None if means_coco else own


def annotated_names(arguments: argparse.Namespace, spec: ModelSpec) -> Sequence[str]:
    """Return the class names that the annotations number. Raises UserError if the model has others."""
    if arguments.names_file is not None:
        names = read_class_names(arguments.names_file)
    elif spec.classes == (coco := configured_names("YOLO_COCO_CLASSES")):
        names = coco
    else:
        names = configured_names()
    is_constant = arguments.names_file in (None, configs.TRAIN_CLASSES)
    check_names(spec.classes, names, None if is_constant else arguments.names_file)
    return names


@say_it_in_one_line
def main() -> None:
    # 1. What to measure, and on which pictures
    arguments = parse_arguments()
    check_writable(arguments.output)
    constants = ("TEST_SCORE_THRESHOLD", "TEST_IOU_THRESHOLD")
    thresholds = [check_threshold(constant, getattr(configs, constant)) for constant in constants]
    size = configs.TEST_INPUT_SIZE
    if size is not None:
        size = check_input_size(size, "TEST_INPUT_SIZE")
    chosen = {"input_size": size, "framework": arguments.framework}
    names = annotated_names(arguments, configured_model(arguments.weights, **chosen)[0])
    checked = read_pictures(arguments.annotations, len(names))
    detector = Load_Yolo_model(arguments.weights, **chosen)

    # 2. Measure
    batch_size = configs.TEST_BATCH_SIZE
    print(f"{detector.name}: {detector.spec}; on {arguments.annotations}")
    data = checked.records, checked.sizes, names
    scores = evaluate(detector, *data, *thresholds, batch_size, configs.YOLO_MAX_PIXELS)
    tell_left_out(scores.problems)

    # 3. Show and write the results
    pictures, boxes = len(scores.truth["images"]), len(scores.truth["annotations"])
    print(f"{pictures} pictures with {boxes} boxes; {len(scores.detections)} found with scores over {thresholds[0]:g}")
    print(f"{scores.images_per_second:.1f} images per second, detection alone, batches of {batch_size}")
    print(detector.timings)
    print(f"\n{table(scores)}\n")
    write_coco_json(arguments.output, scores)
    shown = check_threshold("YOLO_SCORE_THRESHOLD", configs.YOLO_SCORE_THRESHOLD)
    drawn = draw_report(arguments.output, scores, checked.records, shown, configs.YOLO_MAX_PIXELS)
    write_settings(arguments.output)
    print(f"written: detections.json, truth.json, {', '.join(drawn[:-1])} and {drawn[-1]} in {arguments.output}")


if __name__ == "__main__":
    main()
