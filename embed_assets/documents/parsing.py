"""Documents become rows of parsed_markdown in the worker pool, or a row that says why not."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from embed_assets.documents.reading import PARSER, Page, count_pages, parse_pdf
from embed_assets.resources.ledger import Cause, Failure, Slices
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import Outcome, WorkerPool
from embed_assets.tables import TABLES
from embed_assets.terminal import progress_bar
from embed_assets.wording import counted

COUNT_TIMEOUT = 30.0
"""Seconds for counting the pages of a document; one that takes longer counts as one page."""
NOT_READ = "the file was not read"
PASSING = frozenset({Cause.PROCESS_ENDED, Cause.NO_MEMORY})
"""Causes that say nothing of the file."""


def parse_documents(
    raw_pdfs: pl.DataFrame, document_ids: Collection[str], pool: WorkerPool
) -> Slices:
    """Rows of parsed_markdown for these documents, whatever state their files are in.

    raw_pdfs: document_id, file_name, content. What a passing cause kept from being read has no
    rows: a status is a fact about the file.
    """
    there = raw_pdfs.sort("document_id")
    ids, contents = there["document_id"].to_list(), there["content"].to_list()
    rows: list[dict[str, Any]] = []
    incomplete: dict[str, Failure] = {}
    not_made = {
        key: Failure(Cause.UNREADABLE_FILE, NOT_READ) for key in set(document_ids) - set(ids)
    }
    if ids:
        with pool.start(len(ids)) as workers:
            pages = [
                of_document.result or 1
                for of_document in workers.map(count_pages, contents, timeout=COUNT_TIMEOUT)
            ]
            ended = 0
            with progress_bar("Parsing PDFs", sum(pages), "page") as bar:

                def move_on(done: Sequence[int]) -> None:
                    at_work = map(min, done[ended:], pages[ended:])
                    bar.update(max(0, sum(pages[:ended]) + sum(at_work) - bar.n))

                parsed = workers.map(parse_pdf, contents, watch=move_on)
                for key, outcome in zip(ids, parsed, strict=True):
                    failure = outcome.failure
                    if failure is not None and failure.cause in PASSING:
                        not_made[key] = failure
                    else:
                        rows += _rows(key, outcome)
                    if failure is not None and failure.cause is Cause.TIME_LIMIT:
                        incomplete[key] = failure
                    ended += 1
                    said = f"{ended} of {counted(len(ids), 'document')}"
                    said += f", next {ids[ended]}" if ended < len(ids) else ""
                    bar.set_postfix_str(said, refresh=False)
                    move_on([0] * len(ids))
    frame = pl.DataFrame(rows, schema=TABLES["parsed_markdown"].schema)
    return Slices(frame, not_made=not_made, incomplete=incomplete)


def _rows(document_id: str, outcome: Outcome[bytes, list[Page]]) -> list[dict[str, Any]]:
    """Rows of a document's pages, or one of page 0 that says why it has none."""
    pages = outcome.result or []
    if outcome.failure is not None:
        pages = [Page(0, "", outcome.failure.error)]
    elif all(page.error for page in pages):
        pages = [replace(pages[0], number=0)]
    elif not any(page.markdown for page in pages):
        reason = "no text on any page: scanned, or only pictures"
        return [_row(document_id, Page(0, "", reason), "EMPTY")]
    return [_row(document_id, page) for page in pages]


def _row(document_id: str, page: Page, status: str | None = None) -> dict[str, Any]:
    of_page = "SUCCESS" if page.markdown else "EMPTY"
    return {
        "document_id": document_id,
        "page": page.number,
        "markdown": page.markdown,
        "parser_status": status or ("ERROR" if page.error else of_page),
        "error": page.error,
        "parser": PARSER,
    }


def document_statuses(
    warehouse: Warehouse, document_ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """One row per document: document_id, parser_status, error, pages; of all without ids.

    A document with text on one page is a SUCCESS, whatever its other pages are.
    """
    which = "" if document_ids is None else "WHERE document_id IN (SELECT unnest(?::VARCHAR[])) "
    return warehouse.read(
        "SELECT document_id, CASE WHEN bool_or(parser_status = 'SUCCESS') THEN 'SUCCESS' "
        "ELSE arg_min(parser_status, page) END AS parser_status, "
        "arg_min(error, page) FILTER (error IS NOT NULL) AS error, "
        "count(*) FILTER (page > 0) AS pages "
        f"FROM parsed_markdown {which}GROUP BY document_id ORDER BY document_id",
        [] if document_ids is None else [list(document_ids)],
    )
