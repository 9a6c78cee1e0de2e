"""The detector as a Ray Serve deployment: picture files in, what was found in them out, batched across requests."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.serving.contract import Found
from yolov3 import configs
from yolov3.checks import UserError
from yolov3.images import picture_of
from yolov3.loading import Load_Yolo_model

import cv2
import numpy as np
import tensorflow as tf
from ray import serve
from ray.serve.config import AutoscalingConfig

BATCHES_AT_ONCE = 2  # one in the network, one being decoded
UNHEALTHY_AFTER = 30  # seconds without an answer to Ray Serve's own question


@dataclass(frozen=True)
class ReplicaSettings:
    """What a replica needs to know."""

    weights: Path  # on every machine
    input_size: int
    constants: dict  # of configs.py, as the script has read it
    batch: int  # pictures at most
    wait: float  # seconds that the first picture of a batch waits for others at most
    cpus: int  # threads of the network


class Replica:
    """A process with a detector of its own."""

    def __init__(self, settings: ReplicaSettings):
        tf.config.threading.set_intra_op_parallelism_threads(settings.cpus)
        tf.config.threading.set_inter_op_parallelism_threads(settings.cpus)
        vars(configs).update(settings.constants)  # this process is ours, and configs.py may have changed meanwhile
        self._detector = Load_Yolo_model(settings.weights, input_size=settings.input_size)
        self._decoders, self._network = ThreadPoolExecutor(settings.cpus), ThreadPoolExecutor(1)
        batched = serve.batch(
            max_batch_size=settings.batch,
            batch_wait_timeout_s=settings.wait,
            max_concurrent_batches=BATCHES_AT_ONCE,
        )
        self._detect_one = batched(self._detect_batch)
        self._warm_up(settings.batch)

    def _warm_up(self, batch):
        """Let the runtime compile, and the decoder be traced, before the first request."""
        frame = np.zeros((480, 640, 3), np.uint8)
        self._detector([frame] * batch)
        _, file = cv2.imencode(".jpg", frame)
        _decode(file.tobytes())

    async def detect(self, files: list[bytes]) -> list[tuple[Found | None, int]]:
        """Return for each picture file what was found, None if it cannot be decoded, and how many pictures were in its
        batch; 0 for all but the first of a batch, so that they can be counted."""
        answers = await asyncio.gather(*map(self._detect_one, files))
        for found, _ in answers:
            if isinstance(found, Exception):
                raise found
        return answers

    async def _detect_batch(self, files):
        loop = asyncio.get_running_loop()
        frames = await asyncio.gather(*(loop.run_in_executor(self._decoders, _decode, file) for file in files))
        readable = [frame for frame in frames if frame is not None]
        found = iter(await loop.run_in_executor(self._network, self._detect_frames, readable))
        sizes = [len(files), *[0] * (len(files) - 1)]
        return [(None if frame is None else next(found), size) for frame, size in zip(frames, sizes, strict=True)]

    def _detect_frames(self, frames):
        """Return a Found for each frame, or the Exception that it alone ends in."""
        try:
            return [Found(x.boxes, x.scores, x.classes) for x in self._detector(frames)]
        except Exception as error:  # of whatever runtime; too little memory for a whole batch, for example
            if len(frames) == 1:
                return [error]
            return [found for frame in frames for found in self._detect_frames([frame])]


def _decode(file):
    try:
        return picture_of(file, "of the request", configs.YOLO_MAX_PIXELS)
    except UserError:
        return None


def application(
    settings: ReplicaSettings, replicas: tuple[int, int], ongoing: int, queue: int, gpus: float, drain: float
) -> serve.Application:
    """Return the application to run.

    replicas  fewest and most; Ray Serve starts more as requests wait, if they differ
    ongoing   requests at a time that each works at or has waiting for its next batch
    queue     requests that wait beyond that; more are refused
    drain     seconds that a replica which is to end has for the requests it works at
    """
    fewest, most = replicas
    scaling = AutoscalingConfig(min_replicas=fewest, max_replicas=most, target_ongoing_requests=max(1, ongoing // 2))
    deployment = serve.deployment(
        Replica,
        name="Detector",
        num_replicas=fewest if fewest == most else None,
        autoscaling_config=None if fewest == most else scaling,
        max_ongoing_requests=ongoing,
        max_queued_requests=queue,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=drain,
        health_check_timeout_s=UNHEALTHY_AFTER,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": gpus},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    return deployment.bind(settings)
