"""`embed-assets serve` says where it is, and ends in order when it is told to."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from embed_assets.command.serving import serve
from embed_assets.errors import SettingsError
from embed_assets.settings import Settings
from embed_assets_tests.search.server.made_up import Following, MadeUp

KEY = "a-key-of-some-length"
PROGRAM = """
import sys
from embed_assets.command import cli, serving
from embed_assets.search import following
from embed_assets_tests.search.server.made_up import Following, MadeUp
cli._searcher = lambda settings: None
following.IndexFollower = lambda settings: Following(MadeUp())
sys.argv = ["embed-assets", "serve", "--port", "0", "--json", *sys.argv[1:]]
cli.main()
"""


def test_a_signal_ends_the_server_in_order(tmp_path: Path):
    server = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--home", str(tmp_path / "home")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "EMBED_ASSETS_SERVE_KEY": KEY},
    )
    assert server.stdout is not None
    said = json.loads(server.stdout.readline())
    assert said["model"] == "v1"
    assert said["key"] is True
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(
        base_url=said["url"], headers=headers, trust_env=False, verify=False
    ) as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/v1/models").status_code == 200
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=30)

    assert server.returncode == 0, err
    assert out == ""
    assert "what is at work is finished" in err
    assert "Traceback" not in err
    assert KEY not in err


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--port: port {port} of .* is taken"):
            serve(Settings(home=tmp_path), "127.0.0.1", port, print, nothing)


def test_a_host_that_is_not_this_machine_s_is_said(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"--host: nothing can listen at 192\.0\.2\.1"):
        serve(Settings(home=tmp_path), "192.0.2.1", 0, print, nothing)


@pytest.mark.parametrize(("key", "warns"), [(None, True), (KEY, False)])
def test_on_the_network_without_a_key_a_person_is_warned(tmp_path, monkeypatch, capsys, key, warns):
    if key:
        monkeypatch.setenv("EMBED_ASSETS_SERVE_KEY", key)

    class EndedError(Exception):
        pass

    def emit(*_: object) -> None:
        raise EndedError

    follower = Following(MadeUp())
    with pytest.raises(EndedError):
        serve(Settings(home=tmp_path), "0.0.0.0", 0, emit, lambda _: follower)

    assert ("EMBED_ASSETS_SERVE_KEY" in capsys.readouterr().err) == warns
    assert follower.closed


def nothing(_: Settings) -> Following:
    raise AssertionError("the model is not to be loaded")
