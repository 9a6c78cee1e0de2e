"""Make the few Keras layers that Darknet's detectors consist of.

Every function takes and returns a batch (N, H, W, C). `Convolutions` numbers the convolutions in the order in which
they are made. Darknet's .weights file stores them in the same order, so `darknet.py` finds them by that number.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import KerasTensor, layers

BATCH_NORM_EPSILON = 1e-5  # Darknet adds 1e-5 to the variance; Keras would add 1e-3 and lose accuracy
BATCH_NORM_MOMENTUM = 0.97  # how much of the moving statistics a training step keeps
LEAKY_SLOPE = 0.1
LOWEST = -65504.0  # of float16: less than any activation


@keras.saving.register_keras_serializable("yolov3")
class BatchNormalization(layers.BatchNormalization):
    """Normalise as Keras does, but train with TensorFlow's fused kernel: a training step takes a fifth less on CPUs.

    With `synchronized`, which shares the statistics among devices, Keras' own implementation runs.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training or not self.trainable or self.synchronized:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta), epsilon=self.epsilon
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable("yolov3")
class Upsample(layers.UpSampling2D):
    """Multiply H and W by nearest neighbour in one op, which every runtime knows. Keras' own layer is eight ops, whose
    arithmetic on shapes keeps OpenVINO from quantising the layers behind it."""

    def call(self, inputs: Any) -> Any:
        height, width = inputs.shape[1:3]
        size = (height, width) if height and width else tf.shape(inputs)[1:3]
        return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=tf.multiply(size, self.size[0]))


@keras.saving.register_keras_serializable("yolov3")
class Head(layers.Conv2D):
    """The last convolution before a [yolo] layer: it gives logits, float32 whatever the precision, 5 + classes for each
    of its anchors."""

    def __init__(self, filters, kernel_size=1, anchors=3, dtype="float32", **options):
        super().__init__(filters, kernel_size, dtype=dtype, **options)
        self.anchors = anchors  # how many
        self.classes = filters // anchors - 5

    def get_config(self):
        return {**super().get_config(), "anchors": self.anchors}


@keras.saving.register_keras_serializable("yolov3")
class GroupedConvolution(layers.Conv2D):
    """A convolution in groups, of ops that every runtime and TensorFlow's kernels for CPUs know."""

    def call(self, inputs):
        kernel, (stride, _) = tf.convert_to_tensor(self.kernel), self.strides  # (h, w, channels / groups, filters)
        if self.groups == inputs.shape[-1]:
            kernel = tf.reshape(kernel, (*self.kernel_size, self.groups, self.filters // self.groups))
            outputs = tf.nn.depthwise_conv2d(inputs, kernel, (1, stride, stride, 1), self.padding.upper())
        else:
            parts = zip(tf.split(inputs, self.groups, -1), tf.split(kernel, self.groups, -1), strict=True)
            outputs = tf.concat([tf.nn.conv2d(x, k, stride, self.padding.upper()) for x, k in parts], -1)
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias)) if self.use_bias else outputs


ACTIVATIONS = {  # by their names in a cfg
    "linear": lambda x: x,
    "leaky": lambda x: layers.LeakyReLU(negative_slope=LEAKY_SLOPE)(x),
    "mish": lambda x: layers.Activation("mish")(x),
    "swish": lambda x: layers.Multiply()([x, layers.Activation("sigmoid")(x)]),
    "logistic": lambda x: layers.Activation("sigmoid")(x),
    "relu": lambda x: layers.ReLU()(x),
}


class Convolutions:
    """Make the convolutions of one network and name them conv_000, conv_001, ... in Darknet's order."""

    def __init__(self, activation: str = "leaky"):
        self.activation = activation
        self.made = 0

    def __call__(self, x: KerasTensor, filters: int, size: int = 1, stride: int = 1) -> KerasTensor:
        """Apply a convolution without bias, batch normalisation and activation. A stride of 2 halves H and W."""
        return self.convolution(x, filters, size, stride, size // 2, self.activation)

    def convolution(
        self,
        x: KerasTensor,
        filters: int,
        size: int,
        stride: int,
        padding: int,
        activation: str,
        normalise: bool = True,
        groups: int = 1,
    ) -> KerasTensor:
        """Apply a convolution with all that Darknet has for one, with bias unless it is normalised."""
        name, (x, mode) = self._next_name(), pad(x, size, stride, padding)
        kind, of_groups = (GroupedConvolution, {"groups": groups}) if groups > 1 else (layers.Conv2D, {})
        x = kind(filters, size, stride, mode, use_bias=not normalise, name=name, **of_groups)(x)
        if normalise:
            x = BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
        return ACTIVATIONS[activation](x)

    def head(
        self, x: KerasTensor, classes: int, anchors: int = 3, size: int = 1, stride: int = 1, padding: int = 0
    ) -> KerasTensor:
        """Apply a `Head`."""
        x, mode = pad(x, size, stride, padding)
        kernel = {"kernel_size": size, "strides": stride, "padding": mode}
        return Head(anchors * (5 + classes), anchors=anchors, name=self._next_name(), **kernel)(x)

    def alternate(self, x: KerasTensor, filters: int, count: int) -> KerasTensor:
        """Apply `count` convolutions, in turn 1x1 with `filters` and 3x3 with twice as many."""
        for i in range(count):
            x = self(x, filters * 2, 3) if i % 2 else self(x, filters)
        return x

    def residual(self, x: KerasTensor, filters: int, inner: int) -> KerasTensor:
        """Apply Darknet's shortcut: 1x1 to `inner` channels and 3x3 back to `filters`, added to the input."""
        return layers.Add()([x, self(self(x, inner), filters, 3)])

    def _next_name(self):
        self.made += 1
        return f"conv_{self.made - 1:03d}"


def pad(x: KerasTensor, size: int, stride: int, padding: int) -> tuple[KerasTensor, str]:
    """Return what a convolution of a cfg reads, with zeros around it where Keras would pad otherwise, and Keras' word
    for the padding that is left to do.

    Darknet pads all four sides. What the last window does not read is left out where the size of the map is known: with
    an even size and a stride of 2, all that is below and at the right.
    """
    if stride == 1 and 2 * padding == size - 1:
        return x, "same"

    def both_sides(length):
        if length is None:
            return padding, padding
        windows = (length + 2 * padding - size) // stride + 1
        return padding, max((windows - 1) * stride + size - padding - length, 0)

    sides = tuple(both_sides(length) for length in x.shape[1:3])
    return layers.ZeroPadding2D(sides)(x) if padding else x, "valid"


def concatenate(*tensors: KerasTensor) -> KerasTensor:
    """Join the channels of several layers in the order given: Darknet's [route]."""
    return layers.Concatenate()(tensors)


def second_half(x: KerasTensor) -> KerasTensor:
    """Return the upper half of the channels: Darknet's [route] with groups=2, group_id=1."""
    return group(x, 2, 1)


def group(x: KerasTensor, groups: int, number: int) -> KerasTensor:
    """Return one of several groups of channels."""
    return keras.ops.split(x, groups, axis=-1)[number] if groups > 1 else x


def first_channels(x: KerasTensor, count: int) -> KerasTensor:
    """Return as many channels, the first ones; where there are fewer, followed by zeros."""
    missing = count - x.shape[-1]
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing))) if missing > 0 else x[..., :count]


def upsample(x: KerasTensor, times: int = 2) -> KerasTensor:
    """Multiply H and W by nearest neighbour."""
    return Upsample(times)(x)


def embedding_map(x: KerasTensor, stride: int = 4) -> KerasTensor:
    """Return the map that embeddings are pooled from, (N, S/16, S/16, 4c), of features at stride 4, (N, S/4, S/4, c),
    or 8.

    It holds their means over 8 x 8 pixels. The means of the four quarters of a cell lie side by side in its channels,
    in the order of TensorFlow's space_to_depth.
    """
    if stride == 4:
        x = layers.AveragePooling2D(2)(x)
    return concatenate(*(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)))


def max_pool(x: KerasTensor, size: int = 2, stride: int = 2) -> KerasTensor:
    """Apply max pooling, padded as in Darknet: evenly, and where that is not possible, at the bottom right."""
    return layers.MaxPooling2D(size, stride, "same")(x)


def padded_max_pool(x: KerasTensor, size: int, stride: int, padding: int) -> KerasTensor:
    """Apply max pooling with any of Darknet's paddings: so many pixels, half of them at the top left."""
    if padding == size - 1 and (stride == 1 or (size, stride) == (2, 2)):
        return max_pool(x, size, stride)
    before = padding // 2
    sides = ((0, 0), *[(before, padding - before)] * 2, (0, 0))
    x = keras.ops.pad(x, sides, constant_values=LOWEST) if padding else x
    return layers.MaxPooling2D(size, stride, "valid")(x)
