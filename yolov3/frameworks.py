"""The runtimes that a network can run in, one function each, all of the same form:

    (model, weights, precision) -> network: float32 (N, S, S, 3) -> predictions (N, boxes, 4 + classes)

FRAMEWORKS names them; the detector knows nothing else of them.
"""

import contextlib
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from yolov3.boxes import decode
from yolov3.checkpoint import read_weights
from yolov3.settings import UserError


def tensorflow_network(model, weights, precision):
    """The Keras network as one frozen function. `weights` is a checkpoint folder or a Darknet .weights file.

    With its weights as constants TensorFlow fuses convolution, normalisation and activation into one kernel.
    """
    from yolov3.darknet import fetch_weights, load_arrays, load_yolo_weights  # here, since only this
    from yolov3.yolov4 import Create_Yolo  # framework needs Keras 3

    allow_memory_growth()
    if precision == "BF16":
        check_bfloat16()
    keras_model = Create_Yolo(model.input_size, model.type, model.tiny, model.classes)
    if weights.is_dir():
        load_arrays(keras_model, read_weights(weights), weights)
    else:
        fetch_weights(weights)
        load_yolo_weights(keras_model, weights)

    trained = [variable.numpy() for variable in keras_model.trainable_variables]
    moving = [variable.numpy() for variable in keras_model.non_trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((None, *keras_model.input_shape[1:]))], autograph=False)
    def predict(images):
        constants = [tf.constant(array) for array in trained], [tf.constant(array) for array in moving]
        raw_heads, _ = keras_model.stateless_call(*constants, images, training=False)
        return decode(raw_heads, model.heads)

    frozen = predict.get_concrete_function()
    return in_mixed_precision(frozen) if precision == "BF16" else frozen


def check_bfloat16():
    """Refuses BF16 where oneDNN cannot do it: on an x86 CPU without AVX512, and no GPU to run on instead."""
    cpu = Path("/proc/cpuinfo")
    if tf.config.list_physical_devices("GPU") or not cpu.exists():
        return
    flags = cpu.read_text()
    if "avx2" in flags and "avx512" not in flags:
        raise UserError('YOLO_PRECISION = "BF16" needs a CPU with AVX512, which this one has not: use "FP32"')


def in_mixed_precision(frozen):
    """A frozen function of one tensor, run with its convolutions in bfloat16 (CPU, oneDNN) or float16 (GPU).

    The graph rewrite goes with the call, not with the process, whose other functions stay as they are.
    """
    on_gpu = tf.config.list_physical_devices("GPU")
    rewrite = "auto_mixed_precision" if on_gpu else "auto_mixed_precision_onednn_bfloat16"
    config = tf.compat.v1.ConfigProto()
    setattr(config.graph_options.rewrite_options, rewrite, RewriterConfig.ON)
    config = config.SerializeToString()

    def network(images):
        return tf.raw_ops.PartitionedCall(args=[images], Tout=[tf.float32], f=frozen, config_proto=config)[0]

    return network


def allow_memory_growth():
    """Lets TensorFlow take GPU memory as it needs it, rather than all of it at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already: too late to change, and no harm
            tf.config.experimental.set_memory_growth(gpu, True)


FRAMEWORKS = {"tf": tensorflow_network}
