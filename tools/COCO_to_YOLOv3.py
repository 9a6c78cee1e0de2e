"""COCO's JSON to an annotation file and a names file.

python tools/COCO_to_YOLOv3.py annotations/instances_val2017.json val2017/ --output model_data/val2017.txt

Crowds are left out. Classes are the categories in the order of their ids: COCO's 1 to 90 become 0 to 79.
"""

import json
import sys
from pathlib import Path

import _path
from yolov3.annotation_cli import finish, make_parser, parse
from yolov3.annotations import Record
from yolov3.checks import UserError, say_it_in_one_line

import numpy as np


def read_coco(path):
    """instances_*.json -> pictures {id: file name}, their boxes {id: [(category id, x, y, w, h)]}, names {id}."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pictures = {x["id"]: x["file_name"] for x in content["images"]}
        categories = {x["id"]: x["name"] for x in sorted(content["categories"], key=lambda x: x["id"])}
        boxes = {picture: [] for picture in pictures}
        for thing in content["annotations"]:
            if not thing.get("iscrowd"):
                boxes.setdefault(thing["image_id"], []).append((thing["category_id"], *map(float, thing["bbox"])))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no COCO file of boxes ({type(error).__name__}: {error})") from None
    return pictures, boxes, categories


def to_record(picture, boxes, classes):
    """COCO's x, y, width, height in pixels -> Record, xyxy."""
    numbers = np.array(boxes, np.float64).reshape(-1, 5)
    corners = np.concatenate([numbers[:, 1:3], numbers[:, 1:3] + numbers[:, 3:5]], 1)
    return Record(picture, corners.astype(np.float32), np.array([classes[x[0]] for x in boxes], np.int32))


@say_it_in_one_line
def main():
    parser = make_parser(__doc__)
    parser.add_argument("pictures", type=Path, help="folder of the pictures")
    arguments = parse(parser)
    pictures, boxes, categories = read_coco(arguments.source)
    if not arguments.pictures.is_dir():
        raise UserError(f"picture folder {arguments.pictures} is missing")

    classes = {category: i for i, category in enumerate(categories)}
    problems = [f"{len(boxes[x])} boxes of picture {x}: it is not listed" for x in boxes if x not in pictures]
    records = []
    for picture, name in pictures.items():
        known = [box for box in boxes[picture] if box[0] in classes]
        problems += [f"{name}: box of category {x[0]}, which is not listed" for x in boxes[picture] if x not in known]
        records.append(to_record((arguments.pictures / name).absolute(), known, classes))
    return finish(records, tuple(categories.values()), problems, arguments)


if __name__ == "__main__":
    sys.exit(main())
