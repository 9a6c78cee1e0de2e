"""Serve REST as TensorFlow Serving does, a page for a browser, health and metrics, as an ASGI application."""

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from tools.serving import protocol
from tools.serving.dispatcher import Dispatcher
from tools.serving.protocol import Reason, Refused

import prometheus_client
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

PAGE = Path(__file__).with_name("page.html")
RETRY_AFTER = {Reason.FULL: "1", Reason.UNAVAILABLE: "1"}  # seconds
NAMES = "/*class names*/ []"  # in the page: replaced by the names


def make_application(
    dispatcher: Dispatcher,
    model: str,
    classes: tuple[str, ...],
    token: str | None,
    is_ready: Callable[[], Awaitable[bool]],
) -> Starlette:
    """Return the application.

    token     what requests must have as "Authorization: Bearer TOKEN", or None. The page itself and /healthz need none.
    is_ready  whether there is a replica that answers
    """
    names = json.dumps(classes).replace("<", "\\u003c")  # so that no name ends the script
    page = PAGE.read_text(encoding="utf-8").replace(NAMES, names).replace("MODEL", model)

    def guarded(answer):
        async def guarded_answer(request):
            try:
                given = request.headers.get("authorization", "")
                if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                    raise Refused(Reason.NO_TOKEN, "this server requires a token: Authorization: Bearer TOKEN")
                return await answer(request)
            except Refused as refused:
                return _refusal(refused)

        return guarded_answer

    async def predict(request):
        with dispatcher.admit("rest"):
            protocol.check_model(model, request.path_params["model"], request.path_params.get("version"))
            answer = await dispatcher.in_time(_answer(dispatcher, request))
        return Response(answer, media_type="application/json")

    async def status(request):
        protocol.check_model(model, request.path_params["model"], request.path_params.get("version"))
        return JSONResponse(protocol.status(await is_ready() and not dispatcher.is_closing))

    async def metadata(request):
        protocol.check_model(model, request.path_params["model"], request.path_params.get("version"))
        return JSONResponse(protocol.metadata(model))

    async def metrics(request):
        return PlainTextResponse(prometheus_client.generate_latest(dispatcher.metrics))

    async def show_page(request):
        return HTMLResponse(page)

    async def healthz(request):
        is_well = not dispatcher.is_closing and await is_ready()
        return PlainTextResponse("ok\n" if is_well else "not ready\n", 200 if is_well else 503)

    async def not_found(request, error):
        return JSONResponse({"error": f"{request.url.path} does not exist"}, 404)

    routes = [Route("/", show_page), Route("/healthz", healthz)]
    routes += [Route(path, guarded(metrics)) for path in ("/metrics", "/monitoring/prometheus/metrics")]
    for path in ("/v1/models/{model}", "/v1/models/{model}/versions/{version:int}"):
        routes.append(Route(f"{path}:predict", guarded(predict), methods=["POST"]))
        routes.append(Route(f"{path}/metadata", guarded(metadata)))
        routes.append(Route(path, guarded(status)))
    return Starlette(routes=routes, exception_handlers={404: not_found})


def _refusal(refused):
    status, _ = refused.reason.value
    headers = {"Retry-After": RETRY_AFTER[refused.reason]} if refused.reason in RETRY_AFTER else {}
    if refused.reason is Reason.TOO_LARGE:
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": str(refused)}, status, headers)


async def _answer(dispatcher, request):
    """Return the body of the answer to a prediction request. It is cancelled if the client closes the connection."""
    try:
        files, by_rows = protocol.read_request(_parsed(await _body(request, dispatcher.limits.request_bytes)))
    except ClientDisconnect:
        raise asyncio.CancelledError from None
    # After the body, the only thing to receive is that the client has closed the connection.
    answer, closed = asyncio.ensure_future(dispatcher.detect(files)), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answer, closed), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise asyncio.CancelledError
        return json.dumps(protocol.write_answer(answer.result(), by_rows))
    finally:
        for task in (answer, closed):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _body(request: Request, most):
    declared = request.headers.get("content-length", "0")
    too_large = Refused(Reason.TOO_LARGE, f"a request may have {most:,} bytes at most")
    if declared.isdecimal() and int(declared) > most:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_large
    return bytes(body)


def _parsed(body):
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(Reason.INVALID, "the request is not JSON") from None
