"""Scores against hand-worked cases and pycocotools; the script as a person runs it."""

import contextlib
import io
import json
import resource
import shutil
import sys
import time

import evaluate_mAP
from yolov3 import configs
from yolov3.annotations.format import Record
from yolov3.charts import draw_curves
from yolov3.checkpoint import ModelSpec, write_checkpoint
from yolov3.checks import PROJECT, UserError
from yolov3.confusion import confusion_matrix
from yolov3.darknet import convolutions, get_arrays
from yolov3.detector import Detections
from yolov3.evaluation import SUMMARY, evaluate
from yolov3.networks import NETWORKS
from yolov3.report import draw_report, table, write_coco_json
from yolov3.yolov4 import Create_Yolo

import cv2
import numpy as np
import pytest
from oracle import iou
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_scripts import project, run  # noqa: F401  a fixture

NAMES = ("cat", "dog", "cup")
SIZE = (100, 120)  # height, width


def picture_file(path):
    cv2.imwrite(str(path), np.full((*SIZE, 3), 90, np.uint8))
    return path


def boxes_of(rows):
    """(x1, y1, x2, y2, class) rows -> boxes, classes as records and detections have them."""
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return rows[:, :4], rows[:, 4].astype(np.int32)


def answer(*rows):
    """(score, x1, y1, x2, y2, class) rows -> Detections."""
    boxes, classes = boxes_of([row[1:] for row in rows])
    return Detections(boxes, np.array([row[0] for row in rows], np.float32), classes, NAMES)


@pytest.fixture
def measure(tmp_path):
    """measure(truth and answer of each picture, ...) -> Scores of a detector that answers so."""

    def measure(*pictures, **options):
        truths, answers = zip(*pictures, strict=True)
        records = [Record(picture_file(tmp_path / f"{i}.png"), *boxes_of(rows)) for i, rows in enumerate(truths)]
        remaining = iter(answers)

        def detector(frames, score_threshold, iou_threshold):
            assert (score_threshold, iou_threshold) == (0.001, 0.45)
            return [next(remaining) for _ in frames]

        return evaluate(detector, records, [SIZE] * len(records), NAMES, 0.001, 0.45, **options)

    return measure


def some(scores, names):
    return [getattr(scores, name) for name in names.split()]


def random_pictures():
    """Twelve pictures, each with six boxes, found about where they are, and found again in each other's class. Scores
    have one decimal, so that many are equal."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(12):
        corners, sides = random.uniform(0, 60, (6, 2)), random.uniform(4, 60, (6, 2))
        boxes, classes = np.concatenate([corners, corners + sides], 1), random.integers(0, 2, 6)
        moved = np.concatenate([boxes + random.normal(0, 3, boxes.shape), boxes[::-1]])
        rows = [(*box, label) for box, label in zip(boxes, classes, strict=True)]
        found = zip(random.uniform(0, 1, 12).round(1), moved, np.tile(classes, 2), strict=True)
        pictures.append((rows, answer(*((score, *box, label) for score, box, label in found))))
    return pictures


def by_pycocotools(truth, results, classes=None):
    """COCO's twelve numbers of two files; of some classes alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth))
        oracle = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        oracle.params.catIds = classes or oracle.params.catIds
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    return oracle.stats


def precision_and_recall(truth, detections, label, threshold):
    """Of one class in rows of COCO's formats, at IoU 0.5, with the boxes of that score and better: best first, each
    takes the box it overlaps most of those that are left."""
    boxes = {}
    for row in truth["annotations"]:
        if row["category_id"] == label:
            boxes.setdefault(row["image_id"], []).append(xyxy(row["bbox"]))
    count = sum(map(len, boxes.values()))
    found = [row for row in detections if row["category_id"] == label and row["score"] >= threshold]
    right = 0
    for row in sorted(found, key=lambda row: -row["score"]):
        left = boxes.get(row["image_id"], [])
        best = max(left, key=lambda box: iou(box, xyxy(row["bbox"])), default=None)
        if best and iou(best, xyxy(row["bbox"])) >= 0.5:
            left.remove(best)
            right += 1
    return right / len(found), right / count


def xyxy(box):
    left, top, width, height = box
    return [left, top, left + width, top + height]


@contextlib.contextmanager
def full_disk():
    """No file can grow meanwhile; pytest's own output neither, so only around a call."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_average_precision_worked_by_hand(measure):
    """Three cats; the best answer is right, the second the same cat once more, the third right: precision 1 up to a
    recall of 1/3, 2/3 up to 2/3, 0 beyond. COCO reads it at 0, 0.01 ... 1."""
    found = answer((0.9, 0, 0, 40, 40, 0), (0.8, 0, 0, 40, 40, 0), (0.7, 60, 50, 80, 70, 0))
    scores = measure(([(0, 0, 40, 40, 0), (60, 50, 80, 70, 0)], found), ([(10, 10, 110, 90, 0)], answer()))
    np.testing.assert_allclose(scores.curves[0], [1] * 34 + [2 / 3] * 33 + [0] * 34)
    expected = (34 + 33 * 2 / 3) / 101
    assert some(scores, "AP AP50 AP75") == pytest.approx([expected] * 3)
    assert some(scores, "AR1 AR100") == pytest.approx([1 / 3, 2 / 3])
    assert scores.classes[0] == ("cat", 3, *[pytest.approx(x) for x in (expected, expected, 2 / 3, 2 / 3, 0.7)])


def test_iou_and_sizes_worked_by_hand(measure):
    """IoU 0.9 is right at nine of COCO's ten. Boxes of 20 x 20, 50 x 50 and 100 x 100 pixels."""
    scores = measure(
        ([(0, 0, 20, 20, 0)], answer((0.9, 0, 0, 20, 20, 0))),
        ([(0, 0, 50, 50, 0)], answer((0.9, 0, 0, 50, 45, 0))),
        ([(0, 0, 100, 100, 0)], answer()),
        ([], answer()),
    )
    assert some(scores, "AP_small AP_medium AP_large") == pytest.approx([1, 0.9, 0])
    assert some(scores, "AR_small AR_medium AR_large") == pytest.approx([1, 0.9, 0])
    assert some(scores, "AP50 AP75") == pytest.approx([67 / 101] * 2)


def test_the_files_give_pycocotools_the_same_numbers(measure, tmp_path):
    scores = measure(*random_pictures(), batch_size=5)
    write_coco_json(tmp_path / "out", scores)
    assert {x.name for x in (tmp_path / "out").iterdir()} == {"detections.json", "truth.json"}
    stats = by_pycocotools(tmp_path / "out" / "truth.json", tmp_path / "out" / "detections.json")
    ours = some(scores, " ".join(SUMMARY))
    assert 0.1 < scores.AP50 < 0.9
    np.testing.assert_array_equal(np.nan_to_num(ours, nan=-1), stats)
    for label in (0, 1):
        stats = by_pycocotools(tmp_path / "out" / "truth.json", tmp_path / "out" / "detections.json", [label])
        row = scores.classes[label]
        assert [row.AP, row.AP50, scores.curves[label].mean()] == pytest.approx([stats[0], stats[1], stats[1]])


def test_precision_and_recall_are_those_of_the_best_f1(measure):
    scores = measure(*random_pictures())
    for label, row in enumerate(scores.classes[:2]):
        every = [
            precision_and_recall(scores.truth, scores.detections, label, x["score"])
            for x in scores.detections
            if x["category_id"] == label
        ]
        best = max(2 * p * r / (p + r) for p, r in every if p)
        assert 2 * row.precision * row.recall / (row.precision + row.recall) == pytest.approx(best)
        there = precision_and_recall(scores.truth, scores.detections, label, row.score)
        assert (row.precision, row.recall) == pytest.approx(there)


def test_a_false_box_of_a_lower_score_is_cut_off(measure):
    """Two cats, one found: precision 1 up to a recall of 0.5, which COCO reads at 0, 0.01 ... 0.5."""
    found = answer((0.75, 0, 0, 40, 40, 0), (0.5, 0, 60, 20, 90, 0))
    scores = measure(([(0, 0, 40, 40, 0), (60, 50, 80, 70, 0)], found))
    assert scores.classes[0] == ("cat", 2, *[pytest.approx(x) for x in (51 / 101, 51 / 101, 1, 0.5, 0.75)])


@pytest.mark.parametrize("right_first", [True, False])
def test_no_threshold_divides_equal_scores(measure, right_first):
    rows = [(0.5, 0, 0, 40, 40, 0), (0.5, 60, 60, 80, 80, 0)]
    scores = measure(([(0, 0, 40, 40, 0)], answer(*(rows if right_first else rows[::-1]))))
    assert some(scores.classes[0], "precision recall score") == [0.5, 1, 0.5]


def test_the_scores_are_those_of_any_batch_size(measure):
    one, other, whole = (measure(*random_pictures(), batch_size=size) for size in (1, 5, 100))
    for scores in (other, whole):
        assert some(scores, " ".join(SUMMARY)) == pytest.approx(some(one, " ".join(SUMMARY)), abs=0, nan_ok=True)
        assert scores.classes[:2] == one.classes[:2]
        assert (scores.detections, scores.truth) == (one.detections, one.truth)


def test_a_row_of_the_results_is_one_of_coco(measure):
    scores = measure(([], answer()), ([(10, 20, 30, 60, 2)], answer((0.5, 11, 20, 30.5, 60, 2))))
    assert scores.detections == [{"image_id": 2, "category_id": 2, "bbox": [11, 20, 19.5, 40], "score": 0.5}]
    assert scores.truth["images"][1] == {"id": 2, "file_name": "1.png", "width": 120, "height": 100}
    assert scores.truth["annotations"][0]["bbox"] == [10, 20, 20, 40]
    assert scores.truth["categories"][2] == {"id": 2, "name": "cup"}


def test_without_any_detection_all_is_zero(measure, tmp_path):
    scores = measure(([(0, 0, 40, 40, 0)], answer()), ([(0, 0, 40, 40, 1)], answer()))
    assert (scores.AP, scores.AP50, scores.AR100, scores.detections) == (0, 0, 0, [])
    assert [row.AP50 for row in scores.classes[:2]] == [0, 0]
    assert "cat      1    0.0    0.0         0.0     0.0         -" in table(scores)
    draw_curves(tmp_path / "curves.png", scores)
    assert cv2.imread(str(tmp_path / "curves.png")) is not None


def test_a_class_without_boxes_is_a_dash_and_does_not_count(measure):
    scores = measure(([(0, 0, 40, 40, 0)], answer((0.9, 0, 0, 40, 40, 0), (0.8, 0, 0, 40, 40, 2))))
    assert some(scores, "AP50") == pytest.approx([1])
    assert np.isnan(scores.curves[1:]).all() and np.isnan([row.AP for row in scores.classes[1:]]).all()
    rows = {line.split()[0]: line.split()[1:] for line in table(scores).splitlines() if line.split()}
    assert rows["cup"] == ["0", "-", "-", "-", "-", "-"]
    assert rows["cat"] == ["1", "100.0", "100.0", "100.0", "100.0", "0.900"]


def test_a_broken_picture_is_named_and_left_out_with_its_boxes(measure, tmp_path):
    whole, broken = (picture_file(tmp_path / name) for name in ("a.png", "b.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    box = boxes_of([(0, 0, 40, 40, 0)])
    records = [Record(broken, *box), Record(whole, *box)]

    def detector(frames, score_threshold, iou_threshold):
        return [answer((0.9, 0, 0, 40, 40, 0))] * len(frames)

    scores = evaluate(detector, records, [SIZE] * 2, NAMES, 0.001, 0.45, batch_size=2)
    assert some(scores, "AP50") == pytest.approx([1])
    assert scores.problems == [f"picture {broken} is truncated or damaged"]
    assert [x["id"] for x in scores.truth["images"]] == [2]  # ids do not move up
    with pytest.raises(UserError, match="none of the 1 pictures can be read; picture .*b.png is truncated"):
        evaluate(detector, records[:1], [SIZE], NAMES, 0.001, 0.45)


def test_only_the_detectors_time_counts(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    records = [Record(picture_file(tmp_path / f"{i}.png"), *boxes_of([])) for i in range(5)]
    batches = []

    def detector(frames, score_threshold, iou_threshold):
        batches.append(len(frames))
        clock[0] += 0.02 * len(frames)
        return [answer()] * len(frames)

    scores = evaluate(detector, records, [SIZE] * 5, NAMES, 0.001, 0.45, batch_size=2)
    assert batches == [2, 2, 1]
    assert scores.images_per_second == pytest.approx(50)


def test_a_batch_size_of_nothing_is_refused(measure):
    with pytest.raises(UserError, match="TEST_BATCH_SIZE = 0 must be a whole number, 1 or more"):
        measure(([], answer()), batch_size=0)


def test_precision_and_recall_by_score_by_hand(measure):
    truth = [(0, 0, 40, 40, 0), (50, 50, 90, 90, 0)]
    scores = measure((truth, answer((0.9, 0, 0, 40, 40, 0), (0.5, 10, 50, 40, 90, 0), (0.3, 50, 50, 90, 90, 0))))
    precision, recall = scores.by_score[0]
    at = [0, 30, 31, 50, 51, 90, 91]  # hundredths
    assert recall[at].tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5, 0]
    assert precision[at[:-1]].tolist() == pytest.approx([2 / 3, 2 / 3, 0.5, 0.5, 1, 1]) and np.isnan(precision[91])
    assert np.isnan(scores.by_score[1:]).all()


def test_a_confusion_matrix_by_hand(measure):
    found = answer(
        (0.9, 0, 0, 40, 40, 1),  # the cat, taken for a dog
        (0.8, 2, 0, 42, 40, 0),  # the same cat: it has a partner already
        (0.7, 50, 50, 90, 90, 1),  # the dog
        (0.2, 0, 50, 40, 90, 2),  # the cup, but under the threshold
    )
    truth = [(0, 0, 40, 40, 0), (50, 50, 90, 90, 1), (0, 50, 40, 90, 2)]
    record = Record(None, *boxes_of(truth))
    matrix = confusion_matrix([record, Record(None, *boxes_of([]))], {0: found, 1: answer()}, 3, 0.3)
    assert matrix.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]


def test_of_two_boxes_a_detection_belongs_to_the_one_it_overlaps_most():
    record = Record(None, *boxes_of([(0, 0, 40, 40, 0), (4, 0, 44, 40, 1)]))
    found = {0: answer((0.9, 4, 0, 44, 40, 1), (0.8, 0, 0, 40, 40, 0))}
    assert confusion_matrix([record], found, 3, 0.3).diagonal().tolist() == [1, 1, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("names", [("$a_{", "_b", "数"), tuple(f"class {i}" for i in range(30)), ("x" * 200,)])
def test_a_report_is_drawn_whatever_the_names(names, tmp_path, recwarn):
    boxes = boxes_of([(0, 0, 40, 40, i) for i in range(len(names))])
    found = Detections(boxes[0], np.linspace(0.9, 0.1, len(names), dtype=np.float32), boxes[1], names)
    records = [Record(picture_file(tmp_path / "a.png"), *boxes)]
    scores = evaluate(lambda frames, **_: [found], records, [SIZE], names, 0.001, 0.45)
    drawn = draw_report(tmp_path / "out", scores, records, 0.05, 10**6)
    assert {x.name for x in (tmp_path / "out").iterdir()} == set(drawn)
    assert all(min(cv2.imread(str(tmp_path / "out" / name)).shape[:2]) > 400 for name in drawn)
    assert not recwarn


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(measure, tmp_path):
    scores = measure(([(0, 0, 40, 40, 0)], answer()))
    (tmp_path / "out" / "curves.png").mkdir(parents=True)
    with pytest.raises(UserError, match="output .*curves.png cannot be written"):
        draw_curves(tmp_path / "out" / "curves.png", scores)
    assert [x.name for x in (tmp_path / "out").iterdir()] == ["curves.png"]


WRITERS = {"json": write_coco_json, "curves": lambda folder, scores: draw_curves(folder / "curves.png", scores)}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_the_old_results(write, measure, tmp_path):
    out = tmp_path / "out"
    write(out, measure(([(0, 0, 40, 40, 0)], answer())))
    old = {x.name: x.read_bytes() for x in out.iterdir()}
    scores = measure(([(0, 0, 40, 40, 0)], answer((0.9, 0, 0, 40, 40, 0))))
    with pytest.raises(UserError, match="output .* cannot be written: File too large"), full_disk():
        write(out, scores)
    assert {x.name: x.read_bytes() for x in out.iterdir()} == old
    write(out, scores)
    assert {x.name: x.read_bytes() for x in out.iterdir()} != old


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_in_place_of_the_folder_is_one_line(write, measure, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="output .* cannot be written"):
        write(tmp_path / "out", measure(([(0, 0, 40, 40, 0)], answer())))
    assert (tmp_path / "out").read_text() == "mine"


# --- evaluate_mAP.py -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint folder, small and untrained; its heads' biases make sure that it finds a few boxes."""
    network = Create_Yolo(64, "yolov4", True, NAMES)
    for conv, norm in convolutions(network):
        if norm is None:
            conv.bias.assign(np.tile([0, 0, 0, 0, 1, 2, -9, -9], 3))
    folder = tmp_path_factory.mktemp("model") / "tiny"
    about = ModelSpec("yolov4", True, NAMES, (64, 64), "letterbox", NETWORKS["yolov4-tiny"].heads)
    write_checkpoint(folder, about, get_arrays(network), "a test")
    return folder


@pytest.fixture
def constants(model, tmp_path):
    """What configs.py says in these tests: four pictures, one of them broken, two boxes that are none."""
    lines = []
    for i, box in enumerate(("0,0,120,100,0", "10,10,50,60,1 0,0,9,9,7", "0,0,40,40,0", "5,5,2,2,0 10,10,100,90,0")):
        lines.append(f"{picture_file(tmp_path / f'{i}.png')} {box}\n")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    (tmp_path / "test.txt").write_text("".join(lines))
    (tmp_path / "my.names").write_text("".join(f"{name}\n" for name in NAMES))
    return {
        "TEST_ANNOT_PATH": str(tmp_path / "test.txt"),
        "TRAIN_CLASSES": str(tmp_path / "my.names"),
        "YOLO_CUSTOM_WEIGHTS": str(model),
        "TEST_INPUT_SIZE": 64,
    }


@pytest.mark.slow
def test_the_script_prints_and_writes_its_results_and_goes_on_without_what_is_wrong(project, constants, tmp_path):  # noqa: F811
    code, out, err = run(project(**constants), "evaluate_mAP.py")
    assert code == 0
    first, second, third = [line for line in err.splitlines() if "left out" in line]
    assert "test.txt line 2: box 0,0,9,9,7 has an unknown class: there are 3, from 0" in first
    assert "test.txt line 4: box 5,5,2,2,0 has x2 < x1" in second
    assert "2.png is truncated or damaged" in third
    assert "3 pictures with 3 boxes" in out

    results = tmp_path / "project" / "results" / "evaluation"
    drawn = {"precision_recall.png", "by_score.png", "confusion_matrix.png", "truth_and_found.jpg"}
    assert {x.name for x in results.iterdir()} == drawn | {"detections.json", "truth.json", "settings.py"}
    stats = by_pycocotools(results / "truth.json", results / "detections.json")
    printed = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.startswith(("AP", "AR"))}
    assert printed["AP50"] == f"{100 * stats[1]:.1f}"
    assert list(printed) == list(SUMMARY)


@pytest.fixture
def script(constants, monkeypatch, tmp_path):
    """script(*arguments, **constants) -> what evaluate_mAP.py ends with: exit code 0, or its one line."""

    def run(*arguments, **changed):
        for name, value in {**constants, **changed}.items():
            monkeypatch.setattr(configs, name, value)
        monkeypatch.setattr(sys, "argv", ["evaluate_mAP.py", "--output", str(tmp_path / "out"), *map(str, arguments)])
        try:
            return evaluate_mAP.main() or 0
        except SystemExit as error:
            return error.code

    return run


@pytest.mark.slow
def test_annotations_and_weights_from_the_command_line(script, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.txt").write_text("0.png 0,0,120,100,0\n1.png\n")
    assert script("two.txt", "--weights", model, YOLO_CUSTOM_WEIGHTS="nothing", TEST_ANNOT_PATH="nothing") == 0
    assert "2 pictures with 1 boxes" in capsys.readouterr().out
    images = json.loads((tmp_path / "out" / "truth.json").read_text())["images"]
    assert [x["file_name"] for x in images] == ["0.png", "1.png"]


DIGITS, COCO_NAMES = "model_data/digits/digits.names", "model_data/coco/coco.names"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "number", "trained", "measured"),
    [
        (COCO_NAMES, 0, False, "yolov3-tiny.weights: yolov3-tiny, 80 classes (person, "),
        (COCO_NAMES, 0, True, "yolov3-tiny.weights: "),
        (DIGITS, 0, False, "yolov4-tiny-digits: yolov4-tiny, 10 classes (0, 1, 2 ...)"),
        (None, 79, False, "yolov3-tiny.weights: "),  # beyond the digits
        (None, 9, False, "yolov4-tiny-digits: "),
        (None, 0, True, "mine_Tiny: yolov4-tiny, 3 classes (cat, dog, cup)"),
    ],
)
def test_the_model_measured_is_that_of_the_annotated_classes(
    names, number, trained, measured, script, model, constants, tmp_path, capsys
):
    place = tmp_path / "annotated"
    place.mkdir()
    (place / "some.txt").write_text(f"{tmp_path / '0.png'} 0,0,120,100,{number}\n")
    if names:
        shutil.copy(PROJECT / names, place / "some.names")
    if trained:
        shutil.copytree(model, tmp_path / "checkpoints" / "mine_Tiny")
    own = {"YOLO_CUSTOM_WEIGHTS": None, "TRAIN_CHECKPOINTS_FOLDER": str(tmp_path / "checkpoints")}
    classes = constants["TRAIN_CLASSES"] if trained else DIGITS
    assert script(place / "some.txt", **own, TRAIN_MODEL_NAME="mine", TRAIN_CLASSES=classes) == 0
    assert capsys.readouterr().out.startswith(measured)


@pytest.mark.slow
def test_darknets_weights_are_measured_by_their_own_names_without_editing_configs(script, tmp_path, capsys):
    (tmp_path / "some.txt").write_text("0.png 0,0,120,100,79\n")
    (tmp_path / "my.names").rename(tmp_path / "elsewhere")
    weights = "--weights", "model_data/yolov3-tiny.weights"
    assert script(tmp_path / "some.txt", *weights, TRAIN_CLASSES=DIGITS) == 0
    assert "toothbrush" in capsys.readouterr().out
    samples = PROJECT / "IMAGES" / "digits" / "digits.txt"
    assert "class 0 of the model is person, but 0 in " in script(samples, *weights, TRAIN_CLASSES=DIGITS)
    assert "but 0 in TRAIN_CLASSES" in script(*weights, TRAIN_CLASSES=DIGITS)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"TEST_ANNOT_PATH": "no.txt"}, f"error: annotation file {PROJECT / 'no.txt'} is missing"),
        ({"TEST_SCORE_THRESHOLD": 2}, "error: TEST_SCORE_THRESHOLD = 2 must be a number from 0 to 1"),
        ({"TEST_BATCH_SIZE": 0}, "error: TEST_BATCH_SIZE = 0 must be a whole number, 1 or more"),
        ({"TRAIN_CLASSES": "no.names"}, "error: class names file no.names is missing"),
        ({"YOLO_CUSTOM_WEIGHTS": "no_model"}, "error: no_model is not there"),
    ],
)
def test_a_wrong_constant_is_one_line(changed, line, script):
    said = script(**changed)
    assert said.startswith(line)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("cat\ncup\ndog\n", "class 1 of the model is dog, but cup in TRAIN_CLASSES"),
        ("cat\ndog\ncup\npot\n", "class 3 of the model is nothing, but pot in TRAIN_CLASSES"),
        ("cat\ndog\n", "class 2 of the model is cup, but nothing in TRAIN_CLASSES"),
    ],
)
def test_a_model_of_other_classes_is_refused(names, parts, script, tmp_path):
    (tmp_path / "my.names").write_text(names)
    said = script()
    assert parts in said and "yolov3/configs.py" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is empty"),
        ("0.png 0,0,40,40,7\n", "has no box that can be used"),
        ("0.png\n1.png\n", "has no box that can be used"),
        ("gone.png 0,0,40,40,0\n", "has no picture that can be used"),
        ("2.png 0,0,40,40,0\n", "none of the 1 pictures can be read"),
    ],
)
def test_annotations_without_anything_to_measure_are_one_line(text, line, script, tmp_path):
    (tmp_path / "test.txt").write_text(text)
    said = script()
    assert said.startswith("error: ") and line in said
    assert len(said.splitlines()) == 1
    assert not list((tmp_path / "out").iterdir())
