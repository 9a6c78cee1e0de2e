"""The files that describe a data set of Darknet labels: Darknet's obj.data and the data.yaml of YOLOv5 and Roboflow."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from yolov3.annotations.format import read_text
from yolov3.checks import UserError, as_given, check_class_names, project_path, read_class_names

import yaml

YAML = (".yaml", ".yml")
DATA = (".data",)
SUBSETS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def read_dataset(path: Path) -> dict:
    """Return the keys of an obj.data or data.yaml, values as they stand: str, list or dict of str."""
    text = read_text(path, "data set file")
    if path.suffix.lower() in DATA:
        lines = (line.split("#")[0].partition("=") for line in text.split("\n"))
        return {key.strip(): value.strip() for key, sign, value in lines if sign}
    try:
        content = yaml.load(text, yaml.BaseLoader)  # everything stays text: a class may be called `no` or 1.10
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not YAML{f': see line {mark.line + 1}' if mark else ''}") from None
    except (RecursionError, ValueError):
        raise UserError(f"{path} is not YAML of a data set") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not YAML of a data set: it must have the keys names and train")
    return content


def read_names(path: str | Path) -> tuple[str, ...]:
    """Return the class names of a names file, a data.yaml or an obj.data. Raises UserError if there are none."""
    file = project_path(as_given(path))
    if file.suffix.lower() in DATA:
        word = read_dataset(file).get("names", "")
        names_file = first_that(Path.is_file, tails(word, around(file))) if word else None
        if not names_file:
            raise UserError(f"{path} names the names file {word!r}, which is missing: name it with --classes")
        return read_class_names(names_file)
    if file.suffix.lower() not in YAML:
        return read_class_names(as_given(path))
    names = read_dataset(file).get("names")
    if isinstance(names, dict):
        numbers = {str(i): None for i in range(len(names))}
        if names.keys() != numbers.keys():
            raise UserError(f"{path}: the numbers of its names are not 0 to {len(names) - 1}, each once")
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} has no list of names: write names: [name, name]")
    names = tuple(name.strip() for name in names)
    check_class_names(names, path)
    return names


def subset_words(content: dict, subset: str) -> list[str]:
    """Return the folders or lists of a subset ("train", "val", "test") as a data set file names them."""
    value = next((content[key] for key in SUBSETS[subset] if content.get(key)), None)
    words = value if isinstance(value, list) else [value]
    return [word for word in words if isinstance(word, str) and word]


def around(file: Path) -> list[Path]:
    """Return the folder of a file and the two above it, where what the file names may be."""
    return list(file.resolve().parents)[:3]


def tails(word: str, folders: Sequence[Path], ran_in: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield where a path that was written on this or another machine may be, the likeliest first.

    The path as it stands, in `ran_in` and the folders, then ever shorter ends of it in the folders: D:/set/train/1.jpg
    is tried as D:/set/train/1.jpg, set/train/1.jpg, train/1.jpg and 1.jpg.
    """
    for root in (*ran_in, *folders):
        yield root / word
    parts = [x for x in PurePosixPath(word.replace("\\", "/")).parts if x not in ("/", "..")]
    for first in range(len(parts)):
        for root in folders:
            yield root.joinpath(*parts[first:])


def first_that(is_there: Callable[[Path], bool], paths: Iterator[Path]) -> Path | None:
    """Return the first path of which is_there(path) holds; names that the system refuses are not there."""
    for path in paths:
        try:
            if is_there(path):
                return path
        except (OSError, ValueError):
            continue
    return None
