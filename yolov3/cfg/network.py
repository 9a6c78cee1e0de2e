"""What a Darknet cfg says as a whole: its rows checked against each other, and the network as a row of the table.

`read_network` gives a row like those of `networks.NETWORKS`, so that whatever runs one of these runs it, too.
"""

import difflib
import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from yolov3.cfg.options import check_options
from yolov3.cfg.rows import READERS, Row
from yolov3.cfg.sections import Section, read_sections, read_text
from yolov3.checks import UserError
from yolov3.networks import Heads, Network

MOST_PARAMETERS = 2**30  # 4 GB
MOST_NUMBERS = 2**31  # in the map of a layer: 8 GB
OLDER = ("region", "detection")  # what YOLOv2 and YOLOv1 end in
EMBEDDING_STRIDES = (4, 8)  # of the features that embeddings are made of; the first that there is
EMBEDDING_CELL = 16  # pixels of a cell of the embedding map


class Cfg(NamedTuple):
    """What a cfg says."""

    text: str
    net: Section
    size: tuple[int, int]  # height and width of the input
    rows: tuple[Row, ...]
    heads: Heads
    head_rows: tuple[Row, ...]  # the [yolo] of each head, smallest stride first
    classes: int  # how many

    @property
    def file(self) -> Path:
        return self.net.file

    @property
    def parameters(self) -> int:
        """Return how many numbers its .weights file holds."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiple(self) -> int:
        """What height and width of the input must be multiples of."""
        return math.lcm(*(row.stride.numerator for row in self.rows if row.stride is not None))


def read_cfg(text: str, file: Path) -> Cfg:
    """Return what the text of a cfg says. Raises UserError, which names the file, the section and the line."""
    net, *sections = read_sections(text, file)
    names = {section.name for section in sections}
    if "yolo" not in names:
        older = [section for section in sections if section.name in OLDER]
        if older:
            raise older[0].error("this is a network of YOLOv1 or YOLOv2, which is not implemented: only [yolo] is")
        if "Gaussian_yolo" not in names:
            raise UserError(f"{file} has no [yolo]: it is the cfg of a classifier, or cut off; name that of a detector")
    for section in sections:
        if section.name not in READERS:
            near = difflib.get_close_matches(section.name, READERS, 1, 0.8)
            raise section.error(f"[{section.name}] is not implemented{f': is it [{near[0]}]?' if near else ''}")
    for section in (net, *sections):
        check_options(section)
    if net.whole("channels", 3) != 3:
        raise net.error(f"channels={net.word('channels', '')} is not implemented: 3 is, for RGB", "channels")
    height, width = (net.whole(side, 0, 1) for side in ("height", "width"))

    rows: list[Row] = []
    parameters = 0
    for section in sections:
        rows.append(READERS[section.name](section, rows))
        parameters += rows[-1].parameters
        if parameters > MOST_PARAMETERS:
            raise section.error(f"up to here the network has {parameters:,} weights: {MOST_PARAMETERS:,} are the most")
    _check_that_all_is_used(rows)
    cfg = Cfg(text, net, (height, width), tuple(rows), *_heads(rows))
    map_sizes(cfg, cfg.size)
    return cfg


def _check_that_all_is_used(rows):
    """Raise UserError at a convolution that no [yolo] depends on: its weights would be in the file for nothing."""
    used = set()
    for row in reversed(rows):
        if row.name == "yolo" or row.number in used:
            used.update(row.inputs)
        elif row.name == "convolutional":
            raise row.section.error("no [yolo] depends on this layer: take it out, unless the cfg is cut off")


def _heads(rows):
    """The rows of a cfg -> Heads, their [yolo] rows and the number of classes."""
    yolos = sorted((row for row in rows if row.name == "yolo"), key=lambda row: row.stride)
    options = [row.options for row in yolos]
    last = max(yolos, key=lambda row: row.number)
    heads = Heads(
        tuple(int(row.stride) for row in yolos),
        tuple(x["anchors"] for x in options),
        tuple(x["scale_x_y"] for x in options),
        *(last.options[name] for name in ("nms", "beta_nms", "new_coords")),  # Darknet goes by the last
    )
    return heads, tuple(yolos), last.options["classes"]


# --- Sizes -----------------------------------------------------------------------------------------------------------


def map_sizes(cfg: Cfg, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return height and width of each layer's map at an input size. Raises UserError if the layers do not fit."""
    sizes: list[tuple[int, int]] = []
    for row in cfg.rows:
        theirs = [sizes[number] if number >= 0 else size for number in row.inputs]
        sizes.append(_map_size(row, theirs))
        height, width = sizes[-1]
        if min(height, width) < 1:
            raise row.section.error(f"its map of {theirs[0][0]} x {theirs[0][1]} is smaller than its window")
        if height * width * row.channels > MOST_NUMBERS:
            raise row.section.error(f"its map of {height} x {width} x {row.channels} is too large")
        if row.name == "yolo" and row.stride and (height * row.stride, width * row.stride) != size:
            text = f"its {height} x {width} cells do not divide an input of {size[0]} x {size[1]} pixels: make that a "
            raise row.section.error(f"{text}multiple of {cfg.multiple} (width and height in [net])")
    return sizes


def _map_size(row, theirs):
    """Height and width of a layer's map, from those of what it reads."""
    options, (height, width) = row.options, theirs[0]
    if row.name == "convolutional":
        return tuple((x + 2 * options["padding"] - options["size"]) // options["stride"] + 1 for x in theirs[0])
    if row.name == "maxpool":
        return tuple((x + options["padding"] - options["size"]) // options["stride"] + 1 for x in theirs[0])
    if row.name == "upsample":
        return height * options["stride"], width * options["stride"]
    if row.name == "avgpool":
        return 1, 1
    if row.name == "scale_channels":
        return theirs[1]
    for number, (other_height, other_width) in zip(row.inputs, theirs, strict=True):
        if (other_height, other_width) != (height, width):
            raise row.section.error(
                f"layer {row.inputs[0]} is {height} x {width}, but layer {number} is {other_height} x {other_width}"
            )
    return height, width


# --- A row of the table of networks ----------------------------------------------------------------------------------


def read_network(file: Path) -> Network:
    """Return the network of a cfg, named like the file. Raises UserError."""
    return network_of(read_text(file, "name a Darknet .cfg, in YOLO_CFG in yolov3/configs.py or else"), file, file.stem)


@lru_cache(16)
def network_of(text: str, file: Path, name: str) -> Network:
    """Return the network of the text of a cfg; `file` is named in messages. Raises UserError."""
    cfg = read_cfg(text, file)
    return Network(
        type=name,
        tiny=False,
        builder="yolov3.cfg.layers:build",
        heads=cfg.heads,
        backbone=_frozen(cfg),
        multiple=math.lcm(cfg.multiple, EMBEDDING_CELL),
        cfg=cfg,
    )


def _frozen(cfg):
    """The number of convolutions up to the last `stopbackward=1`, Darknet's word for the end of what a training leaves
    as it is; None without one."""
    ends = [row.number for row in cfg.rows if row.section.whole("stopbackward", 0)]
    return sum(row.name == "convolutional" and row.number <= ends[-1] for row in cfg.rows) if ends else None


def embedding_row(cfg: Cfg) -> Row | None:
    """Return the last layer at stride 4, or else 8, before the map becomes smaller: deeper layers keep that something
    is a person and lose the colour of the shirt."""
    for stride in EMBEDDING_STRIDES:
        smaller = [row.number for row in cfg.rows if row.stride is not None and row.stride > stride]
        there = [row for row in cfg.rows[: min(smaller, default=None)] if row.stride == stride and row.name != "yolo"]
        if there:
            return there[-1]
    return None
