"""Load and write networks for LiteRT on phones, Raspberry Pis and CPUs: a TFLite file in FP32, FP16 or INT8.

    precision  input                        what the file answers
    FP32 FP16  images float32 (1, H, W, 3)  predictions float32 (1, boxes, 4 + classes), as `serving_default`
    INT8       images uint8 (1, H, W, 3)    raw_head_0, raw_head_1 ... int8 (1, H/stride, W/stride, channels)

FP16 halves the size of the weights; a phone's GPU also computes in it. INT8 computes the whole network in integers. Its
raw heads are decoded here in float32, since eight bits are too few for a position in pixels.
"""

import contextlib
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from yolov3.checkpoint import ModelSpec, write_about
from yolov3.checks import UserError
from yolov3.files import whole_folder
from yolov3.runtimes import RUNTIMES, RunOptions, Written, savedmodel
from yolov3.runtimes.common import TOLERANCE, check_same, decoder, made_from, sample_images
from yolov3.runtimes.tflite_metadata import with_metadata

import numpy as np
import tensorflow as tf

FILE = "model.tflite"
SIGNATURE = "serving_default"
LEAST_RAW = -8.0  # of INT8's raw heads: sigmoid(-8) is 0.0003, and down to -29 steps would be twice as wide
ANSWERS = {
    "FP32": "predictions: x1, y1, x2, y2 as fractions of the input, then the score of each class",
    "INT8": "raw heads, smallest stride first, to be decoded",
}


def load(spec: ModelSpec, folder: Path, options: RunOptions) -> Callable:
    """Return the network of a folder that tools/Convert_to_TFLite.py has written, on the CPU."""
    file, threads = folder / FILE, options.tflite_threads or os.cpu_count()
    try:
        with silence():
            interpreter = import_interpreter()(str(file), num_threads=threads)
            interpreter.allocate_tensors()
            runner = interpreter.get_signature_runner(SIGNATURE)
            given, answered = runner.get_input_details(), runner.get_output_details()
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be loaded by LiteRT ({reason})", remedy(spec)) from None
    heads = [savedmodel.RAW_HEAD.format(i) for i in range(len(spec.heads.strides))]
    features, size = ["features"] * spec.features, [1, *spec.input_size, 3]
    takes_ours = list(given) == ["images"] and given["images"]["shape"].tolist() == size
    if not takes_ours or sorted(answered) not in (sorted(["predictions", *features]), sorted([*heads, *features])):
        takes = ", ".join(f"{name} {detail['shape'].tolist()}" for name, detail in given.items())
        wanted = " or ".join(", ".join(names) for names in (["predictions", *features], [*heads, *features]))
        problem = f"{file} has as input and outputs {takes} and {', '.join(answered)}, not images {size} and {wanted}"
        raise UserError(problem, remedy(spec))
    finish, lock = decoder(spec), threading.Lock()

    def network(images: tf.Tensor | np.ndarray) -> dict[str, tf.Tensor]:
        with lock:  # an interpreter is for one thread at a time, and uses all of them
            rows = [runner(images=_to_integers(image[np.newaxis], given["images"])) for image in np.asarray(images)]
        answers = {
            name: np.concatenate([_to_floats(row[name], detail) for row in rows]) for name, detail in answered.items()
        }
        if heads[0] in answers:
            answers["predictions"] = finish([answers.pop(name) for name in heads])
        return {name: tf.constant(answer) for name, answer in answers.items()}

    return network


def _to_integers(values: np.ndarray, detail: Mapping) -> np.ndarray:
    """Return what a tensor of the interpreter holds for float32 values."""
    scale, zero = detail["quantization"]
    if not scale:
        return values
    limits = np.iinfo(detail["dtype"])
    return np.round(values / np.float32(scale) + zero).clip(limits.min, limits.max).astype(detail["dtype"])


def _to_floats(values: np.ndarray, detail: Mapping) -> np.ndarray:
    """Return the float32 values that a tensor of the interpreter holds."""
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale) if scale else values


def remedy(spec: ModelSpec) -> str:
    """Return which script writes a file that can be loaded."""
    return f"python {RUNTIMES[spec.framework].converter} writes one"


def import_interpreter() -> Any:
    """Return LiteRT's Interpreter. Raises UserError if its package is missing."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        problem = f"LiteRT is not installed or cannot be loaded ({error})"
        raise UserError(problem, "pip install -r requirements/tflite.txt") from None
    return Interpreter


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Send standard error nowhere, where LiteRT and the converter write much of themselves: failures are exceptions."""
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


def check(precision: str, options: Any = None) -> None:
    """Raise UserError if LiteRT, which tries what is written, is not installed."""
    import_interpreter()


def write(
    folder: Path,
    source: Path,
    spec: ModelSpec,
    options: Any = None,
    inputs: Collection[np.ndarray] = (),
    facts: Iterable = (),
) -> Written:
    """Write a SavedModel folder as a TFLite folder, checked against TensorFlow on a picture.

    inputs  network inputs that INT8 is calibrated on
    facts   what model.json is to say of them
    """
    outputs = ANSWERS["INT8" if spec.precision == "INT8" else "FP32"]
    with whole_folder(folder) as part:
        content = convert(source, spec, inputs)
        (part / FILE).write_bytes(with_metadata(content, spec, outputs))
        write_about(part, spec, made_from(source), **dict(facts))
        images = sample_images(spec)
        expected = savedmodel.load(source)(images=images)["predictions"]
        answers = load(spec, part, RunOptions())(images)["predictions"]
        return Written(check_same(answers, expected, folder, TOLERANCE if spec.precision == "FP32" else np.inf))


def with_slices(function: Any) -> Callable:
    """Return a frozen function with slices of channels in place of splits.

    The converter would leave a split in float if one of its parts is not used, as in YOLOv4-tiny.
    """
    graph, parts = function.graph.as_graph_def(), {}
    for split in [node for node in graph.node if node.op == "Split"]:
        count, x = split.attr["num_split"].i, split.input[1]
        channels = function.graph.get_operation_by_name(split.name).inputs[1].shape[-1] // count
        for i in range(count):
            bounds = []
            for name, values in (("begin", [0, 0, 0, i * channels]), ("size", [-1, -1, -1, channels])):
                bounds.append(f"{split.name}_{name}_{i}")
                constant = graph.node.add(op="Const", name=bounds[-1])
                constant.attr["dtype"].type = tf.int32.as_datatype_enum
                constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values, tf.int32))
            part = graph.node.add(op="Slice", name=f"{split.name}_part_{i}", input=[x, *bounds])
            part.attr["T"].type, part.attr["Index"].type = split.attr["T"].type, tf.int32.as_datatype_enum
            parts[f"{split.name}:{i}" if i else split.name] = part.name
    for node in graph.node:
        node.input[:] = [parts.get(name, name) for name in node.input]

    given, answered = function.inputs[0], [output.name for output in function.outputs]

    def sliced(images):
        return tf.graph_util.import_graph_def(graph, {given.name: images}, answered, name="")

    return tf.compat.v1.wrap_function(sliced, [tf.TensorSpec(given.shape, given.dtype)])


def convert(source: Path, spec: ModelSpec, inputs: Collection[np.ndarray] = ()) -> bytes:
    """Return the bytes of the TFLite file of a SavedModel folder, for one picture at a time."""
    module = tf.Module()
    if spec.precision == "INT8":
        module.network = with_slices(savedmodel.cut_at_raw_heads(source, spec))
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
            raise UserError(f"{source} cannot be converted to TFLite ({reason})") from None
