"""Fit anchors to the boxes of an annotation file, by k-means with 1 - IoU as the distance, for TRAIN_ANCHORS.

python tools/Anchors.py                                    TRAIN_ANNOT_PATH, at TRAIN_INPUT_SIZE
python tools/Anchors.py mine.txt --classes mine.names --size 608 --heads 3
"""

import _path
from yolov3 import configs
from yolov3.anchors import box_sizes, fit_heads, mean_iou
from yolov3.annotations.datasets import read_names
from yolov3.annotations.format import check_annotations
from yolov3.checks import as_given, check_input_size, check_path, say_it_in_one_line
from yolov3.heads import configured_network
from yolov3.networks import NETWORKS, network_name
from yolov3.settings import ScriptParser, configured_names


@say_it_in_one_line
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("annotations", nargs="?", help="file (TRAIN_ANNOT_PATH)")
    parser.add_argument("--classes", metavar="NAMES", help="names file (TRAIN_CLASSES)")
    parser.add_argument("--size", type=int, help="size of the network input, pixels (TRAIN_INPUT_SIZE)")
    parser.add_argument("--heads", type=int, choices=(2, 3), help="2 for tiny networks, else 3 (TRAIN_YOLO_TINY)")
    parser.add_argument("--seed", type=int, default=0, help="another may fit a little better (%(default)s)")
    arguments = parser.parse_args()
    network = configured_network()
    if arguments.heads is not None:
        network = NETWORKS[network_name(configs.YOLO_TYPE, arguments.heads == 2)]
    given = (configs.TRAIN_INPUT_SIZE, "TRAIN_INPUT_SIZE") if arguments.size is None else (arguments.size, "--size")
    size, published = check_input_size(*given, network.multiple), network.heads.anchors

    class_count = len(read_names(arguments.classes) if arguments.classes else configured_names())
    annotations = arguments.annotations or check_path("TRAIN_ANNOT_PATH", configs.TRAIN_ANNOT_PATH)
    checked = check_annotations(as_given(annotations), class_count, configs.YOLO_MAX_PIXELS)
    sizes = box_sizes(checked.records, checked.sizes, size, configs.YOLO_RESIZE)
    heads = fit_heads(sizes, [len(head) for head in published], arguments.seed)

    left_out = f", {len(checked.problems)} problems left out: see tools/Check_annotations.py" * bool(checked.problems)
    print(f"{len(sizes)} boxes of {len(checked.records)} pictures at {size}{left_out}")
    before = mean_iou(sizes, sum(published, ()))
    print(f"best IoU, on average: {before:.3f} with the published anchors of {network.name}")
    print(f"                      {mean_iou(sizes, sum(heads, ())):.3f} with\nTRAIN_ANCHORS = {heads}")


if __name__ == "__main__":
    main()
