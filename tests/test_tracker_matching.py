"""deep_sort's filter and assignment against textbook equations, brute force and cases worked by hand."""

import itertools

from deep_sort.kalman import GATE, KalmanFilter, to_xyah, to_xyxy
from deep_sort.matching import NEVER, assign, cascade, cosine_distances, height_iou_matrix, iou_matrix, normalise

import numpy as np
import pytest
from scipy.stats import chi2

FILTER = KalmanFilter(0.1, 0.02, 1 / 160)


class Textbook:
    """Welch and Bishop's equations for one track: 8 x 8 matrices, one frame a step."""

    def __init__(self, measured, noise):
        height = measured[3]
        scale = np.array([height, height, 1, height])
        self.measurement, self.position, self.velocity = (
            np.diag(np.square(x * scale)) for x in (noise.measurement, noise.position, noise.velocity)
        )
        self.x = np.concatenate([measured, np.zeros(4)])
        self.p = np.block([[4 * self.measurement, np.zeros((4, 4))], [np.zeros((4, 4)), 100 * self.velocity]])
        self.f = np.block([[np.eye(4), np.eye(4)], [np.zeros((4, 4)), np.eye(4)]])
        self.h = np.eye(4, 8)

    def predict(self):
        q = np.block([[self.position + self.velocity / 3, self.velocity / 2], [self.velocity / 2, self.velocity]])
        self.x, self.p = self.f @ self.x, self.f @ self.p @ self.f.T + q

    def update(self, measured):
        s = self.h @ self.p @ self.h.T + self.measurement
        gain = self.p @ self.h.T @ np.linalg.inv(s)
        self.x = self.x + gain @ (measured - self.h @ self.x)
        self.p = (np.eye(8) - gain @ self.h) @ self.p

    def distance(self, measured):
        error = measured - self.h @ self.x
        return error @ np.linalg.inv(self.h @ self.p @ self.h.T + self.measurement) @ error


def full(covariance):
    """(4, 3) -> (8, 8)"""
    value, velocity, common = covariance.T
    return np.block([[np.diag(value), np.diag(common)], [np.diag(common), np.diag(velocity)]])


def test_filter_is_the_textbook_one_for_all_tracks_at_once():
    rng = np.random.default_rng(0)
    # heights stand still, so that noise, which goes with the height, is the same in both
    first = np.stack([*rng.uniform(50, 500, (2, 5)), rng.uniform(0.3, 2, 5), rng.uniform(40, 300, 5)], 1)
    states, covariances = FILTER.initiate(first)
    oracles = [Textbook(x, FILTER) for x in first]
    for _ in range(6):
        states, covariances = FILTER.predict(states, covariances, 1.0)
        measured = first + rng.normal(0, 5, first.shape) * [1, 1, 0.01, 0]
        distances = FILTER.distance(states, covariances, measured)
        for i, oracle in enumerate(oracles):
            oracle.predict()
            assert distances[i, i] == pytest.approx(oracle.distance(measured[i]))
            oracle.update(measured[i])
        states, covariances = FILTER.update(states, covariances, measured)
        for x, p, oracle in zip(states, covariances, oracles, strict=True):
            np.testing.assert_allclose(x, oracle.x, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(full(p), oracle.p, rtol=1e-9, atol=1e-12)


def test_one_long_step_is_many_short_ones():
    states, covariances = FILTER.initiate(np.array([[50.0, 60, 0.4, 100]]))
    states[:, 4:6] = 3, -2
    long = FILTER.predict(states, covariances, 5.0)
    for _ in range(10):
        states, covariances = FILTER.predict(states, covariances, 0.5)
    np.testing.assert_allclose(states, long[0])
    np.testing.assert_allclose(covariances, long[1])


def test_gate_is_95_percent():
    assert pytest.approx(chi2.ppf(0.95, 4), abs=1e-4) == GATE


def test_boxes_there_and_back():
    boxes = np.array([[10.0, 20, 50, 120], [-5, -5, 5, 0]])
    np.testing.assert_allclose(to_xyah(boxes), [[30, 70, 0.4, 100], [0, -2.5, 2, 5]])
    np.testing.assert_allclose(to_xyxy(to_xyah(boxes)), boxes)


def test_overlaps_by_hand():
    boxes, others = np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 5, 10, 15], [20, 0, 30, 10], [0, 0, 10, 10]])
    np.testing.assert_allclose(iou_matrix(boxes, others), [[1 / 3, 0, 1]])
    np.testing.assert_allclose(height_iou_matrix(boxes, others), [[1 / 9, 0, 1]])


def test_assignment_is_what_trying_all_finds():
    rng = np.random.default_rng(1)
    for _ in range(20):
        cost = rng.random((4, 5))
        rows, columns = assign(cost, 0.6)
        best = min(
            itertools.permutations(range(5), 4),
            key=lambda p: sum(c if (c := cost[i, j]) <= 0.6 else NEVER for i, j in enumerate(p)),
        )
        wanted = [(i, j) for i, j in enumerate(best) if cost[i, j] <= 0.6]
        assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == wanted


def test_cascade_lets_the_lowest_level_choose_first():
    cost = np.array([[0.1, 0.9], [0.2, 0.9]])
    rows, columns = cascade(cost, 0.5, np.array([7, 0]))
    assert (rows.tolist(), columns.tolist()) == ([1], [0])
    assert assign(cost, 0.5)[0].tolist() == [0]


def test_gallery_distances_are_those_of_the_nearest_feature():
    rng = np.random.default_rng(2)
    galleries = [normalise(rng.normal(size=(k, 8))) for k in (3, 1)] + [np.empty((0, 8), np.float32)]
    features = normalise(np.concatenate([rng.normal(size=(3, 8)), np.zeros((1, 8))]))
    wanted = [[min((1 - g @ f for g in gallery), default=1) for f in features] for gallery in galleries]
    np.testing.assert_allclose(cosine_distances(galleries, features), wanted, atol=1e-6)
