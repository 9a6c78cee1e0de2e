"""Convert the SavedModel of tools/Convert_to_pb.py for AWS Neuron: Inf1, Inf2 and Trn1.

python tools/Convert_to_Neuron.py                 writes checkpoints/{name}-neuron-{size}
python tools/Convert_to_Neuron.py --chip cpu      leaves out the compiler, to try it on any machine
python tools/Convert_to_Neuron.py --dynamic-batch-size    for requests of any number of pictures
python tools/Convert_to_Neuron.py --overwrite     replaces a folder that was made from something else

The NEURON_ constants in yolov3/configs.py set the chip, the batch size, and what may be computed in half precision. The
result has both signatures. The chip computes the dense network, its host what comes before and after. To detect with
the result:

    YOLO_FRAMEWORK = "neuron"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-neuron-416"

It needs Python 3.10 or older, pip install -r requirements/neuron.txt, and the vendor's package for the chip.
"""

import argparse

import _path
from yolov3 import configs
from yolov3.checks import check_count, choose, say_it_in_one_line
from yolov3.conversion import convert, make_parser
from yolov3.runtimes.neuron import CASTS, CHIPS, TRANSFERS, WriteOptions


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--chip", choices=CHIPS, default=configs.NEURON_CHIP, help="what to compile for (NEURON_CHIP)")
    parser.add_argument("--batch-size", type=int, default=configs.NEURON_BATCH_SIZE, help="pictures at a time")
    parser.add_argument(
        "--dynamic-batch-size",
        action=argparse.BooleanOptionalAction,
        default=configs.NEURON_DYNAMIC_BATCH_SIZE,
        help="accept any number of pictures and compute them in batches of that size",
    )
    return parser.parse_args()


@say_it_in_one_line
def main() -> None:
    arguments = parse_arguments()
    options = WriteOptions(
        choose("NEURON_CHIP", arguments.chip, CHIPS),
        check_count("NEURON_BATCH_SIZE", arguments.batch_size, 1),
        choose("NEURON_DYNAMIC_BATCH_SIZE", arguments.dynamic_batch_size, (True, False)),
        choose("NEURON_AUTO_CAST", configs.NEURON_AUTO_CAST, CASTS),
        choose("NEURON_TRANSFER", configs.NEURON_TRANSFER, TRANSFERS),
    )
    precision = "FP32" if options.auto_cast == "none" or options.chip == "cpu" else "BF16"
    convert("neuron", precision, options, arguments.overwrite)


if __name__ == "__main__":
    main()
