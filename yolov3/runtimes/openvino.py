"""Load and write networks for OpenVINO on CPUs: its IR, in FP32, BF16, or INT8 as quantised by NNCF.

In INT8 every convolution multiplies 8-bit integers: weights are scaled per channel, activations per tensor, by the
range of values that they have on the calibration pictures. The raw heads are decoded to boxes in float32, since eight
bits are too few for a position in pixels.
"""

import collections
import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from yolov3.checkpoint import ModelSpec, write_about
from yolov3.checks import UserError
from yolov3.files import whole_folder
from yolov3.runtimes import RunOptions, Written, savedmodel
from yolov3.runtimes.common import TOLERANCE, check_same, made_from, sample_images
from yolov3.runtimes.openvino_rewrites import readers, save_copies, transpose_first

import numpy as np
import tensorflow as tf


class WriteOptions(NamedTuple):
    """Limit the accuracy that INT8 may lose."""

    max_drop: float | None = None  # AP50 points; layers stay in FP32 until no more is lost; None: no limit
    measure: Callable | None = None  # returns the AP50 points of a network; called only if max_drop is given


ANY_DROP = WriteOptions()


def load(spec: ModelSpec, folder: Path, options: RunOptions) -> Callable:
    """Return the network of a folder that tools/Convert_to_OpenVINO.py has written, on the CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    if spec.precision == "BF16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError(f"{folder} is in BF16, which this CPU does not support", "convert to FP32 or INT8")
    try:
        graph = core.read_model(folder / "model.xml")
    except RuntimeError:
        raise UserError(f"{folder} holds no model.xml and model.bin that can be read: convert again") from None
    return compile_graph(core, graph, spec, options)


def compile_graph(core: Any, graph: Any, spec: ModelSpec, run_options: RunOptions) -> Callable:
    """Return an openvino.Model as a network."""
    from openvino import AsyncInferQueue, Tensor

    names = [output.any_name for output in graph.outputs]
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if spec.precision == "BF16" else "f32",
        "PERFORMANCE_HINT": run_options.hint,
        **({"INFERENCE_NUM_THREADS": run_options.threads} if run_options.threads else {}),
    }

    @functools.cache
    def compiled(batch):  # 5 % faster for a fixed batch size than for any (-1)
        of_batch = graph.clone()
        of_batch.reshape([batch, *spec.input_size, 3])
        return compile_for_cpu(core, of_batch, options)

    idle: dict = collections.defaultdict(collections.deque)  # the requests of each kind that no thread uses

    @contextlib.contextmanager
    def borrowed(kind, make):
        """Lend a request, or a queue of them, to one thread at a time."""
        try:
            mine = idle[kind].pop()  # atomic, as is append
        except IndexError:
            mine = make()
        try:
            yield mine
        finally:
            idle[kind].append(mine)

    def one_batch(images):
        batch, lent = 1 if len(images) == 1 else -1, in_place(images)
        with borrowed(batch, lambda: compiled(batch).create_infer_request()) as mine:
            mine.set_input_tensor(Tensor(lent, shared_memory=True))
            answers = mine.infer(share_outputs=True)
            return {name: tf.constant(answers[name]) for name in names}

    def one_by_one(images):
        with borrowed("queue", lambda: AsyncInferQueue(compiled(1))) as queue:
            return all_at_once(queue, images)

    def all_at_once(queue, images):
        answers = [None] * len(images)

        def keep(request, i):
            answers[i] = [request.get_tensor(name).data.copy() for name in names]

        queue.set_callback(keep)
        lent = in_place(images)
        try:
            for i, image in enumerate(lent):
                queue.start_async([image[np.newaxis]], i, share_inputs=True)
        finally:
            queue.wait_all()  # the requests under way still read the images
        return {name: tf.constant(np.concatenate(x)) for name, x in zip(names, zip(*answers, strict=True), strict=True)}

    return one_by_one if run_options.hint == "THROUGHPUT" else one_batch


def in_place(tensor: tf.Tensor) -> np.ndarray:
    """Return a tensor in main memory as a NumPy array, without a copy. Nothing may write to it.

    OpenVINO copies an array that NumPy calls read-only, as it calls those of TensorFlow. At 416 that copy of 2 MB takes
    2 ms on 2 cores.
    """
    return np.asarray(_Lent(tensor))


class _Lent:
    """Give NumPy the address of a tensor, called writable, and keep the tensor for as long as the array lives."""

    def __init__(self, tensor):
        self._held = np.asarray(memoryview(tensor))
        interface = self._held.__array_interface__
        address, _ = interface["data"]
        self.__array_interface__ = {**interface, "data": (address, False)}  # not read-only


def compile_for_cpu(core: Any, graph: Any, options: dict[str, Any]) -> Any:
    """Return an openvino.Model compiled by a Core, in a thread of its own.

    OpenVINO replaces the stack on which the calling thread handles signals. If the older of two compiled models is
    deleted first, it leaves that thread a stack that is freed: in the main thread, the next Ctrl-C would be a crash.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(core.compile_model, graph, "CPU", options).result()


def import_openvino() -> ModuleType:
    """Return the package of OpenVINO. Raises UserError if it is not installed."""
    # It would report each conversion, from forks of this process
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise UserError("OpenVINO is not installed", "pip install -r requirements/openvino.txt") from None
    return openvino


def import_nncf() -> ModuleType:
    """Return the package of NNCF. Raises UserError if it is not installed."""
    try:
        import nncf
    except ImportError:
        raise UserError("INT8 needs NNCF", "pip install -r requirements/openvino.txt") from None
    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf


# --- Writing ---------------------------------------------------------------------------------------------------------


def check(precision: str, options: WriteOptions) -> None:
    """Raise UserError if OpenVINO or, for INT8, NNCF is not installed."""
    import_openvino()
    if precision == "INT8":
        import_nncf()


def write(
    folder: Path,
    source: Path,
    spec: ModelSpec,
    options: WriteOptions = ANY_DROP,
    inputs: Any = None,
    facts: Iterable = (),
) -> Written:
    """Write a SavedModel folder as an OpenVINO folder, checked against TensorFlow on a picture.

    inputs  network inputs that INT8 is calibrated on
    facts   what model.json is to say of them
    """
    graph = read_saved_model(source)
    if spec.precision == "INT8":
        try:
            graph = quantise(graph, inputs, options)
        except RuntimeError as error:  # raised by NNCF
            raise UserError(f"NNCF cannot quantise {source}: {str(error).strip().splitlines()[0]}") from None
    with whole_folder(folder) as part:
        try:
            import_openvino().save_model(graph, part / "model.xml", compress_to_fp16=spec.precision == "BF16")
        except RuntimeError as error:  # what OpenVINO raises when the disk is full
            raise OSError(None, str(error).strip().splitlines()[-1]) from None
        write_about(part, spec, made_from(source), **dict(facts))
        images = sample_images(spec)
        expected = savedmodel.load(source)(images=images)["predictions"]
        answers = load(spec, part, RunOptions())(images)["predictions"]
        return Written(check_same(answers, expected, folder, TOLERANCE if spec.precision == "FP32" else np.inf))


def read_saved_model(folder: Path) -> Any:
    """Return the `serving_default` of a SavedModel folder as an openvino.Model of any batch size."""
    openvino = import_openvino()
    try:
        graph = openvino.convert_model(str(savedmodel.place(folder)))
    except Exception as error:  # its classes differ between releases
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{folder} holds no SavedModel that OpenVINO can read ({reason}): convert again") from None
    return save_copies(graph)


def quantise(graph: Any, inputs: Collection[np.ndarray], options: WriteOptions = ANY_DROP) -> Any:
    """Return an openvino.Model in INT8, calibrated on inputs, float32 (1, h, w, 3) each, that can be iterated again.

    With a `max_drop`, the layers that cost the most accuracy stay in FP32, as many as it takes.
    """
    nncf = import_nncf()
    arguments = {
        "subset_size": len(inputs),
        "preset": nncf.QuantizationPreset.MIXED,  # half an AP50 point better than PERFORMANCE on photographs, as fast
        "ignored_scope": nncf.IgnoredScope(names=behind_heads(graph)),
    }
    data = nncf.Dataset(inputs)
    if options.max_drop is None:
        return transpose_first(nncf.quantize(graph, data, **arguments))

    def measure(compiled):
        def network(images):
            return {output.any_name: tf.constant(x) for output, x in compiled([in_place(images)]).items()}

        return options.measure(network)

    return transpose_first(
        nncf.quantize_with_accuracy_control(
            graph,
            data,
            data,  # on which NNCF ranks the layers
            lambda compiled, _: (measure(compiled), None),
            max_drop=options.max_drop,
            **arguments,
        )
    )


def behind_heads(graph: Any) -> list[str]:
    """Return the names of all operations that follow a raw head: a convolution that no other convolution follows."""
    leads_on: dict[str, bool] = {}  # name of an operation: whether a convolution follows it
    behind: set[str] = set()
    for operation in reversed(graph.get_ordered_ops()):
        followers = [reader for output in operation.outputs() for reader in readers(output)]
        names = [follower.get_friendly_name() for follower in followers]
        leads_on[operation.get_friendly_name()] = any(
            follower.get_type_name() == "Convolution" or leads_on[name]
            for follower, name in zip(followers, names, strict=True)
        )
    for operation in graph.get_ordered_ops():
        name, sources = operation.get_friendly_name(), [x.get_source_output().get_node() for x in operation.inputs()]
        from_head = any(x.get_type_name() == "Convolution" or x.get_friendly_name() in behind for x in sources)
        if from_head and not leads_on[name] and operation.get_type_name() != "Convolution":
            behind.add(name)
    return sorted(behind)
