"""Whether each document could be read. A failed one shows here and stops nothing else.

Each partition has evaluations of its own, which those of others don't change. One over all
documents on record comes last: it is what the graph shows.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,  # Dagster doesn't export it
)

from embed_assets.documents.failed import failed_documents
from embed_assets.documents.parsing import document_statuses, partly_read
from embed_assets.grouping import ONE_EACH, Grouping
from embed_assets.partitions import documents
from embed_assets.resources.checking import LISTED
from embed_assets.resources.previews import STATUSES
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.wording import counted, in_markdown

ASSET = dg.AssetKey("parsed_markdown")
NAME = "document_is_readable"
AT_ONCE = 500
"""Events that are read at a time."""
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
NOT_ON_RECORD = ("", "nothing is on record of it: the document has left", 0)


@dg.asset_check(
    asset=ASSET,
    partitions_def=documents,
    description="The document has text: it could be opened, and a page of it has words. It warns "
    "where much of the text is missing. A document stays unreadable here until its file is mended, "
    "or leaves the folder.",
)
def document_is_readable(
    context: dg.AssetCheckExecutionContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    """One evaluation per partition of the run, and one for all documents on record."""
    run, grouping = context.op_execution_context, settings.grouping
    *each, overall = evaluations(context.instance, warehouse, list(run.partition_keys), grouping)
    # Dagster takes the result for that of the run's document where the run has one partition and
    # no range; else for the overall one.
    result = each.pop() if run.has_partition_key else overall
    for evaluation in [overall] if run.has_partition_key else each:
        run.log_event(evaluation)
    return dg.AssetCheckResult(
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )


def evaluations(
    instance: dg.DagsterInstance,
    warehouse: Warehouse,
    keys: Sequence[str],
    grouping: Grouping = ONE_EACH,
) -> list[Any]:
    """What is to be said of these partitions, one by one, and then of all documents on record."""
    made = _made(instance, keys)
    with warehouse.at_once() as at_once:
        found, lacking, paths = _statuses(at_once), partly_read(at_once), at_once.paths()
    unreadable = {key: error for key, (status, error, _) in found.items() if status != "SUCCESS"}
    in_part = {key: lack.in_words for key, lack in lacking.items() if key not in unreadable}
    together = partial(_together, paths, unreadable, in_part)
    if grouping.partitions:
        members: dict[str, set[str]] = {key: set() for key in keys}
        for key in found:
            members.get(grouping.partition_of(key), set()).add(key)
        each = [together(those, made.get(key), key) for key, those in members.items()]
        return [*each, together(found)]
    each = []
    for key in keys:
        status, error, pages = found.get(key, NOT_ON_RECORD)
        metadata = {"status": STATUSES.get(status, status), "pages": pages}
        readable = status == "SUCCESS"
        severity = ERROR
        if readable and key in lacking:
            readable, severity = False, WARN
            error = metadata["partly"] = lacking[key].in_words
        said = error and in_markdown(error)
        each.append(_evaluation(readable, said, metadata, made.get(key), key, severity))
    return [*each, together(found)]


def _together(
    paths: Mapping[str, str],
    unreadable: Mapping[str, str | None],
    in_part: Mapping[str, str],
    documents: Collection[str],
    made: Any = None,
    partition: str | None = None,
) -> Any:
    """What is to be said of several documents: of those of a partition, or of all."""
    unreadable = {key: error for key, error in unreadable.items() if key in documents}
    in_part = {key: said for key, said in in_part.items() if key in documents}
    said = []
    for what, reasons in (("can't be read", unreadable), ("read in part", in_part)):
        lines = [
            f"{in_markdown(paths.get(key, key))}: {in_markdown(error or '')}"
            for key, error in reasons.items()
        ]
        more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
        if lines:
            listed = "; ".join([*lines[:LISTED], *more])
            said.append(f"{len(lines)} of {counted(len(documents), 'document')} {what}. {listed}")
    return _evaluation(
        not said,
        " ".join(said) or None,
        {"documents": len(documents), "unreadable": len(unreadable), "partly": len(in_part)},
        made,
        partition,
        severity=ERROR if unreadable else WARN,
    )


def _statuses(warehouse: Warehouse) -> dict[str, tuple[str, str | None, int]]:
    """Status, error and pages of every document on record; of those that failed, why they did."""
    rows = document_statuses(warehouse).iter_rows(named=True)
    found = {r["document_id"]: (r["parser_status"], r["error"], r["pages"]) for r in rows}
    for key, failed in failed_documents(warehouse).items():
        *_, pages = found.get(key, NOT_ON_RECORD)
        found[key] = ("ERROR", failed.error, pages)
    return found


def _made(
    instance: dg.DagsterInstance, keys: Sequence[str]
) -> dict[str, AssetCheckEvaluationTargetMaterializationData]:
    """The materializations that are judged, by document: else Dagster thinks of older ones."""
    if not keys:
        return {}
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        ASSET, dg.DagsterEventType.ASSET_MATERIALIZATION, set(keys)
    )
    made: dict[str, AssetCheckEvaluationTargetMaterializationData] = {}
    for start in range(0, len(newest), AT_ONCE):
        ids = list(newest.values())[start : start + AT_ONCE]
        wanted = dg.AssetRecordsFilter(ASSET, storage_ids=ids)
        for record in instance.fetch_materializations(wanted, limit=len(ids)).records:
            made[record.partition_key or ""] = AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
    return made


def _evaluation(
    passed: bool,
    description: str | None,
    metadata: Mapping[str, Any],
    made: Any = None,
    key: str | None = None,
    severity: dg.AssetCheckSeverity = ERROR,
) -> Any:
    return dg.AssetCheckEvaluation(
        asset_key=ASSET,
        check_name=NAME,
        passed=passed,
        severity=severity,  # the check blocks nothing: this is its colour
        description=description,
        metadata=metadata,
        target_materialization_data=made,
        partition=key,
    )
