"""The job `everything`: all that is due, from an empty home to a judged model, at one press.

It runs `embed-assets run` as a child: the same plan is carried out by the same code, as runs of
their own that the UI shows, and the command's lock keeps sensors and other commands away meanwhile.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import dagster as dg

from embed_assets.automation.runs import EVERYTHING
from embed_assets.errors import ProjectError
from embed_assets.resources.explaining import said_in_the_ui
from embed_assets.resources.pages import run_page
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.settings import PREFIX, Settings

ASKED_BY = f"{PREFIX}ASKED_BY"
"""Set for the command: the run that it works for, by whose id its own runs are found."""
LONGEST_STOP = 60.0
"""Seconds that the command has to end its runs when a person stops the job."""


@dg.op(description="Ingests all PDFs that are due, trains, compares, and says what came of it.")
@said_in_the_ui
def all_that_is_due(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Carry out the plan until nothing is due."""
    context.log.info(f"Its runs have the tag {BUDGET_TAG}: {context.run_id}")
    summary = _run(context, settings)
    metadata = _metadata(context, summary)
    context.add_output_metadata(metadata)
    if not summary["changed"]:
        context.log.info(f"Nothing was due. {summary['verdict']}")
        return
    context.log_event(
        dg.AssetObservation("comparison", description=summary["verdict"], metadata=metadata)
    )
    context.log.info(" ".join(filter(None, [summary["verdict"], summary["promotion"]])))


@dg.job(
    name=EVERYTHING,
    description="Does all that is due, from an empty home to a judged model: PDFs become "
    "questions, questions a model, and the model is compared and perhaps promoted. Press "
    "Materialize or Launch; it needs no configuration.",
)
def everything() -> None:
    """Do all that is due."""
    all_that_is_due()


def _run(context: dg.OpExecutionContext, settings: Settings) -> dict[str, Any]:
    """What `run --json` printed; what it said meanwhile is in the log. ProjectError if it failed.

    A person who stops the job stops the command as Ctrl-C does.
    """
    command = [sys.executable, "-P", "-m", "embed_assets.command.cli", "run", "--json"]
    environment = {
        **os.environ,
        f"{PREFIX}HOME": str(settings.home),
        ASKED_BY: context.run_id,
    }
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stderr or ():
                if said := line.strip():
                    context.log.info(said)
            process.wait()
        except BaseException:
            _stop(process)
            raise
        printed.seek(0)
        text = printed.read()
    if not text:
        raise ProjectError(f"`embed-assets run` ended with status {process.returncode}: see above.")
    summary = json.loads(text)
    if "error" in summary:
        raise ProjectError(summary["error"])
    return summary


def _stop(process: "subprocess.Popen[str]") -> None:
    """Stop the command, and wait until its own runs are ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=LONGEST_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _metadata(context: dg.OpExecutionContext, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What came of it, for the UI."""
    runs = context.instance.get_runs(dg.RunsFilter(tags={BUDGET_TAG: context.run_id}))
    listed = "\n".join(
        f"- [{run.run_id[:8]}]({run_page(run.run_id)}) {run.job_name}: {run.status.value.lower()}"
        for run in reversed(runs)
    )
    return {
        "verdict": summary["verdict"],
        "promotion": summary["promotion"] or "nothing was decided",
        "champion": summary["champion"] or "none: the base model serves",
        "documents": sum(summary["documents"].values()),
        "unreadable": len(summary["failed"]),
        "report": dg.MetadataValue.path(summary["report"]),
        "runs": dg.MetadataValue.md(listed or "none: nothing was due"),
    }
