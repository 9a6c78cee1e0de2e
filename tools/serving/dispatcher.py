"""Pass requests of either protocol to the replicas within the limits, and count them."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tools.serving.protocol import Found, Reason, Refused
from yolov3.checks import first_line

import prometheus_client
import ray.exceptions
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

REPLICA_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,
    DeploymentUnavailableError,
    RequestCancelledError,
)
CLOSING = "the server is shutting down: send the request again"
SECOND_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
PICTURE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Hold the limits of one request and of all of them."""

    request_bytes: int
    pictures: int  # in a request
    requests: int  # in progress at a time, those whose body is still received among them
    seconds: float  # from the first byte to the answer


class Dispatcher:
    """Pass requests to the replicas as far as the limits allow.

    handle  to the Ray Serve deployment of `ray_serve.Replica`
    """

    def __init__(self, handle, limits: Limits):
        self.limits, self.is_closing = limits, False
        self._handle = handle.options(method_name="detect")
        self._in_progress = 0
        self.metrics = prometheus_client.CollectorRegistry()
        count, histogram = (
            functools.partial(kind, registry=self.metrics)
            for kind in (prometheus_client.Counter, prometheus_client.Histogram)
        )
        self._requests = count("yolo_requests", "Requests answered or refused", ["by", "outcome"])
        self._pictures = count("yolo_pictures", "Pictures answered", ["outcome"])
        self._seconds = histogram("yolo_request_seconds", "From request to answer", ["by"], buckets=SECOND_BUCKETS)
        self._batches = histogram("yolo_batch_pictures", "Pictures in a batch", buckets=PICTURE_BUCKETS)
        in_progress = prometheus_client.Gauge(
            "yolo_requests_in_progress", "Requests being answered", registry=self.metrics
        )
        in_progress.set_function(lambda: self._in_progress)
        prometheus_client.ProcessCollector(registry=self.metrics)

    @contextlib.contextmanager
    def admit(self, by: str) -> Iterator[None]:
        """Count a request, its outcome and its seconds. Raises Refused if there are too many. `by` is the protocol."""
        started, outcome = time.monotonic(), "OK"
        try:
            if self.is_closing:
                raise Refused(Reason.UNAVAILABLE, CLOSING)
            if self._in_progress >= self.limits.requests:
                raise Refused(Reason.FULL, f"{self._in_progress} requests are in progress: send it again later")
            self._in_progress += 1
            try:
                yield
            finally:
                self._in_progress -= 1
        except Refused as refused:
            outcome = refused.reason.name
            raise
        except asyncio.CancelledError:
            outcome = "CANCELLED"
            raise
        except Exception:
            outcome = Reason.FAILED.name
            raise
        finally:
            self._requests.labels(by, outcome).inc()
            self._seconds.labels(by).observe(time.monotonic() - started)

    async def in_time(self, answer: Awaitable[T]) -> T:
        """Return what is awaited. Raises Refused if it takes longer than the limit."""
        try:
            return await asyncio.wait_for(answer, self.limits.seconds)
        except asyncio.TimeoutError:  # which is TimeoutError only since Python 3.11
            raise Refused(Reason.TIMEOUT, f"no answer within {self.limits.seconds:g} seconds") from None

    async def detect(self, files: list[bytes]) -> list[Found | None]:
        """Return what was found in each picture file, None for one that cannot be decoded. Raises Refused."""
        if len(files) > self.limits.pictures:
            text = f"the request has {len(files)} pictures: this server takes {self.limits.pictures} at most"
            raise Refused(Reason.INVALID, text)
        if not files:
            return []
        response = self._handle.remote(files)
        try:
            answers = await response
        except BackPressureError as full:
            raise Refused(Reason.FULL, f"{full.args[1]} requests wait already: send it again later") from None
        except REPLICA_LOST:
            raise Refused(Reason.UNAVAILABLE, "the replica with this request is lost: send the request again") from None
        except asyncio.CancelledError:  # the client is gone, or the time is over
            response.cancel()
            raise
        except ray.exceptions.RayTaskError as error:
            raise Refused(Reason.FAILED, f"the detector failed: {first_line(error.cause)}") from None
        for found, batch in answers:
            self._pictures.labels("undecodable" if found is None else "detected").inc()
            if batch:
                self._batches.observe(batch)
        return [found for found, _ in answers]
