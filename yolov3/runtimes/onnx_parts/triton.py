"""Make a folder with an ONNX file a model of Triton Inference Server.

config.pbtxt    the inputs and outputs of the ONNX file, batches across requests, and what the file says of itself
1/model.onnx    version 1: a hard link to model.onnx
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from yolov3.runtimes.onnx_parts.graph import import_onnx

if TYPE_CHECKING:
    import onnx

VERSION = "1"
BATCH = 8  # most pictures that Triton gives the network at a time
WAIT = 5000  # microseconds that a batch waits for more pictures
TYPES = {"FLOAT": "TYPE_FP32", "UINT8": "TYPE_UINT8", "INT32": "TYPE_INT32"}  # ONNX's name -> Triton's


def write_triton(folder: Path, file: Path, model: "onnx.ModelProto") -> None:
    """Write config.pbtxt, and a version of the ONNX file that lies in the folder.

    model  what is in the file
    """
    (folder / "config.pbtxt").write_text(describe(model), encoding="utf-8")
    version = folder / VERSION / file.name
    version.parent.mkdir()
    try:
        os.link(file, version)
    except OSError:  # some file systems, such as FAT, have no hard links
        shutil.copyfile(file, version)


def describe(model: "onnx.ModelProto") -> str:
    """Return config.pbtxt for an ONNX model, of which the first dimension of all inputs and outputs is the batch.

    It does not name the model: Triton then uses the name of the folder, which may be changed.
    """
    lines = [
        'backend: "onnxruntime"',
        f"max_batch_size: {BATCH}",
        f"dynamic_batching {{ max_queue_delay_microseconds: {WAIT} }}",
        "instance_group { count: 1 kind: KIND_AUTO }  # on each GPU; on the CPU if there is none",
    ]
    for kind, tensors in (("input", model.graph.input), ("output", model.graph.output)):
        for tensor in tensors:
            lines += [f"{kind} {{", *_describe_tensor(tensor), "}"]
    for fact in model.metadata_props:  # the class names too: label_filename names only the elements of a tensor
        lines.append(f"parameters {{ key: {_quote(fact.key)} value {{ string_value: {_quote(fact.value)} }} }}")
    return "\n".join(lines) + "\n"


def _describe_tensor(tensor: "onnx.ValueInfoProto") -> Iterator[str]:
    """Give the lines of an input or output."""
    described = tensor.type.tensor_type
    yield f"  name: {_quote(tensor.name)}"
    yield f"  data_type: {TYPES[import_onnx().TensorProto.DataType.Name(described.elem_type)]}"
    dims = [dim.dim_value for dim in described.shape.dim[1:]]  # without the batch
    yield f"  dims: {dims or [1]}"
    if not dims:  # Triton does not allow (N,): clients see (N, 1)
        yield "  reshape { shape: [] }"


def _quote(text: str) -> str:
    """Return a string as it is written in protobuf's text format."""
    return json.dumps(text, ensure_ascii=False)
