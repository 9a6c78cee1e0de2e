"""What TF-TRT gets and gives: the graph up to its raw heads in, engines out, and a report on them.

TF-TRT gets its arguments and inputs from here alone, so that all but its own work can be tried without a GPU.
"""

import itertools
import math
import re
from collections import Counter
from typing import NamedTuple

from yolov3.boxes import decode
from yolov3.checks import UserError
from yolov3.runtimes import savedmodel
from yolov3.runtimes.tf import RAW_HEAD
from yolov3.runtimes.tftrt import import_converter

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SIGNATURE = "serving_default"
NO_WORK = ("Const", "Identity", "NoOp", "Placeholder")  # operations that cost nothing and are not counted
ENGINE_NAME = re.compile(rb"TRTEngineOp(?=_\d+_\d+)")


class Options(NamedTuple):
    """How to build engines: the YOLO_TRT_ constants."""

    workspace: int = 2048  # MB
    batch_sizes: tuple = (1,)
    min_segment: int = 3
    portable: bool = False


DEFAULTS = Options()

# --- Before TF-TRT: the part of the graph that it gets, and its inputs -----------------------------------------------


def save_raw_heads(folder, source, spec):
    """Save the part of a SavedModel that has the weights as a SavedModel of its own: images -> output_0, output_1, ...,
    the raw heads and, of a model that has them, the features."""
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


def head_shapes(spec):
    """Of its raw heads, less the batch, smallest stride first."""
    cells = [spec.input_size // stride for stride in spec.heads.strides]
    channels = [len(anchors) * (5 + len(spec.classes)) for anchors in spec.heads.anchors]
    return [(n, n, count) for n, count in zip(cells, channels, strict=True)]


def batches(inputs, size):
    """Inputs, float32 (1, S, S, 3) each, that can be had again -> a function that gives them as TF-TRT takes them, in
    lists of one array (size, S, S, 3). All are of that size: the last one is filled up from the first pictures."""

    def feed():
        images = itertools.chain.from_iterable(itertools.repeat(inputs))
        for _ in range(math.ceil(len(inputs) / size)):
            yield [np.concatenate(list(itertools.islice(images, size)))]

    return feed


def of_each_size(image, sizes):
    """One input, float32 (1, S, S, 3) -> a function that gives batches of it, as TF-TRT takes them."""

    def feed():
        for size in sizes:
            yield [np.repeat(image, size, axis=0)]

    return feed


# --- TF-TRT ----------------------------------------------------------------------------------------------------------


def converter_arguments(folder, precision, options):
    """Of TrtGraphConverterV2."""
    return {
        "input_saved_model_dir": str(folder),
        "input_saved_model_signature_key": SIGNATURE,
        "precision_mode": precision,
        "use_calibration": precision == "INT8",
        "max_workspace_size_bytes": options.workspace * 2**20,
        "minimum_segment_size": options.min_segment,
        "maximum_cached_engines": len(options.batch_sizes),
        "use_dynamic_shape": True,  # TensorRT 10 has nothing else
        "dynamic_shape_profile_strategy": "Optimal",  # tuned for each batch size; any other one runs in TensorFlow
        "allow_build_at_runtime": options.portable,
    }


def convert(source, folder, precision, options, image, inputs=None):
    """A SavedModel folder -> one with engines in it, of one signature -> the converted GraphDef."""
    converter = import_converter().TrtGraphConverterV2(**converter_arguments(source, precision, options))
    feed = batches(inputs, options.batch_sizes[0]) if precision == "INT8" else None
    graph = converter.convert(calibration_input_fn=feed).graph.as_graph_def()
    converter.build(input_fn=of_each_size(image, options.batch_sizes))  # calibrates, too
    converter.save(output_saved_model_dir=str(folder), save_gpu_specific_engines=not options.portable)
    return graph


def rename_engines(folder, name):
    """Gives the engines of a SavedModel folder a name, 11 characters, of their own.

    TF-TRT calls the first engine of every process TRTEngineOp_000_000, and a process that loads two folders would take
    one's engine for the other's: "Expect engine cache to be empty". As long as the old name, so that the file stays
    well-formed; TRTEngineOp without numbers is the kind of operation and stays.
    """
    file, name = folder / "saved_model.pb", name.encode()
    assert len(name) == len("TRTEngineOp")
    file.write_bytes(ENGINE_NAME.sub(name, file.read_bytes()))
    for engine in folder.glob("assets/*"):
        engine.rename(engine.with_name(ENGINE_NAME.sub(name, engine.name.encode()).decode()))


class Converted(tf.Module):
    """What TF-TRT has saved, and the boxes' arithmetic behind it: a network."""

    def __init__(self, folder, spec):
        super().__init__()
        self.saved = tf.saved_model.load(str(folder))  # an attribute, so that its engines are saved along
        self.decode = lambda raw_heads: decode(raw_heads, spec.heads)
        self.shapes = head_shapes(spec)

    def __call__(self, images):
        answers = self.saved.signatures[SIGNATURE](images=images)
        outputs = [answers[name] for name in sorted(answers)]  # whatever TF-TRT calls them
        raw_heads, features = outputs[: len(self.shapes)], outputs[len(self.shapes) :]
        raw_heads = [tf.ensure_shape(x, (None, *shape)) for x, shape in zip(raw_heads, self.shapes, strict=True)]
        return dict(zip(("predictions", "features"), (self.decode(raw_heads), *features), strict=False))


# --- What went into them ----------------------------------------------------------------------------------------------


class Share(NamedTuple):
    """What of a graph went into TensorRT."""

    engines: int
    inside: int  # operations
    outside: Counter  # by kind


def share_of_engines(graph):
    """A converted GraphDef -> Share."""

    def working(nodes):
        return [node.op for node in nodes if node.op not in NO_WORK]

    segments = {function.signature.name: function.node_def for function in graph.library.function}
    engines = [node for node in graph.node if node.op == "TRTEngineOp"]
    inside = sum(len(working(segments[node.attr["segment_func"].func.name])) for node in engines)
    outside = Counter(working(graph.node))
    del outside["TRTEngineOp"]
    return Share(len(engines), inside, outside)


def report(share, supported, min_segment):
    """Share -> lines of text; supported: the kinds of operation that TF-TRT has a converter for."""
    lines = [
        f"TensorRT: {share.inside} of {share.inside + share.outside.total()} operations up to the raw heads, "
        f"in {share.engines} engine{'s' * (share.engines != 1)}",
        "TensorFlow: the boxes' arithmetic behind them, so that it stays in float32",
    ]
    few = f"fewer than YOLO_TRT_MIN_SEGMENT = {min_segment} in a row, or of a shape or type TensorRT cannot take"
    for kind, count in share.outside.most_common():
        lines.append(f"TensorFlow: {count} {kind}: {few if kind in supported else 'TF-TRT has no converter for it'}")
    return lines
