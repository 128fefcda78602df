"""Hosted embeddings: each paid for once."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.models.hosted import BATCH, HostedEncoder
from embed_assets.resources import openai_server
from embed_assets.resources.openai_server import ATTEMPTS, ServerError
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.evaluation.embeddings_server import (
    SIZE,
    EmbeddingsServer,
    embedding,
    embeddings_reply,
    good_embeddings,
)
from embed_assets_tests.questions.written.llm_server import Request, Response, error

SECRET = "sk-very-secret-key"
TEXTS = [f"chapter {number} tells of the number {number}" for number in range(150)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_server, "LONGEST_BACKOFF", 0.02)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        yield running


def encoder(home: Path, model: str = "fake", **settings: object) -> HostedEncoder:
    chosen = Settings.model_validate({"home": home, **settings})
    return HostedEncoder(Warehouse.of(chosen), model, chosen)


def test_texts_are_embedded_in_batches_and_in_their_order(server, tmp_path):
    found = encoder(tmp_path).encode_documents(TEXTS)
    assert found.tolist() == [embedding(text) for text in TEXTS]
    assert found.dtype == np.float32
    assert sorted(len(r.body["input"]) for r in server.requests) == [150 - 2 * BATCH, BATCH, BATCH]
    assert {r.body["model"] for r in server.requests} == {"fake"}
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


def test_a_text_is_sent_once(server, tmp_path):
    first = encoder(tmp_path).encode_documents([*TEXTS, TEXTS[3]])
    assert len(server.texts) == len(TEXTS)
    again = encoder(tmp_path).encode_documents([*TEXTS, TEXTS[3], "a new one"])
    assert server.texts[len(TEXTS) :] == ["a new one"]
    assert np.array_equal(again[:-1], first)


def test_a_model_of_the_same_name_at_another_server_is_another_model(server, tmp_path, monkeypatch):
    here = encoder(tmp_path)
    here.encode_documents(["salt"])
    with EmbeddingsServer() as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        there = encoder(tmp_path)
        there.encode_documents(["salt"])
        assert other.texts == ["salt"]
    assert there.identity != here.identity


def test_another_model_or_prompt_is_asked_anew(server, tmp_path):
    encoder(tmp_path).encode_queries(["salt"])
    encoder(tmp_path, "other").encode_queries(["salt"])
    encoder(tmp_path, query_prompt="find: ").encode_queries(["salt"])
    assert server.texts == ["salt", "salt", "find: salt"]


def test_a_family_that_needs_prompts_gets_them(server, tmp_path):
    nomic = encoder(tmp_path, "nomic-embed-text")
    nomic.encode_queries(["salt"])
    nomic.encode_documents(["brine"])
    assert server.texts == ["search_query: salt", "search_document: brine"]


def test_an_empty_text_is_sent_as_a_blank(server, tmp_path):
    assert encoder(tmp_path).encode_documents([""]).shape == (1, SIZE)
    assert server.texts == [" "]


def test_no_more_calls_are_made_at_once_than_allowed(server, tmp_path):
    server.reply = lambda request: Response(body=good_embeddings(request).body, delay=0.05)
    texts = [f"text {number}" for number in range(6 * BATCH)]
    encoder(tmp_path, llm_concurrency=2).encode_documents(texts)
    assert server.most_at_once == 2


def test_a_busy_server_is_given_the_time_it_asks_for(server, tmp_path):
    def busy_once(request: Request) -> Response:
        if len(server.requests) == 1:
            return error(429, "slow down", {"Retry-After": "0.4"})
        return good_embeddings(request)

    server.reply = busy_once
    encoder(tmp_path).encode_queries(["salt"])
    first, second = server.requests
    assert second.at - first.at >= 0.4


@pytest.mark.parametrize(
    "trouble",
    [
        error(500, "internal error"),
        Response(status=503, body="<html>busy</html>"),
        Response(body="<html>a proxy's page</html>"),
        Response(body='{"data": null}'),
        Response(body='{"data": [{"embed', cut=8),
    ],
)
def test_trouble_that_passes_costs_nothing(server, tmp_path, trouble):
    server.reply = lambda r: trouble if r.times <= 2 else good_embeddings(r)
    assert encoder(tmp_path).encode_queries(["salt"]).tolist() == [embedding("salt")]


def test_a_server_that_takes_few_texts_at_once_is_given_fewer(server, tmp_path):
    def small(request: Request) -> Response:
        if len(request.body["input"]) > 20:
            return error(413, "batch size 64 > maximum allowed batch size 20")
        return good_embeddings(request)

    server.reply = small
    found = encoder(tmp_path).encode_documents(TEXTS)
    assert found.tolist() == [embedding(text) for text in TEXTS]


def test_a_text_that_is_refused_is_named(server, tmp_path):
    def picky(request: Request) -> Response:
        if TEXTS[7] in request.body["input"]:
            return error(400, "maximum context length is 8 tokens")
        return good_embeddings(request)

    server.reply = picky
    with pytest.raises(ServerError, match=r"refuses the text 'chapter 7 tells .*context length"):
        encoder(tmp_path).encode_documents(TEXTS[:10])


def test_a_server_that_stays_in_trouble_ends_the_work_and_what_was_kept_stays(server, tmp_path):
    encoder(tmp_path).encode_documents(TEXTS[:5])
    server.requests.clear()
    server.reply = lambda request: error(500, "out of order")
    with pytest.raises(ServerError, match=r"openai:fake: no answer: .*out of order"):
        encoder(tmp_path).encode_documents(TEXTS[:6])
    assert server.texts == [TEXTS[5]] * ATTEMPTS


@pytest.mark.parametrize(("status", "message"), [(401, "bad key"), (404, "no such model")])
def test_a_server_that_refuses_the_key_or_the_model_is_asked_once(
    server, tmp_path, status, message
):
    server.reply = lambda request: error(status, message)
    with pytest.raises(ServerError, match=f"openai:fake: the server refuses: .*{message}"):
        encoder(tmp_path, llm_concurrency=1).encode_documents(TEXTS)
    assert len(server.requests) == 1


def test_no_server_at_all_is_said(tmp_path, monkeypatch, free_port):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(ServerError, match="no answer: no connection"):
        encoder(tmp_path).encode_queries(["salt"])


def test_without_key_and_server_the_call_is_wrong(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"openai:fake: .*OPENAI_API_KEY"):
        encoder(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"index": 0, "embedding": [1.0, 2.0]}], "was sent 2 texts and gave 1 embeddings"),
        (
            [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
            "embeddings of 1 and of 2 dimensions",
        ),
        (
            [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [None]}],
            "something that is no number",
        ),
    ],
)
def test_a_reply_that_does_not_fit_is_refused_and_not_kept(server, tmp_path, rows, message):
    server.reply = lambda request: embeddings_reply(rows)
    with pytest.raises(ServerError, match=message):
        encoder(tmp_path).encode_documents(["salt", "brine"])
    server.reply = good_embeddings
    assert encoder(tmp_path).encode_documents(["salt", "brine"]).shape == (2, SIZE)


def test_a_model_that_changed_its_size_under_its_name_is_noticed(server, tmp_path):
    encoder(tmp_path).encode_documents(["salt"])
    server.reply = lambda r: embeddings_reply([{"index": 0, "embedding": embedding("brine", 8)}])
    with pytest.raises(ProjectError, match="of 8 dimensions now; those kept of it have 32"):
        encoder(tmp_path).encode_documents(["salt", "brine"])


def test_the_key_is_in_no_message_and_in_no_file(server, tmp_path, capfd):
    server.reply = lambda r: error(500 if r.times < 3 else 401, f"bad key Bearer {SECRET}")
    with pytest.raises(ServerError, match="bad key") as caught:
        encoder(tmp_path).encode_documents(["salt"], "Encoding")
    assert SECRET not in str(caught.value)
    said = capfd.readouterr()
    assert "Trying again" in said.err
    assert SECRET not in said.err + said.out
    server.reply = good_embeddings
    encoder(tmp_path).encode_documents(["salt"])
    files = [Path(root) / name for root, _, names in os.walk(tmp_path) for name in names]
    assert files
    assert not any(SECRET.encode() in file.read_bytes() for file in files)
