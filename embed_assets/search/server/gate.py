"""What every request passes on its way in and out: access, the limit of its body, the metrics."""

import logging
import time
from typing import TYPE_CHECKING

from embed_assets.errors import ProjectError, one_line
from embed_assets.search.server.access import Access
from embed_assets.search.server.metrics import Metrics
from embed_assets.search.server.openai_form import JSON, ApiError
from embed_assets.secrets import hide_secrets

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_DRAINED = 64 << 20
"""Bytes read of a body that is too large: most clients hear nothing before they have sent it."""
OTHER_ROUTE = "other"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_log = logging.getLogger(__name__)


class Gate:
    """ASGI middleware, the outermost of the server's own."""

    def __init__(self, app: "ASGIApp", access: Access, body_bytes: int, metrics: Metrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._body_bytes = body_bytes

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve the request, or say why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "no WebSockets here"})
            return
        started, status = time.perf_counter(), 500

        async def sent(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        try:
            try:
                self._access.check(scope)
                bounded = await self._bounded(scope, receive)
            except ApiError as error:
                await response(error)(scope, receive, sent)
            else:
                await self._app(scope, bounded, sent)
        except Exception as error:  # the application has sent what the client is told
            if not isinstance(error, ProjectError):
                _log.error("A request failed.", exc_info=error)
        finally:
            route = getattr(scope.get("route"), "path", OTHER_ROUTE)
            self._metrics.answered(route, status, time.perf_counter() - started)

    async def _bounded(self, scope: "Scope", receive: "Receive") -> "Receive":
        """`receive` for bodies up to the limit. ApiError for one that says that it is longer."""
        from starlette.datastructures import Headers
        from starlette.exceptions import HTTPException

        too_large = f"The body is larger than {self._body_bytes >> 20} MB: send less at a time."
        said = Headers(scope=scope).get("content-length", "0")
        if said.isdecimal() and int(said) > self._body_bytes:
            await _drain(receive, min(int(said), MOST_DRAINED))
            raise ApiError(413, too_large)
        received = 0

        async def bounded() -> "Message":
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._body_bytes:
                raise HTTPException(413, too_large)  # the one kind that FastAPI lets through
            return message

        return bounded


async def _drain(receive: "Receive", most: int) -> None:
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


def response(error: ApiError) -> "Response":
    """An error, as it is sent."""
    from starlette.responses import Response

    return Response(error.body, error.status, error.headers, JSON)


def failure(error: Exception) -> ApiError:
    """What a client is told of an error that nobody foresaw; the log has all of it."""
    if isinstance(error, ProjectError):
        return ApiError(500, hide_secrets(str(error)))
    said = one_line(hide_secrets(str(error)))
    return ApiError(500, f"{type(error).__name__}: {said}" if said else type(error).__name__)
