"""Provide the command line that detection_demo.py, detection_custom.py and object_tracker.py share."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from yolov3 import configs
from yolov3.checks import UserError, printable, project_path, shell_path
from yolov3.detect import Job, Terminated
from yolov3.detector import Detector, check_wanted
from yolov3.loading import Load_Yolo_model, configured_model
from yolov3.media.outputs import RESULT_FILES
from yolov3.settings import ScriptParser, write_settings

if TYPE_CHECKING:  # a detection does without the tracker and SciPy
    from yolov3.tracking.follower import Follower


def detect_from_command_line(
    parser: ScriptParser,
    default_source: str | int | os.PathLike,
    weights: str | os.PathLike | None = None,
    framework: str | None = None,
    features: bool = False,
    class_agnostic: bool | None = None,
    make_follower: "Callable[[], Follower] | None" = None,
    score_threshold: float | None = None,
) -> int:
    """Detect, or detect and track, as the command line says, print a summary and return the exit code.

    parser           made before anything was read from configs.py
    default_source   what to detect on if the command line does not name a source
    weights, framework, features, class_agnostic  as in `Load_Yolo_model`
    make_follower    returns what follows the objects; None to detect only
    score_threshold  0..1; None means YOLO_SCORE_THRESHOLD
    """
    parser.add_argument("source", nargs="?", help="picture, folder, glob, video, camera number or address of a stream")
    parser.add_argument("--output", metavar="PATH", help="file or folder for the results (DETECT_OUTPUT)")
    kinds = [name for name, row in RESULT_FILES.items() if make_follower or not row.of_tracks]
    for name in kinds:
        parser.add_argument(f"--{name}", metavar="PATH", default="", help=RESULT_FILES[name].help)
    parser.add_argument("--only", metavar="NAME,NAME", help="classes to keep (all)")
    parser.add_argument("--no-labels", action="store_true", help="draw boxes without their labels")
    parser.add_argument("--show", action="store_true", help="show the results in a window; q quits")
    arguments = parser.parse_args()

    default = configs.DETECT_OUTPUT
    if not isinstance(default, str):
        raise UserError(f'DETECT_OUTPUT = {default!r} must be a folder in quotes, or "" for no results')
    only = None if arguments.only is None else [name.strip() for name in arguments.only.split(",")]
    if only and not all(only):
        raise UserError(f"--only {arguments.only!r}: name the classes wanted, with commas between them")
    output = default and project_path(default) if arguments.output is None else arguments.output
    job = Job(
        default_source if arguments.source is None else arguments.source,
        output,
        arguments.show,
        only,
        labels=not arguments.no_labels,
        follow=make_follower and make_follower(),
        **{name: getattr(arguments, name) for name in kinds},
    )
    if only:  # before the model is loaded, which takes seconds
        check_wanted(only, configured_model(weights, framework=framework, features=features)[0].classes)
    detector = Load_Yolo_model(weights, framework=framework, features=features, class_agnostic=class_agnostic)
    print(printable(f"{detector.name}: {detector.spec}"))
    exit_code = 0
    try:
        summary = job.run(detector, score_threshold=score_threshold)
    except Terminated as end:
        summary, exit_code = end.summary, int(end.code or 0)

    found = summary.found
    if job.source.count == 1 and found is not None:
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True):
            print(printable(f"{label} {score:.2f} at {', '.join(f'{x:.0f}' for x in box)}"))
        if summary.boxes:
            print(f"{summary.boxes} {'box' if summary.boxes == 1 else 'boxes'}")
    else:
        print(f"{summary.frames} {job.source.unit}, {summary.boxes} boxes; {summary.rates()}")
    print(detector.timings)
    if summary.frames and not summary.boxes:
        constant = "TRACKER_HIGH_SCORE" if make_follower else "YOLO_SCORE_THRESHOLD"
        print(printable(nothing_found(detector, constant, only)))
    if make_follower and found is not None:
        print(printable(found.seen()))
    if summary.frames and job.written:
        write_settings(shell_path(output) if output else job.written[0])
        for path in job.written:
            print(printable(f"written: {path}"))
    for problem in summary.problems:
        print(printable(f"error: {problem}"), file=sys.stderr)
    return exit_code or (1 if summary.problems else 0)


def nothing_found(detector: Detector, constant: str, only: list[str] | None) -> str:
    """Return a line that says what was looked for without finding any, and what to change.

    constant  the name of the constant that holds the score threshold
    only      names of the classes wanted; None for all
    """
    spec, wanted = detector.spec, f" of {', '.join(only)}" if only else ""
    threshold = getattr(configs, constant)
    return (
        f"0 boxes{wanted} with a score over {threshold:g} ({spec.name}, {len(spec.classes)} classes): "
        f"lower {constant} in yolov3/configs.py to see doubtful ones, or use a model trained on what is shown"
    )
