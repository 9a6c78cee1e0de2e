"""The runtimes that a network can run in, one function each, all of the same form:

    (model, weights, runtime) -> network: float32 (N, S, S, 3) -> {"predictions": float32 (N, boxes, 4 + classes)}

and, where model.features says so, {"features": float32 (N, S/16, S/16, C)}, too: the outputs of `serving_default`.
FRAMEWORKS names them; the detector knows nothing else of them. `weights` is a checkpoint folder or, for "tf" alone, a
Darknet .weights file. A vendor's package is imported by its own function only.
"""

import contextlib
import functools
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from yolov3 import savedmodel
from yolov3.boxes import decode
from yolov3.checkpoint import is_weights, read_weights
from yolov3.downloads import fetch_weights
from yolov3.neuron import neuron_network
from yolov3.settings import UserError
from yolov3.tftrt import tensorrt_network


class Runtime(NamedTuple):
    """How to run a network, where its framework leaves a choice."""

    precision: str = "FP32"  # of "tf": "FP32" or "BF16"; that of other frameworks is part of their folders
    hint: str = "LATENCY"  # of "openvino": "LATENCY", one batch on all cores, or "THROUGHPUT", a picture for each core
    threads: int = 0  # of "openvino"; 0: as many as it finds useful


# --- TensorFlow ----------------------------------------------------------------------------------------------------


def tensorflow_network(model, weights, runtime):
    """Weights as one frozen function, or a SavedModel, which holds that same function."""
    if runtime.precision == "BF16":
        check_bfloat16()
    if weights.is_dir() and not is_weights(weights):
        network = savedmodel.load_network(weights, model)
        frozen = network.function
    else:
        network = frozen = freeze(keras_network(model, weights), model.heads)
    return in_mixed_precision(frozen) if runtime.precision == "BF16" else network


def keras_network(model, weights):
    """The Keras model with the weights of a checkpoint folder or a Darknet .weights file, which is fetched if it is a
    missing official one."""
    from yolov3.darknet import load_arrays, load_yolo_weights  # here, since only this framework needs Keras 3
    from yolov3.yolov4 import Create_Yolo

    network = Create_Yolo(model.input_size, model.type, model.tiny, model.classes, model.features)
    if weights.is_dir():
        load_arrays(network, read_weights(weights), weights)
    else:
        fetch_weights(weights)
        load_yolo_weights(network, weights)
    return network


def freeze(keras_model, heads):
    """A Keras model of raw heads, and features if it has them -> a network: one function with its weights as constants,
    so that TensorFlow fuses convolution, normalisation and activation into one kernel."""
    trained = [variable.numpy() for variable in keras_model.trainable_variables]
    moving = [variable.numpy() for variable in keras_model.non_trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((None, *keras_model.input_shape[1:]))], autograph=False)
    def predict(images):
        constants = [tf.constant(array) for array in trained], [tf.constant(array) for array in moving]
        outputs, _ = keras_model.stateless_call(*constants, images, training=False)
        raw_heads, features = outputs[: len(heads.strides)], outputs[len(heads.strides) :]
        return dict(zip(("predictions", "features"), (decode(raw_heads, heads), *features), strict=False))

    return predict.get_concrete_function()


def check_bfloat16():
    """Refuses BF16 where oneDNN cannot do it: on an x86 CPU without AVX512, and no GPU to run on instead."""
    cpu = Path("/proc/cpuinfo")
    if tf.config.list_physical_devices("GPU") or not cpu.exists():
        return
    flags = cpu.read_text()
    if "avx2" in flags and "avx512" not in flags:
        raise UserError('YOLO_PRECISION = "BF16" needs a CPU with AVX512, which this one has not: use "FP32"')


def in_mixed_precision(frozen):
    """A frozen network, run with its convolutions in bfloat16 (CPU, oneDNN) or float16 (GPU).

    The graph rewrite goes with the call, not with the process, whose other functions stay as they are.
    """
    on_gpu = tf.config.list_physical_devices("GPU")
    rewrite = "auto_mixed_precision" if on_gpu else "auto_mixed_precision_onednn_bfloat16"
    config = tf.compat.v1.ConfigProto()
    setattr(config.graph_options.rewrite_options, rewrite, RewriterConfig.ON)
    config = config.SerializeToString()

    def network(images):
        types = [tf.float32] * len(frozen.outputs)
        outputs = tf.raw_ops.PartitionedCall(args=[images], Tout=types, f=frozen, config_proto=config)
        return tf.nest.pack_sequence_as(frozen.structured_outputs, outputs)

    return network


def allow_memory_growth():
    """Lets TensorFlow take GPU memory as it needs it, rather than all of it at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already: too late to change, and no harm
            tf.config.experimental.set_memory_growth(gpu, True)


# --- OpenVINO ------------------------------------------------------------------------------------------------------


def openvino_network(model, folder, runtime):
    """The OpenVINO IR that tools/Convert_to_OpenVINO.py has written, on the CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    if model.precision == "BF16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError(f"{folder} is in BF16, which this CPU has not: convert to FP32 or INT8")
    try:
        graph = core.read_model(folder / "model.xml")
    except RuntimeError:
        raise UserError(f"{folder} holds no model.xml and model.bin that can be read: convert again") from None
    return compile_openvino(core, graph, model, runtime)


def compile_openvino(core, graph, model, runtime):
    """An openvino.Model -> a network."""
    from openvino import AsyncInferQueue, Tensor

    names = [output.any_name for output in graph.outputs]
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if model.precision == "BF16" else "f32",
        "PERFORMANCE_HINT": runtime.hint,
        **({"INFERENCE_NUM_THREADS": runtime.threads} if runtime.threads else {}),
    }

    @functools.cache
    def compiled(batch):  # a fixed batch is a twentieth faster than one of any size
        of_batch = graph.clone()
        of_batch.reshape([batch, model.input_size, model.input_size, 3])
        return core.compile_model(of_batch, "CPU", options)

    @functools.cache
    def request(batch, thread):  # each thread's own
        return compiled(batch).create_infer_request()

    @functools.cache
    def requests(thread):
        return AsyncInferQueue(compiled(1))

    def one_batch(images):
        mine = request(1 if len(images) == 1 else -1, threading.get_ident())
        lent = in_place(images)
        mine.set_input_tensor(Tensor(lent, shared_memory=True))
        answers = mine.infer(share_outputs=True)
        return {name: tf.constant(answers[name]) for name in names}

    def one_by_one(images):
        queue, answers = requests(threading.get_ident()), [None] * len(images)

        def keep(request, i):
            answers[i] = [request.get_tensor(name).data.copy() for name in names]

        queue.set_callback(keep)
        lent = in_place(images)
        try:
            for i, image in enumerate(lent):
                queue.start_async([image[np.newaxis]], i, share_inputs=True)
        finally:
            queue.wait_all()  # what is under way reads what is lent
        return {name: tf.constant(np.concatenate(x)) for name, x in zip(names, zip(*answers, strict=True), strict=True)}

    return one_by_one if runtime.hint == "THROUGHPUT" else one_batch


def in_place(tensor):
    """A tensor in main memory as a NumPy array, without a copy. NumPy calls it writable, since OpenVINO copies what is
    not; nothing may write to it."""
    return np.asarray(_Lent(tensor))


class _Lent:
    """Keeps what NumPy reads by the address."""

    def __init__(self, tensor):
        self._held = np.asarray(memoryview(tensor))
        interface = self._held.__array_interface__
        address, _ = interface["data"]
        self.__array_interface__ = {**interface, "data": (address, False)}  # not read-only


def import_openvino():
    sys.modules.setdefault("openvino_telemetry", None)  # or it reports each conversion, from forks of this process
    try:
        import openvino
    except ImportError:
        raise UserError("OpenVINO is not installed: pip install -r requirements-openvino.txt") from None
    return openvino


FRAMEWORKS = {"tf": tensorflow_network, "trt": tensorrt_network, "openvino": openvino_network, "neuron": neuron_network}
CONVERTERS = {  # what writes their folders
    "tf": "tools/Convert_to_pb.py",
    "trt": "tools/Convert_to_TRT.py",
    "openvino": "tools/Convert_to_OpenVINO.py",
    "neuron": "tools/Convert_to_Neuron.py",
}
