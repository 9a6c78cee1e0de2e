"""Listen for REST and gRPC in one event loop until a signal, then answer the requests in progress."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.serving import grpc_server, rest_server
from tools.serving.dispatcher import Dispatcher
from yolov3.checks import UserError, first_line

import grpc
import uvicorn

MOST_CONNECTIONS = 1000  # of REST
ASK_AGAIN = 1  # seconds after which Ray Serve is asked again whether there is a replica


@dataclass(frozen=True)
class Endpoint:
    """Say where to listen, and who may send requests."""

    host: str
    grpc_port: int
    rest_socket: socket.socket  # it listens already
    token: str | None = None
    tls: tuple[Path, Path] | None = None  # certificate chain and private key, PEM


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises UserError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"the server cannot listen at {join_address(host, port)} ({reason}): choose another port or --host"
        ) from None


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Readiness:
    """Tell whether there is a replica that answers. Ray Serve is asked once a second at most."""

    def __init__(self, has_replica: Callable[[], bool]):
        self._has_replica, self._lock = has_replica, asyncio.Lock()
        self._answer, self._asked = False, float("-inf")

    async def __call__(self) -> bool:
        async with self._lock:
            if time.monotonic() - self._asked > ASK_AGAIN:
                self._answer, self._asked = await asyncio.to_thread(self._has_replica), time.monotonic()
        return self._answer


class _RestServer(uvicorn.Server):
    """Run uvicorn without its own handlers of signals."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


async def listen_until_signal(
    endpoint: Endpoint,
    dispatcher: Dispatcher,
    model: str,
    classes: tuple[str, ...],
    has_replica: Callable[[], bool],
    when_ready: Callable[[str, str], None],
) -> None:
    """Answer requests until SIGTERM or SIGINT, then those in progress, and return.

    when_ready  called once, with the addresses of REST and gRPC
    """
    # 1. Listen
    is_ready, end = Readiness(has_replica), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    certificate, key = endpoint.tls or (None, None)
    by_rest = _RestServer(
        uvicorn.Config(
            rest_server.make_application(dispatcher, model, classes, endpoint.token, is_ready),
            log_config=None,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=int(dispatcher.limits.seconds) + 1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
    )
    by_grpc = grpc_server.make_server(dispatcher, model, endpoint.token, is_ready)
    grpc_port = _bind(by_grpc, endpoint)
    await by_grpc.start()
    serving = asyncio.ensure_future(by_rest.serve(sockets=[endpoint.rest_socket]))
    scheme, rest_port = "https" if endpoint.tls else "http", endpoint.rest_socket.getsockname()[1]
    when_ready(f"{scheme}://{join_address(endpoint.host, rest_port)}/", join_address(endpoint.host, grpc_port))

    # 2. Wait for a signal
    ended = asyncio.ensure_future(end.wait())
    await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)

    # 3. Answer the requests in progress
    dispatcher.is_closing = by_rest.should_exit = True
    await asyncio.gather(serving, by_grpc.stop(dispatcher.limits.seconds))


def _bind(server, endpoint):
    """Bind the gRPC server to the endpoint and return its port."""
    address = join_address(endpoint.host, endpoint.grpc_port)
    try:
        if endpoint.tls is None:
            return server.add_insecure_port(address)
        certificate, key = endpoint.tls
        pair = key.read_bytes(), certificate.read_bytes()
        return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the server cannot listen at {address} ({first_line(error)}): choose another --grpc-port"
        ) from None
