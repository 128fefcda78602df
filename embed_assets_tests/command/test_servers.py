"""The servers that a person looks at, where a machine is set up in other ways."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from embed_assets.command.servers import _mlflow_command, _wait, serve
from embed_assets.errors import SettingsError
from embed_assets.settings import Settings
from embed_assets_tests.machines import WINDOWS


@pytest.fixture
def server() -> Iterator[str]:
    """Address of a server that answers."""
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
        _wait("MLflow", server, process, Settings(home=tmp_path))
        process.kill()


def test_windows_is_told_what_to_start_instead(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ui needs Linux or macOS"):
        serve(Settings(home=tmp_path), 3000, 5000, lambda *_: None, WINDOWS)


def test_the_address_of_mlflow_s_database_is_not_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@127.0.0.1/mlflow")
    assert "secret" not in " ".join(_mlflow_command(Settings(home=tmp_path), 5000))
