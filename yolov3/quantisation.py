"""A SavedModel -> OpenVINO, and to INT8 by NNCF's post-training quantisation.

What INT8 is: every convolution multiplies 8-bit whole numbers, weights scaled per channel, activations per tensor by
the range that they take on the calibration pictures. The boxes' arithmetic behind the raw heads stays in float32:
eight bits are too few for a place in pixels.
"""

import logging

from yolov3 import savedmodel
from yolov3.frameworks import import_openvino
from yolov3.rewrites import readers, save_copies, transpose_first
from yolov3.settings import UserError


def read_saved_model(folder):
    """The `serving_default` of a SavedModel folder -> openvino.Model, of any batch size."""
    openvino = import_openvino()
    try:
        graph = openvino.convert_model(str(savedmodel.place(folder)))
    except Exception as error:  # its classes differ between releases
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{folder} holds no SavedModel that OpenVINO can read ({reason}): convert again") from None
    return save_copies(graph)


def quantise(graph, inputs):
    """openvino.Model -> the same in INT8, calibrated on inputs, float32 (1, S, S, 3) each, that can be had again."""
    nncf = import_nncf()
    return transpose_first(nncf.quantize(graph, nncf.Dataset(inputs), **_options(nncf, graph, inputs)))


def quantise_within(graph, inputs, measure, max_drop):
    """openvino.Model -> the same in INT8 but for the layers that cost the most accuracy, so many that no more than
    max_drop is lost of what `measure` says: openvino.CompiledModel -> float."""
    nncf = import_nncf()
    quantised = nncf.quantize_with_accuracy_control(
        graph,
        nncf.Dataset(inputs),
        nncf.Dataset(inputs),  # by whose answers NNCF ranks the layers
        lambda compiled, _: (measure(compiled), None),
        max_drop=max_drop,
        **_options(nncf, graph, inputs),
    )
    return transpose_first(quantised)


def _options(nncf, graph, inputs):
    return {
        "subset_size": len(inputs),
        "preset": nncf.QuantizationPreset.MIXED,  # half a point better than PERFORMANCE on photographs, as fast
        "ignored_scope": nncf.IgnoredScope(names=behind_heads(graph)),
    }


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


def import_nncf():
    try:
        import nncf
    except ImportError:
        raise UserError("INT8 needs NNCF: pip install -r requirements-openvino.txt") from None
    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf
