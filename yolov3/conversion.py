"""Convert the SavedModel that configs.py means for another runtime, as the converters in tools/ do.

A converter begins with the folder that tools/Convert_to_pb.py has written, and writes another one beside it, whole or
not at all.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3 import configs
from yolov3.calibration import CalibrationInputs, choose_pictures
from yolov3.checkpoint import ModelSpec, check_replaceable, find, read_about, read_model
from yolov3.checks import UserError, as_given, check_count, check_input_size, choose, project_path
from yolov3.heads import cfg_size, configured_network
from yolov3.loading import configured_model
from yolov3.networks import NETWORKS
from yolov3.runtimes import RUNTIMES, savedmodel
from yolov3.runtimes.common import CONVERSION, folder_name, folder_size, in_project, made_from, name_of
from yolov3.runtimes.onnx_parts.model import OUTPUTS
from yolov3.settings import ScriptParser, configured_names, write_settings
from yolov3.sizes import size_name

if TYPE_CHECKING:
    from yolov3.runtimes.tftrt_engines import Options


def make_parser(description: str | None) -> ScriptParser:
    """Return a parser with the option that every converter has."""
    parser = ScriptParser(description)
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was made from something else")
    return parser


def convert(framework: str, precision: str, options: Any, overwrite: bool) -> None:
    """Convert the SavedModel that configs.py means for another runtime, and print how it went.

    options  those of the runtime's `write`
    INT8 is calibrated on the pictures that configs.py names.
    """
    # 1. What to convert, and whether all that this needs is there
    started, runtime = time.monotonic(), RUNTIMES[framework].module
    runtime.check(precision, options)
    source, spec = read_source()
    target, folder = destination(source, spec, framework, precision, overwrite)
    inputs, facts = calibration_inputs(spec) if precision == "INT8" else (None, {})

    # 2. Write it and try it
    print(f"{in_project(source)}: {spec}")
    print("".join(f"{name.replace('_', ' ')}: {fact}\n" for name, fact in facts.items()), end="", flush=True)
    written = runtime.write(folder, source, target, options, inputs, facts)
    print(*written.lines, sep="\n", end="\n" * bool(written.lines))
    seconds = time.monotonic() - started
    print(f"within {written.worst:.1g} of TensorFlow on a picture; {folder_size(folder):.1f} MB, {seconds:.0f} s")
    write_settings(folder)
    print(f"written: {folder}")


def destination(
    source: Path, spec: ModelSpec, framework: str, precision: str, overwrite: bool
) -> tuple[ModelSpec, Path]:
    """Return the ModelSpec and the folder of a conversion. Raises UserError if one made from something else is there.

    source, spec  the SavedModel to convert
    """
    target = replace(spec, framework=framework, precision=precision)
    folder = project_path(configs.TRAIN_CHECKPOINTS_FOLDER) / folder_name(target, name_of(source, spec))
    check_replaceable(folder, None if overwrite else made_from(source))
    return target, folder


def read_source() -> tuple[Path, ModelSpec]:
    """Return the folder and ModelSpec of the SavedModel that configs.py means.

    Raises UserError if it is missing, incomplete, or of another type, size or classes than configs.py says.
    """
    configured, weights = configured_source()
    network = configured.network if configured else configured_network()
    if configured:
        name, size = name_of(weights, configured), configured.input_size
    else:
        named = CONVERSION.sub("", weights.name)
        name = network.name if named in NETWORKS else named
        size = cfg_size(network) if network.cfg else check_input_size(configs.YOLO_INPUT_SIZE)
    folder = project_path(configs.TRAIN_CHECKPOINTS_FOLDER) / f"{name}-{size_name(size)}"
    convert = "python tools/Convert_to_pb.py writes it"
    if not folder.exists():
        raise UserError(f"{folder} is missing: {convert}")
    spec = read_model(folder)
    wanted = network.name if configured or name == network.name else spec.name  # a trained model says it itself
    if (spec.framework, spec.name, spec.input_size) != ("tf", wanted, size):
        there = f"{spec.framework}, {spec.name} at {size_name(spec.input_size)}"
        ours = f"{wanted} at {size_name(size)}"
        raise UserError(f"{folder} is {there}, but yolov3/configs.py says {ours}: {convert} anew")
    if not (savedmodel.place(folder) / "saved_model.pb").exists():
        raise UserError(f"{folder} holds no saved_model.pb: {convert} anew")
    if configured and configured.classes != spec.classes:
        raise UserError(
            f"{folder}, made from {read_about(folder).get('made_from')}, has {len(spec.classes)} classes "
            f"({', '.join(spec.classes[:3])} ...), but those of yolov3/configs.py are {len(configured.classes)} "
            f"({', '.join(configured.classes[:3])} ...): {convert} anew with --overwrite"
        )
    if configs.YOLO_FEATURES and not spec.features:
        raise UserError(f"{folder} gives no features, but YOLO_FEATURES = True in yolov3/configs.py: {convert} anew")
    return folder, spec


def read_served(word: str | Path) -> tuple[Path, ModelSpec, dict[str, Any]]:
    """Return the path, ModelSpec and model.json of a folder with `detect_bytes`, or of its name under checkpoints/."""
    folder = find(as_given(word), configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
    spec, about = read_model(folder), read_about(folder)
    if not (savedmodel.place(folder) / "saved_model.pb").exists():
        raise UserError(f"{folder} holds no SavedModel: python tools/Convert_to_pb.py writes one")
    return folder, spec, about


def configured_source() -> tuple[ModelSpec | None, Path]:
    """Return the ModelSpec and the path of YOLO_CUSTOM_WEIGHTS or, without it, of the Darknet weights.

    The ModelSpec is None if they name a conversion that is not written yet.
    """
    name: Any = configs.YOLO_CUSTOM_WEIGHTS
    try:
        return configured_model(name, framework=None if name else "tf")
    except UserError:
        if any(f"-{framework}-" in str(name) for framework in RUNTIMES):
            return None, Path(name)
        raise


def calibration_inputs(spec: ModelSpec) -> tuple[CalibrationInputs, dict[str, Any]]:
    """Return the inputs that INT8 is to be calibrated on, by configs.py, and what model.json is to say of them."""
    source = configs.YOLO_CALIBRATION_IMAGES or configs.TRAIN_ANNOT_PATH
    if not configs.YOLO_CALIBRATION_IMAGES and spec.classes != configured_names():
        raise UserError(
            f"TRAIN_ANNOT_PATH = {source!r} shows classes of TRAIN_CLASSES, which this model does not have: name "
            "pictures like those it will see in YOLO_CALIBRATION_IMAGES in yolov3/configs.py"
        )
    paths = choose_pictures(source, configs.YOLO_CALIBRATION_COUNT, configs.YOLO_MAX_PIXELS)
    inputs = CalibrationInputs(paths, spec.input_size, spec.resize, configs.YOLO_MAX_PIXELS)
    return inputs, {"calibrated_on": str(source), "calibration_count": len(paths)}


def configured_trt_options() -> "Options":
    """Return the YOLO_TRT_ constants. Raises UserError if one is wrong."""
    from yolov3.runtimes.tftrt_engines import Options
    from yolov3.runtimes.trt import BACKENDS

    sizes = configs.YOLO_TRT_BATCH_SIZES
    if not isinstance(sizes, (tuple, list)) or not sizes:
        raise UserError(f"YOLO_TRT_BATCH_SIZES = {sizes!r} must be whole numbers in brackets: (1,) or (1, 8)")
    return Options(
        check_count("YOLO_TRT_WORKSPACE", configs.YOLO_TRT_WORKSPACE, 1),
        tuple(sorted({check_count("YOLO_TRT_BATCH_SIZES", size, 1) for size in sizes})),
        check_count("YOLO_TRT_MIN_SEGMENT", configs.YOLO_TRT_MIN_SEGMENT, 1),
        choose("YOLO_TRT_PORTABLE", configs.YOLO_TRT_PORTABLE, (True, False)),
        choose("YOLO_TRT_BACKEND", configs.YOLO_TRT_BACKEND, BACKENDS),
        configured_outputs(),
    )


def configured_outputs() -> str:
    """Return YOLO_ONNX_OUTPUTS. Raises UserError if it is wrong."""
    return choose("YOLO_ONNX_OUTPUTS", configs.YOLO_ONNX_OUTPUTS, OUTPUTS)
