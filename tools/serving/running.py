"""A model served by Ray Serve from start to end: Ray, the replicas on it, and both doors until a signal."""

import asyncio
import contextlib
import functools
import logging
import os
import re
import signal
from argparse import Namespace

os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # Ray Serve reads it as it is imported

from tools.cluster.running import configured_constants, plan_workers, ray_running
from tools.serving import replicas
from tools.serving.door import Door, Limits
from tools.serving.doors import Place, keep_open
from yolov3.checks import UserError

from ray import serve

OBJECT_STORE = 2**30  # bytes of shared memory for a Ray of our own: pictures over 100 KB lie there
ENDING = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Exit): (.+)$", re.MULTILINE)  # of a traceback


def serve_model(spec, weights, options: Namespace, place: Place, tell_ready) -> None:
    """Serve until SIGTERM or Ctrl-C, answer what is under way, and leave no process behind. Raises UserError.

    spec, weights  as `loading.configured_model` returns them
    options        those of the command line
    tell_ready     called with the addresses of REST and gRPC when both answer
    """
    # 1. What a replica is, and what all requests together may take
    with ray_running(options.address, OBJECT_STORE):
        _, cpus = plan_workers(options.most_replicas, options.cpus, options.gpus)
        settings = replicas.ReplicaSettings(
            weights=weights,
            input_size=spec.input_size,
            constants=configured_constants(cpus),
            batch=options.batch,
            wait=options.wait / 1000,
            cpus=cpus,
        )
        ongoing = max(16, 2 * options.batch)
        application = replicas.application(
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

        # 2. Both doors, until a signal
        with _serve_running(application, options.name, is_ours=options.address is None) as handle:
            is_there = functools.partial(_has_replica, options.name)
            asyncio.run(keep_open(place, Door(handle, limits), options.name, spec.classes, is_there, tell_ready))
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # what follows ends all processes


@contextlib.contextmanager
def _serve_running(application, name, is_ours):
    """Give a handle to the application while Ray Serve runs it. Raises UserError if it does not start.

    is_ours  whether this Ray is one of our own, so that all of Ray Serve ends with it
    """
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    serve.start(proxy_location="Disabled")  # docs/serving.md says what Ray's proxies would cost
    try:
        try:
            handle = serve.run(application, name=name, route_prefix=None)
        except RuntimeError as error:
            endings = ENDING.findall(str(error)) or [str(error).splitlines()[0]]
            raise UserError(f"the replicas do not start: {endings[-1]}") from None
        yield handle
    finally:
        serve.shutdown() if is_ours else serve.delete(name)


def _has_replica(name):
    """Return whether Ray Serve runs a replica of the application."""
    with contextlib.suppress(Exception):  # whatever Ray's answer ends in, there is none to count on
        (deployment,) = serve.status().applications[name].deployments.values()
        return deployment.replica_states.get("RUNNING", 0) > 0
    return False
