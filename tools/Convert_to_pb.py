"""Convert the configured model to a SavedModel for TensorFlow 2.10 and newer: one graph from picture files to boxes.

python tools/Convert_to_pb.py                  writes checkpoints/{name}-{size}
python tools/Convert_to_pb.py --overwrite      replaces a folder that was made from other weights
python tools/Convert_to_pb.py --version 1      writes into a subfolder 1, where TensorFlow Serving looks for it

It converts what YOLO_CUSTOM_WEIGHTS in yolov3/configs.py names or, if that is None, Darknet's weights of the configured
type. The name is that of the folder that a model was trained into; of Darknet's weights it is {type}[-tiny]. The
SavedModel has two signatures:

    serving_default  takes images, float32 (N, h, w, 3) in RGB, 0..1; answers predictions, float32 (N, boxes,
                     4 + classes), and, with YOLO_FEATURES, features, float32 (N, h/16, w/16, C), from which
                     object_tracker.py makes embeddings
    detect_bytes     takes image_bytes, string (N,), picture files; answers boxes (N, 100, 4) in pixels, scores, classes
                     and valid_detections. YOLO_SCORE_THRESHOLD, YOLO_IOU_THRESHOLD, YOLO_CLASS_AGNOSTIC and YOLO_RESIZE
                     are fixed in it as they are now

Before the folder gets its name, it is loaded and tried on a picture. The other converters begin with it.
"""

import time

import _path
from yolov3 import configs
from yolov3.checkpoint import check_replaceable, is_weights
from yolov3.checks import UserError, check_count, check_threshold, choose, project_path, say_it_in_one_line
from yolov3.conversion import make_parser
from yolov3.loading import SHIPPED, configured_model, custom_weights
from yolov3.runtimes import tf
from yolov3.runtimes.common import folder_name, folder_size, in_project, name_of
from yolov3.settings import write_settings


@say_it_in_one_line
def main() -> None:
    # 1. What to convert, and whether its folder may be written
    parser, started = make_parser(__doc__), time.monotonic()
    parser.add_argument("--version", type=int, help="put the SavedModel into a subfolder of that number")
    arguments = parser.parse_args()
    options = {
        "score_threshold": check_threshold("YOLO_SCORE_THRESHOLD", configs.YOLO_SCORE_THRESHOLD),
        "iou_threshold": check_threshold("YOLO_IOU_THRESHOLD", configs.YOLO_IOU_THRESHOLD),
        "class_agnostic": choose("YOLO_CLASS_AGNOSTIC", configs.YOLO_CLASS_AGNOSTIC, (True, False)),
        "max_pixels": check_count("YOLO_MAX_PIXELS", configs.YOLO_MAX_PIXELS, 1),
        "version": None if arguments.version is None else check_count("--version", arguments.version, 1),
    }
    named = configs.YOLO_CUSTOM_WEIGHTS
    spec, weights = configured_model(named, framework=None if named else "tf")
    if weights.is_dir() and not is_weights(weights):
        raise UserError(f"{weights} is a conversion already: name in YOLO_CUSTOM_WEIGHTS what it was made from")
    if named in (None, "", SHIPPED) and (trained := custom_weights()) != SHIPPED:
        trained = in_project(trained)
        print(f"converting {in_project(weights)}, not {trained}: name what you have trained in YOLO_CUSTOM_WEIGHTS")
    folder = project_path(configs.TRAIN_CHECKPOINTS_FOLDER) / folder_name(spec, name_of(weights, spec))
    check_replaceable(folder, None if arguments.overwrite else in_project(weights))

    # 2. Write the graph and read it back
    written = tf.write(folder, weights, spec, options)
    print(f"{in_project(weights)}: {spec}")
    score, iou = options["score_threshold"], options["iou_threshold"]
    across = " across classes" if options["class_agnostic"] else ""
    print(f"detect_bytes answers with scores over {score:g}, suppression at IoU {iou:g}{across}")
    seconds = time.monotonic() - started
    print(f"checked: within {written.worst:.1g} of the Keras model; {folder_size(folder):.1f} MB, {seconds:.0f} s")
    write_settings(folder)
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
