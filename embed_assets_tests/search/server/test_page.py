"""The page, PDFs by their links, and votes: what a browser is told and what is kept."""

import json
import re
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from embed_assets.search.server.access import Access
from embed_assets.search.server.feedback import add_vote, read_votes
from embed_assets.search.server.links import LASTS, is_signed, pdf_link
from embed_assets.search.server.page import page_and_policy
from embed_assets_tests.search.server.conftest import Start, error_of

KEY = "a-key-of-some-length"
VOTE = {
    "query": "how to open the valve",
    "chunk_id": "c0",
    "document_id": "pump-1",
    "path": "manuals/pump <1>.pdf",
    "page": 1,
    "relevant": True,
}


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "feedback.jsonl"


@pytest.fixture(scope="module")
def locked(start: Start, votes: Path) -> str:
    return start(access=Access(KEY), votes=votes)[0]


@pytest.fixture(scope="module")
def keyed(locked: str):
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=locked, headers=headers, trust_env=False, verify=False) as client:
        yield client


def test_the_page_is_one_file_that_loads_nothing_and_runs_its_own_script_alone(locked):
    shown = httpx.get(locked, trust_env=False, verify=False)

    assert shown.status_code == 200
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    policy = shown.headers["content-security-policy"]
    assert policy == page_and_policy()[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert re.findall(r"innerHTML|<script [^>]|src=", shown.text) == []
    assert set(re.findall(r"https?://[^\"]*", shown.text)) == {"http://www.w3.org/2000/svg"}
    assert shown.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("key", [None, KEY])
def test_a_result_links_to_its_pdf_at_its_page(locked, keyed, client, key):
    asking = keyed if key else client
    found = asking.post("/v1/search", json={"query": "valve", "k": 2}).json()
    link = urlsplit(found["results"][1]["pdf"])

    assert link.fragment == "page=2"
    assert ("signature" in link.query) == bool(key)
    # As a browser follows it: without a key.
    opened = httpx.get(
        asking.base_url.join(f"{link.path}?{link.query}"), trust_env=False, verify=False
    )
    assert opened.status_code == 200
    assert opened.content.startswith(b"%PDF")
    assert opened.headers["content-type"] == "application/pdf"
    assert opened.headers["content-disposition"] == "inline; filename*=UTF-8''pump%20%3C1%3E.pdf"
    assert opened.headers["x-content-type-options"] == "nosniff"


def test_what_is_no_document_on_record_is_not_served(client):
    for path in ("../../etc/passwd", "/etc/passwd", "other.pdf", ""):
        response = client.get("/pdf", params={"path": path})
        assert response.status_code == 404
        assert error_of(response)["param"] == "path"
    assert client.get("/pdf").status_code == 400


def test_a_signed_link_opens_its_own_pdf_for_a_while_and_nothing_else(locked):
    def query(link: str) -> dict[str, str]:
        return dict(httpx.QueryParams(urlsplit(link).query))

    given = query(pdf_link("a ü.pdf", 3, KEY, now=1000))
    assert is_signed(given, KEY, now=1000 + LASTS)
    assert not is_signed(given, KEY, now=1001 + LASTS)
    assert not is_signed(given, "another-key", now=1000)
    assert not is_signed({**given, "path": "b.pdf"}, KEY, now=1000)
    assert not is_signed({**given, "until": "9999999999"}, KEY, now=1000)
    assert not is_signed({"path": "a ü.pdf"}, KEY, now=1000)
    assert not is_signed({**given, "signature": "ü"}, KEY, now=1000)
    signed = query(pdf_link("manuals/pump <1>.pdf", 1, KEY))
    with httpx.Client(base_url=locked, trust_env=False, verify=False) as client:
        assert client.get("/pdf", params=signed).status_code == 200
        assert client.get("/pdf", params={"path": signed["path"]}).status_code == 401
        assert client.get("/v1/models", params=signed).status_code == 401


def test_a_vote_is_kept_in_a_file_that_is_its_owners_alone(keyed, votes):
    assert keyed.post("/v1/feedback", json=VOTE).json() == {"kept": True}
    again = {**VOTE, "relevant": False, "page": None}
    assert keyed.post("/v1/feedback", json=again).status_code == 200

    [line, _] = votes.read_text(encoding="utf-8").splitlines()
    assert {key: value for key, value in json.loads(line).items() if key != "at"} == VOTE
    [kept] = read_votes(votes)
    assert kept["relevant"] is False
    assert votes.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"relevant": 1}, "relevant"),
        ({"relevant": None}, "relevant"),
        ({"chunk_id": ""}, "chunk_id"),
        ({"chunk_id": "c" * 201}, "chunk_id"),
        ({"page": "1"}, "page"),
        ({"query": "\ud800"}, "query"),
        ({"note": "more"}, "note"),
    ],
)
def test_what_is_no_vote_is_refused(keyed, votes, change, param):
    before = read_votes(votes)
    body = json.dumps({**VOTE, **change}).encode()
    response = keyed.post(
        "/v1/feedback", content=body, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert read_votes(votes) == before


def test_a_server_without_a_file_for_votes_says_so(client):
    assert client.post("/v1/feedback", json=VOTE).status_code == 404


def test_the_later_vote_on_the_same_counts(tmp_path: Path):
    file = tmp_path / "feedback.jsonl"
    add_vote(file, VOTE)
    add_vote(file, {**VOTE, "chunk_id": "c1"})
    add_vote(file, {**VOTE, "query": "line\nend \u2028 ü"})
    add_vote(file, {**VOTE, "relevant": False})

    found = [(vote["query"], vote["chunk_id"], vote["relevant"]) for vote in read_votes(file)]
    query = VOTE["query"]
    assert found == [
        (query, "c0", False),
        (query, "c1", True),
        ("line\nend \u2028 ü", "c0", True),
    ]


def test_without_a_file_there_are_no_votes(tmp_path: Path):
    assert read_votes(tmp_path / "feedback.jsonl") == []


def test_a_line_that_was_cut_off_costs_no_other_vote(tmp_path: Path, caplog):
    file = tmp_path / "feedback.jsonl"
    add_vote(file, VOTE)
    with file.open("ab") as votes:
        votes.write(b'{"query": "cut')
    add_vote(file, {**VOTE, "chunk_id": "c1"})

    assert [vote["chunk_id"] for vote in read_votes(file)] == ["c0", "c1"]
    assert "line 2 is no vote" in caplog.text


def test_votes_that_come_at_once_are_all_kept(tmp_path: Path):
    file = tmp_path / "feedback.jsonl"
    people = [
        threading.Thread(target=add_vote, args=[file, {**VOTE, "chunk_id": f"c{n}"}])
        for n in range(20)
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()

    assert sorted(vote["chunk_id"] for vote in read_votes(file)) == sorted(
        f"c{n}" for n in range(20)
    )
