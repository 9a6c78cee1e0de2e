"""Read annotations for the scripts, and give the converters their command line and their output."""

import argparse
import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from yolov3 import configs
from yolov3.annotations.datasets import read_names
from yolov3.annotations.format import (
    Checked,
    Record,
    annotation_text,
    check_annotations,
    draw_share,
    format_record,
    parse_line,
    read_size,
)
from yolov3.annotations.picture_sizes import Labelled, fitted
from yolov3.checks import UserError, check_class_names, printable, project_path
from yolov3.files import check_writable, whole_file
from yolov3.settings import ScriptParser

from tqdm import tqdm

PARTS = "train", "test"  # what --split makes
SPLIT_SEED = 0
CLASSES_TOLD = 200  # of a longer list only those with boxes are printed


def annotation_parser(description: str | None, otherwise: str, subsets: str = "") -> ScriptParser:
    """Return a parser with the options that every converter has.

    otherwise  what --classes is if it is left out
    subsets    what a WORD of --set names, if anything
    """
    parser = ScriptParser(description, subsets)
    parser.add_argument("source", type=Path, help="what to convert")
    parser.add_argument("--output", type=Path, metavar="PATH", help="annotation file to write (model_data/SOURCE.txt)")
    parser.add_argument("--names", type=Path, metavar="PATH", help="names file to write (beside the output, .names)")
    parser.add_argument("--classes", type=Path, metavar="NAMES", help=f"names file or data.yaml ({otherwise})")
    about_split = (
        "write this share of the pictures, drawn at random, to OUTPUT_train.txt and the others to OUTPUT_test.txt"
    )
    parser.add_argument("--split", type=float, metavar="0.8", help=about_split)
    return parser


def parse(parser: ScriptParser) -> argparse.Namespace:
    """Parse the command line and fill in the outputs that it leaves out.

    Raises UserError if the source is missing, or if an output cannot be written or is an input.
    """
    arguments = parser.parse_args()
    if not _exists(arguments.source):
        raise UserError(f"{printable(arguments.source)} is missing: name what is to be converted")
    subset = f"_{arguments.subset}" if getattr(arguments, "subset", None) else ""
    default = project_path("model_data") / f"{arguments.source.resolve().stem}{subset}.txt"
    arguments.output = (arguments.output or default).absolute()
    arguments.names = (arguments.names or arguments.output.with_suffix(".names")).absolute()
    if arguments.split is not None and not 0 < arguments.split < 1:
        raise UserError(f"--split {arguments.split:g} must be a share between 0 and 1: 0.8, for example")
    stem, suffix = arguments.output.stem, arguments.output.suffix
    arguments.parts = [arguments.output.with_name(f"{stem}_{part}{suffix}") for part in PARTS]
    if arguments.split is None:
        arguments.parts = [arguments.output]
    if _identity(arguments.names) in map(_identity, arguments.parts):
        raise UserError(f"--output and --names are both {arguments.names}: name two files")
    for path, option in _outputs(arguments):
        if path.is_dir():
            raise UserError(f"output {path} is a folder: name a file with {option}")
        check_writable(path.parent)
    check_apart(arguments, [arguments.source, *([arguments.classes] if arguments.classes else [])])
    return arguments


def check_apart(arguments: argparse.Namespace, inputs: Iterable[Path]) -> None:
    """Raise UserError if an output is one of the inputs, by whatever link or name."""
    outputs = {_identity(path): option for path, option in _outputs(arguments)}
    for path in inputs:
        if option := outputs.get(_identity(path)):
            raise UserError(f"output {path} is an input: name another file with {option}")


def _outputs(arguments):
    """Return the files to write, each with the option that names it."""
    return [*((path, "--output") for path in arguments.parts), (arguments.names, "--names")]


def _exists(path):
    try:
        return path.exists()
    except OSError:
        return False


def _identity(path):
    """Return a value that is the same for all names of one file."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except (OSError, ValueError):
        return str(path.absolute())


def write_converted(
    found: Iterable[Labelled],
    names: Sequence[str],
    problems: list[str],
    notes: list[str],
    arguments: argparse.Namespace,
    inputs: Iterable[Path] = (),
) -> int:
    """Check what a converter found against the pictures, write annotations and names, and report what was done.

    problems  what was left out already, each with its place
    notes     what else the user must know
    inputs    files that were read besides the pictures; an output must not be one of them

    Return the exit code 0. Raises UserError if nothing is left to write.
    """
    check_class_names(names, arguments.source)
    found = list(found)
    check_apart(arguments, itertools.chain(inputs, (one.picture for one in found)))
    checked, folder = Checked(problems=problems), arguments.output.parent
    changes: Counter[str] = Counter()
    seen: dict = {}
    for one in tqdm(found, unit=" pictures", disable=None, delay=1):
        try:
            size = read_size(one.picture, configs.YOLO_MAX_PIXELS)
            record, change = fitted(one, size)
            changes[change] += 1
            _check_path(record, folder)
        except (UserError, ValueError) as error:
            checked.problems.append(f"{one.place}: {error}")
            continue
        first = seen.setdefault(record.picture.resolve(), one.place)
        if first is one.place:
            checked.add(record, len(names), configs.YOLO_MAX_PIXELS, one.place)
        else:
            checked.problems.append(f"{one.place}: picture {one.picture} is already that of {first}")
    tell_left_out(checked.problems)
    if not checked.records:
        raise UserError(f"{arguments.source} holds no picture that can be used: nothing is written")
    if checked.problems and not any(len(record.classes) for record in checked.records):
        raise UserError(f"{arguments.source} holds no box that can be used: nothing is written")
    notes = [*notes, *(change.format(count) for change, count in changes.items() if change), *_unlike_configs(names)]
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    parts, texts = _split(checked.records, arguments), {arguments.names: "".join(f"{name}\n" for name in names)}
    texts |= {path: annotation_text(records, path.parent) for path, records in parts.items()}
    with contextlib.ExitStack() as all_or_none:
        for path, text in texts.items():
            all_or_none.enter_context(whole_file(path)).write_text(text, encoding="utf-8")
    print(describe_data_set(checked, names))
    for path, records in parts.items() if arguments.split else ():
        print(f"{path.name}: {describe_boxes(records, names)}")
    for path in (*parts, arguments.names):
        print(f"written: {path}")
    return 0


def _split(records, arguments):
    """Return the records of each annotation file to write. Raises UserError if one would have no box."""
    if arguments.split is None:
        return {arguments.output: records}
    drawn = set(draw_share(records, 1 - arguments.split, SPLIT_SEED))
    parts = ([one for i, one in enumerate(records) if (i in drawn) == wanted] for wanted in (False, True))
    found = dict(zip(arguments.parts, parts, strict=True))
    if not all(any(len(one.classes) for one in part) for part in found.values()):
        raise UserError(f"--split {arguments.split:g} takes at least two pictures with boxes: nothing is written")
    return found


def _check_path(record, folder):
    """Raise ValueError if a line of an annotation file cannot hold the path of the picture."""
    line = format_record(record._replace(boxes=record.boxes[:0], classes=record.classes[:0]), folder)
    try:
        line.encode("utf-8")
        kept = len(line.splitlines()) == 1 and parse_line(line, folder).picture == record.picture.absolute()
    except ValueError:
        kept = False
    if not kept:
        raise ValueError("an annotation file cannot hold this name: rename the picture")


def _unlike_configs(names):
    """Return a warning if the classes are not numbered as in TRAIN_CLASSES, as a list of one or no line."""
    try:
        configured = read_names(configs.TRAIN_CLASSES)
    except UserError:  # the file does not exist yet
        configured = ()
    if configured and tuple(names) != tuple(configured):
        return [
            f"the classes differ from TRAIN_CLASSES = {configs.TRAIN_CLASSES!r}: to train on them name the new names "
            "file there; convert all sets of one training with the same --classes, so that they number them alike"
        ]
    return []


def describe_data_set(checked: Checked, names: Sequence[str]) -> str:
    """Return how many pictures, boxes of each class and problems a data set has, in words."""
    problems = f"{checked.clipped} boxes clipped to their picture, {len(checked.problems)} problems"
    return f"{describe_boxes(checked.records, names)}\n{problems}"


def describe_boxes(records: Sequence[Record], names: Sequence[str]) -> str:
    """Return how many pictures and boxes of each class there are, in words."""
    per_class = Counter(itertools.chain.from_iterable(record.classes.tolist() for record in records))
    told = [i for i in range(len(names)) if len(names) <= CLASSES_TOLD or per_class[i]]
    background = sum(not len(record.classes) for record in records)
    total = f"{len(records)} pictures, {background} of them background, {per_class.total()} boxes"
    return "\n".join([total, *(f"  {names[i]}: {per_class[i]}" for i in told)])


def read_pictures(path: str | Path, class_count: int) -> Checked:
    """Return what can be used of an annotation file and print what is left out. Raises UserError if no box is left."""
    checked = check_annotations(path, class_count, configs.YOLO_MAX_PIXELS)
    tell_left_out(checked.problems)
    if not any(len(record.classes) for record in checked.records):
        raise UserError(f"{path} has no box that can be used: python tools/Check_annotations.py says why")
    return checked


def tell_left_out(problems: Iterable[str]) -> None:
    """Print what is left out, one line each."""
    for problem in problems:
        print(f"left out: {printable(problem)}", file=sys.stderr)


def check_names(of_model: Sequence[str], annotated: Sequence[str], place: str | Path | None = None) -> None:
    """Raise UserError if the classes of a model differ from those of the annotations.

    place  the names file of the annotations; None means TRAIN_CLASSES
    """
    place = place or f"TRAIN_CLASSES = {configs.TRAIN_CLASSES!r}"
    pairs = enumerate(itertools.zip_longest(of_model, annotated, fillvalue="nothing"))
    for number, (ours, theirs) in pairs:
        if ours != theirs:
            raise UserError(
                f"class {number} of the model is {ours}, but {theirs} in {place}, which the annotations number "
                f"({len(of_model)} and {len(annotated)} classes): measure a model of these classes, or in "
                "yolov3/configs.py name the model's own, and pictures annotated with them"
            )
