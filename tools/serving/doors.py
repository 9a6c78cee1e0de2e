"""Both doors of a server, open until it is told to end: TensorFlow Serving's REST and gRPC in one event loop."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.serving import grpc_service, rest
from tools.serving.door import Door
from yolov3.checks import UserError

import grpc
import uvicorn

MOST_CONNECTIONS = 1000  # of REST
ASK_AGAIN = 1  # second after which it is asked anew whether there is a replica


@dataclass(frozen=True)
class Place:
    """Where to listen, and who may ask."""

    host: str
    grpc_port: int
    rest_socket: socket.socket  # it listens already
    token: str | None = None
    tls: tuple[Path, Path] | None = None  # certificate chain and private key, PEM


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises UserError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{address(host, port)} cannot be listened on ({reason}): choose other ports or --host"
        ) from None


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Readiness:
    """Whether there is a replica that answers, asked once a second at most."""

    def __init__(self, has_replica: Callable[[], bool]):
        self._has_replica, self._lock = has_replica, asyncio.Lock()
        self._answer, self._asked = False, float("-inf")

    async def __call__(self) -> bool:
        async with self._lock:
            if time.monotonic() - self._asked > ASK_AGAIN:
                self._answer, self._asked = await asyncio.to_thread(self._has_replica), time.monotonic()
        return self._answer


class _Rest(uvicorn.Server):
    """uvicorn without its handlers of signals."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


async def keep_open(
    place: Place,
    door: Door,
    model: str,
    classes: tuple[str, ...],
    has_replica: Callable[[], bool],
    when_open: Callable[[str, str], None],
) -> None:
    """Answer requests until SIGTERM or SIGINT, then those that are under way, and return.

    when_open  called once, with the addresses of REST and gRPC
    """
    # 1. Both doors
    is_ready, end = Readiness(has_replica), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    certificate, key = place.tls or (None, None)
    app = rest.application(door, model, classes, place.token, is_ready)
    by_rest = _Rest(
        uvicorn.Config(
            app,
            log_config=None,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=int(door.limits.seconds) + 1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
    )
    by_grpc = grpc_service.make_server(door, model, place.token, is_ready)
    grpc_port = _bind(by_grpc, place, certificate, key)
    await by_grpc.start()
    serving = asyncio.ensure_future(by_rest.serve(sockets=[place.rest_socket]))
    scheme, rest_port = "https" if place.tls else "http", place.rest_socket.getsockname()[1]
    when_open(f"{scheme}://{address(place.host, rest_port)}/", address(place.host, grpc_port))

    # 2. Until it is to end
    ended = asyncio.ensure_future(end.wait())
    await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)

    # 3. What is under way
    door.is_closing = by_rest.should_exit = True
    await asyncio.gather(serving, by_grpc.stop(door.limits.seconds))


def _bind(server, place, certificate, key):
    where = address(place.host, place.grpc_port)
    try:
        if certificate is None:
            return server.add_insecure_port(where)
        pair = key.read_bytes(), certificate.read_bytes()
        return server.add_secure_port(where, grpc.ssl_server_credentials([pair]))
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where} cannot be listened on ({reason}): choose another --grpc-port") from None
