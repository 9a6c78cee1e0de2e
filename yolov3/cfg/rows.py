"""The sections of a Darknet cfg as rows, one for each layer: what it reads and what it makes.

To add a section: its reader here, its options in cfg/options.py, its Keras layers in cfg/layers.py.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from yolov3.cfg.options import choice, square_stride
from yolov3.cfg.sections import Section
from yolov3.networks import BETA_NMS, LARGEST_ANCHOR, MOST_BETA_NMS

NMS = {"default": "iou", "cornersnms": "iou", "greedynms": "diou", "diounms": "diou"}  # nms_kind: one of NMS_KINDS
ACTIVATIONS = ("linear", "leaky", "mish", "swish", "logistic", "relu")
SCALING_ACTIVATIONS = ("linear", "leaky", "logistic", "relu")  # Darknet has no others in [scale_channels]

# --- Rows ------------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One layer: its map is made of those of its inputs."""

    section: Section
    inputs: tuple  # numbers of the layers that it reads; -1: the picture
    channels: int
    stride: Fraction | None  # pixels of network input per cell; None behind [avgpool], where there is one cell
    options: dict[str, Any] = {}  # noqa: RUF012  what else decides its answer, Darknet's defaults filled in
    parameters: int = 0

    @property
    def number(self) -> int:
        return self.section.number

    @property
    def name(self) -> str:
        return self.section.name


PICTURE = Row(Section(Path(), -1, "net", 0, {}), (), 3, Fraction(1))


def source(section: Section, rows: Sequence[Row], number: int | None = None, option: str | None = None) -> Row:
    """Return the row of a number that a section reads, or of the one before it."""
    number = section.number - 1 if number is None else number
    row = rows[number] if number >= 0 else PICTURE
    if row.name == "yolo":
        text = f"{option}={section.word(option, '')[:60]} names" if option else "it follows"
        raise section.error(f"{text} layer {number}, a [yolo], whose boxes no layer can read", option)
    return row


def listed(section: Section, rows: Sequence[Row], option: str) -> list[Row]:
    """Return the rows that an option names by their numbers: from the first layer, or, below 0, back from this one."""
    numbers = [x if x >= 0 else section.number + x for x in section.wholes(option)]
    if not numbers or not all(0 <= x < section.number for x in numbers):
        raise section.error(f"{option}={section.word(option, '')[:60]} is not a layer before this one", option)
    return [source(section, rows, x, option) for x in numbers]


# --- Sections to rows, (section, rows before it) -> Row ------------------------------------------------------------


def convolutional(section, rows):
    before = source(section, rows)
    size, stride, filters = section.whole("size", 1, 1), square_stride(section), section.whole("filters", 1, 1)
    padding = size // 2 if section.whole("pad", 0) else section.whole("padding", 0, 0)
    if size > 1 and section.whole("dilation", 1, 1) != 1:
        raise section.error(f"dilation={section.word('dilation', '')} is not implemented", "dilation")
    groups = section.whole("groups", 1, 1)
    for what, count in (("channels of the layer before", before.channels), ("filters", filters)):
        if count % groups:
            raise section.error(f"groups={groups} does not divide the {count} {what}", "groups")
    normalise = bool(section.whole("batch_normalize", 0) or section.whole("cbn", 0))
    options = {
        "filters": filters,
        "size": size,
        "stride": stride,
        "padding": padding,
        "groups": groups,
        "normalise": normalise,
        "activation": choice(section, "activation", "logistic", ACTIVATIONS),
    }
    parameters = filters * (size * size * before.channels // groups + (4 if normalise else 1))
    return Row(section, (before.number,), filters, _times(before.stride, stride), options, parameters)


def maxpool(section, rows):
    before, stride = source(section, rows), square_stride(section)
    size = section.whole("size", stride, 1)
    padding = section.whole("padding", size - 1, 0)
    if padding > 2 * (size - 1):
        text = f"padding={padding} leaves windows without a pixel: {2 * (size - 1)} is the most"
        raise section.error(text, "padding")
    options = {"size": size, "stride": stride, "padding": padding}
    return Row(section, (before.number,), before.channels, _times(before.stride, stride), options)


def upsample(section, rows):
    before, stride = source(section, rows), section.whole("stride", 2, 1)
    if before.stride is None:
        raise section.error("it is behind an [avgpool], which leaves one cell")
    return Row(section, (before.number,), before.channels, before.stride / stride, {"stride": stride})


def route(section, rows):
    layers = listed(section, rows, "layers")
    groups, group = section.whole("groups", 1, 1), section.whole("group_id", 0, 0)
    if group >= groups:
        raise section.error(f"group_id={group} is not one of {groups} groups, counted from 0", "group_id")
    for row in layers:
        if row.channels % groups:
            raise section.error(f"groups={groups} does not divide the {row.channels} channels of layer {row.number}")
    channels = sum(row.channels // groups for row in layers)
    options = {"groups": groups, "group": group}
    return Row(section, tuple(row.number for row in layers), channels, layers[0].stride, options)


def shortcut(section, rows):
    before, others = source(section, rows), listed(section, rows, "from")
    choice(section, "weights_type", "none", ("none",))
    options = {"activation": choice(section, "activation", "linear", ACTIVATIONS)}
    return Row(section, (before.number, *(row.number for row in others)), before.channels, before.stride, options)


def avgpool(section, rows):
    before = source(section, rows)
    return Row(section, (before.number,), before.channels, None)


def scale_channels(section, rows):
    before, scaled = source(section, rows), listed(section, rows, "from")
    if len(scaled) != 1:
        raise section.error(f"from={section.word('from', '')} must be one layer", "from")
    (scaled,) = scaled
    if before.stride is not None or before.channels != scaled.channels:
        what = f"{before.channels} channels" if before.stride is None else "more than one cell"
        raise section.error(f"the layer before it has {what}: layer {scaled.number} takes one of {scaled.channels}")
    options = {"activation": choice(section, "activation", "linear", SCALING_ACTIVATIONS)}
    return Row(section, (before.number, scaled.number), scaled.channels, scaled.stride, options)


def dropout(section, rows):
    before = source(section, rows)
    return Row(section, (before.number,), before.channels, before.stride)


def yolo(section, rows):
    before = source(section, rows)
    classes = section.whole("classes", 20, 1)
    first = next((row for row in rows if row.name == "yolo"), None)
    if first and first.options["classes"] != classes:
        raise section.error(f"classes={classes}, but layer {first.number} has {first.options['classes']}", "classes")
    new_coords = section.whole("new_coords", 0) != 0
    if first and first.options["new_coords"] != new_coords:
        raise section.error("new_coords must be the same in each [yolo]", "new_coords")
    anchors = _anchors(section)
    _check_head(section, before, anchors, classes, "logistic" if new_coords else "linear")
    scale = section.real("scale_x_y", 1.0)
    if scale <= 0:
        raise section.error(f"scale_x_y={scale:g} must be above 0", "scale_x_y")
    kind, beta = choice(section, "nms_kind", "default", tuple(NMS)), BETA_NMS
    if kind == "diounms":  # Darknet's other kinds do not heed it
        beta = section.real("beta_nms", BETA_NMS)
    if not 0 <= beta <= MOST_BETA_NMS:
        raise section.error(f"beta_nms={beta:g} must be from 0 to {MOST_BETA_NMS}", "beta_nms")
    options = {
        "anchors": anchors,
        "scale_x_y": scale,
        "nms": NMS[kind],
        "beta_nms": beta,
        "new_coords": new_coords,
        "classes": classes,
    }
    return Row(section, (before.number,), before.channels, before.stride, options)


READERS: dict[str, Callable[[Section, list[Row]], Row]] = {
    function.__name__: function
    for function in (convolutional, maxpool, upsample, route, shortcut, avgpool, scale_channels, dropout, yolo)
}


def _times(before, stride):
    return None if before is None else before * stride


def _anchors(section):
    """The anchors of a [yolo] that its mask names -> tuple of (width, height)."""
    numbers = section.reals("anchors")
    if not numbers or len(numbers) % 2 or not all(0 < x <= LARGEST_ANCHOR for x in numbers):
        raise section.error("anchors must be pairs of width and height in pixels, above 0", "anchors")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    count = section.whole("num", len(pairs), 1)
    mask = section.wholes("mask", tuple(range(count)))
    for i in mask:
        if not 0 <= i < min(count, len(pairs)):
            there = f"num={count}" if count < len(pairs) else f"there are {len(pairs)} anchors"
            raise section.error(f"mask names anchor {i}, but {there}, counted from 0", "mask")
    return tuple(pairs[i] for i in mask)


def _check_head(section, before, anchors, classes, activation):
    """Raise UserError if the layer before a [yolo] is not the convolution that it takes."""
    if before.name != "convolutional" or before.options["normalise"] or before.options["groups"] > 1:
        raise section.error("before a [yolo] must be a [convolutional] without batch_normalize and groups")
    if before.stride is None or before.stride.denominator > 1:
        raise section.error("its cells must be one or more whole pixels of the input")
    right = len(anchors) * (5 + classes)
    if before.channels != right:
        raise before.section.error(
            f"filters={before.channels}, but the [yolo] behind it has {len(anchors)} anchors and {classes} classes: "
            f"write filters={right}, which is {len(anchors)} x (5 + {classes})",
            "filters",
        )
    if before.options["activation"] != activation:
        new_coords = "new_coords=1" if activation == "logistic" else "new_coords=0"
        text = f"activation={before.options['activation']} must be {activation} before a [yolo] with {new_coords}"
        raise before.section.error(text, "activation")
