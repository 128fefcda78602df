"""From an empty home to the first model at one press, and what a power cut leaves behind."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from embed_assets_tests.e2e.project import Project

ENDED = ("SUCCESS", "FAILURE", "CANCELED")
LONGEST = 420.0  # seconds; the machine may be busy
JOB = 'selector: {repositoryName: "__repository__", repositoryLocationName: "embed_assets", '


@pytest.fixture
def project(
    five_pdfs: Callable[[Path], Path], environment: dict[str, str], command: str, tmp_path: Path
) -> Project:
    (tmp_path / "home").mkdir()
    return Project(command, environment, five_pdfs(tmp_path / "pdfs"), tmp_path / "home")


class Pages:
    """Dagster's pages, asked as a browser asks them."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        asked = urllib.request.Request(
            f"{self.address}/graphql", body, {"Content-Type": "application/json"}
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(asked, timeout=60) as answer:
            return json.load(answer)["data"]

    def press(self, job: str) -> str:
        """Launch a job without configuration; gives the run."""
        deadline = time.monotonic() + LONGEST
        while True:
            launched = self.ask(
                f'mutation {{launchRun(executionParams: {{{JOB} jobName: "{job}"}}, '
                "runConfigData: {}}) {__typename ... on LaunchRunSuccess {run {runId}}}}"
            )["launchRun"]
            if "run" in launched:
                return launched["run"]["runId"]
            assert time.monotonic() < deadline, f"{job} can't be launched: {launched}"
            time.sleep(1)  # the page is there before it knows the jobs

    def stop(self, run: str) -> None:
        """Press Terminate."""
        self.ask(f'mutation {{terminateRun(runId: "{run}") {{__typename}}}}')

    def runs(self) -> dict[str, tuple[str, str]]:
        """Job and status by run."""
        found = self.ask("{runsOrError {... on Runs {results {runId jobName status}}}}")
        runs = found["runsOrError"]["results"]
        return {run["runId"]: (run["jobName"], run["status"]) for run in runs}

    def wait(self, holds: Callable[[Mapping[str, tuple[str, str]]], object], what: str) -> None:
        deadline = time.monotonic() + LONGEST
        while not holds(runs := self.runs()):
            assert time.monotonic() < deadline, f"{what}: {runs}"
            time.sleep(1)

    def said(self, run: str) -> str:
        """All messages of a run's event log."""
        found = self.ask(
            f'{{logsForRun(runId: "{run}") {{... on EventConnection {{events {{'
            "... on MessageEvent {message} ... on ErrorEvent {error {message}}}}}}"
        )
        events = found["logsForRun"]["events"]
        errors = [event["error"]["message"] for event in events if event.get("error")]
        return "\n".join([*(event.get("message", "") for event in events), *errors])


@contextmanager
def ui(project: Project, free_port: Callable[[], int]) -> Iterator[tuple[Pages, psutil.Process]]:
    """`embed-assets ui` at work; ended with the block, and what it started with it."""
    ports = ("--port", str(free_port()), "--mlflow-port", str(free_port()))
    where = ("--pdfs", str(project.pdfs), "--home", str(project.home))
    process = subprocess.Popen(
        [project.command, "ui", "--json", *where, *ports],
        env=project.environment,
        cwd=project.home.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Pages(json.loads(process.stdout.readline())["dagster"]), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)


def cut_the_power(process: psutil.Process) -> None:
    """Kill a process and all that it started, at once."""
    for one in [*process.children(recursive=True), process]:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def status_of(job: str, runs: Mapping[str, tuple[str, str]]) -> list[str]:
    return [status for name, status in runs.values() if name == job]


def test_one_press_on_an_empty_home_makes_a_model(project, free_port):
    with ui(project, free_port) as (pages, _):
        listed = pages.ask(
            '{assetNodeOrError(assetKey: {path: ["raw_pdfs"]}) {... on AssetNode {partitionKeys}}}'
        )["assetNodeOrError"]["partitionKeys"]
        assert len(listed) == 5
        too_early = pages.press("train")
        pages.wait(lambda runs: runs[too_early][1] == "FAILURE", "training fails")
        assert "Nothing is ingested yet: launch the job `everything`" in pages.said(too_early)
        first = pages.press("everything")
        pages.wait(lambda runs: runs[first][1] in ENDED, "everything ends")
        assert pages.runs()[first][1] == "SUCCESS", pages.said(first)
        assert set(status_of("ingest", pages.runs())) == {"SUCCESS"}
        said = pages.said(first)
        assert "5 documents: raw_pdfs, parsed_markdown, chunks, synthetic_questions" in said
        assert "NDCG@10" in said
        assert "Version 1 was " in said
        again = pages.press("everything")
        pages.wait(lambda runs: runs[again][1] in ENDED, "it ends again")
        assert "Nothing was due." in pages.said(again)
    assert project.rows("SELECT version FROM models") == [("1",)]


@pytest.mark.long
def test_a_person_stops_everything_and_what_a_power_cut_left_is_ended(project, free_port):
    long = replace(project, environment={**project.environment, "EMBED_ASSETS_EPOCHS": "2000"})
    with ui(long, free_port) as (pages, process):
        stopped = pages.press("everything")
        pages.wait(lambda runs: "STARTED" in status_of("train", runs), "a training starts")
        pages.stop(stopped)
        pages.wait(lambda runs: runs[stopped][1] == "CANCELED", "everything is stopped")
        assert status_of("train", pages.runs()) == ["CANCELED"]
        killed = pages.press("everything")
        pages.wait(lambda runs: "STARTED" in status_of("train", runs), "it trains again")
        cut_the_power(process)
    with ui(project, free_port) as (pages, _):
        assert pages.runs()[killed][1] == "FAILURE"
        assert status_of("train", pages.runs()) == ["FAILURE", "CANCELED"]
        last = pages.press("everything")
        pages.wait(lambda runs: runs[last][1] in ENDED, "everything ends")
        assert pages.runs()[last][1] == "SUCCESS", pages.said(last)
