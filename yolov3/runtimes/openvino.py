"""OpenVINO on CPUs: its IR run, and written from a SavedModel in FP32, BF16, or INT8 by NNCF's quantisation.

What INT8 is: every convolution multiplies 8-bit whole numbers, weights scaled per channel, activations per tensor by
the range that they take on the calibration pictures. The boxes' arithmetic behind the raw heads stays in float32:
eight bits are too few for a place in pixels.
"""

import collections
import contextlib
import functools
import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

from yolov3.checkpoint import write_about
from yolov3.checks import UserError
from yolov3.files import whole_folder
from yolov3.runtimes import RunOptions, Written, savedmodel
from yolov3.runtimes.common import TOLERANCE, check_same, made_from, sample_images
from yolov3.runtimes.openvino_rewrites import readers, save_copies, transpose_first

import numpy as np
import tensorflow as tf


class WriteOptions(NamedTuple):
    """How far INT8 may go."""

    max_drop: float | None = None  # AP50 points that it may lose; layers go back to FP32 until it does not; None: any
    measure: Callable | None = None  # network -> AP50 points; asked only if max_drop is given


ANY_DROP = WriteOptions()


def load(spec, folder, options):
    """The OpenVINO IR that tools/Convert_to_OpenVINO.py has written, on the CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    if spec.precision == "BF16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError(f"{folder} is in BF16, which this CPU does not have", "convert to FP32 or INT8")
    try:
        graph = core.read_model(folder / "model.xml")
    except RuntimeError:
        raise UserError(f"{folder} holds no model.xml and model.bin that can be read: convert again") from None
    return compile_graph(core, graph, spec, options)


def compile_graph(core, graph, spec, run_options):
    """An openvino.Model -> a network."""
    from openvino import AsyncInferQueue, Tensor

    names = [output.any_name for output in graph.outputs]
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if spec.precision == "BF16" else "f32",
        "PERFORMANCE_HINT": run_options.hint,
        **({"INFERENCE_NUM_THREADS": run_options.threads} if run_options.threads else {}),
    }

    @functools.cache
    def compiled(batch):  # a fixed batch is a twentieth faster than one of any size
        of_batch = graph.clone()
        of_batch.reshape([batch, spec.input_size, spec.input_size, 3])
        return core.compile_model(of_batch, "CPU", options)

    idle = collections.defaultdict(collections.deque)  # kind -> requests that no thread uses

    @contextlib.contextmanager
    def borrowed(kind, make):
        """A request, or a queue of them, for one thread at a time."""
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
            queue.wait_all()  # what is under way reads what is lent
        return {name: tf.constant(np.concatenate(x)) for name, x in zip(names, zip(*answers, strict=True), strict=True)}

    return one_by_one if run_options.hint == "THROUGHPUT" else one_batch


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
        raise UserError("OpenVINO is not installed", "pip install -r requirements/openvino.txt") from None
    return openvino


def import_nncf():
    try:
        import nncf
    except ImportError:
        raise UserError("INT8 needs NNCF", "pip install -r requirements/openvino.txt") from None
    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf


# --- Writing ---------------------------------------------------------------------------------------------------------


def check(precision, options):
    """Raise UserError if OpenVINO or, for INT8, NNCF is not installed."""
    import_openvino()
    if precision == "INT8":
        import_nncf()


def write(folder, source, spec, options=ANY_DROP, inputs=None, facts=()):
    """Write a SavedModel folder as an OpenVINO folder, checked against TensorFlow on a picture.

    inputs, facts  what INT8 is calibrated on, and what model.json is to say of it
    """
    graph = read_saved_model(source)
    if spec.precision == "INT8":
        try:
            graph = quantise(graph, inputs, options)
        except RuntimeError as error:  # NNCF's own
            raise UserError(f"NNCF does not take {source}: {str(error).strip().splitlines()[0]}") from None
    with whole_folder(folder) as part:
        try:
            import_openvino().save_model(graph, part / "model.xml", compress_to_fp16=spec.precision == "BF16")
        except RuntimeError as error:  # a full disk, in OpenVINO's words
            raise OSError(None, str(error).strip().splitlines()[-1]) from None
        write_about(part, spec, made_from(source), **dict(facts))
        images = sample_images(spec)
        expected = savedmodel.load(source)(images=images)["predictions"]
        answers = load(spec, part, RunOptions())(images)["predictions"]
        return Written(check_same(answers, expected, folder, TOLERANCE if spec.precision == "FP32" else np.inf))


def read_saved_model(folder):
    """The `serving_default` of a SavedModel folder -> openvino.Model, of any batch size."""
    openvino = import_openvino()
    try:
        graph = openvino.convert_model(str(savedmodel.place(folder)))
    except Exception as error:  # its classes differ between releases
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{folder} holds no SavedModel that OpenVINO can read ({reason}): convert again") from None
    return save_copies(graph)


def quantise(graph, inputs, options=ANY_DROP):
    """openvino.Model -> the same in INT8, calibrated on inputs, float32 (1, S, S, 3) each, that can be had again. With
    a `max_drop`, all but the layers that cost the most accuracy, so many that no more is lost."""
    nncf = import_nncf()
    arguments = {
        "subset_size": len(inputs),
        "preset": nncf.QuantizationPreset.MIXED,  # half a point better than PERFORMANCE on photographs, as fast
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
            data,  # by whose answers NNCF ranks the layers
            lambda compiled, _: (measure(compiled), None),
            max_drop=options.max_drop,
            **arguments,
        )
    )


def behind_heads(graph):
    """The names of all operations that a raw head leads to: what follows a convolution that no other follows."""
    leads_on, behind = {}, set()  # name -> whether a convolution follows
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
