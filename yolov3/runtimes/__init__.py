"""The runtimes that a network can run in: a row here, and a file of the same name, for each value of YOLO_FRAMEWORK.

A runtime's file has three functions:

    load(spec, folder, options) -> network: float32 (N, S, S, 3) -> {"predictions": float32 (N, boxes, 4 + classes)}
                       and, where spec.features says so, {"features": float32 (N, S/16, S/16, C)}, too
    check(precision, options)   raises UserError if something is missing that writing takes
    write(folder, source, spec, options, inputs, facts) -> Written: a checkpoint folder, tried before it gets its name

`load` takes a checkpoint folder or, for "tf" alone, a Darknet .weights file. A vendor's package is imported inside the
functions of its own file only. To add a runtime: its file, its row, requirements/NAME.txt and a converter in tools/.
"""

import importlib
from typing import NamedTuple


class RunOptions(NamedTuple):
    """How to run a network, where its runtime leaves a choice."""

    precision: str = "FP32"  # of "tf": "FP32" or "BF16"; that of other runtimes is part of their folders
    hint: str = "LATENCY"  # of "openvino": "LATENCY", one batch on all cores, or "THROUGHPUT", a picture for each core
    threads: int = 0  # of "openvino"; 0: as many as it finds useful


class Written(NamedTuple):
    """What a runtime tells of the folder that it has written."""

    worst: float  # how far its predictions are off those of the source on a picture, at worst
    lines: tuple = ()  # of text, for the user


class Runtime(NamedTuple):
    """One row of the table."""

    name: str
    converter: str  # the script that writes its folders
    requirements: str  # what to install for it
    modes: tuple  # precisions that its folders come in, by which they are called; (): no part of their name

    @property
    def module(self):
        return importlib.import_module(f"yolov3.runtimes.{self.name}")


RUNTIMES = {
    row.name: row
    for row in (
        Runtime("tf", "tools/Convert_to_pb.py", "requirements.txt", ()),
        Runtime("openvino", "tools/Convert_to_OpenVINO.py", "requirements/openvino.txt", ("INT8", "BF16", "FP32")),
        Runtime("trt", "tools/Convert_to_TRT.py", "requirements/trt.txt", ("INT8", "FP16", "FP32")),
        Runtime("neuron", "tools/Convert_to_Neuron.py", "requirements/neuron.txt", ()),
    )
}
