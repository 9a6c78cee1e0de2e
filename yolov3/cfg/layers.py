"""The layers of a Darknet cfg made with Keras: one loop over its rows."""

from collections.abc import Callable

from yolov3.cfg.network import Cfg, embedding_row, map_sizes, read_cfg
from yolov3.cfg.write import rewrite
from yolov3.layers import (
    ACTIVATIONS,
    Convolutions,
    concatenate,
    embedding_map,
    first_channels,
    group,
    padded_max_pool,
    upsample,
)

import keras
from keras import layers


def build(
    pictures: keras.KerasTensor, classes: int, cfg: Cfg
) -> tuple[list[keras.KerasTensor], keras.KerasTensor | None]:
    """Return the raw heads of a picture batch (N, H, W, 3), smallest stride first, and the embedding map, or None if no
    layer has a stride that it is made of. Raises UserError if the layers do not fit together at this input size."""
    if classes != cfg.classes:
        cfg = read_cfg(rewrite(cfg, classes=classes), cfg.file)
    height, width = pictures.shape[1:3]
    if height and width:
        map_sizes(cfg, (height, width))

    conv = Convolutions()
    maps: list[keras.KerasTensor] = []
    raw_heads: dict[int, keras.KerasTensor] = {}
    yolos = {row.inputs[0]: row for row in cfg.head_rows}
    for row in cfg.rows:
        inputs = [maps[number] if number >= 0 else pictures for number in row.inputs]
        if row.number in yolos:
            kernel = {name: row.options[name] for name in ("size", "stride", "padding")}
            anchors = len(yolos[row.number].options["anchors"])
            raw_heads[row.number] = conv.head(inputs[0], classes, anchors, **kernel)
            maps.append(ACTIVATIONS[row.options["activation"]](raw_heads[row.number]))
        else:
            maps.append(MAKERS[row.name](conv, row, *inputs))
    embedded = embedding_row(cfg)
    embedding = embedding_map(maps[embedded.number], int(embedded.stride or 0)) if embedded else None
    return [raw_heads[number] for number in yolos], embedding


def make_route(row, *inputs):
    parts = [group(x, row.options["groups"], row.options["group"]) for x in inputs]
    return concatenate(*parts) if len(parts) > 1 else parts[0]


def make_shortcut(row, x, *others):
    others = [other if other.shape[-1] == x.shape[-1] else first_channels(other, x.shape[-1]) for other in others]
    return ACTIVATIONS[row.options["activation"]](layers.Add()([x, *others]))


def make_scale_channels(row, x, scaled):
    return ACTIVATIONS[row.options["activation"]](layers.Multiply()([scaled, x]))


MAKERS: dict[str, Callable] = {  # (numbers the convolutions, row, the maps that it reads) -> its map
    "convolutional": lambda conv, row, x: conv.convolution(x, **row.options),
    "maxpool": lambda conv, row, x: padded_max_pool(x, **row.options),
    "upsample": lambda conv, row, x: upsample(x, row.options["stride"]),
    "route": lambda conv, row, *inputs: make_route(row, *inputs),
    "shortcut": lambda conv, row, *inputs: make_shortcut(row, *inputs),
    "avgpool": lambda conv, row, x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "scale_channels": lambda conv, row, *inputs: make_scale_channels(row, *inputs),
    "dropout": lambda conv, row, x: x,
    "yolo": lambda conv, row, x: None,
}
