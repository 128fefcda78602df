"""What a page of another site may ask of a server on this machine: nothing."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from embed_assets.resources.guard import Guard, own_hosts

OWN = ("127.0.0.1:3000", "localhost:3000", "[::1]:3000")
MUTATION, QUERY = "mutation { wipe }", "{ version }"
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture
def asked() -> list[str]:
    """What came through to the server behind the guard."""
    return []


@pytest.fixture
def client(asked: list[str]) -> Iterator[TestClient]:
    async def answer(request: Request) -> JSONResponse:
        asked.append(request.method)
        return JSONResponse({})

    async def talk(websocket: WebSocket) -> None:
        asked.append("websocket")
        await websocket.accept()
        await websocket.close()

    methods = ["GET", "POST"]
    routes = [Route("/graphql", answer, methods=methods), WebSocketRoute("/graphql", talk)]
    app = Guard(Starlette(routes=routes), own_hosts(3000, "Dagster.example.com, localhost:8000"))
    with TestClient(app, "http://127.0.0.1:3000") as client:
        yield client


def told(client: TestClient, headers: dict[str, str], method: str = "POST", **sent: Any) -> int:
    return client.request(method, "/graphql", headers=headers, **sent).status_code


def opened(client: TestClient, headers: dict[str, str]) -> bool:
    try:
        with client.websocket_connect("/graphql", headers={"host": OWN[0], **headers}):
            return True
    except WebSocketDisconnect:
        return False


@pytest.mark.parametrize("host", [*OWN, "LOCALHOST:3000", "dagster.example.com", "localhost:8000"])
def test_its_own_pages_are_answered_under_each_of_its_names(client, asked, host):
    page = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert told(client, page) == told(client, {"host": host}, "GET") == 200
    assert opened(client, page)
    assert asked == ["POST", "GET", "websocket"]


@pytest.mark.parametrize(
    "host",
    ["another.site", "another.site:3000", "127.0.0.1", "127.0.0.1:5000", "10.0.0.1:3000", ""],
)
def test_a_name_that_is_made_to_lead_here_is_refused(client, asked, host):
    rebound = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert told(client, rebound) == told(client, {"host": host}, "GET") == 403
    assert not opened(client, rebound)
    assert not asked


@pytest.mark.parametrize(
    "origin",
    [
        "http://another.site",
        "https://127.0.0.1",
        "http://127.0.0.1:5000",
        "http://localhost:3000.another.site",
        "http://me@127.0.0.1:3000",
        "chrome-extension://127.0.0.1:3000",
        "file://",
        "null",
        "http://[",
        "",
    ],
)
def test_a_page_of_another_origin_is_refused(client, asked, origin):
    assert told(client, {"origin": origin}) == told(client, {"origin": origin}, "GET") == 403
    assert not opened(client, {"origin": origin})
    assert not asked


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_page_of_another_site_embeds_is_refused_and_its_links_are_followed(
    client, asked, site
):
    link = {"sec-fetch-site": site, **LINK}
    assert told(client, {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}, "GET") == 403
    assert told(client, {**link, "sec-fetch-dest": "iframe"}, "GET") == 403
    assert told(client, link, "POST") == 403
    assert not opened(client, {"sec-fetch-site": site, "sec-fetch-mode": "websocket"})
    assert told(client, link, "GET") == 200
    assert asked == ["GET"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "queries", [[MUTATION], [f"query a {QUERY} {MUTATION}"], [QUERY, MUTATION], [MUTATION, QUERY]]
)
def test_a_mutation_is_refused_but_by_post(client, asked, method, queries):
    assert told(client, {}, method, params={"query": queries}) == 403
    assert not asked
    assert told(client, {}, params={"query": queries}) == 200


@pytest.mark.parametrize("query", [QUERY, "{", "", "# mutation\n{ version }", "{" * 5_000])
def test_what_is_no_mutation_may_be_asked_by_get(client, query):
    assert told(client, {}, "GET", params={"query": query}) == 200


def test_programs_that_say_no_origin_are_answered(client):
    assert told(client, {}) == 200
    assert opened(client, {})


def test_no_other_page_may_show_it_in_a_frame(client):
    assert client.get("/graphql").headers["x-frame-options"] == "SAMEORIGIN"
