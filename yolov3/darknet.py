"""Darknet's .weights files: read into a network and written from one.

Format (Darknet's parser.c): int32 major, minor, revision; the number of pictures seen, int64 from version 0.2 on and
int32 before; then float32 for each convolution in the order of the cfg: beta, gamma, mean and variance of its batch
normalisation, or its bias; then its kernel as (out, in, height, width).
"""

import functools
import os
from typing import NamedTuple

from yolov3.checks import UserError, project_path
from yolov3.files import whole_file
from yolov3.layers import Head
from yolov3.networks import NETWORKS, constants_to_set
from yolov3.yolov4 import Create_Yolo

import keras
import numpy as np

MOST_CLASSES = 1000  # of a file that ends behind some of the heads: with more, a cut-off file would often pass for one
VERSION = np.array([0, 2, 5], "<i4")  # what AlexeyAB's Darknet writes


def convolutions(model):
    """[(convolution, its batch normalisation or None)] of a model from `Create_Yolo`, in Darknet's order."""
    convs = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    convs.sort(key=lambda conv: (len(conv.name), conv.name))  # conv_1000 comes behind conv_999
    norms = {x.name: x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}
    return [(conv, norms.get(f"{conv.name}_bn")) for conv in convs]


def heads_of(model):
    """The convolutions of a model from `Create_Yolo` that are heads, in Darknet's order."""
    return [conv for conv, _ in convolutions(model) if isinstance(conv, Head)]


def variables(model):
    """Every variable of the model in the order of the .weights file; kernels are (height, width, in, out) here."""
    for conv, norm in convolutions(model):
        yield from (norm.beta, norm.gamma, norm.moving_mean, norm.moving_variance) if norm else (conv.bias,)
        yield conv.kernel


def array_shapes(model):
    """Return the shapes of the model's weights in Darknet's order and axes, see `get_arrays`."""
    shapes = (tuple(variable.shape) for variable in variables(model))
    return [(x[3], x[2], x[0], x[1]) if len(x) == 4 else x for x in shapes]


def get_arrays(model, read=lambda variable: variable.numpy()):
    """The model's weights in Darknet's order and axes: float32 vectors, and kernels (out, in, height, width).

    read  variable -> array: others in place of the model's own, their average for example.
    """
    for array in map(read, variables(model)):
        yield array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def load_arrays(model, arrays, source):
    """The reverse of `get_arrays`. Raises UserError, naming the source, if a shape does not fit or a number is
    NaN."""
    mine = array_shapes(model)
    theirs = [array.shape for array in arrays]
    if mine != theirs:
        raise UserError(f"{source} does not hold the weights of {model.name} with {_classes(model)} classes")
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(f"{source} holds weights that are not finite (NaN): the training diverged, or it is damaged")
    for variable, array in zip(variables(model), arrays, strict=True):
        variable.assign(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)


def load_yolo_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Fill a model from `Create_Yolo` with a Darknet .weights file; path is relative to the project's root.

    Raises UserError, the model untouched, if the file is missing, damaged, or made for another network or class count.
    """
    numbers = _read_numbers(path)
    if numbers.size != model.count_params():
        raise UserError(_why_not(model, path, numbers.size))
    load_arrays(model, _split(numbers, array_shapes(model)), path)


def transfer_yolo_weights(model, path):
    """Fill a model from `Create_Yolo` with what a .weights file has for it -> the number of convolutions it took.

    The file may be made for any number of classes, and may end behind any convolution, as those do that Darknet's
    `partial` writes for training (yolov4.conv.137). The heads are taken if the number of classes is the model's own.
    Raises UserError, the model untouched, as `load_yolo_weights` does.
    """
    numbers = _read_numbers(path)
    holds = _contents(_ends(model), numbers.size, _classes(model))
    if holds is None:
        raise UserError(_why_not(model, path, numbers.size))
    mine, shapes = list(get_arrays(model)), []
    for conv, norm in convolutions(model)[: holds.convolutions]:
        filters = conv.anchors * (5 + holds.classes) if isinstance(conv, Head) else conv.filters
        height, width, inputs, _ = conv.kernel.shape
        shapes += [(filters,)] * (4 if norm else 1) + [(filters, inputs, height, width)]
    fits = [array.shape == shape for array, shape in zip(mine, shapes, strict=False)]
    theirs = [b if fit else a for a, b, fit in zip(mine, _split(numbers, shapes), fits, strict=False)]
    load_arrays(model, theirs + mine[len(theirs) :], path)
    return holds.convolutions - fits.count(False) // 2  # a head is a bias and a kernel


def _split(numbers, shapes):
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(numbers, ends[:-1]), shapes, strict=True)]


def save_yolo_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Write a model from `Create_Yolo` as a Darknet .weights file (20-byte header), whole or not at all."""
    file = project_path(path)
    with whole_file(file) as part, part.open("wb") as out:
        out.write(VERSION.tobytes() + np.int64(0).tobytes())
        for array in get_arrays(model):
            out.write(array.astype("<f4").tobytes())


def _read_numbers(path):
    """The file's float32 numbers behind the header."""
    try:
        data = project_path(path).read_bytes()
    except OSError as error:
        raise UserError(f"weights file {path} cannot be read: {error.strerror}") from None
    if not data:
        raise UserError(f"weights file {path} is empty: download it again")
    if data.lstrip()[:1] == b"<":
        raise UserError(f"weights file {path} is a web page, not weights: download it again")
    major, minor = np.frombuffer(data[:8].ljust(8, b"\0"), "<i4").tolist()
    header = 20 if major * 10 + minor >= 2 and major < 1000 and minor < 1000 else 16
    if len(data) <= header or (len(data) - header) % 4:
        raise UserError(f"weights file {path} has {len(data):,} bytes, which is not a whole number of weights: cut off")
    numbers = np.frombuffer(data, "<f4", offset=header)
    if not np.isfinite(numbers).all():
        raise UserError(f"weights file {path} holds numbers that are not finite (NaN): it is damaged")
    return numbers


# --- What a file holds ---------------------------------------------------------------------------------------------


class Contents(NamedTuple):
    convolutions: int  # the file ends behind so many
    classes: int  # that its heads are for; 0: it ends before the first of them


def _ends(model):
    """Where in the file each convolution of a model ends -> int64 (convolutions, 2): so many numbers, and so many more
    for each class."""
    rows = []
    for conv, norm in convolutions(model):
        each = np.prod(conv.kernel.shape[:3]) + (4 if norm else 1)  # numbers of a filter
        is_head = isinstance(conv, Head)
        rows.append((conv.anchors * 5 * each, conv.anchors * each) if is_head else (conv.filters * each, 0))
    return np.cumsum(np.array(rows, np.int64), 0)


def _contents(ends, count, classes=80):
    """What a file of `count` numbers holds, if it is of the network that has these ends -> Contents or None.

    Where it could be several things, the whole network comes first, then what has `classes`, then fewer classes.
    """
    found = []
    for made, (numbers, per_class) in enumerate(ends.tolist(), 1):
        theirs, rest = divmod(count - numbers, per_class) if per_class else (0, count - numbers)
        most = MOST_CLASSES if made < len(ends) else count
        if not rest and (per_class > 0) <= theirs <= most:
            found.append(Contents(made, theirs))

    def order(x):
        return x.convolutions < len(ends), x.classes not in (0, classes), x.classes

    return min(found, key=order, default=None)


@functools.cache
def _all_ends():
    """The ends of each of the four networks."""
    return {name: _ends(Create_Yolo(32, row.type, row.tiny, 1)) for name, row in NETWORKS.items()}


def _why_not(model, path, count):
    """Why a file of `count` numbers is not the model's, and what to do."""
    mine = _classes(model)
    size = project_path(path).stat().st_size
    text = (
        f"weights file {path} has {size:,} bytes, but {model.name} with {mine} classes takes "
        f"{size + 4 * (model.count_params() - count):,}"
    )
    is_ours = np.array_equal(_all_ends().get(model.name), _ends(model))
    ends_of = {**_all_ends(), model.name: _ends(model)}
    found = {name: _contents(ends, count, mine) for name, ends in ends_of.items()}
    found = {name: holds for name, holds in found.items() if holds}
    if not found:
        others = "the four of this project" if is_ours else "that of the cfg and the four of this project"
        return f"{text}: it is of another network than {others}, or was cut off"

    def likeliness(name):
        whole = found[name].convolutions == len(ends_of[name])
        return not whole, name != model.name, found[name].classes

    name = min(found, key=likeliness)
    holds, convolutions_of_all = found[name], len(ends_of[name])
    remedy = [constants_to_set(name, model.name if is_ours else None)] if name != model.name else []
    if holds.convolutions < convolutions_of_all:
        what = f"the first {holds.convolutions} of {convolutions_of_all} convolutions of {name}"
        remedy.append("begin a training with it (TRAIN_TRANSFER); to detect takes whole weights")
    else:
        what = f"{name} with {holds.classes} classes"
        if holds.classes != mine:
            remedy.append(f"name {holds.classes} classes (TRAIN_CLASSES; YOLO_COCO_CLASSES for Darknet's weights)")
    return f"{text}: it is {what}: {', and '.join(remedy)}"


def _classes(model):
    return heads_of(model)[0].classes
