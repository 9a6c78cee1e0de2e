"""Write each kind of Keras layer as ONNX operations. A table says which function writes which kind.

A batch is (N, H, W, C) in Keras and (N, C, H, W) in ONNX. Batch normalisation becomes part of the weights of the
convolution before it, and padding becomes part of the convolution after it.
"""

from typing import Any

from yolov3.checks import UserError

import numpy as np

INT8_STEPS = 127  # on each side of zero
LEAST_SCALE = 1e-6  # for filters whose weights are all zero
AXES = {0: 0, 1: 2, 2: 3, 3: 1}  # where the axes of Keras' layout are in that of ONNX
CHANNELS_FIRST = (0, 3, 1, 2)  # the axes of Keras' layout in the order of ONNX


# --- One function for each kind of layer: it takes the writer, the layer and the names of its inputs, and returns the
# --- names of its outputs --------------------------------------------------------------------------------------------


def _convolution(writer, layer, x):
    if layer.dilation_rate != (1, 1):
        raise unknown(layer, "is dilated")
    weights = np.transpose(_array(layer.kernel), (3, 2, 0, 1))  # (filters, channels of a group, height, width)
    bias = _array(layer.bias) if layer.use_bias else np.zeros(len(weights), np.float32)
    output, name = layer.output, layer.activation.__name__
    norm = writer.only_reader(output, "BatchNormalization") if name == "linear" else None
    if norm:
        scale, shift = _normalisation(norm)
        weights, bias = weights * scale[:, np.newaxis, np.newaxis, np.newaxis], bias * scale + shift
    weights_name = writer.graph.constant(writer.number(weights), f"{layer.name}_weights")
    if writer.scales is not None:
        largest = np.abs(weights).max((1, 2, 3))
        weights_name = writer.through_int8(weights_name, np.maximum(largest, LEAST_SCALE) / INT8_STEPS, axis=0)
        x = writer.through_int8(x, writer.scales[layer.name])
    pads = np.add(_pads(layer, layer.kernel_size), writer.pads.get(id(layer.input), (0, 0, 0, 0)))
    y = writer.graph(
        "Conv",
        x,
        weights_name,
        writer.graph.constant(writer.number(bias), f"{layer.name}_bias"),
        name=layer.name,
        kernel_shape=layer.kernel_size,
        strides=layer.strides,
        pads=pads.tolist(),
        group=layer.groups,
    )
    if norm:
        writer.names[id(norm.output)] = y
    return y if name == "linear" else _activate(writer, layer, name, y)


def _batch_normalization(writer, layer, x):
    scale, shift = (writer.number(array)[:, np.newaxis, np.newaxis] for array in _normalisation(layer))
    return writer.graph("Add", writer.graph("Mul", x, scale), shift)


def _zero_padding(writer, layer, x):
    (top, bottom), (left, right) = layer.padding
    if writer.only_reader(layer.output, "Conv2D"):
        writer.pads[id(layer.output)] = (top, left, bottom, right)
        return x
    return writer.graph("Pad", x, [0, 0, top, left, 0, 0, bottom, right], writer.number(0))


def _pad(writer, operation, x):
    if operation.mode != "constant":
        raise unknown(operation, f"pads by {operation.mode}")
    (before, after), value = zip(*(operation.pad_width[axis] for axis in CHANNELS_FIRST), strict=True), 0
    if (given := operation._inbound_nodes[0].arguments.kwargs.get("constant_values")) is not None:
        value = given
    return writer.graph("Pad", x, [*before, *after], writer.number(value))


def _activation(writer, layer, x):
    return _activate(writer, layer, layer.activation.__name__, x)


def _activate(writer, layer, name, x):
    if name not in ACTIVATIONS:
        raise unknown(layer, f"has the activation {name}, which is not known")
    return ACTIVATIONS[name](writer.graph, x)


def _leaky_relu(writer, layer, x):
    return writer.graph("LeakyRelu", x, alpha=float(layer.negative_slope))


def _relu(writer, layer, x):
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise unknown(layer, "is not a plain ReLU")
    return writer.graph("Relu", x)


def _max_pooling(writer, layer, x):
    return writer.graph(
        "MaxPool", x, kernel_shape=layer.pool_size, strides=layer.strides, pads=_pads(layer, layer.pool_size)
    )


def _average_pooling(writer, layer, x):
    if any(_pads(layer, layer.pool_size)):
        raise unknown(layer, "averages beyond the border")
    return writer.graph("AveragePool", x, kernel_shape=layer.pool_size, strides=layer.strides)


def _global_average_pooling(writer, layer, x):
    if not layer.keepdims:
        raise unknown(layer, "drops height and width")
    return writer.graph("GlobalAveragePool", x)


def _upsampling(writer, layer, x):
    if layer.interpolation != "nearest":
        raise unknown(layer, f"interpolates by {layer.interpolation}")
    scales = [1.0, 1.0, *map(float, layer.size)]
    how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return writer.graph("Resize", x, None, scales, **how)


def _concatenate(writer, layer, *inputs):
    return writer.graph("Concat", *inputs, axis=_axis(layer))


def _split(writer, operation, x):
    channels = operation.input.shape[operation.axis]
    count = operation.indices_or_sections
    if not isinstance(count, int):
        raise unknown(operation, "does not split evenly")
    return writer.graph("Split", x, [channels // count] * count, axis=_axis(operation), outputs=count)


def _get_item(writer, operation, x):
    call = operation._inbound_nodes[0].arguments
    keys = call.kwargs["key"] if "key" in call.kwargs else call.args[1]
    keys = keys if isinstance(keys, tuple) else (keys,)
    rank = len(operation.input.shape)
    if Ellipsis in keys:
        place = keys.index(Ellipsis)
        keys = keys[:place] + (slice(None),) * (rank - len(keys) + 1) + keys[place + 1 :]
    if not all(isinstance(key, slice) for key in keys):
        raise unknown(operation, "takes something else than slices")
    parts = [(AXES[i], key, operation.input.shape[i]) for i, key in enumerate(keys) if key != slice(None)]
    bounds = [(axis, *key.indices(size)) for axis, key, size in parts]
    axes, starts, ends, steps = (np.int64(column) for column in zip(*bounds, strict=True))
    return writer.graph("Slice", x, starts, ends, axes, steps)


def _elementwise(kind):
    def write(writer, layer, first, *others):
        for other in others:
            first = writer.graph(kind, first, other)
        return first

    return write


def _identity(writer, layer, x):
    return x


LAYERS: dict[str, Any] = {  # by the names of Keras' classes
    "Conv2D": _convolution,
    "BatchNormalization": _batch_normalization,
    "ZeroPadding2D": _zero_padding,
    "Pad": _pad,
    "Activation": _activation,
    "LeakyReLU": _leaky_relu,
    "ReLU": _relu,
    "MaxPooling2D": _max_pooling,
    "AveragePooling2D": _average_pooling,
    "GlobalAveragePooling2D": _global_average_pooling,
    "UpSampling2D": _upsampling,
    "Concatenate": _concatenate,
    "Split": _split,
    "GetItem": _get_item,
    "Add": _elementwise("Add"),
    "Multiply": _elementwise("Mul"),
    "Dropout": _identity,
}


def _mish(graph, x):
    return graph("Mul", x, graph("Tanh", graph("Softplus", x)))


def _swish(graph, x):
    return graph("Mul", x, graph("Sigmoid", x))


ACTIVATIONS: dict[str, Any] = {  # by the names of Keras' functions
    "linear": lambda graph, x: x,
    "relu": lambda graph, x: graph("Relu", x),
    "sigmoid": lambda graph, x: graph("Sigmoid", x),
    "tanh": lambda graph, x: graph("Tanh", x),
    "mish": _mish,
    "silu": _swish,
    "swish": _swish,
}


# --- What they share --------------------------------------------------------------------------------------------------


def _normalisation(layer):
    """Return the scale and the shift, float64 (channels,), of a batch normalisation."""
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * _array(layer.gamma)
    return scale, (_array(layer.beta) if layer.center else 0) - mean * scale


def _pads(layer, window):
    """Return the rows and columns that are added around the input of a layer: top, left, bottom, right.

    TensorFlow's "same" adds them evenly or, where that is not possible, one more at the bottom and on the right.
    """
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    before, after = [], []
    for size, kernel, stride in zip(layer.input.shape[1:3], window, layer.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


def _axis(layer):
    return AXES[layer.axis % len(listed(layer.input)[0].shape)]


def _array(variable):
    return np.asarray(variable.value, np.float64)


def listed(tensors):
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


def unknown(layer, what):
    return UserError(
        f"ONNX files cannot be written of this network: layer {layer.name} ({type(layer).__name__}) {what}"
    )
