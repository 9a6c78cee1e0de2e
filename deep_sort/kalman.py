"""Kalman filter of a constant velocity, over all tracks at once.

A state is (n, 8): centre x, centre y, aspect (width / height), height, and their velocities per frame. Noise on the
four is independent, so the 8 x 8 covariance has but four 2 x 2 blocks that are not zero: a covariance is (n, 4, 3),
for each of the four the variance of its value, that of its velocity, and what they have in common.
"""

import numpy as np

GATE = 9.4877  # 95 % quantile of the chi-square distribution with 4 degrees of freedom


def to_xyah(boxes):
    """xyxy -> centre x, centre y, aspect, height: (n, 4)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / 2, size[:, :1] / size[:, 1:], size[:, 1:]], 1)


def to_xyxy(states):
    """States (n, 8), or xyah (n, 4) -> xyxy (n, 4)."""
    half = states[:, 3:4] * 0.5
    half = np.concatenate([half * states[:, 2:3], half], 1)
    return np.concatenate([states[:, :2] - half, states[:, :2] + half], 1)


class KalmanFilter:
    """Standard deviations are in box heights (those of the aspect as they are): a near person moves by more pixels."""

    def __init__(self, measurement, position, velocity, aspect=(0.1, 0.01, 1e-5)):  # aspect: the same three of it
        self.measurement = np.array([measurement, measurement, aspect[0], measurement])
        self.position = np.array([position, position, aspect[1], position])  # a frame
        self.velocity = np.array([velocity, velocity, aspect[2], velocity])  # a frame

    def _variance(self, deviation, heights):
        variance = np.square(deviation)
        scaled = np.square(np.maximum(heights, 1.0))[:, np.newaxis] * variance
        scaled[:, 2] = variance[2]
        return scaled

    def initiate(self, measured):
        """First sight of new tracks, xyah (n, 4) -> states (n, 8), covariances (n, 4, 3)."""
        states = np.concatenate([measured, np.zeros_like(measured)], 1)
        value = self._variance(2 * self.measurement, measured[:, 3])
        velocity = self._variance(10 * self.velocity, measured[:, 3])
        return states, np.stack([value, velocity, np.zeros_like(value)], 2)

    def predict(self, states, covariances, frames):
        """The same, `frames` (may be a fraction) later. Two steps of one frame are one step of two."""
        noise = self._variance(self.velocity, states[:, 3])
        value, velocity, common = covariances[:, :, 0], covariances[:, :, 1], covariances[:, :, 2]
        drift = self._variance(self.position, states[:, 3])
        moved = np.concatenate([states[:, :4] + frames * states[:, 4:], states[:, 4:]], 1)
        moved[:, 2:4] = np.maximum(moved[:, 2:4], (1e-3, 1e-2))  # a box that shrinks does not turn inside out
        value = value + frames * (2 * common + frames * velocity) + drift * frames + noise * (frames**3 / 3)
        common = common + frames * velocity + noise * (frames**2 / 2)
        return moved, np.stack([value, velocity + noise * frames, common], 2)

    def update(self, states, covariances, measured):
        """States (n, 8) that were measured as xyah (n, 4)."""
        value, velocity, common = covariances[:, :, 0], covariances[:, :, 1], covariances[:, :, 2]
        total = value + self._variance(self.measurement, states[:, 3])
        gain, velocity_gain = value / total, common / total
        error = measured - states[:, :4]
        states = np.concatenate([states[:, :4] + gain * error, states[:, 4:] + velocity_gain * error], 1)
        return states, np.stack([value - gain * value, velocity - velocity_gain * common, common - gain * common], 2)

    def distance(self, states, covariances, measured):
        """Squared Mahalanobis distance of every measurement from every state, (n, 8), (m, 4) -> (n, m)."""
        total = covariances[:, :, 0] + self._variance(self.measurement, states[:, 3])
        error = states[:, np.newaxis, :4] - measured
        return (error * error / total[:, np.newaxis]).sum(2)
