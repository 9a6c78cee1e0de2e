"""Darknet's .weights files: read into a network, written from one, and the official ones fetched.

Format (Darknet's parser.c): int32 major, minor, revision; the number of pictures seen, int64 from version 0.2 on and
int32 before; then float32 for each convolution in the order of the cfg: beta, gamma, mean and variance of its batch
normalisation, or its bias; then its kernel as (out, in, height, width).
"""

import contextlib

from yolov3.checks import UserError, project_path

import keras
import numpy as np

ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download/"
PJREDDIE = "https://pjreddie.com/media/files/"
OFFICIAL = {  # file name: (URL, bytes)
    "yolov4.weights": (ALEXEYAB + "darknet_yolo_v3_optimal/yolov4.weights", 257_717_640),
    "yolov4-tiny.weights": (ALEXEYAB + "darknet_yolo_v4_pre/yolov4-tiny.weights", 24_251_276),
    "yolov3.weights": (PJREDDIE + "yolov3.weights", 248_007_048),
    "yolov3-tiny.weights": (PJREDDIE + "yolov3-tiny.weights", 35_434_956),
}
VERSION = np.array([0, 2, 5], "<i4")  # what AlexeyAB's Darknet writes


def convolutions(model):
    """[(convolution, its batch normalisation or None)] of a model from `Create_Yolo`, in Darknet's order."""
    convs = sorted((x for x in model.layers if isinstance(x, keras.layers.Conv2D)), key=lambda conv: conv.name)
    norms = {x.name: x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}
    return [(conv, norms.get(f"{conv.name}_bn")) for conv in convs]


def variables(model):
    """Every variable of the model in the order of the .weights file; kernels are (height, width, in, out) here."""
    for conv, norm in convolutions(model):
        yield from (norm.beta, norm.gamma, norm.moving_mean, norm.moving_variance) if norm else (conv.bias,)
        yield conv.kernel


def get_arrays(model, read=lambda variable: variable.numpy()):
    """The model's weights in Darknet's order and axes: float32 vectors, and kernels (out, in, height, width).

    read  variable -> array: others in place of the model's own, their average for example.
    """
    for array in map(read, variables(model)):
        yield array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def load_arrays(model, arrays, source):
    """The reverse of `get_arrays`. Raises UserError, naming the source, if a shape does not fit or a number is
    NaN."""
    mine = [array.shape for array in get_arrays(model)]
    theirs = [array.shape for array in arrays]
    if mine != theirs:
        raise UserError(f"{source} does not hold the weights of {model.name} with {_classes(model)} classes")
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(f"{source} holds weights that are not finite (NaN): the training diverged, or it is damaged")
    for variable, array in zip(variables(model), arrays, strict=True):
        variable.assign(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)


def load_yolo_weights(model, path):
    """Fills a model from `Create_Yolo` with a Darknet .weights file; path is relative to the project's root.

    Raises UserError, the model untouched, if the file is missing, damaged, or made for another network or class count.
    """
    numbers, _ = _read_numbers(path, model)
    load_arrays(model, _split(numbers, [array.shape for array in get_arrays(model)]), path)


def transfer_yolo_weights(model, path):
    """Fills a model from `Create_Yolo` with a .weights file made for any number of classes -> that number.

    All but the heads; those too if the number is the model's own. Raises UserError, the model untouched, as
    `load_yolo_weights` does.
    """
    numbers, classes = _read_numbers(path, model, any_classes=True)
    mine = list(get_arrays(model))
    is_head = [norm is None for _, norm in convolutions(model) for _ in range(2 if norm is None else 5)]
    shapes = [
        (3 * (5 + classes), *array.shape[1:]) if head else array.shape
        for array, head in zip(mine, is_head, strict=True)
    ]
    theirs = _split(numbers, shapes)
    load_arrays(model, [b if a.shape == b.shape else a for a, b in zip(mine, theirs, strict=True)], path)
    return classes


def _split(numbers, shapes):
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(numbers, ends[:-1]), shapes, strict=True)]


def save_yolo_weights(model, path):
    """Writes a model from `Create_Yolo` as a Darknet .weights file (20-byte header), whole or not at all."""
    file = project_path(path)
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as out:
            out.write(VERSION.tobytes() + np.int64(0).tobytes())
            for array in get_arrays(model):
                out.write(np.ascontiguousarray(array, "<f4"))
        part.replace(file)
    except OSError as error:
        _remove(part)
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def _read_numbers(path, model, any_classes=False):
    """The file's float32 numbers behind the header, exactly as many as the model has, and the classes they are for;
    with `any_classes`, as many as it would have with that number of classes."""
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
    expected = header + 4 * model.count_params()
    classes = _fitting_classes(model, len(data) - expected)
    if classes is None or (classes != _classes(model) and not any_classes):
        surplus = f"is {'too long' if len(data) > expected else 'truncated'}, or of another network: download it again"
        raise UserError(
            f"weights file {path} has {len(data):,} bytes, but {model.name} with {_classes(model)} classes takes "
            f"{expected:,}: it {f'would fit {classes} classes' if classes else surplus}"
        )
    numbers = np.frombuffer(data, "<f4", offset=header)
    if not np.isfinite(numbers).all():
        raise UserError(f"weights file {path} holds numbers that are not finite (NaN): it is damaged")
    return numbers, classes


def _classes(model):
    return model.outputs[0].shape[-1] // 3 - 5


def _fitting_classes(model, surplus_bytes):
    """The number of classes with which the model would take so many bytes more; None if there is no such number."""
    per_class = sum(3 * (conv.kernel.shape[2] + 1) * 4 for conv, norm in convolutions(model) if norm is None)
    more, rest = divmod(surplus_bytes, per_class)
    return None if rest or _classes(model) + more < 1 else _classes(model) + more


def fetch_weights(path, url=None, size=None):
    """Makes sure that an official weights file lies at `path`: downloads it, with a progress bar, if it is missing.

    URL and size in bytes come from the table of official files, by the file's name. The download goes to NAME.part,
    is checked by size and only then renamed. Raises UserError with the URL if there is no way to get the file.
    """
    file = project_path(path)
    if file.exists():
        return
    url, size = OFFICIAL.get(file.name, (None, None)) if url is None else (url, size)
    if url is None:
        raise UserError(f"weights file {path} is missing: put it there, or name another in yolov3/configs.py")
    part = file.with_name(file.name + ".part")
    try:
        _download(url, part)
        if part.stat().st_size != size:
            raise OSError(f"{part.stat().st_size:,} bytes came instead of {size:,}")
        part.replace(file)
    except OSError as error:  # requests' errors are OSErrors too
        reason = "no connection" if type(error).__name__ == "ConnectionError" else str(error).split("\n")[0]
        raise UserError(f"cannot download {url} ({reason}): get it elsewhere and put it at {file}") from None
    finally:
        _remove(part)


def _remove(part):
    with contextlib.suppress(OSError):  # missing, or under something that is no folder
        part.unlink()


def _download(url, part):
    import pooch  # only here: nobody needs it whose weights are in place

    part.parent.mkdir(parents=True, exist_ok=True)
    pooch.HTTPDownloader(progressbar=True, timeout=30)(url, str(part), None)
