"""Predict and correct the states of all tracks at once by a Kalman filter of constant velocity.

A state is (n, 8): centre x, centre y, aspect (width / height), height, and their velocities per frame. Noise on the
four is independent, so only four 2 x 2 blocks of the 8 x 8 covariance are not zero. A covariance is therefore
(n, 4, 3): for each of the four the variance of its value, that of its velocity, and the covariance of the two.
"""

import numpy as np

GATE = 9.4877  # 95 % quantile of the chi-square distribution with 4 degrees of freedom
ASPECT_NOISE = (0.1, 0.01, 1e-5)  # of the aspect: its measurement, its value and its velocity


def to_xyah(boxes: np.ndarray) -> np.ndarray:
    """Return centre x, centre y, aspect and height (n, 4) of xyxy boxes (n, 4)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / 2, size[:, :1] / size[:, 1:], size[:, 1:]], 1)


def to_xyxy(states: np.ndarray) -> np.ndarray:
    """Return xyxy boxes (n, 4) of states (n, 8) or of xyah (n, 4)."""
    half = states[:, 3:4] * 0.5
    half = np.concatenate([half * states[:, 2:3], half], 1)
    return np.concatenate([states[:, :2] - half, states[:, :2] + half], 1)


class KalmanFilter:
    """Predict and correct states.

    measurement         standard deviation of a measured centre or height, in box heights, since near objects move by
                        more pixels
    position, velocity  what one frame adds to the standard deviations of the state, in box heights
    """

    def __init__(self, measurement: float, position: float, velocity: float):
        self.measurement = np.array([measurement, measurement, ASPECT_NOISE[0], measurement])
        self.position = np.array([position, position, ASPECT_NOISE[1], position])
        self.velocity = np.array([velocity, velocity, ASPECT_NOISE[2], velocity])

    def _variance(self, deviation, heights):
        variance = np.square(deviation)
        scaled = np.square(np.maximum(heights, 1.0))[:, np.newaxis] * variance
        scaled[:, 2] = variance[2]
        return scaled

    def initiate(self, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the states (n, 8) and covariances (n, 4, 3) of new tracks that were measured as xyah (n, 4)."""
        states = np.concatenate([measured, np.zeros_like(measured)], 1)
        value = self._variance(2 * self.measurement, measured[:, 3])
        velocity = self._variance(10 * self.velocity, measured[:, 3])
        return states, np.stack([value, velocity, np.zeros_like(value)], 2)

    def predict(self, states: np.ndarray, covariances: np.ndarray, frames: float) -> tuple[np.ndarray, np.ndarray]:
        """Return states and covariances after `frames`, which may be fractional. Two steps of 1 equal one of 2."""
        noise = self._variance(self.velocity, states[:, 3])
        value, velocity, common = covariances[:, :, 0], covariances[:, :, 1], covariances[:, :, 2]
        drift = self._variance(self.position, states[:, 3])
        moved = np.concatenate([states[:, :4] + frames * states[:, 4:], states[:, 4:]], 1)
        moved[:, 2:4] = np.maximum(moved[:, 2:4], (1e-3, 1e-2))  # keeps a shrinking box above zero
        value = value + frames * (2 * common + frames * velocity) + drift * frames + noise * (frames**3 / 3)
        common = common + frames * velocity + noise * (frames**2 / 2)
        return moved, np.stack([value, velocity + noise * frames, common], 2)

    def update(
        self, states: np.ndarray, covariances: np.ndarray, measured: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return states and covariances after a measurement as xyah (n, 4)."""
        value, velocity, common = covariances[:, :, 0], covariances[:, :, 1], covariances[:, :, 2]
        total = value + self._variance(self.measurement, states[:, 3])
        gain, velocity_gain = value / total, common / total
        error = measured - states[:, :4]
        states = np.concatenate([states[:, :4] + gain * error, states[:, 4:] + velocity_gain * error], 1)
        return states, np.stack([value - gain * value, velocity - velocity_gain * common, common - gain * common], 2)

    def distance(self, states: np.ndarray, covariances: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Return the squared Mahalanobis distance (n, m) of every measurement (m, 4) from every state (n, 8)."""
        total = covariances[:, :, 0] + self._variance(self.measurement, states[:, 3])
        error = states[:, np.newaxis, :4] - measured
        return (error * error / total[:, np.newaxis]).sum(2)
