"""What a network's raw heads are decoded with: its weights' cfg, the anchors of a constant, or the published."""

import functools
from pathlib import Path

from yolov3 import configs
from yolov3.cfg import Cfg, input_size, read_cfg
from yolov3.checks import UserError, are_like, project_path
from yolov3.downloads import OFFICIAL, is_official
from yolov3.networks import LARGEST_ANCHOR, NETWORKS, Heads


def configured_heads(name: str, constant: str = "YOLO_ANCHORS") -> Heads:
    """Return the published heads of a network, with the anchors of a constant in place of theirs if it has any."""
    heads, anchors = NETWORKS[name].heads, getattr(configs, constant)
    if anchors is None:
        return heads
    if not are_like(anchors, heads.anchors, LARGEST_ANCHOR):
        counts = " and ".join(dict.fromkeys(str(len(head)) for head in heads.anchors))
        raise UserError(f"{constant} must be None or {len(heads.anchors)} heads of {counts} (width, height) for {name}")
    return heads._replace(anchors=tuple(tuple((float(w), float(h)) for w, h in head) for head in anchors))


def cfg_file(weights: Path) -> Path | None:
    """Return the cfg of a .weights file: the one that YOLO_CFG names, or that of the same name beside it, if there is
    one."""
    beside = weights.with_suffix(".cfg")
    return project_path(configs.YOLO_CFG) if configs.YOLO_CFG else beside if beside.is_file() else None


def configured_cfg(weights: Path, name: str) -> Cfg | None:
    """Return what the cfg of a .weights file says, if it has one. Raises UserError if that is not one of the network of
    that name."""
    file = cfg_file(weights)
    return read_cfg(file, name) if file else None


def heads_of_file(weights: Path, name: str, classes: int, constant: str, size: int | None) -> tuple[Heads, int | None]:
    """Return what a .weights file is decoded with, and the input size: `size`, or that of its cfg if it is None.

    One line on the terminal says so; without a cfg, only if the file is not an official one. Raises UserError if the
    cfg does not fit the network or has not so many classes as the names that `constant` gives.
    """
    cfg = configured_cfg(weights, name)
    if cfg is None:
        tell_unofficial(weights, name)
        return configured_heads(name), size
    if cfg.classes != classes:
        raise UserError(f"{cfg.file} has {cfg.classes} classes, but {classes} are named: name a file in {constant}")
    given, passed_over = [f"{classes} classes"], ["YOLO_ANCHORS"] * (configs.YOLO_ANCHORS is not None)
    if size is None:
        size = input_size(cfg.net)
        given.append(f"an input of {size} x {size} pixels")
        passed_over += [f"YOLO_INPUT_SIZE = {configs.YOLO_INPUT_SIZE}"] * (size != configs.YOLO_INPUT_SIZE)
    instead = f", in place of {' and '.join(passed_over)}" if passed_over else ""
    _say_once(f"{cfg.file} gives the anchors, {', '.join(given)}{instead}")
    return cfg.heads, size


def tell_unofficial(weights: Path, name: str | None) -> None:
    """Say, if a .weights file is not an official one, that it is decoded with the published anchors of the network of
    that name; with None or with YOLO_ANCHORS, only if it looks like an official one, by its name and size."""
    if not weights.is_file() or is_official(weights):
        return  # a missing one is fetched, or refused where it is read
    official = OFFICIAL.get(weights.name)
    posing = official is not None and official.size == weights.stat().st_size
    subject = f"{weights} is not the official file{' of that name: its SHA-256 is another' if posing else ''}"
    if name and configs.YOLO_ANCHORS is None:
        _say_once(
            f"{subject}; its boxes are decoded with the published anchors of {name}: if it was trained with others, "
            f"put its cfg beside it as {weights.with_suffix('.cfg').name}, or set YOLO_CFG or YOLO_ANCHORS"
        )
    elif posing:
        _say_once(subject)


@functools.cache
def _say_once(text):
    print(text)
