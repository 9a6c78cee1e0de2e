"""Detect on very many pictures, on this machine or a Ray cluster, and write Parquet parts with each picture once.

python tools/Detect_cluster.py photos/ --output boxes/                     this machine: nothing to set up
python tools/Detect_cluster.py "photos/**/*.jpg" --output boxes/ --workers 2
python tools/Detect_cluster.py s3://bucket/prefix --output /shared/boxes --address 10.0.0.1:6379 --gpus 1
python tools/Detect_cluster.py pictures.parquet --output boxes/            columns path, a string, and bytes, binary

The model is that of yolov3/configs.py, with any YOLO_FRAMEWORK. The sorted listing of pictures is cut into parts of
--part-size; part-000123.parquet has a row for each picture of part 123: path, width, height, boxes (x1, y1, x2, y2 in
pixels of the upright picture), scores, classes (names), model, and error, the reason why a picture cannot be read. A
part that exists is complete, so a killed job that is started again goes on where it was. run.json describes the job;
another job is refused in the same folder.

On a cluster the project and the output must lie in folders that all machines share under the same path. Every machine
needs its own credentials for S3. Parquet is read by row groups, which should not be larger than a part.
It needs: pip install -r requirements/ray.txt
"""

import argparse
import math
import sys
import time
from dataclasses import replace

import _path

try:
    import pyarrow  # noqa: F401
    import ray.data  # noqa: F401
except ImportError:
    sys.exit("error: Ray is not installed: pip install -r requirements/ray.txt")

from tools.cluster.listing import open_listing
from tools.cluster.parts import describe_run, missing_parts, prepare_output
from tools.cluster.workers import WorkerSettings, configured_constants, detect_parts, plan_workers, ray_running
from yolov3 import configs
from yolov3.checks import UserError, check_count, check_threshold, choose, printable, say_it_in_one_line, shell_path
from yolov3.detector import Timings
from yolov3.downloads import fetch_weights
from yolov3.loading import configured_model
from yolov3.settings import ScriptParser, write_settings

from tqdm import tqdm


def parse_arguments() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("source", help="folder, glob, s3://bucket/prefix, or Parquet: a file, folder or glob")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where parts go; all machines share it")
    parser.add_argument("--overwrite", action="store_true", help="remove the parts of another run from it")
    parser.add_argument("--part-size", type=int, default=256, help="pictures in a part (256)")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures detected at a time (8)")
    parser.add_argument("--address", metavar="HOST:PORT", help="Ray cluster to use (one on this machine alone)")
    parser.add_argument("--workers", type=int, help="processes that detect (one for each machine)")
    parser.add_argument("--cpus", type=int, help="CPUs, and threads of the network, of each worker (all of a machine)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each worker; with 0.5 two share one (0)")
    arguments = parser.parse_args()
    for name in ("part_size", "batch_size", "workers", "cpus"):
        if getattr(arguments, name) is not None:
            check_count(f"--{name.replace('_', '-')}", getattr(arguments, name), 1)
    if not 0 <= arguments.gpus < 1e3 or (arguments.gpus > 1 and arguments.gpus % 1):
        raise UserError(f"--gpus {arguments.gpus:g} must be a whole number, or a part of one")
    if "://" in arguments.output:
        raise UserError(f"--output {arguments.output} is not a folder: name one that all machines share")
    arguments.output = shell_path(arguments.output).absolute()
    return arguments


@say_it_in_one_line
def main() -> None:
    # 1. What to detect, with which model, and which parts exist
    arguments = parse_arguments()
    model, weights = configured_model()
    if model.framework == "tf":
        model = replace(model, precision=configs.YOLO_PRECISION)
    fetch_weights(weights)
    constants = "YOLO_SCORE_THRESHOLD", "YOLO_IOU_THRESHOLD"
    thresholds = {name[5:].lower(): check_threshold(name, getattr(configs, name)) for name in constants}
    thresholds["class_agnostic"] = choose("YOLO_CLASS_AGNOSTIC", configs.YOLO_CLASS_AGNOSTIC, (True, False))
    listing = open_listing(arguments.source, configs.YOLO_MAX_PIXELS)
    run = describe_run(model, weights, thresholds, configs.YOLO_MAX_PIXELS, listing, arguments.part_size)
    prepare_output(arguments.output, run, arguments.overwrite)
    pictures, parts = len(listing.names), math.ceil(len(listing.names) / arguments.part_size)
    numbers = missing_parts(arguments.output, parts)
    left = sum(min(arguments.part_size, pictures - number * arguments.part_size) for number in numbers)
    if not numbers:
        print(f"nothing to do: all {parts} parts, {pictures} pictures, are in {arguments.output}")
        return
    print(printable(f"{weights.name}: {model}"))

    def cut(number):
        return listing.cut(number * arguments.part_size, (number + 1) * arguments.part_size)

    # 2. Detect the parts that are missing
    done, started = [], time.monotonic()
    with ray_running(arguments.address):
        workers, cpus = plan_workers(arguments.workers, arguments.cpus, arguments.gpus)
        settings = WorkerSettings(
            output=arguments.output,
            model=run["model"],
            constants=configured_constants(cpus),
            batch_size=arguments.batch_size,
            workers=workers,
            cpus=cpus,
            gpus=arguments.gpus,
        )
        with tqdm(total=pictures, initial=pictures - left, unit=" pictures", disable=None) as bar:
            for part in detect_parts(settings, ((number, cut(number)) for number in numbers)):
                done.append(part)
                bar.update(part.pictures)

    # 3. Report
    if missing := missing_parts(arguments.output, parts):
        raise UserError(
            f"output {arguments.output} has no part {missing[0]} here, though a worker has written it: it must lie in "
            "a folder that all machines share"
        )
    unreadable, boxes, seconds = (sum(getattr(part, x) for part in done) for x in ("unreadable", "boxes", "seconds"))
    timings = (sum(getattr(part, x) for part in done) for x in ("detected", "preparing", "network", "suppression"))
    before = f"; {pictures - left} in {parts - len(done)} were done before" if left < pictures else ""
    print(f"{left} pictures in {len(done)} parts{before}")
    looked = f" with a score over {run['score_threshold']:g} ({model.name}, {len(model.classes)} classes)"
    print(f"{boxes} boxes{'' if boxes else looked}; {unreadable} pictures could not be read: column error says why")
    print(Timings(*timings))
    print(f"{time.monotonic() - started:.0f} s; {left / seconds:.1f} pictures a second and worker, start-up apart")
    write_settings(arguments.output)
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
