"""A network on AWS Neuron: what runs on the chip, what on its host, and the numbers that go between. No Keras: the
last TensorFlow that Neuron takes is 2.10.

The chip computes the dense network, from pictures to predictions. Decoding files, fitting, dropping candidates and
suppression stay on the host, in the same SavedModel.
"""

import importlib

import tensorflow as tf

from yolov3 import savedmodel
from yolov3.checkpoint import read_about
from yolov3.settings import UserError, choose

CHIPS = {  # the package that compiles for each, how it is installed; None: nothing is compiled
    "inf1": ("tensorflow.neuron", "pip install -r requirements-neuron.txt tensorflow-neuron[cc]"),
    "inf2": ("tensorflow_neuronx", "pip install -r requirements-neuron.txt tensorflow-neuronx"),
    "trn1": ("tensorflow_neuronx", "pip install -r requirements-neuron.txt tensorflow-neuronx"),
    "cpu": (None, None),
}


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


def neuron_network(model, folder, runtime):
    """A folder that tools/Convert_to_Neuron.py has written, on the chip that it was compiled for."""
    import_compiler(read_about(folder).get("chip"))  # makes its operation known
    return savedmodel.load_network(folder, model)


def import_compiler(chip):
    """The vendor's package for a chip; None for "cpu". Raises UserError that says what to install."""
    package, install = CHIPS[choose("NEURON_CHIP", chip, CHIPS)]
    if package is None:
        return None
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{chip} needs the package {package}, on Python 3.10 or older: {install}") from None
