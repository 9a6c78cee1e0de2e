"""The SavedModel of tools/Convert_to_pb.py for TensorRT on an NVIDIA GPU, in INT8, FP16 or FP32, by TF-TRT.

python tools/Convert_to_TRT.py               checkpoints/{type}[-tiny]-trt-{mode}-{size}
python tools/Convert_to_TRT.py --overwrite   also over one that was made from something else

YOLO_TRT_QUANTIZE_MODE in yolov3/configs.py is the mode. INT8 is calibrated on real pictures, YOLO_CALIBRATION_COUNT of
YOLO_CALIBRATION_IMAGES. Engines are built here, for YOLO_TRT_BATCH_SIZES and this machine's GPU, which takes minutes.
Then, to detect with them:

    YOLO_FRAMEWORK = "trt"
    YOLO_CUSTOM_WEIGHTS = "checkpoints/yolov4-tiny-trt-INT8-416"

TensorRT gets the network up to its raw heads. The boxes' arithmetic behind them stays in TensorFlow, in float32: eight
bits are too few for a place in pixels. Needs: pip install -r requirements-trt.txt
"""

import contextlib
import multiprocessing
import sys
import tempfile
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from any directory

import yolov3  # noqa: E402, F401  before TensorFlow, which it keeps quiet

# isort: split
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from engines import (  # noqa: E402
    Converted,
    Options,
    convert,
    rename_engines,
    report,
    save_raw_heads,
    share_of_engines,
)
from targets import (  # noqa: E402
    TOLERANCE,
    baked,
    calibration_inputs,
    check_same,
    destination,
    folder_size,
    in_project,
    made_from,
    parse_arguments,
    read_source,
    sample_images,
)

from yolov3 import configs, savedmodel  # noqa: E402
from yolov3.checkpoint import write_about, written_whole  # noqa: E402
from yolov3.frameworks import allow_memory_growth  # noqa: E402
from yolov3.settings import UserError, check_count, choose, say_it_in_one_line  # noqa: E402
from yolov3.tftrt import check_tensorrt, import_converter, op_converters  # noqa: E402

MODES = ("INT8", "FP16", "FP32")


def read_options():
    sizes = configs.YOLO_TRT_BATCH_SIZES
    if not isinstance(sizes, (tuple, list)) or not sizes:
        raise UserError(f"YOLO_TRT_BATCH_SIZES = {sizes!r} must be whole numbers in brackets: (1,) or (1, 8)")
    return Options(
        check_count("YOLO_TRT_WORKSPACE", configs.YOLO_TRT_WORKSPACE, 1),
        tuple(sorted({check_count("YOLO_TRT_BATCH_SIZES", size, 1) for size in sizes})),
        check_count("YOLO_TRT_MIN_SEGMENT", configs.YOLO_TRT_MIN_SEGMENT, 1),
        choose("YOLO_TRT_PORTABLE", configs.YOLO_TRT_PORTABLE, (True, False)),
    )


def elsewhere(function, *arguments):
    """function(*arguments), in a process of its own: one that has engines loaded cannot load them once more."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare) as process:
        return process.submit(function, *arguments).result()


def prepare():
    allow_memory_growth()
    import_converter()  # makes TRTEngineOp known


def add_signatures(folder, converted, model, *baked):
    savedmodel.save(folder, Converted(converted, model), model, *baked)


def answer(folder, model, batches):
    network = savedmodel.load_network(folder, model)
    return [network(tf.constant(images))["predictions"].numpy() for images in batches]


@contextlib.contextmanager
def scratch_folder():
    """A temporary folder that all others go into meanwhile: TF-TRT makes some, engines in them, and leaves them."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def exact_float32():
    """GPUs since Ampere round the factors of float32 convolutions to ten bits, in TensorFlow and TensorRT, unless
    told not to."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def write_trt(folder, source, target, options, inputs=None, facts=()):
    """A SavedModel folder -> a TensorRT folder, target its Model, checked; its Share, how far it is off TensorFlow on a
    picture, at worst, and MB. INT8 needs the inputs to calibrate on, and facts of them for model.json."""
    thresholds, images = baked(source), sample_images(target)
    made = {"batch_sizes": options.batch_sizes, "portable": options.portable}
    allow_memory_growth()
    try:
        with exact_float32(), scratch_folder() as scratch, written_whole(folder) as part:
            heads, converted = Path(scratch) / "heads", Path(scratch) / "converted"
            save_raw_heads(heads, source, target)
            graph = convert(heads, converted, target.precision, options, images.numpy(), inputs)
            share = share_of_engines(graph)
            if not share.engines:
                raise UserError("TF-TRT has left the whole network in TensorFlow: lower YOLO_TRT_MIN_SEGMENT")
            rename_engines(converted, f"trt{uuid.uuid4().hex[:8]}")
            elsewhere(add_signatures, part, converted, target, *thresholds.values())
            write_about(part, target, made_from(source), **thresholds, **dict(facts), **made)
            batches = [np.repeat(images, size, 0) for size in options.batch_sizes]  # an engine for each
            network = savedmodel.load_network(source, target)
            expected = [network(tf.constant(images))["predictions"] for images in batches]
            tolerance = TOLERANCE if target.precision == "FP32" else np.inf
            answers = zip(elsewhere(answer, part, target, batches), expected, strict=True)
            worst = max(check_same(ours, theirs, folder, tolerance) for ours, theirs in answers)
            return share, worst, folder_size(part)
    except UserError:
        raise
    except (tf.errors.OpError, RuntimeError, ValueError, BrokenProcessPool) as error:  # TF-TRT's and TensorRT's own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"TensorRT does not take {source} ({reason}): TF_CPP_MIN_LOG_LEVEL=0 says more") from None


@say_it_in_one_line
def main():
    # 1. What to convert, and whether all that it takes is there
    overwrite, started = parse_arguments(__doc__).overwrite, time.monotonic()
    mode = choose("YOLO_TRT_QUANTIZE_MODE", configs.YOLO_TRT_QUANTIZE_MODE, MODES)
    options = read_options()
    check_tensorrt(options.workspace)
    source, model = read_source()
    target, folder = destination(source, model, "trt", mode, overwrite)
    inputs, facts = calibration_inputs(model) if mode == "INT8" else (None, {})

    # 2. Engines, built, written and tried in another process
    sizes = ", ".join(map(str, options.batch_sizes))
    print(f"{in_project(source)}: {model.name}, {len(model.classes)} classes, {model.input_size} pixels")
    print("".join(f"{name.replace('_', ' ')}: {fact}\n" for name, fact in facts.items()), end="")
    print(f"building {mode} engines for batches of {sizes}, which takes minutes", flush=True)
    share, worst, size = write_trt(folder, source, target, options, inputs, facts)
    print(*report(share, op_converters(), options.min_segment), sep="\n")
    print(f"within {worst:.1g} of TensorFlow on a picture; {size:.1f} MB, {time.monotonic() - started:.0f} s")
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
