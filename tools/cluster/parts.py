"""Write the output folder of a cluster job: run.json, which describes the job, and its numbered parts.

A part is a Parquet file with a row for each picture of one stretch of the listing. It is written under a temporary name
and renamed when complete. So a part that exists is complete, and one that is written twice still exists once.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from tools.cluster.listing import Files, Rows
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError
from yolov3.files import check_writable, whole_file

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("width", pa.int32()),  # of the upright picture; null if it cannot be read
        ("height", pa.int32()),
        ("boxes", pa.list_(pa.list_(pa.float32()))),  # x1, y1, x2, y2 in pixels of the upright picture, best first
        ("scores", pa.list_(pa.float32())),
        ("classes", pa.list_(pa.string())),  # by name
        ("model", pa.string()),  # its name, @ and the first characters of its digest
        ("error", pa.string()),  # why the picture cannot be read; null if it can
    ]
)
DIGITS = 12  # characters of a digest that are shown to people


# --- What a job is -------------------------------------------------------------------------------------------------


def describe_run(
    model: ModelSpec, weights: Path, thresholds: dict, max_pixels: int, listing: Files | Rows, part_size: int
) -> dict:
    """Return the content of run.json. Two jobs with the same content write the same parts."""
    return {
        "model": f"{weights.name}@{model_digest(model, weights)[:DIGITS]}",
        "type": model.name,
        "framework": model.framework,
        "precision": model.precision,
        "input_size": model.input_size,
        "resize": model.resize,
        **thresholds,
        "max_pixels": max_pixels,
        "pictures": len(listing.names),
        "listing": digest(os.fsencode(line) + b"\n" for line in listing.lines())[:DIGITS],
        "part_size": part_size,
    }


def model_digest(model: ModelSpec, weights: Path) -> str:
    """Return the digest of a weights file, or of all files of a checkpoint folder, its classes, heads and cfg."""
    files = sorted(x for x in weights.rglob("*") if x.is_file()) if weights.is_dir() else [weights]
    try:
        return digest(
            [json.dumps([model.classes, model.heads, model.cfg]).encode(), *(file.read_bytes() for file in files)]
        )
    except OSError as error:
        raise UserError(f"{weights} cannot be read: {error.strerror}") from None


def digest(pieces: Iterable[bytes]) -> str:
    """Return the SHA-256 of all pieces together."""
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()


# --- The folder ----------------------------------------------------------------------------------------------------


def part_file(folder: Path, number: int) -> Path:
    """Return the file of a part."""
    return folder / f"part-{number:06d}.parquet"


def missing_parts(folder: Path, count: int) -> list[int]:
    """Return the numbers from 0 to count - 1 whose parts do not exist."""
    there = {file.name for file in folder.glob("part-*.parquet") if file.is_file()}
    return [number for number in range(count) if part_file(folder, number).name not in there]


def prepare_output(folder: Path, run: dict, overwrite: bool) -> None:
    """Make the output folder, write run.json and remove what a killed job left unfinished.

    Raises UserError if the folder holds another run that is not to be overwritten, or files of other kinds.
    """
    check_writable(folder)
    there = read_run(folder)
    if there is None and any(file for file in folder.iterdir() if not file.name.startswith(".")):
        raise UserError(f"output {folder} holds files but not run.json, so no cluster job wrote it: name another")
    if there not in (None, run) and not overwrite:
        differences = [f"{key} {there.get(key)}, now {run[key]}" for key in run if there.get(key) != run[key]]
        raise UserError(
            f"output {folder} holds another run ({'; '.join(differences) or 'run.json'}): name another folder, or give "
            "--overwrite to remove its parts"
        )
    for pattern in (".part-*.part", *(["part-*.parquet"] if overwrite else [])):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    if there != run:
        with whole_file(run_file(folder)) as part:
            part.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def run_file(folder: Path) -> Path:
    """Return the file that describes the job."""
    return folder / "run.json"


def read_run(folder: Path) -> dict | None:
    """Return the content of run.json, empty if it is damaged, None if it is missing."""
    try:
        run = json.loads(run_file(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return {"class_agnostic": False, **run} if isinstance(run, dict) else {}  # older files do not hold it


def write_part(folder: Path, number: int, rows: list[dict]) -> None:
    """Write a part, whole or not at all, from rows with the columns of SCHEMA. Raises UserError."""
    file = part_file(folder, number)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")  # two write it if a worker only seemed lost
    try:
        with temporary.open("wb") as out:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), out)
            out.flush()
            os.fsync(out.fileno())  # or a machine that fails could leave an empty file under the final name
        temporary.replace(file)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"output {file} cannot be written: {reason}; parts already written are kept: correct it and run again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
