"""CSPDarknet-53, YOLOv4 and YOLOv4-tiny (Bochkovskiy et al., 2020), and `Create_Yolo`, which makes any of the four.

A builder takes the picture batch (N, S, S, 3) and the channels of a head. It returns the raw heads
(N, S/stride, S/stride, channels), smallest stride first, and the embedding map, made of the features with which the
backbone enters stride 4: deeper layers forget the colours of a shirt over its being a person.
"""

from yolov3 import configs
from yolov3.checks import check_input_size, count_classes
from yolov3.layers import Convolutions, concatenate, embedding_map, max_pool, second_half, upsample
from yolov3.networks import ANCHORS_PER_CELL, NETWORKS, network_name

import keras

CSP_DARKNET53 = (  # (filters, channels of each half, inner channels of a residual, residual blocks)
    (64, 64, 32, 1),
    (128, 64, 64, 2),
    (256, 128, 128, 8),
    (512, 256, 256, 8),
    (1024, 512, 512, 4),
)


def csp_darknet53(conv, x):
    """(N, S, S, 3) -> features at strides 8, 16 and 32 (256, 512, 1024 channels), and the embedding map (512)."""
    x = conv(x, 32, 3)
    entries, features = [], []
    for filters, half, inner, repeats in CSP_DARKNET53:
        x = conv(x, filters, 3, stride=2)
        entries.append(x)
        bypass = conv(x, half)
        x = conv(x, half)
        for _ in range(repeats):
            x = conv.residual(x, half, inner)
        x = conv(concatenate(conv(x, half), bypass), filters)
        features.append(x)
    return *features[2:], embedding_map(entries[1])


def yolov4(x, head_channels):
    conv = Convolutions(activation="mish")
    stride8, stride16, x, embedding = csp_darknet53(conv, x)
    conv.activation = "leaky"

    # Spatial pyramid pooling at stride 32
    x = conv.alternate(x, 512, 3)
    x = concatenate(max_pool(x, 13, 1), max_pool(x, 9, 1), max_pool(x, 5, 1), x)
    stride32 = conv.alternate(x, 512, 3)

    # Path aggregation: up to stride 8 ...
    x = upsample(conv(stride32, 256))
    stride16 = conv.alternate(concatenate(conv(stride16, 256), x), 256, 5)
    x = upsample(conv(stride16, 128))
    x = conv.alternate(concatenate(conv(stride8, 128), x), 128, 5)

    # ... and down again, a head at each stride
    heads = [conv.head(conv(x, 256, 3), head_channels)]
    for filters, route in ((256, stride16), (512, stride32)):
        x = conv.alternate(concatenate(conv(x, filters, 3, stride=2), route), filters, 5)
        heads.append(conv.head(conv(x, filters * 2, 3), head_channels))
    return heads, embedding


def yolov4_tiny(x, head_channels):
    conv = Convolutions()
    x = conv(x, 32, 3, stride=2)
    x = conv(x, 64, 3, stride=2)
    entries = []
    for filters in (64, 128, 256):
        x = bypass = conv(x, filters, 3)
        entries.append(x)
        x = inner = conv(second_half(x), filters // 2, 3)
        x = conv(x, filters // 2, 3)
        stride16 = conv(concatenate(x, inner), filters)
        x = max_pool(concatenate(bypass, stride16))
    x = conv(x, 512, 3)
    x = conv(x, 256)
    coarse = conv.head(conv(x, 512, 3), head_channels)
    x = concatenate(upsample(conv(x, 128)), stride16)
    fine = conv.head(conv(x, 256, 3), head_channels)
    return [fine, coarse], embedding_map(entries[0])


def Create_Yolo(input_size=None, yolo_type=None, tiny=None, CLASSES=None, features=False):
    """A network with fresh weights, as a Keras model.

    input_size  pixels, a multiple of 32; yolo_type  "yolov3" or "yolov4"; tiny  bool;
    CLASSES  a names file, a list of names, or their number. None means what configs.py says now
    (YOLO_INPUT_SIZE, YOLO_TYPE, TRAIN_YOLO_TINY, YOLO_COCO_CLASSES).
    features  True: what things look like, float32 (N, S/16, S/16, C), is one more output, the last

    The model takes float32 (N, S, S, 3), RGB, 0..1, and returns its raw heads, a list of float32
    (N, S/stride, S/stride, 3 * (5 + classes)), smallest stride first; per anchor tx, ty, tw, th, objectness and
    classes before their sigmoids, as Darknet's last convolutions give them. Raises UserError for a bad value.
    """
    name = network_name(
        configs.YOLO_TYPE if yolo_type is None else yolo_type, configs.TRAIN_YOLO_TINY if tiny is None else tiny
    )
    size = check_input_size(configs.YOLO_INPUT_SIZE if input_size is None else input_size)
    classes = count_classes(configs.YOLO_COCO_CLASSES if CLASSES is None else CLASSES)
    pictures = keras.Input((size, size, 3), name="images")
    heads, embedding = NETWORKS[name].build(pictures, ANCHORS_PER_CELL * (5 + classes))
    return keras.Model(pictures, [*heads, embedding] if features else heads, name=name)
