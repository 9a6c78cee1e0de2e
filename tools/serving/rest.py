"""TensorFlow Serving's REST, and the page, as an ASGI application around a `Door`."""

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from tools.serving import contract
from tools.serving.contract import Reason, Refused
from tools.serving.door import Door

import prometheus_client
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

PAGE = Path(__file__).with_name("page.html")
RETRY_AFTER = {Reason.FULL: "1", Reason.AWAY: "1"}  # seconds
NAMES = "/*class names*/ []"  # where the page has them


def application(
    door: Door, model: str, classes: tuple[str, ...], token: str | None, is_ready: Callable[[], Awaitable[bool]]
) -> Starlette:
    """Return the application.

    token     what requests must bring as "Authorization: Bearer TOKEN"; None: nothing. The page itself and /healthz
              are for anybody.
    is_ready  whether there is a replica that answers
    """
    names = json.dumps(classes).replace("<", "\\u003c")  # so that no name ends the script
    page = PAGE.read_text(encoding="utf-8").replace(NAMES, names).replace("MODEL", model)

    def guarded(answer):
        async def guarded_answer(request):
            try:
                given = request.headers.get("authorization", "")
                if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                    raise Refused(Reason.NO_TOKEN, "this server asks for a token: Authorization: Bearer TOKEN")
                return await answer(request)
            except Refused as refused:
                return _refusal(refused)

        return guarded_answer

    async def predict(request):
        with door.admit("rest"):
            contract.check_model(model, request.path_params["model"], request.path_params.get("version"))
            try:
                answer = await asyncio.wait_for(_answer(door, request), door.limits.seconds)
            except TimeoutError:
                raise Refused(Reason.LATE, f"no answer within {door.limits.seconds:g} seconds") from None
        return Response(answer, media_type="application/json")

    async def status(request):
        contract.check_model(model, request.path_params["model"], request.path_params.get("version"))
        return JSONResponse(contract.status(await is_ready() and not door.is_closing))

    async def metadata(request):
        contract.check_model(model, request.path_params["model"], request.path_params.get("version"))
        return JSONResponse(contract.metadata(model))

    async def metrics(request):
        return PlainTextResponse(prometheus_client.generate_latest(door.metrics))

    async def show_page(request):
        return HTMLResponse(page)

    async def healthz(request):
        is_well = not door.is_closing and await is_ready()
        return PlainTextResponse("ok\n" if is_well else "not ready\n", 200 if is_well else 503)

    async def not_found(request, error):
        return JSONResponse({"error": f"{request.url.path} is not there"}, 404)

    routes = [Route("/", show_page), Route("/healthz", healthz)]
    routes += [Route(path, guarded(metrics)) for path in ("/metrics", "/monitoring/prometheus/metrics")]
    for place in ("/v1/models/{model}", "/v1/models/{model}/versions/{version:int}"):
        routes.append(Route(f"{place}:predict", guarded(predict), methods=["POST"]))
        routes.append(Route(f"{place}/metadata", guarded(metadata)))
        routes.append(Route(place, guarded(status)))
    return Starlette(routes=routes, exception_handlers={404: not_found})


def _refusal(refused):
    status, _ = refused.reason.value
    headers = {"Retry-After": RETRY_AFTER[refused.reason]} if refused.reason in RETRY_AFTER else {}
    if refused.reason is Reason.TOO_LARGE:
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": str(refused)}, status, headers)


async def _answer(door, request):
    """Return the body of the answer to a prediction request. A client that leaves cancels it."""
    try:
        files, by_rows = contract.read_request(_parsed(await _body(request, door.limits.request_bytes)))
    except ClientDisconnect:
        raise asyncio.CancelledError from None
    # Behind the body, the only thing to receive is that the client has left.
    asked, left = asyncio.ensure_future(door.detect(files)), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((asked, left), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise asyncio.CancelledError
        return json.dumps(contract.write_answer(asked.result(), by_rows))
    finally:
        for task in (asked, left):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _body(request: Request, most):
    declared = request.headers.get("content-length", "0")
    too_large = Refused(Reason.TOO_LARGE, f"a request may have {most:_} bytes at most")
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
