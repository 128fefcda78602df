"""`/v1/embeddings` and `/v1/models` are as OpenAI's, and say what is wrong as OpenAI does."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from embed_assets_tests.search.server.conftest import Start, error_of
from embed_assets_tests.search.server.made_up import REFUSED, MadeUp, vector

LOOP = "Loop with \U0001f426 and Ünicode"


def embed(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "champion", **body})


def vectors(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [row["index"] for row in data] == list(range(len(data)))
    return np.array([row["embedding"] for row in data], dtype=np.float32)


def test_a_text_and_a_list_of_texts_become_vectors_in_their_order(client):
    one, two = embed(client, input=LOOP), embed(client, input=["b", LOOP])

    assert np.array_equal(vectors(one), [vector(LOOP, "document", "v1")])
    assert np.array_equal(
        vectors(two), [vector("b", "document", "v1"), vector(LOOP, "document", "v1")]
    )
    assert two.json()["object"] == "list"
    assert two.json()["model"] == "v1"


def test_base64_holds_the_same_numbers_as_floats(client):
    floats = vectors(embed(client, input=["a", "b"]))
    response = embed(client, input=["a", "b"], encoding_format="base64")

    shown = [base64.b64decode(row["embedding"]) for row in response.json()["data"]]
    assert np.array_equal(np.stack([np.frombuffer(row, "<f4") for row in shown]), floats)


@pytest.mark.parametrize("dimensions", [8, 4, 2])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_shorter_vector_is_the_first_numbers_normalised(client, dimensions, encoding):
    response = embed(client, input="a", dimensions=dimensions, encoding_format=encoding)

    [shown] = [row["embedding"] for row in response.json()["data"]]
    if encoding == "base64":
        shown = np.frombuffer(base64.b64decode(shown), "<f4")
    first = vector("a", "document", "v1")[:dimensions]
    assert np.allclose(shown, first / np.linalg.norm(first), atol=1e-6)


def test_usage_counts_the_tokens_that_were_read_and_the_texts_that_were_cut(client):
    response = embed(client, input=["one two", "1 2 3 4 5 6 7 8"])

    assert response.json()["usage"] == {
        "prompt_tokens": 2 + 6,
        "total_tokens": 2 + 6,
        "truncated_texts": 1,
    }


def test_a_long_text_is_refused_where_cutting_is_not_wanted(client, served):
    response = embed(client, input=["one", "1 2 3 4 5 6 7 8"], truncate=False)

    assert response.status_code == 400
    assert error_of(response)["code"] == "context_length_exceeded"
    assert "Input 1 has 8 tokens; v1 reads 6" in error_of(response)["message"]
    assert not served.calls


@pytest.mark.parametrize(
    ("said", "task"),
    [
        ({"input_type": "query"}, "query"),
        ({"input_type": "document"}, "document"),
        ({"input_type": "passage"}, "document"),
        ({"input_type": None}, "document"),
        ({"model": "champion-query"}, "query"),
        ({"model": "v1-query"}, "query"),
        ({"model": "v1-document"}, "document"),
        ({"model": "v1"}, "document"),
        ({"model": "v1-query", "input_type": "query"}, "query"),
    ],
)
def test_texts_are_documents_unless_input_type_or_the_models_suffix_says_query(client, said, task):
    response = embed(client, input="a", **said)

    assert np.array_equal(vectors(response), [vector("a", task, "v1")])


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "input", "Field required"),
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "one at least"),
        ({"input": ["a", ""]}, "input", "empty"),
        ({"input": None}, "input", "a text or a list"),
        ({"input": {"a": 1}}, "input", "a text or a list"),
        ({"input": [1, 2]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, "input", "tokens are not accepted"),
        ({"input": ["a", 1.5]}, "input", "a text is expected"),
        ({"input": "a", "dimensions": 3}, "dimensions", "8, 4, 2"),
        ({"input": "a", "dimensions": -1}, "dimensions", "8, 4, 2"),
        ({"input": "a", "dimensions": "4"}, "dimensions", "integer"),
        ({"input": "a", "dimensions": True}, "dimensions", "integer"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "input_type": "question"}, "input_type", "'query'"),
        ({"input": "a", "input_type": "document", "model": "v1-query"}, "input_type", "suffix"),
        ({"input": "a", "model": ""}, "model", "empty"),
    ],
)
def test_a_wrong_request_is_refused_with_its_field_and_why(client, served, body, param, said):
    response = embed(client, **body)

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert said in error_of(response)["message"]
    assert error_of(response)["type"] == "invalid_request_error"
    assert not served.calls


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'"text"', "application/json"),
        (b"\xff\xfe{}", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"input": ' + b"9" * 10_000 + b', "model": "v1"}', "application/json"),
        (b'{"input": "\\ud800", "model": "v1"}', "application/json"),
        (b'{"input": "a", "model": "\\ud800"}', "application/json"),
        (b'{"input": "a", "model": "v1"}', "text/plain"),
        (b"input=a&model=v1", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_no_request_is_refused(client, content, kind):
    response = client.post("/v1/embeddings", content=content, headers={"content-type": kind})

    assert response.status_code == 400
    assert error_of(response)["message"]


def test_a_field_that_is_not_known_is_ignored(client):
    assert embed(client, input="a", user="someone", priority=3).status_code == 200


@pytest.mark.parametrize("name", ["v2", "v1-passage", "query", "text-embedding-3-small", "\x00"])
def test_a_model_that_is_not_there_is_not_found(client, name):
    response = embed(client, input="a", model=name)

    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"
    assert "`champion`, which is v1 now" in error_of(response)["message"]


def test_the_models_are_listed_and_each_is_taken(client):
    listed = client.get("/v1/models").json()

    names = [model["id"] for model in listed["data"]]
    assert names == [
        *("champion", "champion-query", "champion-document"),
        *("v1", "v1-query", "v1-document"),
    ]
    for model in listed["data"]:
        assert client.get(f"/v1/models/{model['id']}").json() == model
        assert embed(client, input="a", model=model["id"]).status_code == 200
    assert listed["data"][0]["dimensions"] == [8, 4, 2]
    assert error_of(client.get("/v1/models/v2"))["code"] == "model_not_found"


def test_a_name_of_a_hub_model_has_a_slash(client, server):
    server[1].served = MadeUp("org/model-query")

    assert client.get("/v1/models/org/model-query").json()["id"] == "org/model-query"
    response = embed(client, input="a", model="org/model-query")
    assert np.array_equal(vectors(response), [vector("a", "document", "org/model-query")])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/embeddings", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v2/embeddings", 404),
        ("GET", "/docs", 404),
        ("POST", "/v1/embeddings/", 404),
    ],
)
def test_a_route_that_there_is_not_is_an_error_in_the_same_form(client, method, path, status):
    response = client.request(method, path)

    assert response.status_code == status
    assert error_of(response)["type"] == "invalid_request_error"


def test_what_breaks_the_model_is_an_error_of_the_server_in_the_same_form(client):
    response = embed(client, input=REFUSED)

    assert response.status_code == 500
    assert error_of(response)["type"] == "server_error"
    assert error_of(response)["message"] == "RuntimeError: it broke"
    assert embed(client, input="a").status_code == 200


def test_the_description_of_the_api_can_be_read(client):
    described = client.get("/openapi.json").json()

    assert "/v1/embeddings" in described["paths"]
    assert "/v1/search" in described["paths"]


def test_requests_beyond_the_limits_are_refused_with_the_limit(start: Start):
    from embed_assets.search.server.limits import Limits

    url, _ = start(Limits(inputs=2, tokens=5, body_bytes=1 << 20))
    with httpx.Client(base_url=url, trust_env=False, verify=False, timeout=20) as client:
        many = embed(client, input=["a", "b", "c"])
        long = embed(client, input=["1 2 3", "4 5 6"])
        large = embed(client, input="a" * (1 << 20))
        chunked = client.post("/v1/embeddings", content=iter([b" " * (1 << 19)] * 4))
        fits = embed(client, input=["1 2 3", "4 5"])

    assert (many.status_code, error_of(many)["param"]) == (400, "input")
    assert "3 texts; a request may have 2" in error_of(many)["message"]
    assert (long.status_code, error_of(long)["param"]) == (400, "input")
    assert "6 tokens; a request may have 5" in error_of(long)["message"]
    for response in (large, chunked):
        assert response.status_code == 413
        assert "larger than 1 MB" in error_of(response)["message"]
    assert fits.status_code == 200
