"""A server on loopback, in a thread, with a made-up model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from embed_assets.search.server.access import Access
from embed_assets.search.server.limits import Limits
from embed_assets.search.server.listening import Listening, listen
from embed_assets.search.server.serving import Serving
from embed_assets_tests.search.server.made_up import Following, MadeUp

Start = Callable[..., tuple[str, Following]]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts a server with these limits, key or names: its address, and what it follows."""
    with ExitStack() as running:

        def started(
            limits: Limits | None = None,
            access: Access | None = None,
            votes: Path | None = None,
        ) -> tuple[str, Following]:
            follower = Following(MadeUp())
            serving = Serving(follower, access or Access(), limits or Limits(), votes)
            server = running.enter_context(Listening(serving, listen("127.0.0.1", 0)))
            return server.url, follower

        yield started


@pytest.fixture(scope="module")
def server(start: Start) -> tuple[str, Following]:
    return start()


@pytest.fixture
def served(server: tuple[str, Following]) -> Iterator[MadeUp]:
    """The model of `server`, new for each test."""
    _, follower = server
    follower.served = MadeUp()
    yield follower.served
    follower.served.free.set()


@pytest.fixture(scope="module")
def asking(server: tuple[str, Following]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server[0], trust_env=False, timeout=20, verify=False) as client:
        yield client


@pytest.fixture
def client(asking: httpx.Client, served: MadeUp) -> httpx.Client:
    """Asks `server`, whose model is `served`."""
    return asking


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in OpenAI's form."""
    assert response.headers["content-type"] == "application/json"
    said = response.json()
    assert set(said) == {"error"}
    assert set(said["error"]) == {"message", "type", "param", "code"}
    return said["error"]
