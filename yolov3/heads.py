"""Which network weights are of, and what its raw heads are decoded with: a cfg, or the table of networks with the
anchors of a constant or the published ones."""

import functools
from pathlib import Path

from yolov3 import configs
from yolov3.cfg.network import read_network
from yolov3.checks import UserError, are_like, check_input_size, project_path
from yolov3.downloads import OFFICIAL, is_official
from yolov3.networks import LARGEST_ANCHOR, NETWORKS, Heads, Network, network_name


def configured_network() -> Network:
    """Return the network of YOLO_CFG; without one, that of YOLO_TYPE and TRAIN_YOLO_TINY. Raises UserError."""
    if configs.YOLO_CFG:
        return read_network(project_path(configs.YOLO_CFG))
    return NETWORKS[network_name(configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY)]


def default_weights(network: Network) -> Path:
    """Return the Darknet weights of a network: those that its constant names. Those of YOLO_CFG lie beside it under the
    same name; where nothing does, those of YOLO_TYPE and TRAIN_YOLO_TINY are meant."""
    if network.cfg:
        beside = network.cfg.file.with_suffix(".weights")
        if beside.exists():
            return beside
        network = NETWORKS[network_name(configs.YOLO_TYPE, configs.TRAIN_YOLO_TINY)]
    return project_path(getattr(configs, network.weights))


def cfg_size(network: Network) -> int:
    """Return width and height of the input of a cfg, which must be the same, in pixels. Raises UserError."""
    net, (height, width) = network.cfg.net, network.cfg.size
    if width != height:
        raise net.error(f"width={width} and height={height} must be the same", "height")
    return check_input_size(width, f"width and height in {net.file}", network.multiple)


def configured_heads(network: Network, constant: str = "YOLO_ANCHORS") -> Heads:
    """Return the heads of a network, with the anchors of a constant in place of its own if it has any."""
    heads, anchors = network.heads, getattr(configs, constant)
    if anchors is None:
        return heads
    if not are_like(anchors, heads.anchors, LARGEST_ANCHOR):
        counts = [str(len(head)) for head in heads.anchors]
        each = counts[0] if len(set(counts)) == 1 else ", ".join(counts)
        raise UserError(f"{constant} must be None or {len(counts)} heads of {each} (width, height) for {network.name}")
    return heads._replace(anchors=tuple(tuple((float(w), float(h)) for w, h in head) for head in anchors))


def cfg_file(weights: Path) -> Path | None:
    """Return the cfg of a .weights file: the one that YOLO_CFG names, or that of the same name beside it, if there is
    one."""
    beside = weights.with_suffix(".cfg")
    return project_path(configs.YOLO_CFG) if configs.YOLO_CFG else beside if beside.is_file() else None


def heads_to_train(network: Network, transfers: bool) -> Heads:
    """Return the heads of a network to train. One of the table that begins with Darknet weights takes the anchors of
    the cfg beside these. Raises UserError if that is of another network."""
    beside = cfg_file(default_weights(network)) if transfers and network.cfg is None else None
    if beside is None:
        return network.heads if network.cfg else configured_heads(network)
    theirs = read_network(beside).heads
    if theirs.strides != network.heads.strides or not are_like(theirs.anchors, network.heads.anchors, LARGEST_ANCHOR):
        raise UserError(f"{beside} is not a cfg of {network.name}: name it in YOLO_CFG to train the network that it is")
    return theirs


def network_of_file(weights: Path, network: Network) -> Network:
    """Return the network that a .weights file is of: that of its cfg or, without one, the one given. Raises
    UserError."""
    file = cfg_file(weights)
    return read_network(file) if file else network


def heads_of_file(weights: Path, network: Network, size: int | None) -> tuple[Heads, int | None]:
    """Return what a .weights file of a network is decoded with, and the input size: `size`, or that of its cfg if it is
    None.

    One line on the terminal says so; without a cfg, only if the file is not an official one.
    """
    if network.cfg is None:
        tell_unofficial(weights, network.name)
        return configured_heads(network), size
    given = [f"{network.cfg.classes} class{'es' * (network.cfg.classes > 1)}"]
    passed_over = ["YOLO_ANCHORS"] * (configs.YOLO_ANCHORS is not None)
    if size is None:
        size = cfg_size(network)
        given.append(f"an input of {size} x {size} pixels")
        passed_over += [f"YOLO_INPUT_SIZE = {configs.YOLO_INPUT_SIZE}"] * (size != configs.YOLO_INPUT_SIZE)
    instead = f", in place of {' and '.join(passed_over)}" if passed_over else ""
    _say_once(f"{network.cfg.file} gives the network, its anchors, {', '.join(given)}{instead}")
    return network.heads, size


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
