"""Darknet's .cfg files: their sections, and what they say of one of our four networks.

A cfg is a list of sections, [net] first; the others are the layers, numbered from 0 as Darknet prints them:

    [convolutional]        # comment
    filters=64
    activation=leaky
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from yolov3.cfg_layers import ANCHORS_PER_CELL, BETA_NMS, first_difference, read_layer, strides_of
from yolov3.checks import UserError, check_input_size
from yolov3.networks import NETWORKS, Heads, constants_to_set

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
SAME = {"conv": "convolutional", "max": "maxpool", "network": "net"}  # names with a second spelling
NMS = {"default": "iou", "greedynms": "diou", "diounms": "diou"}  # nms_kind: one of boxes.NMS_KINDS


@dataclass(frozen=True)
class Section:
    """One section of a cfg. Its methods read options, and raise UserError with file, section and line."""

    file: Path
    number: int  # of the layer, from 0; -1: [net]
    name: str
    line: int  # of its [name]
    options: dict  # name: (text without white space, line)

    def word(self, option: str, default: str) -> str:
        """Return an option as it is written."""
        return self.options.get(option, (default, 0))[0]

    def reals(self, option: str, default: tuple = ()) -> tuple:
        """Return an option that is a list of numbers, separated by commas."""
        if option not in self.options:
            return default
        words = [word for word in self.options[option][0].split(",") if word]
        if not words or not all(NUMBER.fullmatch(word) and abs(float(word)) < 2**31 for word in words):
            raise self.error(f"{option}={self.options[option][0]} must be a number or several", option)
        return tuple(float(word) for word in words)

    def real(self, option: str, default: float) -> float:
        """Return an option that is one number."""
        numbers = self.reals(option, (default,))
        if len(numbers) != 1:
            raise self.error(f"{option}={self.options[option][0]} must be one number", option)
        return numbers[0]

    def wholes(self, option: str, default: tuple = ()) -> tuple:
        """Return an option that is a list of whole numbers."""
        numbers = self.reals(option, default)
        if any(x != int(x) for x in numbers):
            raise self.error(f"{option}={self.options[option][0]} must be whole numbers", option)
        return tuple(int(x) for x in numbers)

    def whole(self, option: str, default: int) -> int:
        """Return an option that is one whole number."""
        number = self.real(option, default)
        if number != int(number):
            raise self.error(f"{option}={self.options[option][0]} must be a whole number", option)
        return int(number)

    def error(self, text: str, option: str | None = None) -> UserError:
        """Return a UserError that names the file, the section and the line, of an option if there is one."""
        _, line = self.options.get(option, (None, self.line))
        place = f"section {self.number} [{self.name}]" if self.number >= 0 else f"section [{self.name}]"
        return UserError(f"{self.file}, {place}, line {line}: {text}")


def read_sections(file: Path) -> list[Section]:
    """Return the sections of a cfg, [net] first. Comments and line ends may be of any kind. Raises UserError."""
    try:
        data = file.read_bytes() if file.is_file() or not file.exists() else b"\0"  # a device may have no end
    except OSError as error:
        raise UserError(f"cfg {file} cannot be read: {error.strerror}") from None
    if b"\0" in data:
        raise UserError(f"{file} is not a Darknet cfg: it is not a text file")
    text = data.decode("utf-8-sig", "replace")
    sections: list[Section] = []
    for number, written in enumerate(re.split("\r\n|\n|\r", text), 1):
        line = "".join(written.split("#")[0].split())  # Darknet drops white space wherever it stands
        if not line or line[0] == ";":
            continue
        name, equals, value = line.partition("=")
        if line[0] == "[" and line[-1] == "]":
            name = SAME.get(line[1:-1], line[1:-1])
            sections.append(Section(file, len(sections) - 1, name, number, {}))
        elif not equals or not sections:
            raise UserError(f"{file}, line {number}: {written.strip()[:60]!r} is neither [section] nor option=value")
        else:
            sections[-1].options.setdefault(name, (value, number))  # of two, Darknet goes by the first
    if not sections or sections[0].name != "net":
        raise UserError(f"{file} is not a Darknet cfg: its first section must be [net]")
    return sections


# --- What a cfg says of one of our networks ------------------------------------------------------------------------


class Cfg(NamedTuple):
    """What a cfg of one of our networks says that the network does not."""

    file: Path
    net: Section
    heads: Heads
    classes: int  # how many


def input_size(net: Section) -> int:
    """Return width and height of a [net], which must be the same, in pixels. Raises UserError."""
    width, height = (net.whole(side, 0) for side in ("width", "height"))
    if width != height:
        raise net.error(f"width={width} and height={height} must be the same", "height")
    return check_input_size(width, f"width and height in {net.file}")


def read_cfg(file: Path, name: str) -> Cfg:
    """Return what a cfg says of the network of that name: "yolov4-tiny" or one of the other three.

    Raises UserError, naming the first layer that differs, if its layers are not those of that network, and of which
    network they are if it is another of ours.
    """
    net, *sections = read_sections(file)
    problem = first_difference(sections, name)
    if problem:
        nearest = problem
        for other in (x for x in NETWORKS if x != name):
            theirs = first_difference(sections, other)
            if theirs is None:
                raise UserError(f"{file} is a cfg of {other}, not of {name}: {constants_to_set(other, name)}")
            nearest = theirs if theirs.number > nearest.number else nearest
        section = (net, *sections)[min(nearest.number + 1, len(sections))]
        raise section.error(nearest.text, nearest.option)
    if net.whole("channels", 3) != 3:
        raise net.error("channels must be 3, for RGB", "channels")
    yolo = [section for section in sections if section.name == "yolo"]
    classes = yolo[0].whole("classes", 20)
    for section in yolo:
        if section.whole("classes", 20) != classes or classes < 1:
            raise section.error(f"classes must be 1 or more and the same in each [yolo], {classes} here", "classes")
    strides = strides_of([read_layer(section) for section in sections])
    rows = sorted(zip((strides[x.number] for x in yolo), map(_anchors, yolo), yolo, strict=True), key=lambda x: x[0])
    heads = Heads(
        tuple(stride for stride, _, _ in rows),
        tuple(anchors for _, anchors, _ in rows),
        tuple(section.real("scale_x_y", 1.0) for _, _, section in rows),
        _suppression(yolo[-1]),
    )
    return Cfg(file, net, heads, classes)


def _anchors(section):
    """The anchors of a [yolo] that its mask names -> three (width, height)."""
    numbers = section.reals("anchors")
    if not numbers or len(numbers) % 2 or min(numbers) <= 0:
        raise section.error("anchors must be pairs of width and height in pixels, above 0", "anchors")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    mask = section.wholes("mask", tuple(range(section.whole("num", len(pairs)))))
    if len(mask) != ANCHORS_PER_CELL or not all(0 <= i < len(pairs) for i in mask):
        raise section.error(f"mask must name {ANCHORS_PER_CELL} of the {len(pairs)} anchors, counted from 0", "mask")
    return tuple(pairs[i] for i in mask)


def _suppression(section):
    """What the last [yolo] says of suppression -> one of NMS_KINDS."""
    kind, beta = section.word("nms_kind", "default"), section.real("beta_nms", BETA_NMS)
    if kind not in NMS:
        raise section.error(f"nms_kind={kind} is not known: choose one of {', '.join(NMS)}", "nms_kind")
    if kind == "diounms" and beta != BETA_NMS:
        raise section.error(f"beta_nms={beta:g} is not implemented with diounms: {BETA_NMS} is", "beta_nms")
    return NMS[kind]
