"""Whether each document could be read. A failed one shows here and stops nothing else."""

import dagster as dg

from embed_assets.documents.parsing import document_statuses
from embed_assets.partitions import documents
from embed_assets.resources.ledger import read_records
from embed_assets.resources.warehouse import Warehouse

NOT_ON_RECORD = ("", "nothing is on record of it: the document has left", 0)


@dg.asset_check(
    asset="parsed_markdown",
    partitions_def=documents,
    description="The document has text: it could be opened, and a page of it has words.",
)
def document_is_readable(
    context: dg.AssetCheckExecutionContext, warehouse: Warehouse
) -> dg.AssetCheckResult:
    """One evaluation per document of the run; a run of many ends with one for them together."""
    keys = list(context.op_execution_context.partition_keys)
    statuses = document_statuses(warehouse, keys)
    tried = read_records(warehouse, "raw_pdfs", "parsed_markdown").tried
    results = {
        key: ("", attempt.failure.error, 0) for (_, key), attempt in tried.items() if key in keys
    } | {
        row["document_id"]: (row["parser_status"], row["error"], row["pages"])
        for row in statuses.iter_rows(named=True)
    }
    if len(keys) > 1:
        for key in keys:
            status, error, pages = results.get(key, NOT_ON_RECORD)
            context.op_execution_context.log_event(
                dg.AssetCheckEvaluation(  # pyright: ignore[reportArgumentType]  (Dagster takes it)
                    asset_key=dg.AssetKey("parsed_markdown"),
                    check_name="document_is_readable",
                    passed=status == "SUCCESS",
                    severity=dg.AssetCheckSeverity.WARN,
                    description=error,
                    metadata={"status": status, "pages": pages},
                    partition=key,
                )
            )
    found = {key: results.get(key, NOT_ON_RECORD) for key in keys}
    failed = {key: error for key, (status, error, _) in found.items() if status != "SUCCESS"}
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{key}: {error}" for key, error in failed.items()) or None,
        metadata={"documents": len(keys), "unreadable": len(failed)},
    )
