"""Check what a person writes in configs.py or on the command line, and say what to do when it does not fit.

`UserError` is the exception meant for people: its text names the file or constant and the remedy, and scripts print it
as one line and exit with code 1 (`say_it_in_one_line`).
"""

import errno
import functools
import io
import numbers
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
PASSWORD = re.compile(  # scheme://user:password@host, which may have a slash where it is not a port, and password=
    r"(?P<user>://[^\s/:]{0,200}:)(?:[^\s/]{1,200}|(?!\d+/)\S{1,200})@|(?P<name>\b(?:password|passwd|pass|pwd)=)[^\s&'\"]+",
    re.IGNORECASE,
)
INVISIBLE = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # Unicode's categories of control characters and the like
NAMES_BYTES = 2**24  # of the largest names file: a million names
FILE_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}  # all others are devices
JOINERS = "\u200c\u200d"  # of which some scripts and emoji are made

# Lines of files that are named instead of a names file by mistake: data.yaml, obj.data, JSON, XML, labels, annotations.
NOT_A_NAME = re.compile(
    r"(?:names|nc|path|train|valid|val|test|classes)\s*[:=]|---|[{\[<]"
    r"|[-+\d.]+(?:[ \t]+[-+\d.]+){4}|.*\s[-+\d.]+(?:,[-+\d.]+){4}(?!\S)"
)
MOST_PIXELS = 4096  # of a side of the network input
SMALLEST = 1e-3  # side of an anchor in pixels, and factor of a head
LONGEST_NAME = 255  # bytes of a file or folder, as all common file systems have it


class UserError(ValueError):
    """Say in the user's words what is wrong with a file, constant or argument. Passwords in addresses are masked.

    problem  what is wrong
    remedy   what to do about it, where `problem` does not say so itself
    """

    def __init__(self, problem: object, remedy: str = ""):
        self.problem, self.remedy = mask_passwords(str(problem)), remedy
        super().__init__(self.problem, remedy)

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


def mask_passwords(text: str) -> str:
    """Return the text with *** for every password in an address: rtsp://user:***@host."""
    return PASSWORD.sub(lambda found: f"{found['user']}***@" if found["user"] else f"{found['name']}***", text)


def choose(constant: str, value: Any, choices: Collection) -> Any:
    """Return `value` if it is one of `choices`; otherwise raise a UserError that lists them."""
    try:
        known = value in choices
    except TypeError:  # a list, where the choices are a table
        known = False
    if not known:
        raise UserError(f"{constant} = {value!r} is not known: choose one of {', '.join(map(repr, choices))}")
    return value


def check_input_size(size: Any, constant: str = "YOLO_INPUT_SIZE", multiple: int = 32) -> tuple[int, int]:
    """Return height and width of the network input in pixels, of one number, for a square, or of such a pair.

    Raise UserError if one is not a multiple of the pixels that one cell of the coarsest map sees, or is larger than any
    network can use.
    """
    is_pair, text = isinstance(size, (tuple, list)), f"the input size ({constant}) is {size!r}"
    sides, it, example = (size, "each side", "(256, 416)") if is_pair else ((size, size), "it", "416")
    if len(sides) != 2:
        raise UserError(f"{text}: give one number or (height, width), 416 or (256, 416) for example")
    if not all(_is(numbers.Integral, side) and side >= multiple and side % multiple == 0 for side in sides):
        wanted = [min(max(side, 0), MOST_PIXELS) if _is(numbers.Integral, side) else 416 for side in sides]
        near = tuple(max(multiple, round(side / multiple) * multiple) for side in wanted)
        raise UserError(f"{text}: make {it} a multiple of {multiple}, {near if is_pair else near[0]} for example")
    if max(sides) > MOST_PIXELS:
        raise UserError(f"{text}: make {it} {MOST_PIXELS} at most, {example} for example")
    return int(sides[0]), int(sides[1])


def _is(kind, value):
    """Return whether a value is a number of that kind. True and False are not numbers in configs.py."""
    return isinstance(value, kind) and not isinstance(value, bool)


def check_threshold(constant: str, value: Any) -> float:
    """Return a score or IoU threshold as float. Raise UserError if it is not from 0 to 1."""
    if not _is(numbers.Real, value) or not 0 <= value <= 1:
        raise UserError(f"{constant} = {value!r} must be a number from 0 to 1")
    return float(value)


def check_amount(constant: str, value: Any) -> float:
    """Return a number as float. Raise UserError if it is not 0 or more."""
    if not _is(numbers.Real, value) or not 0 <= value < 2**31:
        raise UserError(f"{constant} = {value!r} must be a number, 0 or more")
    return float(value)


def check_count(constant: str, value: Any, least: int) -> int:
    """Return a whole number as int. Raise UserError if it is less than `least`."""
    if not _is(numbers.Integral, value) or not least <= value < 2**31:
        raise UserError(f"{constant} = {value!r} must be a whole number, {least} or more")
    return int(value)


def are_like(values: Any, like: Any, largest: float) -> bool:
    """Whether nested sequences have the shape of nested tuples, and hold numbers from SMALLEST to `largest`."""
    if isinstance(like, tuple):
        is_as_long = isinstance(values, Collection) and len(values) == len(like)
        return is_as_long and all(are_like(x, other, largest) for x, other in zip(values, like, strict=True))
    return _is(numbers.Real, values) and SMALLEST <= values <= largest


def check_path(constant: str, value: Any) -> str | os.PathLike:
    """Return a path that a constant names. Raise UserError if it is not one, with the constant's name."""
    try:
        shell_path(value)
    except UserError:
        raise UserError(f"{constant} = {repr(value)[:60]} is not a path", "name a file or folder") from None
    return value


def project_path(path: str | os.PathLike) -> Path:
    """Return a path as configs.py means it: relative to the project's root, wherever the script was started."""
    return PROJECT / shell_path(path)


def shell_path(path: str | os.PathLike) -> Path:
    """Return a path as a command line means it: relative to where the script was started, ~ for the home folder."""
    try:
        given = Path(path).expanduser()
        names = [os.fsencode(name) for name in given.parts]
    except (TypeError, RuntimeError, UnicodeError):
        raise UserError(f"{path!r} is not a path: name a file or folder") from None
    if any(b"\0" in name or len(name) > LONGEST_NAME for name in names):
        raise UserError(f"{str(path)[:60]!r} is not a path: a name has at most {LONGEST_NAME} bytes and no NUL")
    return given


def as_given(word: str | Path) -> str | Path:
    """Return a path of a command line as the shell means it or, if nothing is there, unchanged for `project_path`."""
    exists = os.path.exists(shell_path(word))  # noqa: PTH110  Path.exists raises OSError where a name is too long
    return shell_path(word).absolute() if exists else word


def read_file(path: str | os.PathLike, limit: int, what: str, remedy: str = "") -> bytes:
    """Return the bytes of a file, `path` as in `project_path`.

    what    its kind in the user's words
    remedy  what the user should do where it is missing

    Raises UserError, before anything is read, if it is missing, is not a regular file (a pipe would be waited for, a
    device read for ever) or has more than `limit` bytes.
    """
    try:
        file = project_path(path)
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = FILE_KINDS.get(stat.S_IFMT(status.st_mode), "device")
            raise UserError(f"{what} {path} is a {kind}, not a file")
        if status.st_size <= limit:
            with file.open("rb") as opened:
                data = opened.read(limit + 1)  # it may grow meanwhile
            if len(data) <= limit:
                return data
        raise UserError(f"{what} {path} is larger than the {limit:_} bytes that such a file may have")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{what} {path} is missing{remedy and ': '}{remedy}") from None
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from None
    except UserError:
        raise
    except ValueError:  # a NUL, or a character that the file system's encoding lacks
        raise UserError(f"{what} {str(path)!r} is missing: its name is one that a file cannot have") from None


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Return the names of a names file, one class a line.

    Blank lines at its end, a BOM and Windows line ends do no harm. Raises UserError if the file cannot be read, is not
    a names file, or has a name that would shift or hide a class.
    """
    remedy = "write one class name a line into it"
    try:
        text = read_file(path, NAMES_BYTES, "class names file", remedy).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"class names file {path} is not in UTF-8: save it as UTF-8") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    names = tuple(line.strip() for line in lines)
    if names == ("",):
        raise UserError(f"class names file {path} is empty: {remedy}")
    if any(map(NOT_A_NAME.match, names)):
        raise UserError(f"{path} is not a class names file: write one class name a line into a file of its own")
    check_class_names(names, f"class names file {path}", "line", first=1)
    return names


def class_names(classes: str | os.PathLike | Collection[str] | dict[int, str]) -> tuple[str, ...]:
    """Return the names of a names file, of a list or tuple, or of a {number: name} as a tuple."""
    if isinstance(classes, (str, os.PathLike)):
        return read_class_names(classes)
    names = classes.values() if isinstance(classes, dict) else classes
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise UserError(f"classes {classes!r} are not names: give a names file or a list of names")
    check_class_names(tuple(names), "the list of classes")
    return tuple(names)


def check_class_names(names: Collection[str], place: object, unit: str = "class", first: int = 0) -> None:
    """Raise UserError if a name is blank, repeated, or does not fit into one line of a names file.

    Every class behind such a name would get the number of another. `unit` and `first` say how the message counts.
    """
    seen: dict[str, int] = {}
    for number, name in enumerate(names, first):
        if not name.strip():
            raise UserError(f"{place}: {unit} {number} is blank; name it, or take it away if it is not a class")
        if not name.isprintable():
            raise UserError(f"{place}: {unit} {number}, {ascii(name[:60])}, has a line end or control character in it")
        if seen.setdefault(name, number) != number:
            raise UserError(f"{place}: {unit} {number} repeats {name[:60]!r} of {unit} {seen[name]}: name each once")


def is_class_name(name: str) -> bool:
    """Return whether a names file can hold the name of a class, so that it is read again as such."""
    return bool(name.strip()) and name.isprintable() and not NOT_A_NAME.match(name.strip())


def count_classes(classes: int | str | os.PathLike | Collection[str]) -> int:
    """Return the number of classes of a names file, of names, or of what is a number already."""
    count = classes if isinstance(classes, int) else len(class_names(classes))
    if count < 1:
        raise UserError(f"a detector needs at least one class, not {count}")
    return count


def printable(text: object) -> str:
    """Return the text as it is safe to show on a terminal.

    Characters that would move its cursor, change its colours, forge lines or turn the direction of writing become
    escapes; passwords in addresses become ***.
    """
    shown = mask_passwords(str(text))
    return "".join(
        x.encode("unicode_escape").decode() if unicodedata.category(x) in INVISIBLE and x not in JOINERS else x
        for x in shown
    )


def tell(line: str) -> None:
    """Print a line on standard error, below the progress bar. A terminal that is closed is not an error."""
    try:
        print(f"\n{printable(line)}", file=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):  # its terminal is closed
            raise


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, which may be very long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def say_it_in_one_line(main: Callable) -> Callable:
    """Decorate a script's main(), so that what stops it becomes an exit code instead of a traceback.

    UserError, or a disk without space for the output: 1, after one line on standard error. Ctrl-C: 130. Output that
    nobody reads any more (`| head`): 141, silently.
    """

    @functools.wraps(main)
    def run(*args, **kwargs):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names need not be what the terminal can show
        try:
            result = main(*args, **kwargs)
            sys.stdout.flush()
            return result
        except UserError as error:
            sys.exit(f"error: {printable(str(error))}")
        except KeyboardInterrupt:
            sys.exit(130)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ENOSPC):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes as it ends
            sys.exit(141 if error.errno == errno.EPIPE else f"error: output cannot be written: {error.strerror}")

    return run
