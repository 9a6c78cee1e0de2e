"""The SavedModel of tools/Convert_to_pb.py for AWS Neuron: Inf1, Inf2 and Trn1.

python tools/Convert_to_Neuron.py                 checkpoints/{type}[-tiny]-neuron-{size}
python tools/Convert_to_Neuron.py --chip cpu      all but the compiler, to try on any machine
python tools/Convert_to_Neuron.py --dynamic-batch-size    for requests of any number of pictures
python tools/Convert_to_Neuron.py --overwrite     also over one that was made from something else

NEURON_... in yolov3/configs.py are the chip, the batch size, and what may be calculated in half precision. The result
has both signatures: the chip computes the dense network, its host all that goes before and behind it. Then:

    YOLO_FRAMEWORK = "neuron"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-neuron-416"

Needs Python 3.10 or older: pip install -r requirements-neuron.txt, and the vendor's package for the chip.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from any directory

import yolov3  # noqa: E402, F401  before TensorFlow, which it keeps quiet

# isort: split
import tensorflow as tf  # noqa: E402
from targets import (  # noqa: E402
    baked,
    check_same,
    destination,
    folder_size,
    in_project,
    made_from,
    read_source,
    sample_images,
)

from yolov3 import configs, savedmodel  # noqa: E402
from yolov3.checkpoint import write_about, written_whole  # noqa: E402
from yolov3.neuron import CHIPS, OnChip, dense_network, import_compiler  # noqa: E402
from yolov3.settings import UserError, check_count, choose, say_it_in_one_line  # noqa: E402

TRANSFERS = ("float32", "float16", "bfloat16")
CASTS = ("none", "matmult", "all")
CAST_FLAGS = {  # what each compiler calls NEURON_AUTO_CAST
    "inf1": {"none": "--fp32-cast=none", "matmult": "--fp32-cast=matmult", "all": "--fp32-cast=all"},
    "inf2": {cast: f"--auto-cast={cast}" for cast in CASTS},
    "trn1": {cast: f"--auto-cast={cast}" for cast in CASTS},
}
LEAST_ON_CHIP = 0.9  # of the operators
TOLERANCE = 5e-3  # of boxes and scores, with half precision between host and chip


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=CHIPS, default=configs.NEURON_CHIP, help=f"({configs.NEURON_CHIP})")
    parser.add_argument("--batch-size", type=int, default=configs.NEURON_BATCH_SIZE, help="pictures at a time")
    parser.add_argument(
        "--dynamic-batch-size",
        action=argparse.BooleanOptionalAction,
        default=configs.NEURON_DYNAMIC_BATCH_SIZE,
        help="take any number of pictures, in batches of that size",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was made from something else")
    return parser.parse_args()


def compiled(dense, example, chip, cast, dynamic):
    """The dense network by the vendor's compiler. Raises UserError if too little of it is for the chip."""
    compiler = import_compiler(chip)
    if compiler is None:
        return tf.function(dense, input_signature=[tf.TensorSpec((None, *example.shape[1:]), example.dtype)])
    flags = CAST_FLAGS[chip][cast] + (" --dynamic-batch-size" if dynamic else "")
    os.environ["NEURON_CC_FLAGS"] = f"{os.environ.get('NEURON_CC_FLAGS', '')} {flags}".strip()
    found = compiler.analyze_model(dense, example)
    supported = found["supported_count"] / max(found["total_count"], 1)
    print(f"{100 * supported:.1f}% of {found['total_count']} operators can run on {chip}")
    check_share(supported, found["unsupported_operators"], chip)
    traced = compiler.trace(dense, example)
    print(f"{100 * traced.on_neuron_ratio:.1f}% of the operators do")
    check_share(traced.on_neuron_ratio, found["unsupported_operators"], chip)
    return traced


def check_share(share, unsupported, chip):
    if share < LEAST_ON_CHIP:
        names = ", ".join(sorted(unsupported)) or "none named"
        raise UserError(f"only {100 * share:.0f}% of the operators would run on {chip}, not these: {names}")


@say_it_in_one_line
def main():
    # 1. What to convert, and whether all that it takes is there
    arguments, started = parse_arguments(), time.monotonic()
    chip = choose("NEURON_CHIP", arguments.chip, CHIPS)
    cast = choose("NEURON_AUTO_CAST", configs.NEURON_AUTO_CAST, CASTS)
    transfer = tf.as_dtype(choose("NEURON_TRANSFER", configs.NEURON_TRANSFER, TRANSFERS))
    batch_size = check_count("NEURON_BATCH_SIZE", arguments.batch_size, 1)
    dynamic = choose("NEURON_DYNAMIC_BATCH_SIZE", arguments.dynamic_batch_size, (True, False))
    import_compiler(chip)
    source, model = read_source()
    precision = "FP32" if cast == "none" or chip == "cpu" else "BF16"
    target, folder = destination(source, model, "neuron", precision, arguments.overwrite)

    # 2. The dense network compiled, the rest around it, written and read back
    images, thresholds = sample_images(model), baked(source)
    example = tf.cast(tf.repeat(images, batch_size, 0), transfer)
    signature = savedmodel.load(source)
    dense = compiled(dense_network(signature, transfer), example, chip, cast, dynamic)
    facts = {"chip": chip, "batch_size": batch_size, "dynamic_batch_size": dynamic, "transfer": transfer.name}
    with written_whole(folder) as part:
        network = OnChip(dense, transfer, None if dynamic else batch_size, model.features)
        savedmodel.save(part, network, target, **thresholds)
        write_about(part, target, made_from(source), **thresholds, **facts)
        answers = savedmodel.load(part)(images=images)["predictions"]
        worst = check_same(answers, signature(images=images)["predictions"], folder, TOLERANCE)
        size = folder_size(part)

    print(f"{in_project(source)}: {model.name}, {len(model.classes)} classes, {model.input_size} pixels, for {chip}")
    print(f"within {worst:.1g} of TensorFlow on a picture; {size:.1f} MB, {time.monotonic() - started:.0f} s")
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
