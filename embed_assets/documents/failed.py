"""Which documents could not be read, as it is said everywhere: in the terminal and by the check."""

from dataclasses import dataclass

from embed_assets.documents.parsing import document_statuses
from embed_assets.resources.ledger import Cause, Records, read_records
from embed_assets.resources.warehouse import Warehouse


@dataclass(frozen=True)
class FailedDocument:
    """Why a document could not be read. final: whether only a change or a person starts another
    try.
    """

    error: str
    attempts: int = 1
    final: bool = True


def failed_documents(warehouse: Warehouse) -> dict[str, FailedDocument]:
    """Documents that could not be read as they are now, by id.

    What was made of an older file is no excuse, and an attempt at one that is no more no reproach.
    """
    errors = document_statuses(warehouse).filter(parser_status="ERROR")
    failed = {
        key: FailedDocument(error) for key, error in errors.select("document_id", "error").rows()
    }
    records = _records_of_failures(warehouse, "raw_pdfs", "parsed_markdown", "chunks")
    # Of a file that may not come in, raw_pdfs says why, and comes last; one that could not be read
    # can't be cut.
    for (asset, key), attempt in sorted(records.tried.items()):
        made_from = records.input_version(asset, key)
        if asset != "raw_pdfs" and attempt.input_version != made_from:
            continue  # of a file that is no more
        if attempt.failure.cause in (Cause.NEEDS_OCR, Cause.NO_LAYOUT):
            continue  # it was read: what it lacks is said of its pages, `needing_ocr` names it
        final = attempt.next_at is None
        failed[key] = FailedDocument(attempt.failure.error, attempt.attempts, final)
    return failed


def needing_ocr(warehouse: Warehouse) -> list[str]:
    """Paths of documents that have pages that only OCR may read, and were read without it."""
    records = _records_of_failures(warehouse, "raw_pdfs", "parsed_markdown")
    paths = warehouse.paths()
    return sorted(
        paths[key]
        for (asset, key), attempt in records.tried.items()
        if attempt.failure.other_means is Cause.NEEDS_OCR
        and not attempt.failure.tried_with
        and attempt.input_version == records.input_version(asset, key)
        and key in paths
    )


def _records_of_failures(warehouse: Warehouse, *assets: str) -> Records:
    """Records of the documents of which anything was tried in vain: of very many few are."""
    tried = warehouse.read("SELECT DISTINCT document_id FROM attempts")["document_id"]
    return read_records(warehouse, *assets, documents=tried.to_list())
