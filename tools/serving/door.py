"""The door through which requests come in, by whatever protocol: so many at a time, each for so long, all counted."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tools.serving.contract import Found, Reason, Refused

import prometheus_client
import ray.exceptions
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

GONE = (ray.exceptions.RayActorError, ray.exceptions.RaySystemError, DeploymentUnavailableError, RequestCancelledError)
CLOSING = "the server is shutting down: ask another, or again"
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them, may take."""

    request_bytes: int
    pictures: int  # of a request
    requests: int  # under way at a time, bodies that are still being received among them
    seconds: float  # from the first byte to the answer


class Door:
    """Ask the replicas, as far as the limits allow.

    handle  of the Ray Serve deployment of `replicas.Replica`
    """

    def __init__(self, handle, limits: Limits):
        self.limits, self.is_closing = limits, False
        self._handle = handle.options(method_name="detect")
        self._under_way = 0
        self.metrics = prometheus_client.CollectorRegistry()
        count, histogram = (
            functools.partial(kind, registry=self.metrics)
            for kind in (prometheus_client.Counter, prometheus_client.Histogram)
        )
        self._requests = count("yolo_requests", "Requests answered or refused", ["by", "outcome"])
        self._pictures = count("yolo_pictures", "Pictures answered", ["outcome"])
        self._seconds = histogram("yolo_request_seconds", "From request to answer", ["by"], buckets=SECONDS)
        self._batches = histogram("yolo_batch_pictures", "Pictures in a batch", buckets=PICTURES)
        under_way = prometheus_client.Gauge("yolo_requests_under_way", "Requests being answered", registry=self.metrics)
        under_way.set_function(lambda: self._under_way)
        prometheus_client.ProcessCollector(registry=self.metrics)

    @contextlib.contextmanager
    def admit(self, by: str) -> Iterator[None]:
        """Let a request in, or raise Refused; count how it went, and how long it took. `by` names the protocol."""
        started, outcome = time.monotonic(), "OK"
        try:
            if self.is_closing:
                raise Refused(Reason.AWAY, CLOSING)
            if self._under_way >= self.limits.requests:
                raise Refused(Reason.FULL, f"{self._under_way} requests are under way: ask again later")
            self._under_way += 1
            try:
                yield
            finally:
                self._under_way -= 1
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

    async def detect(self, files: list[bytes]) -> list[Found | None]:
        """Return what was found in each picture file, None for one that cannot be decoded. Raises Refused."""
        if len(files) > self.limits.pictures:
            text = f"{len(files)} pictures in a request, of which this server takes {self.limits.pictures}"
            raise Refused(Reason.INVALID, text)
        if not files:
            return []
        response = self._handle.remote(files)
        try:
            answers = await response
        except BackPressureError as full:
            raise Refused(Reason.FULL, f"{full.args[1]} requests wait already: ask again later") from None
        except GONE:
            raise Refused(Reason.AWAY, "the replica that worked at this request is gone: ask again") from None
        except asyncio.CancelledError:  # the client has left, or waits no longer
            response.cancel()
            raise
        except ray.exceptions.RayTaskError as error:
            raise Refused(Reason.FAILED, f"the detector failed: {str(error.cause).splitlines()[0]}") from None
        for found, batch in answers:
            self._pictures.labels("undecodable" if found is None else "detected").inc()
            if batch:
                self._batches.observe(batch)
        return [found for found, _ in answers]
