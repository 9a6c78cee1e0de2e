"""Files and folders that are written whole or not at all, and checks, before any work, that they can be."""

import contextlib
import glob
import os
import shutil
import time

from yolov3.checks import UserError, project_path

STALE = 24 * 3600  # seconds after which what a killed process has left is removed


def check_output(path, suffixes, inputs=()):
    """Makes sure, before any work, that `path` can be written and is none of the inputs; makes its folder."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f"output {path} must end in one of {', '.join(suffixes)}")
    if path.is_dir():
        raise UserError(f"output {path} is a folder: name a file")
    if path.exists() and any(path.samefile(x) for x in inputs):
        raise UserError(f"output {path} is the input itself: name another file")
    check_writable(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"output {path} cannot be written: it is protected")


def check_writable(folder):
    """Makes the folder if need be, and sure that files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def told_in_one_line(path):
    """Turns the system's refusal to write into a UserError that names the output."""
    try:
        yield
    except OSError as error:
        raise UserError(f"output {path} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def whole_file(path):
    """Gives a temporary file to write and renames it to `path`, a Path, when all went well; makes its folder."""
    part = path.with_name(f".{path.name}.part")
    with told_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(folder):
    """Gives a temporary folder to fill and renames it to `folder` when all went well, replacing what was there.

    Killed between the two renames that takes, it has the old folder under another name, which the next call puts back.
    """
    folder = project_path(folder)
    part, old = (folder.with_name(f".{folder.name}.{end}") for end in (f"{os.getpid()}.part", "old"))
    _put_back(old, folder)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):  # another process may be at work in it
        with contextlib.suppress(FileNotFoundError):  # which may just have ended
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left, ignore_errors=True)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
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
