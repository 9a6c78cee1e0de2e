"""Triton Inference Server: config.pbtxt says of inputs and outputs what ONNX Runtime does of the file beside it."""

import errno
import json
import os
import shutil
import sys

from yolov3 import configs
from yolov3.loading import SHIPPED, Load_Yolo_model
from yolov3.runtimes.common import folder_size
from yolov3.runtimes.onnx_parts.graph import import_onnx
from yolov3.runtimes.onnx_parts.model import build_model
from yolov3.runtimes.onnx_parts.providers import CPU, import_onnxruntime
from yolov3.runtimes.onnx_parts.triton import describe, write_triton

import Convert_to_ONNX
import pytest
import test_onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

NAMES = ('say "hi"', "back\\slash", "né")  # of classes
ONNX_TYPES = {"TYPE_FP32": "tensor(float)", "TYPE_UINT8": "tensor(uint8)", "TYPE_INT32": "tensor(int32)"}
ENUMS = {"DataType": tuple(ONNX_TYPES), "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU")}
MESSAGES = {  # the part of Triton's model_config.proto that we use; * means repeated
    "Reshape": {"shape": "int64*"},
    "Tensor": {"name": "string", "data_type": "DataType", "dims": "int64*", "reshape": "Reshape"},
    "Group": {"count": "int32", "kind": "Kind"},
    "Batching": {"max_queue_delay_microseconds": "uint64"},
    "Value": {"string_value": "string"},
    "Parameter": {"key": "string", "value": "Value"},
    "ModelConfig": {
        "backend": "string",
        "max_batch_size": "int32",
        "dynamic_batching": "Batching",
        "instance_group": "Group*",
        "input": "Tensor*",
        "output": "Tensor*",
        "parameters": "Parameter*",
    },
}


def parse(text):
    """Return a config.pbtxt as a protobuf message. Raises ParseError if it is not one."""
    Field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="inference", syntax="proto2")
    for name, values in ENUMS.items():
        file.enum_type.add(name=name, value=[{"name": value, "number": i} for i, value in enumerate(values)])
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            label = Field.LABEL_REPEATED if kind.endswith("*") else Field.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            if kind in MESSAGES or kind in ENUMS:
                named = {"type": Field.TYPE_MESSAGE if kind in MESSAGES else Field.TYPE_ENUM, "type_name": kind}
            else:
                named = {"type": Field.Type.Value(f"TYPE_{kind.upper()}")}
            message.field.add(name=field, number=number, label=label, **named)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return text_format.Parse(text, config())


def assert_says_the_same(config, session):
    """Names, types and dimensions of a ModelConfig are those of an InferenceSession."""
    for ours, theirs in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        types = [ONNX_TYPES[ENUMS["DataType"][x.data_type]] for x in ours]
        dims = [x.reshape.shape if x.HasField("reshape") else x.dims for x in ours]
        said = [(x.name, kind, ["N", *shape]) for x, kind, shape in zip(ours, types, dims, strict=True)]
        assert said == [(x.name, x.type, x.shape) for x in theirs]
        assert all(len(x.dims) for x in ours)  # as Triton demands


@pytest.mark.parametrize("precision", ["FP32", "FP16"])
@pytest.mark.parametrize(
    ("outputs", "features"), [("predictions", True), ("predictions", False), ("raw_heads", True), ("boxes", False)]
)
def test_the_config_describes_the_file(tmp_path, monkeypatch, outputs, precision, features):
    monkeypatch.setattr(test_onnx, "CLASSES", NAMES)
    network, spec = test_onnx.random_network("yolov3-tiny", tmp_path, features=features)
    thresholds = test_onnx.LOW if outputs == "boxes" else {}
    model = build_model(network, spec, outputs, thresholds, precision)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=[CPU])
    config = parse(describe(model))
    assert_says_the_same(config, session)
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 8)
    assert config.HasField("dynamic_batching") and [group.count for group in config.instance_group] == [1]
    facts = {x.key: x.value.string_value for x in config.parameters}
    assert facts == session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(NAMES)


@pytest.mark.slow
def test_the_converter_makes_the_folder_a_model_of_triton(shipped_saved_model, tmp_path, monkeypatch):
    shutil.copytree(shipped_saved_model, tmp_path / shipped_saved_model.name)
    constants = {"TRAIN_CHECKPOINTS_FOLDER": str(tmp_path), "YOLO_INPUT_SIZE": 160, "YOLO_CUSTOM_WEIGHTS": SHIPPED}
    for name, value in constants.items():
        monkeypatch.setattr(configs, name, value)
    monkeypatch.setattr(sys, "argv", ["Convert_to_ONNX.py", "--triton"])
    Convert_to_ONNX.main.__wrapped__()
    (folder,) = tmp_path.glob("*onnx*")
    assert (folder / "1" / "model.onnx").samefile(folder / "model.onnx")
    assert folder_size(folder) < 1.01 * (folder / "model.onnx").stat().st_size / 1e6
    session = import_onnxruntime().InferenceSession(folder / "1" / "model.onnx", providers=[CPU])
    assert_says_the_same(parse((folder / "config.pbtxt").read_text(encoding="utf-8")), session)
    assert Load_Yolo_model(folder, input_size=160).spec.framework == "onnx"


def test_without_hard_links_the_file_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "model.onnx").write_bytes(b"model")
    write_triton(tmp_path, tmp_path / "model.onnx", import_onnx().ModelProto())
    assert (tmp_path / "1" / "model.onnx").read_bytes() == b"model"
