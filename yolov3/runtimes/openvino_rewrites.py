"""Change an openvino.Model in place, so that it answers the same with fewer copies of its data.

OpenVINO's CPU kernels keep the channels of a pixel side by side: taking half of the channels, or putting those of two
tensors together, copies every pixel. Pictures are (N, C, H, W) in these graphs, as OpenVINO imports TensorFlow's.
"""

from typing import Any

import numpy as np

CHANNELS = 1  # the axis of the channels
CHANNELS_IN_CONSTANT = {"Convolution": 0, "Add": CHANNELS, "PRelu": CHANNELS}  # the same in the second input
POOLINGS = ("MaxPool", "AvgPool")


def save_copies(graph: Any) -> Any:
    """Return the graph with fewer copies, in any precision: YOLOv4-tiny splits channels, and pools joined ones."""
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "Split" and _constant(operation) == CHANNELS:
            _split_convolution(operation)
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() in POOLINGS:
            _pool_first(operation)
    graph.validate_nodes_and_infer_types()
    return graph


def transpose_first(graph: Any) -> Any:
    """Return an INT8 graph that transposes pictures before it quantises them, not after, as NNCF has it.

    The CPU can then bring them into its own layout in one step, which saves 4 % of YOLOv4-tiny's time.
    """
    (picture,) = graph.inputs
    (quantise_picture, *others) = readers(picture)
    behind = readers(quantise_picture.output(0))
    if others or [x.get_type_name() for x in (quantise_picture, *behind)] != ["FakeQuantize", "Transpose"]:
        return graph
    (transpose,) = behind
    last = transpose.output(0).get_target_inputs()
    transpose.input(0).replace_source_output(picture)
    quantise_picture.input(0).replace_source_output(transpose.output(0))
    for reader in last:
        reader.replace_source_output(quantise_picture.output(0))
    graph.validate_nodes_and_infer_types()
    return graph


def readers(output: Any) -> list[Any]:
    """Return the operations that read an output."""
    return [place.get_node() for place in output.get_target_inputs()]


def _split_convolution(split):
    """Divide the convolution before a Split, with its bias and activation, into parts with a share of its weights each.

    Other operations that read the whole read the joined parts.
    """
    whole = source = split.input_value(0)
    layers = []  # last first
    while not layers or layers[-1].get_type_name() != "Convolution":
        layer = source.get_node()
        if layer.get_type_name() not in CHANNELS_IN_CONSTANT or np.ndim(_constant(layer)) != 4:
            return
        if layers and len(readers(source)) > 1:
            return
        layers.append(layer)
        source = layer.input_value(0)

    parts = [source] * split.get_output_size()
    for layer in reversed(layers):
        constant, axis = _constant(layer), CHANNELS_IN_CONSTANT[layer.get_type_name()]
        for_all = constant.shape[axis] == 1
        shares = [constant] * len(parts) if for_all else np.split(constant, len(parts), axis)
        parts = [_again(layer, part, share) for part, share in zip(parts, shares, strict=True)]
    for output, part in zip(split.outputs(), parts, strict=True):
        output.replace(part)
    whole.replace(_concatenate(parts))


def _pool_first(pooling):
    """Pool the inputs of a Concat instead of its output, since only a quarter is then left to copy."""
    parts = _put_together(pooling.input_value(0))
    if len(parts) > 1:
        pooling.output(0).replace(_concatenate([_again(pooling, part) for part in parts]))


def _put_together(output):
    """Return the outputs that a Concat, or nested ones, joined to this output; only itself if it is not a Concat's."""
    operation = output.get_node()
    if operation.get_type_name() != "Concat" or operation.get_attributes()["axis"] != CHANNELS:
        return [output]
    return [part for place in operation.input_values() for part in _put_together(place)]


def _constant(operation):
    """Return the second input as an array, or None if it is computed."""
    source = operation.input_value(1).get_node()
    return source.get_data() if source.get_type_name() == "Constant" else None


def _again(operation, *inputs):
    """Return the first output of the same operation, one of opset13, on other inputs."""
    from openvino import opset13
    from openvino.utils.node_factory import NodeFactory

    inputs = [opset13.constant(x) if isinstance(x, np.ndarray) else x for x in inputs]
    return NodeFactory().create(operation.get_type_name(), inputs, operation.get_attributes()).output(0)


def _concatenate(outputs):
    from openvino import opset13

    return opset13.concat(outputs, CHANNELS).output(0)
