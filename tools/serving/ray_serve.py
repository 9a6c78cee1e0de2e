"""Run the detector by Ray Serve: the deployment, which batches pictures across requests, and its start and end."""

import asyncio
import contextlib
import functools
import logging
import os
import re
import signal
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # Ray Serve reads it as it is imported

from tools.cluster.ray_cluster import configured_constants, plan_workers, ray_running, warn_if_full
from tools.serving.dispatcher import Dispatcher, Limits
from tools.serving.listeners import Endpoint, listen_until_signal
from tools.serving.protocol import Found
from yolov3 import configs
from yolov3.checkpoint import ModelSpec
from yolov3.checks import UserError, first_line
from yolov3.images import picture_of
from yolov3.loading import Load_Yolo_model

import cv2
import numpy as np
import tensorflow as tf
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

OBJECT_STORE = 2**30  # bytes of shared memory if this program starts Ray: large pictures lie there
CONCURRENT_BATCHES = 2  # of a replica: one in the network, one that is decoded
HEALTH_CHECK_SECONDS = 2  # between two checks, by which a lost replica is noticed; Ray Serve takes 10 by default
UNHEALTHY_SECONDS = 30  # without an answer to Ray Serve's health check
ENDING = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Exit): (.+)$", re.MULTILINE)  # of a traceback


# --- The deployment --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReplicaSettings:
    """Hold what a replica needs to know."""

    weights: Path  # on every machine
    input_size: int
    constants: dict  # of configs.py, as the script has read it
    batch: int  # most pictures
    wait: float  # most seconds that the first picture of a batch waits for others
    cpus: int  # threads of the network


class Replica:
    """Detect in a process with a detector of its own."""

    def __init__(self, settings: ReplicaSettings):
        tf.config.threading.set_intra_op_parallelism_threads(settings.cpus)
        tf.config.threading.set_inter_op_parallelism_threads(settings.cpus)
        vars(configs).update(settings.constants)  # configs.py may have changed since the server started
        self._detector = Load_Yolo_model(settings.weights, input_size=settings.input_size)
        self._decoders, self._network = ThreadPoolExecutor(settings.cpus), ThreadPoolExecutor(1)
        batched = serve.batch(
            max_batch_size=settings.batch,
            batch_wait_timeout_s=settings.wait,
            max_concurrent_batches=CONCURRENT_BATCHES,
        )
        self._detect_one = batched(self._detect_batch)
        self._warm_up(settings.batch)

    def _warm_up(self, batch):
        """Let the runtime compile, and the decoder be traced, before the first request."""
        frame = np.zeros((480, 640, 3), np.uint8)
        for count in {1, batch}:
            self._detector([frame] * count)
        _, file = cv2.imencode(".jpg", frame)
        _decode(file.tobytes())

    async def detect(self, files: list[bytes]) -> list[tuple[Found | None, int]]:
        """Return for each picture file what was found, or None if it cannot be decoded, and the size of its batch.

        The size is 0 for all pictures of a batch but the first, so that batches can be counted.
        """
        answers = await asyncio.gather(*map(self._detect_one, files))
        for found, _ in answers:
            if isinstance(found, Exception):
                raise found
        return answers

    async def _detect_batch(self, files):
        loop = asyncio.get_running_loop()
        frames = await asyncio.gather(*(loop.run_in_executor(self._decoders, _decode, file) for file in files))
        decoded = [frame for frame in frames if frame is not None]
        found = iter(await loop.run_in_executor(self._network, self._detect_frames, decoded))
        sizes = [len(files), *[0] * (len(files) - 1)]
        return [(None if frame is None else next(found), size) for frame, size in zip(frames, sizes, strict=True)]

    def _detect_frames(self, frames):
        """Return a Found for each frame, or the Exception that the detector raises for this frame alone."""
        try:
            return [Found(x.boxes, x.scores, x.classes) for x in self._detector(frames)]
        except Exception as error:  # of any runtime: too little memory for a whole batch, for example
            if len(frames) == 1:
                return [error]
            return [found for frame in frames for found in self._detect_frames([frame])]


def _decode(file):
    try:
        return picture_of(file, "of the request", configs.YOLO_MAX_PIXELS)
    except UserError:
        return None


def make_application(
    settings: ReplicaSettings, replicas: tuple[int, int], ongoing: int, queue: int, gpus: float, drain: float
) -> serve.Application:
    """Return the Ray Serve application of one deployment.

    replicas  least and most; if they differ, Ray Serve starts more while requests wait
    ongoing   most requests at a time in each replica, those that wait for its next batch among them
    queue     most requests that wait for a replica; Ray Serve refuses more
    drain     seconds that a replica which is to end has for its requests
    """
    least, most = replicas
    scaling = AutoscalingConfig(min_replicas=least, max_replicas=most, target_ongoing_requests=max(1, ongoing // 2))
    deployment = serve.deployment(
        Replica,
        name="Detector",
        num_replicas=least if least == most else None,
        autoscaling_config=None if least == most else scaling,
        max_ongoing_requests=ongoing,
        max_queued_requests=queue,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=drain,
        health_check_period_s=HEALTH_CHECK_SECONDS,
        health_check_timeout_s=UNHEALTHY_SECONDS,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": gpus},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    return deployment.bind(settings)


# --- From start to end -----------------------------------------------------------------------------------------------


def serve_model(
    spec: ModelSpec, weights: Path, options: Namespace, endpoint: Endpoint, when_ready: Callable[[str, str], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C, answer the requests in progress and leave no process behind. Raises UserError.

    spec, weights  as `loading.configured_model` returns them
    options        of the command line
    when_ready     called with the addresses of REST and gRPC when both answer
    """
    with ray_running(options.address, OBJECT_STORE):
        # 1. The application and the limits
        _, cpus = plan_workers(options.most_replicas, options.cpus, options.gpus)
        if options.address:
            warn_if_full(cpus, options.gpus)
        ongoing = max(16, 2 * options.batch)
        settings = ReplicaSettings(
            weights=weights,
            input_size=spec.input_size,
            constants=configured_constants(cpus),
            batch=options.batch,
            wait=options.wait / 1000,
            cpus=cpus,
        )
        application = make_application(
            settings,
            replicas=(options.replicas, options.most_replicas),
            ongoing=ongoing,
            queue=options.queue,
            gpus=options.gpus,
            drain=options.timeout,
        )
        limits = Limits(
            request_bytes=options.request_mb * 10**6,
            pictures=options.request_pictures,
            requests=options.most_replicas * ongoing + options.queue,
            seconds=options.timeout,
        )

        # 2. REST and gRPC until a signal
        port = endpoint.rest_socket.getsockname()[1]
        name = f"{options.name}-{socket.gethostname()}-{port}"  # of no other server in the cluster
        with application_running(application, name) as handle:
            dispatcher, has_replica = Dispatcher(handle, limits), functools.partial(_has_replica, name)
            asyncio.run(listen_until_signal(endpoint, dispatcher, options.name, spec.classes, has_replica, when_ready))
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # what follows ends all processes


@contextlib.contextmanager
def application_running(application: serve.Application, name: str) -> Iterator[DeploymentHandle]:
    """Give a handle to the application while Ray Serve runs it. Raises UserError if it does not start."""
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_not_of_ray)
    serve.start(proxy_location="Disabled")  # Ray's own HTTP and gRPC servers, which cost an additional process
    try:
        try:
            handle = serve.run(application, name=name, route_prefix=None)
        except RuntimeError as error:
            reasons = ENDING.findall(_replica_traceback(name)) or [first_line(error)]
            raise UserError(f"the replicas do not start: {reasons[-1]}") from None
        yield handle
    finally:
        serve.delete(name)
        status = serve.status()
        if not status.applications and not status.proxies:  # in a cluster, others may use Ray Serve
            serve.shutdown()


def _replica_traceback(name):
    """Return what Ray Serve says of the deployments of an application that does not start."""
    application = serve.status().applications.get(name)
    return "\n".join(x.message for x in application.deployments.values()) if application else ""


def _is_not_of_ray(record):
    """Return False for the exceptions of tasks in which Ray Serve asks a lost replica; asyncio logs each of them."""
    return not (record.exc_info and isinstance(record.exc_info[1], RayError))


def _has_replica(name):
    """Return whether Ray Serve runs a replica of the application."""
    with contextlib.suppress(Exception):  # Ray raises errors of many kinds while it restarts its own processes
        (deployment,) = serve.status().applications[name].deployments.values()
        return deployment.replica_states.get("RUNNING", 0) > 0
    return False
