"""The settings of one run: constants that --config and --set of its command line put in place of those of configs.py.

A script makes its `ScriptParser` before it reads `configs`. From then on `configs` holds the settings of this run, for
all that reads it, the defaults of the script's own options included. `constants` are what processes elsewhere take
over, and `write_settings` puts them beside the results.
"""

import argparse
import ast
import contextlib
import difflib
import os
import shlex
import sys
import traceback
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from yolov3 import configs
from yolov3.checks import (
    UserError,
    as_given,
    check_path,
    mask_passwords,
    printable,
    project_path,
    read_class_names,
    read_file,
    tell,
)
from yolov3.files import whole_file

MOST_BYTES = 2**24  # of a settings file
FILE_NAME = "settings.py"  # in a folder of results
# fmt: off
PATHS = (  # constants that name a file or folder
    "YOLO_V3_WEIGHTS", "YOLO_V4_WEIGHTS", "YOLO_V3_TINY_WEIGHTS", "YOLO_V4_TINY_WEIGHTS", "YOLO_COCO_CLASSES",
    "TRAIN_CLASSES", "TRAIN_ANNOT_PATH", "TRAIN_VAL_PATH", "TEST_ANNOT_PATH", "TRAIN_CHECKPOINTS_FOLDER",
    "TRAIN_LOGDIR",
)
# fmt: on
OTHERWISE = {  # what some of them may be instead
    "TRAIN_VAL_PATH": (type(None),),
    "TEST_ANNOT_PATH": (type(None),),
    "TRAIN_CLASSES": (list, tuple, dict),
    "YOLO_COCO_CLASSES": (list, tuple, dict),
}
FIRST_LINE = "# The settings of a run, which --config takes: python SCRIPT --config THIS_FILE\n"


class ScriptParser(argparse.ArgumentParser):
    """Read the command line of a script. Making one applies --config and --set, which every script takes.

    subsets  what a --set without "=" names, for scripts of data sets that come in subsets: `arguments.subset`

    has_settings tells whether there were any.
    """

    def __init__(self, description: str | None, subsets: str = ""):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        about_set = "a constant for this run: TRAIN_EPOCHS=50, YOLO_TYPE=yolov4, TRAIN_MULTISCALE='(320, 352)'"
        for parser in (early, self.add_argument_group("settings, in place of constants of yolov3/configs.py")):
            parser.add_argument(
                "--config",
                metavar="FILE",
                action="append",
                default=[],
                help="a Python file of the constants that differ: TRAIN_EPOCHS = 50",
            )
            parser.add_argument(
                "--set",
                metavar="NAME=VALUE",
                action="append",
                default=[],
                help=f"{about_set}; wins over --config, may be repeated{f'. A word: {subsets}' if subsets else ''}",
            )
        found = argparse.Namespace(config=[], set=[])
        with contextlib.suppress(argparse.ArgumentError):  # parse_args says what is wrong, with all options to see
            found, _ = early.parse_known_args()
        self._given = found.config, found.set
        self.has_settings = bool(found.config or found.set)
        self._words = [word for word in found.set if "=" not in word]
        self._has_subsets = bool(subsets)
        if self._words and not subsets:
            raise UserError(f"--set {self._words[0]}: write NAME=VALUE, --set TRAIN_EPOCHS=50 for example")
        apply(found.config, [word for word in found.set if "=" in word])
        check_paths()

    def parse_args(self, args=None, namespace=None):
        """Return the options, as argparse has them. The command line must be the one that the settings came from."""
        arguments = super().parse_args(args, namespace)
        if (arguments.config, arguments.set) != self._given:
            self.error("write --config and --set in full")
        if self._has_subsets:
            arguments.subset = self._words[-1] if self._words else None
        return arguments


def apply(files: Sequence[str], words: Sequence[str]) -> None:
    """Replace constants of configs.py by those of Python files, then by NAME=VALUE words, the last one winning.

    Raises UserError, before anything is replaced, if a name is not one of its constants, or if a constant that is not
    replaced is made of one that is: it would keep the value that it was made with.
    """
    if not (files or words):
        return
    replaced: dict[str, Any] = {}
    source = Path(configs.__file__)
    made_of = {"yolov3/configs.py": _made_of(source.read_bytes(), str(source))}
    for file in files:
        data = read_file(as_given(file), MOST_BYTES, "settings file")
        values = _run(data, file, constants() | replaced)
        _check_names(values, f"settings file {file}")
        replaced |= values
        made_of[file] = {name: names for name, names in _made_of(data, file).items() if name in values}
    set_here = dict(_read_word(word) for word in words)
    _check_names(set_here, "--set")
    made_of["--set"] = {name: set() for name in set_here}
    _check_made_of(list(made_of.items()))
    vars(configs).update(replaced | set_here)


def check_paths() -> None:
    """Raise UserError if a constant that must be the path of a file or folder is something else."""
    for name in PATHS:
        value = getattr(configs, name)
        if not isinstance(value, OTHERWISE.get(name, ())):
            check_path(name, value)


def constants() -> dict[str, Any]:
    """Return what `configs` says now, for processes elsewhere: `vars(configs).update` takes it over."""
    return {name: value for name, value in vars(configs).items() if name.isupper()}


def configured_names(constant: str = "TRAIN_CLASSES") -> tuple[str, ...]:
    """Return the class names of the names file that a constant names."""
    return read_class_names(check_path(constant, getattr(configs, constant)))


def write_settings(output: Path) -> None:
    """Write the constants of this run into a folder of results, or beside a file of results, as a file for --config.

    A file of that name that is not one of these stays as it is, which is told. Passwords in addresses become ***.
    """
    file = output / FILE_NAME if output.is_dir() else output.with_name(f"{output.stem}.{FILE_NAME}")
    with contextlib.suppress(FileNotFoundError):
        if not file.read_bytes().startswith(FIRST_LINE.encode()):
            tell(f"{file} was not written by a run, so it is left as it is: the settings of this one are not kept")
            return
    lines = [f"# {printable(shlex.join(sys.argv))}", *(_line(name, value) for name, value in constants().items())]
    with whole_file(file) as part:
        part.write_text(FIRST_LINE + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def _line(name, value):
    text = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    return f"{name} = {mask_passwords(text)}"


# --- Reading what a person has written -------------------------------------------------------------------------------


def _read_word(word: str) -> tuple[str, Any]:
    """Return name and value of NAME=VALUE: a Python literal, or else the text as it stands."""
    name, _, text = word.partition("=")
    try:
        return name.strip(), ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name.strip(), text


def _run(data: bytes, file: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return what a Python file assigns. It may use the constants that are known. Raises UserError with the line."""
    path = str(project_path(as_given(file)))
    names: dict[str, Any] = {**known, "__file__": path}
    try:
        exec(compile(data, path, "exec"), names)
    except SyntaxError as error:
        where = f" line {error.lineno}" if error.lineno else ""
        text = f": {error.text.strip()}" if error.text else ""
        raise UserError(f"settings file {file}{where}: {error.msg}{text}") from None
    except Exception as error:  # a name without quotes, a division by zero ...
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f" line {lines[-1]}" if lines else ""
        raise UserError(f"settings file {file}{where}: {str(error) or type(error).__name__}") from None
    return {
        name: value
        for name, value in names.items()
        if not (name.startswith("_") or isinstance(value, types.ModuleType))
        and (name not in known or value is not known[name])
        and (name.isupper() or name.upper() in known)  # others help to make them
    }


def _check_names(names: Iterable[str], place: str) -> None:
    """Raise UserError if a name is not a constant of configs.py."""
    known = list(constants())
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name.upper(), known, 1, 0)[0]
            raise UserError(f"{place}: yolov3/configs.py does not have {name}: is it {near}?")


def _made_of(source: bytes, file: str) -> dict[str, set[str]]:
    """Return all names that the value of each assigned name is made of, over however many steps."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            used = _names_in(node.value)
            for name in set().union(*map(_names_in, targets)):
                found.setdefault(name, set()).update(used - {name})
    for name in found:
        while (more := found[name].union(*(found.get(other, ()) for other in found[name])) - {name}) != found[name]:
            found[name] = more
    return found


def _names_in(node):
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _check_made_of(made_of: list[tuple[str, dict[str, set[str]]]]) -> None:
    """Raise UserError if a constant of one place is made of one that a later place replaces, and is not itself.

    made_of  of each place, in the order in which they replace each other, what `_made_of` returns
    """
    last = {name: i for i, (_, names) in enumerate(made_of) for name in names}
    for i, (place, names) in enumerate(made_of):
        for name in names.keys() & constants().keys():
            replaced = sorted(other for other in names[name] if last.get(other, -1) > i)
            if last[name] == i and replaced:
                by = made_of[last[replaced[0]]][0]
                raise UserError(
                    f"{name} in {place} is made of {replaced[0]}, which {by} replaces, but is not made again: give "
                    f"{name} a value there, too"
                )
