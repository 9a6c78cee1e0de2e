"""Load and write networks for ONNX Runtime: one ONNX file, which compilers of other vendors take, too."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from yolov3.boxes import suppress
from yolov3.checkpoint import ModelSpec, write_about
from yolov3.checks import UserError
from yolov3.files import whole_folder
from yolov3.runtimes import RUNTIMES, RunOptions, Written, savedmodel
from yolov3.runtimes.common import PICTURE, TOLERANCE, baked, check_same, decoder, made_from, sample_images
from yolov3.runtimes.onnx_parts.graph import import_onnx
from yolov3.runtimes.onnx_parts.model import build_model
from yolov3.runtimes.onnx_parts.providers import CPU, Profile, import_onnxruntime, open_session
from yolov3.runtimes.onnx_parts.triton import write_triton
from yolov3.runtimes.savedmodel import RAW_HEAD
from yolov3.runtimes.tf import keras_network

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"


class WriteOptions(NamedTuple):
    """Say what the file is to answer, and whether the folder is to be a model of Triton."""

    outputs: str = "predictions"  # YOLO_ONNX_OUTPUTS: see `onnx_parts.model`
    triton: bool = False  # see `onnx_parts.triton`


PREDICTIONS = WriteOptions()


def load(spec: ModelSpec, folder: Path, options: RunOptions) -> Callable:
    """Return the network of a folder that tools/Convert_to_ONNX.py has written, by the best provider that runs here."""
    session, provider, problems = open_session(
        folder / FILE, options.providers, options.onnx_threads, Profile(spec.precision)
    )
    network = run_session(session, spec, folder / FILE)
    tell(folder, provider, problems)
    return network


def tell(folder: Path, provider: str, problems: Iterable[str], more: str = "") -> None:
    """Print which provider runs a folder, and why better ones do not."""
    for problem in problems:
        print(problem)
    print(f"{folder.name} runs by ONNX Runtime's {provider}{more}")


def run_session(session: Any, spec: ModelSpec, file: Path) -> Callable:
    """Return the network that an InferenceSession runs. Raises UserError if its file is not as in `spec`."""
    (given, *others), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    heads = [RAW_HEAD.format(i) for i in range(len(spec.heads.strides))]
    features = ["features"] * spec.features
    size = [*spec.input_size, 3]
    takes_ours = not others and given.type == "tensor(float)" and given.shape[1:] == size
    if not takes_ours or names not in (["predictions", *features], [*heads, *features]):
        wanted = f"images tensor(float) {['N', *size]} and predictions"
        found = f"{given.name} {given.type} {given.shape} and {', '.join(names)}"
        raise UserError(
            f"{file} has as input and outputs {found}, not {', '.join([wanted, *features])}",
            f'python {RUNTIMES[spec.framework].converter} writes them, with YOLO_ONNX_OUTPUTS = "predictions"',
        )
    finish = decoder(spec) if heads[0] in names else None

    def network(images):
        answers = dict(zip(names, session.run(names, {given.name: np.asarray(images)}), strict=True))
        if finish:
            answers = {"predictions": finish([answers.pop(name) for name in heads]), **answers}
        return {name: tf.constant(answer) for name, answer in answers.items()}

    return network


# --- Writing ----------------------------------------------------------------------------------------------------------


def check(precision: str, options: Any = None) -> None:
    """Raise UserError if a package that writes or tries the file is missing."""
    import_onnx()
    import_onnxruntime()


def write(
    folder: Path,
    source: Path,
    spec: ModelSpec,
    options: WriteOptions = PREDICTIONS,
    inputs: Any = None,
    facts: Iterable = (),
) -> Written:
    """Write a SavedModel folder as an ONNX folder, checked against TensorFlow on a picture."""
    thresholds, network = suppression(source), keras_network(spec, source)
    model = build_model(network, spec, options.outputs, thresholds, spec.precision)
    with whole_folder(folder) as part:
        written = save(part, folder, model, source, spec, options.outputs, facts)
        if options.triton:
            write_triton(part, part / FILE, model)
    return written


def suppression(source: Path) -> dict[str, Any]:
    """Return the thresholds of a SavedModel folder, which "boxes" are suppressed with."""
    return {name: value for name, value in baked(source).items() if name != "max_pixels"}


def save(
    part: Path, folder: Path, model: "onnx.ModelProto", source: Path, spec: ModelSpec, outputs: str, facts: Iterable
) -> Written:
    """Write an ONNX model and model.json into the empty folder `part`, which will be renamed to `folder`.

    Raises UserError if the file does not answer what the SavedModel folder does that it was made from.
    """
    (part / FILE).write_bytes(model.SerializeToString())
    baked_in = suppression(source) if outputs == "boxes" else {}
    write_about(part, spec, made_from(source), outputs=outputs, **baked_in, **dict(facts))
    session, _, _ = open_session(part / FILE, [CPU])
    tolerance = TOLERANCE if spec.precision == "FP32" else np.inf
    if outputs == "boxes":
        return Written(check_boxes(session, source, spec, folder, tolerance))
    images, expected = sample_images(spec), savedmodel.load(source)
    answers = run_session(session, spec, part / FILE)(images)["predictions"]
    return Written(check_same(answers, expected(images=images)["predictions"], folder, tolerance))


def check_boxes(session: Any, source: Path, spec: ModelSpec, folder: Path, tolerance: float) -> float:
    """Return the largest difference between the scores that a file with "boxes" and `suppress` give for a picture.

    Raises UserError if they do not find the same.
    """
    images = np.round(sample_images(spec).numpy() * 255).astype(np.uint8)
    predictions = savedmodel.load(source)(images=tf.constant(images / np.float32(255)))["predictions"]
    expected = suppress(predictions, nms=spec.heads.nms, beta=spec.heads.beta_nms, **suppression(source))
    boxes, scores, classes, valid = session.run(["boxes", "scores", "classes", "valid_detections"], {"images": images})
    off = np.abs(scores - expected[1]).max()
    if not np.isfinite(boxes).all() or (tolerance < np.inf and (off > tolerance or valid != expected[3])):
        raise UserError(f"{folder} does not find the boxes expected for {PICTURE}: it is not written")
    return off
