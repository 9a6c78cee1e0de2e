"""Files and folders that are written whole or not at all, and checks, before any work, that they can be.

What is being written lies beside its place under a name of its own, and takes its final name when it is whole:

    out.mp4    .out.3f2a9c01-4711-0.part.mp4    stem, computer, process, count

So two processes never write into one file, and what a killed one has left is known and removed by the next.
"""

import contextlib
import errno
import itertools
import os
import platform
import re
import shutil
import stat
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from yolov3.checks import UserError, project_path

STALE = 24 * 3600  # seconds without a change after which what another computer or a killed process left is removed
THIS_COMPUTER = f"{zlib.crc32(platform.node().encode()):08x}"
PART = re.compile(r"\..*\.(?P<computer>[0-9a-f]{8})-(?P<process>\d+)-\d+\.part(\.[^.]*)?", re.DOTALL)
ABOUT_THE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)  # the file system refuses this name, not the next

_count = itertools.count()


class OneFileRefused(UserError):
    """One output cannot be written because of its own name or size; others can."""


def check_output(path: Path, suffixes: tuple, inputs: Iterable[Path] = ()) -> None:
    """Raise UserError unless `path` can be written and is not one of the inputs. Makes its folder."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f"output {path} must end in one of {', '.join(suffixes)}")
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    except (OSError, ValueError) as error:  # an over-long name, or one with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"output {path} cannot be written: {reason}") from None
    if is_folder:
        raise UserError(f"output {path} is a folder: name a file")
    if path.name == "model.json":
        raise UserError(f"output {path} would be taken for the description of a checkpoint: choose another name")
    if falls_on([path], inputs):
        raise UserError(f"output {path} is the input itself: name another file")
    check_writable(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"output {path} cannot be written: it is protected")


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be made in the folder, which is made if need be. Removes the parts that killed
    processes have left in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new_part(folder / "probe").unlink()
        remove_left_parts(folder)
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}") from None


def falls_on(outputs: Iterable[Path], inputs: Iterable[Path]) -> Path | None:
    """Return the first output that is one of the inputs, by whatever path or link it is named, or None."""
    taken = {_identity(path) for path in inputs} - {None}
    return next((path for path in outputs if _identity(path) in taken), None)


def _identity(path):
    """Device and inode of a file, which every path and link to it shares; None if there is not a file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def told_in_one_line(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a UserError that names the output."""
    try:
        yield
    except OSError as error:
        kind = OneFileRefused if error.errno in ABOUT_THE_NAME else UserError
        raise kind(f"output {path} cannot be written: {error.strerror or error}") from None


def part_name(path: Path) -> Path:
    """Return a new name beside `path`, at which this process can write what is to become it. Long names are cut."""
    stem, suffix = os.fsencode(path.stem)[:100], path.suffix if len(os.fsencode(path.suffix)) < 50 else ""
    own = f"{THIS_COMPUTER}-{os.getpid()}-{next(_count)}"
    return path.with_name(f".{stem.decode(errors='ignore')}.{own}.part{suffix}")


def new_part(path: Path) -> Path:
    """Make an empty file beside `path` and return its path. Never opens a file that is there, nor follows a link."""
    while True:
        part = part_name(path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            os.close(os.open(part, flags, 0o666))  # less what the umask takes away, as for any file
            return part
        except FileExistsError:  # left by a killed process that had the same number
            continue


def remove_left_parts(folder: Path) -> None:
    """Remove the parts of this computer's processes that have ended, and others that have not changed for a day."""
    for left in folder.iterdir():
        if (part := PART.fullmatch(left.name)) and _is_left(left, part):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    left.unlink()


def _is_left(path, part):
    if part["computer"] == THIS_COMPUTER and os.name == "posix":
        try:
            os.kill(int(part["process"]), 0)  # sends nothing: asks whether the process is there
        except PermissionError:  # it is there, of another user
            return False
        except (ProcessLookupError, OverflowError):
            return True
        return False
    with contextlib.suppress(OSError):  # it may just have ended
        return time.time() - path.lstat().st_mtime > STALE
    return False


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the path of an empty file to write, and rename it to `path` when all went well. Makes its folder."""
    with told_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = new_part(path)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give the path of an empty folder to fill, and rename it to `folder` when all went well, replacing what was there.

    Killed between the two renames that this takes, it leaves the old folder under another name, which the next call
    puts back.
    """
    folder = project_path(folder)
    part, old = part_name(folder), folder.with_name(f".{folder.name}.old")
    _put_back(old, folder)
    try:
        shutil.rmtree(part, ignore_errors=True)  # left by a killed process that had the same number
        part.mkdir(parents=True)
        remove_left_parts(folder.parent)
        yield part
        if folder.exists():
            folder.replace(old)
        part.replace(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _put_back(old, folder)


def _put_back(old, folder):
    if old.exists() and not folder.exists():
        old.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
