"""Load and write networks for TensorRT on NVIDIA GPUs, in one of two ways.

With ONNX, a folder holds a file from which TensorRT, run by ONNX Runtime, builds its engines. Writing it needs no GPU.
With TF-TRT, which TensorFlow 2.17 was the last to have, a folder holds a SavedModel with engines for the GPU of this
machine: TensorRT gets the network up to its raw heads, and TensorFlow decodes them.

Either way boxes are decoded in float32, since eight bits are too few for a position in pixels.
"""

import contextlib
import multiprocessing
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from yolov3.checkpoint import ModelSpec, read_about, write_about
from yolov3.checks import UserError, check_count
from yolov3.files import whole_folder
from yolov3.runtimes import RunOptions, Written, onnx, savedmodel
from yolov3.runtimes.common import TOLERANCE, baked, check_same, made_from, sample_images
from yolov3.runtimes.onnx_parts.int8 import find_scales
from yolov3.runtimes.onnx_parts.model import build_model
from yolov3.runtimes.onnx_parts.providers import CPU, NVIDIA, TENSORRT, TENSORRT_RTX, Profile, open_session
from yolov3.runtimes.tf import allow_memory_growth, keras_network
from yolov3.runtimes.tftrt import check_tensorrt, has_tftrt, import_converter, op_converters
from yolov3.runtimes.tftrt_engines import (
    DEFAULTS,
    Converted,
    Options,
    convert,
    rename_engines,
    report,
    save_raw_heads,
    share_of_engines,
)

import numpy as np
import tensorflow as tf

BACKENDS = (None, "onnx", "tftrt")


def by_onnx(backend: str | None) -> bool:
    """Return whether YOLO_TRT_BACKEND means ONNX. None means it where TensorFlow does not have TF-TRT."""
    return backend == "onnx" or (backend is None and not has_tftrt())


def load(spec: ModelSpec, folder: Path, options: RunOptions) -> Callable:
    """Return the network of a folder that tools/Convert_to_TRT.py has written, on an NVIDIA GPU."""
    has_onnx, about = (folder / onnx.FILE).exists(), read_about(folder)
    if not has_onnx:
        check_tensorrt()
    sizes = about.get("batch_sizes")
    if not isinstance(sizes, list) or not all(isinstance(size, int) and size > 0 for size in sizes) or not sizes:
        raise UserError(f"{folder}/model.json does not say which batch_sizes it has engines for: convert again")
    if has_onnx:
        workspace = check_count(f"workspace in {folder}/model.json", about.get("workspace", 0), 0)
        return load_onnx(spec, folder, options, Profile(spec.precision, input_shape(spec), tuple(sizes), workspace))
    import_converter()  # registers TRTEngineOp
    return in_batches(savedmodel.load_network(folder, spec), sizes)


def load_onnx(spec: ModelSpec, folder: Path, options: RunOptions, profile: Profile) -> Callable:
    """Return the network of a folder with an ONNX file, on an NVIDIA GPU or, where there is none, on the CPU."""
    providers = [provider for provider in options.providers if provider in NVIDIA]
    session, provider, problems = open_session(folder / onnx.FILE, providers, options.onnx_threads, profile)
    on_cpu = ", to measure its accuracy: TensorRT needs an NVIDIA GPU and requirements/onnx-gpu.txt"
    onnx.tell(folder, provider, problems, on_cpu if provider == CPU else "")
    network = onnx.run_session(session, spec, folder / onnx.FILE)
    return in_batches(network, profile.batch_sizes) if provider in (TENSORRT, TENSORRT_RTX) else network


def input_shape(spec: ModelSpec) -> tuple[int, int, int]:
    """Return the shape of a network input."""
    return *spec.input_size, 3


def in_batches(network: Callable, sizes: Sequence[int]) -> Callable:
    """Return a network that runs in batches of those sizes only, of which the last is filled up.

    TF-TRT has no engines for other sizes and would run them in TensorFlow: slower, and in another precision.
    """

    def call(images):
        answers, first = [], 0
        while first < len(images):
            left = len(images) - first
            size = min((size for size in sizes if size >= left), default=max(sizes))
            batch = images[first : first + size]
            missing = size - len(batch)
            answer = network(tf.pad(batch, [(0, missing), (0, 0), (0, 0), (0, 0)]))
            answers.append({name: output[: len(batch)] for name, output in answer.items()})
            first += size
        if len(answers) == 1:
            return answers[0]
        return {name: tf.concat([answer[name] for answer in answers], 0) for name in answers[0]}

    return call


# --- Writing ---------------------------------------------------------------------------------------------------------


def check(precision: str, options: Options) -> None:
    """Raise UserError for the first thing that is missing."""
    if by_onnx(options.backend):
        onnx.check(precision)
    else:
        check_tensorrt(options.workspace)


def write(
    folder: Path,
    source: Path,
    spec: ModelSpec,
    options: Options = DEFAULTS,
    inputs: Any = None,
    facts: Iterable = (),
) -> Written:
    """Write a SavedModel folder as a TensorRT folder, checked against TensorFlow on a picture.

    inputs  network inputs that INT8 is calibrated on
    facts   what model.json is to say of them
    """
    written_by = write_onnx if by_onnx(options.backend) else write_engines
    return written_by(folder, source, spec, options, inputs, facts)


def write_onnx(folder: Path, source: Path, spec: ModelSpec, options: Options, inputs: Any, facts: Iterable) -> Written:
    """Write an ONNX file. INT8 has the scales of all weights and of the inputs of all convolutions in it."""
    network, thresholds = keras_network(spec, source), onnx.suppression(source)
    scales = find_scales(network, spec, inputs) if spec.precision == "INT8" else None
    model = build_model(network, spec, options.outputs, thresholds, spec.precision, scales)
    facts = {**dict(facts), "batch_sizes": options.batch_sizes, "workspace": options.workspace}
    with whole_folder(folder) as part:
        return onnx.save(part, folder, model, source, spec, options.outputs, facts)


def write_engines(
    folder: Path, source: Path, spec: ModelSpec, options: Options, inputs: Any, facts: Iterable
) -> Written:
    """Write a SavedModel with engines for the GPU of this machine, by TF-TRT."""
    thresholds, images = baked(source), sample_images(spec)
    sizes = ", ".join(map(str, options.batch_sizes))
    print(f"building {spec.precision} engines for batches of {sizes}, which takes minutes", flush=True)
    made = {"batch_sizes": options.batch_sizes, "portable": options.portable}
    allow_memory_growth()
    try:
        with exact_float32(), scratch_folder() as scratch, whole_folder(folder) as part:
            heads, converted = Path(scratch) / "heads", Path(scratch) / "converted"
            save_raw_heads(heads, source, spec)
            graph = convert(heads, converted, spec.precision, options, images.numpy(), inputs)
            share = share_of_engines(graph)
            if not share.engines:
                raise UserError("TF-TRT has left the whole network in TensorFlow: lower YOLO_TRT_MIN_SEGMENT")
            rename_engines(converted, f"trt{uuid.uuid4().hex[:8]}")
            elsewhere(add_signatures, part, converted, spec, *thresholds.values())
            write_about(part, spec, made_from(source), **thresholds, **dict(facts), **made)
            batches = [np.repeat(images, size, 0) for size in options.batch_sizes]  # an engine for each
            network = savedmodel.load_network(source, spec)
            expected = [network(tf.constant(images))["predictions"] for images in batches]
            tolerance = TOLERANCE if spec.precision == "FP32" else np.inf
            answers = zip(elsewhere(answer, part, spec, batches), expected, strict=True)
            worst = max(check_same(ours, theirs, folder, tolerance) for ours, theirs in answers)
            return Written(worst, tuple(report(share, op_converters(), options.min_segment)))
    except UserError:
        raise
    except (tf.errors.OpError, RuntimeError, ValueError, BrokenProcessPool) as error:  # raised by TF-TRT and TensorRT
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"TensorRT cannot convert {source} ({reason}): TF_CPP_MIN_LOG_LEVEL=0 says more") from None


def elsewhere(function: Callable, *arguments: Any) -> Any:
    """Return function(*arguments), run in another process: a process cannot load the same engines twice."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare) as process:
        return process.submit(function, *arguments).result()


def prepare() -> None:
    """Prepare another process for engines."""
    allow_memory_growth()
    import_converter()  # registers TRTEngineOp


def add_signatures(folder: Path, converted: Path, spec: ModelSpec, *baked: Any) -> None:
    """Save what TF-TRT has written as a SavedModel with our signatures."""
    savedmodel.save(folder, Converted(converted, spec), spec, *baked)


def answer(folder: Path, spec: ModelSpec, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the predictions of a SavedModel folder for each batch."""
    network = savedmodel.load_network(folder, spec)
    return [network(tf.constant(images))["predictions"].numpy() for images in batches]


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Make a temporary folder in which all others are made: TF-TRT makes some for engines and never removes them."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Have float32 convolutions computed exactly: by default GPUs since Ampere round their factors to ten bits, in
    TensorFlow and in TensorRT."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
