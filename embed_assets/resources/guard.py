"""A guard in front of a server on loopback: only its own pages may ask it for anything.

Every web page open in a browser can send requests to servers on the same machine, and a name that a
stranger owns can be made to lead to 127.0.0.1 (DNS rebinding). Dagster's server executes what such
requests say, also mutations by GET. A browser tells who asks, in headers that a page can't forge:
Host, Origin and Sec-Fetch-Site.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
UI_HOSTS = "EMBED_ASSETS_UI_HOSTS"
SAME = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of the server's own pages, and of what a person typed or chose."""
FRAMES = ((b"x-frame-options", b"SAMEORIGIN"),)
"""Other pages may not show the server's in a frame, where a person would press what they don't see.
"""


class Guard:
    """ASGI middleware: 403 to requests and WebSockets that another site's page may have sent.

    Programs on this machine send no Origin, and are let through: they need no browser to do harm.
    """

    def __init__(self, app: "ASGIApp", hosts: Iterable[str]) -> None:
        """`hosts`: as `own_hosts` gives them."""
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve the request, or say why not."""
        from starlette.responses import PlainTextResponse

        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = refusal(scope, self._hosts)
        if refused is None:
            await self._app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await PlainTextResponse(f"{refused}\n", status_code=403)(scope, receive, send)


def own_hosts(port: int, named: str = "") -> frozenset[str]:
    """Host headers of a server on loopback. named: those of a proxy in front, as in UI_HOSTS."""
    proxied = (host.strip().lower() for host in named.split(","))
    return frozenset([*(f"{host}:{port}" for host in LOOPBACK), *filter(None, proxied)])


def refusal(scope: "Scope", hosts: Collection[str]) -> str | None:
    """Why a request is refused, in one line; None where it may pass."""
    from starlette.datastructures import Headers

    headers = Headers(scope=scope)
    asked = [host.lower() for host in headers.getlist("host")]
    if len(asked) != 1 or asked[0] not in hosts:
        return (
            f"Host {', '.join(asked) or 'missing'}: this server has other names. "
            f"That of a proxy or of a forwarded port is given with {UI_HOSTS}."
        )
    origins = headers.getlist("origin")
    if any(_host_of(origin) not in hosts for origin in origins):
        return f"Origin {', '.join(origins)}: a page of another site may ask nothing here."
    if not origins and _is_of_another_site(scope, headers):
        return "A page of another site may link here, and nothing else."
    if scope["type"] == "http" and scope["method"] != "POST" and _changes_something(scope):
        return "A mutation is sent by POST."
    return None


def _host_of(origin: str) -> str:
    """Host and port of an origin; of `null`, and of what is none, nothing."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return ""
    return parts.netloc if parts.scheme in ("http", "https") else ""


def _is_of_another_site(scope: "Scope", headers: "Headers") -> bool:
    """Whether a browser says that another site asks, and not for a page to go to."""
    if headers.get("sec-fetch-site", "none") in SAME:
        return False
    goes_there = headers.get("sec-fetch-mode") == "navigate"
    in_a_window = headers.get("sec-fetch-dest") == "document"
    return not (scope.get("method") in ("GET", "HEAD") and goes_there and in_a_window)


def _changes_something(scope: "Scope") -> bool:
    """Whether the query string holds a GraphQL operation that is no query."""
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    said = scope["query_string"].decode("latin-1")
    for name, value in parse_qsl(said, keep_blank_values=True):
        if name != "query":
            continue
        try:
            operations = parse(value, no_location=True).definitions
        except (GraphQLError, RecursionError):  # nothing that is executed
            continue
        for operation in operations:
            if isinstance(operation, OperationDefinitionNode) and (
                operation.operation is not OperationType.QUERY
            ):
                return True
    return False


def _unframed(send: "Send") -> "Send":
    """`send` with the header that keeps a page out of other pages' frames."""

    async def sent(message: "Message") -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *FRAMES]}
        await send(message)

    return sent
