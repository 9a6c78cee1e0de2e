"""What scripts share: the command line of detection, and telling what is wrong with annotated pictures."""

import argparse
import sys

from yolov3 import configs
from yolov3.checks import UserError, printable, project_path
from yolov3.detect import Job, Terminated
from yolov3.media.outputs import RESULT_FILES


def detect_from_command_line(
    description, load, default_source=configs.DETECT_SOURCE, make_follower=None, score_threshold=None
):
    """What detection_demo.py, detection_custom.py and object_tracker.py do: arguments, job, model (`load()`), results
    -> exit code. make_follower: () -> a `tracking.Follower`; None: nothing is followed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="picture, folder, glob, video, camera number or rtsp:// http:// URL")
    parser.add_argument("--output", metavar="PATH", help=f"file or folder for the results ({configs.DETECT_OUTPUT})")
    kinds = [name for name, row in RESULT_FILES.items() if make_follower or not row.of_tracks]
    for name in kinds:
        parser.add_argument(f"--{name}", metavar="PATH", default="", help=RESULT_FILES[name].help)
    parser.add_argument("--only", metavar="NAME,NAME", help="classes wanted; all if left out")
    parser.add_argument("--no-labels", action="store_true", help="draw boxes without their labels")
    parser.add_argument("--show", action="store_true", help="show the results in a window; q quits")
    arguments = parser.parse_args()

    only = None if arguments.only is None else [name.strip() for name in arguments.only.split(",")]
    if only and not all(only):
        raise UserError(f"--only {arguments.only!r}: name the classes wanted, with commas between them")
    job = Job(
        default_source if arguments.source is None else arguments.source,
        configs.DETECT_OUTPUT and project_path(configs.DETECT_OUTPUT) if arguments.output is None else arguments.output,
        arguments.show,
        only,
        labels=not arguments.no_labels,
        follow=make_follower and make_follower(),
        **{name: getattr(arguments, name) for name in kinds},
    )
    detector = load()
    print(printable(f"{detector.name}: {detector.spec}"))
    exit_code = 0
    try:
        summary = job.run(detector, score_threshold=score_threshold)
    except Terminated as end:
        summary, exit_code = end.summary, end.code

    found = summary.found
    if job.source.count == 1 and found is not None:
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True):
            print(printable(f"{label} {score:.2f} at {', '.join(f'{x:.0f}' for x in box)}"))
        if summary.boxes:
            print(f"{summary.boxes} {'box' if summary.boxes == 1 else 'boxes'}")
    else:
        print(f"{summary.frames} frames, {summary.boxes} boxes; {summary.rates()}")
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
    """What was looked for in vain. constant: names the score threshold; only: names of the classes wanted, or None."""
    spec, wanted = detector.spec, f" of {', '.join(only)}" if only else ""
    threshold = getattr(configs, constant)
    return (
        f"0 boxes{wanted} with a score over {threshold:g} ({spec.name}, {len(spec.classes)} classes): "
        f"lower {constant} in yolov3/configs.py for doubtful ones, or take a model that knows what is shown"
    )
