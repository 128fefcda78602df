"""Who is answered: whoever has the key, and no page of another site."""

import logging

import httpx
import pytest
from pydantic import SecretStr

from embed_assets.errors import SettingsError
from embed_assets.search.server.access import Access, access
from embed_assets.settings import Settings
from embed_assets_tests.search.server.conftest import Start, error_of

KEY = "a-key-of-some-length"
ROUTES = [
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/v1"),
    ("POST", "/v1/search"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
]


@pytest.fixture(scope="module")
def locked(start: Start) -> str:
    return start(access=Access(KEY))[0]


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"),
        *(f"Basic {KEY}", KEY, "Bearer schlüssel"),
    ],
)
def test_without_the_key_nothing_is_answered_but_health(locked, header):
    headers = {} if header is None else {"Authorization": header.encode()}
    with httpx.Client(base_url=locked, headers=headers, trust_env=False, verify=False) as client:
        for method, path in ROUTES:
            response = client.request(method, path)
            assert response.status_code == 401, path
            assert error_of(response)["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
            assert KEY not in response.text
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_key_all_is_answered(locked, scheme):
    headers = {"Authorization": f"{scheme} {KEY}"}
    with httpx.Client(base_url=locked, headers=headers, trust_env=False, verify=False) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/metrics").status_code == 200
        body = {"input": "a", "model": "champion"}
        assert client.post("/v1/embeddings", json=body).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "LOCALHOST:9999"}, 200),  # a forwarded port
        ({"Host": "[::1]:{port}"}, 200),
        ({"Host": "another.site"}, 403),
        ({"Host": "127.0.0.1.another.site:{port}"}, 403),
        ({"Host": "localhost:{port}@another.site"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://another.site", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),  # another server on this machine
        ({"Origin": "http://localhost:{port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
    ],
)
def test_a_page_of_another_site_may_ask_nothing(client, served, headers, status):
    port = client.base_url.port
    sent = {name: value.format(port=port) for name, value in headers.items()}
    body = {"input": "a", "model": "champion"}
    response = client.post("/v1/embeddings", json=body, headers=sent)

    assert response.status_code == status
    assert bool(served.calls) == (status == 200)
    if status == 403:
        assert error_of(response)["type"] == "permission_error"
    assert "access-control-allow-origin" not in response.headers


def test_a_proxy_is_answered_under_the_name_that_is_set(start: Start):
    settings = Settings(serve_hosts="Search.example.com, other.example.com:8443")
    url, _ = start(access=access(settings, "127.0.0.1"))

    with httpx.Client(base_url=url, trust_env=False, verify=False) as client:

        def status(host: str, origin: str) -> int:
            headers = {"Host": host, "Origin": origin}
            return client.get("/health", headers=headers).status_code

        assert status("search.example.com", "https://search.example.com") == 200
        assert status("other.example.com:8443", "https://other.example.com:8443") == 200
        assert status("other.example.com", "https://other.example.com") == 403
        assert status("search.example.com", "https://another.site") == 403


def test_told_to_listen_on_the_network_any_name_is_answered_and_no_other_site(start: Start):
    url, _ = start(access=access(Settings(), "0.0.0.0"))

    with httpx.Client(base_url=url, trust_env=False, verify=False) as client:
        assert client.get("/health", headers={"Host": "pod-7.cluster"}).status_code == 200
        crossed = {"Host": "pod-7.cluster", "Origin": "http://another.site"}
        assert client.get("/health", headers=crossed).status_code == 403


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", {"127.0.0.1", "localhost", "[::1]"}),
        ("127.0.0.2", {"127.0.0.1", "127.0.0.2", "localhost", "[::1]"}),
        ("::1", {"127.0.0.1", "localhost", "[::1]"}),
        ("0.0.0.0", None),
        ("::", None),
    ],
)
def test_which_names_are_answered_follows_from_where_it_listens(host, names):
    assert access(Settings(), host).names == names


def test_on_the_network_only_the_names_that_are_set_are_answered():
    names = access(Settings(serve_hosts="pod-7"), "0.0.0.0").names
    assert names == {"127.0.0.1", "localhost", "[::1]", "0.0.0.0", "pod-7"}


@pytest.mark.parametrize("key", ["short", "with some spaces", "schlüssel-mit-ü", "with\nline-end"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(key):
    with pytest.raises(SettingsError, match="EMBED_ASSETS_SERVE_KEY: a key has") as error:
        access(Settings(serve_key=SecretStr(key)), "127.0.0.1")
    assert key not in str(error.value)


def test_the_key_is_shown_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("EMBED_ASSETS_SERVE_KEY", KEY)
    settings = Settings()
    given = access(settings, "127.0.0.1")

    assert given.key == KEY
    logging.getLogger("test").warning("%s %r %r", settings.serve_key, settings, given)
    assert KEY not in caplog.text
