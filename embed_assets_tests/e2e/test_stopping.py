"""Ctrl-C and SIGTERM, as a person or a system sends them to the real command in a terminal."""

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from embed_assets_tests.e2e.project import Project

CTRL_C = b"\x03"
TO_THE_MOMENT, TO_ITS_END = 300.0, 60.0
"""Seconds that a command has until it is stopped, and then; a training here takes far longer."""


@dataclass(frozen=True)
class Ended:
    """How a command ended. children: its processes when it was stopped."""

    status: int
    said: str
    children: list[psutil.Process]


def in_terminal(project: Project, name: str, when: str, stop: Callable[[int, int], None]) -> Ended:
    """A command in a terminal of its own, stopped when it says this. stop: is given its process and
    the terminal.
    """
    call = [project.command, name, "--pdfs", str(project.pdfs), "--home", str(project.home)]
    process, terminal = pty.fork()
    if process == 0:
        os.execve(project.command, call, {**project.environment, "EMBED_ASSETS_EPOCHS": "2000"})
    said, children, until = "", [], time.monotonic() + TO_THE_MOMENT
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            os.killpg(process, signal.SIGKILL)
            raise AssertionError(f"it goes on: {said[-1000:]}")
        try:
            said += os.read(terminal, 1 << 16).decode(errors="replace")
        except OSError:  # nobody writes there any more
            break
        if when in said and not children:
            children = psutil.Process(process).children(recursive=True)
            stop(process, terminal)
            until = time.monotonic() + TO_ITS_END
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    return Ended(os.waitstatus_to_exitcode(status), said, children)


def by_ctrl_c(process: int, terminal: int) -> None:
    os.write(terminal, CTRL_C)


def by_ctrl_c_twice(process: int, terminal: int) -> None:
    by_ctrl_c(process, terminal)
    time.sleep(0.2)
    by_ctrl_c(process, terminal)


def by_ctrl_c_later(process: int, terminal: int) -> None:
    """While the training is at work, which the command waits for."""
    time.sleep(5)
    by_ctrl_c(process, terminal)


def by_sigterm(process: int, terminal: int) -> None:
    os.kill(process, signal.SIGTERM)


def dagster_statuses(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the home's runs, the newest first."""
    import dagster as dg

    monkeypatch.setenv("DAGSTER_HOME", str(project.home / "dagster"))
    with dg.DagsterInstance.get() as instance:
        return [run.status.value for run in instance.get_runs()]


def mlflow_statuses(project: Project) -> set[str]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    return {r.info.status for r in runs if r.data.tags["dagster/asset_key"] == "finetuned_model"}


@pytest.fixture
def project(
    five_pdfs: Callable[[Path], Path], environment: dict[str, str], command: str, tmp_path: Path
) -> Project:
    return Project(command, environment, five_pdfs(tmp_path / "pdfs"), tmp_path / "home")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such terminal")
@pytest.mark.parametrize(
    ("name", "when", "stop", "status"),
    [
        ("ingest", "5 documents: ", by_ctrl_c, 130),  # before the first step
        pytest.param("ingest", "Parsing PDFs", by_ctrl_c, 130, marks=pytest.mark.long),
        ("ingest", "Parsing PDFs", by_ctrl_c_twice, 130),
        ("run", "Encoding", by_sigterm, 143),
        pytest.param("run", "Training:", by_ctrl_c_later, 130, marks=pytest.mark.long),
    ],
)
def test_a_command_that_is_stopped_says_so_in_a_line_and_leaves_nothing_at_work(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    when: str,
    stop: Callable[[int, int], None],
    status: int,
) -> None:
    ended = in_terminal(project, name, when, stop)
    assert "Traceback" not in ended.said
    assert ended.said.rstrip().endswith("embed-assets: stopped. Run it again to go on from here.")
    assert ended.status == status
    psutil.wait_procs(ended.children, timeout=10)
    assert [child for child in ended.children if child.is_running()] == []
    statuses = dagster_statuses(project, monkeypatch)
    assert set(statuses) <= {"CANCELED", "SUCCESS"}
    assert statuses[:1] in (["CANCELED"], [])  # it may not have come to a run
    if when == "Training:":
        assert mlflow_statuses(project) == {"KILLED"}
    went_on = project.call("ingest", "--json")
    assert went_on.status == 0, went_on.err
    assert went_on.result["documents"] == {"SUCCESS": 5, "EMPTY": 0, "ERROR": 0}
