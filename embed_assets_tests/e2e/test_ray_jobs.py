"""Runs that are jobs of a Ray cluster: Dagster's pages start them, and may end before they do."""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from embed_assets_tests.e2e.project import Project
from embed_assets_tests.e2e.test_start import ENDED, JOB, Pages, project, ui
from embed_assets_tests.ray_cluster import jobs_on_a_node

__all__ = ["project"]
READ = """mutation {
  launchRun(executionParams: {
    %s jobName: "ingest", assetSelection: [{path: ["raw_pdfs"]}, {path: ["parsed_markdown"]}]}
    executionMetadata: {tags: [{key: "dagster/partition", value: "%s"}]}
    runConfigData: {}
  }) {__typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}
}"""
BEGUN = 'Started execution of step "parsed_markdown"'
PASSWORD = "hunter2-of-postgres"


def read_one(pages: Pages) -> str:
    """Launch a run that reads a PDF; gives the run."""
    asked = '{assetNodeOrError(assetKey: {path: ["raw_pdfs"]}) {... on AssetNode {partitionKeys}}}'
    launched: dict[str, Any] = {}

    def is_launched(_: object) -> bool:
        if documents := pages.ask(asked)["assetNodeOrError"].get("partitionKeys"):
            launched.update(pages.ask(READ % (JOB, documents[0]))["launchRun"])
        return "run" in launched

    pages.wait(is_launched, "the page is there before it knows the jobs")
    return launched["run"]["runId"]


def job_of(run: str, server: str) -> dict[str, Any]:
    """What Ray's pages say of a run's job."""
    with urllib.request.urlopen(f"{server}/api/jobs/dagster-run-{run}", timeout=20) as answer:
        return json.load(answer)


@pytest.mark.long
def test_a_run_is_a_job_of_the_cluster_that_outlives_the_daemon_and_ends_when_it_is_stopped(
    project: Project, free_port: Callable[[], int]
) -> None:
    port = free_port()
    server = f"http://127.0.0.1:{port}"
    settings = {
        "EMBED_ASSETS_ENGINE": "ray",
        "EMBED_ASSETS_RAY_JOBS": server,
        "EMBED_ASSETS_HOME": str(project.home),
        "EMBED_ASSETS_PDFS": str(project.pdfs),
        "PGPASSWORD": PASSWORD,
    }
    environment = project.environment | settings
    with jobs_on_a_node(environment, port) as cluster:
        here = replace(project, environment=environment | {"RAY_ADDRESS": cluster.address})
        with ui(here, free_port) as (pages, _):
            run = read_one(pages)
            pages.wait(
                lambda runs: BEGUN in pages.said(run) or runs[run][1] in ENDED, "it waits for a CPU"
            )
            assert pages.runs()[run][1] == "STARTED", pages.said(run)
        with ui(here, free_port) as (pages, _):
            assert pages.runs()[run][1] == "STARTED"
            pages.stop(run)
            pages.wait(lambda runs: runs[run][1] in ENDED, "it is stopped")
            assert pages.runs()[run][1] == "CANCELED", pages.said(run)
            assert not list((project.home / "dagster" / "running").iterdir())
            cluster.add_node(num_cpus=1)
            again = read_one(pages)
            pages.wait(lambda runs: runs[again][1] in ENDED, "it reads the PDF")
            assert pages.runs()[again][1] == "SUCCESS", pages.said(again)
            stopped, done = (job_of(each, server) for each in (run, again))
    assert (stopped["status"], done["metadata"]["dagster/run-id"]) == ("STOPPED", again)
    assert PASSWORD not in json.dumps([stopped, done])
    assert len(project.rows("SELECT DISTINCT document_id FROM parsed_markdown")) == 1
