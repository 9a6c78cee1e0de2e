"""Score and time deep_sort's tracker beside roboflow's `trackers`, on the same detections.

pip install -r requirements/tracking.txt                             installs what scores, and the other trackers
python -m tools.benchmarks.tracking                                  scores two synthetic scenes of each kind
python -m tools.benchmarks.tracking --data FOLDER                    scores FOLDER/det.txt and gt.txt of MOTChallenge
python -m tools.benchmarks.tracking --data FOLDER --found OURS.txt   scores tracks that another program wrote
python -m tools.benchmarks.tracking --speed 10 100                   times a frame with 10 and with 100 objects
python -m tools.benchmarks.tracking --embedders none detector FILE   scores embedders on painted scenes

`trackeval` computes MOTA, IDF1, identity switches (IDs) and fragmentations (Frag) at IoU 0.5, HOTA from 0.05 to 0.95.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from deep_sort import Tracker
from deep_sort.matching import iou_matrix
from tools.benchmarks.tracking_contenders import CONTENDERS, TIMED, NotInstalled, Update
from tools.benchmarks.tracking_scenes import KINDS, WIDTH, Scene, make_scene
from tools.benchmarks.tracking_sprites import paint_scene
from yolov3.checks import UserError, as_given, check_amount, check_count, say_it_in_one_line, shell_path
from yolov3.settings import ScriptParser

if TYPE_CHECKING:  # which imports TensorFlow
    from yolov3.tracking.embedders import Embedder

import numpy as np

PAINTED = ("crossings", "occlusions", "crowd")  # the kinds of scenes where people hide each other
SCORES = ("MOTA", "IDF1", "HOTA", "IDs", "Frag")
FRAMES_TIMED = 200  # of each round of --speed
WARM_UP = 10  # untimed frames before them
LONGEST = 3.0  # seconds a contender may take in a round


def read_mot(path: Path) -> np.ndarray:
    """Return the rows (n, 7) of a MOTChallenge file: frame, number, left, top, width, height and score."""
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2, usecols=range(7))
    except OSError:
        raise UserError(f"{path} is missing or cannot be read: it must be a MOTChallenge text file") from None
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is not a MOTChallenge text file: {str(error).splitlines()[0]}") from None
    if not len(rows) or not np.isfinite(rows).all():
        raise UserError(f"{path} holds no rows, or numbers that are not finite")
    return rows


def read_scene(folder: Path, frame_rate: float) -> Scene:
    """Return the Scene of a folder's det.txt and gt.txt, without rows of gt.txt whose 7th column is 0."""
    detections, truth = (read_mot(folder / name) for name in ("det.txt", "gt.txt"))
    truth = truth[truth[:, 6] != 0]
    frames = np.arange(1, max(detections[:, 0].max(), truth[:, 0].max(initial=1)) + 1).astype(int)
    return Scene(folder.resolve().name, frame_rate, frames, detections, truth)


def corners(rows: np.ndarray) -> np.ndarray:
    """Return the xyxy boxes (n, 4) of MOTChallenge rows."""
    return np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], 1)


def by_frame(rows: np.ndarray, frames: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each frame."""
    return [rows[rows[:, 0] == frame] for frame in frames]


def follow(update: Update, scene: Scene) -> tuple[np.ndarray, float]:
    """Run a contender over a scene. Return its tracks as rows like those of `read_mot`, and the ms a frame."""
    found, seconds = [], 0.0
    for frame, rows in zip(scene.frames, by_frame(scene.detections, scene.frames), strict=True):
        boxes, scores = corners(rows), rows[:, 6]
        begin = time.perf_counter()
        tracks = update(boxes, scores, frame / scene.frame_rate)  # [(number, xyxy)]
        seconds += time.perf_counter() - begin
        found += [(frame, number, *box[:2], *(box[2:] - box[:2]), 1) for number, box in tracks]
    return np.array(found, float).reshape(-1, 7), 1000 * seconds / len(scene.frames)


def score_tracks(truth: np.ndarray, found: np.ndarray, frames: np.ndarray) -> dict[str, float]:
    """Return the SCORES, by name, of the rows that were found against those of the truth. Raises UserError."""
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError:
        raise UserError("`trackeval` is not installed: pip install -r requirements/tracking.txt") from None
    numbers = [np.unique(rows[:, 1]) for rows in (truth, found)]
    frame_by_frame = [by_frame(rows, frames) for rows in (truth, found)]
    ids = [[np.searchsorted(n, rows[:, 1]) for rows in part] for n, part in zip(numbers, frame_by_frame, strict=True)]
    data = {
        "num_gt_dets": sum(map(len, ids[0])),
        "num_tracker_dets": sum(map(len, ids[1])),
        "num_gt_ids": len(numbers[0]),
        "num_tracker_ids": len(numbers[1]),
        "num_timesteps": len(frames),
        "gt_ids": ids[0],
        "tracker_ids": ids[1],
        "similarity_scores": [iou_matrix(corners(a), corners(b)) for a, b in zip(*frame_by_frame, strict=True)],
    }
    quiet = {"THRESHOLD": 0.5, "PRINT_CONFIG": False}
    clear, identity = CLEAR(quiet).eval_sequence(data), Identity(quiet).eval_sequence(data)
    hota = HOTA().eval_sequence(data)["HOTA"].mean()
    return dict(zip(SCORES, (clear["MOTA"], identity["IDF1"], hota, clear["IDSW"], clear["Frag"]), strict=True))


def compare_trackers(groups: dict[str, list[Scene]]) -> None:
    """Print a row for each contender and each group of {title: scenes}: the means over its scenes."""
    print(f"{'scene':16}{'tracker':12}" + "".join(f"{name:>8}" for name in (*SCORES, "ms")))
    every = {}
    for title, scenes in groups.items():
        for name, make in CONTENDERS.items():
            try:
                rows = [_scored(make, scene) for scene in scenes]
            except NotInstalled as error:
                print(f"{title:16}{name:12}  {error}")
                continue
            every.setdefault(name, []).extend(rows)
            _print_row(title, name, np.mean(rows, 0))
    if len(groups) > 1:
        for name, rows in every.items():
            _print_row("all", name, np.mean(rows, 0))


def _scored(make, scene):
    found, milliseconds = follow(make(scene.frame_rate), scene)
    return (*score_tracks(scene.truth, found, scene.frames).values(), milliseconds)


def compare_embedders(embedders: "dict[str, Embedder | None]", seeds: Iterable[int]) -> None:
    """Print the scores over painted scenes, and the ms of embedding, of {name: embedder, or None for motion only}."""
    print(f"{'scene':16}{'embedder':12}" + "".join(f"{name:>8}" for name in (*SCORES, "ms")))
    every = {}
    for kind in PAINTED:
        rows = {}
        for seed in seeds:
            scene = make_scene(kind, seed)
            for name, row in _embedded(embedders, scene).items():
                rows.setdefault(name, []).append(row)
                every.setdefault(name, []).append(row)
        for name, of_kind in rows.items():
            _print_row(kind, name, np.mean(of_kind, 0))
    for name, rows in every.items():
        _print_row("all", name, np.mean(rows, 0))


def _embedded(embedders, scene):
    """Return {name: scores and ms} of all embedders on one scene, which is painted only once."""
    trackers = {name: Tracker(frame_rate=scene.frame_rate) for name in embedders}
    found, seconds = {name: [] for name in embedders}, dict.fromkeys(embedders, 0.0)
    pictures = zip(scene.frames, by_frame(scene.detections, scene.frames), paint_scene(scene), strict=True)
    for frame, rows, picture in pictures:
        boxes, classes = corners(rows), np.zeros(len(rows), int)
        for name, embed in embedders.items():
            begin = time.perf_counter()
            embeddings = embed and embed(picture, boxes)
            seconds[name] += time.perf_counter() - begin
            tracks = trackers[name].update(boxes, rows[:, 6], classes, embeddings, time=frame / scene.frame_rate)
            found[name] += [(frame, t.number, *t.box[:2], *(t.box[2:] - t.box[:2]), 1) for t in tracks]
    scores = {
        name: score_tracks(scene.truth, np.array(rows, float), scene.frames).values() for name, rows in found.items()
    }
    return {name: (*row, 1000 * seconds[name] / len(scene.frames)) for name, row in scores.items()}


def load_embedders(names: list[str], weights: str | None, classes: str | None) -> "dict[str, Embedder | None]":
    """Return {name: embedder} of values of TRACKER_EMBEDDER. "detector" is the model of the weights or configs.py."""
    from yolov3.loading import Load_Yolo_model
    from yolov3.tracking.embedders import load_embedder

    embedders = {}
    for name in names:
        if name == "detector":
            detector = Load_Yolo_model(weights and as_given(weights), classes and as_given(classes), features=True)
            embedders[name] = detector.embed
        else:
            embedders[Path(name).name[:11]] = None if name == "none" else load_embedder(as_given(name))
    return embedders


def _print_row(title, name, row):
    print(f"{title:16}{name:12}" + "".join(f"{x:8.3f}" for x in row[:3]), end="")
    print(f"{row[3]:8.1f}{row[4]:8.1f}" + (f"{row[5]:8.2f}" if len(row) > 5 else ""), flush=True)


def time_them(counts: list[int], rounds: int) -> None:
    """Print the ms a frame of association alone: the median of rounds, in each of which the contenders take turns."""
    print(f"{'objects':>8}  {'tracker':20}{'ms':>9}{'to ours':>9}")
    for count in counts:
        milliseconds = {}
        for seed in range(rounds):
            frames = steady_crowd(count, seed)
            for name, make in TIMED.items():
                try:
                    update = make(30.0)
                except NotInstalled as error:
                    milliseconds[name] = str(error)
                    continue
                milliseconds.setdefault(name, []).append(_milliseconds(update, frames))
        ours = np.median(milliseconds["ours"])
        for name, measured in milliseconds.items():
            said = measured if isinstance(measured, str) else None
            figure = f"{np.median(measured):9.3f}{np.median(measured) / ours:9.1f}" if said is None else f"  {said}"
            print(f"{count:8}  {name:20}{figure}", flush=True)


def steady_crowd(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the boxes and scores, frame by frame, of objects that wander, hardly overlap and are always seen."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    centre = np.stack(np.divmod(np.arange(count), side), 1) * WIDTH / side + 40.0
    size, velocity = rng.uniform(30, 60, (count, 2)), rng.normal(0, 1, (count, 2))
    frames = []
    for _ in range(WARM_UP + FRAMES_TIMED):
        centre = centre + velocity
        velocity = 0.95 * velocity + rng.normal(0, 0.2, (count, 2))
        boxes = np.concatenate([centre - size / 2, centre + size / 2], 1) + rng.normal(0, 1, (count, 4))
        frames.append((boxes, rng.uniform(0.7, 0.99, count)))
    return frames


def _milliseconds(update, frames):
    """Return the ms a frame after the warm-up. A slow contender is stopped after LONGEST seconds."""
    for i, (boxes, scores) in enumerate(frames):
        if i == WARM_UP:
            begin = time.perf_counter()
        update(boxes, scores, i / 30)
        if i >= WARM_UP and time.perf_counter() - begin > LONGEST:
            break
    return 1000 * (time.perf_counter() - begin) / (i + 1 - WARM_UP)


@say_it_in_one_line
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="folder of det.txt and gt.txt (synthetic scenes)")
    parser.add_argument("--found", metavar="FILE", help="score these tracks against --data instead of running trackers")
    parser.add_argument("--frame-rate", type=float, default=30.0, help="frames a second of --data (%(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="synthetic scenes of each kind (%(default)s)")
    parser.add_argument("--speed", type=int, nargs="+", metavar="OBJECTS", help="time them with so many instead")
    parser.add_argument("--embedders", nargs="+", metavar="NAME", help="compare these: none, detector, or files")
    parser.add_argument("--weights", metavar="PATH", help="weights of the embedder detector (YOLO_CUSTOM_WEIGHTS)")
    parser.add_argument("--classes", metavar="FILE", help="class names of a .weights file (TRAIN_CLASSES)")
    parser.add_argument("--rounds", type=int, default=5, help="of --speed (%(default)s)")
    arguments = parser.parse_args()
    if check_amount("--frame-rate", arguments.frame_rate) <= 0:
        raise UserError(f"--frame-rate {arguments.frame_rate} must be more than 0")
    if arguments.speed:
        counts = [check_count("--speed", count, 1) for count in arguments.speed]
        time_them(counts, check_count("--rounds", arguments.rounds, 1))
    elif arguments.embedders:
        embedders = load_embedders(arguments.embedders, arguments.weights, arguments.classes)
        compare_embedders(embedders, range(check_count("--seeds", arguments.seeds, 1)))
    elif arguments.data:
        scene = read_scene(shell_path(arguments.data), arguments.frame_rate)
        if arguments.found:
            found = read_mot(shell_path(arguments.found))
            print(f"{'scene':16}{'tracker':12}" + "".join(f"{name:>8}" for name in SCORES))
            _print_row(scene.name, "found", list(score_tracks(scene.truth, found, scene.frames).values()))
        else:
            compare_trackers({scene.name: [scene]})
    elif arguments.found:
        raise UserError("--found needs --data FOLDER with the truth to score it against")
    else:
        seeds = range(check_count("--seeds", arguments.seeds, 1))
        compare_trackers({kind: [make_scene(kind, seed) for seed in seeds] for kind in KINDS})


if __name__ == "__main__":
    main()
