"""Which pictures a cluster job is about, in which order: files of a folder or glob, objects under an S3 prefix, or rows
of Parquet files with the columns `path` and `bytes`.

A listing knows the names of all its pictures. `cut` gives a stretch of it, small enough to be sent to a worker, which
gets from `pictures` each name and a function that reads the picture file's bytes.
"""

import bisect
import functools
import glob
import itertools
import os
from pathlib import Path
from typing import NamedTuple

from yolov3.checks import UserError, project_path, shell_path
from yolov3.media.sources import OTHER_SUFFIXES, PICTURE_SUFFIXES, Pictures, open_source

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

S3 = "s3://"
S3_SECONDS = 5, 60  # to connect, and for an answer
S3_TRIES = 3
S3_REMEDY = (
    "set AWS_REGION, and AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY or AWS_PROFILE (AWS_ENDPOINT_URL too, if it is "
    "not Amazon's)"
)
COLUMNS = {  # of Parquet, and of what types they may be
    "path": (pa.types.is_string, pa.types.is_large_string),
    "bytes": (pa.types.is_binary, pa.types.is_large_binary),
}
ROWS_AT_A_TIME = 64  # of Parquet, in memory


# --- Listings ------------------------------------------------------------------------------------------------------


class Files(NamedTuple):
    """Picture files: paths and s3:// addresses."""

    names: list

    def lines(self):
        """What makes it this listing and no other."""
        return self.names

    def cut(self, start, stop):
        return Files(self.names[start:stop])

    def pictures(self):
        """Yields each name and a function of no arguments -> bytes."""
        for name in self.names:
            yield name, functools.partial(read_file, name)


class Rows:
    """All rows of Parquet files, or a stretch of them.

    spans  (path or s3:// address, first row, the row behind the last) of each file
    """

    def __init__(self, names, spans):
        self.names, self.spans = names, spans
        self.starts = list(itertools.accumulate((last - first for _, first, last in spans), initial=0))

    def lines(self):
        return itertools.chain(map(str, self.spans), self.names)

    def cut(self, start, stop):
        spans, i = [], bisect.bisect_right(self.starts, start) - 1
        while self.starts[i] < stop and i < len(self.spans):
            file, first, last = self.spans[i]
            spans.append((file, first + max(start - self.starts[i], 0), min(last, first + stop - self.starts[i])))
            i += 1
        return Rows(self.names[start:stop], spans)

    def pictures(self):
        data = itertools.chain.from_iterable(read_rows(*span) for span in self.spans)
        for name, content in zip(self.names, data, strict=True):
            yield name, lambda content=content: content


def open_listing(word, max_pixels):
    """A folder, glob, file, s3:// address or Parquet -> Files or Rows. Raises UserError."""
    if word.startswith(S3):
        files = list_s3(word)
    elif "://" in word:
        raise UserError(f"{word} cannot be listed: name a folder, a glob, {S3}bucket/prefix or a Parquet")
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


def local_parquet(word):
    """The sorted Parquet files that a folder holds or a glob means, as a list of str; none if it means others too."""
    for path in (shell_path(word).absolute(), project_path(word)):
        pattern = f"{glob.escape(str(path))}/*.parquet" if path.is_dir() else str(path)
        if found := sorted(glob.glob(pattern, recursive=True)):
            return found if all(name.endswith(".parquet") for name in found) else []
    return []


def local_pictures(word, max_pixels):
    """The sorted pictures of a folder or glob, as detection_demo.py takes them, as a list of str."""
    pictures = open_source(word, max_pixels)
    if not isinstance(pictures, Pictures):
        raise UserError(f"{word} is not a picture: name a folder, a glob, {S3}bucket/prefix or a Parquet")
    return [str(path.absolute()) for path in pictures.paths]


# --- S3 ------------------------------------------------------------------------------------------------------------


@functools.cache
def s3():
    """Credentials come from the environment, from ~/.aws or from the machine's own role, by Amazon's own rules."""
    connect, answer = S3_SECONDS
    return pa.fs.S3FileSystem(
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL"),
        connect_timeout=connect,
        request_timeout=answer,
        retry_strategy=pa.fs.AwsStandardS3RetryStrategy(max_attempts=S3_TRIES),
    )


def list_s3(word):
    """An object, or a prefix that ends where a name does -> sorted s3:// addresses of all pictures, else of all Parquet
    files, under it."""
    place = word.removeprefix(S3).rstrip("/")
    if not place:
        raise UserError(f"{word} names no bucket: {S3}bucket/prefix")
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
    raise UserError(f"{word} holds no pictures ({', '.join(PICTURE_SUFFIXES)}) and no Parquet: mind the bucket's name")


# --- Reading -------------------------------------------------------------------------------------------------------


def read_file(name):
    """A picture file's bytes. UserError if it is this picture that cannot be read; OSError if S3 answers no more, which
    is not a picture's fault."""
    try:
        if name.startswith(S3):
            with s3().open_input_stream(name.removeprefix(S3)) as stream:
                return stream.read()
        return Path(name).read_bytes()
    except OSError as error:
        if name.startswith(S3) and not isinstance(error, FileNotFoundError):
            raise OSError(f"{name} cannot be fetched ({first_line(error)}): {S3_REMEDY}") from None
        raise UserError(f"picture {name} cannot be read: {error.strerror or first_line(error)}") from None


def read_paths(file):
    """The column `path` of a Parquet file -> list of str. Raises UserError if the file is not of the right form."""
    try:
        with open_parquet(file) as table:
            for column, kinds in COLUMNS.items():
                at = table.schema_arrow.get_field_index(column)
                if at < 0 or not any(is_kind(table.schema_arrow.types[at]) for is_kind in kinds):
                    raise UserError(f"{file} lacks the column {column}: it takes path, a string, and bytes, binary")
            return table.read(["path"])["path"].fill_null("").to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read as Parquet: {first_line(error)}") from None


def read_rows(file, first, last):
    """Yields the column `bytes` of some rows; of the file no more is read than the row groups that hold them."""
    with open_parquet(file) as table:
        sizes = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
        starts = list(itertools.accumulate(sizes, initial=0))
        groups = [i for i, size in enumerate(sizes) if starts[i] < last and first < starts[i] + size]
        row = starts[groups[0]] if groups else last
        for batch in table.iter_batches(ROWS_AT_A_TIME, groups, ["bytes"]):
            for i in range(max(first - row, 0), min(last - row, len(batch))):
                yield batch[0][i].as_py() or b""
            row += len(batch)


def open_parquet(file):
    if file.startswith(S3):
        return pq.ParquetFile(s3().open_input_file(file.removeprefix(S3)))
    return pq.ParquetFile(file)


def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
