"""Load and write networks for AWS Neuron, without Keras: the last TensorFlow that Neuron supports is 2.10.

The chip computes the dense network, from pictures to predictions. Decoding of files, fitting and suppression stay on
the host, in the same SavedModel.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from yolov3.checkpoint import ModelSpec, read_about, write_about
from yolov3.checks import UserError, choose
from yolov3.files import whole_folder
from yolov3.runtimes import RunOptions, Written, savedmodel
from yolov3.runtimes.common import baked, check_same, made_from, sample_images

import tensorflow as tf

CHIPS: dict[str, tuple] = {  # the package that compiles for each, and how to install it; None: nothing is compiled
    "inf1": ("tensorflow.neuron", "pip install -r requirements/neuron.txt tensorflow-neuron[cc]"),
    "inf2": ("tensorflow_neuronx", "pip install -r requirements/neuron.txt tensorflow-neuronx"),
    "trn1": ("tensorflow_neuronx", "pip install -r requirements/neuron.txt tensorflow-neuronx"),
    "cpu": (None, None),
}
TRANSFERS = ("float32", "float16", "bfloat16")
CASTS = ("none", "matmult", "all")
CAST_FLAGS = {  # the compilers' options for NEURON_AUTO_CAST
    "inf1": {"none": "--fp32-cast=none", "matmult": "--fp32-cast=matmult", "all": "--fp32-cast=all"},
    "inf2": {cast: f"--auto-cast={cast}" for cast in CASTS},
    "trn1": {cast: f"--auto-cast={cast}" for cast in CASTS},
}
LEAST_ON_CHIP = 0.9  # share of the operators
TOLERANCE = 5e-3  # largest difference of boxes and scores, with half precision between host and chip


class WriteOptions(NamedTuple):
    """Hold the NEURON_ constants."""

    chip: str = "inf2"
    batch_size: int = 1
    dynamic_batch_size: bool = True
    auto_cast: str = "matmult"
    transfer: str = "float16"


class OnChip(tf.Module):
    """Make a network of a dense one, which may have a fixed batch size.

    dense       a function of images (N, h, w, 3) that returns boxes, float32 (N, boxes, 4), scores (N, boxes, classes)
                and, of a model with features, these (N, h/16, w/16, C)
    transfer    dtype in which images go to the chip, and scores and features come back; one of half the bytes saves
                time
    batch_size  the one that `dense` takes; None: any
    """

    def __init__(self, dense: Callable, transfer: Any, batch_size: int | None, features: bool = False):
        super().__init__()
        self.dense, self.transfer, self.batch_size = dense, tf.as_dtype(transfer), batch_size
        self.names = ["predictions", "features"] if features else ["predictions"]

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.cast(images, self.transfer)
        if self.batch_size is None:
            return self._predict(images)
        count, shape = tf.shape(images)[0], images.shape[1:]
        chunks = tf.maximum(-(-count // self.batch_size), 1)
        images = tf.pad(images, [(0, chunks * self.batch_size - count), (0, 0), (0, 0), (0, 0)])
        images = tf.reshape(images, (chunks, self.batch_size, *shape))
        outputs = tf.map_fn(self._predict, images, fn_output_signature=dict.fromkeys(self.names, tf.float32))
        return {name: tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))[:count] for name, x in outputs.items()}

    def _predict(self, images):
        boxes, *rest = self.dense(images)
        scores, *features = (tf.cast(x, tf.float32) for x in rest)
        return dict(zip(self.names, (tf.concat([boxes, scores], -1), *features), strict=True))


def dense_network(signature: Callable, transfer: tf.DType) -> Callable:
    """Return the `serving_default` of a SavedModel as the function to compile: the `dense` of `OnChip`."""

    def dense(images):
        outputs = signature(images=tf.cast(images, tf.float32))
        predictions, *features = (outputs[name] for name in ("predictions", "features") if name in outputs)
        return predictions[..., :4], *(tf.cast(x, transfer) for x in (predictions[..., 4:], *features))

    return dense


def load(spec: ModelSpec, folder: Path, options: RunOptions) -> Callable:
    """Return the network of a folder that tools/Convert_to_Neuron.py has written, on the chip it was compiled for."""
    import_compiler(read_about(folder).get("chip"))  # registers the operation that the compiled network consists of
    return savedmodel.load_network(folder, spec)


def import_compiler(chip: Any) -> ModuleType | None:
    """Return the vendor's package for a chip, or None for "cpu". Raises UserError that says what to install."""
    package, install = CHIPS[choose("NEURON_CHIP", chip, CHIPS)]
    if package is None:
        return None
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{chip} needs the package {package}, on Python 3.10 or older: {install}") from None


# --- Writing ---------------------------------------------------------------------------------------------------------


def check(precision: str, options: WriteOptions) -> None:
    """Raise UserError if the chip's compiler is not installed."""
    import_compiler(options.chip)


def write(
    folder: Path,
    source: Path,
    spec: ModelSpec,
    options: WriteOptions,
    inputs: Any = None,
    facts: Iterable = (),
) -> Written:
    """Write a SavedModel folder as one whose dense network is compiled for a chip, checked against TensorFlow on a
    picture."""
    images, thresholds = sample_images(spec), baked(source)
    signature, transfer = savedmodel.load(source), tf.as_dtype(options.transfer)
    example = tf.cast(tf.repeat(images, options.batch_size, 0), transfer)
    dense = compiled(dense_network(signature, transfer), example, options)
    with whole_folder(folder) as part:
        batch_size = None if options.dynamic_batch_size else options.batch_size
        savedmodel.save(part, OnChip(dense, transfer, batch_size, spec.features), spec, **thresholds)
        told = {name: option for name, option in options._asdict().items() if name != "auto_cast"}
        write_about(part, spec, made_from(source), **thresholds, **told, **dict(facts))
        answers = savedmodel.load(part)(images=images)["predictions"]
        return Written(check_same(answers, signature(images=images)["predictions"], folder, TOLERANCE))


def compiled(dense: Callable, example: tf.Tensor, options: WriteOptions) -> Callable:
    """Return the dense network as the vendor's compiler makes it. Raises UserError if too little of it is for the chip.

    example  a batch of images
    """
    compiler = import_compiler(options.chip)
    if compiler is None:
        return tf.function(dense, input_signature=[tf.TensorSpec((None, *example.shape[1:]), example.dtype)])
    flags = CAST_FLAGS[options.chip][options.auto_cast] + (
        " --dynamic-batch-size" if options.dynamic_batch_size else ""
    )
    os.environ["NEURON_CC_FLAGS"] = f"{os.environ.get('NEURON_CC_FLAGS', '')} {flags}".strip()
    found = compiler.analyze_model(dense, example)
    supported = found["supported_count"] / max(found["total_count"], 1)
    print(f"{100 * supported:.1f}% of {found['total_count']} operators can run on {options.chip}")
    check_share(supported, found["unsupported_operators"], options.chip)
    traced = compiler.trace(dense, example)
    print(f"{100 * traced.on_neuron_ratio:.1f}% of the operators run there")
    check_share(traced.on_neuron_ratio, found["unsupported_operators"], options.chip)
    return traced


def check_share(share: float, unsupported: Iterable[str], chip: str) -> None:
    """Raise UserError if the share of operators that run on the chip is too small."""
    if share < LEAST_ON_CHIP:
        names = ", ".join(sorted(unsupported)) or "(not named)"
        raise UserError(f"only {100 * share:.0f}% of the operators would run on {chip}; it does not support {names}")
