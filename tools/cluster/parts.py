"""The output folder of a cluster job: run.json, which says what the job is, and its numbered parts.

A part is a Parquet file with a row for each picture of one stretch of the listing. It is written under a temporary name
and renamed when whole, so a part that is there is done, and one that is written twice is still there once.
"""

import hashlib
import json
import os
import uuid

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
        ("model", pa.string()),  # its name, @ and the first digits of its digest
        ("error", pa.string()),  # why the picture cannot be read; null if it can
    ]
)
DIGITS = 12  # of a digest, where people read it


# --- What a job is -------------------------------------------------------------------------------------------------


def describe_run(model, weights, thresholds, max_pixels, listing, part_size):
    """What run.json is to say -> dict. Two jobs of which it says the same write the same parts."""
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


def model_digest(model, weights):
    """Of a weights file, or of all files of a checkpoint folder, and of what configs.py adds to them."""
    files = sorted(x for x in weights.rglob("*") if x.is_file()) if weights.is_dir() else [weights]
    try:
        return digest([json.dumps([model.classes, model.heads]).encode(), *(file.read_bytes() for file in files)])
    except OSError as error:
        raise UserError(f"{weights} cannot be read: {error.strerror}") from None


def digest(pieces):
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()


# --- The folder ----------------------------------------------------------------------------------------------------


def part_file(folder, number):
    return folder / f"part-{number:06d}.parquet"


def missing_parts(folder, count):
    """The numbers, of 0 to count - 1, whose parts are not there."""
    there = {file.name for file in folder.glob("part-*.parquet") if file.is_file()}
    return [number for number in range(count) if part_file(folder, number).name not in there]


def prepare_output(folder, run, overwrite):
    """Makes the folder one of this run and removes what a killed one has half-written. Raises UserError if it holds
    another run, unless that is to be overwritten, or things of other kinds."""
    check_writable(folder)
    there = read_run(folder)
    if there is None and any(file for file in folder.iterdir() if not file.name.startswith(".")):
        raise UserError(f"output {folder} holds files but no run.json, so it is not one of ours: name another")
    if there not in (None, run) and not overwrite:
        differences = [f"{key} {there.get(key)}, now {run[key]}" for key in run if there.get(key) != run[key]]
        raise UserError(
            f"output {folder} is of another run ({'; '.join(differences) or 'run.json'}): name another folder, or give "
            "--overwrite to remove its parts"
        )
    for pattern in (".part-*.part", *(["part-*.parquet"] if overwrite else [])):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    if there != run:
        with whole_file(run_file(folder)) as part:
            part.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def run_file(folder):
    return folder / "run.json"


def read_run(folder):
    """What run.json says -> dict, empty if it is damaged; None if it is missing."""
    try:
        run = json.loads(run_file(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return {"class_agnostic": False, **run} if isinstance(run, dict) else {}  # older ones do not say


def write_part(folder, number, rows):
    """Rows, dicts by SCHEMA, -> the part, whole or not at all. Raises UserError."""
    file = part_file(folder, number)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")  # two may write it: one only seemed lost
    try:
        with temporary.open("wb") as out:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), out)
            out.flush()
            os.fsync(out.fileno())  # a machine that goes down leaves no empty file under the name that means done
        temporary.replace(file)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"output {file} cannot be written: {reason}; parts already written are kept: put it right and run again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
