"""TFLite for phones, Raspberry Pis and CPUs: a file run by LiteRT, and written from a SavedModel in FP32, FP16 or INT8.

    precision  input                        what the file answers
    FP32 FP16  images float32 (1, H, W, 3)  predictions float32 (1, boxes, 4 + classes), as `serving_default`
    INT8       images uint8 (1, H, W, 3)    raw_head_0, raw_head_1 ... int8 (1, H/stride, W/stride, channels)

FP16 halves the weights; a phone's GPU also calculates in it. In INT8 the whole network calculates. What follows its raw
heads is calculated here, in float32: eight bits are too few for a place in pixels.
"""

import contextlib
import os
import tempfile
import threading
import warnings

from yolov3.checkpoint import write_about
from yolov3.checks import UserError
from yolov3.files import whole_folder
from yolov3.runtimes import RUNTIMES, RunOptions, Written, savedmodel
from yolov3.runtimes.common import TOLERANCE, check_same, decoder, made_from, sample_images
from yolov3.runtimes.tflite_metadata import with_metadata

import numpy as np
import tensorflow as tf

FILE = "model.tflite"
SIGNATURE = "serving_default"
LEAST_RAW = -8.0  # of INT8's raw heads: a sigmoid of 0.0003 is nothing, and steps are half as wide as down to -29
ANSWERS = {
    "FP32": "predictions: x1, y1, x2, y2 as fractions of the input, then the score of each class",
    "INT8": "raw heads, smallest stride first, to be decoded",
}


def load(spec, folder, options):
    """The TFLite file that tools/Convert_to_TFLite.py has written, on the CPU."""
    file, threads = folder / FILE, options.tflite_threads or os.cpu_count()
    try:
        with silence():
            interpreter = import_interpreter()(str(file), num_threads=threads)
            interpreter.allocate_tensors()
            runner = interpreter.get_signature_runner(SIGNATURE)
            given, answered = runner.get_input_details(), runner.get_output_details()
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be loaded by LiteRT ({reason}): {_remedy(spec)}") from None
    heads = [savedmodel.RAW_HEAD.format(i) for i in range(len(spec.heads.strides))]
    features, size = ["features"] * spec.features, [1, spec.input_size, spec.input_size, 3]
    takes_ours = list(given) == ["images"] and given["images"]["shape"].tolist() == size
    if not takes_ours or sorted(answered) not in (sorted(["predictions", *features]), sorted([*heads, *features])):
        found = ", ".join([f"{name} {detail['shape'].tolist()}" for name, detail in given.items()] + list(answered))
        raise UserError(
            f"{file} takes and answers {found}, not images {size} and {', '.join(['predictions', *features])} or "
            f"{', '.join([*heads, *features])}: {_remedy(spec)}"
        )
    finish, lock = decoder(spec), threading.Lock()

    def network(images):
        with lock:  # an interpreter is for one thread at a time, and uses all of them
            rows = [runner(images=_to_integers(image[np.newaxis], given["images"])) for image in np.asarray(images)]
        answers = {
            name: np.concatenate([_to_floats(row[name], detail) for row in rows]) for name, detail in answered.items()
        }
        if heads[0] in answers:
            answers["predictions"] = finish([answers.pop(name) for name in heads])
        return {name: tf.constant(answer) for name, answer in answers.items()}

    return network


def _to_integers(values, detail):
    """Return what a tensor of the interpreter holds for float32 values."""
    scale, zero = detail["quantization"]
    if not scale:
        return values
    limits = np.iinfo(detail["dtype"])
    return np.round(values / np.float32(scale) + zero).clip(limits.min, limits.max).astype(detail["dtype"])


def _to_floats(values, detail):
    """Return the float32 values that a tensor of the interpreter holds."""
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale) if scale else values


def _remedy(spec):
    return f"python {RUNTIMES[spec.framework].converter} writes one"


def import_interpreter():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(
            f"LiteRT is not installed or cannot be loaded ({error}): pip install -r requirements/tflite.txt"
        ) from None
    return Interpreter


@contextlib.contextmanager
def silence():
    """Close standard error to what LiteRT and the converter tell of themselves; what fails is an exception, too."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


# --- Writing ----------------------------------------------------------------------------------------------------------


def check(precision, options):
    """Raise UserError if LiteRT, which tries what is written, is not installed."""
    import_interpreter()


def write(folder, source, spec, options=None, inputs=None, facts=()):
    """Write a SavedModel folder as a TFLite folder, checked against TensorFlow on a picture.

    inputs, facts  what INT8 is calibrated on, and what model.json is to say of it
    """
    size = (spec.input_size, spec.input_size)
    outputs = ANSWERS["INT8" if spec.precision == "INT8" else "FP32"]
    with whole_folder(folder) as part:
        content = convert(source, spec, inputs)
        (part / FILE).write_bytes(with_metadata(content, spec, size, outputs))
        write_about(part, spec, made_from(source), **dict(facts))
        images = sample_images(spec)
        expected = savedmodel.load(source)(images=images)["predictions"]
        answers = load(spec, part, RunOptions())(images)["predictions"]
        return Written(check_same(answers, expected, folder, TOLERANCE if spec.precision == "FP32" else np.inf))


def convert(source, spec, inputs):
    """Return the bytes of the TFLite file of a SavedModel folder, for one picture at a time."""
    module = tf.Module()
    if spec.precision == "INT8":
        module.network = savedmodel.cut_at_raw_heads(source, spec)
    else:
        module.network = savedmodel.load(source)
    image = tf.TensorSpec((1, *savedmodel.image_spec(spec).shape[1:]), tf.float32, "images")

    @tf.function(input_signature=[image], autograph=False)
    def serving_default(images):
        if spec.precision != "INT8":
            return module.network(images=images)
        outputs, count = module.network(images), len(spec.heads.strides)
        heads = {savedmodel.RAW_HEAD.format(i): tf.maximum(x, LEAST_RAW) for i, x in enumerate(outputs[:count])}
        return {**heads, **({"features": outputs[count]} if spec.features else {})}

    with tempfile.TemporaryDirectory() as scratch, silence():
        tf.saved_model.save(module, scratch, {SIGNATURE: serving_default})
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=[SIGNATURE])
        if spec.precision != "FP32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if spec.precision == "FP16":
            converter.target_spec.supported_types = [tf.float16]
        if spec.precision == "INT8":
            converter.representative_dataset = lambda: ({"images": images} for images in inputs)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.int8
        try:
            return converter.convert()
        except Exception as error:  # its classes are those of a C++ library
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"TensorFlow Lite does not take {source} ({reason})") from None
