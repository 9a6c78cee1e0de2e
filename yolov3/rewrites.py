"""An openvino.Model -> one that answers the same with less moving of data. In place.

OpenVINO's CPU kernels keep the channels of a pixel side by side: taking half of them, or putting those of two tensors
together, moves every pixel. Pictures are (N, C, H, W) in these graphs, as OpenVINO imports TensorFlow's.
"""

import numpy as np

CHANNELS = 1  # their axis
SPLITTABLE = ("Convolution", "Add", "PRelu")  # by channels, where their second input is constant
POOLINGS = ("MaxPool", "AvgPool")


def save_copies(graph):
    """What helps in any precision: YOLOv4-tiny takes halves of channels, and pools what it has put together."""
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "Split":
            _split_convolution(operation)
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() in POOLINGS:
            _pool_first(operation)
    graph.validate_nodes_and_infer_types()
    return graph


def transpose_first(graph):
    """Has the pictures of an INT8 model transposed before they are quantised, where NNCF has it after: the CPU can then
    bring them into its own layout in one go, which saves a twenty-fifth of YOLOv4-tiny's time."""
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


def readers(output):
    return [place.get_node() for place in output.get_target_inputs()]


def _split_convolution(split):
    """Has the convolution in front of a Split, with its bias and activation, made in parts, each with its share of the
    weights. What else reads the whole reads the parts put together again."""
    whole = source = split.input_value(0)
    channels, layers = whole.get_partial_shape()[CHANNELS], []
    while not layers or layers[-1].get_type_name() != "Convolution":
        layer = source.get_node()
        if layer.get_type_name() not in SPLITTABLE or layer.input_value(1).get_node().get_type_name() != "Constant":
            return
        if layers and len(readers(source)) > 1:
            return
        layers.append(layer)
        source = layer.input_value(0)

    parts = [source] * split.get_output_size()
    for layer in reversed(layers):
        constant = layer.input_value(1).get_node().get_data()  # (channels, ...), (1, channels, 1, 1) or (1, 1, 1, 1)
        shares = [constant] * len(parts)
        if channels in constant.shape:
            shares = np.split(constant, len(parts), constant.shape.index(channels.get_length()))
        parts = [_again(layer, part, share) for part, share in zip(parts, shares, strict=True)]
    others = [place for place in whole.get_target_inputs() if place.get_node() != split]
    for place in others:
        place.replace_source_output(_concatenate(parts))
    for output, part in zip(split.outputs(), parts, strict=True):
        output.replace(part)


def _pool_first(pooling):
    """Has what a Concat puts together pooled before, not after: a quarter is left to move."""
    parts = _put_together(pooling.input_value(0))
    if len(parts) > 1:
        pooling.output(0).replace(_concatenate([_again(pooling, part) for part in parts]))


def _put_together(output):
    """The outputs that Concats, of Concats perhaps, have made one of; itself alone if none has."""
    operation = output.get_node()
    if operation.get_type_name() != "Concat" or operation.get_attributes()["axis"] != CHANNELS:
        return [output]
    return [part for place in operation.input_values() for part in _put_together(place)]


def _again(operation, *inputs):
    """The first output of the same operation on other inputs."""
    from openvino import opset13
    from openvino.utils.node_factory import NodeFactory

    inputs = [opset13.constant(x) if isinstance(x, np.ndarray) else x for x in inputs]
    return NodeFactory().create(operation.get_type_name(), inputs, operation.get_attributes()).output(0)


def _concatenate(outputs):
    from openvino import opset13

    return opset13.concat(outputs, CHANNELS).output(0)
