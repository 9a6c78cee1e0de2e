"""List the four networks: how each is built, what its published weights were trained with, and their addresses.

Reading the table does not need Keras. To add a network: a builder in yolov3.py or yolov4.py, a row here, and the
constant for its weights in configs.py.
"""

import pkgutil
from typing import Any, NamedTuple

from yolov3.checks import choose

NMS_KINDS = ("iou", "diou")
LARGEST_ANCHOR = 1e5  # pixels
ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download/"
HANK_AI = "https://github.com/hank-ai/darknet/releases/download/v2.0/"
REDMON = "https://data.pjreddie.com/files/"
REDMON_BEFORE = "https://pjreddie.com/media/files/"  # answers with a web page since April 2025
BETA_NMS = 0.6  # the power of "diou"'s penalty, Darknet's default; the paper has 1
MOST_BETA_NMS = 100


class Heads(NamedTuple):
    """Hold what decodes a network's raw heads to boxes: one entry for each head, smallest stride first."""

    strides: tuple[int, ...]  # pixels of network input per cell
    anchors: tuple  # one or more (width, height) for each head, pixels of network input; three in the table below
    scale_x_y: tuple[float, ...]  # how far a centre may leave its cell; 1.0: not at all
    nms: str  # "iou" or "diou", see `boxes.suppress`
    beta_nms: float = BETA_NMS  # with "diou"
    new_coords: bool = False  # whether boxes are decoded as the scaled YOLOv4 networks do


class Official(NamedTuple):
    """Describe the weights that Darknet's authors published."""

    size: int  # bytes
    sha256: tuple[str, ...]  # of every version in circulation
    urls: tuple[str, ...]  # tried in this order


class Network(NamedTuple):
    """Describe one network: a row of the table, or what a cfg says (`cfg.network.read_network`)."""

    type: str  # YOLO_TYPE; or the name of the cfg
    tiny: bool  # TRAIN_YOLO_TINY
    builder: str  # module:function; `build` says what it takes and returns
    heads: Heads  # those that the published weights were trained with
    weights: str = ""  # the constant in configs.py that names its Darknet weights
    official: Official | None = None
    backbone: int | None = None  # number of convolutions in the backbone, which come first
    multiple: int = 32  # what height and width of the input must be multiples of: the pixels of the largest cell
    cfg: Any = None  # a cfg.network.Cfg, the third argument of its builder

    @property
    def name(self) -> str:
        """Return what it is called, such as "yolov4-tiny"."""
        return f"{self.type}-tiny" if self.tiny else self.type

    @property
    def text(self) -> str | None:
        """Return the text of its cfg; None for a row of the table."""
        return self.cfg.text if self.cfg else None

    def build(self, pictures: Any, classes: int) -> tuple[list, Any]:
        """Return the raw heads, smallest stride first, and the embedding map of a symbolic picture batch."""
        more = () if self.cfg is None else (self.cfg,)
        return pkgutil.resolve_name(self.builder)(pictures, classes, *more)


YOLOV3_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
YOLOV4_ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
# The published weights of both tiny networks were trained with mask = 1,2,3 in the fine head, which uses the fourth
# anchor twice and the first never. Today's yolov3-tiny.cfg says mask = 0,1,2, which costs the official weights 16
# points of AP50.
TINY_ANCHORS = (
    ((23, 27), (37, 58), (81, 82)),
    ((81, 82), (135, 169), (344, 319)),
)
NETWORKS = {
    "yolov3": Network(
        "yolov3",
        False,
        "yolov3.yolov3:yolov3",
        Heads((8, 16, 32), YOLOV3_ANCHORS, (1.0, 1.0, 1.0), "iou"),
        "YOLO_V3_WEIGHTS",
        Official(
            248_007_048,
            ("523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",),
            (REDMON + "yolov3.weights", HANK_AI + "yolov3.weights", REDMON_BEFORE + "yolov3.weights"),
        ),
        52,
    ),
    "yolov3-tiny": Network(
        "yolov3",
        True,
        "yolov3.yolov3:yolov3_tiny",
        Heads((16, 32), TINY_ANCHORS, (1.0, 1.0), "iou"),
        "YOLO_V3_TINY_WEIGHTS",
        Official(
            35_434_956,
            ("dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",),
            (REDMON + "yolov3-tiny.weights", HANK_AI + "yolov3-tiny.weights", REDMON_BEFORE + "yolov3-tiny.weights"),
        ),
        7,
    ),
    "yolov4": Network(
        "yolov4",
        False,
        "yolov3.yolov4:yolov4",
        Heads((8, 16, 32), YOLOV4_ANCHORS, (1.2, 1.1, 1.05), "diou"),
        "YOLO_V4_WEIGHTS",
        Official(
            257_717_640,
            (
                "e8a4f6c62188738d86dc6898d82724ec0964d0eb9d2ae0f0a9d53d65d108d562",
                "8463fde6ee7130a947a73104ce73c6fa88618a9d9ecd4a65d0b38f07e17ec4e4",
            ),
            (ALEXEYAB + "darknet_yolo_v3_optimal/yolov4.weights", HANK_AI + "yolov4.weights"),
        ),
        72,
    ),
    "yolov4-tiny": Network(
        "yolov4",
        True,
        "yolov3.yolov4:yolov4_tiny",
        Heads((16, 32), TINY_ANCHORS, (1.05, 1.05), "diou"),
        "YOLO_V4_TINY_WEIGHTS",
        Official(
            24_251_276,
            (
                "cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87",
                "037676f0d929c24e1bd9a0037fe30dc416fc26e0ca2a4491a44d024873316061",
            ),
            (ALEXEYAB + "darknet_yolo_v4_pre/yolov4-tiny.weights", HANK_AI + "yolov4-tiny.weights"),
        ),
        15,
    ),
}
TYPES = tuple(dict.fromkeys(row.type for row in NETWORKS.values()))


def network_name(yolo_type: str, tiny: bool) -> str:
    """Return the name of a network in the table, such as "yolov4-tiny". Raises UserError if it is not in there."""
    choose("YOLO_TYPE", yolo_type, TYPES)
    choose("TRAIN_YOLO_TINY", tiny, (True, False))
    return next(name for name, row in NETWORKS.items() if (row.type, row.tiny) == (yolo_type, bool(tiny)))


def constants_to_set(wanted: str, now: str | None) -> str:
    """Return how to configure the network `wanted` where `now` is configured: 'set YOLO_TYPE = "yolov3"'. None is the
    network of a cfg."""
    row = NETWORKS[wanted]
    if now is None:
        return f'set YOLO_CFG = None, YOLO_TYPE = "{row.type}" and TRAIN_YOLO_TINY = {row.tiny}'
    other, changes = NETWORKS[now], []
    if row.type != other.type:
        changes.append(f'YOLO_TYPE = "{row.type}"')
    if row.tiny != other.tiny:
        changes.append(f"TRAIN_YOLO_TINY = {row.tiny}")
    return f"set {' and '.join(changes)}"
