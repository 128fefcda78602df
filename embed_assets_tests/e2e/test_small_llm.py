"""Questions from a real language model, small as it is, with structured output and without."""

import json
import os
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import pytest

from embed_assets.questions.statuses import DROPPED, KEPT
from embed_assets_tests.e2e.conftest import write_pdf
from embed_assets_tests.small_llm import MISSING, MODEL, small_llm

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
LOCK = """# The lock at Arden

The chamber of the lock holds two hundred cubic metres of water. It is filled through two sluices in
nine minutes, and emptied through four of them in six. Boats longer than twelve metres pay a double
toll, and pass at noon alone, when the upper gates stand open for half an hour.

---

# Closed days

In January the lock is drained, and its gates are hung anew. Each gate turns on a pintle of bronze,
which is greased with tallow. No boat passes in that month. Whoever is above the lock by the last
day of December stays there until the first of February, and pays for the berth.
"""


@contextmanager
def in_front_of(server: str, *, structured: bool) -> Iterator[tuple[str, list[bool]]]:
    """A server that passes on what it is asked; one that isn't structured refuses a format.

    Gives its address, and whether each request asked for a format, as they come.
    """
    asked: list[bool] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append("response_format" in json.loads(body))
            if asked[-1] and not structured:
                return self.reply(400, b'{"error": {"message": "response_format: not known"}}')
            request = urllib.request.Request(
                server.removesuffix("/v1") + self.path,
                body,
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=600) as response:
                return self.reply(response.status, response.read())

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/v1", asked
        finally:
            listening.shutdown()


@pytest.mark.parametrize("structured", [True, False])
def test_whatever_a_small_model_says_is_a_question_or_has_a_status_and_is_paid_once(
    structured, tmp_path: Path, environment, command
):
    (tmp_path / "pdfs").mkdir()
    write_pdf(tmp_path / "pdfs" / "lock.pdf", LOCK)
    settings = {
        "EMBED_ASSETS_QUESTIONS": f"openai:{MODEL}",
        "EMBED_ASSETS_LLM_MAX_TOKENS": "200",
        "EMBED_ASSETS_LLM_CONCURRENCY": "1",
        "EMBED_ASSETS_LLM_TIMEOUT": "600",
        "EMBED_ASSETS_LLM_INPUT_PRICE": "1",
        "EMBED_ASSETS_LLM_OUTPUT_PRICE": "1",
        "OPENAI_API_KEY": "none",
    }
    arguments = [command, "ingest", "--pdfs", tmp_path / "pdfs", "--home", tmp_path / "home"]

    def ingest(url: str) -> None:
        done = subprocess.run(
            [*arguments, "--json"],
            env={**os.environ, **environment, **settings, "OPENAI_BASE_URL": url},
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    with (
        small_llm(tmp_path / "server.log") as server,
        in_front_of(server, structured=structured) as (url, asked),
    ):
        ingest(url)
        requests = len(asked)
        ingest(url)
    assert len(asked) == requests
    assert asked[0]
    assert asked[-1] is structured
    with duckdb.connect(str(tmp_path / "home" / "warehouse.duckdb"), read_only=True) as warehouse:
        rows = warehouse.sql(
            "SELECT q.status, q.question, q.input_tokens, q.output_tokens FROM chunks c "
            "LEFT JOIN synthetic_questions q USING (chunk_id)"
        ).fetchall()
    assert {status for status, *_ in rows} <= {KEPT, *DROPPED}
    assert all(question for status, question, *_ in rows if status == KEPT)
    assert sum(read or 0 for *_, read, _ in rows) > 0
    assert sum(written or 0 for *_, written in rows) > 0
