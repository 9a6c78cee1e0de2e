"""Convert COCO's JSON to an annotation file and a names file.

python tools/COCO_to_YOLOv3.py annotations/instances_val2017.json val2017/ --output model_data/val2017.txt

Crowds are left out. Classes are the categories in the order of their ids: COCO's 1 to 90 become 0 to 79. --classes
gives another order, or only some of them.
"""

import json
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path

import _path
from yolov3.annotations.cli import annotation_parser, parse, write_converted
from yolov3.annotations.datasets import first_that, read_names, tails
from yolov3.annotations.format import read_text, shortened
from yolov3.annotations.picture_sizes import Labelled, declared_size
from yolov3.checks import UserError, check_class_names, say_it_in_one_line

import numpy as np


def read_coco(path: Path) -> tuple[list, list, list]:
    """Return the images, annotations and categories of a COCO file. Raises UserError if it is not one."""
    text = read_text(path, "COCO file")
    try:
        content = json.loads(text)
        parts = tuple(content[key] for key in ("images", "annotations", "categories"))
    except RecursionError:
        raise UserError(f"{path} is not a COCO file of boxes: it is nested too deeply") from None
    except KeyError as error:
        raise UserError(f"{path} is not a COCO file of boxes: it does not have {error}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not a COCO file of boxes: {error}") from None
    if not all(isinstance(part, list) for part in parts):
        raise UserError(f"{path} is not a COCO file of boxes: images, annotations and categories must be lists")
    return parts


def key_of(number: object) -> str | None:
    """Return an id as text, so that 1 and "1" are the same; None if it is not an id."""
    return str(number) if isinstance(number, (int, str)) and not isinstance(number, bool) else None


def known(things: list, field: str, what: str, problems: list[str]) -> dict[str, dict]:
    """Return the records with a unique id and a text in `field`, by their ids. Report the others in `problems`."""
    found = {}
    for number, thing in enumerate(things, 1):
        key = key_of(thing.get("id")) if isinstance(thing, dict) else None
        place = f"{what} {shortened(key)}" if key is not None else f"{what} number {number} of the file"
        if key is None:
            problems.append(f"{place} does not have an id")
        elif not isinstance(thing.get(field), str) or not thing[field].strip() or "\0" in thing[field]:
            problems.append(f"{place} does not have a {field}")
        elif key in found:
            problems.append(f"{place} is there twice")
        else:
            found[key] = thing
    return found


def number_classes(categories: dict[str, dict], used: Counter, names: tuple | None, path: Path) -> tuple[dict, tuple]:
    """Return the class number of each category id, and the class names in order: `names` or those of the file."""
    called = {key: " ".join(thing["name"].split()) for key, thing in categories.items()}
    if names is None:
        count = Counter(called.values())  # Roboflow writes a group without boxes, often with the name of its only class
        called = {key: name for key, name in called.items() if count[name] == 1 or used[key]}
        called = {key: called[key] for key in sorted(called, key=lambda key: (not _is_number(key), _order(key)))}
        names = tuple(called.values())
        check_class_names(names, f"{path}, categories by id")
    numbers = {name: i for i, name in enumerate(names)}
    return {key: numbers[name] for key, name in called.items() if name in numbers}, names


def _is_number(key):
    return key.isascii() and key.isdecimal()


def _order(key):
    return (len(key.lstrip("0")), key.lstrip("0")) if _is_number(key) else (0, key)  # by value, however long


def shown(value: object) -> str:
    """Return a value of the file, shortened to fit into a message."""
    try:
        return shortened(repr(value))
    except RecursionError:
        return "(nested too deeply)"


def box_of(thing: dict) -> tuple[list[float], bool]:
    """Return an annotation's box (x1, y1, x2, y2) in pixels, and whether it is the box of its polygon.

    Raises ValueError if it has neither.
    """
    box = _numbers(thing.get("bbox"))
    if len(box) == 4:
        x, y, width, height = box
        return [x, y, x + width, y + height], False
    polygons = thing.get("segmentation")
    points = [_numbers(polygon) for polygon in polygons] if isinstance(polygons, list) else []
    points = [polygon for polygon in points if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not points:
        raise ValueError(f"bbox {shown(thing.get('bbox'))} is not four numbers")
    x, y = (sum((polygon[start::2] for polygon in points), []) for start in (0, 1))
    return [min(x), min(y), max(x), max(y)], True


def _numbers(values):
    """Return `values` as floats, or an empty list if it is not a list of finite numbers."""
    try:
        numbers = [float(x) for x in values] if isinstance(values, list) else []
    except (TypeError, ValueError, OverflowError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def picture_path(folder: Path, name: str) -> Path:
    """Return the path of a picture that a COCO file names, whether it exists or not."""
    return first_that(Path.is_file, tails(name, [folder])) or folder / name


@say_it_in_one_line
def main() -> int:
    parser = annotation_parser(__doc__, "the categories of the file, by id")
    parser.add_argument("pictures", type=Path, help="folder that holds the pictures")
    arguments = parse(parser)
    if not arguments.pictures.is_dir():
        raise UserError(f"picture folder {arguments.pictures} is missing")
    source = arguments.source
    images, annotations, categories = read_coco(source)
    problems, notes = [], []
    pictures = known(images, "file_name", "image", problems)
    wrong = problems if arguments.classes else []
    categories = known(categories, "name", "category", wrong)
    if wrong and not arguments.classes:
        raise UserError(f"{source}: {wrong[0]}: its classes cannot be numbered: correct it, or give --classes")

    used = Counter(key_of(x.get("category_id")) for x in annotations if isinstance(x, dict))
    names = read_names(arguments.classes) if arguments.classes else None
    classes, names = number_classes(categories, used, names, source)
    boxes, labels, unwanted, crowds, polygons = defaultdict(list), defaultdict(list), Counter(), 0, 0
    for number, thing in enumerate(annotations, 1):
        if not isinstance(thing, dict):
            problems.append(f"annotation number {number} of the file is not a record")
            continue
        place = f"annotation {shown(thing['id'])}" if "id" in thing else f"annotation number {number}"
        image, category = key_of(thing.get("image_id")), key_of(thing.get("category_id"))
        if thing.get("iscrowd") not in (None, 0, "0", False):
            crowds += 1
        elif image not in pictures:
            problems.append(f"{place}: its picture {shown(thing.get('image_id'))} is not listed")
        elif category not in categories:
            problems.append(f"{place}: its category {shown(thing.get('category_id'))} is not listed")
        elif category not in classes:
            unwanted[categories[category]["name"]] += 1
        else:
            try:
                box, is_polygon = box_of(thing)
            except ValueError as error:
                problems.append(f"{place}: {error}")
                continue
            boxes[image].append(box)
            labels[image].append(classes[category])
            polygons += is_polygon
    problems += [f"{n} boxes of {name}: not in {arguments.classes}" for name, n in unwanted.items()]
    notes += [f"{crowds} crowds (iscrowd) are left out"] if crowds else []
    notes += [f"{polygons} annotations without a bbox have the box of their polygon"] if polygons else []

    found = []
    for key, image in pictures.items():
        place, size = f"image {shortened(key)}", declared_size(image.get("width"), image.get("height"))
        picture = picture_path(arguments.pictures.absolute(), image["file_name"])
        numbers = np.array(boxes[key], np.float64).reshape(-1, 4)
        found.append(Labelled(picture, numbers, np.array(labels[key], np.int32), place, size))
    inputs = [arguments.classes] if arguments.classes else []
    return write_converted(found, names, problems, notes, arguments, inputs)


if __name__ == "__main__":
    sys.exit(main())
