"""A network on AWS Neuron: what runs on the chip, what on its host, and the numbers that go between. No Keras: the
last TensorFlow that Neuron takes is 2.10.

The chip computes the dense network, from pictures to predictions. Decoding files, fitting, dropping candidates and
suppression stay on the host, in the same SavedModel.
"""

import importlib
import os
from typing import NamedTuple

from yolov3.checkpoint import read_about, write_about
from yolov3.checks import UserError, choose
from yolov3.files import whole_folder
from yolov3.runtimes import Written, savedmodel
from yolov3.runtimes.common import baked, check_same, made_from, sample_images

import tensorflow as tf

CHIPS = {  # the package that compiles for each, how it is installed; None: nothing is compiled
    "inf1": ("tensorflow.neuron", "pip install -r requirements/neuron.txt tensorflow-neuron[cc]"),
    "inf2": ("tensorflow_neuronx", "pip install -r requirements/neuron.txt tensorflow-neuronx"),
    "trn1": ("tensorflow_neuronx", "pip install -r requirements/neuron.txt tensorflow-neuronx"),
    "cpu": (None, None),
}


TRANSFERS = ("float32", "float16", "bfloat16")
CASTS = ("none", "matmult", "all")
CAST_FLAGS = {  # what each compiler calls NEURON_AUTO_CAST
    "inf1": {"none": "--fp32-cast=none", "matmult": "--fp32-cast=matmult", "all": "--fp32-cast=all"},
    "inf2": {cast: f"--auto-cast={cast}" for cast in CASTS},
    "trn1": {cast: f"--auto-cast={cast}" for cast in CASTS},
}
LEAST_ON_CHIP = 0.9  # of the operators
TOLERANCE = 5e-3  # of boxes and scores, with half precision between host and chip


class WriteOptions(NamedTuple):
    """The NEURON_ constants."""

    chip: str = "inf2"
    batch_size: int = 1
    dynamic_batch_size: bool = True
    auto_cast: str = "matmult"
    transfer: str = "float16"


class OnChip(tf.Module):
    """A network, by a dense one of fixed or any batch size that takes pictures, and gives all but boxes, in `transfer`,
    a dtype of half the bytes.

    dense  images (N, S, S, 3) -> boxes float32 (N, boxes, 4), scores (N, boxes, classes) and, of a model with features,
           these, (N, S/16, S/16, C)
    batch_size  that dense takes; None: any
    """

    def __init__(self, dense, transfer, batch_size, features=False):
        super().__init__()
        self.dense, self.transfer, self.batch_size = dense, tf.as_dtype(transfer), batch_size
        self.names = ["predictions", "features"] if features else ["predictions"]

    def __call__(self, images):
        images = tf.cast(images, self.transfer)
        if self.batch_size is None:
            return self._predict(images)
        count, (_, size, _, channels) = tf.shape(images)[0], images.shape
        chunks = tf.maximum(-(-count // self.batch_size), 1)
        images = tf.pad(images, [(0, chunks * self.batch_size - count), (0, 0), (0, 0), (0, 0)])
        images = tf.reshape(images, (chunks, self.batch_size, size, size, channels))
        outputs = tf.map_fn(self._predict, images, fn_output_signature=dict.fromkeys(self.names, tf.float32))
        return {name: tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))[:count] for name, x in outputs.items()}

    def _predict(self, images):
        boxes, *rest = self.dense(images)
        scores, *features = (tf.cast(x, tf.float32) for x in rest)
        return dict(zip(self.names, (tf.concat([boxes, scores], -1), *features), strict=True))


def dense_network(signature, transfer):
    """The `serving_default` of a SavedModel -> the function that goes to the compiler: `OnChip`'s dense."""

    def dense(images):
        outputs = signature(images=tf.cast(images, tf.float32))
        predictions, *features = (outputs[name] for name in ("predictions", "features") if name in outputs)
        return predictions[..., :4], *(tf.cast(x, transfer) for x in (predictions[..., 4:], *features))

    return dense


def load(spec, folder, options):
    """A folder that tools/Convert_to_Neuron.py has written, on the chip that it was compiled for."""
    import_compiler(read_about(folder).get("chip"))  # makes its operation known
    return savedmodel.load_network(folder, spec)


def import_compiler(chip):
    """The vendor's package for a chip; None for "cpu". Raises UserError that says what to install."""
    package, install = CHIPS[choose("NEURON_CHIP", chip, CHIPS)]
    if package is None:
        return None
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{chip} needs the package {package}, on Python 3.10 or older: {install}") from None


# --- Writing ---------------------------------------------------------------------------------------------------------


def check(precision, options):
    """Raise UserError if the chip's compiler is not installed."""
    import_compiler(options.chip)


def write(folder, source, spec, options, inputs=None, facts=()):
    """Write a SavedModel folder as one with the dense network compiled for a chip and the rest around it, checked
    against TensorFlow on a picture."""
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


def compiled(dense, example, options):
    """The dense network by the vendor's compiler. Raises UserError if too little of it is for the chip."""
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
    print(f"{100 * traced.on_neuron_ratio:.1f}% of the operators do")
    check_share(traced.on_neuron_ratio, found["unsupported_operators"], options.chip)
    return traced


def check_share(share, unsupported, chip):
    if share < LEAST_ON_CHIP:
        names = ", ".join(sorted(unsupported)) or "none named"
        raise UserError(f"only {100 * share:.0f}% of the operators would run on {chip}, not these: {names}")
