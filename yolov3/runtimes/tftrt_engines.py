"""Prepare a graph up to its raw heads for TF-TRT, convert it, and report on the engines that come out.

All arguments and inputs of TF-TRT are made here, so that everything but its own work can be tested without a GPU.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yolov3.boxes import decode
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError
from yolov3.runtimes import savedmodel
from yolov3.runtimes.tf import RAW_HEAD
from yolov3.runtimes.tftrt import import_converter

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SIGNATURE = "serving_default"
NO_WORK = ("Const", "Identity", "NoOp", "Placeholder")  # operations that take no time and are not counted
ENGINE_NAME = re.compile(rb"TRTEngineOp(?=_\d+_\d+)")


class Options(NamedTuple):
    """Say how to build engines: the YOLO_TRT_ constants."""

    workspace: int = 2048  # MB
    batch_sizes: tuple[int, ...] = (1,)
    min_segment: int = 3
    portable: bool = False


DEFAULTS = Options()

# --- What TF-TRT gets: part of the graph, and inputs -----------------------------------------------------------------


def save_raw_heads(folder: Path, source: Path, spec: ModelSpec) -> None:
    """Save the part of a SavedModel that has the weights as a SavedModel of its own.

    Its outputs, output_0, output_1, ..., are the raw heads and, of a model that has them, the features.
    """
    flat = convert_variables_to_constants_v2(savedmodel.load(source))
    outputs = {operation.name.rpartition("/")[2]: operation.outputs for operation in flat.graph.get_operations()}
    try:
        heads = [outputs[RAW_HEAD.format(i)][0].name for i in range(len(spec.heads.strides))]
    except KeyError as name:
        raise UserError(f"{source} has no operation {name}: python tools/Convert_to_pb.py writes it anew") from None
    features = [x.name for x in flat.outputs if x.shape.rank == 4]
    module = tf.Module()
    module.network = flat.prune([x.name for x in flat.inputs], heads + features)

    @tf.function(input_signature=[savedmodel.image_spec(spec)], autograph=False)
    def raw_heads(images):
        return {f"output_{i}": output for i, output in enumerate(module.network(images))}

    tf.saved_model.save(module, str(folder), {SIGNATURE: raw_heads})


def head_shapes(spec: ModelSpec) -> list[tuple[int, int, int]]:
    """Return the shapes of the raw heads, without the batch, smallest stride first."""
    cells = [spec.input_size // stride for stride in spec.heads.strides]
    channels = [len(anchors) * (5 + len(spec.classes)) for anchors in spec.heads.anchors]
    return [(n, n, count) for n, count in zip(cells, channels, strict=True)]


def batches(inputs: Collection[np.ndarray], size: int) -> Callable[[], Iterator[list[np.ndarray]]]:
    """Return a function that gives TF-TRT inputs in batches: lists of one array (size, S, S, 3).

    inputs  float32 (1, S, S, 3) each; they can be iterated again
    The last batch is filled up with the first inputs.
    """

    def feed() -> Iterator[list[np.ndarray]]:
        images = itertools.chain.from_iterable(itertools.repeat(inputs))
        for _ in range(math.ceil(len(inputs) / size)):
            yield [np.concatenate(list(itertools.islice(images, size)))]

    return feed


def of_each_size(image: np.ndarray, sizes: Sequence[int]) -> Callable[[], Iterator[list[np.ndarray]]]:
    """Return a function that gives TF-TRT a batch of each size, of one input, float32 (1, S, S, 3)."""

    def feed() -> Iterator[list[np.ndarray]]:
        for size in sizes:
            yield [np.repeat(image, size, axis=0)]

    return feed


# --- TF-TRT ----------------------------------------------------------------------------------------------------------


def converter_arguments(folder: Path, precision: str, options: Options) -> dict[str, Any]:
    """Return the arguments of TrtGraphConverterV2."""
    return {
        "input_saved_model_dir": str(folder),
        "input_saved_model_signature_key": SIGNATURE,
        "precision_mode": precision,
        "use_calibration": precision == "INT8",
        "max_workspace_size_bytes": options.workspace * 2**20,
        "minimum_segment_size": options.min_segment,
        "maximum_cached_engines": len(options.batch_sizes),
        "use_dynamic_shape": True,  # the only kind in TensorRT 10
        "dynamic_shape_profile_strategy": "Optimal",  # an engine for each batch size; other sizes run in TensorFlow
        "allow_build_at_runtime": options.portable,
    }


def convert(
    source: Path,
    folder: Path,
    precision: str,
    options: Options,
    image: np.ndarray,
    inputs: Any = None,
) -> Any:
    """Convert a SavedModel folder of one signature to a folder with engines, and return the converted GraphDef.

    image   an input to build the engines with, float32 (1, S, S, 3)
    inputs  those to calibrate INT8 on
    """
    converter = import_converter().TrtGraphConverterV2(**converter_arguments(source, precision, options))
    feed = batches(inputs, options.batch_sizes[0]) if precision == "INT8" else None
    graph = converter.convert(calibration_input_fn=feed).graph.as_graph_def()
    converter.build(input_fn=of_each_size(image, options.batch_sizes))  # calibrates, too
    converter.save(output_saved_model_dir=str(folder), save_gpu_specific_engines=not options.portable)
    return graph


def rename_engines(folder: Path, name: str) -> None:
    """Give the engines of a SavedModel folder another name, of 11 characters.

    TF-TRT calls the first engine of every process TRTEngineOp_000_000, so a process that loads two folders would take
    the engine of one for that of the other: "Expect engine cache to be empty". The new name has the length of the old
    one, so that the file stays valid. TRTEngineOp without numbers is the kind of the operation, which is not renamed.
    """
    file, new = folder / "saved_model.pb", name.encode()
    assert len(new) == len("TRTEngineOp")
    file.write_bytes(ENGINE_NAME.sub(new, file.read_bytes()))
    for engine in folder.glob("assets/*"):
        engine.rename(engine.with_name(ENGINE_NAME.sub(new, engine.name.encode()).decode()))


class Converted(tf.Module):
    """Make a network of what TF-TRT has saved, which ends at the raw heads, and of their decoding to boxes."""

    def __init__(self, folder: Path, spec: ModelSpec):
        super().__init__()
        self.saved = tf.saved_model.load(str(folder))  # an attribute, so that its engines are saved too
        self.decode = lambda raw_heads: decode(raw_heads, spec.heads)
        self.shapes = head_shapes(spec)

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = self.saved.signatures[SIGNATURE](images=images)
        outputs = [answers[name] for name in sorted(answers)]  # TF-TRT may have renamed them, but keeps their order
        raw_heads, features = outputs[: len(self.shapes)], outputs[len(self.shapes) :]
        raw_heads = [tf.ensure_shape(x, (None, *shape)) for x, shape in zip(raw_heads, self.shapes, strict=True)]
        return dict(zip(("predictions", "features"), (self.decode(raw_heads), *features), strict=False))


# --- The report ------------------------------------------------------------------------------------------------------


class Share(NamedTuple):
    """Count the operations of a graph that went into TensorRT, and those that did not."""

    engines: int
    inside: int  # operations in engines
    outside: Counter  # all others, by kind


def share_of_engines(graph: Any) -> Share:
    """Return the Share of a converted GraphDef."""

    def working(nodes):
        return [node.op for node in nodes if node.op not in NO_WORK]

    segments = {function.signature.name: function.node_def for function in graph.library.function}
    engines = [node for node in graph.node if node.op == "TRTEngineOp"]
    inside = sum(len(working(segments[node.attr["segment_func"].func.name])) for node in engines)
    outside = Counter(working(graph.node))
    del outside["TRTEngineOp"]
    return Share(len(engines), inside, outside)


def report(share: Share, supported: Collection[str], min_segment: int) -> list[str]:
    """Return what a Share means in lines of text.

    supported  the kinds of operations that TF-TRT has a converter for
    """
    lines = [
        f"TensorRT: {share.inside} of {share.inside + share.outside.total()} operations up to the raw heads, "
        f"in {share.engines} engine{'s' * (share.engines != 1)}",
        "TensorFlow: the decoding of the raw heads to boxes, which stays in float32",
    ]
    few = f"fewer than YOLO_TRT_MIN_SEGMENT = {min_segment} in a row, or of a shape or type that TensorRT lacks"
    for kind, count in share.outside.most_common():
        lines.append(f"TensorFlow: {count} {kind}: {few if kind in supported else 'TF-TRT has no converter for it'}")
    return lines
