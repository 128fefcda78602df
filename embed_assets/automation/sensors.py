"""pdf_folder: brings the partitions in line with the PDF folder and ingests what is new."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from embed_assets.documents.folder import (
    changed_documents,
    check_same_folder,
    fingerprint,
    partitions_to_sync,
    scan,
    settled_documents,
)
from embed_assets.errors import SettingsError
from embed_assets.partitions import DOCUMENTS, DOCUMENTS_PER_RUN, documents
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

INGEST = "ingest"
BY_COMMAND = "embed_assets/by_command"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    job_name=INGEST,
    minimum_interval_seconds=30,
    description="Ingests PDFs that are new or changed, once they have stopped changing.",
)
def pdf_folder(
    context: dg.SensorEvaluationContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Ingest PDFs that are new or changed, once they have stopped changing."""
    existing = context.instance.get_dynamic_partitions(DOCUMENTS)
    try:
        found = scan(settings.pdfs)
        check_same_folder(found, existing, settings.pdfs)
    except SettingsError as error:  # an unreadable folder is not an empty one
        return dg.SkipReason(str(error))
    end_dead_runs(context.instance, settings.home)
    if context.instance.get_runs_count(dg.RunsFilter(job_name=INGEST, statuses=UNFINISHED)):
        return dg.SkipReason("An ingest run is at work; the folder is looked at when it has ended.")
    seen_before = {k: tuple(v) for k, v in json.loads(context.cursor or "{}").items()}
    settled = set(settled_documents(found, seen_before))
    loaded = warehouse.read("SELECT document_id, size_bytes, modified_at FROM raw_pdfs")
    busy = context.instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) > 0
    _, delete = partitions_to_sync(list(found), existing, existing if busy else [])
    changed = [key for key in changed_documents(found, loaded) if key in settled]
    add = [key for key in changed if key not in existing]
    again = [key for key in changed if key in existing]
    if delete:
        warehouse.delete_documents(delete)
    order = [key for key in existing if key not in delete] + add
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(tags={RANGE_START: batch[0], RANGE_END: batch[-1]})
            for batch in batches(order, {*add, *again})
        ],
        dynamic_partitions_requests=[
            *([documents.build_add_request(add)] if add else []),
            *([documents.build_delete_request(delete)] if delete else []),
        ],
        cursor=json.dumps({key: fingerprint(document) for key, document in found.items()}),
    )


def end_dead_runs(instance: dg.DagsterInstance, home: Path) -> None:
    """Report runs as failed whose command was killed: nobody else would, and they block others.

    The command holds its lock as long as it lives.
    """
    lock = command_lock(home)
    if lock.is_locked:  # by this very process
        return _fail_runs(instance)
    try:
        with lock:
            return _fail_runs(instance)
    except Timeout:
        return None


def command_lock(home: Path) -> FileLock:
    """The lock that a command holds while it works on a home."""
    home.mkdir(parents=True, exist_ok=True)
    return FileLock(home / "command.lock", timeout=0, is_singleton=True)


def _fail_runs(instance: dg.DagsterInstance) -> None:
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags={BY_COMMAND: "true"})):
        instance.report_run_failed(run, "The command that ran it was killed.")


def batches(
    order: Sequence[str], wanted: Collection[str], size: int = DOCUMENTS_PER_RUN
) -> list[list[str]]:
    """Wanted keys in runs of neighbours, each at most `size` long.

    order: all partition keys, oldest first. A Dagster run covers a range of partitions in that
    order, so that only neighbours can share one.
    """
    result: list[list[str]] = []
    for place, key in enumerate(order):
        if key not in wanted:
            continue
        neighbours = place > 0 and result and result[-1][-1] == order[place - 1]
        if neighbours and len(result[-1]) < size:
            result[-1].append(key)
        else:
            result.append([key])
    return result
