"""Darknet-53, YOLOv3 and YOLOv3-tiny (Redmon and Farhadi, 2018), layer for layer as in Darknet's cfg files.

A builder takes the picture batch (N, S, S, 3) and the number of classes. It returns the raw heads
(N, S/stride, S/stride, 3 * (5 + classes)), smallest stride first, and the embedding map, which is made of the first
features at stride 4: deeper layers keep that something is a person and lose the colour of the shirt.
"""

from yolov3.layers import Convolutions, concatenate, embedding_map, max_pool, upsample

DARKNET53 = (  # (filters, residual blocks) after each halving of the picture
    (64, 1),
    (128, 2),
    (256, 8),
    (512, 8),
    (1024, 4),
)


def darknet53(conv, x):
    """Return the features at strides 8, 16 and 32 (256, 512 and 1024 channels), and the embedding map (512 channels),
    of a picture batch (N, S, S, 3)."""
    x = conv(x, 32, 3)
    entries, features = [], []
    for filters, repeats in DARKNET53:
        x = conv(x, filters, 3, stride=2)
        entries.append(x)
        for _ in range(repeats):
            x = conv.residual(x, filters, filters // 2)
        features.append(x)
    return *features[2:], embedding_map(entries[1])


def yolov3(x, classes):
    """Build YOLOv3: three heads, from stride 32 up to stride 8."""
    conv = Convolutions()
    stride8, stride16, x, embedding = darknet53(conv, x)
    heads = []
    for filters, route in ((512, stride16), (256, stride8), (128, None)):
        x = conv.alternate(x, filters, 5)
        heads.append(conv.head(conv(x, filters * 2, 3), classes))
        if route is not None:
            x = concatenate(upsample(conv(x, filters // 2)), route)
    return heads[::-1], embedding


def yolov3_tiny(x, classes):
    """Build YOLOv3-tiny: heads at strides 16 and 32."""
    conv = Convolutions()
    for filters in (16, 32):
        x = max_pool(conv(x, filters, 3))
    stride4 = conv(x, 64, 3)
    x = max_pool(conv(max_pool(stride4), 128, 3))
    stride16 = conv(x, 256, 3)
    x = conv(max_pool(stride16), 512, 3)
    x = conv(max_pool(x, stride=1), 1024, 3)
    x = conv(x, 256)
    coarse = conv.head(conv(x, 512, 3), classes)
    x = concatenate(upsample(conv(x, 128)), stride16)
    fine = conv.head(conv(x, 256, 3), classes)
    return [fine, coarse], embedding_map(stride4)
