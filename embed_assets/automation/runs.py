"""Dagster runs of the project: which are under way, which are dead, when to ask again."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from embed_assets.automation.living import AT_WORK, clear_locks, held_runs, lives
from embed_assets.automation.plan import INGEST, Work
from embed_assets.graph import CORPUS_ASSETS, DOCUMENT_ASSETS, SEARCH_INDEX
from embed_assets.grouping import Grouping
from embed_assets.machine import processes_with
from embed_assets.resources.ledger import PAUSES
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.tracking import Tracking
from embed_assets.settings import Settings
from embed_assets.training.claims import held_lock

TRAIN = "train"
"""The job in which questions become a model."""
PROMOTE, ROLLBACK = "promote", "rollback"
"""The jobs by which a person decides about the champion."""
COMPACT = "compact"
"""The job that frees the room of what was deleted."""
EVERYTHING = "everything"
"""The job that does all that is due, whatever it is."""
WAITING_JOBS = (PROMOTE, ROLLBACK, EVERYTHING)
"""Jobs whose runs work alone in the home: they wait until no others are at work."""
LOCK = "command.lock"
BY_COMMAND = "embed_assets/by_command"
"""Tag of the runs that a command executes itself."""
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PAGE = 32
"""Runs that are read at a time."""
IN_VAIN = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
UNFINISHED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, *AT_WORK]


def tags_over(document_ids: Sequence[str], grouping: Grouping) -> dict[str, str]:
    """Tags of a run that makes these documents, whose partitions are neighbours."""
    first, last = map(grouping.partition_of, (document_ids[0], document_ids[-1]))
    return {RANGE_START: first, RANGE_END: last, **grouping.tags(document_ids)}


def work_under_way(instance: dg.DagsterInstance, settings: Settings) -> Work:
    """What is at work: runs whose process is there, and the training of one that was killed."""
    runs = _living(instance, settings, UNFINISHED)
    return Work(
        ingesting=any(_makes_documents(run) for run in runs),
        training=any(_makes_models(run) for run in runs) or held_lock(settings.models) is not None,
        indexing=any(_assets(run) == [SEARCH_INDEX] for run in runs),
        busy=bool(at_work(instance, settings)),
        paused_until=pause_until(instance, INGEST),
        training_paused_until=pause_until(instance, TRAIN),
        index_paused_until=pause_until(instance, INGEST, index=True),
    )


def at_work(instance: dg.DagsterInstance, settings: Settings) -> list[str]:
    """What is at work, in words: runs by their ids, and a training that outlived its run.

    A person's decision about the champion is none: it waits for all that is. Nor is `everything`,
    which works through runs of its own, and alone.
    """
    living = _living(instance, settings, AT_WORK)
    runs = [run for run in living if run.job_name not in WAITING_JOBS]
    names = [f"run {run.run_id[:8]} ({', '.join(_assets(run)) or run.job_name})" for run in runs]
    if not names and (lock := held_lock(settings.models)):
        holders = ", ".join(processes_with(lock)) or "a process that may not be looked at"
        return [f"the training of a run that was killed, {holders}"]
    return names


def _living(
    instance: dg.DagsterInstance, settings: Settings, statuses: list[dg.DagsterRunStatus]
) -> list[dg.DagsterRun]:
    """Runs that a process is at, and those of these statuses of which none is known to be gone."""
    records = list(instance.get_run_records(dg.RunsFilter(statuses=statuses)))
    known = {record.dagster_run.run_id for record in records}
    if others := [run_id for run_id in held_runs(settings) if run_id not in known]:
        records += instance.get_run_records(dg.RunsFilter(run_ids=others))
    if records and not _command_lives(settings.home):
        records = [r for r in records if BY_COMMAND not in r.dagster_run.tags]
    return [record.dagster_run for record in records if lives(settings, record)]


def _makes_documents(run: dg.DagsterRun) -> bool:
    """Whether a run makes document assets: of our job, or as a person chose them in the UI."""
    chosen = _assets(run)
    return (run.job_name == INGEST and not chosen) or not set(DOCUMENT_ASSETS).isdisjoint(chosen)


def _makes_models(run: dg.DagsterRun) -> bool:
    """Whether a run makes assets over all documents."""
    return run.job_name == TRAIN or not set(CORPUS_ASSETS).isdisjoint(_assets(run))


def _assets(run: dg.DagsterRun) -> list[str]:
    """Assets that were chosen for a run; none where its job decides."""
    return sorted(key.path[-1] for key in run.asset_selection or ())


def command_lock(home: Path) -> FileLock:
    """The lock that a command holds while it works on a home."""
    home.mkdir(parents=True, exist_ok=True)
    # The other sensor's tick may hold it for a moment.
    return FileLock(home / LOCK, timeout=1, is_singleton=True)


def _command_lives(home: Path) -> bool:
    """Whether a command is at work on a home."""
    if not (home / LOCK).is_file():
        return False
    lock = command_lock(home)
    if lock.is_locked:  # by this very process
        return True
    try:
        with lock:
            return False
    except Timeout:
        return True


def end_dead_runs(instance: dg.DagsterInstance, settings: Settings) -> int | None:
    """Report runs as failed that no process is at any more: nobody else would.

    They would hold up others for ever. Gives how many there were; null while a command is at work:
    what it started is its own.
    """
    lock = command_lock(settings.home)
    if lock.is_locked:  # by this very process
        return _fail_runs(instance, settings)
    try:
        with lock:
            return _fail_runs(instance, settings)
    except Timeout:
        return None


def _fail_runs(instance: dg.DagsterInstance, settings: Settings) -> int:
    unfinished = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    dead = {
        record.dagster_run.run_id: _why_dead(record.dagster_run)
        for record in unfinished
        if BY_COMMAND in record.dagster_run.tags or not lives(settings, record)
    }
    for record in unfinished:
        if why := dead.get(record.dagster_run.run_id):
            instance.report_run_failed(record.dagster_run, why)
    clear_locks(settings, {record.dagster_run.run_id for record in unfinished} - dead.keys())
    return len(dead)


def _why_dead(run: dg.DagsterRun) -> str:
    if run.status is dg.DagsterRunStatus.NOT_STARTED:
        return "Nobody launched it: what asked for it was killed."
    what = "command" if BY_COMMAND in run.tags else "process"
    return f"The {what} that ran it was killed, or the machine was turned off."


def end_dead_mlflow_runs(instance: dg.DagsterInstance, settings: Settings) -> None:
    """End the MLflow runs whose Dagster run is neither at work nor waits for it.

    Where MLflow's server is down, its client tries for minutes. ProjectError after that.
    """

    def is_at_work(run_id: str) -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and run.status in UNFINISHED

    tracking = Tracking(home=str(settings.home), project=settings.project)
    tracking.end_dead_runs(is_at_work)


def pause_until(instance: dg.DagsterInstance, job: str, *, index: bool = False) -> datetime | None:
    """When a job may be asked for again, if its latest runs failed: each failure waits longer.

    So does one that a person ended. Runs that made the pairs alone say nothing of a training, nor
    does an ingest of documents that a person chose say anything of those that are due. index:
    whether its runs that make the search index alone are meant; they say nothing of others.
    """

    def tells(run: dg.DagsterRun) -> bool:
        if index or _assets(run) == [SEARCH_INDEX]:
            return index and _assets(run) == [SEARCH_INDEX]
        by_plan = job != INGEST or BUDGET_TAG in run.tags
        return by_plan and _assets(run) != [CORPUS_ASSETS[0]]

    # Most often none has failed, and of very many runs none is read.
    lately = datetime.now(UTC) - PAUSES[-1]
    in_vain = dg.RunsFilter(job_name=job, statuses=IN_VAIN, updated_after=lately)
    if not instance.get_runs(in_vain, limit=1):
        return None
    telling = (run for run in _newest_first(instance, job) if tells(run.dagster_run))
    streak = takewhile(lambda run: run.dagster_run.status in IN_VAIN, telling)
    failed = list(islice(streak, len(PAUSES)))
    if not failed:
        return None
    ended = failed[0].end_time or failed[0].create_timestamp.timestamp()
    if ended > time.time():  # the clock was set back: no pause counts from there
        return None
    return datetime.fromtimestamp(ended, UTC) + PAUSES[len(failed) - 1]


def _newest_first(instance: dg.DagsterInstance, job: str) -> Iterator[dg.RunRecord]:
    """Runs of a job, read as far as they are looked at."""
    cursor: str | None = None
    while True:
        page = instance.get_run_records(dg.RunsFilter(job_name=job), limit=PAGE, cursor=cursor)
        yield from page
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id
