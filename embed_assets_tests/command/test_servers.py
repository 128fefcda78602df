"""The servers that a person looks at, where a machine is set up in other ways."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import dagster as dg
import psutil
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test
from filelock import FileLock

from embed_assets.command.instance import prepare_home
from embed_assets.command.servers import (
    LONGEST_STOP,
    _bring_in_line,
    _cancel_runs,
    _check_guard,
    _direct,
    _mlflow_command,
    _started,
    _stop,
    _wait,
    serve,
    serve_pages,
)
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.patience import ONCE
from embed_assets.settings import Settings
from embed_assets_tests.machines import WINDOWS

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture
def server() -> Iterator[str]:
    """Address of a server that answers."""
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with Dagster's databases, and one PDF to list."""
    monkeypatch.setenv("DAGSTER_HOME", "")  # preparing sets it: it must not outlive the test
    settings = Settings(home=tmp_path / "home", pdfs=tmp_path)
    (tmp_path / "a.pdf").write_bytes(b"a")
    prepare_home(settings)
    return settings


def listed() -> int:
    with dg.DagsterInstance.get() as instance:
        return len(instance.get_dynamic_partitions(DOCUMENTS))


def test_an_mlflow_server_that_is_down_is_asked_once_when_all_is_listed_and_holds_no_lock(
    home: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[tuple[int, bool]] = []

    class Down(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with FileLock(home.home / "command.lock", timeout=0) as lock:
                found.append((listed(), lock.is_locked))
            self.send_error(503)

    with HTTPServer(("127.0.0.1", 0), Down) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        _bring_in_line(home)
        server.shutdown()
    assert found == [(1, True)]
    assert "What was killed may look alive in MLflow: MLflow can't say" in capsys.readouterr().err
    assert ONCE.keys().isdisjoint(os.environ), "the servers would inherit it"


def test_a_warehouse_that_is_none_keeps_nobody_from_the_pages(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    home.warehouse_file.write_text("hello" * 1000)
    _bring_in_line(home)
    said = capsys.readouterr().err
    assert said.startswith("The PDFs can't be listed yet: ")
    assert "not a valid DuckDB" in said
    assert said.count("\n") == 1


def test_runs_end_with_the_server_that_executes_them_and_no_others_do(home: Settings) -> None:
    at_work = dg.DagsterRunStatus.STARTED
    with dg.DagsterInstance.get() as instance:
        here, elsewhere = (
            create_run_for_test(instance, status=at_work, tags=tags).run_id
            for tags in ({GRPC_INFO_TAG: '{"host": "localhost", "socket": "/x"}'}, {})
        )
        _cancel_runs()
        left = {run.run_id: run.status for run in instance.get_runs()}
    assert left == {here: dg.DagsterRunStatus.CANCELING, elsewhere: at_work}


def test_servers_end_though_dagster_can_t_be_told_that_their_runs_are_cancelled(
    home: Settings,
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}

    def serve_until_dagster_is_gone(lock: int) -> None:
        with _started(home, {n: ["sleep", "600"] for n in "ab"}, {}, lock) as processes:
            started.extend(processes.values())
            shutil.rmtree(home.dagster_home)

    try:
        with (
            (home.home / "lock").open("w") as lock,
            pytest.raises(dg.DagsterInvariantViolationError),
        ):
            serve_until_dagster_is_gone(lock.fileno())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert [process.poll() for process in started] == [-signal.SIGTERM] * 2


def test_what_a_server_that_was_killed_had_started_is_ended_with_it() -> None:
    call = ["sh", "-c", "sleep 600 & echo $!"]
    server = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert server.stdout is not None
    left = psutil.Process(int(server.stdout.readline()))
    server.wait()
    assert left.is_running()
    _stop(server)
    psutil.wait_procs([left], timeout=10)
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE


AS_FIRST_PROCESS = """
import ctypes, subprocess, time
from embed_assets.command.servers import _stop
assert ctypes.CDLL(None).prctl(36, 1) == 0  # whoever loses their parent comes to this process
server = subprocess.Popen(["sh", "-c", "sleep 600 & exit"], start_new_session=True)
server.wait()
began = time.monotonic()
_stop(server)
print(time.monotonic() - began)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_the_first_process_of_a_container_does_not_wait_for_who_has_ended() -> None:
    call = [sys.executable, "-c", AS_FIRST_PROCESS]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert float(done.stdout) < LONGEST_STOP


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9"])
def test_a_server_that_is_up_is_found_whatever_proxy_leads_outside(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str | None
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setattr("embed_assets.command.servers.START_TIMEOUT", 10.0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        _wait("MLflow", server, process, "its log")
        process.kill()


def test_windows_is_told_what_to_start_instead(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ui needs Linux or macOS"):
        serve(Settings(home=tmp_path), 3000, 5000, lambda *_: None, WINDOWS)
    with pytest.raises(SettingsError, match="ui needs Linux or macOS"):
        serve_pages(Settings(home=tmp_path), "127.0.0.1", 3000, lambda *_: None, WINDOWS)


def test_pages_alone_are_guarded_wherever_they_listen_and_end_with_their_server(
    home: Settings, free_port: Callable[[], int]
) -> None:
    handlers = {number: signal.getsignal(number) for number in ENDING}
    nothing = "load_from: []\n"  # loading the project's own definitions takes seconds
    (home.dagster_home / "workspace.yaml").write_text(nothing, encoding="utf-8")
    port = free_port()
    answers: list[int] = []
    others = set(psutil.Process().children())

    def ask_and_end_the_server(summary: dict[str, object], text: str) -> None:
        assert summary["dagster"] == f"http://127.0.0.1:{port}"
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"another.site:{port}"):
            answers.append(status(f"{summary['dagster']}/server_info", host))
        [server] = set(psutil.Process().children()) - others
        server.terminate()

    try:
        with pytest.raises(ProjectError, match="Dagster ended"):
            serve_pages(home, "0.0.0.0", port, ask_and_end_the_server)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert answers == [200, 200, 403]


def status(url: str, host: str) -> int:
    try:
        with _direct().open(Request(url, headers={"Host": host})) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def test_pages_alone_are_not_served_at_a_port_that_is_taken(home: Settings, server: str) -> None:
    port = int(server.rpartition(":")[2])
    with pytest.raises(SettingsError, match=f"port {port} is taken"):
        serve_pages(home, "127.0.0.1", port, lambda *_: None)


def test_the_address_of_mlflow_s_database_is_not_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@127.0.0.1/mlflow")
    assert "secret" not in " ".join(_mlflow_command(Settings(home=tmp_path), 5000))


def test_a_server_that_answers_to_another_site_is_not_served(server: str) -> None:
    with pytest.raises(ProjectError, match="no guard"):
        _check_guard(server)
