"""Make the few Keras layers that Darknet's detectors consist of.

Every function takes and returns a batch (N, H, W, C). `Convolutions` numbers the convolutions in the order in which
they are made. Darknet's .weights file stores them in the same order, so `darknet.py` finds them by that number.
"""

import keras
import tensorflow as tf
from keras import layers

BATCH_NORM_EPSILON = 1e-5  # Darknet adds 1e-5 to the variance; Keras would add 1e-3 and lose accuracy
BATCH_NORM_MOMENTUM = 0.97  # how much of the moving statistics a training step keeps
LEAKY_SLOPE = 0.1


@keras.saving.register_keras_serializable("yolov3")
class BatchNormalization(layers.BatchNormalization):
    """Keras' batch normalisation, trained by TensorFlow's fused kernel: a training step takes a fifth less on CPUs.

    With `synchronized`, which shares the statistics among devices, Keras' own implementation runs.
    """

    def call(self, inputs, training=None, mask=None):
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
    """Double H and W by nearest neighbour in one op, which every runtime knows. Keras' own layer is eight ops, whose
    arithmetic on shapes keeps OpenVINO from quantising the layers behind it."""

    def call(self, inputs):
        height, width = inputs.shape[1:3]
        size = (height, width) if height and width else tf.shape(inputs)[1:3]
        return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=tf.multiply(size, 2))


@keras.saving.register_keras_serializable("yolov3")
class Head(layers.Conv2D):
    """The last convolution before a [yolo] layer: linear, with bias, float32 whatever the precision. It has 5 + classes
    channels for each of its anchors."""

    def __init__(self, filters, kernel_size=1, anchors=3, dtype="float32", **options):
        super().__init__(filters, kernel_size, dtype=dtype, **options)
        self.anchors = anchors  # how many
        self.classes = filters // anchors - 5

    def get_config(self):
        return {**super().get_config(), "anchors": self.anchors}


class Convolutions:
    """Makes the convolutions of one network and names them conv_000, conv_001, ... in Darknet's order."""

    def __init__(self, activation="leaky"):
        self.activation = activation
        self.made = 0

    def __call__(self, x, filters, size=1, stride=1):
        """Apply a convolution without bias, batch normalisation and activation. A stride of 2 halves H and W."""
        if stride > 1:  # Darknet pads all four sides; with an even size the bottom right padding is never read
            x = layers.ZeroPadding2D(((1, 0), (1, 0)))(x)
        padding = "valid" if stride > 1 else "same"
        name = self._next_name()
        x = layers.Conv2D(filters, size, stride, padding, use_bias=False, name=name)(x)
        x = BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
        if self.activation == "mish":
            return layers.Activation("mish")(x)
        return layers.LeakyReLU(negative_slope=LEAKY_SLOPE)(x)

    def head(self, x, classes):
        """Apply a 1x1 `Head` of three anchors."""
        return Head(3 * (5 + classes), name=self._next_name())(x)

    def alternate(self, x, filters, count):
        """Apply `count` convolutions, in turn 1x1 with `filters` and 3x3 with twice as many."""
        for i in range(count):
            x = self(x, filters * 2, 3) if i % 2 else self(x, filters)
        return x

    def residual(self, x, filters, inner):
        """Apply Darknet's shortcut: 1x1 to `inner` channels and 3x3 back to `filters`, added to the input."""
        return layers.Add()([x, self(self(x, inner), filters, 3)])

    def _next_name(self):
        self.made += 1
        return f"conv_{self.made - 1:03d}"


def concatenate(*tensors):
    """Join the channels of several layers in the order given: Darknet's [route]."""
    return layers.Concatenate()(tensors)


def second_half(x):
    """Return the upper half of the channels: Darknet's [route] with groups=2, group_id=1."""
    return keras.ops.split(x, 2, axis=-1)[1]


def upsample(x):
    """Double H and W by nearest neighbour."""
    return Upsample(2)(x)


def embedding_map(x):
    """Return the map that embeddings are pooled from, (N, S/16, S/16, 4c), of features at stride 4, (N, S/4, S/4, c).

    It holds their means over 8 x 8 pixels. The means of the four quarters of a cell lie side by side in its channels,
    in the order of TensorFlow's space_to_depth.
    """
    x = layers.AveragePooling2D(2)(x)
    return concatenate(*(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)))


def max_pool(x, size=2, stride=2):
    """Apply max pooling, padded as in Darknet: evenly, and where that is not possible, at the bottom right."""
    return layers.MaxPooling2D(size, stride, "same")(x)
