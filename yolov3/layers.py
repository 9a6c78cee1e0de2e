"""The few Keras layers that Darknet's detectors are made of.

Every function takes and returns a picture batch (N, H, W, C). `Convolutions` numbers the convolutions as they
are made, which is the order in which Darknet's .weights file stores them; `darknet.py` walks them by that number.
"""

import keras
import tensorflow as tf
from keras import layers

BATCH_NORM_EPSILON = 1e-5  # Darknet adds 1e-5 to the variance; Keras would add 1e-3 and lose accuracy
BATCH_NORM_MOMENTUM = 0.97  # of the moving statistics, in training
LEAKY_SLOPE = 0.1


@keras.saving.register_keras_serializable("yolov3")
class BatchNormalization(layers.BatchNormalization):
    """Keras', but trained by TensorFlow's fused kernel: a whole training step takes a fifth less on CPUs.

    Set `synchronized` to share the statistics among devices; then Keras' own way is taken.
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
    """Nearest neighbour in one op, which every runtime knows; Keras' own is eight, with arithmetic on shapes that keeps
    OpenVINO from quantising what follows."""

    def call(self, inputs):
        height, width = inputs.shape[1:3]
        size = (height, width) if height and width else tf.shape(inputs)[1:3]
        return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=tf.multiply(size, 2))


class Convolutions:
    """Makes the convolutions of one network: conv_000, conv_001, ... in Darknet's order."""

    def __init__(self, activation="leaky"):
        self.activation = activation
        self.made = 0

    def __call__(self, x, filters, size=1, stride=1):
        """Convolution without bias, batch normalisation, activation. A stride of 2 halves H and W."""
        if stride > 1:  # Darknet pads all four sides; with an even size the bottom right padding is never read
            x = layers.ZeroPadding2D(((1, 0), (1, 0)))(x)
        padding = "valid" if stride > 1 else "same"
        name = self._next_name()
        x = layers.Conv2D(filters, size, stride, padding, use_bias=False, name=name)(x)
        x = BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
        if self.activation == "mish":
            return layers.Activation("mish")(x)
        return layers.LeakyReLU(negative_slope=LEAKY_SLOPE)(x)

    def head(self, x, filters):
        """The last convolution before a [yolo] layer: 1x1, bias, linear. Always float32, whatever the precision."""
        return layers.Conv2D(filters, 1, name=self._next_name(), dtype="float32")(x)

    def alternate(self, x, filters, count):
        """`count` convolutions, 1x1 with `filters` and 3x3 with twice as many in turn."""
        for i in range(count):
            x = self(x, filters * 2, 3) if i % 2 else self(x, filters)
        return x

    def residual(self, x, filters, inner):
        """Darknet's shortcut: 1x1 to `inner` channels, 3x3 back to `filters`, added to the input."""
        return layers.Add()([x, self(self(x, inner), filters, 3)])

    def _next_name(self):
        self.made += 1
        return f"conv_{self.made - 1:03d}"


def concatenate(*tensors):
    """Darknet's [route] over several layers, channels in the order given."""
    return layers.Concatenate()(tensors)


def second_half(x):
    """Darknet's [route] with groups=2, group_id=1: the upper half of the channels."""
    return keras.ops.split(x, 2, axis=-1)[1]


def upsample(x):
    """Nearest neighbour, H and W doubled."""
    return Upsample(2)(x)


def embedding_map(x):
    """What things look like, of features at stride 4, (N, S/4, S/4, c) -> (N, S/16, S/16, 4c): the means over 8 x 8
    pixels, those of each cell's four quarters side by side, as TensorFlow's space_to_depth has them."""
    x = layers.AveragePooling2D(2)(x)
    return concatenate(*(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)))


def max_pool(x, size=2, stride=2):
    """Padded as Darknet pads: evenly, and at the bottom right where that cannot be."""
    return layers.MaxPooling2D(size, stride, "same")(x)
