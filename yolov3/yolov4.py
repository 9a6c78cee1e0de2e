"""CSPDarknet-53, YOLOv4 and YOLOv4-tiny (Bochkovskiy et al., 2020), and `Create_Yolo`, which makes any network.

A builder takes the picture batch (N, S, S, 3) and the number of classes. It returns the raw heads
(N, S/stride, S/stride, 3 * (5 + classes)), smallest stride first, and the embedding map, which is made of the first
features at stride 4: deeper layers keep that something is a person and lose the colour of the shirt.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from yolov3 import configs
from yolov3.cfg.network import read_network
from yolov3.checks import UserError, check_input_size, count_classes, project_path
from yolov3.heads import cfg_size, configured_network
from yolov3.layers import Convolutions, concatenate, embedding_map, max_pool, second_half, upsample
from yolov3.networks import NETWORKS, Network, network_name

import keras

CSP_DARKNET53 = (  # (filters, channels of each half, inner channels of a residual, residual blocks)
    (64, 64, 32, 1),
    (128, 64, 64, 2),
    (256, 128, 128, 8),
    (512, 256, 256, 8),
    (1024, 512, 512, 4),
)


def csp_darknet53(conv, x):
    """Return the features at strides 8, 16 and 32 (256, 512 and 1024 channels), and the embedding map (512 channels),
    of a picture batch (N, S, S, 3)."""
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


def yolov4(x, classes):
    """Build YOLOv4: spatial pyramid pooling, path aggregation, and heads at strides 8, 16 and 32."""
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
    heads = [conv.head(conv(x, 256, 3), classes)]
    for filters, route in ((256, stride16), (512, stride32)):
        x = conv.alternate(concatenate(conv(x, filters, 3, stride=2), route), filters, 5)
        heads.append(conv.head(conv(x, filters * 2, 3), classes))
    return heads, embedding


def yolov4_tiny(x, classes):
    """Build YOLOv4-tiny: heads at strides 16 and 32."""
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
    coarse = conv.head(conv(x, 512, 3), classes)
    x = concatenate(upsample(conv(x, 128)), stride16)
    fine = conv.head(conv(x, 256, 3), classes)
    return [fine, coarse], embedding_map(entries[0])


def Create_Yolo(
    input_size: int | None = None,
    yolo_type: str | None = None,
    tiny: bool | None = None,
    CLASSES: str | Path | Sequence[str] | int | None = None,
    features: bool = False,
    cfg: str | Path | None = None,
) -> keras.Model:
    """Return a network with fresh weights as a Keras model.

    model = Create_Yolo(416, "yolov4", tiny=True, CLASSES=80)
    fine, coarse = model(images)  # (N, 26, 26, 255), (N, 13, 13, 255)

    input_size  S, pixels, a multiple of 32; None: YOLO_INPUT_SIZE as configs.py has it now, or that of a cfg
    yolo_type   "yolov3" or "yolov4"; None: YOLO_TYPE
    tiny        whether it is the tiny version; None: TRAIN_YOLO_TINY
    CLASSES     a names file, a list of names, or their number; None: YOLO_COCO_CLASSES, or as many as a cfg has
    features    True: the embedding map, float32 (N, S/16, S/16, C), is one more output, the last
    cfg         a Darknet cfg, which says what the network is; None: YOLO_CFG, unless yolo_type or tiny is given

    The model takes float32 (N, S, S, 3), RGB, 0..1. It returns its raw heads, a list of float32
    (N, S/stride, S/stride, anchors * (5 + classes)), smallest stride first; a single one comes without a list. Each
    anchor has tx, ty, tw, th, objectness and classes before their sigmoids, as Darknet's last convolutions give them.
    Raises UserError for a bad value.
    """
    if cfg is not None:
        network = read_network(project_path(cfg))
    elif yolo_type is None and tiny is None:
        network = configured_network()
    else:
        names = configs.YOLO_TYPE if yolo_type is None else yolo_type, configs.TRAIN_YOLO_TINY if tiny is None else tiny
        network = NETWORKS[network_name(*names)]
    if input_size is None:
        input_size = cfg_size(network) if network.cfg else configs.YOLO_INPUT_SIZE
    if CLASSES is None:
        CLASSES = network.cfg.classes if network.cfg else configs.YOLO_COCO_CLASSES
    return make_model(network, input_size, count_classes(CLASSES), features)


def make_model(network: Network, input_size: int, classes: int, features: bool = False) -> keras.Model:
    """Return a network of the table or of a cfg with fresh weights, as `Create_Yolo` does. Raises UserError."""
    size = check_input_size(input_size, multiple=network.multiple)
    pictures = keras.Input((size, size, 3), name="images")
    heads, embedding = network.build(pictures, classes)
    if features and embedding is None:
        text = 'has no layer at stride 4 or 8, of which TRACKER_EMBEDDER = "detector" and YOLO_FEATURES are made'
        raise UserError(f'{network.name} {text}: set these to "none" and False in yolov3/configs.py')
    return keras.Model(pictures, [*heads, embedding] if features else heads, name=model_name(network))


def model_name(network: Network) -> str:
    """Return what Keras calls the model of a network: its name, of the characters that TensorFlow allows."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", network.name).lstrip("_-") or "network"
