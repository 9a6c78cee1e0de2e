"""deep_sort: identities in scenes made by hand, and bad input."""

import subprocess
import sys

from deep_sort import Tracker
from yolov3.checks import PROJECT

import numpy as np
import pytest


def person(x, y=100.0, width=40, height=100):
    return [x - width / 2, y, x + width / 2, y + height]


def run(tracker, frames, classes=0, **each):
    """[boxes, or (boxes, scores)] -> numbers shown in each frame, in the order of numbers."""
    answers = []
    for i, boxes in enumerate(frames):
        boxes, scores = boxes if isinstance(boxes, tuple) else (boxes, [0.9] * len(boxes))
        more = {name: values[i] for name, values in each.items()}
        answers.append(tracker.update(boxes, scores, np.full(len(boxes), classes), **more))
    return answers


def number_near(tracks, x):
    return min(tracks, key=lambda t: abs(t.box[[0, 2]].mean() - x)).number


def test_numbers_survive_a_crossing():
    lefts, rights = [100 + 6 * i for i in range(60)], [460 - 6 * i for i in range(60)]
    frames = [  # one hides the other about the middle
        [person(a)] if abs(a - b) < 25 else [person(a), person(b, 104)] for a, b in zip(lefts, rights, strict=True)
    ]
    answers = run(Tracker(), frames)
    before, after = answers[10], answers[-1]
    assert number_near(before, lefts[10]) == number_near(after, lefts[-1]) == 1
    assert number_near(before, rights[10]) == number_near(after, rights[-1]) == 2


@pytest.mark.parametrize("hidden", [1, 10, 30])
def test_number_survives_being_hidden(hidden):
    frames = [[] if 30 <= i < 30 + hidden else [person(100 + 4 * i)] for i in range(80)]
    answers = run(Tracker(), frames)
    assert {t.number for tracks in answers for t in tracks} == {1}
    assert len(answers[30]) == 1 and answers[30][0].unseen == 1  # coasts for a frame, where it should be
    assert answers[30][0].box[[0, 2]].mean() == pytest.approx(220, abs=4)
    assert all(not tracks for tracks in answers[31 : 30 + hidden])
    assert answers[-1][0].hits == 80 - hidden and answers[-1][0].age == 79


def test_track_ends_when_unseen_for_too_long():
    answers = run(Tracker(max_unseen=20), [[person(100)]] * 5 + [[]] * 25 + [[person(100)]] * 5)
    assert answers[4][0].number == 1 and answers[-1][0].number == 2


def test_time_tells_dropped_frames():
    times = [i / 30 for i in range(90) if i < 30 or i % 9 == 0]  # from 30 to 3.3 frames a second
    frames = [[person(100 + 300 * t)] for t in times]  # 90 pixels between two of the late ones
    known = run(Tracker(), frames, time=times)
    assert {t.number for tracks in known for t in tracks} == {1}
    assert known[-1][0].age == pytest.approx(times[-1] * 30)


def test_frame_rate_is_the_step_where_no_time_is_told():
    boxes = [[person(100 + 5 * i)] for i in range(20)]
    told, not_told = (
        run(Tracker(frame_rate=10), boxes, time=[i / 10 for i in range(20)]),
        run(Tracker(frame_rate=10), boxes),
    )
    np.testing.assert_array_equal(told[-1][0].box, not_told[-1][0].box)


def test_low_scores_prolong_tracks_but_start_none():
    seen = [([person(100 + 2 * i)], [0.9 if i < 10 else 0.2]) for i in range(30)]
    answers = run(Tracker(), seen)
    assert [t.number for t in answers[-1]] == [1] and answers[-1][0].unseen == 0
    assert answers[-1][0].score == pytest.approx(0.2)
    assert not any(run(Tracker(), [([person(100)], [0.2])] * 10))
    assert not run(Tracker(), seen[:10] + [([person(100 + 2 * i)], [0.05]) for i in range(10, 30)])[-1]


def test_false_detections_are_not_shown():
    frames = [[person(100)]] + [[person(100), person(300 + 90 * i)] for i in range(9)]
    assert {t.number for tracks in run(Tracker(), frames) for t in tracks} == {1}


def test_classes_mix_only_where_asked():
    both = [([person(100), person(100)], [0.9, 0.8])] * 9
    classes = [np.array([0, 1])] * 9

    def follow(agnostic):
        tracker = Tracker(class_agnostic=agnostic)
        return [tracker.update(b, s, c) for (b, s), c in zip(both, classes, strict=True)][-1]

    assert [(t.number, t.class_id) for t in follow(False)] == [(1, 0), (2, 1)]
    tracker = Tracker(class_agnostic=True)
    flicker = [tracker.update([person(100)], [0.9], [7 if i % 3 else 2])[0] for i in range(12)]
    assert {t.number for t in flicker} == {1} and flicker[-1].class_id == 7


def test_a_car_that_is_a_truck_too_is_one_object():
    tracker = Tracker(class_agnostic=True)
    tracker.update([person(100)], [0.9], [2])
    for _ in range(5):
        tracks = tracker.update([person(100), person(101)], [0.9, 0.5], [2, 7])
    assert [t.number for t in tracks] == [1]


def test_a_lorry_that_is_a_car_and_a_truck_from_its_first_frame_on_is_one_object():
    """The better of the two is followed, whichever comes first; a neighbour that overlaps little has its own track."""
    tracker, lorry, beside = Tracker(class_agnostic=True), (100, 100, 220, 200), (200, 100, 320, 200)
    for i in range(40):
        move = 4 * i * np.array([1, 0, 1, 0])
        boxes = np.array([lorry, (102, 101, 221, 203), beside]) + move
        order = [0, 1, 2] if i % 2 else [1, 0, 2]
        tracks = tracker.update(boxes[order], np.array([0.8, 0.6, 0.7])[order], np.array([6, 13, 6])[order])
        assert [(t.number, t.class_id) for t in tracks] == [(1, 6), (2, 6)]
        assert round(tracks[0].score, 6) == 0.8
    assert len(Tracker().update([lorry, lorry], [0.8, 0.6], [6, 13])) == 2


def test_embeddings_tell_people_apart():
    """Two people meet, hide one another and turn back; motion alone swaps them."""
    path = [100 + 6 * min(i, 40 - i) for i in range(41)]
    embeddings = np.eye(2)

    def follow(with_embeddings):
        tracker = Tracker()
        for i, x in enumerate(path):
            pair = [person(x), person(440 - x)]
            here = slice(0, 0) if 16 <= i <= 24 else slice(0, 2)
            boxes = np.reshape(pair, (-1, 4))[here]
            tracks = tracker.update(
                boxes, [0.9] * len(boxes), [0] * len(boxes), embeddings[here] if with_embeddings else None
            )
        return number_near(tracks, 100)

    assert follow(True) == 1
    assert follow(False) == 2


def test_another_person_in_the_same_place_gets_another_number():
    """One person hides behind a pillar, another comes out of it."""
    tracker = Tracker()
    for i in range(30):
        boxes = np.empty((0, 4)) if 10 <= i < 15 else np.array([person(100)])
        embeddings = np.eye(2)[[int(i >= 15)]][: len(boxes)]
        tracks = tracker.update(boxes, [0.9] * len(boxes), [0] * len(boxes), embeddings)
    assert [t.number for t in tracks] == [2]


def test_an_embedder_is_asked_for_high_scores_only():
    asked = []

    def embedder(frame, boxes):
        asked.append((frame, boxes.dtype, len(boxes)))
        return np.ones((len(boxes), 3))

    tracker = Tracker()
    boxes = [person(100), person(300)]
    tracker.update(boxes, [0.9, 0.2], [0, 0], embedder, frame="picture")
    tracker.update([], [], [], embedder, frame="picture")
    assert asked == [("picture", np.float32, 1)]


def test_enormous_embeddings_are_embeddings():
    tracker = Tracker()
    for _ in range(5):
        tracks = tracker.update([person(100)], [0.9], [0], np.full((1, 4), 1e200))
    assert tracks[0].hits == 5
    np.testing.assert_allclose(tracker.tracks["gallery"][0], 0.5)


def test_zero_features_match_by_motion():
    tracker = Tracker()
    for i in range(5):
        tracks = tracker.update([person(100 + i)], [0.9], [0], np.zeros((1, 4)))
    assert [t.number for t in tracks] == [1]


BOX, ONE = [person(100)], ([0.9], [0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([[1, 2, np.nan, 4]], *ONE), "box 0 is"),
        (([[1, 2, np.inf, 4]], *ONE), "box 0 is"),
        (([[9, 2, 3, 4]], *ONE), "box 0 is"),
        (([1, 2, 3, 4], *ONE), "shape"),
        (("none", *ONE), "boxes are not an array"),
        ((BOX, [0.9, 0.8], [0]), "scores are of shape"),
        ((BOX, [0.9], [0, 1]), "classes are of shape"),
        ((BOX, [np.nan], [0]), "scores: number 0"),
        ((BOX, [0.9], [0.5]), "whole numbers"),
        ((BOX, *ONE, np.ones((2, 4))), "embeddings are of shape"),
        ((BOX, *ONE, np.ones((1, 0))), "embeddings have 0 numbers"),
        ((BOX, *ONE, np.ones((1, 5))), "4 as in earlier frames"),
        ((BOX, *ONE, np.full((1, 4), np.nan)), "not finite"),
        ((BOX, *ONE, lambda frame, boxes: np.ones((3, 4))), "embeddings are of shape"),
        ((BOX, *ONE, None, None, 1.0), "not later"),
        ((BOX, *ONE, None, None, 0.5), "not later"),
        ((BOX, *ONE, None, None, np.nan), "time"),
        ((BOX, *ONE, None, None, "noon"), "time"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(arguments, said):
    tracker = Tracker()
    tracker.update(BOX, *ONE, np.ones((1, 4)), time=1.0)
    with pytest.raises(ValueError, match=said) as caught:
        tracker.update(*arguments)
    assert "\n" not in str(caught.value)
    assert tracker.time == 1.0
    assert [t.number for t in tracker.update(BOX, *ONE, np.ones((1, 4)), time=1.1)] == [1]


@pytest.mark.parametrize(
    "wrong",
    [{"frame_rate": 0}, {"min_iou": 2}, {"budget": 0}, {"coast": np.nan}, {"class_agnostic": "yes"}, {"fresh": "5"}],
)
def test_bad_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Tracker(**wrong)


def test_boxes_cut_to_nothing_at_the_edge_are_ignored():
    assert Tracker().update([[0, 50, 0, 90], person(100)], [0.9, 0.9], [0, 0])[0].number == 1


def test_long_silence_and_hundreds_of_detections():
    tracker = Tracker()
    for _ in range(100):
        assert tracker.update([], [], []) == []
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 1000, (500, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 80, (500, 2))], 1)
    for i in range(4):
        tracks = tracker.update(boxes + i, np.full(500, 0.9), np.zeros(500))
    assert len(tracks) > 450 and len({t.number for t in tracks}) == len(tracks)
    assert tracker.update([], [], [], time=1e6) == tracker.update([], [], [], time=2e6) == []
    assert not len(tracker.tracks["number"])


def test_things_that_stand_still_keep_their_numbers_however_far_apart_the_frames_are():
    tracker = Tracker(max_unseen=60)
    for i in range(5):
        tracks = tracker.update([[10, 10, 50, 90]], [0.9], [0], time=2.5 * i)  # 75 frames
        assert [t.number for t in tracks] == [1]


def test_features_may_begin_and_end_on_the_way():
    tracker, boxes = Tracker(), [[10, 10, 50, 90]]
    for embeddings in (None, np.ones((1, 4)), None, lambda frame, boxes: np.ones((len(boxes), 4)), np.ones((1, 4))):
        assert [t.number for t in tracker.update(boxes, [0.9], [0], embeddings)] == [1]


def test_scores_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match="low_score = 0.5 must not be more than high_score = 0.2"):
        Tracker(low_score=0.5, high_score=0.2)


def test_memory_is_bounded_over_ten_thousand_frames():
    rng = np.random.default_rng(4)
    tracker, most = Tracker(budget=5), 0
    for i in range(10_000):
        boxes = [person(100 + i % 400), person(*rng.uniform(100, 900, 2))]
        tracker.update(boxes, [0.9, 0.6], [0, 0], np.eye(2, 8))
        most = max(most, len(tracker.tracks["number"]))
    assert most < 40
    assert max(map(len, tracker.tracks["gallery"])) <= 5


def test_deep_sort_needs_numpy_and_scipy_only():
    code = "import sys, deep_sort; print([m for m in ('tensorflow', 'cv2', 'yolov3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
