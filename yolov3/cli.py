"""The command line that detection_demo.py, detection_custom.py and object_tracker.py share."""

import argparse
import sys

from yolov3 import configs
from yolov3.checks import UserError, check_wanted, printable, project_path
from yolov3.detect import Job, Terminated
from yolov3.loading import Load_Yolo_model, configured_model
from yolov3.media.outputs import RESULT_FILES


def detect_from_command_line(
    description: str,
    default_source,
    weights=None,
    framework=None,
    features=None,
    class_agnostic=None,
    make_follower=None,
    score_threshold: float | None = None,
) -> int:
    """Do what detection_demo.py, detection_custom.py and object_tracker.py do, and return the exit code.

    default_source   what to detect on if the command line names nothing
    weights, framework, features, class_agnostic  as in `Load_Yolo_model`
    make_follower    () -> a `tracking.Follower`; None: nothing is followed
    score_threshold  0..1; None: YOLO_SCORE_THRESHOLD
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="picture, folder, glob, video, camera number or rtsp:// http:// URL")
    parser.add_argument("--output", metavar="PATH", help="file or folder for the results (DETECT_OUTPUT)")
    kinds = [name for name, row in RESULT_FILES.items() if make_follower or not row.of_tracks]
    for name in kinds:
        parser.add_argument(f"--{name}", metavar="PATH", default="", help=RESULT_FILES[name].help)
    parser.add_argument("--only", metavar="NAME,NAME", help="classes wanted; all if left out")
    parser.add_argument("--no-labels", action="store_true", help="draw boxes without their labels")
    parser.add_argument("--show", action="store_true", help="show the results in a window; q quits")
    arguments = parser.parse_args()

    default = configs.DETECT_OUTPUT
    if not isinstance(default, str):
        raise UserError(f'DETECT_OUTPUT = {default!r} must be a folder in quotes, or "" for no results')
    only = None if arguments.only is None else [name.strip() for name in arguments.only.split(",")]
    if only and not all(only):
        raise UserError(f"--only {arguments.only!r}: name the classes wanted, with commas between them")
    job = Job(
        default_source if arguments.source is None else arguments.source,
        default and project_path(default) if arguments.output is None else arguments.output,
        arguments.show,
        only,
        labels=not arguments.no_labels,
        follow=make_follower and make_follower(),
        **{name: getattr(arguments, name) for name in kinds},
    )
    if only:  # before the seconds that loading takes
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
    if summary.frames and not summary.boxes:
        constant = "TRACKER_HIGH_SCORE" if make_follower else "YOLO_SCORE_THRESHOLD"
        print(printable(nothing_found(detector, constant, only)))
    if make_follower and found is not None:
        print(printable(found.seen()))
    for path in job.written if summary.frames else ():
        print(printable(f"written: {path}"))
    for problem in summary.problems:
        print(printable(f"error: {problem}"), file=sys.stderr)
    return exit_code or (1 if summary.problems else 0)


def nothing_found(detector, constant, only):
    """Return what was looked for in vain, in words.

    constant  the one that gives the score threshold;  only  names of the classes wanted, or None
    """
    spec, wanted = detector.spec, f" of {', '.join(only)}" if only else ""
    threshold = getattr(configs, constant)
    return (
        f"0 boxes{wanted} with a score over {threshold:g} ({spec.name}, {len(spec.classes)} classes): "
        f"lower {constant} in yolov3/configs.py for doubtful ones, or take a model that knows what is shown"
    )
