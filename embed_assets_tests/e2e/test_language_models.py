"""The command with a language model: killed, run again, and against somebody else's server."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from embed_assets_tests.questions.written.llm_server import LLMServer, Response, good_reply
from embed_assets_tests.tiny_llm import QUESTION, make_tiny_chat_model

SECRET = "sk-end-to-end-secret"
CONCURRENCY = 2


@pytest.fixture
def project(tmp_path, five_pdfs, environment, command):
    """Runs the command on five PDFs with a model at an address."""
    folder = five_pdfs(tmp_path / "pdfs")

    def start(what: str, url: str, **more: str) -> subprocess.Popen:
        variables = {
            **environment,
            "EMBED_ASSETS_QUESTIONS": "openai:fake",
            "EMBED_ASSETS_LLM_CONCURRENCY": str(CONCURRENCY),
            "OPENAI_BASE_URL": url,
            "OPENAI_API_KEY": SECRET,
            **more,
        }
        arguments = [command, what, "--pdfs", folder, "--home", tmp_path / "home", "--json"]
        return subprocess.Popen(
            arguments,
            env=variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "stderr.log").open("a"),
            text=True,
            start_new_session=True,
        )

    return start


def finish(process: subprocess.Popen) -> Mapping:
    stdout, _ = process.communicate(timeout=600)
    assert process.returncode == 0, stdout
    return json.loads(stdout)


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.long
def test_a_run_killed_half_way_repeats_only_the_calls_in_flight_and_trains(project, tmp_path):
    with LLMServer(lambda r: Response(body=good_reply(r).body, delay=0.15)) as server:
        process = project("run", server.url)
        wait_until(lambda: len(server.requests) >= 8)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        before = len(server.requests)

        summary = finish(project("run", server.url))
        calls = Counter(request.passage for request in server.requests)
        assert summary["chunks"] == len(calls) > before
        assert sum(calls.values()) - len(calls) <= CONCURRENCY
        assert summary["pairs"]["train"] >= 16
        assert summary["model"]["version"] == "1"

        finish(project("ingest", server.url))
        assert sum(calls.values()) == len(server.requests)
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "answers.sqlite" for file in written)
    assert not [file for file in written if SECRET.encode() in file.read_bytes()]


def test_what_a_budget_left_over_is_asked_by_the_next_command(project):
    with LLMServer() as server:
        summary = finish(project("ingest", server.url, EMBED_ASSETS_LLM_TOKEN_BUDGET="600"))
        assert len(server.requests) == 5
        assert summary["questions_not_asked"] == summary["chunks"] - 5
        summary = finish(project("ingest", server.url))
        assert summary["questions_not_asked"] == 0
        assert len(server.requests) == summary["chunks"]


def test_a_server_of_somebody_elses_is_understood(project, tmp_path, free_port):
    """The server of the transformers library, with a model made here."""
    model = make_tiny_chat_model(tmp_path / "llm")
    template = tmp_path / "short.jinja"
    template.write_text("Ask {{ n }} questions.")
    port = free_port()
    command = [Path(sys.executable).with_name("transformers"), "serve", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "server.log").open("w") as log:
        serving = subprocess.Popen(
            [*command, "--host", "127.0.0.1"], env=environment, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health") or serving.poll() is not None)
        summary = finish(
            project(
                "ingest",
                f"http://127.0.0.1:{port}/v1",
                EMBED_ASSETS_QUESTIONS=f"openai:{model}",
                EMBED_ASSETS_QUESTION_PROMPT=str(template),
                EMBED_ASSETS_LLM_MAX_TOKENS="40",
                EMBED_ASSETS_LLM_TEMPERATURE="0",
                EMBED_ASSETS_FILTERS="none",
            )
        )
    finally:
        serving.terminate()
        serving.wait(30)
    labelled = 4
    assert summary["questions"] == summary["chunks"] + labelled, (
        tmp_path / "server.log"
    ).read_text()
    export = tmp_path / "out.jsonl"
    command = Path(sys.executable).with_name("embed-assets")
    subprocess.run([command, "export", export, "--home", tmp_path / "home"], check=True)
    asked = [json.loads(line)["question"] for line in export.read_text().splitlines()]
    assert asked.count(QUESTION) == summary["chunks"]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False
