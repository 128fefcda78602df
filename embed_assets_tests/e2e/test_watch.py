"""`watch`: PDFs become a model with nobody at hand, and one daemon looks at a home."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from embed_assets_tests.e2e.project import Project


@pytest.fixture
def project(
    five_pdfs: Callable[[Path], Path], environment: dict[str, str], command: str, tmp_path: Path
) -> Project:
    (tmp_path / "home").mkdir()
    return Project(command, environment, five_pdfs(tmp_path / "pdfs"), tmp_path / "home")


@contextmanager
def watching(project: Project) -> Iterator[subprocess.Popen[str]]:
    """The command at work; ended with the block."""
    with subprocess.Popen(
        [
            *(project.command, "watch", "--json"),
            *("--pdfs", str(project.pdfs), "--home", str(project.home)),
        ],
        env=project.environment,
        cwd=project.home.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


@pytest.mark.long  # the sensors by themselves: automation/test_phases.py
@pytest.mark.timeout(1800)
def test_pdfs_become_a_model_without_a_page(project: Project) -> None:
    with watching(project) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        started = json.loads(process.stdout.readline())
        assert started["watching"] == str(project.pdfs)
        second = project.call("watch")
        assert second.status == 1
        assert "is at work on" in second.err
        said: list[str] = []
        for line in process.stderr:  # until the daemon ends, at the latest
            said.append(line)
            if "finetuned_model" in line and line.rstrip().endswith(": done"):
                break
            assert ": failed" not in line, "".join(said)
    assert process.returncode == 0
    assert any("raw_pdfs" in line and line.rstrip().endswith(": done") for line in said)
    assert project.rows("SELECT version FROM models") == [("1",)]
    status = project.call("status", "--json").result
    # The index is made once more after the evaluation, unless the daemon was ended before.
    assert [row for row in status["due"] if row["asset"] != "search_index"] == []
    assert status["retraining"]["due"] is False


def test_the_lock_of_a_daemon_outlives_a_command_that_was_killed(project: Project) -> None:
    with watching(project) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (daemon,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        second = project.call("watch")
        os.killpg(daemon.pid, signal.SIGTERM)
    assert second.status == 1
    assert "or Dagster's daemon" in second.err
