"""List the runtimes that run a network: for each value of YOLO_FRAMEWORK a row here and a file of the same name.

The file of a runtime has three functions:

    load(spec, folder, options)
        Return the network: a function of images, float32 (N, h, w, 3), that returns a dict with "predictions", float32
        (N, boxes, 4 + classes), and, if spec.features is True, "features", float32 (N, h/16, w/16, C).
    check(precision, options)
        Raise UserError if something that `write` needs is missing.
    write(folder, source, spec, options, inputs, facts)
        Write a checkpoint folder, which is tried before it gets its name, and return Written.

`load` takes a checkpoint folder or, for "tf" only, a Darknet .weights file. A vendor's package is imported only inside
the functions of its own file. To add a runtime: its file, its row, requirements/NAME.txt and a converter in tools/.
"""

import importlib
from types import ModuleType
from typing import NamedTuple


class RunOptions(NamedTuple):
    """Say how to run a network, where its runtime leaves a choice."""

    precision: str = "FP32"  # for "tf": "FP32" or "BF16"; the folders of other runtimes have a fixed precision
    hint: str = "LATENCY"  # for "openvino": "LATENCY", one batch on all cores, or "THROUGHPUT", a picture for each core
    threads: int = 0  # for "openvino"; 0: as many as it finds useful
    tflite_threads: int = 0  # for "tflite"; 0: as many as the CPU has
    onnx_threads: int = 0  # for "onnx" and "trt" on the CPU; 0: as many as ONNX Runtime finds useful
    providers: tuple[str, ...] = ()  # for "onnx" and "trt", best first; (): that of the CPU


class Written(NamedTuple):
    """Say how the writing of a folder went."""

    worst: float  # largest difference between its predictions and those of the source, on a picture
    lines: tuple[str, ...] = ()  # what else to tell the user


class Runtime(NamedTuple):
    """Describe one runtime: a row of the table."""

    name: str
    converter: str  # the script that writes its folders
    requirements: str  # what to install for it
    modes: tuple[str, ...]  # precisions that are part of the names of its folders; (): the names have none

    @property
    def module(self) -> ModuleType:
        """Return the module of the runtime, imported at the first use."""
        return importlib.import_module(f"yolov3.runtimes.{self.name}")


RUNTIMES = {
    row.name: row
    for row in (
        Runtime("tf", "tools/Convert_to_pb.py", "requirements.txt", ()),
        Runtime("openvino", "tools/Convert_to_OpenVINO.py", "requirements/openvino.txt", ("INT8", "BF16", "FP32")),
        Runtime("onnx", "tools/Convert_to_ONNX.py", "requirements/onnx.txt", ("FP16", "FP32")),
        Runtime("tflite", "tools/Convert_to_TFLite.py", "requirements/tflite.txt", ("INT8", "FP16", "FP32")),
        Runtime("trt", "tools/Convert_to_TRT.py", "requirements/onnx-gpu.txt", ("INT8", "FP16", "FP32")),
        Runtime("neuron", "tools/Convert_to_Neuron.py", "requirements/neuron.txt", ()),
    )
}
