"""Darknet's forward pass in plain NumPy, float64, straight from the text of a cfg and the bytes of a .weights file.

It shares no code with the project: layers follow Darknet's C sources, maps are (channels, height, width). What is
asked of it is not checked.
"""

import numpy as np

ACTIVATIONS = {
    "linear": lambda x: x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "relu": lambda x: np.maximum(x, 0),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}


def parse(text):
    """Return [(name, {option: text})]."""
    sections = []
    for line in ("".join(line.split("#")[0].split()) for line in text.splitlines()):
        if line.startswith("["):
            sections.append((line[1:-1], {}))
        elif line:
            option, _, value = line.partition("=")
            sections[-1][1].setdefault(option, value)
    return sections


def windows(x, size, stride, before, shape, fill):
    """Return the pixels (size * size, channels, height, width) under each window; `shape` is (height, width)."""
    channels, height, width = x.shape
    margin = size + stride + before
    padded = np.full((channels, height + 2 * margin, width + 2 * margin), fill)
    padded[:, margin : margin + height, margin : margin + width] = x
    rows, columns = (margin - before + np.arange(count) * stride for count in shape)
    return np.stack([padded[:, rows + i][:, :, columns + j] for i in range(size) for j in range(size)])


def convolve(x, options, numbers):
    """Return the map of a [convolutional]; `numbers(count)` gives the next of the weights."""
    filters, size, stride, groups = (int(options.get(name, 1)) for name in ("filters", "size", "stride", "groups"))
    padding = size // 2 if int(options.get("pad", 0)) else int(options.get("padding", 0))
    beta = numbers(filters)
    if int(options.get("batch_normalize", 0)):
        gamma, mean, variance = (numbers(filters) for _ in range(3))
    per_group = x.shape[0] // groups
    kernel = numbers(filters * per_group * size * size).reshape(groups, -1, per_group, size * size)
    shape = [(side + 2 * padding - size) // stride + 1 for side in x.shape[1:]]
    pixels = windows(x, size, stride, padding, shape, 0.0).reshape(size * size, groups, per_group, *shape)
    x = np.einsum("gock,kgchw->gohw", kernel, pixels).reshape(filters, *shape)
    if int(options.get("batch_normalize", 0)):
        x = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None] * gamma[:, None, None]
    return ACTIVATIONS[options.get("activation", "logistic")](x + beta[:, None, None])


def pool(x, options):
    stride = int(options.get("stride", 1))
    size = int(options.get("size", stride))
    padding = int(options.get("padding", size - 1))
    shape = [(side + padding - size) // stride + 1 for side in x.shape[1:]]
    return windows(x, size, stride, padding // 2, shape, -np.inf).max(0)


def add(x, others, activation):
    x = x.copy()
    for other in others:
        count = min(len(x), len(other))
        x[:count] += other[:count]
    return ACTIVATIONS[activation](x)


def detect(x, options, width, height):
    """Return rows (boxes, 5 + classes) of a [yolo]: centre x and y, width and height in fractions, objectness, and
    objectness times each class, sorted by y, x and anchor."""
    listed = [float(number) for number in options["anchors"].split(",")]
    mask, scale = [int(i) for i in options["mask"].split(",")], float(options.get("scale_x_y", 1))
    rows = np.empty((*x.shape[1:], len(mask), 5 + int(options["classes"])))
    for i, anchor in enumerate(mask):
        tx, ty, tw, th, *rest = x.reshape(len(mask), -1, *x.shape[1:])[i]
        if int(options.get("new_coords", 0)):
            sides = [4 * t**2 * side for t, side in ((tw, listed[2 * anchor]), (th, listed[2 * anchor + 1]))]
        else:
            tx, ty, *rest = (ACTIVATIONS["logistic"](t) for t in (tx, ty, *rest))
            sides = [np.exp(t) * side for t, side in ((tw, listed[2 * anchor]), (th, listed[2 * anchor + 1]))]
        row, column = np.indices(x.shape[1:])
        rows[:, :, i, 0] = (column + tx * scale - (scale - 1) / 2) / x.shape[2]
        rows[:, :, i, 1] = (row + ty * scale - (scale - 1) / 2) / x.shape[1]
        rows[:, :, i, 2], rows[:, :, i, 3] = sides[0] / width, sides[1] / height
        rows[:, :, i, 4] = rest[0]
        rows[:, :, i, 5:] = np.moveaxis(np.array([rest[0] * t for t in rest[1:]]), 0, -1)
    return rows.reshape(-1, rows.shape[-1])


def forward(text, weights, picture):
    """Return the rows of each [yolo], in the order of the cfg, of a picture (height, width, 3), and how many of the
    weights were left over."""
    left = np.frombuffer(weights, "<f4", offset=20).astype(np.float64)
    read = [0]

    def numbers(count):
        read[0] += count
        return left[read[0] - count : read[0]]

    maps, answers = [], []
    x = picture.transpose(2, 0, 1).astype(np.float64)
    for name, options in parse(text)[1:]:
        listed = [int(i) for i in options.get("layers", options.get("from", "")).split(",") if i]
        others = [maps[i if i >= 0 else len(maps) + i] for i in listed]
        if name == "convolutional":
            x = convolve(x, options, numbers)
        elif name == "maxpool":
            x = pool(x, options)
        elif name == "upsample":
            x = x.repeat(int(options.get("stride", 2)), 1).repeat(int(options.get("stride", 2)), 2)
        elif name == "route":
            groups, group = int(options.get("groups", 1)), int(options.get("group_id", 0))
            x = np.concatenate([np.split(other, groups)[group] for other in others])
        elif name == "shortcut":
            x = add(x, others, options.get("activation", "linear"))
        elif name == "avgpool":
            x = x.mean((1, 2), keepdims=True)
        elif name == "scale_channels":
            x = ACTIVATIONS[options.get("activation", "linear")](others[0] * x)
        elif name == "yolo":
            answers.append(detect(x, options, *picture.shape[1::-1]))
        maps.append(x)
    return answers, len(left) - read[0]
