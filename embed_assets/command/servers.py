"""The two servers a person looks at: Dagster and MLflow, on loopback, on the same state."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from embed_assets.command.pipeline import prepare_home
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.machine import Machine, this_machine
from embed_assets.resources.tracking import UI_VARIABLE, Tracking, without_password
from embed_assets.settings import Settings

HOST = "127.0.0.1"
START_TIMEOUT = 120.0


def serve(
    settings: Settings,
    port: int,
    mlflow_port: int,
    emit: Callable[[dict[str, Any], str], None],
    machine: Machine | None = None,
) -> None:
    """Start both, say where they are, and stay until interrupted or until one of them ends."""
    if (machine or this_machine()).platform == "win32":
        raise SettingsError(
            "embed-assets ui needs Linux or macOS. On Windows start the two servers yourself: "
            "`dg dev` in the project's folder, and `mlflow server`."
        )
    prepare_home(settings)
    commands = {"Dagster": (_dagster_command(settings, port), f"http://{HOST}:{port}")}
    tracking = Tracking(home=str(settings.home))
    tracking.make_database()
    if tracking.uri.startswith("http"):
        mlflow_url = without_password(tracking.uri)
    else:
        mlflow_url = f"http://{HOST}:{mlflow_port}"
        commands["MLflow"] = (_mlflow_command(settings, mlflow_port), mlflow_url)
    for name, (_, url) in commands.items():
        _check_free(name, int(url.rpartition(":")[2]))
    for ended in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, lambda *_: sys.exit(0))
    # MLflow's own job queue would start seven more processes, for features not used here.
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
        UI_VARIABLE: mlflow_url,
        # Not on the command line: `ps` shows that, and the address may hold a password.
        "MLFLOW_BACKEND_STORE_URI": tracking.uri,
    }
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, (command, _) in commands.items():
            log = _log(settings, name).open("wb")
            processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        for name, (_, url) in commands.items():
            _wait(name, url, processes[name], settings)
        dagster_url = commands["Dagster"][1]
        emit(
            {"dagster": dagster_url, "mlflow": mlflow_url},
            f"Dagster  {dagster_url}\nMLflow   {mlflow_url}\nState    {settings.home}\n"
            "Ctrl-C stops both.",
        )
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    raise ProjectError(f"{name} ended: see {_log(settings, name)}.")
            time.sleep(1)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
    finally:
        # make passes on what its own group got already: a second signal must not cut this short.
        for ended in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(ended, signal.SIG_IGN)
        for process in processes.values():
            _stop(process)


def _dagster_command(settings: Settings, port: int) -> list[str]:
    workspace = str(settings.dagster_home / "workspace.yaml")
    where = ["--host", HOST, "--port", str(port)]
    return [sys.executable, "-m", "dagster", "dev", "--workspace", workspace, *where]


def _mlflow_command(settings: Settings, port: int) -> list[str]:
    artifacts = ["--default-artifact-root", (settings.home / "mlartifacts").as_uri()]
    where = ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *artifacts, *where]


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            option = "--port" if name == "Dagster" else "--mlflow-port"
            raise SettingsError(
                f"{name}: port {port} is taken. Give another one with {option}."
            ) from None


def _wait(name: str, url: str, process: subprocess.Popen[bytes], settings: Settings) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is asked
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with direct.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise ProjectError(f"{name} did not start: see {_log(settings, name)}.")


def _log(settings: Settings, name: str) -> Path:
    return settings.home / f"{name.lower()}-server.log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its children, which share its process group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
