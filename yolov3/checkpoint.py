"""Find, read and write the self-describing folders under checkpoints/, without Keras.

Each holds model.json (what the model is: type, classes, anchors, ...) beside weights.npz (its arrays, in Darknet's
order and axes) or beside what a converter writes for a runtime. It is written whole or not at all.
"""

import functools
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from yolov3.cfg.network import network_of
from yolov3.cfg.sections import read_text
from yolov3.cfg.write import rewrite
from yolov3.checks import UserError, are_like, check_class_names, check_input_size, project_path, read_file
from yolov3.files import whole_folder
from yolov3.fitting import RESIZES
from yolov3.networks import (
    BETA_NMS,
    LARGEST_ANCHOR,
    MOST_BETA_NMS,
    NETWORKS,
    NMS_KINDS,
    Heads,
    Network,
    network_name,
)

import numpy as np

PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
CFG = "network.cfg"  # in the folder of a network that came from one
MOST_CLASSES = 100_000
LARGEST_SCALE = 10  # scale_x_y
MOST_JSON = 2**26  # bytes of model.json
BEFORE = {"features": False, "beta_nms": BETA_NMS, "new_coords": False, "cfg": None}  # of folders that do not say
SHOWN = 3  # classes that are named where a model is described in one line


@dataclass(frozen=True)
class ModelSpec:
    """Describe a detector, except for its weights."""

    type: str  # "yolov3" or "yolov4"; or the name of the cfg
    tiny: bool
    classes: tuple[str, ...]  # their names
    input_size: int  # pixels
    resize: str  # "letterbox" or "stretch"
    heads: Heads
    framework: str = "tf"  # the runtime that its folder is for, see `runtimes.RUNTIMES`
    precision: str = "FP32"
    features: bool = False  # whether the network returns the embedding map too
    cfg: str | None = None  # the text of its Darknet cfg; None: it is one of the four

    @property
    def network(self) -> Network:
        """Return its row of the table of networks, or the network of its cfg."""
        if self.cfg is None:
            return NETWORKS[network_name(self.type, self.tiny)]
        return network_of(self.cfg, Path(CFG), self.type)

    @property
    def name(self) -> str:
        """Return the name of the network: yolov3, yolov3-tiny, yolov4 or yolov4-tiny, or that of the cfg."""
        return self.network.name

    def __str__(self) -> str:
        """Return a line like: yolov3-tiny, 80 classes (person, bicycle, car ...), tf FP32, 416 letterbox"""
        classes = ", ".join(self.classes[:SHOWN]) + (" ..." if len(self.classes) > SHOWN else "")
        kind = f"{self.framework} {self.precision}, {self.input_size} {self.resize}"
        return f"{self.name}, {len(self.classes)} class{'es' * (len(self.classes) > 1)} ({classes}), {kind}"


def find(name: str | Path, tiny: bool, folder: str | Path) -> Path:
    """Return the file or folder that YOLO_CUSTOM_WEIGHTS names by its path, or by a bare name under `folder`.

    The mark of a tiny network may be left out: yolo_custom also finds yolo_custom_Tiny, which is preferred if `tiny`;
    if `tiny`, yolov4-416 also finds yolov4-tiny-416. Raises UserError, with a list of what is there.
    """
    path = Path(str(name))
    candidates = [path]
    if path.name:
        candidates.append(path.with_name(f"{path.name}_Tiny"))
    if tiny and path.name:  # preferred, since a full network of the plain name may be there too
        inserted = path.name.replace("yolov4-", "yolov4-tiny-").replace("yolov3-", "yolov3-tiny-")
        candidates = [candidates[1], path.with_name(inserted), path]
    for candidate in candidates:
        for place in (project_path(candidate), project_path(folder) / candidate):
            if place.exists():
                return place
    there = sorted(x.name for x in project_path(folder).glob("[!.]*") if x.is_dir())
    raise UserError(
        f"{name} is not there; {folder}/ holds {', '.join(there) or 'nothing'}: "
        "name a checkpoint or a .weights file in YOLO_CUSTOM_WEIGHTS in yolov3/configs.py"
    )


def read_model(folder: str | Path) -> ModelSpec:
    """Return the ModelSpec in the model.json of a checkpoint folder. Raises UserError if it is damaged."""
    about = {**BEFORE, **read_about(folder)}
    if about["cfg"] is not None:
        about["cfg"] = read_text(Path(folder) / CFG, "write the checkpoint again")
        network_of(about["cfg"], Path(folder) / CFG, str(about.get("type")))
    try:
        heads = Heads(**{key: _tuples(about[key]) for key in Heads._fields})
        facts = {field.name: _tuples(about[field.name]) for field in fields(ModelSpec) if field.name != "heads"}
        spec = ModelSpec(**facts, heads=heads)
        _check(spec)
        return spec
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(_damaged(folder, error)) from None


def _check(spec):
    """Raise ValueError if this project would not write such a ModelSpec."""
    heads, published = spec.heads, spec.network.heads
    check_input_size(spec.input_size, "input_size", spec.network.multiple)
    right = {
        "classes": isinstance(spec.classes, tuple) and 0 < len(spec.classes) <= MOST_CLASSES,
        "resize": spec.resize in RESIZES,
        "strides": heads.strides == published.strides,
        "anchors": are_like(heads.anchors, published.anchors, LARGEST_ANCHOR),
        "scale_x_y": are_like(heads.scale_x_y, published.scale_x_y, LARGEST_SCALE),
        "nms": heads.nms in NMS_KINDS,
        "beta_nms": type(heads.beta_nms) in (int, float) and 0 <= heads.beta_nms <= MOST_BETA_NMS,
        "new_coords": heads.new_coords == published.new_coords,
        "precision": spec.precision in PRECISIONS,
        "features": spec.features in (True, False),
    }
    for name, is_right in right.items():
        if not is_right:
            raise ValueError(f"{name} is wrong")
    if not all(isinstance(name, str) for name in spec.classes):
        raise ValueError("classes are not all names")
    check_class_names(spec.classes, "classes")


def read_about(folder: str | Path) -> dict[str, Any]:
    """Return the model.json of a checkpoint folder: its ModelSpec, and how it was made. Raises UserError."""
    file = Path(folder) / "model.json"
    if not file.exists():
        raise UserError(f"{folder} is not a checkpoint folder of this project: it has no model.json")
    try:
        about = json.loads(read_file(file, MOST_JSON, "checkpoint").decode("utf-8"))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(_damaged(folder, error)) from None
    if not isinstance(about, dict):
        raise UserError(_damaged(folder, TypeError("not an object")))
    return about


def _damaged(folder, error):
    return f"{folder}/model.json is damaged ({type(error).__name__}: {error}): write the checkpoint again"


def is_weights(folder: str | Path) -> bool:
    """Return whether a checkpoint folder holds weights, which run at any input size, and not a conversion."""
    return (Path(folder) / "weights.npz").exists()


def read_weights(folder: str | Path, shapes: Iterable[tuple[int, ...]]) -> list[np.ndarray]:
    """Return the weights.npz of a checkpoint folder as float32 arrays, for `darknet.load_arrays`. Raises UserError.

    shapes  those of the network. They are compared with the headers in the file before anything is read, so that a
            damaged or malicious file cannot make us use more memory than the network needs.
    """
    file = Path(folder) / "weights.npz"
    expected = {f"arr_{i}": shape for i, shape in enumerate(shapes)}
    try:
        check_shapes(read_headers(file, len(expected)), expected)
        arrays = read_arrays(file, expected)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({error}): it is damaged or does not belong to its model.json; write it again"
        ) from None
    return [arrays[name].astype(np.float32) for name in expected]


def damage_is_a_value_error(function: Callable) -> Callable:
    """Decorate what reads an .npz file: it raises ValueError for damage, for which zipfile, zlib and NumPy have some
    ten classes, and OSError for a file that cannot be opened."""

    @functools.wraps(function)
    def read(file, *args):
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file} is not a file" if Path(file).exists() else f"{file} is missing")
        try:
            return function(file, *args)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None

    return read


@damage_is_a_value_error
def read_headers(file: Path, most: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return {name: (shape, dtype)} of the arrays in an .npz file of at most `most` arrays, without reading them."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    headers = {}
    with zipfile.ZipFile(file) as archive:
        if len(archive.namelist()) > most:
            raise ValueError(f"it holds {len(archive.namelist())} arrays, more than the {most} of the network")
        for name in (name.removesuffix(".npy") for name in archive.namelist()):
            with archive.open(f"{name}.npy") as member:
                version = np.lib.format.read_magic(member)
                if version not in readers:
                    raise ValueError(f"array {name} is of version {version}")
                shape, _, dtype = readers[version](member)
                headers[name] = shape, dtype
    return headers


def check_shapes(headers: Mapping[str, tuple], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless an .npz file with those headers holds just the arrays {name: shape}, of numbers."""
    if set(headers) != set(shapes):
        raise ValueError(f"it holds {len(headers)} arrays, not the {len(shapes)} of the network")
    for name, (shape, dtype) in headers.items():
        if shape != tuple(shapes[name]) or dtype.kind not in "fiu":
            raise ValueError(f"array {name} is {dtype} {shape}, where the network has {tuple(shapes[name])}")


@damage_is_a_value_error
def read_arrays(file: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return {name: array} of an .npz file whose headers have been checked."""
    with np.load(file) as arrays:
        return {name: arrays[name] for name in names}


def write_checkpoint(
    folder: str | Path, spec: ModelSpec, arrays: Iterable[np.ndarray], made_from: str, dtype: Any = np.float32
) -> None:
    """Write a checkpoint folder of weights; dtype float16 halves its size.

    Raises UserError if it cannot be written, or would replace a folder that is not a checkpoint.
    """
    check_replaceable(folder)
    with whole_folder(Path(folder)) as part:
        np.savez(part / "weights.npz", *(np.asarray(array, dtype) for array in arrays))
        write_about(part, spec, made_from)


def write_about(folder: str | Path, spec: ModelSpec, made_from: str, **more: Any) -> None:
    """Write model.json: the ModelSpec, what the folder was made from, and more facts by name; and beside it the cfg of
    a network that came from one."""
    about = {**vars(spec), **spec.heads._asdict(), "made_from": made_from, **more}
    del about["heads"]
    if spec.cfg is not None:
        (Path(folder) / CFG).write_text(own_cfg(spec), encoding="utf-8")
        about["cfg"] = CFG
    (Path(folder) / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def own_cfg(spec: ModelSpec) -> str:
    """Return the text of the cfg of a model that came from one, with its own anchors, classes and input size."""
    size = (spec.input_size, spec.input_size)
    return rewrite(spec.network.cfg, spec.heads, len(spec.classes), size)


def check_replaceable(folder: str | Path, made_from: str | None = None) -> None:
    """Raise UserError if a folder is not a checkpoint or, with `made_from`, was made from something else."""
    path = project_path(folder)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / "model.json").exists():
        raise UserError(f"{folder} is not a checkpoint, so it is not replaced: name another")
    if made_from is None:
        return
    try:
        there = read_about(path).get("made_from")
    except UserError as error:
        raise UserError(f"{error}; --overwrite replaces it") from None
    if there != made_from:
        raise UserError(f"{folder} was made from {there}, not from {made_from}: give --overwrite to replace it")


def _tuples(x):
    return tuple(map(_tuples, x)) if isinstance(x, list) else x
