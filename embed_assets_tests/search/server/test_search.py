"""`/v1/search`, `/health` and `/metrics`."""

import httpx
import pytest

from embed_assets_tests.search.server.conftest import error_of
from embed_assets_tests.search.server.made_up import TEXTS, MadeUp


def search(client: httpx.Client, **body) -> httpx.Response:
    return client.post("/v1/search", json={"query": "how to open the valve", **body})


def test_a_search_gives_the_best_chunks_with_where_they_are_and_why(client):
    found = search(client, k=2).json()

    assert found["query"] == "how to open the valve"
    assert found["model"] == "v1"
    assert found["mode"] == "hybrid"
    assert found["cutoff"] == 0.2
    assert [row["chunk_id"] for row in found["results"]] == ["c0", "c1"]
    assert found["results"][0]["path"] == "manuals/pump <1>.pdf"
    assert (found["results"][0]["dense_rank"], found["results"][0]["lexical_rank"]) == (1, 2)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize(
    ("model", "searched"), [("champion", "champion"), ("v1", "champion"), ("base", "base")]
)
def test_mode_and_model_are_as_asked(client, mode, model, searched):
    found = search(client, mode=mode, model=model).json()

    assert f"[v1, {searched}, {mode}]" in found["results"][0]["chunk_text"]
    assert found["model"] == ("base" if model == "base" else "v1")


def test_results_below_a_score_or_the_cutoff_are_left_out(client):
    assert len(search(client).json()["results"]) == len(TEXTS)
    assert len(search(client, min_score=0.4).json()["results"]) == 2
    assert len(search(client, only_likely=True).json()["results"]) == 2
    assert search(client, min_score=0.9).json()["results"] == []


@pytest.mark.parametrize("asked", [{"mode": "lexical"}, {"model": "base"}])
def test_what_is_likely_can_be_asked_of_the_champion_s_cosines_alone(client, asked):
    refused = search(client, only_likely=True, **asked)
    assert refused.status_code == 400
    assert error_of(refused)["param"] == "only_likely"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": " \n"}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": "a" * 20_001}, "query"),
        ({"k": 0}, "k"),
        ({"k": 1001}, "k"),
        ({"k": "5"}, "k"),
        ({"mode": "fuzzy"}, "mode"),
        ({"model": 3}, "model"),
        ({"min_score": "high"}, "min_score"),
        ({"limit": 5}, "limit"),
    ],
)
def test_a_wrong_search_is_refused_with_the_field(client, served, body, param):
    response = search(client, **body)

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert not served.calls


def test_a_model_without_vectors_cannot_be_searched_with(client, server):
    server[1].served.models = ("champion",)
    response = search(client, model="base")

    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"


def test_health_says_what_is_served(client):
    assert client.get("/health").json() == {
        "status": "ok",
        "model": "v1",
        "identity": "identity of v1",
        "models": ["champion", "base"],
        "chunks": 3,
        "waiting": 0,
    }


def test_the_champion_that_is_current_answers(client, server):
    server[1].served = MadeUp("v2")

    assert client.get("/health").json()["model"] == "v2"
    assert search(client).json()["model"] == "v2"


def test_metrics_count_requests_texts_and_batches_and_name_the_model(client, server):
    def lines() -> dict[str, float]:
        shown = client.get("/metrics")
        assert shown.headers["content-type"].startswith("text/plain")
        rows = [line for line in shown.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (row.rpartition(" ") for row in rows)}

    before = lines()
    client.post("/v1/embeddings", json={"input": ["a b", "c"], "model": "v1-query"})
    client.post("/v1/embeddings", json={"input": []})
    search(client, mode="dense")
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    server[1].served = MadeUp("v2")
    after = lines()

    def more(name: str) -> float:
        return after[f"embed_assets_{name}"] - before.get(f"embed_assets_{name}", 0)

    assert more('requests_total{route="/v1/embeddings",status="200"}') == 1
    assert more('requests_total{route="/v1/embeddings",status="400"}') == 1
    assert more('requests_total{route="other",status="404"}') == 2
    assert more('request_seconds_count{route="/v1/search"}') == 1
    assert more('texts_total{task="query"}') == 2
    assert more('tokens_total{task="query"}') == 3
    assert more('searches_total{mode="dense"}') == 1
    assert more("batch_texts_sum") == 3
    assert more("batch_texts_count") == 2
    assert after["embed_assets_waiting_texts"] == 0
    assert after["embed_assets_chunks"] == 3
    assert 'embed_assets_model_info{identity="identity of v2",name="v2"}' in after
    assert not any('name="v1"' in name for name in after)
