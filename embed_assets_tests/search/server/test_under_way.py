"""What happens while requests are under way: others come, the champion changes, clients leave."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from embed_assets.search.server.access import Access
from embed_assets.search.server.limits import Limits
from embed_assets.search.server.listening import Listening, listen
from embed_assets.search.server.serving import Serving
from embed_assets_tests.search.server.conftest import Start, error_of
from embed_assets_tests.search.server.made_up import REFUSED, Following, MadeUp, vector


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def waiting(client: httpx.Client) -> int:
    return client.get("/health").json()["waiting"]


def embed(client: httpx.Client, *texts: str, model: str = "champion") -> httpx.Response:
    return client.post("/v1/embeddings", json={"input": texts, "model": model})


def test_requests_that_come_together_are_one_batch_in_one_thread(client, served):
    served.free.clear()
    with ThreadPoolExecutor(9) as callers:
        first = callers.submit(embed, client, "first")
        served.asked.wait(20)
        texts = [f"text {n}" for n in range(8)]
        asked = [
            callers.submit(
                embed, client, text, model=f"champion-{'query' if n % 2 else 'document'}"
            )
            for n, text in enumerate(texts)
        ]
        until(lambda: waiting(client) == 8)
        served.free.set()
        answers = [one.result() for one in asked]
        assert first.result().status_code == 200

    for n, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        [row] = answer.json()["data"]
        expected = vector(text, "query" if n % 2 else "document", "v1")
        assert np.allclose(row["embedding"], expected, atol=1e-6)
    kinds = [(kind, sorted(called)) for kind, called in served.calls[1:]]
    assert sorted(kinds) == [("document", texts[::2]), ("query", texts[1::2])]
    assert len(served.threads) == 1


def test_one_request_that_breaks_the_model_harms_no_other(client, served):
    served.free.clear()
    with ThreadPoolExecutor(4) as callers:
        callers.submit(embed, client, "first")
        served.asked.wait(20)
        asked = [callers.submit(embed, client, text) for text in ("a", REFUSED, "b")]
        until(lambda: waiting(client) == 3)
        served.free.set()
        statuses = [one.result().status_code for one in asked]

    assert statuses == [200, 500, 200]


def test_a_request_is_answered_wholly_by_the_model_that_was_champion_when_it_came(client, server):
    old, new = server[1].served, MadeUp("v2")
    old.free.clear()
    many = [f"text {n}" for n in range(300)]
    with ThreadPoolExecutor(3) as callers:
        long = callers.submit(embed, client, *many, model="v1")
        old.asked.wait(20)
        search = callers.submit(client.post, "/v1/search", json={"query": "valve"})
        until(lambda: waiting(client) == 300 - 128 + 1)
        server[1].served = new
        after = callers.submit(embed, client, "after")
        until(lambda: waiting(client) == 300 - 128 + 2)
        old.free.set()
        answers = [one.result().json() for one in (long, search, after)]

    assert [answer["model"] for answer in answers] == ["v1", "v1", "v2"]
    rows = np.array([row["embedding"] for row in answers[0]["data"]])
    assert np.allclose(rows, [vector(text, "document", "v1") for text in many], atol=1e-6)
    assert "[v1," in answers[1]["results"][0]["chunk_text"]
    assert embed(client, "a", model="v1").status_code == 404


def test_a_client_that_leaves_is_not_worked_for(client, served):
    served.free.clear()
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(embed, client, "first")
        served.asked.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            client.post(
                "/v1/embeddings", json={"input": "left", "model": "v1"}, timeout=httpx.Timeout(0.2)
            )
        until(lambda: waiting(client) == 0)
        served.free.set()
        assert first.result().status_code == 200
    assert embed(client, "next").status_code == 200

    assert [texts for _, texts in served.calls] == [["first"], ["next"]]


def test_a_full_queue_is_503_with_retry_after(start: Start):
    url, follower = start(Limits(waiting=2))
    served = follower.served
    served.free.clear()
    with (
        httpx.Client(base_url=url, trust_env=False, verify=False) as client,
        ThreadPoolExecutor(2) as callers,
    ):
        first = callers.submit(embed, client, "first")
        served.asked.wait(20)
        fits = callers.submit(embed, client, "a", "b")
        until(lambda: waiting(client) == 2)
        full = client.post("/v1/search", json={"query": "valve"})
        served.free.set()
        assert [one.result().status_code for one in (first, fits)] == [200, 200]

    assert full.status_code == 503
    assert int(full.headers["retry-after"]) >= 1
    assert error_of(full)["code"] == "queue_full"


def test_an_ending_server_takes_nothing_new_and_finishes_what_is_at_work():
    follower = Following(MadeUp())
    follower.served.free.clear()
    server = Listening(Serving(follower, Access(), Limits()), listen("127.0.0.1", 0))
    with ThreadPoolExecutor(2) as callers:
        with server:
            client = httpx.Client(base_url=server.url, trust_env=False, verify=False, timeout=20)
            asked = callers.submit(embed, client, "at work")
            follower.served.asked.wait(20)
            ending = threading.Timer(0, server.__exit__)
            ending.start()
            until(lambda: refused(server.url))
            assert not asked.done()
            follower.served.free.set()
        assert asked.result().status_code == 200
        client.close()
        ending.join()


def refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/health", trust_env=False, verify=False)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:  # it was connected while the server ended
        return False
    return False
