"""The self-describing folder under checkpoints/: found, read, and written whole or not at all. No Keras here.

It holds model.json (what the model is: type, classes, anchors, ...) beside weights.npz (its arrays, in Darknet's order
and axes) or beside what a converter writes for a runtime.
"""

import json
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

from yolov3.checks import UserError, check_input_size, project_path
from yolov3.files import whole_folder
from yolov3.images import RESIZES
from yolov3.networks import NETWORKS, NMS_KINDS, Heads, network_name

import numpy as np

PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
SHOWN = 3  # classes that are named where a model is told in one line


@dataclass(frozen=True)
class ModelSpec:
    """What a detector is, apart from its weights."""

    type: str  # "yolov3" or "yolov4"
    tiny: bool
    classes: tuple  # their names
    input_size: int  # pixels
    resize: str  # "letterbox" or "stretch"
    heads: Heads
    framework: str = "tf"  # the runtime its folder is for, see frameworks.FRAMEWORKS
    precision: str = "FP32"
    features: bool = False  # whether the network answers the backbone's features, too

    @property
    def name(self):
        """One of the four: yolov3, yolov3-tiny, yolov4, yolov4-tiny."""
        return network_name(self.type, self.tiny)

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


def read_model(folder):
    """The model.json of a checkpoint folder -> Model."""
    about = read_about(folder)
    try:
        heads = Heads(**{key: _tuples(about[key]) for key in Heads._fields})
        about.setdefault("features", False)  # folders from before there were any
        facts = {field.name: _tuples(about[field.name]) for field in fields(ModelSpec) if field.name != "heads"}
        model = ModelSpec(**facts, heads=heads)
        _check(model)
        return model
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(_damaged(folder, error)) from None


def _check(model):
    """ValueError if a ModelSpec is none that this project writes."""
    heads, published = model.heads, NETWORKS[network_name(model.type, model.tiny)].heads
    check_input_size(model.input_size, "input_size")
    right = {
        "classes": model.classes and all(isinstance(name, str) for name in model.classes),
        "resize": model.resize in RESIZES,
        "strides": heads.strides == published.strides,
        "anchors": np.shape(heads.anchors) == np.shape(published.anchors),
        "scale_x_y": np.shape(heads.scale_x_y) == np.shape(published.scale_x_y),
        "nms": heads.nms in NMS_KINDS,
        "precision": model.precision in PRECISIONS,
        "features": model.features in (True, False),
    }
    for name, is_right in right.items():
        if not is_right:
            raise ValueError(f"{name} is wrong")


def read_about(folder):
    """The model.json of a checkpoint folder -> dict: all that a ModelSpec is, and how it was made."""
    try:
        about = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{folder} is no checkpoint folder of this project: it has no model.json") from None
    except ValueError as error:
        raise UserError(_damaged(folder, error)) from None
    if not isinstance(about, dict):
        raise UserError(_damaged(folder, TypeError("no object")))
    return about


def _damaged(folder, error):
    return f"{folder}/model.json is damaged ({type(error).__name__}: {error}): write the checkpoint again"


def is_weights(folder):
    """Whether a checkpoint folder holds weights, which run at any input size, and not a conversion."""
    return (Path(folder) / "weights.npz").exists()


def read_weights(folder):
    """The weights.npz of a checkpoint folder -> list of float32 arrays, for `darknet.load_arrays`."""
    file = Path(folder) / "weights.npz"
    try:
        with np.load(file) as arrays:
            return [arrays[f"arr_{i}"].astype(np.float32) for i in range(len(arrays))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file} cannot be read ({error}): write the checkpoint again") from None


def write_checkpoint(folder, model, arrays, made_from, dtype=np.float32):
    """Writes a checkpoint folder of weights; dtype float16 halves its size. Raises UserError, also rather than replace
    a folder that is no checkpoint."""
    check_replaceable(folder)
    with whole_folder(folder) as part:
        np.savez(part / "weights.npz", *(np.asarray(array, dtype) for array in arrays))
        write_about(part, model, made_from)


def write_about(folder, model, made_from, **more):
    """Writes model.json: the ModelSpec, what it was made from, and any more facts."""
    about = {**vars(model), **model.heads._asdict(), "made_from": made_from, **more}
    del about["heads"]
    (Path(folder) / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def check_replaceable(folder, made_from=None):
    """Refuses to write over what is no checkpoint or, if `made_from` is given, was made from something else."""
    path = project_path(folder)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / "model.json").exists():
        raise UserError(f"{folder} is no checkpoint, so it is not replaced: name another")
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
