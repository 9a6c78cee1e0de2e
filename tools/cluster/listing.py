"""List the pictures of a cluster job in their order: files of a folder or glob, objects under an S3 prefix, or rows of
Parquet files with the columns `path` and `bytes`.

A listing holds the names of all its pictures. `cut` returns a stretch of it, small enough to be sent to a worker, which
gets from `pictures` each name and a function that reads the bytes of the picture file.
"""

import bisect
import functools
import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import UserError, first_line, project_path, read_file, shell_path
from yolov3.images import PICTURE_BYTES
from yolov3.media.sources import OTHER_SUFFIXES, PICTURE_SUFFIXES, Pictures, open_source

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

S3 = "s3://"
S3_SECONDS = 5, 60  # to wait for a connection, and for an answer
S3_TRIES = 3
S3_REMEDY = (
    "set AWS_REGION, and AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY or AWS_PROFILE (AWS_ENDPOINT_URL too, if it is "
    "not Amazon's)"
)
COLUMNS = {  # of Parquet files, and the types that they may have
    "path": (pa.types.is_string, pa.types.is_large_string),
    "bytes": (pa.types.is_binary, pa.types.is_large_binary),
}
ROWS_AT_A_TIME = 64  # of a Parquet file, read into memory together


# --- Listings ------------------------------------------------------------------------------------------------------


class Files(NamedTuple):
    """Hold picture files: paths or s3:// addresses."""

    names: list[str]

    def lines(self) -> Iterable[str]:
        """Return the lines whose digest tells this listing from others."""
        return self.names

    def cut(self, start: int, stop: int) -> "Files":
        """Return the pictures from `start` up to, but without, `stop`."""
        return Files(self.names[start:stop])

    def pictures(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield each name and a function without arguments that returns the file's bytes."""
        for name in self.names:
            yield name, functools.partial(fetch_file, name)


class Rows:
    """Hold all rows of Parquet files, or a stretch of them.

    names  the column `path` of all rows
    spans  (path or s3:// address, first row, the row behind the last) of each file
    """

    def __init__(self, names: list[str], spans: list[tuple[str, int, int]]):
        self.names, self.spans = names, spans
        self.starts = list(itertools.accumulate((last - first for _, first, last in spans), initial=0))

    def lines(self) -> Iterable[str]:
        """Return the lines whose digest tells this listing from others."""
        return itertools.chain(map(str, self.spans), self.names)

    def cut(self, start: int, stop: int) -> "Rows":
        """Return the rows from `start` up to, but without, `stop`."""
        spans, i = [], bisect.bisect_right(self.starts, start) - 1
        while self.starts[i] < stop and i < len(self.spans):
            file, first, last = self.spans[i]
            spans.append((file, first + max(start - self.starts[i], 0), min(last, first + stop - self.starts[i])))
            i += 1
        return Rows(self.names[start:stop], spans)

    def pictures(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield each name and a function without arguments that returns the picture file's bytes."""
        data = itertools.chain.from_iterable(read_stretch(*span) for span in self.spans)
        for name, content in zip(self.names, data, strict=True):
            yield name, lambda content=content: content


def open_listing(word: str, max_pixels: int) -> Files | Rows:
    """Return the listing of a folder, glob, file, s3:// address or Parquet. Raises UserError."""
    if word.startswith(S3):
        files = list_s3(word)
    elif "://" in word:
        raise UserError(f"{word} cannot be listed: name a folder, a glob, {S3}bucket/prefix or Parquet")
    else:
        files = local_parquet(word) or local_pictures(word, max_pixels)
    if not all(name.endswith(".parquet") for name in files):
        return Files(files)
    names, spans = [], []
    for file in files:
        paths = read_paths(file)
        names += paths
        spans.append((file, 0, len(paths)))
    if not names:
        raise UserError(f"{word} holds no rows")
    return Rows(names, spans)


# --- On this machine -----------------------------------------------------------------------------------------------


def local_parquet(word: str) -> list[str]:
    """Return the sorted Parquet files of a folder or glob. Return none if the glob also matches other files."""
    for path in (shell_path(word).absolute(), project_path(word)):
        pattern = f"{glob.escape(str(path))}/*.parquet" if path.is_dir() else str(path)
        if found := sorted(glob.glob(pattern, recursive=True)):
            return found if all(name.endswith(".parquet") for name in found) else []
    return []


def local_pictures(word: str, max_pixels: int) -> list[str]:
    """Return the sorted pictures of a folder or glob, those that detection_demo.py would take."""
    pictures = open_source(word, max_pixels)
    if not isinstance(pictures, Pictures):
        raise UserError(f"{word} is not a picture: name a folder, a glob, {S3}bucket/prefix or Parquet")
    return [str(path.absolute()) for path in pictures.paths]


# --- S3 ------------------------------------------------------------------------------------------------------------


@functools.cache
def s3() -> pa.fs.S3FileSystem:
    """Return the file system. Its credentials come from the environment, ~/.aws or the machine's role, as Amazon's
    libraries look for them."""
    connect, answer = S3_SECONDS
    return pa.fs.S3FileSystem(
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL"),
        connect_timeout=connect,
        request_timeout=answer,
        retry_strategy=pa.fs.AwsStandardS3RetryStrategy(max_attempts=S3_TRIES),
    )


def list_s3(word: str) -> list[str]:
    """Return the sorted s3:// addresses of all pictures under an object or prefix or, if there are none, of all Parquet
    files. The prefix must end where a name does. Raises UserError."""
    place = word.removeprefix(S3).rstrip("/")
    if not place:
        raise UserError(f"{word} does not name a bucket: write {S3}bucket/prefix")
    try:
        found = [s3().get_file_info(place)]
        if found[0].type == pa.fs.FileType.Directory:
            found = s3().get_file_info(pa.fs.FileSelector(place, recursive=True))
    except OSError as error:
        raise UserError(f"{word} cannot be listed ({first_line(error)}): {S3_REMEDY}") from None
    names = sorted(S3 + info.path for info in found if info.type == pa.fs.FileType.File)
    pictures = [name for name in names if name.lower().endswith(PICTURE_SUFFIXES + OTHER_SUFFIXES)]
    if files := pictures or [name for name in names if name.endswith(".parquet")]:
        return files
    raise UserError(f"{word} holds no pictures ({', '.join(PICTURE_SUFFIXES)}) and no Parquet: check the bucket's name")


# --- Reading -------------------------------------------------------------------------------------------------------


def fetch_file(name: str) -> bytes:
    """Return the bytes of a picture file.

    Raises UserError if this picture cannot be read, and OSError if S3 does not answer, which ends the job.
    """
    try:
        if name.startswith(S3):
            with s3().open_input_stream(name.removeprefix(S3)) as stream:
                return stream.read()
        return read_file(name, PICTURE_BYTES, "picture")
    except OSError as error:
        if name.startswith(S3) and not isinstance(error, FileNotFoundError):
            raise OSError(f"{name} cannot be fetched ({first_line(error)}): {S3_REMEDY}") from None
        raise UserError(f"picture {name} cannot be read: {error.strerror or first_line(error)}") from None


def read_paths(file: str) -> list[str]:
    """Return the column `path` of a Parquet file. Raises UserError if the file lacks a column or cannot be read."""
    try:
        with open_parquet(file) as table:
            for column, kinds in COLUMNS.items():
                at = table.schema_arrow.get_field_index(column)
                if at < 0 or not any(is_kind(table.schema_arrow.types[at]) for is_kind in kinds):
                    raise UserError(f"{file} lacks the column {column}: it needs path, a string, and bytes, binary")
            return table.read(["path"])["path"].fill_null("").to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read as Parquet: {first_line(error)}") from None


def read_stretch(file: str, first: int, last: int) -> Iterator[bytes]:
    """Yield the column `bytes` of the rows from `first` up to, but without, `last`. Only their row groups are read."""
    with open_parquet(file) as table:
        sizes = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
        starts = list(itertools.accumulate(sizes, initial=0))
        groups = [i for i, size in enumerate(sizes) if starts[i] < last and first < starts[i] + size]
        row = starts[groups[0]] if groups else last
        for batch in table.iter_batches(ROWS_AT_A_TIME, groups, ["bytes"]):
            for i in range(max(first - row, 0), min(last - row, len(batch))):
                yield batch[0][i].as_py() or b""
            row += len(batch)


def open_parquet(file: str) -> pq.ParquetFile:
    """Open a Parquet file on this machine or on S3."""
    if file.startswith(S3):
        return pq.ParquetFile(s3().open_input_file(file.removeprefix(S3)))
    if not Path(file).is_file():  # a pipe would be waited for
        raise UserError(f"{file} is not a file")
    return pq.ParquetFile(file)
