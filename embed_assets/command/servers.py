"""What runs until a person ends it: Dagster and MLflow, the sensors alone, or the pages alone.

One daemon looks at a home: two would each ask for everything. Pages alone may be served as often as
people like.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import typer
from dagster._core.storage.tags import GRPC_INFO_TAG  # Dagster doesn't export it
from filelock import Timeout

from embed_assets.automation.runs import (
    AT_WORK,
    EVERYTHING,
    command_lock,
)
from embed_assets.automation.sensors import SENSORS
from embed_assets.automation.state import list_documents
from embed_assets.command import guarded, stopping
from embed_assets.command.instance import prepare_home
from embed_assets.command.news import News
from embed_assets.command.pipeline import (
    end_dead_if_answered,
    end_dead_said,
    explain,
    say_moves,
)
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.machine import Machine, processes_with, this_machine
from embed_assets.resources.guard import UI_HOSTS, own_hosts
from embed_assets.resources.pages import (
    DAGSTER_VARIABLE,
    MLFLOW_VARIABLE,
    graph_path,
    launchpad_path,
    remember_pages,
)
from embed_assets.resources.tracking import (
    Tracking,
    without_password,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

HOST = "127.0.0.1"
EVERY_ADDRESS = ("0.0.0.0", "")
"""Hosts that stand for all addresses of this machine."""
START_TIMEOUT = 120.0
LONGEST_STOP = 15.0
DAEMON = "Daemon"
Emit = Callable[[dict[str, Any], str], None]


def serve(
    settings: Settings,
    port: int,
    mlflow_port: int,
    emit: Emit,
    machine: Machine | None = None,
) -> None:
    """Start both servers, say where they are, and stay until interrupted or until one ends."""
    _check_machine("ui", machine or this_machine())
    prepare_home(settings)
    with _only_daemon(settings) as lock:
        commands = {"Dagster": (_dagster_command(settings, port), f"http://{HOST}:{port}")}
        tracking = Tracking(home=str(settings.home), project=settings.project)
        tracking.make_database()
        if tracking.uri.startswith("http"):
            mlflow_url = without_password(tracking.uri)
        else:
            mlflow_url = f"http://{HOST}:{mlflow_port}"
            commands["MLflow"] = (_mlflow_command(settings, mlflow_port), mlflow_url)
        for name, (_, url) in commands.items():
            _check_free(name, int(url.rpartition(":")[2]))
        mlflow_hosts = own_hosts(mlflow_port, settings.ui_hosts)
        served = {MLFLOW_VARIABLE: mlflow_url, DAGSTER_VARIABLE: commands["Dagster"][1]}
        # MLflow's own job queue would start seven more processes, for features not used here.
        environment = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **os.environ,
            **served,
            # Not on the command line: `ps` shows that, and the address may hold a password.
            "MLFLOW_BACKEND_STORE_URI": tracking.uri,
            UI_HOSTS: settings.ui_hosts,
            # By itself MLflow answers to every address of a private network.
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(sorted(mlflow_hosts)),
        }
        typer.echo(f"Starting {' and '.join(commands)} …", err=True)
        with _started(
            settings, {n: c for n, (c, _) in commands.items()}, environment, lock
        ) as processes:
            for name, (_, url) in commands.items():
                _wait(name, url, processes[name], _log(settings, name))
            _check_guard(commands["Dagster"][1])
            dagster_url, runs_url = commands["Dagster"][1], f"{mlflow_url}/{_runs_link(tracking)}"
            graph = f"{dagster_url}{graph_path()}"
            launchpad = f"{dagster_url}{launchpad_path(EVERYTHING)}"
            os.pwrite(lock, dagster_url.encode(), 0)
            remember_pages(settings.home, served)
            on = f"\nSensors  {', '.join(SENSORS)} watch {settings.pdfs}" if settings.watch else ""
            emit(
                {
                    "dagster": dagster_url,
                    "graph": graph,
                    "everything": launchpad,
                    "mlflow": mlflow_url,
                    "mlflow_runs": runs_url,
                    "watching": settings.watch,
                },
                f"Dagster  {dagster_url}\nMLflow   {runs_url}\nGraph    {graph}\n"
                f"Start    {launchpad}\nState    {settings.home}{on}\n"
                "Launch Run on the page of Start does all that is due.\nCtrl-C stops both.",
            )
            _stay(settings, processes)


def serve_pages(
    settings: Settings, host: str, port: int, emit: Emit, machine: Machine | None = None
) -> None:
    """Serve Dagster's pages alone, and stay until interrupted or until the server ends.

    Daemon and MLflow are elsewhere: nothing is tidied up here, and no run ends with this process.
    """
    _check_machine("ui", machine or this_machine())
    prepare_home(settings)
    _check_free("Dagster", port, host)
    workspace = str(settings.dagster_home / "workspace.yaml")
    where = ["--workspace", workspace, "--host", host, "--port", str(port)]
    call = [sys.executable, "-m", guarded.MODULE, guarded.WEBSERVER, *where]
    environment = {**os.environ, UI_HOSTS: settings.ui_hosts}
    url = f"http://{HOST if host in EVERY_ADDRESS else host}:{port}"
    typer.echo("Starting Dagster …", err=True)
    try:
        with stopping.children_hear():
            server = subprocess.Popen(
                call, stdout=2, stderr=2, env=environment, start_new_session=True
            )
        try:
            own = {"Host": f"{HOST}:{port}"}  # whatever address it listens at
            _wait("Dagster", url, server, "what it said above", own)
            _check_guard(url, own)
            emit({"dagster": url}, f"Dagster  {url}\nState    {settings.home}\nCtrl-C stops it.")
            server.wait()
        finally:
            for ended in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(ended, signal.SIG_IGN)
            _stop(server)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        return
    raise ProjectError("Dagster ended: see what it said above.")


def _runs_link(tracking: Tracking) -> str:
    """Page of MLflow that shows the runs with their headline figures.

    Its first page, where another server would have to be asked.
    """
    if tracking.database is None:
        return ""
    tracking.connect()  # the first `ui` of a home makes the experiment
    return tracking.runs_link


def watch(settings: Settings, emit: Emit, machine: Machine | None = None) -> None:
    """Run the sensors without a page: say what they do, and stay until interrupted."""
    _check_machine("watch", machine or this_machine())
    prepare_home(settings)
    workspace = str(settings.dagster_home / "workspace.yaml")
    command = [sys.executable, "-m", "dagster._daemon", "run", "--workspace", workspace]
    with (
        _only_daemon(settings) as lock,
        dg.DagsterInstance.get() as instance,
        _started(settings, {DAEMON: command}, dict(os.environ), lock) as processes,
    ):
        emit(
            {"watching": str(settings.pdfs), "home": str(settings.home), "sensors": [*SENSORS]},
            f"Watching {settings.pdfs}\nState    {settings.home}\nCtrl-C stops it.",
        )
        news = News(instance)
        _stay(settings, processes, lambda: [typer.echo(line, err=True) for line in news.lines()])


def _check_machine(command: str, machine: Machine) -> None:
    if machine.platform == "win32":
        raise SettingsError(
            f"embed-assets {command} needs Linux or macOS. On Windows start the servers yourself: "
            "`dg dev` in the project's folder, and `mlflow server`."
        )


@contextmanager
def _only_daemon(settings: Settings) -> Iterator[int]:
    """Nobody else runs a daemon on this home; its sensors are on where that is asked for.

    Gives the descriptor of a lock, for the daemon to hold too: it may outlive this process.
    """
    import fcntl  # Windows has none

    file = settings.home / "daemon.lock"
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ProjectError(_already(settings, file)) from None
    try:
        os.ftruncate(lock, 0)
        if settings.watch:
            _turn_on()
        _bring_in_line(settings)
        yield lock
    finally:
        os.close(lock)


def _already(settings: Settings, lock: Path) -> str:
    """That a daemon is at work, which processes that is, and where its pages are, if it has any."""
    address = lock.read_text(encoding="utf-8")
    holders = ", ".join(processes_with(lock))
    named = f": {holders}" if holders else ""
    opened = f"It was opened at {address}: go there, or end it first." if address else ""
    return (
        f"`embed-assets ui` or `watch` is at work on {settings.home} already, or Dagster's daemon "
        f"that it started{named}. {opened or 'End it first.'} `embed-assets ui --no-daemon` serves "
        "pages beside it."
    )


def _bring_in_line(settings: Settings) -> None:
    """End what is dead, and list the PDFs of the folder: what a person sees is as it is.

    Trouble with it is said, and keeps nobody from the pages.
    """
    with dg.DagsterInstance.get() as instance:
        try:
            with command_lock(settings.home):
                end_dead_said(instance, settings)
                _list(instance, settings)
        except Timeout:  # a command is at work: it does the same
            return
        except (ProjectError, duckdb.Error, OSError) as error:
            typer.echo(f"The PDFs can't be listed yet: {explain(error, None)}", err=True)
        # Outside the lock: MLflow's server may keep whom it pleases waiting.
        end_dead_if_answered(instance, settings)


def _list(instance: dg.DagsterInstance, settings: Settings) -> None:
    """List the PDFs of the folder, and say what left, what moved, or why they can't be listed."""
    plan = list_documents(instance, Warehouse.of(settings), settings)
    say_moves(plan)
    if plan.refused:
        typer.echo(f"The PDFs are not listed: {plan.refused} ({settings.pdfs}).", err=True)


def _turn_on() -> None:
    """Forget that a person turned a sensor off: then it is as the definitions have it, on."""
    with dg.DagsterInstance.get() as instance:
        for state in instance.all_instigator_state():
            if state.instigator_name in SENSORS and not state.is_running:
                instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)


@contextmanager
def _started(
    settings: Settings, commands: Mapping[str, list[str]], environment: Mapping[str, str], lock: int
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes by name, each with its log in the home; ended with the block, or by a signal.

    lock: descriptor that they hold as long as they live.
    """
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            # Dagster ends its own with SIGINT.
            with _log(settings, name).open("wb") as log, stopping.children_hear():
                processes[name] = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        yield processes
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
    finally:
        # make passes on what its own group got already: a second signal must not cut this short.
        for ended in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(ended, signal.SIG_IGN)
        with ExitStack() as stops:  # each of them, whatever becomes of those before
            for process in reversed(processes.values()):
                stops.callback(_stop, process)
            _cancel_runs()


def _cancel_runs() -> None:
    """Say in Dagster that a person ends the runs at work: else it would call them failures.

    Those that end are processes of the code server; jobs of Ray and a command's own runs go on.
    """
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=AT_WORK)):
            if GRPC_INFO_TAG in run.tags:
                instance.report_run_canceling(run)


def _stay(
    settings: Settings,
    processes: Mapping[str, subprocess.Popen[bytes]],
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Stay as long as all of them do. ProjectError where one ends."""
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise ProjectError(f"{name} ended: see {_log(settings, name)}.")
        meanwhile()
        time.sleep(1)


def _dagster_command(settings: Settings, port: int) -> list[str]:
    workspace = str(settings.dagster_home / "workspace.yaml")
    where = ["--host", HOST, "--port", str(port)]
    return [sys.executable, "-m", guarded.MODULE, "dev", "--workspace", workspace, *where]


def _mlflow_command(settings: Settings, port: int) -> list[str]:
    artifacts = ["--default-artifact-root", (settings.home / "mlartifacts").as_uri()]
    where = ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *artifacts, *where]


def _check_free(name: str, port: int, host: str = HOST) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            option = "--port" if name == "Dagster" else "--mlflow-port"
            raise SettingsError(
                f"{name}: port {port} is taken. Give another one with {option}."
            ) from None


def _wait(
    name: str,
    url: str,
    process: subprocess.Popen[bytes],
    log: object,
    own: Mapping[str, str] = {},
) -> None:
    """Wait until a server answers. ProjectError, which names its log, where it doesn't.

    own: headers by which the server takes the question for one of its own pages'.
    """
    request = urllib.request.Request(url, headers=dict(own))
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with _direct().open(request, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise ProjectError(f"{name} did not start: see {log}.")


def _check_guard(url: str, own: Mapping[str, str] = {}) -> None:
    """ProjectError where Dagster's server answers to a page of another site. own: as in `_wait`."""
    foreign = urllib.request.Request(url, headers={**own, "Origin": "http://another.site"})
    try:
        with _direct().open(foreign, timeout=START_TIMEOUT):
            pass
    except urllib.error.HTTPError as error:
        if error.code == 403:
            return
    raise ProjectError(
        "Dagster's server has no guard, and would do what any web page asks of it: nothing is "
        "served. Install the versions of constraints.txt."
    )


def _direct() -> urllib.request.OpenerDirector:
    """Asks this machine, whatever proxy leads outside."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _log(settings: Settings, name: str) -> Path:
    return settings.home / f"{name.lower()}-server.log"


def _stop(process: subprocess.Popen[Any]) -> None:
    """End a server and its children, which share its process group, and may have outlived it."""
    deadline = time.monotonic() + LONGEST_STOP
    by = signal.SIGTERM
    while _signalled(process, by):
        by = signal.SIGKILL if time.monotonic() > deadline else 0
        time.sleep(0.1)
    process.wait()


def _signalled(process: subprocess.Popen[Any], by: int) -> bool:
    """Whether any process of the group lives; then it was sent the signal, 0 being none.

    Those that ended would count until they are waited for: they come to the first process of a
    container, which this may be.
    """
    if process.poll() is not None:
        with suppress(ChildProcessError):
            while os.waitpid(-process.pid, os.WNOHANG)[0]:
                pass
    try:
        os.killpg(process.pid, by)
    except (ProcessLookupError, PermissionError):  # macOS: of a group that has ended
        return False
    return True
