"""The job `everything`: all that is due, from an empty home to a judged model, at one press.

It runs `embed-assets run` as a child: the same plan is carried out by the same code, as runs of
their own that the UI shows, and the command's lock keeps sensors and other commands away meanwhile.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import dagster as dg

from embed_assets.automation.runs import EVERYTHING
from embed_assets.errors import ProjectError
from embed_assets.resources.child import end_process
from embed_assets.resources.explaining import said_in_the_ui
from embed_assets.resources.pages import run_page
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.tracking import MODELS
from embed_assets.settings import PREFIX, Settings

ASKED_BY = f"{PREFIX}ASKED_BY"
"""Set for the command: the run that it works for, by whose id its own runs are found."""
LONGEST_STOP = 180.0
"""Seconds that the command has to end its runs when a person stops the job: an import of torch is
waited for, which takes long on a busy machine, and a command that is killed leaves its run behind.
"""
PAUSE = 0.2
"""Seconds between two looks at what the command says."""


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
    "questions, questions a model, and the model is compared and perhaps promoted. Open "
    "the Launchpad and press Launch Run; it needs no configuration.",
)
def everything() -> None:
    """Do all that is due."""
    all_that_is_due()


def _run(context: dg.OpExecutionContext, settings: Settings) -> dict[str, Any]:
    """What `run --json` printed. ProjectError if it failed."""
    command = [sys.executable, "-P", "-m", "embed_assets.command.cli", "run", "--json"]
    environment = {
        **os.environ,
        f"{PREFIX}HOME": str(settings.home),
        ASKED_BY: context.run_id,
    }
    log = settings.dagster_home / f"everything-{context.run_id}.log"
    status, printed = follow(command, environment, log, context.log.info)
    if not printed:
        raise ProjectError(f"`embed-assets run` ended with status {status}: see above.")
    summary = json.loads(printed)
    if "error" in summary:
        raise ProjectError(summary["error"])
    return summary


def follow(
    command: Sequence[str], environment: Mapping[str, str], log: Path, tell: Callable[[str], object]
) -> tuple[int, str]:
    """Run a command until it ends; gives its status and what it printed.

    What it says meanwhile is told line by line. It writes to a file, that it goes on if this
    process is killed, and that nobody waits for processes that outlive it. log: where the file is.
    Where the wait is cut short, the command is stopped with SIGTERM.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as said,
        log.open(encoding="utf-8", errors="replace") as heard,
        tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
    ):
        with suppress(PermissionError):  # Windows keeps a file that is open
            log.unlink()  # a kill leaves nothing
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=said
        ) as process:
            try:
                for line in filter(None, _lines(heard, process)):
                    tell(line)
            except BaseException:
                end_process(process, LONGEST_STOP)  # its own runs are ended by then
                raise
        printed.seek(0)
        return process.returncode, printed.read()


def _lines(heard: TextIO, process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """What a process writes to a file, line by line, until the process ends."""
    line, ended = "", False
    while not ended:
        ended = process.poll() is not None  # first: then all that it wrote is there
        while part := heard.readline():
            line += part
            if line.endswith("\n"):
                yield line.strip()
                line = ""
        if not ended:
            time.sleep(PAUSE)
    yield line.strip()


def _metadata(context: dg.OpExecutionContext, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What came of it, for the UI."""
    runs = context.instance.get_runs(dg.RunsFilter(tags={BUDGET_TAG: context.run_id}))
    listed = "\n".join(
        f"- [{run.run_id[:8]}]({run_page(run.run_id)}) {run.job_name}: {run.status.value.lower()}"
        for run in reversed(runs)
    )
    silent = any(wait["what"] == MODELS for wait in summary["waiting"])
    unknown = "unknown: MLflow does not answer" if silent else None
    return {
        "verdict": summary["verdict"],
        "promotion": summary["promotion"] or unknown or "nothing was decided",
        "champion": summary["champion"] or unknown or "none: the base model serves",
        "documents": sum(summary["documents"].values()),
        "unreadable": len(summary["failed"]),
        "report": dg.MetadataValue.path(summary["report"]),
        "runs": dg.MetadataValue.md(listed or "none: nothing was due"),
    }
