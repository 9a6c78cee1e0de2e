"""The self-describing folder under checkpoints/: found, read, and written whole or not at all. No Keras here.

It holds model.json (what the model is: type, classes, anchors, ...) beside weights.npz (its arrays, in Darknet's order
and axes) or beside what a converter writes for a runtime.
"""

import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

from yolov3.cfg import read_text
from yolov3.cfg_network import network_of
from yolov3.cfg_write import rewrite
from yolov3.checks import UserError, are_like, check_class_names, check_input_size, project_path, read_file
from yolov3.files import whole_folder
from yolov3.images import RESIZES
from yolov3.networks import LARGEST_ANCHOR, NETWORKS, NMS_KINDS, Heads, Network, network_name

import numpy as np

PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
CFG = "network.cfg"  # in the folder of a network that came from one
MOST_CLASSES = 100_000
LARGEST_SCALE = 10  # scale_x_y
MOST_JSON = 2**26  # bytes of model.json
SHOWN = 3  # classes that are named where a model is told in one line


@dataclass(frozen=True)
class ModelSpec:
    """What a detector is, apart from its weights."""

    type: str  # "yolov3" or "yolov4"; or the name of the cfg
    tiny: bool
    classes: tuple  # their names
    input_size: int  # pixels
    resize: str  # "letterbox" or "stretch"
    heads: Heads
    framework: str = "tf"  # the runtime its folder is for, see frameworks.FRAMEWORKS
    precision: str = "FP32"
    features: bool = False  # whether the network answers the backbone's features, too
    cfg: str | None = None  # the text of its Darknet cfg; None: it is one of the four

    @property
    def network(self) -> Network:
        """Its row of the table of networks, or the network of its cfg."""
        if self.cfg is None:
            return NETWORKS[network_name(self.type, self.tiny)]
        return network_of(self.cfg, Path(CFG), self.type)

    @property
    def name(self):
        """One of the four: yolov3, yolov3-tiny, yolov4, yolov4-tiny; or the name of the cfg."""
        return self.network.name

    def __str__(self):
        """yolov3-tiny, 80 classes (person, bicycle, car ...), tf FP32, 416 letterbox"""
        classes = ", ".join(self.classes[:SHOWN]) + (" ..." if len(self.classes) > SHOWN else "")
        kind = f"{self.framework} {self.precision}, {self.input_size} {self.resize}"
        return f"{self.name}, {len(self.classes)} class{'es' * (len(self.classes) > 1)} ({classes}), {kind}"


def find(name, tiny, folder):
    """What YOLO_CUSTOM_WEIGHTS names -> Path of a file or folder: a path, or a bare name under `folder`.

    A tiny network's part of the name may be left out: yolo_custom finds yolo_custom_Tiny, which goes before
    yolo_custom if `tiny`, else behind it; if `tiny`, yolov4-416 finds yolov4-tiny-416, too. Raises UserError that lists
    what is there.
    """
    path = Path(str(name))
    candidates = [path]
    if path.name:
        candidates.append(path.with_name(f"{path.name}_Tiny"))
    if tiny and path.name:  # its own name first: a full network of that name may be there too
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


def read_model(folder) -> ModelSpec:
    """Return what the model.json of a checkpoint folder says. Raises UserError if it is damaged."""
    about = {"features": False, "new_coords": False, "cfg": None, **read_about(folder)}  # older folders do not say
    if about["cfg"] is not None:
        about["cfg"] = read_text(Path(folder) / CFG)
        network_of(about["cfg"], Path(folder) / CFG, str(about.get("type")))
    try:
        heads = Heads(**{key: _tuples(about[key]) for key in Heads._fields})
        facts = {field.name: _tuples(about[field.name]) for field in fields(ModelSpec) if field.name != "heads"}
        spec = ModelSpec(**facts, heads=heads)
        _check(spec, folder)
        return spec
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(_damaged(folder, error)) from None


def _check(spec, folder):
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


def read_about(folder) -> dict:
    """Return the model.json of a checkpoint folder: all that a ModelSpec is, and how it was made. Raises UserError."""
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


def is_weights(folder):
    """Whether a checkpoint folder holds weights, which run at any input size, and not a conversion."""
    return (Path(folder) / "weights.npz").exists()


def read_weights(folder, shapes) -> list[np.ndarray]:
    """Return the weights.npz of a checkpoint folder as float32 arrays, for `darknet.load_arrays`.

    shapes  what a network takes. They are compared with the headers in the file before anything is read, so that a
    damaged or malicious file cannot ask for more memory than the network has. Raises UserError.
    """
    file = Path(folder) / "weights.npz"
    expected = {f"arr_{i}": shape for i, shape in enumerate(shapes)}
    try:
        arrays = read_arrays(file, expected)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({error}): it is damaged or not of its model.json; write it again"
        ) from None
    return [arrays[name].astype(np.float32) for name in expected]


def read_arrays(file, shapes, others=frozenset()) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, {name: array}: numbers of those shapes, {name: shape}, or strings of shape ().

    others  shapes that arrays of other names may have
    Raises ValueError, before an array is read, if the file is damaged or has others; OSError if it cannot be opened.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is not a file" if Path(file).exists() else f"{file} is missing")
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if not set(shapes) <= set(names) or (set(names) != set(shapes) and not others):
                raise ValueError(f"it holds {len(names)} arrays, not the {len(shapes)} of the network")
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    _check_header(member, {tuple(shapes[name])} if name in shapes else others, name)
        with np.load(file) as arrays:
            return {name: arrays[name] for name in names}
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy have some ten classes for damage
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _check_header(member, allowed, name):
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array {name} is of version {version}")
    found, _, dtype = readers[version](member)
    is_text = found == () and dtype.kind == "U" and dtype.itemsize <= MOST_JSON
    if found not in allowed or not (is_text or dtype.kind in "fiu"):
        raise ValueError(f"array {name} is {dtype} {found}, where the network has {' or '.join(map(str, allowed))}")


def write_checkpoint(folder, model, arrays, made_from, dtype=np.float32):
    """Writes a checkpoint folder of weights; dtype float16 halves its size. Raises UserError, also rather than replace
    a folder that is no checkpoint."""
    check_replaceable(folder)
    with whole_folder(folder) as part:
        np.savez(part / "weights.npz", *(np.asarray(array, dtype) for array in arrays))
        write_about(part, model, made_from)


def write_about(folder, model, made_from, **more):
    """Writes model.json: the ModelSpec, what it was made from, and any more facts; and the cfg of a network that came
    from one, as it is run here."""
    about = {**vars(model), **model.heads._asdict(), "made_from": made_from, **more}
    del about["heads"]
    if model.cfg is not None:
        (Path(folder) / CFG).write_text(own_cfg(model), encoding="utf-8")
        about["cfg"] = CFG
    (Path(folder) / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def own_cfg(model):
    """The text of the cfg of a ModelSpec that came from one, with its own anchors, classes and input size."""
    size = (model.input_size, model.input_size)
    return rewrite(model.network.cfg, model.heads, len(model.classes), size)


def check_replaceable(folder, made_from=None):
    """Refuses to write over what is no checkpoint or, if `made_from` is given, was made from something else."""
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
