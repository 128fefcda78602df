"""Which runs live: of processes that were killed, and of records that processes left."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import GRPC_INFO_TAG as SERVER
from dagster._core.test_utils import create_run_for_test
from filelock import FileLock

from embed_assets.automation import living
from embed_assets.automation.living import held
from embed_assets.automation.runs import (
    INGEST,
    TRAIN,
    at_work,
    end_dead_mlflow_runs,
    end_dead_runs,
    work_under_way,
)
from embed_assets.definitions import build_resources
from embed_assets.resources.tracking import DAGSTER_RUN
from embed_assets_tests.automation.test_sensors import served
from embed_assets_tests.automation.watched import Project

STARTED = dg.DagsterRunStatus.STARTED


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.instance_for_test() as instance:
        yield Project(tmp_path, instance)


def status(project: Project, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = project.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


EXECUTES = """
import sys
from embed_assets.automation.living import held
from embed_assets.settings import Settings
with held(Settings(home=sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def executing(project: Project, run: dg.DagsterRun) -> "subprocess.Popen[str]":
    """A process that executes a run, until its stdin is closed or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", EXECUTES, str(project.settings.home), run.run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("started", [STARTED, dg.DagsterRunStatus.CANCELING])
def test_a_run_is_ended_once_its_process_was_killed_and_not_before(project, tmp_path, started):
    with served(
        False, tmp_path
    ) as server:  # a server that is there, or another program on its port
        run = project.run(TRAIN, started, **{SERVER: server})
        with executing(project, run) as process:
            assert end_dead_runs(project.instance, project.settings) == 0
            process.kill()
            process.wait()
            assert end_dead_runs(project.instance, project.settings) == 1
    assert status(project, run) is dg.DagsterRunStatus.FAILURE
    assert os.listdir(project.settings.dagster_home / "running") == []


def test_a_run_lives_though_its_code_server_is_gone(project):
    run = project.run(TRAIN, STARTED, **{SERVER: '{"socket": "/nowhere"}'})
    with executing(project, run) as process:
        assert end_dead_runs(project.instance, project.settings) == 0
        process.communicate()
    assert status(project, run) is STARTED
    assert end_dead_runs(project.instance, project.settings) == 1, "nobody is at it any more"


def test_a_run_that_ends_while_it_is_looked_at_is_not_dead(project, monkeypatch):
    run = project.run(TRAIN, STARTED)
    at_work = held(project.settings, run.run_id)

    class SlowLock(FileLock):
        """A lock that is asked for when the run has just ended."""

        def __enter__(self) -> FileLock:
            at_work.__exit__(None, None, None)
            return super().__enter__()

    at_work.__enter__()
    monkeypatch.setattr(living, "FileLock", SlowLock)
    assert end_dead_runs(project.instance, project.settings) == 0
    assert status(project, run) is STARTED
    assert os.listdir(project.settings.dagster_home / "running") == [], "looking leaves nothing"


def test_a_run_that_nobody_launched_is_ended_after_a_while(project, monkeypatch):
    run = project.run(INGEST, dg.DagsterRunStatus.NOT_STARTED)
    assert end_dead_runs(project.instance, project.settings) == 0
    monkeypatch.setattr(living, "LAUNCHED_WITHIN", timedelta(0))
    assert end_dead_runs(project.instance, project.settings) == 1
    assert status(project, run) is dg.DagsterRunStatus.FAILURE


def test_a_run_in_the_queue_waits_for_the_next_daemon(project, monkeypatch):
    monkeypatch.setattr(living, "LAUNCHED_WITHIN", timedelta(0))
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("embed_assets"), "repository")
    run = create_run_for_test(
        project.instance,
        job_name=INGEST,
        status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=RemoteJobOrigin(repository, INGEST),
    )
    assert end_dead_runs(project.instance, project.settings) == 0
    assert status(project, run) is dg.DagsterRunStatus.QUEUED


def test_a_run_without_a_lock_and_without_a_server_is_not_judged(project):
    run = project.run(TRAIN, STARTED)
    assert end_dead_runs(project.instance, project.settings) == 0
    assert status(project, run) is STARTED


def test_the_lock_of_a_run_is_held_by_the_process_that_executes_it(project):
    locks: list[str] = []

    @dg.op
    def look() -> None:
        locks.extend(os.listdir(project.settings.dagster_home / "running"))

    @dg.job(executor_def=living.executor(project.settings))
    def looks() -> None:
        look()

    run = project.instance.create_run_for_job(looks)
    assert execute_run(InMemoryJob(looks), run, project.instance).success
    assert sorted(locks) == [f"{run.run_id}.held", f"{run.run_id}.lock"]
    assert os.listdir(project.settings.dagster_home / "running") == []


def test_a_run_that_is_called_a_failure_is_at_work_while_its_process_is(project):
    run = project.run(INGEST, STARTED)
    with executing(project, run) as process:
        project.instance.report_run_failed(run, "its job could not be asked for")
        assert work_under_way(project.instance, project.settings).ingesting
        assert any(run.run_id[:8] in name for name in at_work(project.instance, project.settings))
        process.communicate()
    assert not work_under_way(project.instance, project.settings).ingesting


def test_what_a_killed_run_left_in_mlflow_is_ended_with_it(project):
    tracking = build_resources(project.settings)["tracking"]
    tracking.connect()
    client = tracking.client()
    experiment = client.get_experiment_by_name(tracking.name).experiment_id
    killed, living_run = (project.run(TRAIN, STARTED) for _ in range(2))
    in_mlflow = {
        run.run_id: client.create_run(experiment, tags={DAGSTER_RUN: run.run_id}).info.run_id
        for run in (killed, living_run)
    }
    with executing(project, killed) as process:
        process.kill()
    with held(project.settings, living_run.run_id):
        end_dead_runs(project.instance, project.settings)
        end_dead_mlflow_runs(project.instance, project.settings)
    states = {run: client.get_run(in_mlflow[run]).info.status for run in in_mlflow}
    assert states == {killed.run_id: "KILLED", living_run.run_id: "RUNNING"}


def test_what_runs_left_that_have_ended_is_cleared_away(project):
    run = project.run(TRAIN, STARTED)
    with executing(project, run) as process:
        process.kill()
    project.instance.report_run_canceled(run)  # a person forced it
    assert os.listdir(project.settings.dagster_home / "running") != []
    end_dead_runs(project.instance, project.settings)
    assert os.listdir(project.settings.dagster_home / "running") == []
